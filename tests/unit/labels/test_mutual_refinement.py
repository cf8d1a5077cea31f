from __future__ import annotations

import itertools
from typing import Literal

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from crosswalk.labels.mutual_refinement import (
    outliers_as_singletons,
    refine_mutually,
)

Search = Literal["exhaustive", "first"]


def unit_rows(num: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(num, 4, generator=generator, dtype=torch.float64))


def labels_of(num: int, num_clusters: int, outliers: float, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, max(1, num_clusters), (num,), generator=generator)
    return labels.masked_fill(torch.rand(num, generator=generator) < outliers, -1)


def others_by_similarity(rows: Tensor, labels: Tensor, index: int, own: list[int]) -> list[int]:
    members = [
        other
        for other, label in enumerate(labels.tolist())
        if label == labels[index] and other not in own
    ]
    similarity = {
        other: sum(a * b for a, b in zip(rows[index].tolist(), rows[other].tolist(), strict=True))
        for other in members
    }
    return sorted(members, key=lambda other: (-similarity[other], other))


def explicit(
    image_labels: Tensor,
    text_labels: Tensor,
    image_rows: Tensor,
    text_rows: Tensor,
    image_of_caption: list[int],
    search: Search,
) -> tuple[list[int], list[int]]:
    """Walk as the rule is written: instance by instance, member by member."""
    captions_of: list[list[int]] = [[] for _ in image_labels]
    for caption, image in enumerate(image_of_caption):
        captions_of[image].append(caption)
    images, texts = image_labels.tolist(), text_labels.tolist()
    for caption, image in enumerate(image_of_caption):
        if text_labels[caption] >= 0 or image_labels[image] < 0:
            continue
        others = others_by_similarity(image_rows, image_labels, image, [image])
        asked = [image, *(others if search == "exhaustive" else others[:1])]
        answers = [int(text_labels[c]) for other in asked for c in captions_of[other]]
        texts[caption] = next((label for label in answers if label >= 0), -1)
    for image, own in enumerate(captions_of):
        if image_labels[image] >= 0:
            continue
        answers = []
        for caption in own:
            if text_labels[caption] >= 0:
                others = others_by_similarity(text_rows, text_labels, caption, own)
                asked = others if search == "exhaustive" else others[:1]
                answers += [int(image_labels[image_of_caption[other]]) for other in asked]
        images[image] = next((label for label in answers if label >= 0), -1)
    return images, texts


SEARCHES: tuple[Search, ...] = ("exhaustive", "first")


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize(
    ("num", "image_clusters", "text_clusters", "outliers"),
    [
        (1, 1, 1, 0.5),
        (3, 1, 1, 0.5),
        (7, 2, 3, 0.4),
        (31, 5, 4, 0.5),
        (31, 1, 12, 0.3),
        (20, 3, 3, 1.0),  # all outliers
        (20, 3, 3, 0.0),  # none
    ],
)
def test_labels_match_a_walk_through_the_clusters(
    num: int, image_clusters: int, text_clusters: int, outliers: float, search: Search
) -> None:
    for seed in range(5):
        image_labels = labels_of(num, image_clusters, outliers, seed)
        text_labels = labels_of(num, text_clusters, outliers, seed + 100)
        image_rows, text_rows = unit_rows(num, seed), unit_rows(num, seed + 100)
        given = (image_labels, text_labels, image_rows, text_rows)

        image, text = refine_mutually(*given, search=search)

        assert (image.tolist(), text.tolist()) == explicit(*given, list(range(num)), search)


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize(("images", "captions"), [(1, 3), (3, 3), (7, 15), (20, 45), (9, 5)])
def test_labels_of_captions_with_rows_of_their_own_match_a_walk(
    images: int, captions: int, search: Search
) -> None:
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        image_of = torch.randint(0, images, (captions,), generator=generator)
        given = (
            labels_of(images, 3, 0.5, seed),
            labels_of(captions, 4, 0.5, seed + 100),
            unit_rows(images, seed),
            unit_rows(captions, seed + 100),
        )

        image, text = refine_mutually(*given, image_of, search=search)

        assert (image.tolist(), text.tolist()) == explicit(*given, image_of.tolist(), search)


def test_ties_go_to_the_lower_index_wherever_it_stands() -> None:
    for num in (5, 9, 40):
        rows = unit_rows(1, seed=num).float().expand(num, 4).contiguous()
        image_labels = torch.zeros(num, dtype=torch.int64)
        text_labels = torch.arange(num)
        text_labels[-1] = -1

        _, text = refine_mutually(image_labels, text_labels, rows, rows)

        assert text[-1] == 0


def test_both_directions_read_the_given_labels() -> None:
    # Caption 1 joins cluster 0, but image 2, which asks the captions like caption 1, must not
    # find it there: captions 1 and 2 were outliers.
    rows = normalize(torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.8, 0.2]]))

    image, text = refine_mutually(torch.tensor([5, 5, -1]), torch.tensor([0, -1, -1]), rows, rows)

    assert image.tolist() == [5, 5, -1]
    assert text.tolist() == [0, 0, -1]


def test_large_clusters_are_compared_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    given = (labels_of(50, 2, 0.4, 1), labels_of(50, 2, 0.4, 2), unit_rows(50, 1), unit_rows(50, 2))
    whole = refine_mutually(*given)

    for block in (1, 30):
        monkeypatch.setattr("crosswalk.labels.mutual_refinement.BLOCK", block)
        in_blocks = refine_mutually(*given)

        assert all(torch.equal(a, b) for a, b in zip(in_blocks, whole, strict=True))


def test_the_given_labels_are_not_written() -> None:
    image_labels, text_labels = torch.tensor([0, 0]), torch.tensor([-1, 2])
    rows = unit_rows(2, 1)

    image, text = refine_mutually(image_labels, text_labels, rows, rows)

    assert text.tolist() == [2, 2]
    assert text_labels.tolist() == [-1, 2]
    image.zero_()
    assert image_labels.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("sizes", "owners", "message"),
    [
        ((3, 4, 3, 4), None, "4 captions and 3 images: say in `image_of_caption`"),
        ((3, 4, 3, 4), [0, 1, 2], "4 captions, but `image_of_caption` has 3"),
        ((3, 3, 2, 3), None, "3 labels for 2 image rows"),
        ((3, 3, 3, 5), None, "3 labels for 5 text rows"),
    ],
)
def test_what_does_not_fit_is_refused(
    sizes: tuple[int, ...], owners: list[int] | None, message: str
) -> None:
    image_of_caption = None if owners is None else torch.tensor(owners)
    with pytest.raises(ValueError, match=message):
        refine_mutually(
            labels_of(sizes[0], 2, 0.5, 0),
            labels_of(sizes[1], 2, 0.5, 0),
            unit_rows(sizes[2], 0),
            unit_rows(sizes[3], 0),
            image_of_caption,
        )


def test_outliers_are_numbered_on_from_the_clusters_in_their_order() -> None:
    for labels in itertools.product((-1, 0, 1), repeat=4):
        expected, number = [], max(labels) + 1
        for label in labels:
            expected.append(number if label < 0 else label)
            number += label < 0

        assert outliers_as_singletons(torch.tensor(labels)).tolist() == expected


def test_no_labels_have_no_singletons() -> None:
    assert outliers_as_singletons(torch.zeros(0, dtype=torch.int64)).tolist() == []

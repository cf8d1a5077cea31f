"""What holds for any labels, rows and pairing: refinement, singletons, memories."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import normalize

from crosswalk.labels.mutual_refinement import outliers_as_singletons, refine_mutually
from crosswalk.memory.cluster_memory import ClusterMemory
from crosswalk.memory.hybrid_memory import HybridMemory

SEARCHES = ["exhaustive", "first"]
MEMORIES = [HybridMemory, ClusterMemory]


class Clusterings(NamedTuple):
    """Labels and rows of images and of their captions, and which caption belongs where."""

    image_labels: Tensor
    text_labels: Tensor
    image_rows: Tensor
    text_rows: Tensor
    image_of_caption: Tensor


def unit_rows(num: int, generator: torch.Generator) -> Tensor:
    return normalize(torch.randn(num, 4, generator=generator, dtype=torch.float64))


def labels_of(num: int, clusters: int, outliers: float, generator: torch.Generator) -> Tensor:
    labels = torch.randint(0, clusters, (num,), generator=generator)
    labels[torch.rand(num, generator=generator) < outliers] = -1
    _, number = torch.unique(labels, return_inverse=True)
    return number - int((labels < 0).any())


@st.composite
def clusterings(draw: st.DrawFn) -> Clusterings:
    """Up to 25 images with no, one or more captions each; all or none may be outliers."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    images, captions = draw(st.integers(1, 25)), draw(st.integers(1, 40))
    shares = st.sampled_from([0.0, 0.3, 0.6, 1.0])
    return Clusterings(
        labels_of(images, draw(st.integers(1, 6)), draw(shares), generator),
        labels_of(captions, draw(st.integers(1, 6)), draw(shares), generator),
        unit_rows(images, generator),
        unit_rows(captions, generator),
        torch.randint(0, images, (captions,), generator=generator),
    )


@st.composite
def paired_clusterings(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Up to 25 images with one caption each."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    size = draw(st.integers(1, 25))
    shares = st.sampled_from([0.0, 0.3, 0.6, 1.0])
    labels = [labels_of(size, draw(st.integers(1, 6)), draw(shares), generator) for _ in range(2)]
    return labels[0], labels[1], unit_rows(size, generator), unit_rows(size, generator)


def renamed(labels: Tensor, seed: int) -> Tensor:
    """Return the labels under other cluster numbers; outliers stay outliers."""
    names = torch.randperm(100, generator=torch.Generator().manual_seed(seed))
    return torch.where(labels < 0, labels, names[labels])


def permuted(num: int, seed: int) -> Tensor:
    return torch.randperm(num, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("search", SEARCHES)
@settings(max_examples=60, deadline=None)
@given(case=paired_clusterings(), seed=st.integers(0, 10_000))
def test_refined_labels_of_permuted_pairs_are_the_permuted_refined_labels(
    search: str, case: tuple[Tensor, ...], seed: int
) -> None:
    order = permuted(len(case[0]), seed)

    refined = refine_mutually(*(part[order] for part in case), search=search)

    for ours, expected in zip(refined, refine_mutually(*case, search=search), strict=True):
        assert torch.equal(ours, expected[order])


@pytest.mark.parametrize("search", SEARCHES)
@settings(max_examples=60, deadline=None)
@given(case=clusterings(), seed=st.integers(0, 10_000))
def test_the_order_of_images_with_captions_of_their_own_does_not_matter(
    search: str, case: Clusterings, seed: int
) -> None:
    order = permuted(len(case.image_labels), seed)
    place = order.argsort()

    image, text = refine_mutually(
        case.image_labels[order],
        case.text_labels,
        case.image_rows[order],
        case.text_rows,
        place[case.image_of_caption],
        search=search,
    )

    expected = refine_mutually(*case, search=search)
    assert torch.equal(image, expected[0][order])
    assert torch.equal(text, expected[1])


@pytest.mark.parametrize("search", SEARCHES)
@settings(max_examples=60, deadline=None)
@given(case=clusterings(), seeds=st.tuples(st.integers(0, 10_000), st.integers(0, 10_000)))
def test_clusters_of_other_names_are_refined_alike(
    search: str, case: Clusterings, seeds: tuple[int, int]
) -> None:
    named = case._replace(
        image_labels=renamed(case.image_labels, seeds[0]),
        text_labels=renamed(case.text_labels, seeds[1]),
    )

    refined = refine_mutually(*named, search=search)

    for ours, expected, seed in zip(
        refined, refine_mutually(*case, search=search), seeds, strict=True
    ):
        assert torch.equal(ours, renamed(expected, seed))


@pytest.mark.parametrize("search", SEARCHES)
@settings(max_examples=60, deadline=None)
@given(case=clusterings())
def test_only_outliers_whose_partner_is_clustered_change_and_only_to_a_label_they_were_told(
    search: str, case: Clusterings
) -> None:
    image, text = refine_mutually(*case, search=search)

    image_of, changed = case.image_of_caption, (text != case.text_labels).nonzero().flatten()
    for caption in changed.tolist():
        cluster = case.image_labels[image_of[caption]]
        told = case.text_labels[case.image_labels[image_of] == cluster]
        assert case.text_labels[caption] == -1
        assert cluster >= 0
        assert text[caption] in told
        assert text[caption] >= 0
    for number in (image != case.image_labels).nonzero().flatten().tolist():
        own = case.text_labels[image_of == number]
        asked = torch.isin(case.text_labels, own[own >= 0])
        assert case.image_labels[number] == -1
        assert image[number] in case.image_labels[image_of[asked]]
        assert image[number] >= 0


@settings(max_examples=60, deadline=None)
@given(case=clusterings())
def test_asking_the_whole_cluster_labels_what_asking_the_first_member_labels(
    case: Clusterings,
) -> None:
    first = refine_mutually(*case, search="first")
    exhaustive = refine_mutually(*case, search="exhaustive")

    for few, many in zip(first, exhaustive, strict=True):
        assert bool((many[few >= 0] >= 0).all())
    # a caption that learned from the first one asked learns the same from the whole cluster
    assert torch.equal(exhaustive[1][first[1] >= 0], first[1][first[1] >= 0])


@settings(max_examples=60, deadline=None)
@given(case=paired_clusterings())
def test_one_caption_per_image_needs_no_pairing(case: tuple[Tensor, ...]) -> None:
    pairing = torch.arange(len(case[0]))

    without, told = refine_mutually(*case), refine_mutually(*case, pairing)

    assert all(torch.equal(a, b) for a, b in zip(without, told, strict=True))


@settings(max_examples=60, deadline=None)
@given(case=clusterings())
def test_swapping_the_modalities_of_paired_data_swaps_the_labels(case: Clusterings) -> None:
    size = min(len(case.image_labels), len(case.text_labels))
    image_labels, text_labels, image_rows, text_rows = (part[:size] for part in case[:4])

    image, text = refine_mutually(image_labels, text_labels, image_rows, text_rows)

    swapped = refine_mutually(text_labels, image_labels, text_rows, image_rows)
    assert torch.equal(swapped[0], text)
    assert torch.equal(swapped[1], image)


@settings(max_examples=60, deadline=None)
@given(case=clusterings())
def test_singletons_share_their_class_with_nobody_and_clusters_keep_theirs(
    case: Clusterings,
) -> None:
    labels = case.image_labels

    classes = outliers_as_singletons(labels)

    assert torch.equal(classes[labels >= 0], labels[labels >= 0])
    assert sorted(set(classes.tolist())) == list(range(int(classes.max()) + 1))
    same = classes[:, None] == classes
    assert torch.equal(same.sum(dim=1)[labels < 0], torch.ones(int((labels < 0).sum())).long())


@pytest.mark.parametrize("kind", MEMORIES)
@settings(max_examples=40, deadline=None)
@given(
    size=st.integers(1, 12),
    written=st.lists(st.integers(0, 11), max_size=9),
    momentum=st.floats(0, 1),
    seed=st.integers(0, 10_000),
)
def test_a_memory_loaded_from_its_state_dict_goes_on_as_the_one_it_came_from(
    kind: type[HybridMemory | ClusterMemory],
    size: int,
    written: list[int],
    momentum: float,
    seed: int,
) -> None:
    generator = torch.Generator().manual_seed(seed)
    memory, restored = kind(size, 4).double(), kind(size, 4).double()
    memory.fill(unit_rows(size, generator))
    memory.relabel(outliers_as_singletons(labels_of(size, 3, 0.4, generator)))
    slot = torch.tensor(written, dtype=torch.int64) % size
    embedding, query = unit_rows(len(slot), generator), unit_rows(3, generator)
    memory.update(embedding, slot, momentum=momentum)

    restored.load_state_dict(memory.state_dict())
    for each in (memory, restored):
        each.update(embedding.flip(0), slot.flip(0), momentum=momentum)

    assert torch.equal(restored.scores(query), memory.scores(query))
    for each in (memory, restored):
        each.relabel(torch.zeros(size, dtype=torch.int64))
    assert torch.equal(restored.scores(query), memory.scores(query))


@pytest.mark.parametrize("kind", MEMORIES)
@settings(max_examples=40, deadline=None)
@given(size=st.integers(1, 12), seed=st.integers(0, 10_000))
def test_scores_do_not_depend_on_the_order_of_the_slots(
    kind: type[HybridMemory | ClusterMemory], size: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows, labels = unit_rows(size, generator), labels_of(size, 3, 0.0, generator)
    order, query = torch.randperm(size, generator=generator), unit_rows(2, generator)
    one, other = kind(size, 4).double(), kind(size, 4).double()

    for memory, places in ((one, torch.arange(size)), (other, order)):
        memory.fill(rows[places])
        memory.relabel(labels[places])

    assert torch.allclose(other.scores(query), one.scores(query), rtol=1e-9, atol=1e-12)

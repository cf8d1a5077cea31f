"""A validation split for image sets, which come without one."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from crosswalk.data.readers.records import ImageSplits, Record
from crosswalk.words import counted


def carve_val_images(
    splits: ImageSplits, num_person_ids: int | None, *, seed: int, camera_rule: bool = True
) -> ImageSplits:
    """Return ``splits`` with some train identities, all their images, moved to a val split.

    Whole identities move, so that val measures what test does: people never seen in training.
    Their images are divided as those of the published test sets are: one query of every camera
    with at least two images of a person, all other images to the gallery. Only people are
    chosen whose queries have matches. The choice depends on the train records, the number and
    the seed only. An unsupervised method that is evaluated on val uses the labels of its people,
    to divide and to score, and of nobody else.

    Args:
        splits: Splits without a val split.
        num_person_ids: How many identities to move; None is a tenth of all.
        seed: Seed of the choice.
        camera_rule: Whether matches by the query's own camera do not count.

    Raises:
        ValueError: If there is a val split already, no labels, or too few identities.

    Example:
        >>> from pathlib import Path
        >>> records = [(person, camera) for person in range(4) for camera in (1, 1, 2)]
        >>> train = tuple(Record(Path(f"{n}.jpg"), *ids) for n, ids in enumerate(records))
        >>> carved = carve_val_images(ImageSplits("own", Path(), ".", train, (), ()), 1, seed=0)
        >>> len(carved.train), [record.camera_id for record in carved.val_query]
        (9, [1])
        >>> [record.camera_id for record in carved.val_gallery]
        [1, 2]
    """
    if splits.val_query or splits.val_gallery:
        raise ValueError(
            f"{splits.dataset} has a val split of {counted(len(splits.val_query), 'query')}; "
            "none can be carved from train. Remove data.val_person_ids."
        )
    if not splits.train_is_labelled:
        raise ValueError(
            f"The training images of {splits.dataset} in {splits.root} have no person ids, so no "
            "people can be held out of training (protocol=val). Use protocol=last, or "
            "add labelled images as val_query and val_gallery."
        )
    images: dict[int, list[int]] = {}
    for place, record in enumerate(splits.train):
        images.setdefault(record.person_id, []).append(place)
    useful = [
        person_id
        for person_id in sorted(images)
        if _has_matches([splits.train[place].camera_id for place in images[person_id]], camera_rule)
    ]
    wanted = max(1, len(images) // 10) if num_person_ids is None else num_person_ids
    largest = min(len(useful), len(images) - 1)
    if not 1 <= wanted <= largest:
        choice = (
            f"choose 1 to {largest:,}" if largest > 0 else "use protocol=last, without a val split"
        )
        raise ValueError(
            f"data.val_person_ids={wanted} does not fit: train has {len(images):,} identities, "
            f"of whom {len(useful):,} have images of two cameras to make a query and a match of; "
            f"{choice}."
        )
    draw = random.Random(seed)
    chosen = set(draw.sample(useful, wanted))
    queries: set[int] = set()
    for person_id in sorted(chosen):
        queries |= _queries(images[person_id], splits.train, draw)
    held_out = [(n, record) for n, record in enumerate(splits.train) if record.person_id in chosen]
    notice = (
        f"val is {wanted:,} of the {len(images):,} train identities, chosen with seed {seed}: one "
        "query of each of their cameras, all their other images as gallery. A training is on "
        "the rest; published ones are on all (protocol=last)."
    )
    published = dict(splits.published or {})
    published.pop("train", None)
    return replace(
        splits,
        train=tuple(record for record in splits.train if record.person_id not in chosen),
        val_query=tuple(record for place, record in held_out if place in queries),
        val_gallery=tuple(record for place, record in held_out if place not in queries),
        notices=(*splits.notices, notice),
        published=published,
    )


def _has_matches(camera_ids: Sequence[int], camera_rule: bool) -> bool:
    """Return whether each query that `_queries` draws of these images has a match."""
    if len(set(camera_ids)) > 1:
        return True
    return len(camera_ids) > 1 and (not camera_rule or camera_ids[0] < 0)


def _queries(images: Sequence[int], records: Sequence[Record], draw: random.Random) -> set[int]:
    """Return one image of every camera that has two of the person, or one where none has.

    A camera keeps at least one image for the gallery, so queries of other cameras find a match.
    """
    by_camera: dict[int, list[int]] = {}
    for place in images:
        by_camera.setdefault(records[place].camera_id, []).append(place)
    several = [places for _, places in sorted(by_camera.items()) if len(places) > 1]
    return {draw.choice(places) for places in several} or {draw.choice(list(images))}

"""The layout of Market-1501: where its files lie and what they are called."""

from __future__ import annotations

from collections.abc import Sequence

from crosswalk.synthetic.image_layout import ImageLayout, no_lists
from crosswalk.synthetic.randomness import keyed_generator
from crosswalk.synthetic.sightings import Crowd, SetSize, Sighting

_FOLDERS = {
    "train": "bounding_box_train",
    "query": "query",
    "gallery": "bounding_box_test",
    "distractor": "bounding_box_test",
    "junk": "bounding_box_test",
}
_FRAMES_BETWEEN = 25  # one second


def image_paths(sightings: Sequence[Sighting], *, look_name: str, seed: int) -> list[str]:
    """Return where each image lies: ``<label>_c<camera>s<sequence>_<frame>_<box>.jpg``.

    Queries are boxes drawn by hand and have number 00, detections count from 01.

    Args:
        sightings: All images.
        look_name: Keys the random streams, with the seed.
        seed: Seed of the set.

    Returns:
        Relative paths with forward slashes; no two images have the same name.

    Example:
        >>> image_paths([Sighting("query", 3, 2, 0, 0)], look_name="summer", seed=0)
        ['query/0002_c1s4_068276_00.jpg']
    """
    rng = keyed_generator(seed, look_name, "names")
    paths: list[str] = []
    taken: set[str] = set()
    visit, sequence, start = (0, 0, 0), 0, 0
    for sighting in sightings:
        here = (sighting.label, sighting.character, sighting.camera)
        if here != visit or sighting.label < 1:
            visit, sequence = here, int(rng.integers(1, 7))
            start = 1 + _FRAMES_BETWEEN * int(rng.integers(0, 4_000))
            steps = 0
        frame = start + _FRAMES_BETWEEN * steps
        steps += 1
        label = f"{sighting.label:04d}" if sighting.label >= 0 else "-1"
        box = 0 if sighting.role == "query" else 1
        stem = f"{label}_c{sighting.camera + 1}s{sequence}_{frame:06d}"
        while f"{stem}_{box:02d}" in taken:
            box += 1
        taken.add(f"{stem}_{box:02d}")
        paths.append(f"{_FOLDERS[sighting.role]}/{stem}_{box:02d}.jpg")
    return paths


SIZES = {
    "tiny": SetSize(Crowd(12, 28, 60), Crowd(4, 8, 25), distractors=2, junk=1),
    "toy": SetSize(Crowd(160, 530, 1_600), Crowd(60, 200, 850), distractors=140, junk=110),
    "small": SetSize(Crowd(400, 1_560, 6_400), Crowd(240, 800, 3_400), distractors=560, junk=440),
    # Market-1501
    "full": SetSize(
        Crowd(751, 3_372, 12_936), Crowd(750, 3_368, 16_483), distractors=2_798, junk=3_819
    ),
}

MARKET1501 = ImageLayout(
    dataset="market1501",
    folder="Market-1501-v15.09.15",
    look="summer",
    sizes=SIZES,
    image_paths=image_paths,
    write_lists=no_lists,
)

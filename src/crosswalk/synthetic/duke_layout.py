"""The layout of DukeMTMC-reID: where its files lie and what they are called."""

from __future__ import annotations

from collections.abc import Sequence

from crosswalk.synthetic.image_layout import ImageLayout, no_lists
from crosswalk.synthetic.randomness import keyed_generator
from crosswalk.synthetic.sightings import Crowd, SetSize, Sighting

_FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
_FRAMES_BETWEEN = 120  # two seconds


def image_paths(sightings: Sequence[Sighting], *, look_name: str, seed: int) -> list[str]:
    """Return where each image lies: ``<label>_c<camera>_f<frame>.jpg``, labels with gaps.

    Args:
        sightings: All images, those of one person's visit to a camera side by side.
        look_name: Keys the random streams, with the seed.
        seed: Seed of the set.

    Returns:
        Relative paths with forward slashes; no two images have the same name.

    Example:
        >>> image_paths([Sighting("query", 3, 2, 0, 0)], look_name="winter", seed=0)
        ['query/0005_c1_f0271086.jpg']
    """
    rng = keyed_generator(seed, look_name, "names")
    last = max(sighting.label for sighting in sightings)
    labels = 1 + rng.choice(3 * last, last, replace=False)
    labels.sort()
    paths, visit, frame = [], (0, -1), 0
    for sighting in sightings:
        here = (sighting.label, sighting.camera)
        frame += _FRAMES_BETWEEN
        if here != visit:
            visit, frame = here, 44_158 + int(rng.integers(0, 240_000))
        label = labels[sighting.label - 1]
        name = f"{label:04d}_c{sighting.camera + 1}_f{frame:07d}.jpg"
        paths.append(f"{_FOLDERS[sighting.role]}/{name}")
    return paths


SIZES = {
    "tiny": SetSize(Crowd(12, 28, 60), Crowd(4, 8, 25), bystanders=Crowd(1, 1, 3)),
    "toy": SetSize(Crowd(160, 530, 1_600), Crowd(60, 200, 900), bystanders=Crowd(35, 35, 200)),
    "small": SetSize(
        Crowd(400, 1_300, 6_400), Crowd(240, 800, 3_600), bystanders=Crowd(140, 140, 800)
    ),
    # DukeMTMC-reID
    "full": SetSize(
        Crowd(702, 2_230, 16_522), Crowd(702, 2_228, 17_441), bystanders=Crowd(408, 408, 2_448)
    ),
}

DUKEMTMC = ImageLayout(
    dataset="dukemtmc",
    folder="DukeMTMC-reID",
    look="winter",
    sizes=SIZES,
    image_paths=image_paths,
    write_lists=no_lists,
)

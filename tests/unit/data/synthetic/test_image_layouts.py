"""File names and lists of the image layouts."""

import re
from pathlib import Path

import pytest

from crosswalk.data.readers.camera_names import parse_name
from crosswalk.synthetic.images import IMAGE_LAYOUTS
from crosswalk.synthetic.sightings import Crowd, SetSize, Sighting, plan_of

SIZE = SetSize(
    Crowd(5, 13, 47), Crowd(3, 8, 31), val_images=4, bystanders=Crowd(2, 2, 5), distractors=40
)
GRAMMAR = {
    "market1501": r"(bounding_box_(train|test)|query)/(-1|\d{4})_c[1-7]s[1-6]_\d{6}_\d\d",
    "dukemtmc": r"(bounding_box_(train|test)|query)/\d{4}_c[1-7]_f\d{7}",
    "msmt17": r"(train|test)/(\d{4})/\2_\d{3}_0[1-7]_\d{4}(morning|noon|afternoon)_\d{4}_\d",
}


def size_of(layout: str) -> SetSize:
    if layout == "market1501":
        return SetSize(SIZE.train, SIZE.test, distractors=40, junk=60)
    if layout == "dukemtmc":
        return SetSize(SIZE.train, SIZE.test, bystanders=SIZE.bystanders)
    return SetSize(SIZE.train, SIZE.test, val_images=4)


def named(layout: str, seed: int = 2) -> tuple[tuple[Sighting, ...], list[str]]:
    files = IMAGE_LAYOUTS[layout]
    plan = plan_of(size_of(layout), num_cameras=7, look_name=files.look, seed=seed)
    return plan, files.image_paths(plan, look_name=files.look, seed=seed)


@pytest.mark.parametrize("layout", IMAGE_LAYOUTS)
def test_names_follow_the_grammar_and_no_two_are_the_same(layout: str) -> None:
    plan, paths = named(layout)

    assert len({Path(path).name for path in paths}) == len(paths) == len(plan)
    for path in paths:
        assert re.fullmatch(GRAMMAR[layout] + r"\.jpg", path), path


@pytest.mark.parametrize("layout", ["market1501", "dukemtmc"])
def test_names_say_person_and_camera(layout: str) -> None:
    plan, paths = named(layout)
    label_of = {}
    for sighting, path in zip(plan, paths, strict=True):
        person_id, camera_id = parse_name(path)
        assert camera_id == sighting.camera + 1
        assert label_of.setdefault(person_id, sighting.label) == sighting.label

    assert len(label_of) == len({sighting.label for sighting in plan})


def test_distractors_are_person_0_and_junk_is_minus_1_in_the_test_folder_of_market() -> None:
    for sighting, path in zip(*named("market1501"), strict=True):
        start = {"distractor": "bounding_box_test/0000_", "junk": "bounding_box_test/-1_"}
        assert path.startswith(start.get(sighting.role, "")), path
        assert (sighting.role == "query") == path.endswith("_00.jpg")


def test_ids_of_duke_have_gaps() -> None:
    _, paths = named("dukemtmc")

    ids = {parse_name(path).person_id for path in paths}
    assert len(ids) == 10
    assert max(ids) > 10


def test_two_boxes_of_one_frame_have_different_numbers() -> None:
    image_paths = IMAGE_LAYOUTS["market1501"].image_paths
    crowded = [Sighting("distractor", number, 0, 0, number) for number in range(40_000)]

    paths = image_paths(crowded, look_name="summer", seed=0)

    assert len(set(paths)) == 40_000
    assert max(path[-6:-4] for path in paths) >= "04"


def test_lists_of_msmt17_hold_every_image_once_with_ids_from_0_in_train_and_test(
    tmp_path: Path,
) -> None:
    plan, paths = named("msmt17")

    IMAGE_LAYOUTS["msmt17"].write_lists(tmp_path, plan, paths)

    seen = []
    for split, part, persons in (
        ("train", "train", 5), ("val", "train", 5), ("query", "test", 3), ("gallery", "test", 3)
    ):  # fmt: skip
        lines = (tmp_path / f"list_{split}.txt").read_text().splitlines()
        assert len(lines) == sum(sighting.role == split for sighting in plan)
        assert lines == sorted(lines)
        for line in lines:
            path, person_id = line.split(" ")
            assert path.startswith(f"{int(person_id):04d}/{int(person_id):04d}_")
            seen.append(f"{part}/{path}")
        ids = {int(line.split(" ")[1]) for line in lines}
        assert ids <= set(range(persons))
        assert split == "val" or ids == set(range(persons))
    assert sorted(seen) == sorted(paths)
    third = [path.rsplit("/", 1)[1].split("_")[2] for path in paths]
    assert third == [f"{sighting.camera + 1:02d}" for sighting in plan]

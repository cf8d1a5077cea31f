"""The plan of an image set: how much there is, and that every query can be answered."""

from collections import Counter, defaultdict

import pytest

from crosswalk.synthetic.images import IMAGE_LAYOUTS, split_counts
from crosswalk.synthetic.looks import look_named
from crosswalk.synthetic.sightings import Crowd, SetSize, Sighting, by_person, plan_of

CASES = [
    (layout, size, seed)
    for layout in IMAGE_LAYOUTS
    for size, seed in (("tiny", 0), ("tiny", 3), ("toy", 0), ("small", 1))
]
PUBLISHED = {
    "market1501": {"train": (751, 12_936), "query": (750, 3_368), "gallery": (751, 15_913)},
    "dukemtmc": {"train": (702, 16_522), "query": (702, 2_228), "gallery": (1_110, 17_661)},
    "msmt17": {"train": (1_041, 32_621), "query": (3_060, 11_659), "gallery": (3_060, 82_161)},
}


def planned(layout: str, size: str, seed: int = 0) -> tuple[Sighting, ...]:
    files = IMAGE_LAYOUTS[layout]
    num_cameras = sum(look_named(files.look).cameras.values())
    return plan_of(files.sizes[size], num_cameras=num_cameras, look_name=files.look, seed=seed)


@pytest.mark.parametrize("layout", IMAGE_LAYOUTS)
def test_the_full_size_has_the_published_counts(layout: str) -> None:
    counts = split_counts(planned(layout, "full"))

    assert {
        split: (count["person_ids"], count["images"]) for split, count in counts.items()
    } == PUBLISHED[layout]


def test_the_full_sizes_have_the_published_junk_distractors_and_val_images() -> None:
    market = Counter(sighting.role for sighting in planned("market1501", "full"))
    msmt17 = Counter(sighting.role for sighting in planned("msmt17", "full"))

    assert (market["junk"], market["distractor"]) == (3_819, 2_798)
    assert (msmt17["train"], msmt17["val"]) == (30_248, 2_373)


@pytest.mark.parametrize(("layout", "size", "seed"), CASES)
def test_every_query_has_an_image_by_another_camera_in_the_gallery(
    layout: str, size: str, seed: int
) -> None:
    plan = planned(layout, size, seed)
    cameras = defaultdict(set)
    for sighting in plan:
        if sighting.role == "gallery":
            cameras[sighting.label].add(sighting.camera)

    queries = [sighting for sighting in plan if sighting.role == "query"]
    assert len({(query.label, query.camera) for query in queries}) == len(queries) > 0
    for query in queries:
        assert cameras[query.label] - {query.camera}


@pytest.mark.parametrize(("layout", "size", "seed"), CASES)
def test_train_people_are_seen_by_two_cameras_or_more_and_nobody_is_in_test_too(
    layout: str, size: str, seed: int
) -> None:
    plan = planned(layout, size, seed)
    cameras = defaultdict(set)
    for sighting in plan:
        if sighting.role in ("train", "val"):
            cameras[sighting.label].add(sighting.camera)

    assert min(len(seen) for seen in cameras.values()) >= 2
    assert not cameras.keys() & {
        sighting.label for sighting in plan if sighting.role in ("query", "gallery")
    }
    shown = {s.character for s in plan if s.role in ("train", "val")}
    assert not shown & {s.character for s in plan if s.role not in ("train", "val")}


@pytest.mark.parametrize("layout", IMAGE_LAYOUTS)
def test_all_cameras_of_the_layout_see_people_and_most_people_come_by_two_to_five(
    layout: str,
) -> None:
    plan = planned(layout, "toy")
    cameras = defaultdict(set)
    for sighting in plan:
        if sighting.role in ("train", "query"):
            cameras[sighting.label].add(sighting.camera)

    number = {"market1501": 6, "dukemtmc": 8, "msmt17": 15}[layout]
    assert set().union(*cameras.values()) == set(range(number))
    few = [2 <= len(seen) <= 5 for seen in cameras.values()]
    assert sum(few) > 0.8 * len(few)


def test_everybody_of_val_is_in_train() -> None:
    plan = planned("msmt17", "tiny")

    train = {sighting.label for sighting in plan if sighting.role == "train"}
    val = [sighting.label for sighting in plan if sighting.role == "val"]
    assert len(val) == 6
    assert set(val) <= train
    assert len(train) == 12


def test_junk_shows_people_of_test_and_distractors_show_strangers() -> None:
    plan = planned("market1501", "toy")
    shown = defaultdict(set)
    for sighting in plan:
        shown[sighting.role].add(sighting.character)

    assert shown["junk"] <= shown["query"]
    assert not shown["distractor"] & (shown["train"] | shown["query"])
    assert {s.label for s in plan if s.role == "junk"} == {-1}
    assert {s.label for s in plan if s.role == "distractor"} == {0}


def test_people_of_a_set_that_is_as_full_as_can_be_are_seen_by_all_cameras() -> None:
    size = SetSize(Crowd(3, 9, 9), Crowd(2, 6, 12))

    plan = plan_of(size, num_cameras=3, look_name="summer", seed=4)

    visits = Counter((sighting.character, sighting.camera) for sighting in plan)
    assert visits == {
        (person, camera): 1 if person <= 3 else 2 for person in range(1, 6) for camera in range(3)
    }


def test_a_plan_depends_on_the_seed_and_on_the_look() -> None:
    size = SetSize(Crowd(5, 12, 30), Crowd(3, 7, 20))
    plan = plan_of(size, num_cameras=6, look_name="summer", seed=0)

    assert plan == plan_of(size, num_cameras=6, look_name="summer", seed=0)
    assert plan != plan_of(size, num_cameras=6, look_name="summer", seed=1)
    assert plan != plan_of(size, num_cameras=6, look_name="winter", seed=0)


def test_runs_of_one_person_cover_the_plan() -> None:
    plan = planned("market1501", "tiny")

    runs = list(by_person(plan))

    assert [start for start, _ in runs] == [0, *(end for _, end in runs[:-1])]
    assert runs[-1][1] == len(plan)
    assert all(len({s.character for s in plan[start:end]}) == 1 for start, end in runs)

import random
from collections import Counter
from pathlib import Path

import pytest

from crosswalk.data.readers.records import ImageSplits, Record
from crosswalk.data.readers.val_split import carve_val_images

# Images of each camera, by person.
SIGHTINGS = {
    3: {1: 2, 2: 1},
    4: {1: 1, 2: 1, 5: 1},  # no camera has two
    7: {2: 5},  # one camera only
    9: {1: 3, 2: 4, 5: 1},
    12: {-1: 3},  # unknown cameras
    20: {4: 1},  # a single image
    31: {1: 2, 4: 2},
}


def read(sightings: dict[int, dict[int, int]] = SIGHTINGS) -> ImageSplits:
    train = [
        Record(Path(f"{person}_{camera}_{n}.jpg"), person, camera)
        for person, cameras in sightings.items()
        for camera, number in cameras.items()
        for n in range(number)
    ]
    query = (Record(Path("q.jpg"), 1, 1),)
    return ImageSplits("tiny", Path(), ".", tuple(train), query, query, published={"train": {}})


def matches(query: Record, gallery: tuple[Record, ...], camera_rule: bool) -> int:
    return sum(
        record.person_id == query.person_id
        and not (camera_rule and record.camera_id == query.camera_id and query.camera_id >= 0)
        for record in gallery
    )


@pytest.mark.parametrize("camera_rule", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_whole_people_move_to_val_and_every_query_has_a_match(seed: int, camera_rule: bool) -> None:
    splits = read()

    carved = carve_val_images(splits, 3, seed=seed, camera_rule=camera_rule)

    moved = {record.person_id for record in carved.val_query}
    assert len(moved) == 3
    assert sorted(
        (*carved.train, *carved.val_query, *carved.val_gallery), key=splits.train.index
    ) == list(splits.train)
    assert moved.isdisjoint(record.person_id for record in carved.train)
    assert {record.person_id for record in carved.val_gallery} == moved
    assert min(matches(q, carved.val_gallery, camera_rule) for q in carved.val_query) > 0
    assert (carved.query, carved.gallery) == (splits.query, splits.gallery)


def test_a_query_is_taken_of_every_camera_with_two_images_of_a_person() -> None:
    carved = carve_val_images(read(), 5, seed=0)

    queries = Counter((record.person_id, record.camera_id) for record in carved.val_query)
    (of_four,) = (camera for person, camera in queries if person == 4)
    assert of_four in (1, 2, 5)
    assert queries == Counter([(3, 1), (4, of_four), (9, 1), (9, 2), (12, -1), (31, 1), (31, 4)])


@pytest.mark.parametrize(("camera_rule", "people"), [(True, 5), (False, 6)])
def test_people_without_matches_stay_in_training(camera_rule: bool, people: int) -> None:
    carved = carve_val_images(read(), people, seed=0, camera_rule=camera_rule)

    kept = {record.person_id for record in carved.train}
    assert kept == ({7, 20} if camera_rule else {20})


def test_the_choice_follows_the_seed() -> None:
    choices = {
        seed: carve_val_images(read(), 2, seed=seed).val_query for seed in [*range(20), 0, 1]
    }

    people = {tuple(sorted({record.person_id for record in q})) for q in choices.values()}
    assert len(people) > 5
    assert choices[0] == carve_val_images(read(), 2, seed=0).val_query


def test_other_random_numbers_change_nothing() -> None:
    random.seed(5)
    first = carve_val_images(read(), 2, seed=0)
    state = random.getstate()

    assert carve_val_images(read(), 2, seed=0) == first
    assert random.getstate() == state


def test_every_eligible_person_is_chosen_equally_often() -> None:
    counts: Counter[int] = Counter()
    for seed in range(1000):
        counts.update({r.person_id for r in carve_val_images(read(), 1, seed=seed).val_query})

    # five people: 200 expected, standard deviation sqrt(1000 * 0.2 * 0.8) = 12.6
    assert counts.keys() == {3, 4, 9, 12, 31}
    assert max(abs(count - 200) for count in counts.values()) < 5 * 12.6


def test_a_tenth_is_held_out_unless_a_number_is_given() -> None:
    splits = read({person: {1: 2, 2: 2} for person in range(35)})

    carved = carve_val_images(splits, None, seed=1)

    assert len({record.person_id for record in carved.val_query}) == 3
    assert len(carve_val_images(read(), None, seed=1).val_query) >= 1


def test_the_split_is_told_and_published_counts_do_not_apply_to_train() -> None:
    carved = carve_val_images(read(), 2, seed=4)

    assert carved.notices == (
        "val is 2 of the 7 train identities, chosen with seed 4: one query of each of their "
        "cameras, all their other images as gallery. A training is on the rest; published ones "
        "are on all (protocol=last).",
    )
    assert carved.published == {}


@pytest.mark.parametrize("number", [0, 6, 7])
def test_a_number_that_does_not_fit_is_named(number: int) -> None:
    with pytest.raises(
        ValueError,
        match=rf"data\.val_person_ids={number} does not fit: train has 7 .* 5 have .* 1 to 5",
    ):
        carve_val_images(read(), number, seed=0)


def test_one_person_stays_in_training() -> None:
    with pytest.raises(ValueError, match=r"choose 1 to 1\."):
        carve_val_images(read({1: {1: 1, 2: 1}, 2: {1: 1, 2: 1}}), 2, seed=0)


def test_a_set_that_cannot_be_divided_is_named() -> None:
    with pytest.raises(ValueError, match=r"train has 2 .* 0 have images .* use protocol=last"):
        carve_val_images(read({1: {1: 4}, 2: {1: 1}}), None, seed=0)


def test_a_second_val_split_is_refused() -> None:
    carved = carve_val_images(read(), 1, seed=0)

    with pytest.raises(ValueError, match=r"tiny has a val split .*data\.val_person_ids"):
        carve_val_images(carved, 1, seed=0)

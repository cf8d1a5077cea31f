"""Pictures of one visit to a camera, and of two cameras."""

import io

import numpy as np
import pytest
from PIL import Image

from crosswalk.synthetic.looks import IMAGE_LOOKS, look_named
from crosswalk.synthetic.people import person_of
from crosswalk.synthetic.tracklets import frame_of


def picture(
    look_name: str, character: int, camera: int, number: int, role: str = "train", seed: int = 0
) -> Image.Image:
    look = look_named(look_name)
    person = person_of(look, seed=seed, person_id=character)
    data = frame_of(
        look, person, seed=seed, character=character, camera=camera, number=number, role=role
    )
    return Image.open(io.BytesIO(data)).convert("RGB")


def colours(image: Image.Image) -> np.ndarray:
    """Return the mean colours of the middle of three stripes."""
    small = np.asarray(image.resize((32, 96), Image.Resampling.BOX), dtype=np.float64)
    return small[:, 10:22].reshape(3, 32, 12, 3).mean(axis=(1, 2))


@pytest.mark.parametrize("look_name", IMAGE_LOOKS)
def test_pictures_of_one_visit_are_nearer_in_colour_than_those_of_two_cameras(
    look_name: str,
) -> None:
    same, other = [], []
    for character in range(40):
        first = colours(picture(look_name, character, 0, 0))
        same.append(np.abs(first - colours(picture(look_name, character, 0, 1))).mean())
        other.append(np.abs(first - colours(picture(look_name, character, 3, 0))).mean())

    assert np.median(same) < 0.7 * np.median(other)


@pytest.mark.parametrize("look_name", IMAGE_LOOKS)
def test_two_pictures_of_a_visit_are_no_copies(look_name: str) -> None:
    first, second = (
        np.asarray(picture(look_name, 5, 2, number).resize((64, 128)), dtype=np.float64)
        for number in (0, 1)
    )

    assert np.abs(first - second).mean() > 8


def test_a_junk_box_shows_less_of_the_person_than_a_good_one() -> None:
    good = picture("summer", 3, 1, 0)
    boxes = [picture("summer", 3, 1, number, "junk") for number in range(12)]

    assert {box.size for box in boxes} == {good.size}
    assert len({box.tobytes() for box in boxes}) == 12
    differences = [np.abs(colours(good) - colours(box)).mean() for box in boxes]
    assert np.median(differences) > 12


def test_some_distractors_show_an_empty_place() -> None:
    """Person and person of another colour make the same picture where nobody is shown."""
    look = look_named("summer")
    people = [person_of(look, seed=0, person_id=number) for number in (1, 2)]

    same = 0
    for number in range(60):
        where = {"character": 9, "camera": 0, "number": number, "role": "distractor"}
        one, two = (frame_of(look, person, seed=0, **where) for person in people)  # type: ignore[arg-type]
        same += one == two

    assert 6 <= same <= 30


def test_summer_pictures_have_the_size_of_market_1501_and_the_others_vary() -> None:
    sizes = {
        name: {picture(name, character, character % 6, 0).size for character in range(30)}
        for name in IMAGE_LOOKS
    }

    assert sizes["summer"] == {(64, 128)}
    for name in ("winter", "terminal"):
        assert len(sizes[name]) > 20
        assert all(110 <= height <= 400 for _, height in sizes[name])
        assert all(1.5 < height / width < 3.5 for width, height in sizes[name])


def test_looks_differ_in_brightness_and_in_tint() -> None:
    def mean(name: str) -> np.ndarray:
        return np.mean(
            [colours(picture(name, character, character % 6, 0)) for character in range(48)],
            axis=(0, 1),
        )

    summer, winter, terminal = (mean(name) for name in ("summer", "winter", "terminal"))
    assert summer.mean() > winter.mean() + 15
    assert summer[0] - summer[2] > winter[0] - winter[2] + 10
    assert terminal.mean() > winter.mean() + 8

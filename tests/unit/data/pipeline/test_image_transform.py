import itertools
import math
import pickle
from dataclasses import replace

import pytest
import torch
import torchvision.transforms as tv
import torchvision.transforms.functional as tf
from torch import Tensor

from crosswalk.data.pipeline import image_transform, transforms
from crosswalk.data.pipeline.image_transform import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    ImageTransform,
    camera_style,
    erase_with_noise,
    uniform_erasing_boxes,
)
from crosswalk.data.pipeline.transforms import box_mask, color_jitter, erasing_boxes, rotate
from crosswalk.draws import keyed_uniform, sample_key
from crosswalk.types import ImageBatch
from tests.unit.data.pictures import random_images, to_picture, to_pixels

ORDERS = list(itertools.permutations(range(3)))
ADJUST = (tf.adjust_brightness, tf.adjust_contrast, tf.adjust_saturation)
STATISTICS = torch.tensor(
    [
        [[torch.nan] * 3] * 2,
        [[0.3, 0.4, 0.5], [0.2, 0.2, 0.1]],
        [[0.6, 0.5, 0.4], [0.1, 0.3, 0.2]],
        [[torch.nan] * 3] * 2,
        [[0.5, 0.5, 0.5], [0.25, 0.25, 0.25]],
    ]
)

MMCL = ImageTransform(
    flip_probability=0.5,
    rotation=10.0,
    brightness=0.2,
    contrast=0.2,
    saturation=0.2,
    erase_probability=0.5,
    erase_area=(0.02, 0.2),
    erase_ratio=(0.3, 3.0),
    erase_law="uniform",
    erase_fill=IMAGENET_MEAN,
)
EVERYTHING = replace(MMCL, padding=3, camera_style=0.7, camera_statistics=STATISTICS)


def make_batch(number: int, height: int = 24, width: int = 8, *, keys: bool = True) -> ImageBatch:
    index = torch.arange(number)
    return ImageBatch(
        image=random_images(number, height, width),
        person_id=index,
        camera_id=index % 5,
        sample_index=index,
        key=sample_key(1, 2, 0, index) if keys else None,
    )


def normalised(image: Tensor) -> Tensor:
    """Return a picture as torchvision's ToTensor and Normalize give it."""
    return tv.Compose([tv.ToTensor(), tv.Normalize(IMAGENET_MEAN, IMAGENET_STD)])(to_picture(image))


@pytest.mark.parametrize(("height", "width"), [(256, 128), (24, 9), (7, 3), (5, 40), (1, 1)])
@pytest.mark.parametrize("largest", [10, 360])
def test_rotated_pixels_are_pillows(height: int, width: int, largest: float) -> None:
    image = random_images(16, height, width)
    angle = largest * (2 * keyed_uniform(torch.arange(16), 1)[:, 0] - 1)
    angle[0] = 0

    out = rotate(image, angle)

    assert torch.equal(out[0], image[0])
    for index in range(16):
        assert torch.equal(
            out[index], to_pixels(tf.rotate(to_picture(image[index]), float(angle[index])))
        )


def test_no_images_may_be_rotated_or_jittered() -> None:
    nothing = torch.zeros(0, dtype=torch.float64)

    assert rotate(random_images(0, 4, 3), nothing).shape == (0, 3, 4, 3)
    order = torch.zeros(0, 3, dtype=torch.int64)
    assert color_jitter(random_images(0, 4, 3), order, torch.zeros(0, 3)).shape == (0, 3, 4, 3)


@pytest.mark.parametrize(("height", "width"), [(256, 128), (24, 9), (7, 3), (1, 1)])
@pytest.mark.parametrize("spread", [0.2, 1.0])
def test_jittered_values_are_pillows_but_for_one_grey_in_a_thousand(
    height: int, width: int, spread: float
) -> None:
    image = random_images(3 * len(ORDERS), height, width)
    order = torch.tensor(ORDERS * 3)
    factor = 1 + spread * (2 * keyed_uniform(torch.arange(len(image)), 3) - 1)

    out = color_jitter(image, order, factor)

    differences = []
    for index in range(len(image)):
        expected = to_picture(image[index])
        for kind in order[index].tolist():
            expected = ADJUST[kind](expected, factor[index, kind].item())
        differences.append((out[index] - to_pixels(expected)).abs())
    assert out.dtype == torch.float32
    # tolerance: where a product falls on a whole number, processors may disagree by one grey
    assert torch.stack(differences).max() <= 1
    assert (torch.stack(differences) > 0).float().mean() <= 1e-3


def test_jitter_by_factors_of_one_changes_nothing() -> None:
    image = random_images(6, 7, 3)
    before = image.float()

    for given in (image, before):
        assert torch.equal(color_jitter(given, torch.tensor(ORDERS), torch.ones(6, 3)), before)
    assert torch.equal(before, image.float())  # images of floats are not written into


def test_grey_images_stay_grey_under_saturation() -> None:
    image = torch.arange(256, dtype=torch.uint8).expand(3, 3, 1, 256)
    factor = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 0.7], [1.0, 1.0, 1.9]])

    out = color_jitter(image, torch.tensor([[0, 1, 2]] * 3), factor)

    assert torch.equal(out, image.float())


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_camera_style_maps_one_cameras_mean_and_deviation_to_anothers(dtype: torch.dtype) -> None:
    image = random_images(5, 7, 3).to(dtype)
    own, other = STATISTICS[[1, 2, 4, 1, 2]], STATISTICS[[2, 1, 1, 4, 4]]

    out = camera_style(image, own, other)

    for index, channel in itertools.product(range(5), range(3)):
        (m, s), (new_m, new_s) = own[index, :, channel], other[index, :, channel]
        expected = (image[index, channel] / 255 - m) / s * new_s + new_m
        expected = expected.clamp(0, 1) * 255
        assert torch.allclose(out[index, channel], expected, atol=1e-3)


def test_the_style_of_the_own_camera_changes_nothing() -> None:
    image = random_images(3, 7, 3)
    statistics = torch.tensor([[[0.3] * 3, [0.0] * 3]] * 3)  # of a camera with one colour

    assert torch.equal(camera_style(image, statistics, statistics), image.float())


def test_a_camera_with_one_colour_is_mapped_to_finite_colours() -> None:
    image = random_images(1, 7, 3)
    own, other = torch.tensor([[[[0.3] * 3, [0.0] * 3]], [[[0.6] * 3, [0.2] * 3]]])

    assert camera_style(image, own, other).isfinite().all()


def loop_over_tries(
    draws: list[float], height: int, width: int, *, smaller: bool = False
) -> tuple[int, int, int, int] | None:
    """Return the box of one image as MMCL's random erasing chooses it: top, left, height, width.

    Cluster Contrast's has to be ``smaller`` than the image.
    """
    if draws[0] >= 0.5:
        return None
    for attempt in range(100):
        area = height * width * (0.02 + 0.18 * draws[3 + attempt])
        ratio = 0.3 + 2.7 * draws[103 + attempt]
        h, w = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if (h < height and w < width) if smaller else (h <= height and w <= width):
            top, left = draws[1] * (height - h + 1), draws[2] * (width - w + 1)
            return math.floor(top), math.floor(left), h, w
    return None


@pytest.mark.parametrize("smaller", [False, True])
@pytest.mark.parametrize(("height", "width"), [(256, 128), (24, 8), (5, 40), (40, 1), (1, 1)])
def test_uniform_erasing_boxes_match_a_loop_over_tries(
    height: int, width: int, smaller: bool
) -> None:
    draws = keyed_uniform(torch.arange(300), 203)

    boxes = uniform_erasing_boxes(
        draws,
        height=height,
        width=width,
        probability=0.5,
        area=(0.02, 0.2),
        ratio=(0.3, 3.0),
        smaller=smaller,
    )

    for box, draw in zip(boxes.tolist(), draws.tolist(), strict=True):
        expected = loop_over_tries(draw, height, width, smaller=smaller)
        if expected is None or 0 in expected[2:]:
            assert 0 in box[2:]
        else:
            assert tuple(box) == expected


def test_a_batch_without_keys_is_only_normalised() -> None:
    batch = make_batch(5, keys=False)

    out = EVERYTHING(batch)

    for index in range(5):
        assert torch.equal(out.image[index], normalised(batch.image[index]))
    assert out[1:] == batch[1:]


def test_everything_is_off_by_default() -> None:
    batch = make_batch(5)

    image = ImageTransform()(batch).image

    for index in range(5):
        assert torch.equal(image[index], normalised(batch.image[index]))


@pytest.mark.parametrize("number", [1, 3, 40])
def test_mmcls_augmentation_is_that_of_pillow_and_torchvision_per_image(number: int) -> None:
    batch = make_batch(number, 48, 16)

    image = MMCL(batch).image

    flipped = keyed_uniform(batch.key, 1, 2)[:, 0] < 0.5
    angle = 20 * keyed_uniform(batch.key, 1, 4)[:, 0] - 10
    jitter = keyed_uniform(batch.key, 6, 5)
    erasure = keyed_uniform(batch.key, 203, 7)
    for index in range(number):
        expected = to_picture(batch.image[index])
        if flipped[index]:
            expected = tf.hflip(expected)
        expected = tf.rotate(expected, angle[index].item())
        for kind in jitter[index, 3:].argsort().tolist():
            expected = ADJUST[kind](expected, 0.8 + 0.4 * jitter[index, kind].item())
        expected = normalised(to_pixels(expected))
        box = loop_over_tries(erasure[index].tolist(), 48, 16)
        if box is not None:
            top, left, height, width = box
            fill = torch.tensor(IMAGENET_MEAN)[:, None, None]
            expected[:, top : top + height, left : left + width] = fill
        # within one grey of 255, and almost everywhere equal
        assert (image[index] - expected).abs().max() <= 1.01 / 255 / min(IMAGENET_STD)
        assert (image[index] != expected).float().mean() <= 1e-3


def test_mars_augmentation_mirrors_pads_with_black_and_crops() -> None:
    batch = make_batch(30)
    mean, std = (0.31, 0.29, 0.3), (0.26, 0.25, 0.24)

    out = ImageTransform(flip_probability=0.5, padding=7, mean=mean, std=std)(batch).image

    normalise = tv.Compose([tv.ToTensor(), tv.Normalize(mean, std)])
    flipped = keyed_uniform(batch.key, 1, 2)[:, 0] < 0.5
    corners = (keyed_uniform(batch.key, 2, 3) * 15).long().tolist()
    for index, (top, left) in enumerate(corners):
        expected = to_picture(batch.image[index])
        expected = tf.pad(tf.hflip(expected) if flipped[index] else expected, 7)
        expected = expected.crop((left, top, left + 8, top + 24))
        assert torch.equal(out[index], normalise(expected))


@pytest.mark.parametrize(
    ("law", "share"),
    [
        ("torchvision", (0.02, 0.4)),
        ("uniform", (0.02, 0.2)),
        ("uniform_smaller", (0.02, 0.4)),
    ],
)
def test_erased_boxes_hold_the_fill_and_leave_the_rest(
    law: str, share: tuple[float, float]
) -> None:
    batch = make_batch(200, 48, 16)
    fill = (9.0, -9.0, 0.25)

    out = ImageTransform(erase_probability=0.5, erase_area=share, erase_law=law, erase_fill=fill)(
        batch
    ).image

    plain = ImageTransform()(batch).image
    erased = (out == torch.tensor(fill)[:, None, None]).all(dim=1)
    assert torch.equal(torch.where(erased[:, None], plain, out), plain)
    area = erased.flatten(1).double().mean(dim=1)
    chosen = (area > 0).double().mean().item()
    assert chosen == pytest.approx(0.5, abs=5 * math.sqrt(0.25 / 200))
    assert area[area > 0].min() > share[0] - 0.01
    assert area.max() < share[1] + 0.02  # rounding of the sides


@pytest.mark.parametrize("strength", [0.3, 1.5])
def test_jitter_factors_are_uniform_and_not_negative(strength: float) -> None:
    key = sample_key(0, 0, 0, torch.arange(20_000))
    transform = ImageTransform(brightness=strength, saturation=0.1)

    order, factor = transform._jitter(key)

    low, high = max(0.0, 1 - strength), 1 + strength
    error = 5 * (high - low) / math.sqrt(12 * len(key))
    assert factor[:, 0].mean().item() == pytest.approx((low + high) / 2, abs=error)
    assert low <= factor[:, 0].min() < factor[:, 0].max() <= high
    assert (factor[:, 1] == 1).all()
    counts = torch.stack([(order == torch.tensor(o)).all(1).double().mean() for o in ORDERS])
    assert (counts - 1 / 6).abs().max() < 5 * math.sqrt(1 / 6 * 5 / 6 / len(key))


def test_cameras_are_drawn_uniformly_among_those_with_statistics() -> None:
    count = 20_000
    key = sample_key(0, 0, 0, torch.arange(count))
    transform = ImageTransform(camera_style=0.5, camera_statistics=STATISTICS)

    own, other = transform._styles(key, torch.full((count,), 2))

    assert (own == STATISTICS[2]).all()
    error = 5 * math.sqrt(1 / 4 / count)
    for camera, share in ((1, 1 / 6), (2, 1 / 2 + 1 / 6), (4, 1 / 6)):
        found = (other == STATISTICS[camera]).flatten(1).all(1).double().mean().item()
        assert found == pytest.approx(share, abs=error)


@pytest.mark.parametrize("camera", [-1, 0, 3, 5, 99])
def test_images_of_cameras_without_statistics_keep_their_colours(camera: int) -> None:
    batch = make_batch(9)._replace(camera_id=torch.full((9,), camera))

    image = ImageTransform(camera_style=1.0, camera_statistics=STATISTICS)(batch).image

    assert torch.equal(image, ImageTransform()(batch).image)


def test_without_any_statistics_colours_stay() -> None:
    batch = make_batch(9)
    unknown = torch.full((5, 2, 3), torch.nan)

    image = ImageTransform(camera_style=1.0, camera_statistics=unknown)(batch).image

    assert torch.equal(image, ImageTransform()(batch).image)


def test_camera_style_asks_for_statistics() -> None:
    with pytest.raises(ValueError, match=r"data\.transform\.camera_style=0\.5 needs"):
        ImageTransform(camera_style=0.5)(make_batch(3))


@pytest.mark.parametrize("transform", [MMCL, EVERYTHING])
def test_an_image_is_augmented_alike_in_any_batch(transform: ImageTransform) -> None:
    batch = make_batch(37)

    together = transform(batch).image
    places = torch.tensor([31, 2, 36, 2, 0])
    some = transform(ImageBatch(*(column[places] for column in batch[:5]))).image

    assert torch.equal(some, together[places])
    assert not torch.equal(together, ImageTransform()(batch).image)


@pytest.mark.parametrize("chunk", [1, 3 * 24 * 8 * 5])
def test_chunks_do_not_matter(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    batch = make_batch(11)
    noisy = ImageTransform(flip_probability=0.5, erase_probability=0.5, erase_fill="noise")
    whole = noisy(batch).image

    monkeypatch.setattr(transforms, "_CHUNK_VALUES", chunk)

    assert torch.equal(noisy(batch).image, whole)


def test_switching_an_operation_off_leaves_the_draws_of_the_others() -> None:
    batch = make_batch(20)
    flipped = ImageTransform(flip_probability=0.5)(batch).image

    both = ImageTransform(flip_probability=0.5, erase_probability=1.0)(batch).image

    kept = both == flipped
    assert kept.flatten(1).any(dim=1).all()
    mirrored = flipped.flip(-1)
    assert ((both == mirrored).flatten(1).all(dim=1) == 0).all()


@pytest.mark.parametrize("transform", [MMCL, EVERYTHING, ImageTransform()])
def test_an_empty_batch_stays_empty(transform: ImageTransform) -> None:
    image = transform(make_batch(0)).image

    assert image.shape == (0, 3, 24, 8)
    assert image.dtype == torch.float32


def test_the_images_that_were_read_are_not_written_into() -> None:
    batch = make_batch(7)
    before = batch.image.clone()

    EVERYTHING(batch)

    assert torch.equal(batch.image, before)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"flip_probability": 1.5}, r"flip_probability=1\.5 should be a probability"),
        ({"camera_style": -0.1}, r"camera_style=-0\.1 should be a probability"),
        ({"erase_probability": 2}, "erase_probability=2 should be a probability"),
        ({"padding": -1}, "padding=-1 should not be negative"),
        ({"rotation": -5.0}, r"rotation=-5\.0 should not be negative"),
    ],
)
def test_impossible_settings_are_named(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=rf"data\.transform\.{message}"):
        ImageTransform(**settings)


def test_transforms_are_compared_by_their_settings_and_travel_to_workers() -> None:
    assert pickle.loads(pickle.dumps(EVERYTHING)) == EVERYTHING
    assert replace(MMCL, rotation=5.0) != MMCL


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_gpu_augments_as_a_processor_does() -> None:
    batch = make_batch(64, 256, 128)
    there = ImageBatch(*(column.cuda() for column in batch[:5]))

    ours, theirs = EVERYTHING(batch).image, EVERYTHING(there).image.cpu()

    # camera style multiplies what jitter rounded down by up to 3; a few values are one grey off
    assert ((ours - theirs).abs() > 1e-4).float().mean() <= 1e-3
    assert torch.allclose(MMCL(batch).image, MMCL(there).image.cpu(), atol=1.01 / 255 / 0.224)


def test_noise_in_erased_boxes_is_normal_and_depends_on_the_sample_alone() -> None:
    image = torch.randint(0, 256, (40, 3, 24, 16), generator=torch.Generator().manual_seed(1))
    one = torch.arange(40)
    batch = ImageBatch(image.to(torch.uint8), one, one, one, sample_key(3, 0, 0, one))
    transform = ImageTransform(erase_probability=0.5, erase_area=(0.3, 0.5), erase_fill="noise")

    out = transform(batch).image

    plain = ImageTransform()(batch).image
    erased = (out != plain).any(dim=1)
    boxes = erasing_boxes(
        keyed_uniform(batch.key, 23, 7),
        height=24,
        width=16,
        probability=0.5,
        area=(0.3, 0.5),
        ratio=(0.3, 3.33),
    )
    assert torch.equal(erased, box_mask(boxes, height=24, width=16)[:, 0])
    noise = out.permute(0, 2, 3, 1)[erased]
    assert noise.mean().item() == pytest.approx(0, abs=0.05)
    assert noise.std().item() == pytest.approx(1, abs=0.05)
    assert len(noise.unique()) > 0.99 * noise.numel()
    picked = torch.tensor([37, 5, 6, 30])
    part = ImageBatch(*(column[picked] for column in batch[:5]))
    assert torch.equal(transform(part).image, out[picked])


def test_the_noise_of_a_key_that_draws_nought_is_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        image_transform, "keyed_uniform", lambda key, n, stream=0: torch.zeros(len(key), n).double()
    )

    out = erase_with_noise(torch.zeros(1, 1, 1, 2), torch.tensor([[0, 0, 1, 1]]), torch.tensor([7]))

    assert out[0, 0, 0].tolist() == [pytest.approx(-8.292, abs=1e-3), 0.0]

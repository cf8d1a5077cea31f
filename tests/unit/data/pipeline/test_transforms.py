import math

import numpy as np
import pytest
import torch
import torchvision.transforms as tv
from PIL import Image
from torch import Tensor

from crosswalk.data.pipeline import transforms
from crosswalk.data.pipeline.transforms import (
    CLIP_MEAN,
    CLIP_STD,
    PairTransform,
    box_mask,
    erase,
    erasing_boxes,
    flip,
    in_chunks,
    mask_replace_delete,
    normalize,
    pad_crop,
)
from crosswalk.draws import keyed_uniform, sample_key
from crosswalk.types import ImageBatch, PairBatch, TextBatch

MASK, START, END = 49405, 49406, 49407


def random_images(batch: int, height: int, width: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (batch, 3, height, width), dtype=torch.uint8, generator=generator)


def to_pillow(image: Tensor) -> Image.Image:
    return Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())


@pytest.mark.parametrize("batch", [0, 1, 5])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_flip_mirrors_the_chosen_images(batch: int, dtype: torch.dtype) -> None:
    image = random_images(batch, 4, 3).to(dtype)
    flipped = torch.arange(batch) % 2 == 0

    out = flip(image, flipped)

    for index in range(batch):
        expected = tv.functional.hflip(image[index]) if flipped[index] else image[index]
        assert torch.equal(out[index], expected)


@pytest.mark.parametrize(("height", "width"), [(7, 3), (12, 5), (1, 1)])
@pytest.mark.parametrize("padding", [0, 1, 4])
@pytest.mark.parametrize("fill", [0, 9])
def test_pad_crop_is_pillows_padding_and_crop(
    height: int, width: int, padding: int, fill: int
) -> None:
    steps = 2 * padding + 1
    image = random_images(steps * steps, height, width)
    top = torch.arange(steps).repeat_interleave(steps)
    left = torch.arange(steps).repeat(steps)

    out = pad_crop(image, top, left, padding=padding, fill=fill)

    for index in range(len(image)):
        padded = tv.Pad(padding, fill=fill)(to_pillow(image[index]))
        corner = (int(left[index]), int(top[index]))
        crop = padded.crop((*corner, corner[0] + width, corner[1] + height))
        assert np.array_equal(out[index].permute(1, 2, 0).numpy(), np.asarray(crop))


def test_pad_crop_of_no_images_gives_none() -> None:
    nothing = torch.zeros(0, dtype=torch.int64)

    assert pad_crop(random_images(0, 4, 3), nothing, nothing, padding=2).shape == (0, 3, 4, 3)


def loop_over_attempts(
    draws: list[float], height: int, width: int, attempts: int = 10
) -> tuple[int, int, int, int] | None:
    """Return the box of one image as torchvision chooses it: top, left, height, width."""
    if draws[0] >= 0.5:
        return None
    for attempt in range(attempts):
        area = height * width * (0.02 + 0.38 * draws[3 + attempt])
        low, high = math.log(0.3), math.log(3.3)
        ratio = math.exp(low + (high - low) * draws[3 + attempts + attempt])
        h, w = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if h < height and w < width:
            top = math.floor(draws[1] * (height - h + 1))
            left = math.floor(draws[2] * (width - w + 1))
            return top, left, h, w
    return None


@pytest.mark.parametrize(("height", "width"), [(24, 8), (96, 32), (5, 40), (3, 3), (2, 1)])
def test_erasing_boxes_match_a_loop_over_attempts(height: int, width: int) -> None:
    draws = keyed_uniform(torch.arange(300), 23)

    boxes = erasing_boxes(
        draws, height=height, width=width, probability=0.5, area=(0.02, 0.4), ratio=(0.3, 3.3)
    )

    for box, draw in zip(boxes.tolist(), draws.tolist(), strict=True):
        expected = loop_over_attempts(draw, height, width)
        if expected is None:
            assert box[2:] == [0, 0]
        else:
            assert tuple(box) == expected


def test_erasing_boxes_are_distributed_like_torchvisions() -> None:
    height, width, count = 48, 16, 4000
    torch.manual_seed(0)
    theirs = []
    for _ in range(count):
        image = torch.zeros(1, height, width)
        found = tv.RandomErasing.get_params(image, (0.02, 0.4), (0.3, 3.3), value=[1.0])
        theirs.append(found[:4])
    theirs = torch.tensor(theirs).double()

    ours = erasing_boxes(
        keyed_uniform(torch.arange(count), 23),
        height=height,
        width=width,
        probability=1.0,
        area=(0.02, 0.4),
        ratio=(0.3, 3.3),
    ).double()

    # means and standard deviations of top, left, height, width within five standard errors
    error = theirs.std(0) * math.sqrt(2 / count)
    assert ((ours.mean(0) - theirs.mean(0)).abs() < 5 * error).all()
    assert ((ours.std(0) - theirs.std(0)).abs() < 5 * error).all()


def test_half_of_the_images_are_erased() -> None:
    count = 20_000
    boxes = erasing_boxes(
        keyed_uniform(torch.arange(count), 23),
        height=384,
        width=128,
        probability=0.5,
        area=(0.02, 0.4),
        ratio=(0.3, 3.3),
    )

    share = (boxes[:, 2] > 0).double().mean().item()

    assert share == pytest.approx(0.5, abs=5 * math.sqrt(0.25 / count))


def test_box_mask_is_true_inside_each_box() -> None:
    boxes = torch.tensor([[0, 0, 4, 3], [1, 2, 2, 1], [3, 0, 1, 3], [2, 1, 0, 0]])

    mask = box_mask(boxes, height=4, width=3)

    for index, (top, left, height, width) in enumerate(boxes.tolist()):
        for row in range(4):
            for column in range(3):
                inside = top <= row < top + height and left <= column < left + width
                assert mask[index, 0, row, column].item() == inside


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_erase_fills_each_box_with_exactly_the_given_values(dtype: torch.dtype) -> None:
    image = random_images(3, 6, 5).to(dtype)
    boxes = torch.tensor([[0, 1, 2, 3], [5, 4, 1, 1], [2, 2, 0, 0]])
    fill = torch.tensor([7, 0, 200]).to(dtype)[:, None, None]

    out = erase(image, boxes, fill)

    for index, (top, left, height, width) in enumerate(boxes.tolist()):
        expected = image[index].clone()
        expected[:, top : top + height, left : left + width] = fill
        assert torch.equal(out[index], expected)


def test_normalize_is_torchvisions() -> None:
    image = random_images(4, 7, 3)

    out = normalize(image, CLIP_MEAN, CLIP_STD)

    theirs = tv.Compose([tv.ToTensor(), tv.Normalize(CLIP_MEAN, CLIP_STD)])
    for index in range(4):
        assert torch.equal(out[index], theirs(to_pillow(image[index])))


@pytest.mark.parametrize("batch", [0, 1, 3])
def test_bgr255_reverses_the_channels_and_keeps_their_range(batch: int) -> None:
    image = random_images(batch, 7, 3)

    out = normalize(image, CLIP_MEAN, CLIP_STD, pixel_format="bgr255")

    for index in range(batch):
        for place, channel in enumerate((2, 1, 0)):
            expected = (image[index, channel].double() - CLIP_MEAN[place]) / CLIP_STD[place]
            torch.testing.assert_close(out[index, place].double(), expected, rtol=1e-6, atol=0)
    assert out.dtype == torch.float32


@pytest.mark.parametrize("batch", [0, 1, 7])
def test_chunks_cover_the_batch(monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    monkeypatch.setattr(transforms, "_CHUNK_VALUES", 3 * 2 * 2 * 3)
    image, factor = random_images(batch, 2, 2), torch.arange(batch)
    sizes = []

    def multiply(part: Tensor, factors: Tensor) -> Tensor:
        sizes.append(len(part))
        return part * factors[:, None, None, None].float()

    out = in_chunks(multiply, image, factor)

    assert torch.equal(out, image * factor[:, None, None, None].float())
    assert sizes == {0: [], 1: [1], 7: [3, 3, 1]}[batch]


# Text.


def loop_over_words(tokens: list[int], draws: list[float], replacements: list[int]) -> list[int]:
    out, used_draws, used_replacements = [], 0, 0
    for token in tokens:
        if not 0 < token < MASK:
            out.append(token)
            continue
        draw = draws[used_draws]
        used_draws += 1
        if draw >= 0.2:
            out.append(token)
        elif draw / 0.2 < 0.6:
            out.append(MASK)
        elif draw / 0.2 < 0.8:
            out.append(replacements[used_replacements])
            used_replacements += 1
    return out + [0] * (len(tokens) - len(out))


def random_captions(batch: int, length: int, seed: int) -> Tensor:
    random = np.random.default_rng(seed)
    tokens = torch.zeros(batch, length, dtype=torch.int64)
    for row in tokens:
        words = random.integers(0, length - 1)
        caption = [START, *random.integers(0, MASK + 1, words).tolist(), END]
        row[: len(caption)] = torch.tensor(caption)
    return tokens


@pytest.mark.parametrize(("batch", "length"), [(1, 2), (50, 7), (200, 64), (3, 77)])
def test_text_augmentation_matches_a_loop_over_words(batch: int, length: int) -> None:
    tokens = random_captions(batch, length, seed=length)
    draws = keyed_uniform(torch.arange(batch), length)
    replacements = torch.randint(1, MASK, (batch, length))

    out = mask_replace_delete(tokens, draws, replacements, mask_id=MASK)

    for index in range(batch):
        expected = loop_over_words(
            tokens[index].tolist(), draws[index].tolist(), replacements[index].tolist()
        )
        assert out[index].tolist() == expected


def test_text_augmentation_leaves_captions_without_words_alone() -> None:
    tokens = torch.tensor([[START, END, 0, 0], [START, MASK, END, 0], [0, 0, 0, 0]])

    out = mask_replace_delete(tokens, torch.zeros(3, 4), torch.ones(3, 4).long(), mask_id=MASK)

    assert torch.equal(out, tokens)


def test_twelve_percent_of_words_are_masked_four_replaced_four_deleted() -> None:
    batch, words = 4000, 50
    tokens = torch.full((batch, words + 2), 7)
    tokens[:, 0], tokens[:, -1] = START, END
    key = sample_key(0, 0, 0, torch.arange(batch))

    out = PairTransform().augment_tokens(tokens, key)

    count = batch * words
    masked = (out == MASK).sum().item() / count
    replaced = ((out > 0) & (out < MASK) & (out != 7)).sum().item() / count
    deleted = (out == 0).sum().item() / count
    for share, expected in ((masked, 0.12), (replaced, 0.04), (deleted, 0.04)):
        assert share == pytest.approx(expected, abs=5 * math.sqrt(expected / count))
    drawn = out[(out > 0) & (out < MASK) & (out != 7)].double()
    assert drawn.min().item() >= 1
    assert drawn.mean().item() == pytest.approx(MASK / 2, rel=0.02)


# The recipe.


def pair_batch(batch: int, height: int = 24, width: int = 8, seed: int = 0) -> PairBatch:
    index = torch.arange(batch)
    tokens = random_captions(batch, 12, seed)
    return PairBatch(
        image=random_images(batch, height, width, seed),
        tokens=tokens,
        length=(tokens != 0).sum(1),
        person_id=index,
        camera_id=index,
        sample_index=index,
        image_index=index,
        phrases=tokens,
        key=sample_key(seed, 0, 0, index),
    )


def test_rde_images_are_augmented_in_the_published_order() -> None:
    recipe = PairTransform(padding=3)
    batch = pair_batch(40)

    out = recipe(batch).image

    draws = keyed_uniform(batch.key, 26).tolist()
    for index, draw in enumerate(draws):
        image = to_pillow(batch.image[index])
        if draw[0] < 0.5:
            image = tv.functional.hflip(image)
        image = tv.Pad(3, fill=0)(image)
        top, left = int(draw[1] * 7), int(draw[2] * 7)
        image = image.crop((left, top, left + 8, top + 24))
        expected = tv.Normalize(CLIP_MEAN, CLIP_STD)(tv.ToTensor()(image))
        box = loop_over_attempts(draw[3:], 24, 8)
        if box is not None:
            top, left, height, width = box
            fill = torch.tensor(CLIP_MEAN)[:, None, None]
            expected[:, top : top + height, left : left + width] = fill
        torch.testing.assert_close(out[index], expected, rtol=0, atol=1e-6)


def test_a_samples_augmentation_does_not_depend_on_its_batch() -> None:
    batch = pair_batch(9)

    whole = PairTransform()(batch)
    share = PairTransform()(PairBatch(*(column[[7, 2]] for column in batch[:9])))

    assert torch.equal(share.image, whole.image[[7, 2]])
    assert torch.equal(share.tokens, whole.tokens[[7, 2]])
    assert torch.equal(share.length, whole.length[[7, 2]])


def test_without_keys_images_are_only_normalised() -> None:
    batch = pair_batch(3)._replace(key=None)

    out = PairTransform()(batch)

    assert torch.equal(out.image, normalize(batch.image, CLIP_MEAN, CLIP_STD))
    assert torch.equal(out.tokens, batch.tokens)


def test_image_augmentation_switched_off_leaves_the_mirroring() -> None:
    batch = pair_batch(20)

    out = PairTransform(image_augmentation=False)(batch).image

    flipped = keyed_uniform(batch.key, 1)[:, 0] < 0.5
    expected = normalize(flip(batch.image, flipped), CLIP_MEAN, CLIP_STD)
    assert torch.equal(out, expected)
    assert 0 < flipped.sum().item() < 20


@pytest.mark.parametrize("has_key", [True, False])
def test_pixels_are_bgr_to_255_in_training_and_test(has_key: bool) -> None:
    mean, std = (0.5, 0.25, 0.125), (0.5, 0.25, 0.2)
    recipe = PairTransform(
        image_augmentation=False, flip_probability=0, mean=mean, std=std, pixel_format="bgr255"
    )
    batch = pair_batch(5)

    out = recipe(batch if has_key else batch._replace(key=None)).image

    for place, channel in enumerate((2, 1, 0)):
        expected = (batch.image[:, channel].double() - mean[place]) / std[place]
        torch.testing.assert_close(out[:, place].double(), expected, rtol=1e-6, atol=0)


def test_boxes_of_bgr_images_are_filled_with_the_means() -> None:
    recipe = {"padding": 3, "flip_probability": 0.0, "erase_probability": 1.0}
    batch = pair_batch(40)

    rgb = PairTransform(**recipe)(batch).image
    bgr = PairTransform(**recipe, pixel_format="bgr255")(batch).image

    fill = torch.tensor(CLIP_MEAN)[:, None, None]
    assert torch.equal((rgb == fill).all(1), (bgr == fill).all(1))
    assert (rgb == fill).all(1).flatten(1).any(1).sum().item() > 30


def test_text_augmentation_can_be_switched_off() -> None:
    batch = pair_batch(20)

    out = PairTransform(text_augmentation=False)(batch)

    assert torch.equal(out.tokens, batch.tokens)
    assert torch.equal(out.length, batch.length)


def test_lengths_follow_deleted_words() -> None:
    out = PairTransform()(pair_batch(200))

    for tokens, length in zip(out.tokens.tolist(), out.length.tolist(), strict=True):
        assert tokens[length - 1] == END
        assert not any(tokens[length:])


def test_texts_pass_unchanged() -> None:
    index = torch.arange(2)
    batch = TextBatch(random_captions(2, 9, 0), index, index, index, index)

    assert PairTransform()(batch) is batch


def test_an_empty_share_of_a_batch_is_augmented_too() -> None:
    nothing = torch.zeros(0, dtype=torch.int64)
    batch = PairBatch(*(column[:0] for column in pair_batch(2)[:9]))

    out = PairTransform()(batch)

    assert out.image.shape == (0, 3, 24, 8)
    assert out.image.dtype == torch.float32
    assert out.tokens.shape == (0, 12)
    image_batch = ImageBatch(batch.image, nothing, nothing, nothing, key=None)
    assert PairTransform()(image_batch).image.shape == (0, 3, 24, 8)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_augmentation_is_the_same_on_a_gpu() -> None:
    batch = pair_batch(50)

    on_gpu = PairTransform()(PairBatch(*(column.cuda() for column in batch[:9])))

    on_cpu = PairTransform()(batch)
    torch.testing.assert_close(on_gpu.image.cpu(), on_cpu.image, rtol=0, atol=1e-6)
    assert torch.equal(on_gpu.tokens.cpu(), on_cpu.tokens)

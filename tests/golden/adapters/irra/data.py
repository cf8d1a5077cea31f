"""Metrics, image transforms and batches."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from crosswalk.data.pipeline.decoding import decode_image
from crosswalk.data.pipeline.plans import chunks_in_turn, identity_chunks, shuffled_plan
from crosswalk.data.pipeline.transforms import (
    PairTransform,
    erase,
    erasing_boxes,
    flip,
    normalize,
    pad_crop,
)
from crosswalk.metrics.ranking import mean_average_precision, mean_inp, rank_k, rank_similarity
from crosswalk.types import ImageBatch
from tests.golden.harness import Case, Tolerance, golden

PERCENT: Tolerance = {"rtol": 1e-6, "atol": 1e-5}  # recorded in float32
PIXELS: Tolerance = {"rtol": 1e-6, "atol": 1e-6}


@golden("irra", "metrics")
def metrics(case: Case) -> None:
    similarity = case.tensor("similarity")
    ranking = rank_similarity(
        similarity,
        query_person_id=case.tensor("query_pids"),
        gallery_person_id=case.tensor("gallery_pids"),
        topk=similarity.shape[1],
    )

    cmc = [100 * rank_k(ranking, rank) for rank in range(1, len(case["out_cmc_1_to_10"]) + 1)]
    case.close("out_cmc_1_to_10", np.array(cmc), **PERCENT)
    case.close("out_cmc_of_topk", np.array(cmc[: len(case["out_cmc_of_topk"])]), **PERCENT)
    case.close("out_map", 100 * mean_average_precision(ranking), **PERCENT)
    case.close("out_minp", 100 * mean_inp(ranking), **PERCENT)
    case.equal("out_order", ranking.top_index)


def decoded(case: Case) -> Tensor:
    """Return the recorded image ``[1, 3, H, W]``, decoded and resized."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "image.png")  # PNG keeps every pixel
        Image.fromarray(case["image_uint8"]).save(path)
        return decode_image(path, tuple(case["size_hw"].tolist()))[None]


@golden("irra", "eval_transform")
def eval_transform(case: Case) -> None:
    one = torch.tensor([0])

    batch = PairTransform()(ImageBatch(decoded(case), one, one, one, key=None))

    case.close("out_tensor", batch.image[0], **PIXELS)


def draws_of(seed: int, size: tuple[int, int], recipe: PairTransform) -> tuple[list[float], bool]:
    """Return the 26 numbers of `PairTransform` as torch's generator gave them, and the flip.

    What is drawn depends on what fits: the place of a box is drawn behind the attempt that fits.
    """
    generator = torch.Generator().manual_seed(seed)

    def uniform(low: float = 0.0, high: float = 1.0) -> float:
        return torch.empty(1).uniform_(low, high, generator=generator).item()

    def share(steps: int) -> float:
        number = int(torch.randint(0, steps, (1,), generator=generator)) if steps > 1 else 0
        return (number + 0.5) / steps  # the middle of what is rounded down to the number

    height, width = size
    flipped = torch.rand(1, generator=generator).item()
    row = [flipped]
    if not recipe.image_augmentation:
        return row + [1.0] * 25, flipped < recipe.flip_probability
    row += [share(2 * recipe.padding + 1), share(2 * recipe.padding + 1)]
    chosen = torch.rand(1, generator=generator).item()
    place, areas, ratios = [0.0, 0.0], [0.0] * 10, [0.0] * 10
    low, high = (torch.log(torch.tensor(each)).item() for each in recipe.erase_ratio)
    if chosen < recipe.erase_probability:
        for attempt in range(10):
            least, most = recipe.erase_area
            areas[attempt] = (uniform(least, most) - least) / (most - least)
            ratios[attempt] = (uniform(low, high) - low) / (high - low)
            draws = torch.zeros(1, 23, dtype=torch.float64)
            draws[0, 3], draws[0, 13] = areas[attempt], ratios[attempt]
            draws[0, 4:13] = 1e9  # no other attempt fits
            box = erasing_boxes(draws, height=height, width=width, **erasing(recipe))[0].tolist()
            if box[2:] != [0, 0]:
                place = [share(height - box[2] + 1), share(width - box[3] + 1)]
                break
    return [*row, chosen, *place, *areas, *ratios], flipped < recipe.flip_probability


def erasing(recipe: PairTransform) -> dict[str, object]:
    return {
        "probability": recipe.erase_probability,
        "area": recipe.erase_area,
        "ratio": recipe.erase_ratio,
    }


@golden("irra", "train_transform")
def train_transform(case: Case) -> None:
    recipe = PairTransform(image_augmentation=bool(case.item("img_aug")))
    image, size = decoded(case), tuple(case["size_hw"].tolist())
    rows, flips = zip(
        *(draws_of(seed, size, recipe) for seed in case["torch_seeds"].tolist()), strict=True
    )
    draws = torch.tensor(rows, dtype=torch.float64)
    images = image.expand(len(draws), -1, -1, -1)
    case.equal("out_flipped", np.array(flips).astype(np.int64))
    top, left = (draws[:, 1:3] * (2 * recipe.padding + 1)).long().unbind(1)
    boxes = erasing_boxes(draws[:, 3:], height=size[0], width=size[1], **erasing(recipe))
    crop, box = torch.stack([top, left], dim=1), boxes.clone()
    box[boxes[:, 2] == 0] = -1
    if not recipe.image_augmentation:
        crop, box = crop.fill_(-1), box.fill_(-1)
    case.equal("out_crop_top_left", crop)
    case.equal("out_erase_top_left_height_width", box)

    case.close("out_tensor", recipe._augment(images, draws), **PIXELS)
    if recipe.image_augmentation:  # the same from the decisions
        moved = pad_crop(flip(images, torch.tensor(flips)), top, left, padding=recipe.padding)
        fill = torch.tensor(recipe.mean)[:, None, None]
        result = erase(normalize(moved, recipe.mean, recipe.std), boxes, fill)
        case.close("out_tensor", result, **PIXELS)


@golden("irra", "batch_plan")
def batch_plan(case: Case) -> None:
    number, size = case.item("num_samples"), case.item("batch_size")
    nobody = np.full(number, -1)
    plan = shuffled_plan(person_id=nobody, batch_size=size, seed=1)
    sizes, orders = [], []
    for epoch in range(len(case["out_order"])):
        plan.set_epoch(epoch)
        batches = list(plan)
        sizes.append([len(batch) for batch in batches])
        orders.append(np.concatenate(batches))

    case.equal("out_batch_sizes", np.array(sizes))
    torch.manual_seed(case.item("torch_seed"))
    pairs = [[int(torch.empty((), dtype=torch.int64).random_()) for _ in "ab"] for _ in orders]
    case.equal("out_seed_pairs", np.array(pairs))
    recorded = case["out_order"]
    for order, own in zip(recorded, orders, strict=True):
        case.check(sorted(order) == sorted(own), "every pair once in an epoch, as there")
    case.check(bool((orders[0] != orders[1]).any()), "in another order in the next")
    case.documented("out_order", "the order of torch's generator; ours is a function of the seed")


def recorded_stream(person_id: np.ndarray, people: int, size: int) -> np.ndarray:
    """Return the order of an epoch, from what the released sampler draws."""
    first = list(dict.fromkeys(person_id.tolist()))  # identities in order of appearance
    shuffled = {}
    for each in first:
        samples = np.flatnonzero(person_id == each)
        if len(samples) < size:
            samples = np.random.choice(samples, size=size, replace=True)
        mixed = samples.tolist()
        random.shuffle(mixed)
        shuffled[each] = mixed
    # the recorded samples as identities' own, so that our functions cut and deal them
    pool = np.array([sample for each in first for sample in shuffled[each]], dtype=np.int64)
    owner = np.repeat(np.arange(len(first)), [len(shuffled[each]) for each in first])
    chunks, num_chunks = identity_chunks(owner, np.arange(len(pool)), size=size, drawn=None)
    left, dealt = num_chunks.copy(), []
    while (left > 0).sum() >= people:
        drawn = random.sample([int(each) for each in np.flatnonzero(left > 0)], people)
        left[drawn] -= 1
        dealt.append(drawn)
    if not dealt:
        return np.zeros(0, dtype=np.int64)
    return pool[chunks[chunks_in_turn(np.array(dealt), num_chunks)]].ravel()


@golden("irra", "sampler_identity")
def sampler_identity(case: Case) -> None:
    person_id, size = case["pids"], case.item("instances")
    people = case.item("batch_size") // size
    random.seed(case.item("python_seed"))
    np.random.seed(case.item("numpy_seed"))

    for epoch in ("out_epoch1", "out_epoch2"):
        case.equal(epoch, recorded_stream(person_id, people, size))
    counts = np.maximum(np.unique(person_id, return_counts=True)[1], size)
    case.equal("out_reported_length", int((counts - counts % size).sum()))


@golden("irra", "sampler_identity_ddp")
def sampler_identity_ddp(case: Case) -> None:
    case.unused("pids", "batch_size", "instances", "num_processes", "shared_seed", reason="below")
    for name in case.outputs:
        case.documented(name, "never connected to a loader; here plans are global and are cut")
    case.check(True, "the frame cuts global batches by rank, see tests/ddp")

"""Times the input pipeline: as published, and as the package does it.

``python benchmarks/input_pipeline.py`` writes seeded pictures, loads them in batches of 64 and
prints images per second of CPU time on one core, and how many times faster than the published way
(Pillow and torchvision per image) each variant is, with the augmentation of RDE and of MMCL, whose
images are cut before they are resized; then text augmentation and the identity sampler at the
size of CUHK-PEDES. It fails if cached and uncached pixels, or batched and looped
results, are not the same. ``--quick`` takes few images, to see that everything runs.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
import torchvision.transforms as tv
from PIL import Image
from rows import report
from torch import Tensor

from crosswalk.data.pipeline.crops import RectangularCrop
from crosswalk.data.pipeline.datasets import ImageDataset, OpenImages
from crosswalk.data.pipeline.image_transform import IMAGENET_MEAN, IMAGENET_STD, ImageTransform
from crosswalk.data.pipeline.loaders import EpochLoader
from crosswalk.data.pipeline.plans import IdentityBatches, ShuffledBatches
from crosswalk.data.pipeline.stores import ImageStore, open_images
from crosswalk.data.pipeline.transforms import CLIP_MEAN, CLIP_STD, PairTransform
from crosswalk.data.readers.records import Record
from crosswalk.draws import keyed_uniform, sample_key
from crosswalk.run.allocator import keep_freed_memory

Size = tuple[int, int]
BATCH, PAIRS, PEOPLE, LENGTH, MASK = 64, 68_126, 11_003, 77, 49_405


def write_pictures(folder: Path, number: int, sizes: Callable[[], Size]) -> list[Path]:
    generator = np.random.default_rng(0)
    paths = []
    for index in range(number):
        height, width = sizes()
        coarse = generator.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
        smooth = np.asarray(
            Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        )
        noise = generator.normal(0, 6, smooth.shape)
        path = folder / f"{index}.jpg"
        Image.fromarray((smooth + noise).clip(0, 255).astype(np.uint8)).save(path, quality=90)
        paths.append(path)
    return paths


class Published(torch.utils.data.Dataset[Tensor]):
    """Every image by itself: decode, resize, augment, normalise, erase."""

    def __init__(self, paths: list[Path], size: Size) -> None:
        self.paths = paths
        self.transform = tv.Compose(
            [
                tv.Resize(size),
                tv.RandomHorizontalFlip(0.5),
                tv.Pad(10),
                tv.RandomCrop(size),
                tv.ToTensor(),
                tv.Normalize(CLIP_MEAN, CLIP_STD),
                tv.RandomErasing(scale=(0.02, 0.4), value=CLIP_MEAN),
            ]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        augmented: Tensor = self.transform(Image.open(self.paths[index]).convert("RGB"))
        return augmented


class PublishedMmcl(torch.utils.data.Dataset[Tensor]):
    """Every image by itself: decode, cut, resize, augment, normalise, erase."""

    def __init__(self, paths: list[Path], size: Size) -> None:
        self.paths = paths
        self.size = size
        self.transform = tv.Compose(
            [
                tv.Lambda(self._cut),
                tv.RandomHorizontalFlip(0.5),
                tv.RandomRotation(10),
                tv.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2),
                tv.ToTensor(),
                tv.Normalize(IMAGENET_MEAN, IMAGENET_STD),
                tv.Lambda(self._erase),
            ]
        )

    def _box(
        self, within: Size, area: Size | tuple[float, float], ratio: tuple[float, float], tries: int
    ) -> tuple[int, int, int, int] | None:
        height, width = within
        for _ in range(tries):
            pixels, aspect = random.uniform(*area) * height * width, random.uniform(*ratio)
            h, w = round(math.sqrt(pixels * aspect)), round(math.sqrt(pixels / aspect))
            if h <= height and w <= width:
                return random.randint(0, height - h), random.randint(0, width - w), h, w
        return None

    def _cut(self, image: Image.Image) -> Image.Image:
        box = self._box((image.height, image.width), (0.64, 1.0), (2.0, 3.0), 10)
        if box is not None:
            top, left, height, width = box
            image = image.crop((left, top, left + width, top + height))
        return image.resize((self.size[1], self.size[0]), Image.Resampling.BILINEAR)

    def _erase(self, image: Tensor) -> Tensor:
        box = self._box(self.size, (0.02, 0.2), (0.3, 3.0), 100)
        if random.random() < 0.5 and box is not None:
            top, left, height, width = box
            fill = torch.tensor(IMAGENET_MEAN)[:, None, None]
            image[:, top : top + height, left : left + width] = fill
        return image

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        augmented: Tensor = self.transform(Image.open(self.paths[index]).convert("RGB"))
        return augmented


def ours(images: ImageStore, paths: list[Path]) -> EpochLoader:
    records = [Record(path, person_id=0, camera_id=1) for path in paths]
    training = OpenImages(records, images, place=np.arange(len(paths)))
    plan = ShuffledBatches(len(paths), BATCH, seed=1)
    return EpochLoader(ImageDataset(training), plan, seed=1)


def cpu_seconds(run: Callable[[], object], repeats: int) -> float:
    """Return the median CPU time; other programs on the machine disturb it less than the clock."""
    run()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return statistics.median(times)


def consume(batches: Iterable[object]) -> None:
    for _ in batches:
        pass


def compare_images(
    title: str, paths: list[Path], size: Size, folder: Path, repeats: int
) -> dict[str, float]:
    started = time.perf_counter()
    cached = open_images(paths, size, name=title, folder=folder)
    built = time.perf_counter() - started
    uncached = open_images(paths, size, name=title, folder=folder, cached=False)
    everything = np.arange(len(paths))
    if not torch.equal(cached.read(everything), uncached.read(everything)):
        sys.exit(f"{title}: cached and uncached pixels differ")
    published = torch.utils.data.DataLoader(Published(paths, size), BATCH, shuffle=True)
    loaders = {"decoded each time": ours(uncached, paths), "cached": ours(cached, paths)}
    return time_loaders(title, published, loaders, PairTransform(), len(paths) / built, repeats)


def compare_cut_images(
    title: str, paths: list[Path], size: Size, folder: Path, repeats: int
) -> dict[str, float]:
    started = time.perf_counter()
    crop = RectangularCrop()
    cached = open_images(paths, size, name=title, folder=folder, crop=crop)
    built = time.perf_counter() - started
    uncached = open_images(paths, size, name=title, folder=folder, crop=crop, cached=False)
    cut = {"decoded each time": uncached, "cached": cached}
    everything = np.arange(len(paths))
    key = sample_key(0, 0, 0, torch.arange(len(paths)))
    pixels = [images.read(everything, key) for images in cut.values()]
    if not torch.equal(*pixels):
        sys.exit(f"{title}: cached and uncached pixels differ")
    published = torch.utils.data.DataLoader(PublishedMmcl(paths, size), BATCH, shuffle=True)
    transform = ImageTransform(
        flip_probability=0.5,
        rotation=10,
        brightness=0.2,
        contrast=0.2,
        saturation=0.2,
        erase_probability=0.5,
        erase_area=(0.02, 0.2),
        erase_ratio=(0.3, 3.0),
        erase_law="uniform",
        erase_fill=IMAGENET_MEAN,
    )
    loaders = {name: ours(images, paths) for name, images in cut.items()}
    return time_loaders(title, published, loaders, transform, len(paths) / built, repeats)


def time_loaders(
    title: str,
    published: Iterable[object],
    loaders: dict[str, EpochLoader],
    transform: Callable[..., object],
    built_per_second: float,
    repeats: int,
) -> dict[str, float]:
    number = len(loaders["cached"].dataset)
    runs: dict[str, Callable[[], None]] = {
        "published way": lambda: consume(published),
        **{
            f"{name}, augmented": lambda loader=loader: consume(map(transform, loader))
            for name, loader in loaders.items()
        },
        "cached, not augmented": lambda: consume(loaders["cached"]),
    }
    seconds = {name: cpu_seconds(run, repeats) for name, run in runs.items()}
    print(f"\n{title} ({number} images, cache built at {built_per_second:,.0f}/s)")
    for name, value in seconds.items():
        ratio = seconds["published way"] / value
        print(f"  {name:<42}{number / value:10,.0f} images/s{ratio:8.1f}x")
        if name != "published way":
            aim = {"cached, augmented": 3.9, "cached, not augmented": 15.0}.get(name)
            report(
                f"a thousand images, {title}: {name}",
                1000 * value / number,
                1000 * seconds["published way"] / number,
                against="Pillow and torchvision, image by image",
                unit="CPU s",
                at_least=aim,
            )
    return seconds


def loop_over_words(caption: list[int], draws: list[float], replacements: list[int]) -> list[int]:
    out, word, replaced = [], 0, 0
    for token in caption:
        if not 0 < token < MASK:
            out.append(token)
            continue
        draw = draws[word]
        word += 1
        if draw >= 0.2:
            out.append(token)
        elif draw / 0.2 < 0.6:
            out.append(MASK)
        elif draw / 0.2 < 0.8:
            out.append(replacements[replaced])
            replaced += 1
    return out + [0] * (len(caption) - len(out))


def compare_texts(pairs: int, repeats: int) -> None:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(1, MASK, (pairs, LENGTH), generator=generator)
    words = torch.randint(12, 40, (pairs, 1), generator=generator)
    place = torch.arange(LENGTH)
    tokens[:, 0] = MASK + 1
    tokens[place == words] = MASK + 2
    tokens[place > words] = 0
    transform = PairTransform()
    keys = sample_key(0, 0, 0, torch.arange(pairs))
    some = min(pairs, 2000)

    def loop() -> list[list[int]]:
        draws = keyed_uniform(keys[:some], 2 * LENGTH, stream=1)
        replacements = 1 + (draws[:, LENGTH:] * (MASK - 1)).long()
        lists = zip(tokens[:some].tolist(), draws.tolist(), replacements.tolist(), strict=True)
        return [loop_over_words(*caption) for caption in lists]

    def batched() -> list[Tensor]:
        pieces = zip(tokens.split(BATCH), keys.split(BATCH), strict=True)
        return [transform.augment_tokens(*piece) for piece in pieces]

    if torch.cat(batched())[:some].tolist() != loop():
        sys.exit("text augmentation: batched and looped captions differ")
    slow, fast = cpu_seconds(loop, repeats) * pairs / some, cpu_seconds(batched, repeats)
    print(f"\nText augmentation of {pairs:,} captions")
    print(
        f"  loop over captions {slow:8.2f} s\n"
        f"  batches of {BATCH} {fast:13.2f} s{slow / fast:8.1f}x"
    )
    title = f"text augmentation of {pairs:,} captions"
    report(title, fast, slow, against="loop over captions", unit="CPU s")
    report(f"{title}, beside its bound", fast, unit="CPU s", at_most=1)


def plain_identity_batches(person_id: list[int], per_batch: int, each: int) -> list[list[int]]:
    """Return P x K batches by dictionaries and lists."""
    owned: dict[int, list[int]] = defaultdict(list)
    for index, person in enumerate(person_id):
        owned[person].append(index)
    chunks: dict[int, list[list[int]]] = defaultdict(list)
    for person, indices in owned.items():
        if len(indices) < each:
            indices = random.choices(indices, k=each)
        random.shuffle(indices)
        for start in range(0, len(indices) - each + 1, each):
            chunks[person].append(indices[start : start + each])
    left, batches = list(owned), []
    while len(left) >= per_batch:
        batch = []
        for person in random.sample(left, per_batch):
            batch += chunks[person].pop(0)
            if not chunks[person]:
                left.remove(person)
        batches.append(batch)
    return batches


def compare_samplers(pairs: int, people: int, repeats: int) -> None:
    person_id = np.sort(np.random.default_rng(0).integers(0, people, pairs))
    plan = IdentityBatches(person_id, BATCH, seed=1)

    def epoch() -> None:
        plan.set_epoch(plan.epoch + 1)
        consume(plan)

    slow = cpu_seconds(lambda: plain_identity_batches(person_id.tolist(), BATCH // 4, 4), repeats)
    fast = cpu_seconds(epoch, repeats)
    print(f"\nIdentity sampler, one epoch of {pairs:,} pairs of {people:,} people")
    print(f"  dictionaries and lists {slow:8.3f} s\n  arrays {fast:24.3f} s{slow / fast:8.1f}x")
    title = f"identity sampler, one epoch of {pairs:,} pairs"
    report(title, fast, slow, against="dictionaries and lists", unit="CPU s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few images, no meaningful times")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    number, repeats = (70, 1) if quick else (512, 3)
    kept = keep_freed_memory()
    print(
        f"freed memory is {'kept' if kept else 'given back'}; {os.cpu_count()} cores, one used",
        flush=True,
    )
    people = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        cuhk, market = Path(folder, "cuhk"), Path(folder, "market")
        cuhk.mkdir()
        market.mkdir()

        def cuhk_size() -> Size:
            height = people.randint(180, 460)
            return height, int(height * people.uniform(0.32, 0.45))

        paths = write_pictures(cuhk, number, cuhk_size)
        compare_images(
            "CUHK-PEDES like, 384x128", paths, (384, 128), Path(folder, "cache"), repeats
        )
        paths = write_pictures(market, number, lambda: (128, 64))
        compare_images(
            "Market-1501 like, 256x128", paths, (256, 128), Path(folder, "cache"), repeats
        )
        compare_cut_images(
            "Market-1501 like, cut, 256x128", paths, (256, 128), Path(folder, "cache"), repeats
        )
    share = 50 if quick else 1
    compare_texts(PAIRS // share, repeats)
    compare_samplers(PAIRS // share, PEOPLE // share, repeats)


if __name__ == "__main__":
    main()

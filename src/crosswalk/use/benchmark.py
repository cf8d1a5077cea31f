"""`crosswalk benchmark`: how fast a model embeds, and how large it is."""

from __future__ import annotations

import platform
import timeit
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from crosswalk.use.model import Model

CAPTION = (
    "A woman with long dark hair wears a red coat, blue jeans and white shoes, and carries a black "
    "backpack over her left shoulder."
)
"""As long as the captions of the public data sets are on average, 23 words."""


REPETITIONS = 7
"""Of each row, each of 0.2 s or one call."""


class Speed(NamedTuple):
    """One row of the benchmark.

    Attributes:
        what: What is embedded, and from where.
        batch: How many at a time.
        seconds: Median over repetitions, for the batch.
        spread: Their interquartile range.
    """

    what: str
    batch: int
    seconds: float
    spread: float

    @property
    def per_second(self) -> float:
        """How many are embedded in a second."""
        return self.batch / self.seconds


def speeds(model: Model, *, batch_size: int = 64) -> list[Speed]:
    """Time a model on images, image files and captions, one at a time and in batches.

    Args:
        model: The model, on its device. Results are fetched, so that a GPU is waited for.
        batch_size: The batch beside one at a time.
    """
    height, width = model.preprocessing.image_size
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    with TemporaryDirectory() as folder:
        file = Path(folder) / "image.jpg"
        Image.fromarray(pixels).resize((2 * width, 2 * height)).save(file, quality=90)
        inputs: dict[str, Callable[[int], object]] = {
            "images": lambda number: model.embed_images([pixels] * number, batch_size=number),
            "image files": lambda number: model.embed_images([file] * number, batch_size=number),
        }
        if model.tokenizer is not None:
            inputs["captions"] = lambda number: model.embed_texts(
                [CAPTION] * number, batch_size=number
            )
        return [
            Speed(what, number, *_timed(lambda: embed(number)))  # noqa: B023
            for what, embed in inputs.items()
            for number in dict.fromkeys((1, batch_size))
        ]


def _timed(call: Callable[[], object]) -> tuple[float, float]:
    timer = timeit.Timer(call)
    number, _ = timer.autorange()  # its first calls do what is only done once
    times = np.array(timer.repeat(REPETITIONS, number)) / number
    low, middle, high = np.percentile(times, (25, 50, 75)).tolist()
    return middle, high - low


def facts_of(model: Model, weights: Path) -> dict[str, Any]:
    """Return a model's sizes, and on what it was timed.

    Args:
        model: The model.
        weights: The file it came from; what it is called if it has none here.
    """
    parameters = list(model.method.get_submodule("encoder").parameters())
    height, width = model.preprocessing.image_size
    device = model.device
    is_gpu = device.type == "cuda"
    return {
        "model": model.name,
        "fingerprint": model.fingerprint,
        "image_size": [height, width],
        "embedding_size": model.embedding_size,
        "parameters": sum(each.numel() for each in parameters),
        "bytes_in_memory": sum(each.numel() * each.element_size() for each in parameters),
        "bytes_of_file": weights.stat().st_size if weights.is_file() else None,
        "device": torch.cuda.get_device_name(device) if is_gpu else platform.machine(),
        "threads": torch.get_num_threads(),
        "precision": model.precision,
        "torch": torch.__version__,
    }

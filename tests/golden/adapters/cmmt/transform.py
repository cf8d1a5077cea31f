"""What an image goes through before it is embedded."""

import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from crosswalk.data.pipeline.decoding import decode_image
from crosswalk.data.pipeline.image_transform import IMAGENET_MEAN, IMAGENET_STD
from crosswalk.data.pipeline.transforms import PairTransform
from crosswalk.types import ImageBatch
from tests.golden.harness import Case, golden


@golden("cmmt", "image_transform")
def transform_of_tests(case: Case) -> None:
    random = np.random.RandomState(case.item("seed"))
    shape = (case.item("height"), case.item("width"), 3)
    pixels = random.randint(0, 256, shape).astype(np.uint8)
    if "image" in case:
        pixels = case["image"]
        case.check(pixels.shape == shape, "the image has the recorded size")
    size = tuple(case.setting("size", [384, 128]))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "image.png")  # PNG keeps every pixel
        Image.fromarray(pixels).save(path)
        image = decode_image(path, size, "bicubic")[None]
    one = torch.tensor([0])

    transform = PairTransform(
        mean=tuple(case.setting("mean", IMAGENET_MEAN)),
        std=tuple(case.setting("std", IMAGENET_STD)),
    )
    result = transform(ImageBatch(image, one, one, one, key=None)).image[0]

    case.close("out_tensor_strided", result[:, ::16, ::8], rtol=0, atol=1e-6)
    case.close("out_mean", result.double().mean((1, 2)), rtol=0, atol=1e-6)
    case.close("out_std", result.double().std((1, 2), correction=0), rtol=0, atol=1e-6)

"""What an image goes through before it is embedded."""

import tempfile
from pathlib import Path

import torch
from PIL import Image

from crosswalk.data.pipeline.decoding import decode_image
from crosswalk.data.pipeline.transforms import PairTransform
from crosswalk.types import ImageBatch
from tests.golden.harness import Case, golden


@golden("cm_moco", "eval_transform")
def transform_of_tests(case: Case) -> None:
    size = (case.item("height"), case.item("width"))
    mean, std = (tuple(case[f"pixel_{name}"].tolist()) for name in ("mean", "std"))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "image.png")  # PNG keeps every pixel
        Image.fromarray(case["image"]).save(path)
        image = decode_image(path, size)[None]
    one = torch.tensor([0])

    batch = PairTransform(mean=mean, std=std)(ImageBatch(image, one, one, one, key=None))

    case.close("out_tensor", batch.image[0], rtol=0, atol=1e-6)

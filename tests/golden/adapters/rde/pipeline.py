"""Image and text transforms, with the recorded random numbers put in."""

import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from crosswalk.data.pipeline.decoding import decode_image
from crosswalk.data.pipeline.transforms import PairTransform, mask_replace_delete
from crosswalk.types import ImageBatch
from tests.golden.harness import Case, golden

MASK_ID = PairTransform().mask_id


@golden("rde", "image_transform")
def image_transform(case: Case) -> None:

    height, width = case["size_hw"].tolist()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "image.png")  # PNG keeps every pixel
        Image.fromarray(case["image_uint8"]).save(path)
        image = decode_image(path, (height, width))[None]
    one = torch.tensor([0])

    batch = PairTransform()(ImageBatch(image, one, one, one, key=None))

    case.close("out_tensor", batch.image[0], rtol=1e-6, atol=1e-6)


@golden("rde", "text_aug")
def text_aug(case: Case) -> None:
    tokens, draws = case.tensor("tokens"), case.tensor("uniform_draws")
    replacements = case.tensor("replacement_draws")

    augmented = mask_replace_delete(tokens[None], draws[None], replacements[None], mask_id=MASK_ID)[
        0
    ]

    case.equal("out_tokens", augmented)
    words = int(((tokens > 0) & (tokens < MASK_ID)).sum())
    case.equal("out_uniform_used", np.int64(words))
    share = draws[:words] / 0.2
    replaced = (draws[:words] < 0.2) & (share >= 0.6) & (share < 0.8)
    case.equal("out_replacements_used", np.int64(replaced.sum()))

"""Pictures for tests of reading them."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def picture(height: int, width: int, seed: int = 0, mode: str = "RGB") -> Image.Image:
    """Return a picture with edges and smooth parts."""
    random = np.random.default_rng(seed)
    small = random.integers(0, 256, (max(1, height // 3), max(1, width // 3), 3), dtype=np.uint8)
    image = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
    return image.convert(mode)


def pillow_pixels(
    path: Path,
    size: tuple[int, int] | None,
    resampling: Image.Resampling = Image.Resampling.BILINEAR,
    box: tuple[int, int, int, int] | None = None,
) -> np.ndarray:
    """Return what Pillow reads, of a box (top, left, height, width) or of all, at a size."""
    image = Image.open(path).convert("RGB")
    if box is not None:
        top, left, height, width = box
        image = image.crop((left, top, left + width, top + height))
    if size is not None:
        image = image.resize((size[1], size[0]), resampling)
    return np.asarray(image).transpose(2, 0, 1)


def random_images(number: int, height: int, width: int, seed: int = 0) -> Tensor:
    """Return ``[number, 3, height, width]`` uint8."""
    generator = torch.Generator().manual_seed(seed)
    shape = (number, 3, height, width)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def to_picture(image: Tensor) -> Image.Image:
    """Return ``[3, H, W]`` uint8 as a picture."""
    return Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())


def to_pixels(image: Image.Image) -> Tensor:
    """Return ``[3, H, W]`` of a picture."""
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)

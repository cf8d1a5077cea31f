"""A trained model in use: images and sentences to unit vectors."""

from __future__ import annotations

import hashlib
import inspect
import math
import os
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from crosswalk.data.pairs import Tokenizer
from crosswalk.data.pipeline.decoding import decode_pixels, resize
from crosswalk.data.pipeline.preprocessing import Preprocessing
from crosswalk.data.pipeline.transforms import token_length
from crosswalk.image_files import as_seen
from crosswalk.methods.base import Method
from crosswalk.progress import Progress
from crosswalk.types import ImageBatch, TextBatch
from crosswalk.words import counted, kind_of

AnyImage: TypeAlias = str | Path | Image.Image | NDArray[np.uint8] | Tensor
Precision = Literal["float32", "bf16"]
Item = TypeVar("Item")

_AHEAD = 2
"""Batches that are decoded while one is computed."""


class SentenceError(ValueError):
    """A sentence has no words.

    Attributes:
        place: Which it is among those that were given.
        caption: The sentence.
    """

    def __init__(self, place: int, caption: str) -> None:
        self.place, self.caption = place, caption
        super().__init__(
            f"sentence {place}, {caption!r}, has no words. Write what is to be seen, such as "
            "'a woman in a red coat'."
        )


class Model:
    """Embeds images and, where its method reads captions, sentences. Made by `crosswalk.load`.

    Embeddings are those that the evaluation of the same checkpoint compares, so that the product
    of two of them is the score of the evaluation, in [-1, 1]. Several views of a model are put side
    by side. It may be called from several threads.

    Where features of a caption depend on the longest one in its batch
    (`crosswalk.encoders.text_recurrent.BiGru`), a caption counts as one of those that are shorter,
    whatever it is embedded with.

    Args:
        method: The method with its weights.
        preprocessing: What is done to images before.
        tokenizer: Of captions; None for a model of images alone.
        name: What people call it.
        precision: In which it computes.
        identity: A text of whatever the embeddings depend on beside the weights.
        source: What `crosswalk.load` gives the same model for, from any folder; empty if unknown.
    """

    def __init__(
        self,
        method: Method[Any],
        preprocessing: Preprocessing,
        *,
        tokenizer: Tokenizer | None = None,
        name: str = "model",
        precision: Precision = "float32",
        identity: str = "",
        source: str = "",
    ) -> None:
        if precision not in ("float32", "bf16"):
            raise ValueError(f"precision={precision!r} should be float32 or bf16.")
        self.method = method.eval().requires_grad_(False)
        self.preprocessing = preprocessing
        self.tokenizer = tokenizer
        self.name = name
        self.precision = precision
        self.source = source
        self.device = torch.device("cpu")
        self._identity = identity
        embed = getattr(method.get_submodule("encoder"), "embed_texts", None)
        self._by_longest = embed is not None and "longest" in inspect.signature(embed).parameters

    def __repr__(self) -> str:
        height, width = self.preprocessing.image_size
        reads = "images" if self.tokenizer is None else "images and captions"
        return f"Model({self.name}: {reads}, {height}x{width}, {self.device})"

    def to(self, device: str | torch.device) -> Model:
        """Move the weights to ``device``; return the model."""
        self.device = torch.device(device)
        self.method.to(self.device)
        return self

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that change with whatever the embeddings depend on."""
        return fingerprint_of(self.method.get_submodule("encoder").state_dict(), self._identity)

    def embed_images(
        self,
        images: Iterable[AnyImage] | AnyImage,
        *,
        batch_size: int = 64,
        on_error: Literal["raise", "skip"] = "raise",
        broken: dict[int, str] | None = None,
        progress: bool = False,
    ) -> Tensor:
        """Return ``[N, D]`` float32 unit vectors of images, on the CPU.

        Args:
            images: Files; images of Pillow; uint8 arrays ``[H, W]`` or ``[H, W, 3]``; uint8 tensors
                ``[3, H, W]``; RGB, of any size. One alone is a list of one. Files and images of
                Pillow are read as people see them: upright, what shows through white.
            batch_size: Images computed at a time; it changes embeddings by rounding alone.
            on_error: ``skip`` leaves out images that cannot be read, of which a warning tells, so
                that there are fewer rows; ``raise`` ends at the first.
            broken: Is told what is wrong with each of these, by its place among ``images``.
            progress: Whether a bar on stderr shows how far it is.

        Raises:
            FileNotFoundError: If a file is missing.
            ValueError: If one is damaged or of another kind.
        """
        if on_error not in ("raise", "skip"):
            raise ValueError(f"on_error={on_error!r} should be raise or skip.")
        if isinstance(images, np.ndarray) and images.dtype.kind in "UO":  # names, such as `embed`'s
            images = images.tolist()
        if isinstance(images, (str, Path, Image.Image)) or getattr(images, "ndim", 4) < 4:
            images = [images]  # type: ignore[list-item]
        wrong: dict[int, str] = {}
        rows: list[Tensor] = []
        total = len(images) if isinstance(images, Sequence) else None
        title = f"Embedding images with {self.name}"
        with Progress(title) as shown:
            for batch, done in self._read_ahead(images, _checked(batch_size), on_error, wrong):
                if len(batch):
                    rows.append(self._embed(self._image_batch(batch)))
                if progress and total:
                    shown(done, total)
        if wrong and broken is None:
            listed = "".join(f"\n  {place}: {problem}" for place, problem in wrong.items())
            warnings.warn(f"{counted(len(wrong), 'image', 'were')} left out:{listed}", stacklevel=2)
        elif broken is not None:
            broken.update(wrong)
        return self._joined(rows)

    def embed_texts(
        self, captions: Sequence[str] | str, *, batch_size: int = 256, progress: bool = False
    ) -> Tensor:
        """Return ``[N, D]`` float32 unit vectors of sentences, on the CPU.

        Args:
            captions: What is to be seen. One alone is a list of one.
            batch_size: Sentences computed at a time; it changes embeddings by rounding alone.
            progress: Whether a bar on stderr shows how far it is.

        Raises:
            ValueError: If the model reads no captions, or one of them has no words.
        """
        if self.tokenizer is None:
            raise ValueError(
                f"{self.name} is a model of images alone and reads no sentences. Load a run of a "
                "method for text-based search."
            )
        captions = [captions] if isinstance(captions, str) else list(captions)
        rows: list[Tensor] = []
        with Progress(f"Embedding sentences with {self.name}") as shown:
            for start in range(0, len(captions), _checked(batch_size)):
                rows.append(self._embed_captions(captions[start : start + batch_size], start))
                if progress:
                    shown(min(start + batch_size, len(captions)), len(captions))
        return self._joined(rows)

    def _embed_captions(self, captions: Sequence[str], start: int) -> Tensor:
        assert self.tokenizer is not None  # its caller has looked
        for place, caption in enumerate(captions, start):
            if not isinstance(caption, str):
                raise ValueError(f"sentence {place} is {kind_of(caption)}; sentences are texts.")
        tokens = self.tokenizer(captions)
        empty = (tokens == 0).all(dim=1).nonzero().flatten().tolist()
        empty += [place for place, caption in enumerate(captions) if not caption.strip()]
        if empty:
            raise SentenceError(start + min(empty), captions[min(empty)])
        return self._embed(self.text_batch(tokens.to(self.device)))[: len(captions)]

    def text_batch(self, tokens: Tensor) -> TextBatch:
        """Return ``[N, L]`` token ids as its method takes them; rows behind N are to be left out.

        Args:
            tokens: On the device of the model.
        """
        if self._by_longest:  # one more row, the longest that there can be
            tokens = torch.cat([tokens, torch.ones_like(tokens[:1])])
        zeros = torch.zeros(tokens.shape[0], dtype=torch.int64, device=self.device)
        return TextBatch(tokens, token_length(tokens), zeros, zeros, zeros)

    def _image_batch(self, batch: Sequence[Tensor]) -> ImageBatch:
        image = torch.stack(list(batch)).to(self.device)
        zeros = torch.zeros(len(image), dtype=torch.int64, device=self.device)
        return ImageBatch(self.preprocessing.normalized(image), zeros, zeros, zeros, None)

    @torch.inference_mode()
    def _embed(self, batch: ImageBatch | TextBatch) -> Tensor:
        halves = self.precision == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=halves):
            views = self.method.embed(batch)
        joined = joined_views(views)
        return F.normalize(joined).cpu() if halves else joined.cpu()

    def _joined(self, rows: list[Tensor]) -> Tensor:
        if not rows:
            return torch.empty(0, self.embedding_size)
        return torch.cat(rows).clone()  # a plain tensor: those of inference know no autograd

    @cached_property
    def embedding_size(self) -> int:
        """D, the columns of embeddings."""
        black = torch.zeros(3, *self.preprocessing.image_size, dtype=torch.uint8)
        return self._embed(self._image_batch([black])).shape[1]

    def _read_ahead(
        self,
        images: Iterable[AnyImage],
        batch_size: int,
        on_error: str,
        wrong: dict[int, str],
    ) -> Iterator[tuple[list[Tensor], int]]:
        """Yield the images of a batch that can be read, and how many were looked at so far."""
        places = enumerate(images)
        waiting: deque[list[tuple[int, Future[Tensor]]]] = deque()
        done = 0
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            try:
                while True:
                    while len(waiting) < _AHEAD:
                        chunk = list(islice(places, batch_size))
                        if not chunk:
                            break
                        waiting.append([(place, pool.submit(self._read, i)) for place, i in chunk])
                    if not waiting:
                        return
                    read = []
                    for place, future in waiting.popleft():
                        done += 1
                        try:
                            read.append(future.result())
                        except (OSError, ValueError) as error:
                            if on_error == "raise":
                                raise
                            wrong[place] = str(error)
                    yield read, done
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _read(self, image: AnyImage) -> Tensor:
        """Return ``[3, H, W]`` uint8 at the model's size."""
        size, interpolation = self.preprocessing.image_size, self.preprocessing.interpolation
        return resize(pixels_of(image), size, interpolation)


def fingerprint_of(weights: Mapping[str, Tensor], identity: str) -> str:
    """Return the fingerprint of the model with an encoder's weights.

    Example:
        >>> fingerprint_of({"w": torch.ones(2)}, "a") == fingerprint_of({"w": torch.ones(2)}, "b")
        False
    """
    digest = hashlib.sha256(identity.encode())
    for name, row in sorted(weights.items()):
        digest.update(f"{name} {list(row.shape)} {row.dtype}".encode())
        digest.update(row.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def joined_views(views: Mapping[str, Tensor]) -> Tensor:
    """Return ``[b, D]`` float32 unit vectors whose products are the mean of those of the views.

    Args:
        views: ``[b, d]`` unit vectors by view.

    Example:
        >>> joined_views({"a": torch.tensor([[1.0]]), "b": torch.tensor([[0.0, 1.0]])})
        tensor([[0.7071, 0.0000, 0.7071]])
    """
    joined = torch.cat([views[view].float() for view in sorted(views)], dim=1)
    return joined / math.sqrt(len(views))


def pixels_of(image: AnyImage) -> NDArray[np.uint8]:
    """Return an image as ``[H, W, 3]`` RGB.

    Raises:
        FileNotFoundError: If it is a file that is missing.
        ValueError: If it is damaged, or of another kind, shape or type.

    Example:
        >>> pixels_of(Image.new("L", (2, 4), 7)).shape
        (4, 2, 3)
        >>> pixels_of(np.zeros((4, 2, 3)))
        Traceback (most recent call last):
            ...
        ValueError: an array of float64 [4, 2, 3] is no image: it should be of uint8, [H, W] or \
        [H, W, 3] (a tensor [3, H, W]), RGB from 0 to 255.
    """
    if isinstance(image, (str, Path)):
        return decode_pixels(Path(image), own=True)
    if isinstance(image, Image.Image):
        return np.array(as_seen(image))
    if isinstance(image, Tensor):
        what = f"a tensor of {str(image.dtype).removeprefix('torch.')} {list(image.shape)}"
        image = image.detach().cpu().numpy()
        image = image.transpose(1, 2, 0) if image.ndim == 3 else image[..., None, None]
    elif isinstance(image, np.ndarray):
        what = f"an array of {image.dtype} {list(image.shape)}"
    else:
        raise ValueError(
            f"a {type(image).__name__} is no image: pass files, images of Pillow, uint8 arrays "
            "[H, W, 3] or uint8 tensors [3, H, W]."
        )
    if image.ndim == 2:
        image = np.repeat(image[:, :, None], 3, axis=2)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(
            f"{what} is no image: it should be of uint8, [H, W] or [H, W, 3] (a tensor [3, H, W]), "
            "RGB from 0 to 255."
        )
    return np.ascontiguousarray(image)


def _checked(batch_size: int) -> int:
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size} should be at least 1.")
    return batch_size

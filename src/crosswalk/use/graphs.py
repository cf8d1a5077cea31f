"""A model's encoders as modules of one tensor, for exporters, and samples to compare them on."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import OutOfMemoryError, Tensor, nn

from crosswalk.data.pipeline.transforms import normalize
from crosswalk.types import ImageBatch
from crosswalk.use.model import Model, joined_views

BATCHES = (1, 7, 42)
"""Sizes of the batches of samples, 50 in all."""

MOVED = 1e-6
"""Share of a weight; numbers of float32 have 7 digits."""

DRAWS = 20
"""How often weights are moved; where one rank is undecided, half of the draws turn it."""

FEW = 5
"""Most samples of those whose ranks may be undecided."""

WORDS = (
    "a the man woman boy girl with and in of is wearing carrying has her his black white red blue "
    "green grey pink dark light short long hair coat jacket shirt t-shirt dress skirt trousers "
    "jeans shorts shoes sneakers boots hat cap glasses backpack bag handbag umbrella phone walking"
)

Embed = Callable[[Tensor], Tensor]
"""Called with a batch of uint8 images ``[n, 3, H, W]``, or of token ids ``[n, L]``."""


class Graph(nn.Module):
    """One encoder of a model; its only parameters are those of the method's ``encoder``.

    Attributes:
        what: ``image`` or ``text``.
        takes: The name of the only input.
        example: Three rows of it.
    """

    what: str
    takes: str

    def __init__(self, model: Model, example: Tensor) -> None:
        super().__init__()
        self.encoder = model.method.get_submodule("encoder")
        self.example = example
        self._model = (model,)  # not a submodule: memories and key encoders are not exported

    @property
    def model(self) -> Model:
        """The model."""
        return self._model[0]

    def input_of(self, rows: Tensor) -> Tensor:
        """Return the input for a batch of `Embed`."""
        return rows


class ImageGraph(Graph):
    """Images to embeddings.

    Args:
        model: The model.
        preprocessing: Whether the input is ``pixels``, uint8 ``[N, H, W, 3]`` RGB; or
            ``normalized``, float32 ``[N, 3, H, W]``.
    """

    what = "image"

    def __init__(self, model: Model, *, preprocessing: bool) -> None:
        height, width = model.preprocessing.image_size
        pixels = torch.zeros(3, 3, height, width, dtype=torch.uint8)
        self.takes = "pixels" if preprocessing else "normalized"
        super().__init__(model, pixels)
        self.example = self.input_of(pixels)

    def input_of(self, rows: Tensor) -> Tensor:
        """Return the input for ``[n, 3, H, W]`` uint8 images."""
        if self.takes == "pixels":
            return rows.permute(0, 2, 3, 1).contiguous()
        return self.model.preprocessing.normalized(rows)

    def forward(self, images: Tensor) -> Tensor:
        """Return ``[N, D]`` float32 unit vectors."""
        if self.takes == "pixels":
            steps = self.model.preprocessing
            images = images.permute(0, 3, 1, 2)
            images = normalize(images, steps.mean, steps.std, pixel_format=steps.pixel_format)
        zeros = torch.zeros(images.shape[0], dtype=torch.int64)
        return joined_views(self.model.method.embed(ImageBatch(images, zeros, zeros, zeros, None)))


class TextGraph(Graph):
    """Token ids ``[N, L]`` to embeddings, each as if a longer caption shared its batch."""

    what, takes = "text", "tokens"

    def __init__(self, model: Model) -> None:
        assert model.tokenizer is not None  # its caller has looked
        super().__init__(model, model.tokenizer(captions_for(model, 3)))

    def forward(self, tokens: Tensor) -> Tensor:
        """Return ``[N, D]`` float32 unit vectors."""
        views = self.model.method.embed(self.model.text_batch(tokens))
        return joined_views(views)[: tokens.shape[0]]


def graphs_of(model: Model, *, preprocessing: bool) -> list[Graph]:
    """Return the image encoder and, of a model that reads captions, the text encoder."""
    images: Graph = ImageGraph(model, preprocessing=preprocessing)
    return [images] if model.tokenizer is None else [images, TextGraph(model)]


def captions_for(model: Model, number: int) -> list[str]:
    """Return captions of 1 to 60 words that the model knows, the same at every call."""
    words: Sequence[str] = WORDS.split()
    vocabulary: Sequence[str] | None = getattr(model.tokenizer, "words", None)
    if vocabulary is not None:
        known = [word for word in vocabulary if word.isalnum() and word.islower()]
        words = [word for word in words if word in known] or known
    draws = torch.Generator().manual_seed(0)
    return [
        " ".join(words[place] for place in torch.randint(len(words), (length,), generator=draws))
        for length in torch.randint(1, 61, (number,), generator=draws).tolist()
    ]


class Samples(NamedTuple):
    """What a graph is compared on.

    Attributes:
        rows: 50 random images, or token ids of captions, for `Embed`.
        expected: ``[50, D]`` what the model makes of them.
    """

    rows: Tensor
    expected: Tensor

    def of(self, embed: Embed) -> Tensor:
        """Return what a graph makes of them, in batches of several sizes."""
        return torch.cat([embed(some) for some in torch.split(self.rows, list(BATCHES))])


def samples_for(graph: Graph) -> Samples:
    """Return samples for a graph, the same at every call."""
    model, number = graph.model, sum(BATCHES)
    if graph.what == "text":
        assert model.tokenizer is not None
        captions = captions_for(model, number)
        return Samples(model.tokenizer(captions), model.embed_texts(captions))
    draws = torch.Generator().manual_seed(0)
    size = (number, 3, *model.preprocessing.image_size)
    images = torch.randint(256, size, generator=draws, dtype=torch.uint8)
    return Samples(images, model.embed_images(list(images)))


@torch.inference_mode()
def difference(graph: Graph, samples: Samples, embed: Embed, *, most: float) -> tuple[float, int]:
    """Return the largest difference between what a file and what the model computes.

    A model that selects tokens may select another one where two scores are equal but for rounding.
    Such a sample, and they are few, may be what the model makes of it with weights that are moved
    by about as much (`MOVED`). Whatever else a file does wrong stays in it then.

    Args:
        graph: What was exported.
        samples: What they are compared on.
        embed: The exported file.
        most: The largest that is accepted.

    Returns:
        The difference, and the number of such samples.

    Raises:
        ValueError: If it is larger, or not a number.
    """
    rows = samples.of(embed)
    away = (rows - samples.expected).abs().amax(dim=1)
    over = differing = (~(away <= most)).nonzero().flatten()
    for draw in range(DRAWS if len(differing) <= FEW else 0):
        with _moved(graph.encoder, draw):
            again = graph(graph.input_of(samples.rows[over]))
        away[over] = torch.minimum(away[over], (rows[over] - again).abs().amax(dim=1))
        over = (~(away <= most)).nonzero().flatten()
        if len(over) == 0:
            break
    found = float(away.max())
    if not found <= most:
        raise ValueError(
            f"the exported {graph.what} encoder of {graph.model.name} differs from the model: on "
            f"{len(samples.rows)} samples its embeddings are up to {found:.1e} away, and {most:g} "
            "is accepted. Nothing was written. The weights alone: leave --format out."
        )
    return found, len(differing)


@contextmanager
def _moved(encoder: nn.Module, seed: int) -> Iterator[None]:
    """Multiply all weights by about 1, and put them back."""
    draws = torch.Generator().manual_seed(seed)
    kept = {name: row.clone() for name, row in encoder.state_dict().items()}
    for row in encoder.state_dict().values():
        if row.is_floating_point():
            row.mul_(1 + MOVED * torch.randn(row.shape, generator=draws))
    try:
        yield
    finally:
        for name, row in encoder.state_dict().items():
            row.copy_(kept[name])


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the warnings of exporters about their own code from the terminal."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def exporting(graph: Graph, how: str, export: Callable[[], Any]) -> Any:  # noqa: ANN401
    """Return what an exporter makes of a graph.

    Raises:
        ValueError: If it cannot; in few words, as it may raise anything.
    """
    try:
        with quiet(), torch.no_grad():
            return export()
    except (OutOfMemoryError, MemoryError, AssertionError):
        raise  # not of the graph
    except Exception as error:  # of libraries, and of methods of any kind
        last = error
        while last.__cause__ is not None:
            last = last.__cause__  # type: ignore[assignment]
        reason = (str(last).strip() or type(last).__name__).splitlines()[0]
        raise ValueError(
            f"the {graph.what} encoder of {graph.model.name} cannot be exported {how} ({reason}). "
            "The weights alone: leave --format out."
        ) from error

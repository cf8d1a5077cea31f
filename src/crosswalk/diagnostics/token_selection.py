"""Which patches and words make the token selection embedding, drawn onto images and captions."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from crosswalk.diagnostics.base import Diagnostic, record_file
from crosswalk.files import read_arrays, write_arrays
from crosswalk.metrics.queries import QueryResults
from crosswalk.pages import Section, picture_tag, render, small_picture
from crosswalk.ranges import Seed, WholeNumber
from crosswalk.run.ranking_lists import choose_queries
from crosswalk.run.run_folder import RunFolder

if TYPE_CHECKING:
    import lightning.pytorch as L
    from torch import Tensor

LARGEST = (128, 256)
"""Width and height that no picture of the record exceeds."""
DIRECTION = "text_to_image"
SPLIT = "test"
TAGS = ("best", "last", "start")
"""The checkpoint that is shown is the first of these that was tested."""
DIMMED = 0.25
PICTURE = (96, 192)
"""Width and height that no picture exceeds; small ones are enlarged by a whole number."""


@runtime_checkable
class SelectsTokens(Protocol):
    """An encoder that embeds images and captions by some of their tokens."""

    @property
    def patch_grid(self) -> tuple[int, int]:
        """Rows and columns of patches that an image is cut into."""

    def selected_patches(self, image: Tensor) -> Tensor:
        """Return ``[B, k]`` patches, numbered by rows, best first."""

    def selected_words(self, tokens: Tensor) -> Tensor:
        """Return ``[B, k]`` places of the token ids, best first, -1 behind them."""


@runtime_checkable
class DecodesTokens(Protocol):
    """A tokenizer whose ids stand for pieces of text."""

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ``ids``; a space stands behind every word."""


class SelectedCaption(NamedTuple):
    """A query and the words selected of it.

    Attributes:
        sample_index: Of the query.
        choice: Why it is shown: "drawn", "best", "median" or "worst".
        pieces: The text of every token id between start and end, spaces included.
        selected: Those that are selected, best first.
        average_precision: In [0, 1].
        found: Sample indices of the images found first.
        is_match: Which of them show the person.
    """

    sample_index: int
    choice: str
    pieces: tuple[str, ...]
    selected: tuple[int, ...]
    average_precision: float
    found: tuple[int, ...]
    is_match: tuple[bool, ...]


class SelectedImage(NamedTuple):
    """An image and the patches selected of it.

    Attributes:
        picture: The whole image, resized as the model sees it, then made small.
        selected: Patches, numbered by rows, best first.
    """

    picture: Image.Image
    selected: tuple[int, ...]


class TokenSelectionRecord(NamedTuple):
    """The selected tokens of some queries and of what was found for them.

    Attributes:
        grid: Rows and columns of patches.
        captions: The queries.
        images: What was found, by sample index.
    """

    grid: tuple[int, int]
    captions: tuple[SelectedCaption, ...]
    images: dict[int, SelectedImage]


def token_selection_file(folder: Path, tag: str) -> Path:
    """Return the file of the checkpoint called ``tag``."""
    return record_file(folder, f"token_selection-{tag}")


def write_token_selection(path: Path, record: TokenSelectionRecord) -> None:
    """Write a record whole or not at all; pictures as JPEG."""
    captions, images = record.captions, record.images
    arrays: dict[str, NDArray[Any]] = {
        "grid": np.array(record.grid),
        "caption_sample_index": np.array([each.sample_index for each in captions]),
        "caption_choice": np.array([each.choice for each in captions]),
        "caption_average_precision": np.array([each.average_precision for each in captions]),
        "caption_pieces": _rectangle([each.pieces for each in captions], ""),
        "caption_selected": _rectangle([each.selected for each in captions], -1),
        "caption_found": _rectangle([each.found for each in captions], -1),
        "caption_is_match": _rectangle([each.is_match for each in captions], False),
        "image_sample_index": np.array(list(images), dtype=np.int64),
        "image_selected": _rectangle([each.selected for each in images.values()], -1),
    }
    for index, image in images.items():
        arrays[f"picture_{index}"] = _jpeg(image.picture)
    write_arrays(path, arrays)


def read_token_selection(path: Path) -> TokenSelectionRecord:
    """Return what `write_token_selection` wrote.

    Raises:
        FileNotFoundError: If there is no such file.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "token_selection-best.npz"
        >>> caption = SelectedCaption(7, "best", ("a ", "coat "), (1,), 0.5, (3,), (True,))
        >>> image = SelectedImage(Image.new("RGB", (4, 8)), (1, 0))
        >>> write_token_selection(path, TokenSelectionRecord((2, 1), (caption,), {3: image}))
        >>> record = read_token_selection(path)
        >>> record.captions[0] == caption, record.images[3].selected
        (True, (1, 0))
    """
    arrays = read_arrays(path)
    captions = []
    for row, index in enumerate(arrays["caption_sample_index"].tolist()):
        found = _present(arrays["caption_found"][row])
        captions.append(
            SelectedCaption(
                sample_index=index,
                choice=str(arrays["caption_choice"][row]),
                pieces=tuple(each for each in arrays["caption_pieces"][row].tolist() if each),
                selected=_present(arrays["caption_selected"][row]),
                average_precision=float(arrays["caption_average_precision"][row]),
                found=found,
                is_match=tuple(arrays["caption_is_match"][row].tolist()[: len(found)]),
            )
        )
    images = {}
    for row, index in enumerate(arrays["image_sample_index"].tolist()):
        with Image.open(io.BytesIO(arrays[f"picture_{index}"].tobytes())) as file:
            picture = file.convert("RGB")
        images[index] = SelectedImage(picture, tuple(arrays["image_selected"][row].tolist()))
    rows, columns = arrays["grid"].tolist()
    return TokenSelectionRecord((rows, columns), tuple(captions), images)


def _present(row: NDArray[np.int64]) -> tuple[int, ...]:
    """Return the entries of a row that are not -1, which fills up."""
    return tuple(each for each in row.tolist() if each >= 0)


def _rectangle(rows: Sequence[Sequence[Any]], fill: object) -> NDArray[Any]:
    """Return the rows as one array, shorter ones filled up."""
    longest = max(map(len, rows), default=0)
    return np.array([[*row, *[fill] * (longest - len(row))] for row in rows])


def _jpeg(picture: Image.Image) -> NDArray[np.uint8]:
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=85)
    return np.frombuffer(content.getvalue(), dtype=np.uint8)


def choose_examples(results: QueryResults, *, num_drawn: int, seed: int) -> dict[int, str]:
    """Return rows of ``results`` to show with the reason: drawn ones, best, median and worst.

    Queries without a match are never shown, and none is shown twice.

    Args:
        results: Per-query results.
        num_drawn: Queries drawn by ``seed``, the same for every checkpoint.
        seed: Seed of the draw.

    Example:
        >>> precision = np.array([0.9, np.nan, 0.1, 0.5])
        >>> zero = np.zeros(4, np.int64)
        >>> results = QueryResults(
        ...     np.arange(4), zero, np.array([1, 0, 1, 1]), zero, precision, *[zero] * 4
        ... )
        >>> choose_examples(results, num_drawn=0, seed=0)
        {0: 'best', 3: 'median', 2: 'worst'}
    """
    drawn = choose_queries(results, num_random=num_drawn, num_hardest=0, seed=seed)
    chosen = dict.fromkeys(drawn.tolist(), "drawn")
    rest = np.setdiff1d(np.flatnonzero(results.num_matches), drawn)
    order = rest[np.argsort(-results.average_precision[rest], kind="stable")].tolist()
    if order:
        for choice, place in (("best", 0), ("median", len(order) // 2), ("worst", -1)):
            chosen.setdefault(order[place], choice)
    return chosen


class TokenSelection(Diagnostic):
    """Looks at which patches and words a model selects, when a checkpoint is tested.

    The queries are a few drawn ones, the same for every checkpoint, and those of best, median and
    worst average precision; the images are those found first for them. Works for an encoder that
    `SelectsTokens` of a tokenizer that `DecodesTokens`, leaves others alone. The first process
    looks and writes ``diagnostics/token_selection-<checkpoint>.npz`` alone.

    Args:
        num_drawn: Queries drawn by ``seed``.
        num_found: Images per query.
        seed: Seed of the draw.
    """

    at_test = True

    def __init__(
        self, *, num_drawn: WholeNumber = 6, num_found: WholeNumber = 3, seed: Seed = 0
    ) -> None:
        self.num_drawn = num_drawn
        self.num_found = num_found
        self.seed = seed

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the file of the checkpoint under test."""
        from crosswalk.run.callbacks.retrieval import metrics_of
        from crosswalk.run.callbacks.sweep import evaluating

        encoder = getattr(pl_module, "encoder", None)
        tokenizer = getattr(self.data, "tokenizer", None)
        if not isinstance(encoder, SelectsTokens) or not isinstance(tokenizer, DecodesTokens):
            return
        metrics = metrics_of(trainer, SPLIT)
        if metrics is None or not trainer.is_global_zero:
            return
        results = metrics.results[SPLIT].queries[DIRECTION]
        roles = list(self.data.evaluation_roles("test"))
        loaders = [
            trainer.test_dataloaders[roles.index((SPLIT, role))]  # type: ignore[index]
            for role in ("query", "gallery")
        ]
        chosen = choose_examples(results, num_drawn=self.num_drawn, seed=self.seed)
        rows = np.array(list(chosen), dtype=np.int64)
        found = results.top_index[rows, : self.num_found]
        with evaluating(pl_module), trainer.precision_plugin.test_step_context():
            captions = self._captions(trainer, encoder, loaders[0], results.sample_index[rows])
            images = self._images(trainer, encoder, loaders[1], np.unique(found[found >= 0]))
        record = TokenSelectionRecord(
            encoder.patch_grid,
            tuple(
                SelectedCaption(
                    sample_index=int(results.sample_index[row]),
                    choice=choice,
                    pieces=tuple(tokenizer.decode([number]) for number in ids),
                    selected=tuple(place for place in selected if 0 <= place < len(ids)),
                    average_precision=float(results.average_precision[row]),
                    found=_present(top),
                    is_match=tuple(
                        (results.top_person_id[row, : self.num_found] == results.person_id[row])[
                            top >= 0
                        ].tolist()
                    ),
                )
                for (row, choice), (ids, selected), top in zip(
                    chosen.items(), captions, found, strict=True
                )
            ),
            images,
        )
        path = token_selection_file(self.folder, metrics.tested(trainer))
        write_token_selection(path, record)

    def _captions(
        self,
        trainer: L.Trainer,
        encoder: SelectsTokens,
        loader: Any,  # noqa: ANN401
        index: NDArray[np.int64],
    ) -> list[tuple[list[int], list[int]]]:
        """Return the ids between start and end of each caption, and the selected ones of them."""
        tokens = trainer.strategy.batch_to_device(loader.batch_of(index)).tokens
        selected = encoder.selected_words(tokens) - 1  # counted behind the start token
        ends = tokens.argmax(dim=1).tolist()
        return [
            (ids[1:end], places)
            for ids, end, places in zip(tokens.tolist(), ends, selected.tolist(), strict=True)
        ]

    def _images(
        self,
        trainer: L.Trainer,
        encoder: SelectsTokens,
        loader: Any,  # noqa: ANN401
        index: NDArray[np.int64],
    ) -> dict[int, SelectedImage]:
        batch = loader.batch_of(index)
        pixels = batch.image.permute(0, 2, 3, 1).numpy()
        selected = encoder.selected_patches(trainer.strategy.batch_to_device(batch).image)
        return {
            sample: SelectedImage(small_picture(Image.fromarray(each), LARGEST), tuple(places))
            for sample, each, places in zip(index.tolist(), pixels, selected.tolist(), strict=True)
        }

    def section(self, folder: RunFolder) -> Section | None:
        """Return the examples of the best epoch that was tested."""
        for tag in TAGS:
            path = token_selection_file(folder.path, tag)
            if path.exists():
                record = read_token_selection(path)
                body = render(
                    "token_selection.html.j2",
                    tag=tag,
                    examples=[_example(record, caption) for caption in record.captions],
                )
                return Section("token-selection", "Selected tokens", body)
        return None


def dimmed(image: SelectedImage, grid: tuple[int, int]) -> Image.Image:
    """Return the picture with the patches that were not selected darkened.

    Args:
        image: The picture and its selected patches, numbered by rows.
        grid: Rows and columns of patches.

    Example:
        >>> white = Image.new("RGB", (2, 2), (200, 200, 200))
        >>> picture = dimmed(SelectedImage(white, (3,)), (2, 2))
        >>> picture.getpixel((0, 0)), picture.getpixel((1, 1))
        ((50, 50, 50), (200, 200, 200))
    """
    rows, columns = grid
    bright = np.full(rows * columns, DIMMED)
    bright[list(image.selected)] = 1
    pixels = np.asarray(image.picture, dtype=np.float64)
    height, width = pixels.shape[:2]
    row = np.arange(height) * rows // height
    column = np.arange(width) * columns // width
    shade = bright.reshape(grid)[row[:, None], column[None, :]]
    return Image.fromarray((pixels * shade[:, :, None]).round().astype(np.uint8))


def marked(caption: SelectedCaption) -> Markup:
    """Return the caption with its selected pieces marked; neighbours share a mark.

    Example:
        >>> pieces = ("a ", "red ", "coat", "ing ")
        >>> print(marked(SelectedCaption(0, "best", pieces, (3, 2), 0.5, (), ())))
        a red <mark>coating</mark>
    """
    text, open_mark = Markup(""), False
    for place, piece in enumerate(caption.pieces):
        inside = place in caption.selected
        if inside != open_mark:
            text += Markup("<mark>" if inside else "</mark>")
            open_mark = inside
        text += piece
    if open_mark:
        text += Markup("</mark>")
    return Markup(str(text).replace(" </mark>", "</mark> ").strip())


def _enlarged(image: SelectedImage) -> SelectedImage:
    width, height = image.picture.size
    factor = max(1, min(PICTURE[0] // width, PICTURE[1] // height))
    size = (factor * width, factor * height)
    return image._replace(picture=image.picture.resize(size, Image.Resampling.NEAREST))


def _example(record: TokenSelectionRecord, caption: SelectedCaption) -> dict[str, Any]:
    pictures = []
    for index, is_match in zip(caption.found, caption.is_match, strict=True):
        image = _enlarged(record.images[index])
        frame = "right" if is_match else "wrong"
        pictures.append(
            (
                picture_tag(
                    image.picture, alt=f"image {index}, {frame}", frame=frame, largest=PICTURE
                ),
                picture_tag(
                    dimmed(image, record.grid),
                    alt=f"selected patches of image {index}",
                    frame=frame,
                    largest=PICTURE,
                ),
            )
        )
    return {
        "title": f"{caption.choice}: query {caption.sample_index}",
        "precision": f"AP {100 * caption.average_precision:.1f} %",
        "text": marked(caption),
        "selected": len(caption.selected),
        "pieces": len(caption.pieces),
        "pictures": pictures,
    }

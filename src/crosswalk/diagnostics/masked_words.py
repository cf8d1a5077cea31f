"""Masked words: how many a model guesses, with the right image and a wrong one, and which."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from crosswalk.diagnostics.base import Diagnostic, record_file
from crosswalk.diagnostics.figures import Curves, curve_figures, side_by_side
from crosswalk.diagnostics.token_selection import LARGEST, PICTURE, DecodesTokens
from crosswalk.files import read_arrays, write_arrays
from crosswalk.pages import Section, picture_tag, render, small_picture, table_tag
from crosswalk.ranges import Count, Seed, WholeNumber
from crosswalk.run.run_folder import RunFolder

if TYPE_CHECKING:
    import lightning.pytorch as L
    from torch import Tensor, nn

    from crosswalk.labels.masked_words import WordMasking

SPLIT = "test"
TAGS = ("best", "last", "start")
"""The checkpoint that is shown is the first of these that was tested."""
NUM_GUESSES = 3
MASK = "<|mask|>"
"""How the tokenizer writes the mask token."""
CURVES = Curves(
    "Masked words guessed",
    "share",
    {"train/mlm_accuracy": "of the training captions"},
    "Share of the masked words of training captions that were guessed. It should rise quickly at "
    "first, as the model learns which words there are, then slowly, as it learns to look.",
)


class Guess(NamedTuple):
    """A masked word and the most probable ones.

    Attributes:
        word: What stands there.
        given: What the model was given instead: the mask, a random word, or the word itself.
        guesses: The most probable words, best first.
        probability: Of each.
    """

    word: str
    given: str
    guesses: tuple[str, ...]
    probability: tuple[float, ...]


class Example(NamedTuple):
    """A caption of the test split with words masked.

    Attributes:
        pieces: The text of every token id between start and end, spaces included.
        places: Which of them were masked.
        guesses: Of each place.
        picture: An image of the person described.
    """

    pieces: tuple[str, ...]
    places: tuple[int, ...]
    guesses: tuple[Guess, ...]
    picture: Image.Image


class MaskedWordsRecord(NamedTuple):
    """What was guessed of captions that the model was not trained on.

    Attributes:
        num_words: Masked words.
        accuracy: Share guessed beside an image of the person described.
        other_accuracy: Share guessed beside an image of another person.
        examples: Some of the captions.
    """

    num_words: int
    accuracy: float
    other_accuracy: float
    examples: tuple[Example, ...]


class MaskedWords(Diagnostic):
    """Has a checkpoint that is tested guess masked words of the test captions.

    For a method with a `MaskedLanguageModel` under ``mlm`` and a `WordMasking` under ``masking``,
    of a tokenizer that `DecodesTokens`; leaves others alone. Which words are masked is the same
    for every checkpoint. The first process looks, and writes
    ``diagnostics/masked_words-<checkpoint>.npz``.

    Args:
        num_shown: Captions of the page.
        num_measured: Captions that the shares are taken of, spread over all of them.
        seed: Of the masking.
    """

    at_test = True

    def __init__(
        self, *, num_shown: WholeNumber = 6, num_measured: Count = 256, seed: Seed = 0
    ) -> None:
        self.num_shown = num_shown
        self.num_measured = num_measured
        self.seed = seed

    def shows(self, metric: str) -> bool:
        """Return whether it is the share guessed while training."""
        return metric in CURVES.lines

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the file of the checkpoint under test."""
        import torch

        from crosswalk.draws import sample_key
        from crosswalk.encoders.masked_language_model import MaskedLanguageModel
        from crosswalk.run.callbacks.retrieval import metrics_of
        from crosswalk.run.callbacks.sweep import evaluating

        tokenizer = getattr(self.data, "tokenizer", None)
        if not isinstance(getattr(pl_module, "mlm", None), MaskedLanguageModel):
            return
        metrics = metrics_of(trainer, SPLIT)
        if not isinstance(tokenizer, DecodesTokens) or metrics is None:
            return
        if not trainer.is_global_zero:
            return
        roles = list(self.data.evaluation_roles("test"))
        captions, images = (
            trainer.test_dataloaders[roles.index((SPLIT, role))]  # type: ignore[index]
            for role in ("query", "gallery")
        )
        own, other = images_of(captions.dataset.person_id, images.dataset.person_id)
        known = np.flatnonzero((own >= 0) & (other >= 0))
        count = min(self.num_measured, len(known))
        if not count:
            return
        chosen = known[np.arange(count) * len(known) // count]
        to_device = trainer.strategy.batch_to_device
        with evaluating(pl_module), trainer.precision_plugin.test_step_context(), torch.no_grad():
            tokens = to_device(captions.batch_of(chosen)).tokens
            key = sample_key(self.seed, 0, 0, torch.from_numpy(chosen)).to(tokens.device)
            masking: WordMasking = pl_module.masking  # type: ignore[assignment]
            _, masked, label = masking(tokens, key)
            pixels = images.batch_of(own[chosen])
            logits, others = (
                _logits(pl_module, to_device(batch).image, masked, label)
                for batch in (pixels, images.batch_of(other[chosen]))
            )
        word = label[label != 0]
        shown = np.arange(self.num_shown) * count // max(1, self.num_shown)
        record = MaskedWordsRecord(
            num_words=len(word),
            accuracy=(logits.argmax(dim=1) == word).double().mean().item(),
            other_accuracy=(others.argmax(dim=1) == word).double().mean().item(),
            examples=tuple(
                _example(tokenizer, int(row), tokens, masked, label, logits, pixels.image)
                for row in np.unique(shown)
            ),
        )
        path = masked_words_file(self.folder, metrics.tested(trainer))
        write_masked_words(path, record)

    def section(self, folder: RunFolder) -> Section | None:
        """Return the curve, and what was guessed by the best epoch that was tested."""
        body = side_by_side(curve_figures(folder.metrics(), [CURVES]))
        for tag in TAGS:
            path = masked_words_file(folder.path, tag)
            if path.exists():
                record = read_masked_words(path)
                shown = [
                    (blanked(each), _picture(each), _guesses(each)) for each in record.examples
                ]
                page = render("masked_words.html.j2", tag=tag, record=record, examples=shown)
                return Section("masked-words", "Masked words", body + page)
        return Section("masked-words", "Masked words", body) if "<img" in body else None


def images_of(
    caption_person: Tensor, image_person: Tensor
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return for every caption an image of its person, and one of another; -1 without one.

    Args:
        caption_person: ``[captions]`` person ids.
        image_person: ``[images]`` person ids.

    Example:
        >>> import torch
        >>> own, other = images_of(torch.tensor([7, 5, 9]), torch.tensor([5, 5, 7]))
        >>> own.tolist(), other.tolist()
        ([2, 0, -1], [0, 2, 2])
    """
    people, first = np.unique(image_person.numpy(), return_index=True)
    place = np.searchsorted(people, caption_person.numpy()).clip(max=len(people) - 1)
    is_there = people[place] == caption_person.numpy()
    other = np.where(is_there & (len(people) == 1), -1, first[(place + is_there) % len(people)])
    return np.where(is_there, first[place], -1), other


def _logits(module: nn.Module, image: Tensor, masked: Tensor, label: Tensor) -> Tensor:
    from crosswalk.encoders.clip_embedding import every_token

    clip: Any = module.get_submodule("encoder.clip")
    mlm: Any = module.get_submodule("mlm")
    words = every_token(clip.project_text, clip.encode_text(masked))
    logits: Tensor = mlm.logits(
        words, every_token(clip.project_image, clip.encode_image(image)), label
    )
    return logits


def _example(
    tokenizer: DecodesTokens,
    row: int,
    tokens: Tensor,
    masked: Tensor,
    label: Tensor,
    logits: Tensor,
    image: Tensor,
) -> Example:
    """Return one caption of a batch; ``logits`` are those of all its masked words."""
    end = int(tokens[row].argmax())
    place = (label != 0).nonzero()
    best = logits[place[:, 0] == row].softmax(dim=1).topk(NUM_GUESSES)
    places = place[place[:, 0] == row][:, 1].tolist()
    guesses = tuple(
        Guess(
            word=tokenizer.decode([int(label[row, at])]).strip(),
            given=tokenizer.decode([int(masked[row, at])]).strip(),
            guesses=tuple(tokenizer.decode([number]).strip() for number in ids),
            probability=tuple(shares),
        )
        for at, ids, shares in zip(places, best.indices.tolist(), best.values.tolist(), strict=True)
    )
    picture = Image.fromarray(image[row].permute(1, 2, 0).numpy())
    return Example(
        tuple(tokenizer.decode([number]) for number in tokens[row, 1:end].tolist()),
        tuple(at - 1 for at in places),  # behind the start token
        guesses,
        small_picture(picture, LARGEST),
    )


def masked_words_file(folder: Path, tag: str) -> Path:
    """Return the file of the checkpoint called ``tag``."""
    return record_file(folder, f"masked_words-{tag}")


def write_masked_words(path: Path, record: MaskedWordsRecord) -> None:
    """Write a record whole or not at all; pictures as JPEG."""
    arrays: dict[str, NDArray[Any]] = {
        "shares": np.array([record.num_words, record.accuracy, record.other_accuracy]),
        "num_examples": np.array(len(record.examples)),
    }
    for number, example in enumerate(record.examples):
        content = io.BytesIO()
        example.picture.save(content, "JPEG", quality=85)
        arrays |= {
            f"picture_{number}": np.frombuffer(content.getvalue(), dtype=np.uint8),
            f"pieces_{number}": np.array(example.pieces, dtype=np.str_),
            f"places_{number}": np.array(example.places, dtype=np.int64),
            f"words_{number}": np.array(
                [(each.word, each.given, *each.guesses) for each in example.guesses]
            ),
            f"probability_{number}": np.array([each.probability for each in example.guesses]),
        }
    write_arrays(path, arrays)


def read_masked_words(path: Path) -> MaskedWordsRecord:
    """Return what `write_masked_words` wrote.

    Raises:
        FileNotFoundError: If there is no such file.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "masked_words-best.npz"
        >>> guess = Guess("coat", "<|mask|>", ("coat", "hat"), (0.75, 0.25))
        >>> example = Example(("a ", "coat "), (1,), (guess,), Image.new("RGB", (4, 8)))
        >>> write_masked_words(path, MaskedWordsRecord(5, 0.5, 0.25, (example,)))
        >>> found = read_masked_words(path)
        >>> found[:3], found.examples[0].guesses == (guess,)
        ((5, 0.5, 0.25), True)
    """
    arrays = read_arrays(path)
    examples = []
    for number in range(int(arrays["num_examples"])):
        with Image.open(io.BytesIO(arrays[f"picture_{number}"].tobytes())) as file:
            picture = file.convert("RGB")
        rows = zip(
            arrays[f"words_{number}"].tolist(),
            arrays[f"probability_{number}"].tolist(),
            strict=True,
        )
        guesses = tuple(
            Guess(word, given, tuple(guesses), tuple(shares))
            for (word, given, *guesses), shares in rows
        )
        pieces = tuple(arrays[f"pieces_{number}"].tolist())
        examples.append(
            Example(pieces, tuple(arrays[f"places_{number}"].tolist()), guesses, picture)
        )
    num_words, accuracy, other = arrays["shares"].tolist()
    return MaskedWordsRecord(int(num_words), accuracy, other, tuple(examples))


def blanked(example: Example) -> Markup:
    """Return the caption with its masked pieces marked.

    Example:
        >>> picture = Image.new("RGB", (4, 8))
        >>> print(blanked(Example(("a ", "red ", "coat "), (1,), (), picture)))
        a <mark>red</mark> coat
    """
    pieces = []
    for place, piece in enumerate(example.pieces):
        if place in example.places:
            space = " " if piece.endswith(" ") else ""
            pieces.append(Markup("<mark>{}</mark>{}").format(piece.strip(), space))
        else:
            pieces.append(Markup("{}").format(piece))
    return Markup("").join(pieces).strip()


def _picture(example: Example) -> Markup:
    width, height = example.picture.size
    factor = max(1, min(PICTURE[0] // width, PICTURE[1] // height))
    size = (factor * width, factor * height)
    enlarged = example.picture.resize(size, Image.Resampling.NEAREST)
    return picture_tag(enlarged, alt="an image of the person described", largest=PICTURE)


def _guesses(example: Example) -> Markup:
    """Return a table of the masked words, with what was guessed."""
    rows = []
    for guess in example.guesses:
        stood = "" if guess.given == MASK else guess.given
        shares = [
            f"{'✓ ' if word == guess.word else ''}{word} {100 * share:.0f} %"
            for word, share in zip(guess.guesses, guess.probability, strict=True)
        ]
        rows.append([Markup("<b>{}</b>").format(guess.word), stood, *shares])
    return table_tag(["word", "shown instead", "guess", "second", "third"], rows)

"""Answers to what the search page is asked, from any number of threads."""

from __future__ import annotations

import io
import json
import math
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import BinaryIO, Literal

from PIL import Image

from crosswalk.gallery.gallery import Gallery, Hit
from crosswalk.gallery.store import Condition, Kind
from crosswalk.gallery.web_models import About, Answer, Filters, Found, Size
from crosswalk.gallery.where import parse_where
from crosswalk.image_files import RefusedImageError, as_seen, open_image
from crosswalk.pages import JPEG_QUALITY, small_picture
from crosswalk.use.model import SentenceError

THREADS = min(4, os.cpu_count() or 1)
"""Searches, and as many pictures, that are computed at a time; the others wait for their turn."""

LARGE = 16_000_000  # ours
"""Pixels of which only one picture is decoded at a time: three bytes each, and copies of them."""

SIZES: dict[Size, tuple[int, int]] = {"small": (192, 384), "large": (1_000, 1_400)}
"""Width and height in pixels that pictures are made to fit."""

SENT_PICTURE = Path("the picture")
"""What a picture that was sent is called in messages."""

OWN = ("path", "camera", "time", "own_id")
"""Columns that an answer has a place for."""

Query = Literal["sentence", "picture", "similar"]


class QuestionError(ValueError):
    """A question has no answer, for a reason that whoever asks is told.

    Attributes:
        status: Of HTTP.
    """

    def __init__(self, reason: str, status: int = 422) -> None:
        self.status = status
        super().__init__(reason)


class Answers:
    """Searches a gallery for people who know nothing of it but its page.

    Args:
        gallery: Is searched.
        tells_folders: Whether they may know where files are.
        log_queries: Whether a line on stderr tells of each search.
    """

    def __init__(self, gallery: Gallery, *, tells_folders: bool, log_queries: bool) -> None:
        self.name = gallery.path.absolute().name
        self._gallery = gallery
        self._tells_folders = tells_folders
        self._log_queries = log_queries
        self._large = threading.Lock()

    def about(self) -> About:
        """Return what can be searched."""
        gallery = self._gallery
        return About(
            name=self.name,
            pictures=len(gallery),
            model=Path(gallery.built_with).name,
            reads_captions=gallery.reads_captions,
            columns=dict(gallery.columns),
            cameras=gallery.values("camera") if "camera" in gallery.columns else [],
            has_times="time" in gallery.columns and bool(gallery.values("time", 1)),
        )

    def search(self, asked: Filters, sent: BinaryIO | None = None) -> Answer:
        """Return the pictures most like a sentence, or like a picture that was sent.

        Raises:
            QuestionError: If there is neither, or it cannot be read.
        """
        sentence = getattr(asked, "sentence", "").strip()
        if (sent is None) == (not sentence):
            both = "not both" if sentence else "one of them"
            raise QuestionError(f"search by a sentence or by a picture, {both}.")
        if sent is not None:
            with self._decoded(sent) as image:
                return self._answer("picture", asked, partial(self._gallery.search, image))
        if not self._gallery.reads_captions:
            raise QuestionError(
                "this gallery was built with a model of images alone: search by a picture."
            )
        return self._answer("sentence", asked, partial(self._gallery.search, sentence))

    def similar(self, id: int, asked: Filters) -> Answer:
        """Return the pictures most like one of the gallery.

        Raises:
            QuestionError: If it is gone, or a filter cannot be read.
        """
        self._hit(id)
        return self._answer("similar", asked, partial(self._gallery.similar, id), similar=str(id))

    def picture(self, id: int, size: Size) -> bytes:
        """Return a picture of the gallery as a small JPEG, which holds nothing but pixels.

        Raises:
            QuestionError: If it is gone, or its file cannot be read any more.
        """
        path = self._hit(id).path
        try:
            with open_image(path) as image, self._turn(image):
                small = small_picture(path, SIZES[size])
        except FileNotFoundError:
            raise QuestionError(f"the file {path.name} is gone.", 404) from None
        except Exception:  # damaged files raise almost anything in decoders
            raise QuestionError(f"the file {path.name} is no picture any more.", 404) from None
        content = io.BytesIO()
        small.info.clear()  # Pillow would copy a comment
        small.save(content, "JPEG", quality=JPEG_QUALITY)
        return content.getvalue()

    @contextmanager
    def _decoded(self, sent: BinaryIO) -> Iterator[Image.Image]:
        with ExitStack() as stack:
            try:
                image = stack.enter_context(open_image(SENT_PICTURE, sent))
                stack.enter_context(self._turn(image))
                seen = as_seen(image)
            except RefusedImageError as error:
                raise QuestionError(f"{error}.") from None
            except Exception:  # damaged files raise almost anything in decoders
                raise QuestionError(
                    "the picture cannot be read: it is cut off, or none. Send a JPEG, PNG, WebP, "
                    "GIF, BMP or TIFF."
                ) from None
            yield seen

    def _turn(self, image: Image.Image) -> AbstractContextManager[object]:
        return self._large if image.width * image.height > LARGE else nullcontext()

    def _hit(self, id: int) -> Hit:
        try:
            return self._gallery.hit(id)
        except KeyError:
            raise QuestionError(f"the gallery holds no picture {id}, or no more.", 404) from None

    def _answer(
        self, query: Query, asked: Filters, find: Callable[..., list[Hit]], **told: str
    ) -> Answer:
        where = conditions_of(asked, self._gallery.columns)
        try:
            hits = find(k=asked.k, where=where, group=asked.group, rerank=asked.rerank)
        except SentenceError as error:
            raise QuestionError(
                f"{error.caption!r} has no words. Write what is to be seen, such as 'a woman in a "
                "red coat'."
            ) from None
        except (ValueError, OSError, RuntimeError) as error:  # the question was all right
            print(f"crosswalk serve: {error}", file=sys.stderr, flush=True)
            why = str(error) if self._tells_folders else "the terminal of its server says why."
            raise QuestionError(f"the gallery cannot be searched: {why}", 500) from error
        if self._log_queries:
            told |= asked.model_dump(mode="json", exclude_defaults=True, exclude={"picture"})
            line = {"time": f"{datetime.now():%Y-%m-%d %H:%M:%S}", "query": query, **told}
            print(json.dumps({**line, "hits": len(hits)}), file=sys.stderr, flush=True)
        # of one that was found there is nothing to say: its person is in the gallery
        note = "" if query == "similar" else self._gallery.note(hits, query)
        return Answer(hits=[self._found(hit) for hit in hits], note=note)

    def _found(self, hit: Hit) -> Found:
        return Found(
            id=str(hit.id),
            score=round(hit.score, 6),
            probability=hit.probability,
            count=hit.count,
            name=hit.path.name,
            path=str(hit.path) if self._tells_folders else None,
            camera=hit.camera,
            time=hit.time,
            own_id=hit.own_id,
            columns={name: each for name, each in hit.columns.items() if name not in OWN},
        )


def conditions_of(asked: Filters, columns: Mapping[str, Kind]) -> list[Condition]:
    """Return what the pictures have to be of.

    Raises:
        QuestionError: If a filter cannot be read.

    Example:
        >>> conditions_of(Filters(camera=["2"], until="1970-01-01"), {"camera": "number"})
        Traceback (most recent call last):
            ...
        crosswalk.gallery.answers.QuestionError: the gallery does not know when pictures were taken.
        >>> conditions_of(Filters(camera=["2"]), {"camera": "number"})
        [Condition(column='camera', op='in', value=(2.0,))]
    """
    times = {">=": asked.since.strip(), "<=": asked.until.strip()}
    parts = [f"time {sign} {text!r}" for sign, text in times.items() if text]
    if parts and "time" not in columns:
        raise QuestionError("the gallery does not know when pictures were taken.")
    try:
        conditions = parse_where(asked.where, columns)
        conditions += parse_where(" and ".join(parts), columns)
    except ValueError as error:
        raise QuestionError(str(error)) from None
    if asked.camera:
        conditions.append(Condition("camera", "in", _cameras(asked.camera, columns)))
    return conditions


def _cameras(asked: Sequence[str], columns: Mapping[str, Kind]) -> tuple[float | str, ...]:
    if "camera" not in columns:
        raise QuestionError("the gallery does not know which camera took a picture.")
    if columns["camera"] == "text":
        return tuple(asked)
    try:
        numbers = tuple(map(float, asked))
    except ValueError:
        numbers = (math.nan,)
    if not all(map(math.isfinite, numbers)):
        raise QuestionError(f"cameras are numbers here, not {', '.join(asked)}.")
    return numbers

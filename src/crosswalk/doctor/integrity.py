"""The image files of a data set: which are missing or damaged, and a fingerprint of the whole."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from PIL import ImageFile, UnidentifiedImageError

from crosswalk.data.readers.records import AnySplits, Record, image_folder
from crosswalk.image_files import (
    MissingHints,
    RefusedImageError,
    as_seen,
    check_plain_file,
    file_sizes,
    open_image,
    traits,
)

KINDS = ("missing", "empty", "truncated", "corrupt", "refused")

# ours: starting worker processes costs as much as decoding about this many images
IN_PROCESS = 2_000
CHUNK = 64  # ours: images per task of a worker


@dataclass(frozen=True, slots=True)
class ImageProblem:
    """An image that cannot be used.

    Attributes:
        path: The file that the annotation names.
        kind: ``missing``, ``empty`` (zero bytes), ``truncated``, ``corrupt`` or ``refused`` (not a
            plain file, or too large).
        detail: What was found instead, for people.
        origin: Place in the annotation that names it, if known.
    """

    path: Path
    kind: str
    detail: str
    origin: str = ""


def missing_images(splits: AnySplits) -> list[ImageProblem]:
    """Return the images of all splits that are not there or have zero bytes. Opens no image.

    Example:
        >>> record = Record(Path("/nowhere/1.jpg"), person_id=3, origin="pairs.csv, line 2")
        >>> from crosswalk.data.readers.records import Splits
        >>> splits = Splits("own pairs", Path("/nowhere"), "pairs.csv", (record,), (), ())
        >>> [(problem.kind, problem.detail) for problem in missing_images(splits)]
        [('missing', 'there is no folder /nowhere')]
    """
    records = {record.image_path: record for _, record in splits}
    sizes = file_sizes(records)
    hints = MissingHints()
    problems = []
    for path, record in records.items():
        if path not in sizes:
            problems.append(replace(_why_absent(path, hints), origin=record.origin))
        elif sizes[path] == 0:
            problems.append(ImageProblem(path, "empty", "has zero bytes", record.origin))
    return problems


def damaged_images(
    records: Sequence[Record],
    *,
    own: bool = False,
    traits_of: dict[Path, tuple[str, ...]] | None = None,
    num_workers: int | None = None,
    progress: Callable[[int], None] | None = None,
    ready: Callable[[], None] | None = None,
) -> list[ImageProblem]:
    """Return the images that do not decode to the last pixel, in the order of ``records``.

    Args:
        records: Images that exist.
        own: Whether they are somebody's own, see `crosswalk.data.readers.records.Splits`.
        traits_of: Gets what is unusual about images, see `crosswalk.image_files.TRAITS`.
        num_workers: Processes; None takes all cores, and none at all for few images.
        progress: Called with the number of images checked since the last call.
        ready: Called when the workers have started, which takes them seconds.

    Example:
        >>> record = Record(Path("/dev/null"), person_id=3)
        >>> [problem.kind for problem in damaged_images([record])]
        ['refused']
    """
    origins = {record.image_path: record.origin for record in records}
    paths = list(origins)
    chunks = [paths[start : start + CHUNK] for start in range(0, len(paths), CHUNK)]
    if num_workers is None:
        num_workers = len(os.sched_getaffinity(0)) if len(paths) > IN_PROCESS else 0
    problems: list[ImageProblem] = []

    def collect(results: Iterable[list[_Look]]) -> None:
        for chunk, looks in zip(chunks, results, strict=True):
            problems.extend(problem for _, problem, _ in looks if problem is not None)
            if traits_of is not None:
                traits_of.update((path, traits) for path, _, traits in looks if traits)
            if progress is not None:
                progress(len(chunk))

    look = partial(_look_at, own=own)
    if num_workers < 2:
        collect(map(look, chunks))
    else:
        # spawn: a fork would copy the locks of threads that the caller may have running
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(num_workers, mp_context=context) as pool:
            list(pool.map(look, [[]] * num_workers))
            if ready is not None:
                ready()
            collect(pool.map(look, chunks))
    return [replace(problem, origin=origins[problem.path]) for problem in problems]


def check_image(path: Path, *, own: bool = False) -> ImageProblem | None:
    """Return what is wrong with an image file, or None if every pixel decodes.

    Example:
        >>> check_image(Path("/dev/null")).detail
        'cannot be opened: it is a device, not a file'
    """
    return _look(path, own)[1]


def source_of(path: Path, image_folder: Path) -> str:
    """Return the folder right below ``image_folder`` that an image lies in, or ``.``.

    CUHK-PEDES was put together from several data sets, one per such folder, and it is whole
    folders that go missing.

    Example:
        >>> source_of(Path("imgs/cam_a/000.png"), Path("imgs"))
        'cam_a'
    """
    try:
        parts = path.relative_to(image_folder).parts
    except ValueError:
        return path.parent.as_posix()
    return parts[0] if len(parts) > 1 else "."


def by_source(
    splits: AnySplits, problems: Sequence[ImageProblem], *, more: Iterable[Path] = ()
) -> dict[str, dict[str, int]]:
    """Return per source folder the number of images named and of each kind of problem.

    Images that are refused are rare: they are counted where there are some.

    Args:
        splits: The data set.
        problems: Images that cannot be used.
        more: Further images that belong to it.

    Example:
        >>> record = Record(Path("imgs/cam_a/1.png"), person_id=3)
        >>> from crosswalk.data.readers.records import Splits
        >>> splits = Splits("own", Path(), "f", (record,), (), (), image_folder=Path("imgs"))
        >>> table = by_source(splits, [ImageProblem(record.image_path, "empty", "zero bytes")])
        >>> {kind: number for kind, number in table["cam_a"].items() if number}
        {'images': 1, 'empty': 1}
    """
    table: dict[str, dict[str, int]] = {}
    folder = image_folder(splits)
    for path in dict.fromkeys([*(record.image_path for _, record in splits), *more]):
        row = table.setdefault(source_of(path, folder), dict.fromkeys(("images", *KINDS[:-1]), 0))
        row["images"] += 1
    for problem in problems:
        row = table[source_of(problem.path, folder)]
        row[problem.kind] = row.get(problem.kind, 0) + 1
    return dict(sorted(table.items()))


def _why_absent(path: Path, hints: MissingHints) -> ImageProblem:
    """Return what is where a plain file should be."""
    try:
        check_plain_file(path)
    except RefusedImageError as error:
        if not path.is_dir():
            return ImageProblem(path, "refused", _without_path(error, path))
    except FileNotFoundError:
        pass
    return ImageProblem(path, "missing", hints.of(path))


_Look = tuple[Path, ImageProblem | None, tuple[str, ...]]


def _look_at(paths: Sequence[Path], own: bool) -> list[_Look]:
    """Return the images of which there is something to say."""
    looks = (_look(path, own) for path in paths)
    return [look for look in looks if look[1] is not None or look[2]]


def _look(path: Path, own: bool) -> _Look:
    """Return an image, what is wrong with it, and which of `TRAITS` it has."""
    ImageFile.LOAD_TRUNCATED_IMAGES = False  # others set it; it turns cut-off images grey
    has: tuple[str, ...] = ()
    try:
        with open_image(path) as image:
            image.load()
            has = traits(image)
            if own and has:
                as_seen(image)
        return path, None, has
    except FileNotFoundError:
        kind, detail = "missing", "vanished while the check ran"
    except RefusedImageError as error:
        kind, detail = "refused", _without_path(error, path)
    except UnidentifiedImageError:
        kind, detail = "corrupt", f"is not an image; it starts with {_head(path)}"
    except (OSError, EOFError) as error:
        short = any(word in str(error).lower() for word in ("truncated", "eof", "end of file"))
        kind, detail = "truncated" if short else "corrupt", str(error)
    except Exception as error:  # damaged files raise almost anything in decoders
        kind, detail = "corrupt", str(error) or type(error).__name__
    return path, ImageProblem(path, kind, detail), has


def _without_path(error: Exception, path: Path) -> str:
    return str(error).removeprefix(f"{path} ")


def _head(path: Path) -> str:
    with path.open("rb") as file:
        return repr(file.read(12))

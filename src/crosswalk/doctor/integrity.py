"""The image files of a data set: which are missing or damaged, and a fingerprint of the whole."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import struct
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image, ImageFile, UnidentifiedImageError

from crosswalk.data.readers.records import ImageSplits, Record, Splits

KINDS = ("missing", "empty", "truncated", "corrupt")

# ours: starting worker processes costs as much as decoding about this many images
IN_PROCESS = 2_000
CHUNK = 64  # ours: images per task of a worker

AnySplits = Splits | ImageSplits


@dataclass(frozen=True, slots=True)
class ImageProblem:
    """An image that cannot be used.

    Attributes:
        path: The file that the annotation names.
        kind: ``missing``, ``empty`` (zero bytes), ``truncated`` or ``corrupt``.
        detail: What was found instead, for people.
        origin: Place in the annotation that names it, if known.
    """

    path: Path
    kind: str
    detail: str
    origin: str = ""


def file_sizes(paths: Iterable[Path]) -> dict[Path, int]:
    """Return the size in bytes of each file that exists.

    Lists each folder once instead of asking for each file, which network drives answer slowly.

    Example:
        >>> file_sizes([Path("/nowhere/1.jpg")])
        {}
    """
    wanted: dict[Path, list[Path]] = {}
    for path in paths:
        wanted.setdefault(path.parent, []).append(path)
    sizes = {}
    for folder, files in wanted.items():
        listed = _list_folder(folder)
        sizes.update({path: listed[path.name] for path in files if path.name in listed})
    return sizes


def missing_images(splits: AnySplits) -> list[ImageProblem]:
    """Return the images of all splits that are not there or have zero bytes. Opens no image.

    Example:
        >>> record = Record(Path("/nowhere/1.jpg"), person_id=3, origin="pairs.csv, line 2")
        >>> splits = Splits("own pairs", Path("/nowhere"), "pairs.csv", (record,), (), ())
        >>> [(problem.kind, problem.detail) for problem in missing_images(splits)]
        [('missing', 'there is no folder /nowhere')]
    """
    records = {record.image_path: record for _, record in splits}
    sizes = file_sizes(records)
    hints = _Hints()
    problems = []
    for path, record in records.items():
        if path not in sizes:
            problems.append(ImageProblem(path, "missing", hints.of(path), record.origin))
        elif sizes[path] == 0:
            problems.append(ImageProblem(path, "empty", "has zero bytes", record.origin))
    return problems


def damaged_images(
    records: Sequence[Record],
    *,
    num_workers: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[ImageProblem]:
    """Return the images that do not decode to the last pixel, in the order of ``records``.

    Args:
        records: Images that exist.
        num_workers: Processes; None takes all cores, and none at all for few images.
        progress: Called with the number of images checked since the last call.

    Example:
        >>> record = Record(Path("/dev/null"), person_id=3)
        >>> [problem.kind for problem in damaged_images([record])]
        ['corrupt']
    """
    origins = {record.image_path: record.origin for record in records}
    paths = list(origins)
    chunks = [paths[start : start + CHUNK] for start in range(0, len(paths), CHUNK)]
    if num_workers is None:
        num_workers = len(os.sched_getaffinity(0)) if len(paths) > IN_PROCESS else 0
    problems = []

    def collect(results: Iterable[list[ImageProblem]]) -> None:
        for chunk, found in zip(chunks, results, strict=True):
            problems.extend(found)
            if progress is not None:
                progress(len(chunk))

    if num_workers < 2:
        collect(map(_check_chunk, chunks))
    else:
        # spawn: a fork would copy the locks of threads that the caller may have running
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(num_workers, mp_context=context) as pool:
            collect(pool.map(_check_chunk, chunks))
    return [replace(problem, origin=origins[problem.path]) for problem in problems]


def same_pictures(paths: Iterable[Path]) -> list[tuple[Path, ...]]:
    """Return groups of files whose contents are the same byte by byte, in the given order.

    Only files that share their size are read.

    Args:
        paths: Files; those that are missing or empty are left out.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as name:
        ...     for stem, content in (("a", b"1"), ("b", b"2"), ("c", b"1"), ("d", b"12")):
        ...         _ = (Path(name) / stem).write_bytes(content)
        ...     groups = same_pictures(sorted(Path(name).iterdir()))
        >>> [[path.name for path in group] for group in groups]
        [['a', 'c']]
    """
    paths = list(dict.fromkeys(paths))
    sizes = file_sizes(paths)
    number = Counter(sizes.values())
    groups: dict[bytes, list[Path]] = {}
    for path in paths:
        if sizes.get(path, 0) > 0 and number[sizes[path]] > 1:
            digest = hashlib.blake2b(path.read_bytes(), digest_size=16).digest()
            groups.setdefault(digest, []).append(path)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def check_image(path: Path) -> ImageProblem | None:
    """Return what is wrong with an image file, or None if every pixel decodes.

    Example:
        >>> check_image(Path("/dev/null")).kind
        'corrupt'
    """
    ImageFile.LOAD_TRUNCATED_IMAGES = False  # others set it; it turns cut-off images grey
    try:
        with Image.open(path) as image:
            image.load()
    except FileNotFoundError:
        return ImageProblem(path, "missing", "vanished while the check ran")
    except UnidentifiedImageError:
        return ImageProblem(path, "corrupt", f"is not an image; it starts with {_head(path)}")
    except (OSError, EOFError) as error:
        short = any(word in str(error).lower() for word in ("truncated", "eof", "end of file"))
        return ImageProblem(path, "truncated" if short else "corrupt", str(error))
    except (SyntaxError, ValueError, struct.error, zlib.error, Image.DecompressionBombError) as e:
        return ImageProblem(path, "corrupt", str(e))
    return None


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


def image_folder(splits: AnySplits) -> Path:
    """Return the folder that image names start from.

    Example:
        >>> image_folder(ImageSplits("own", Path("people"), ".", (), (), ())).name
        'people'
    """
    return splits.image_folder if isinstance(splits, Splits) else splits.root


def by_source(
    splits: AnySplits, problems: Sequence[ImageProblem], *, more: Iterable[Path] = ()
) -> dict[str, dict[str, int]]:
    """Return per source folder the number of images named and of each kind of problem.

    Args:
        splits: The data set.
        problems: Images that cannot be used.
        more: Further images that belong to it.

    Example:
        >>> record = Record(Path("imgs/cam_a/1.png"), person_id=3)
        >>> splits = Splits("own", Path(), "f", (record,), (), (), image_folder=Path("imgs"))
        >>> by_source(splits, [ImageProblem(record.image_path, "empty", "has zero bytes")])
        {'cam_a': {'images': 1, 'missing': 0, 'empty': 1, 'truncated': 0, 'corrupt': 0}}
    """
    table: dict[str, dict[str, int]] = {}
    folder = image_folder(splits)
    for path in dict.fromkeys([*(record.image_path for _, record in splits), *more]):
        row = table.setdefault(source_of(path, folder), dict.fromkeys(("images", *KINDS), 0))
        row["images"] += 1
    for problem in problems:
        table[source_of(problem.path, folder)][problem.kind] += 1
    return dict(sorted(table.items()))


def fingerprint(splits: AnySplits) -> str:
    r"""Return 64 hexadecimal digits that identify annotation and image files.

    SHA-256 over one line per image, train, val and test in this order (image sets: train, query,
    gallery, val_query, val_gallery), each in the order of the reader: the JSON list ``[split, image
    name, person id, camera id, captions, bytes]`` as ASCII without spaces, and a line feed. The
    image name starts from the image folder and has forward slashes; ``bytes`` is the size of the
    file, -1 where it is missing. So the same data at another place, or copied, keep their
    fingerprint; times of files do not count, nor does the content of an image that changed without
    changing size.

    Example:
        >>> record = Record(Path("/nowhere/1.jpg"), person_id=3, captions=("A man.",))
        >>> splits = Splits("own", Path(), "f", (record,), (), (), image_folder=Path("/nowhere"))
        >>> line = b'["train","1.jpg",3,-1,["A man."],-1]\n'
        >>> fingerprint(splits) == hashlib.sha256(line).hexdigest()
        True
    """
    sizes = file_sizes({record.image_path for _, record in splits})
    digest = hashlib.sha256()
    folder = image_folder(splits)
    for name, record in splits:
        path = record.image_path
        row = [
            name,
            Path(os.path.relpath(path, folder)).as_posix(),
            record.person_id,
            record.camera_id,
            record.captions,
            sizes.get(path, -1),
        ]
        digest.update(json.dumps(row, separators=(",", ":")).encode("ascii") + b"\n")
    return digest.hexdigest()


class _Hints:
    """Says what may have been meant by a missing file; remembers the folders it has listed."""

    def __init__(self) -> None:
        self._names: dict[Path, dict[str, str]] = {}

    def of(self, path: Path) -> str:
        folder = path.parent
        if not folder.is_dir():
            while not folder.parent.is_dir():
                folder = folder.parent
            other = self._names_in(folder.parent).get(folder.name.lower())
            meant = f", but {folder.parent / other}; did you mean it?" if other else ""
            return f"there is no folder {folder}{meant}"
        names = self._names_in(folder)
        other = names.get(path.name.lower()) or names.get(path.stem.lower() + ".*")
        if other == path.name:
            return "is a folder, or a link to something that is gone"
        return f"did you mean {other}?" if other else "no such file in its folder"

    def _names_in(self, folder: Path) -> dict[str, str]:
        if folder not in self._names:
            found = sorted(child.name for child in os.scandir(folder))
            self._names[folder] = {Path(name).stem.lower() + ".*": name for name in found}
            self._names[folder] |= {name.lower(): name for name in found}
        return self._names[folder]


def _list_folder(folder: Path) -> dict[str, int]:
    sizes = {}
    try:
        with os.scandir(folder) as listing:
            for entry in listing:
                try:
                    if entry.is_file():
                        sizes[entry.name] = entry.stat().st_size
                except FileNotFoundError:  # a link whose target is gone: missing
                    continue
    except (FileNotFoundError, NotADirectoryError):
        return {}
    return sizes


def _check_chunk(paths: Sequence[Path]) -> list[ImageProblem]:
    return [problem for problem in map(check_image, paths) if problem is not None]


def _head(path: Path) -> str:
    with path.open("rb") as file:
        return repr(file.read(12))

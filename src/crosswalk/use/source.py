"""What a model is loaded from: said, or refused, by names and first bytes alone.

Imports no torch, so that a mistake is answered at once.
"""

from __future__ import annotations

import glob
from pathlib import Path
from typing import Literal, NamedTuple

from crosswalk.run.run_folder import RunFolder

WHICH = ("best", "last", "start")
"""The checkpoints of a run, in the order in which one is looked for."""

EXPORTED = "config.json"
"""What `crosswalk export` writes beside the weights."""

CARD = "README.md"
"""The model card that it writes."""

WEIGHTS = "model.safetensors"
"""The weights that it writes."""

ADVICE = "Name a run folder (`ls runs` shows yours), a .ckpt of a run, or an exported folder."
TABLES = (".csv", ".jsonl", ".ndjson", ".json", ".parquet")


class Source(NamedTuple):
    """Where a model's weights lie.

    Attributes:
        kind: ``run`` is a folder of `crosswalk train`, ``checkpoint`` one of its files alone,
            ``export`` a folder of `crosswalk export`.
        folder: The folder; the file's own for ``checkpoint``.
        weights: The file of the weights.
    """

    kind: Literal["run", "checkpoint", "export"]
    folder: RunFolder
    weights: Path

    @property
    def name(self) -> str:
        """What people call the model."""
        name = self.folder.path.resolve().name
        return name if self.kind == "export" else f"{name}/{self.weights.stem}"


def source_of(model: str | Path, which: str | None = None) -> Source:
    """Return what a model is loaded from.

    Args:
        model: A run folder, a checkpoint of a run, or an exported folder.
        which: Of a run folder ``best``, ``last`` or ``start``; None takes the first that is there.

    Raises:
        FileNotFoundError: If there is nothing by this name, or the run has no such checkpoint.
        ValueError: If it is something else; the message says what it seems to be.

    Example:
        >>> source_of("runs/nowhere")
        Traceback (most recent call last):
            ...
        FileNotFoundError: runs/nowhere does not exist. Name a run folder (`ls runs` shows yours), \
        a .ckpt of a run, or an exported folder.
    """
    path = Path(model).expanduser()
    if which not in (None, *WHICH):
        raise ValueError(f"which={which!r} is no checkpoint of a run: choose {', '.join(WHICH)}.")
    if path.is_dir():
        return _of_folder(path, which)
    if not path.exists():
        near = sorted(path.parent.glob(f"*-{glob.escape(path.name)}")) if path.name else []
        hint = f"Did you mean {near[-1]}?" if near else ADVICE
        raise FileNotFoundError(f"{path} does not exist. {hint}")
    if which is not None:
        raise ValueError(
            f"{path} is a file, and which={which} names a checkpoint of a run folder. Leave it out."
        )
    if path.suffix == ".ckpt":
        return Source("checkpoint", RunFolder(path.parent), path)
    raise ValueError(f"{path} is {_kind_of_file(path)}, no model of crosswalk. {ADVICE}")


def _of_folder(path: Path, which: str | None) -> Source:
    run = RunFolder(path)
    if (path / EXPORTED).is_file() and (path / WEIGHTS).is_file():
        return Source("export", run, path / WEIGHTS)
    if not run.config_file.is_file():
        raise ValueError(f"{path} is no model: it {_contents(path)}. {ADVICE}")
    files = {
        "best": run.best_checkpoint,
        "last": run.last_checkpoint,
        "start": run.start_weights,
    }
    for name in WHICH if which is None else (which,):
        if files[name].is_file():
            return Source("run", run, files[name])
    if run.evaluated != run.path:
        raise ValueError(
            f"{path} is an evaluation, which holds no weights. Name its run: {run.evaluated}."
        )
    there = ", ".join(name for name in WHICH if files[name].is_file())
    missing = "checkpoint" if which is None else f"{files[which].name}"
    gone = "Its checkpoints are gone: put them back, or train it again."
    further = gone if run.is_finished else "Train it further: its command plus resume=true."
    advice = f"It has {there}." if there else further
    raise FileNotFoundError(f"{path} has no {missing}. {advice}")


def _contents(path: Path) -> str:
    from crosswalk.data.readers.camera_names import IMAGE_SUFFIXES

    names = sorted(child.name for child in path.iterdir())
    runs = [name for name in names if RunFolder(path / name).config_file.is_file()]
    if runs:
        return f"holds runs, such as {path / runs[-1]}"
    images = [name for name in names if Path(name).suffix.lower() in IMAGE_SUFFIXES]
    if images:
        return f"holds images, such as {images[0]}"
    if not names:
        return "is empty"
    more = ", ..." if len(names) > 3 else ""
    return f"has no config.yaml, but {', '.join(names[:3])}{more}"


def _kind_of_file(path: Path) -> str:
    from crosswalk.data.readers.camera_names import IMAGE_SUFFIXES  # late, with what it imports

    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return "an image"
    if suffix in TABLES:
        return "a table"
    if suffix == ".onnx":
        return "a model of ONNX, which onnxruntime runs"
    if suffix in (".safetensors", ".pth", ".pt", ".bin"):
        return "a file of weights that does not say which model they are of"
    return f"a file that ends in {suffix!r}" if suffix else "a file without an ending"

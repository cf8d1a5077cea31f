"""What a model is loaded from: said, or refused, by names and headers alone.

Imports no torch, so that a mistake is answered at once.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from crosswalk.config.model_file import (
    EXPORTED,
    WEIGHTS,
    place_of_description,
    read_description,
)
from crosswalk.config.model_names import FORMS, OF_HUB, named_folder, parsed_name
from crosswalk.config.search import default_method, group_values, read_group_file
from crosswalk.config.sources import read_batches
from crosswalk.files import path_meant, safetensors_header
from crosswalk.run.run_folder import RunFolder, run_meant_by

WHICH = ("best", "last", "start")
"""The checkpoints of a run, in the order in which one is looked for."""

KINDS = (
    *("a run folder", "a .ckpt of one", "an exported folder", "a file of import-weights"),
    *("tiny:<method>", "timm:<name>", "open_clip:<name>/<tag>", "hf:<user>/<repository>"),
)
MODELS = f"{', '.join(KINDS[:-1])} or {KINDS[-1]}"
ADVICE = f"Name {MODELS}. `ls runs` shows your runs."
RUN_BY = {".onnx": "onnxruntime", ".pt2": "torch.export"}
"""What runs the graphs that `crosswalk export` writes, by how their names end."""

TABLES = (".csv", ".jsonl", ".ndjson", ".json", ".parquet")

Kind = Literal["run", "checkpoint", "export", "import", "timm", "open_clip"]


class Source(NamedTuple):
    """Where a model's weights lie.

    Attributes:
        kind: ``run`` is a folder of `crosswalk train`, ``checkpoint`` one of its files alone,
            ``export`` a folder of `crosswalk export`, ``import`` a file of `crosswalk
            import-weights`; ``timm`` and ``open_clip`` are published weights.
        folder: The folder; the file's own for ``checkpoint`` and ``import``.
        weights: The file of the weights; of published ones what they are called.
        called: What people call the model, where it is not called by its folder.
    """

    kind: Kind
    folder: RunFolder
    weights: Path
    called: str = ""

    @property
    def name(self) -> str:
        """What people call the model."""
        name = self.folder.path.resolve().name
        if self.called or self.kind == "export":
            return self.called or name
        return self.weights.stem if self.kind == "import" else f"{name}/{self.weights.stem}"

    @property
    def is_of_a_run(self) -> bool:
        """Whether its folder may tell of a training."""
        return self.kind in ("run", "checkpoint")


def source_of(model: str | Path, which: str | None = None) -> Source:
    """Return what a model is loaded from.

    Args:
        model: A run folder, a checkpoint of a run, an exported folder or the weights in it, a file
            of `crosswalk import-weights`, or one of `FORMS`.
        which: Of a run folder ``best``, ``last`` or ``start``; None takes the first that is there.

    Raises:
        FileNotFoundError: If there is nothing by this name, or the run has no such checkpoint.
        ValueError: If it is something else; the message says what it seems to be.

    Example:
        >>> source_of("runs/nowhere")
        Traceback (most recent call last):
            ...
        FileNotFoundError: runs/nowhere does not exist. Name a run folder, a .ckpt of one, \
        an exported folder, a file of import-weights, tiny:<method>, timm:<name>, \
        open_clip:<name>/<tag> or hf:<user>/<repository>. `ls runs` shows your runs.
        >>> source_of("timm:resnet18").name
        'timm:resnet18'
    """
    path = Path(model).expanduser()
    if which not in (None, *WHICH):
        raise ValueError(f"which={which!r} is no checkpoint of a run: choose {', '.join(WHICH)}.")
    if path.is_dir():
        return _of_folder(path, which)
    is_form = not path.exists() and str(model).partition(":")[0] in FORMS
    if which is not None and (path.exists() or is_form):
        raise ValueError(
            f"{model} is {'no run' if is_form else 'a file'}, and {_no_checkpoint(which)}"
        )
    if not path.exists():
        elsewhere = _elsewhere(str(model))
        if elsewhere is not None:
            return elsewhere
        near = run_meant_by(path) or path_meant(path).strip()
        hint = near or ADVICE
        looks_so = OF_HUB.fullmatch(str(model)) and path.suffix not in (".ckpt", ".safetensors")
        if looks_so and not near and not path.parent.exists() and path.parts[0] != "runs":
            hint = f"A model of the Hugging Face hub is called hf:{model}. {ADVICE}"
        raise FileNotFoundError(f"{path} does not exist. {hint}")
    if not path.is_file():
        raise ValueError(f"{path} is neither a file nor a folder. {ADVICE}")
    if path.suffix == ".ckpt":
        return Source("checkpoint", RunFolder(path.parent), path)
    place = place_of_description(path)
    if place is not None:
        kind: Kind = "import" if place == path else "export"
        return Source(kind, RunFolder(path.parent), path)
    raise ValueError(f"{path} is {_kind_of_file(path)}, no model of crosswalk. {ADVICE}")


def check_out(folder: RunFolder, target: Path, key: str = "--out") -> None:
    """Refuse to write into the data of the run in ``folder``, if there is one.

    Raises:
        ValueError: If ``target`` lies in their folder.
    """
    if folder.config_file.is_file():
        from crosswalk.config.places import refuse_inside_data

        refuse_inside_data(folder.config(), target, key, stored=folder.config_file)


def description(source: Source) -> dict[str, Any] | None:
    """Return what an export or an import says of its model; None of other sources.

    Raises:
        ValueError: If it is damaged.
    """
    if source.kind not in ("export", "import"):
        return None
    place = place_of_description(source.weights)
    assert place is not None  # `source_of` has looked
    return read_description(place)


def reads_captions(source: Source) -> bool | None:
    """Return whether a model reads captions; None where only its checkpoint tells.

    Raises:
        ValueError: If what describes the model is damaged.
    """
    if source.kind in ("timm", "open_clip"):
        return source.kind == "open_clip"
    if source.kind == "checkpoint":
        return None
    config: Mapping[str, Any] = description(source) or source.folder.config()
    return bool((config.get("data") or {}).get("tokenizer"))


def recipe_of(source: Source, config: Mapping[str, Any] | None = None) -> str:
    """Return the file of ``configs/method`` whose evaluation a model without a run gets.

    Args:
        source: Of the model.
        config: What is known of it; None is its `description`.
    """
    config = config or description(source) or {}
    method = (config.get("choices") or {}).get("method")
    if method in group_values("method"):
        return str(method)
    is_text = source.kind == "open_clip" or bool((config.get("data") or {}).get("tokenizer"))
    if is_text:
        return default_method()
    files = {name: read_group_file("method", name) for name in group_values("method")}
    return [
        name
        for name, file in files.items()
        if "ImageBatch" in (read_batches(str((file.get("method") or {}).get("_target_"))) or ())
    ][-1]


def _elsewhere(model: str) -> Source | None:
    """Return what a name of `FORMS` means; None if the words look like a path."""
    named = parsed_name(model)
    if named is None:
        return None
    folder = named_folder(named)
    if folder is not None:
        called = named.name if named.library == "hf" else model
        return Source("export", RunFolder(folder), folder / WEIGHTS, called)
    kind: Kind = "timm" if named.library == "timm" else "open_clip"
    return Source(kind, RunFolder(Path()), Path(model), model)


def _of_folder(path: Path, which: str | None) -> Source:
    run = RunFolder(path)
    if (path / EXPORTED).is_file() and (path / WEIGHTS).is_file():
        if which is not None:
            raise ValueError(f"{path} is an export of one checkpoint, and {_no_checkpoint(which)}")
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
            if which is None and name != "best" and "best" in run.results():
                warnings.warn(
                    f"{run.best_checkpoint} is missing; {files[name].name}, of another epoch than "
                    "the best, is taken in its place.",
                    stacklevel=1,
                )
            return Source("run", run, files[name])
    if run.evaluated != run.path:
        raise ValueError(
            f"{path} is an evaluation, which holds no weights. Name its run: {run.evaluated}."
        )
    if (model := run.model_elsewhere) is not None:
        raise ValueError(
            f"{path} is an evaluation, which holds no weights. Name its model: {model}."
        )
    there = ", ".join(name for name in WHICH if files[name].is_file())
    missing = "checkpoint" if which is None else f"{files[which].name}"
    gone = "Its checkpoints are gone: put them back, or train it again."
    further = gone if run.is_finished else "Train it further: its command plus resume=true."
    advice = f"It has {there}." if there else further
    raise FileNotFoundError(f"{path} has no {missing}. {advice}")


def _no_checkpoint(which: str) -> str:
    return f"which={which} names a checkpoint of a run folder. Leave it out."


def _contents(path: Path) -> str:
    from crosswalk.data.readers.camera_names import IMAGE_SUFFIXES

    names = sorted(child.name for child in path.iterdir())
    runs = [name for name in names if RunFolder(path / name).config_file.is_file()]
    if runs:
        return f"holds runs, such as {path / runs[-1]}"
    images = [name for name in names if Path(name).suffix.lower() in IMAGE_SUFFIXES]
    if images:
        return f"holds images, such as {images[0]}"
    graphs = [name for name in names if Path(name).suffix in RUN_BY]
    if graphs:
        return f"holds {graphs[0]}, which {RUN_BY[Path(graphs[0]).suffix]} runs"
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
    if suffix in RUN_BY:
        return f"a model of {suffix[1:].upper()}, which {RUN_BY[suffix]} runs"
    if suffix == ".safetensors" and (method := safetensors_header(path).get("method")):
        return (
            f"an import of {method} that does not describe its model (repeat `crosswalk "
            f"import-weights {method} FILE OUT`, with --vocabulary where it learned words)"
        )
    if suffix in (".safetensors", ".pth", ".pt", ".bin"):
        return "a file of weights that does not say which model they are of"
    return f"a file that ends in {suffix!r}" if suffix else "a file without an ending"

"""The folder of a run: its name, what lies where in it, and which folder a resumed run continues.

Imports no torch, so that the command line can look at runs quickly.
"""

from __future__ import annotations

import difflib
import glob
import json
import os
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from filelock import Timeout

from crosswalk.config.keys import ROOTS, differing_keys
from crosswalk.config.model_file import WEIGHTS, place_of_description
from crosswalk.config.moved import modernised
from crosswalk.config.stored import check_stored, read_yaml
from crosswalk.files import (
    UNFINISHED,
    is_locked,
    lock,
    path_meant,
    read_arrays,
    read_text,
    whole,
    write_arrays,
    write_text,
    writing,
)
from crosswalk.words import counted, kind_of

if TYPE_CHECKING:
    from crosswalk.metrics.queries import QueryResults

PARTS = ("choices", "data", "trainer", "method", "optim")
"""Parts of a configuration that hold entries by name."""

NEEDED = (*PARTS, "protocol", "checkpoint", "stage")
"""What the configuration of every run has."""

CONFIG = "config.yaml"
"""Every folder of a run has it."""

TEXTS = (".csv", ".html", ".json", ".jsonl", ".log", ".md", ".txt", ".yaml", ".yml")
"""Endings of files that hold no weights."""

NO_NUMBERS = ("nan", "inf", "-inf")
"""How JSON lines write numbers that JSON does not know."""

PATIENCE = 300
"""Seconds that a process waits for the first one to tell the run folder."""
CHILD_VARIABLE = "CROSSWALK_RUN_DIR"
"""Hands the folder to the processes that Lightning starts beside this one."""

FIRST_VARIABLE = "CROSSWALK_FIRST_PROCESS"
"""Tells them the process id of this one, which they must not outlive."""

STAGE_VARIABLE = "CROSSWALK_STAGE"
"""Tells a run that it is a stage: whoever started the run behind it goes on with that one."""

RANKS = ("RANK", "LOCAL_RANK")
"""What launchers, and Lightning for its processes, call the number of a process."""

EVALUATIONS = "evaluations"
"""Folder below a run's with its evaluations on other data, or by other rules."""

PLACE = ("global_step", "epoch", "time")
"""What a line of ``metrics.jsonl`` holds beside the values."""


def no_run(path: Path, among: str = "runs") -> str:
    """Return what to say of a path that is no run, with the run that may be meant.

    ``name=`` is the end of a folder's name; the runs lie in the folder ``among``.

    Example:
        >>> no_run(Path("nowhere/own"))
        'nowhere/own is no run folder; `ls runs` shows yours.'
    """
    if path.is_dir():
        runs = sorted(each.parent for each in path.glob(f"*/{CONFIG}"))
        if runs:
            newest = max(runs, key=lambda run: (run / CONFIG).stat().st_mtime)
            number = counted(len(runs), "run")
            return f"{path} is no run folder, but holds {number}: name one, such as {newest}."
        return (
            f"{path / CONFIG} is missing, so {path} is not the folder of a run, or of one that was "
            "stopped before its first step. Pass the folder that `crosswalk train` printed."
        )
    if (path.parent / CONFIG).is_file() and path.exists():
        return f"{path} is a file of a run. Name its folder: {path.parent}."
    shown = f"`ls {shlex.quote(among)}` shows yours."
    return f"{path} is no run folder; {shown} {run_meant_by(path)}".rstrip()


def run_meant_by(path: Path) -> str:
    """Return the question whether a run is meant whose name ends so, begins so or is alike."""
    if not path.name:
        return ""
    name = glob.escape(path.name)
    near = sorted(path.parent.glob(f"*-{name}")) or sorted(path.parent.glob(f"{name}-*/{CONFIG}"))
    if near:
        return f"Did you mean {near[-1].parent if near[-1].name == CONFIG else near[-1]}?"
    runs = {each.parent.name: each.parent for each in path.parent.glob(f"*/{CONFIG}")}
    alike = difflib.get_close_matches(path.name, runs, n=1, cutoff=0.8)
    return f"Did you mean {runs[alike[0]]}?" if alike else ""


def weights_of(checkpoint: Path) -> Path:
    """Return the file of ``checkpoint=``: of a run folder its best checkpoint, or the last one.

    Of an exported folder its weights.

    Raises:
        FileNotFoundError: If there is no such file, or the folder has no checkpoint.
        ValueError: If it is a text by its name.

    Example:
        >>> weights_of(Path("nowhere.ckpt"))
        Traceback (most recent call last):
            ...
        FileNotFoundError: checkpoint=nowhere.ckpt does not exist. Name a run folder, the .ckpt of \
        a run, an exported folder, a .safetensors of `crosswalk import-weights` or \
        `export-weights`, tiny:<method> or hf:<user>/<repository>.
    """
    if not checkpoint.is_dir():
        if checkpoint.suffix.lower() in TEXTS and checkpoint.is_file():
            has_weights = (checkpoint.parent / CONFIG).is_file()
            instead = f" checkpoint={checkpoint.parent} takes those of its run." * has_weights
            raise ValueError(f"checkpoint={checkpoint} is a text, and holds no weights.{instead}")
        if checkpoint.is_file():
            return checkpoint
        near = run_meant_by(checkpoint) or path_meant(checkpoint).strip()
        named = (
            "Name a run folder, the .ckpt of a run, an exported folder, a .safetensors of "
            "`crosswalk import-weights` or `export-weights`, tiny:<method> or "
            "hf:<user>/<repository>."
        )
        raise FileNotFoundError(f"checkpoint={checkpoint} does not exist. {near or named}")
    if place_of_description(checkpoint) is not None:
        return checkpoint / WEIGHTS
    folder = RunFolder(checkpoint)
    for path in (folder.best_checkpoint, folder.last_checkpoint, folder.start_weights):
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"checkpoint={checkpoint} is a folder without best.ckpt and last.ckpt. Name the folder of "
        "a run that has ended, or a file of weights."
    )


def runs_named(words: str) -> list[RunFolder]:
    """Return the runs that a word of a command names: one, or several with commas between them.

    Example:
        >>> [run.name for run in runs_named("runs/a,runs/b")]
        ['a', 'b']
    """
    names = [words] if Path(words).is_dir() else [word for word in words.split(",") if word]
    return [RunFolder(Path(name)) for name in names]


def check_different(first: Sequence[RunFolder], second: Sequence[RunFolder]) -> None:
    """Refuse a run that is compared with itself, or counts twice on one side.

    Raises:
        ValueError: Naming it.

    Example:
        >>> check_different(runs_named("runs/a"), runs_named("runs/a,runs/b"))
    """
    places = [[run.path.resolve() for run in side] for side in (first, second)]
    again = [*first] if set(places[0]) == set(places[1]) else []
    for side, found in zip((first, second), places, strict=True):
        again += [run for run, at in zip(side, found, strict=True) if found.count(at) > 1]
    if again:
        raise ValueError(
            f"{again[0].path} is named twice: it differs from itself in nothing, and is one seed, "
            "not two. Name different runs; `ls runs` shows yours."
        )


@dataclass(frozen=True)
class RunFolder:
    """One run's folder: everything that a run leaves is written and read here.

    Example:
        >>> RunFolder(Path("runs/rde-toy")).last_checkpoint.as_posix()
        'runs/rde-toy/last.ckpt'
    """

    path: Path

    @property
    def name(self) -> str:
        """The run's name."""
        return self.path.name

    # What lies where

    @property
    def config_file(self) -> Path:
        """The resolved config."""
        return self.path / CONFIG

    @property
    def record_file(self) -> Path:
        """The run record, `crosswalk.run.callbacks.run_record`."""
        return self.path / "run.json"

    @property
    def metrics_file(self) -> Path:
        """One line per logging event."""
        return self.path / "metrics.jsonl"

    @property
    def results_file(self) -> Path:
        """The final metrics of val and test."""
        return self.path / "results.json"

    @property
    def last_checkpoint(self) -> Path:
        """The checkpoint to continue from."""
        return self.path / "last.ckpt"

    @property
    def best_checkpoint(self) -> Path:
        """The checkpoint of the best epoch on validation."""
        return self.path / "best.ckpt"

    @property
    def start_weights(self) -> Path:
        """The encoder before training, where a stage or ``checkpoint=`` gave its weights."""
        return self.path / "start.safetensors"

    @property
    def vocabulary_file(self) -> Path:
        """The words of the token ids, where the tokenizer has learned them from the captions."""
        return self.path / "vocabulary.json"

    @property
    def people_file(self) -> Path:
        """What one's own data call the people that are numbered in the records of the run."""
        return self.path / "people.json"

    @property
    def wandb_id_file(self) -> Path:
        """The id of the run at Weights & Biases."""
        return self.path / "wandb" / "run-id.txt"

    @property
    def lock_file(self) -> Path:
        """Locked by the run's first process while it runs."""
        return self.path / ".lock"

    def queries_file(self, split: str, checkpoint: str) -> Path:
        """Return where the results of every query of a split lie, for one checkpoint."""
        return self.path / "queries" / f"{split}-{checkpoint}.npz"

    def embeddings_file(self, checkpoint: str) -> Path:
        """Return where the embeddings of a few persons lie, for one checkpoint."""
        return self.path / "diagnostics" / f"embeddings-{checkpoint}.npz"

    # How it stands

    @property
    def resume_checkpoint(self) -> Path | None:
        """`last_checkpoint` if it exists: None for a run that stopped before its first one."""
        return self.last_checkpoint if self.last_checkpoint.exists() else None

    @property
    def kept_vocabulary(self) -> Path | None:
        """`vocabulary_file` if it exists: None where the tokenizer has learned no words."""
        return self.vocabulary_file if self.vocabulary_file.exists() else None

    @property
    def is_finished(self) -> bool:
        """Whether the run trained and was evaluated to its end."""
        return bool(self.record().get("status") == "finished")

    @property
    def evaluated(self) -> Path:
        """The run that an evaluation below `EVALUATIONS` is of; of a run, its own folder."""
        whole_path = Path(os.path.abspath(self.path))
        if whole_path.parent.name == EVALUATIONS:
            run = RunFolder(whole_path.parents[1])
            if run.config_file.exists():  # else ``output_dir`` is only called so
                return run.path
        return self.path

    @property
    def model_elsewhere(self) -> str | None:
        """The model, of no run here, that the folder is an evaluation of; None of others."""
        record = self.record() if self.config_file.is_file() else {}
        return str(record.get("evaluates")) if record.get("zero_shot") is True else None

    def check_is_run(self, command: str) -> None:
        """Refuse the folder of an evaluation.

        Args:
            command: What the run is named for instead, as in ``crosswalk <command> <run>``.
        """
        if self.evaluated != self.path:
            named = shlex.join(["crosswalk", command, str(self.evaluated)])
            raise ValueError(
                f"{self.path} is an evaluation of a run, not a run. Name the run: `{named}`."
            )
        if (model := self.model_elsewhere) is not None:
            raise ValueError(
                f"{self.path} is an evaluation of {model}, not a run, and holds no weights. Name "
                f"the model: crosswalk {command} {model}."
            )

    def evaluate_command(self) -> str:
        """Return the command that writes the results of the folder again, as far as it is known."""
        if self.model_elsewhere is not None:
            return str(self.record().get("command"))
        words = ["crosswalk", "evaluate", str(self.evaluated)]
        if self.evaluated != self.path:
            words += self._words_behind("evaluate")
        return shlex.join(words)

    def note(self) -> str | None:
        """Return what is to be said beside the results of a run that has not finished."""
        record = self.record()
        status, error = record.get("status", "of unknown status"), record.get("error")
        if status == "finished":
            return None
        why = "".join([status, *(f": {line}" for line in str(error or "").splitlines()[:1])])
        return f"{self.path} has not finished ({why}): its results may still change."

    def is_in_use(self) -> bool:
        """Return whether a run goes on in the folder, wherever it was started from."""
        return is_locked(self.lock_file)

    @contextmanager
    def being_evaluated(self) -> Iterator[None]:
        """Hold the folder for an evaluation, and delete what a killed one was writing.

        A run that goes on keeps its folder; it may be evaluated beside.

        Raises:
            RuntimeError: If the same evaluation goes on.
        """
        held = lock(self.lock_file)
        try:
            held.acquire(timeout=1)  # whoever looks at it holds it for a moment
        except Timeout:
            if self.evaluated != self.path:
                raise RuntimeError(
                    f"another process evaluates into {self.path}. Wait for its end or stop it; "
                    "then repeat the command."
                ) from None
            yield
            return
        try:
            self.remove_unfinished()
            yield
        finally:
            held.release()

    # What it holds

    def remove_unfinished(self, name: str = "*") -> None:
        """Delete what a killed process was writing; nobody else may write here meanwhile.

        Evaluations of the run are left alone: they may go on beside it.

        Args:
            name: Pattern of the names to delete, without their end ``.unfinished``.
        """
        for leftover in self.path.rglob(f"{name}{UNFINISHED}"):
            if leftover.relative_to(self.path).parts[0] != EVALUATIONS:
                leftover.unlink(missing_ok=True)

    def config(self) -> dict[str, Any]:
        """Return the saved config, to be read; `runnable_config` is to build something from."""
        path = self.config_file
        if not path.is_file():
            raise FileNotFoundError(no_run(self.path))
        try:
            config = modernised(read_yaml(path))
            _check_entries(path, config, {"choices": str})
            for key in PARTS:
                if key in config and not isinstance(config[key], dict):
                    raise ValueError(f"{path}: {key} is {_short(config[key])}, not entries by name")
        except ValueError as error:
            raise ValueError(f"{str(error).rstrip('.')}. {self._how_to_mend_config()}") from error
        stored: dict[str, Any] = config
        return stored

    def runnable_config(self, needed: Iterable[str] = NEEDED) -> dict[str, Any]:
        """Return the saved config, once it is known that building it runs no foreign code.

        Args:
            needed: Keys that have to be in it.

        Raises:
            ValueError: If it names other code and the user has not said ``--trust``, or if it
                lacks what every run has.
        """
        config = self.config()
        missing = [key for key in needed if key not in config]
        if missing:
            raise ValueError(
                f"{self.config_file}: {missing[0]} is missing. {self._how_to_mend_config()}"
            )
        check_stored(config, self.config_file)
        return config

    def save_config(self, config: Mapping[str, Any]) -> None:
        """Write ``config``, plain containers only."""
        write_text(self.config_file, yaml.safe_dump(dict(config), sort_keys=False))

    def record(self) -> dict[str, Any]:
        """Return the run record; empty before the run has started.

        One that says ``running`` in a folder that is not in use is of a run that was killed, which
        could not say so: its status is ``interrupted``.
        """
        again = f"`crosswalk evaluate {self.evaluated}` with the overrides of this evaluation"
        if self.evaluated == self.path:
            again = "resume=true behind the run's command"
        mend = f"Put back a copy, or delete it: {again} then writes it again."
        record = _parsed(self.record_file, mend)
        killed = record.get("status") == "running" and not self.is_in_use()
        if killed:  # unless it has ended between the two looks
            record = _parsed(self.record_file, mend)
            killed = record.get("status") == "running"
        kinds = {"data": dict, "versions": dict, "hardware": dict, "seeds": dict, "sessions": list}
        for key, kind in kinds.items():
            value = record.get(key)
            items = value if isinstance(value, list) else ()
            if value is not None and not isinstance(value, kind):
                raise ValueError(f"{self.record_file}: {key} is {_short(value)}. {mend}")
            if not all(isinstance(each, dict) for each in items):
                raise ValueError(f"{self.record_file}: {key} is {_short(value)}. {mend}")
        for number, session in enumerate(record.get("sessions") or ()):
            for key in ("started", "ended"):
                if not _is_time(session.get(key), needed=key == "started"):
                    raise ValueError(
                        f"{self.record_file}: sessions.{number}.{key} is "
                        f"{_short(session.get(key))}, no time. {mend}"
                    )
        if killed:
            # not every network file system shows the locks of other machines
            why = "it was killed, its machine stopped, or it still runs on another one"
            error = f"{why}; {again} goes on"
            if self.evaluated != self.path:
                error = f"it did not end; {again} repeats it"
            return record | {"status": "interrupted", "error": error}
        return record

    def save_record(self, record: Mapping[str, Any], *, in_place: bool = False) -> None:
        """Write the run record; what JSON does not know, as text.

        Args:
            record: What `record` returns.
            in_place: Whether to write over the file, where a full disk has no room beside it.
        """
        text = json.dumps(record, indent=2, default=str) + "\n"
        if in_place:
            self.record_file.write_text(text, encoding="utf-8")
        else:
            write_text(self.record_file, text)

    def results(self) -> dict[str, dict[str, Any]]:
        """Return by checkpoint the metrics as fractions and the epoch; none before evaluation."""
        mend = f"`{self.evaluate_command()}` writes it again."
        results = _parsed(self.results_file, mend)
        for checkpoint, metrics in results.items():
            if not isinstance(metrics, dict) or "epoch" not in metrics:
                raise ValueError(
                    f"{self.results_file}: {checkpoint} is {_short(metrics)}, not metrics with "
                    f"their epoch. {mend}"
                )
            for name, value in metrics.items():
                if not _is_number(value):
                    raise ValueError(
                        f"{self.results_file}: {checkpoint}.{name} is {_short(value)}, no number. "
                        f"{mend}"
                    )
        return results

    def save_results(self, results: Mapping[str, Mapping[str, Any]]) -> None:
        """Write what `results` returns."""
        write_text(self.results_file, json.dumps(results, indent=1, sort_keys=True) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        r"""Return the lines of ``metrics.jsonl``, without a last one that was cut off by a kill.

        Each has its ``global_step``, from 0, its ``epoch``, from 1 or None, and its ``time``.

        Example:
            >>> import tempfile
            >>> folder = RunFolder(Path(tempfile.mkdtemp()))
            >>> _ = folder.metrics_file.write_text('{"global_step": 3, "a": 0.5}\n{"global')
            >>> folder.metrics()
            [{'global_step': 3, 'a': 0.5}]
        """
        if not self.metrics_file.exists():
            return []
        lines = read_text(self.metrics_file, limit=1 << 32).split("\n")[:-1]
        return _parsed_lines(self.metrics_file, lines)

    def latest_metrics(self, size: int = 65536) -> dict[str, Any] | None:
        r"""Return the last line of ``metrics.jsonl``, found without reading all of it.

        Args:
            size: How many bytes are read, from the end; a line is far shorter.

        Example:
            >>> import tempfile
            >>> folder = RunFolder(Path(tempfile.mkdtemp()))
            >>> _ = folder.metrics_file.write_text('{"global_step": 3}\n{"global_step": 4}\n{"gl')
            >>> folder.latest_metrics()
            {'global_step': 4}
        """
        if not self.metrics_file.exists():
            return None
        with self.metrics_file.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(0, end - size))
            lines = file.read().split(b"\n")[:-1]  # what follows the last line end is not whole
        if end > size:
            lines = lines[1:]
        rows = _parsed_lines(
            self.metrics_file, [line.decode(errors="replace") for line in lines[-1:]]
        )
        return rows[0] if rows else None

    def append_metrics(self, line: Mapping[str, Any]) -> None:
        """Write one more line of ``metrics.jsonl``."""
        self.path.mkdir(parents=True, exist_ok=True)
        with (
            writing(self.metrics_file),
            self.metrics_file.open("a", encoding="utf-8") as file,
        ):
            file.write(json.dumps(line) + "\n")

    def save_metrics(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Write what `metrics` returns, in the place of all lines so far."""
        write_text(self.metrics_file, "".join(json.dumps(line) + "\n" for line in lines))

    def queries(self, split: str, checkpoint: str) -> dict[str, QueryResults]:
        """Return the results of every query by direction, and ``view/<view>`` of single views.

        A file of an earlier release lacks what it did not keep (None).

        Raises:
            FileNotFoundError: If there are none; the message names those that there are.
        """
        from crosswalk.metrics.queries import QueryResults

        file = self.queries_file(split, checkpoint)
        if not file.exists():
            raise FileNotFoundError(self._missing_queries(file, split, checkpoint))
        mend = f"`{self.evaluate_command()}` writes it again."
        try:
            arrays = read_arrays(file)
        except ValueError as error:
            raise ValueError(f"{error} {mend}") from error
        marker = "_sample_index"
        directions = [name.removesuffix(marker) for name in arrays if name.endswith(marker)]
        if not directions:
            raise ValueError(f"{file} holds no results of queries. {mend}")
        for direction in directions:
            number = len(arrays[f"{direction}{marker}"])
            for field in QueryResults._fields:
                name = f"{direction}_{field}"
                array, ends = arrays.get(name), 2 if field.startswith("top_") else 1
                if array is None and field in QueryResults._field_defaults:
                    continue  # of an earlier release
                if array is None or array.ndim != ends or array.dtype.kind not in "iuf":
                    what = "missing" if array is None else f"{array.dtype} {list(array.shape)}"
                    raise ValueError(f"{file}: {name} is {what}. {mend}")
                if len(array) != number:
                    raise ValueError(f"{file}: {name} has {len(array)} rows of {number}. {mend}")
        return {
            direction: QueryResults(
                **{
                    field: arrays[name]
                    for field in QueryResults._fields
                    if (name := f"{direction}_{field}") in arrays
                }
            )
            for direction in directions
        }

    def save_queries(
        self, split: str, checkpoint: str, queries: Mapping[str, QueryResults]
    ) -> None:
        """Write what `queries` returns, as arrays ``<direction>_<field>``.

        Example:
            >>> import tempfile
            >>> import numpy as np
            >>> from crosswalk.metrics.queries import QueryResults
            >>> folder = RunFolder(Path(tempfile.mkdtemp()))
            >>> one = QueryResults(*[np.zeros(1, np.int64)] * 6, *[np.zeros((1, 1), np.int64)] * 3)
            >>> folder.save_queries("test", "best", {"text_to_image": one})
            >>> list(folder.queries("test", "best"))
            ['text_to_image']
        """
        arrays = {
            f"{direction}_{name}": array
            for direction, results in queries.items()
            for name, array in results._asdict().items()
            if array is not None
        }
        write_arrays(self.queries_file(split, checkpoint), arrays)

    def vocabulary(self) -> dict[str, Any] | None:
        """Return what `vocabulary_file` holds; None where the tokenizer has learned no words."""
        mend = "Copy it from where the run was trained."
        return None if self.kept_vocabulary is None else _parsed(self.vocabulary_file, mend)

    def keep_vocabulary(self, write: Callable[[Path], object]) -> None:
        """Write `vocabulary_file`; in a run that goes on, see that it is the same.

        Args:
            write: Writes the vocabulary to a path.

        Raises:
            ValueError: If the run began with other words.
        """
        file = self.vocabulary_file
        with whole(file) as unfinished:
            write(unfinished)
            if file.exists() and file.read_bytes() != unfinished.read_bytes():
                raise ValueError(
                    f"the captions of this data set have other words than {file}, so they have "
                    "changed since this run began. Start a new run, without resume."
                )

    def keep_people(self, people: Mapping[int, str]) -> None:
        """Write `people_file`: what one's own data call the people that are numbered here."""
        if people:
            write_text(self.people_file, json.dumps(dict(people), indent=0))

    def wandb_id(self) -> str | None:
        """Return the id of the run at Weights & Biases; None if it has none."""
        file = self.wandb_id_file
        return file.read_text(encoding="utf-8").strip() if file.exists() else None

    def _how_to_mend_config(self) -> str:
        """Return the command that writes ``config.yaml`` again, as far as run.json knows it."""
        if self.evaluated != self.path:
            return f"Put back a copy, or write it again: {self.evaluate_command()}"
        command = shlex.join(["crosswalk", "config", "show", *self._words_of_training()])
        return f"Put back a copy, or write it again: {command} > {self.config_file}"

    def resume_command(self, resume: str) -> str:
        """Return the command that goes on with a run, as far as run.json knows it.

        Args:
            resume: What is behind ``resume=``.
        """
        return shlex.join(["crosswalk", "train", *self._words_of_training(), f"resume={resume}"])

    def _words_of_training(self) -> list[str]:
        return [word for word in self._words_behind("train") if not word.startswith("resume=")]

    def _words_behind(self, command: str) -> list[str]:
        """Return the words behind that command of those that made the folder, without the run."""
        try:
            record = self.record()
            words = shlex.split(str(record.get("command", "")))
        except ValueError:
            record, words = {}, []
        if command in words:
            run = record.get("evaluates", "")
            return [w for w in words[words.index(command) + 1 :] if os.path.normpath(w) != run]
        return [f"<overrides of the {'run' if command == 'train' else 'evaluation'}>"]

    def _missing_queries(self, file: Path, split: str, checkpoint: str) -> str:
        others = [
            other.stem.removeprefix(f"{split}-")
            for other in sorted(file.parent.glob(f"{split}-*.npz"))
        ]
        found = f"--checkpoint may be {' or '.join(others)}. " if others else ""
        why = ""
        if (
            checkpoint == "best"
            and self.config_file.exists()
            and self.config().get("protocol") == "last"
        ):
            why = "This run chose no best epoch (protocol=last). "
        if checkpoint == "start" and self._began_with_nothing():
            return (
                f"{file} is missing: {self.path} began with no weights of another run, so nothing "
                f"was evaluated at its start. {found}".rstrip()
            )
        kept = others or self.best_checkpoint.is_file() or self.last_checkpoint.is_file()
        if self.config_file.exists() and not (why or kept or self.is_finished):
            return (
                f"{file} is missing: the run did not finish an epoch. Continue it with the same "
                "command plus resume=true."
            )
        return (
            f"{file} is missing, the results of every query. {why}{found}"
            f"`{self.evaluate_command()}` writes those of all checkpoints of a run."
        )

    def _began_with_nothing(self) -> bool:
        """Return whether a run had neither a stage nor a checkpoint to start from."""
        config = self.config() if self.config_file.exists() else {"stage": True}
        return config.get("stage") is None and config.get("checkpoint") is None


def _parsed(path: Path, mend: str) -> dict[str, Any]:
    """Return what a JSON file of a run holds, entries by name; nothing where there is none.

    Raises:
        ValueError: If it is damaged; the message says how to ``mend`` it.
    """
    if not path.exists():
        return {}
    try:
        content = json.loads(read_text(path))
        _check_entries(path, content, {})
    except (ValueError, RecursionError) as error:
        why = str(error) if str(path) in str(error) else f"{path} is damaged ({error})"
        raise ValueError(f"{why.rstrip('.')}. {mend}") from error
    entries: dict[str, Any] = content
    return entries


def _check_entries(path: Path, content: Any, kinds: Mapping[str, type]) -> None:  # noqa: ANN401
    """Refuse anything but entries by name, at any depth, and other values of those in ``kinds``."""
    waiting = [("", content)]
    while waiting:
        key, node = waiting.pop()
        if not isinstance(node, dict):
            if not key:
                raise ValueError(
                    f"{path} is damaged (it holds {_short(node)}, not entries by name)"
                )
            continue
        for name, value in node.items():
            if not isinstance(name, str):
                raise ValueError(f"{path}: {key}{name!r} is no name of an entry")
            kind = kinds.get(key.rstrip("."))
            if kind is not None and not isinstance(value, kind):
                raise ValueError(f"{path}: {key}{name} is {_short(value)}")
            if isinstance(value, dict):
                waiting.append((f"{key}{name}.", value))


def _short(value: object) -> str:
    if isinstance(value, (dict, list)):
        return f"{kind_of(value)} of {len(value)}"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_time(value: object, *, needed: bool) -> bool:
    if value is None and not needed:
        return True
    try:
        datetime.fromisoformat(str(value))
    except ValueError:
        return False
    return True


def _parsed_lines(path: Path, lines: Iterable[str]) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        mend = "Delete that line, or put back a copy of the file."
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path} is damaged (line {number}: {error}). {mend}") from error
        if not isinstance(row, dict) or not row.keys() & {"global_step", "step", "epoch"}:
            raise ValueError(f"{path} is damaged (line {number} is {_short(row)}). {mend}")
        for name, value in row.items():
            if not (_is_number(value) or value in (None, *NO_NUMBERS)):
                why = f"line {number}: {name} is {_short(value)}, no number"
                raise ValueError(f"{path} is damaged ({why}). {mend}")
        rows.append(_counted_as_now(row))
    return rows


def _counted_as_now(line: dict[str, Any]) -> dict[str, Any]:
    """Return a line of ``metrics.jsonl`` as it is written today.

    Releases that wrote ``step`` for ``global_step`` counted epochs from 0.

    Example:
        >>> _counted_as_now({"step": 9, "epoch": 0, "time": 1.5})
        {'global_step': 9, 'epoch': 1, 'time': 1.5}
    """
    if "global_step" in line:
        return line
    counted = {"global_step" if name == "step" else name: line[name] for name in line}
    if _is_number(counted.get("epoch")):
        counted["epoch"] += 1
    return counted


def _explained(differing: Mapping[str, str], limit: int = 8) -> str:
    lines = [f"  {key}: {change}" for key, change in list(differing.items())[:limit]]
    if len(differing) > limit:
        lines.append(f"  and {len(differing) - limit} more")
    return "\n".join(lines)


def create_run_folder(
    root: Path, method: str, data: str, *, name: str | None, config: Mapping[str, Any]
) -> RunFolder:
    """Return a new folder ``<root>/<method>-<data>-<name or time>`` with the config in it.

    Raises:
        FileExistsError: If a run of that name exists.

    Example:
        >>> import tempfile
        >>> root = Path(tempfile.mkdtemp())
        >>> create_run_folder(root, "rde", "toy", name="first", config={"seed": 1}).name
        'rde-toy-first'
    """
    if name is not None and not re.fullmatch(r"[\w.+=-]+", name):
        raise ValueError(f"name={name!r} may contain letters, digits and . _ + = - only.")
    root = Path(root)
    stem = f"{method}-{data}-{name or datetime.now().strftime('%Y%m%d-%H%M%S')}"
    folder = RunFolder(root / stem)
    number = 1
    while not _take(folder, config):
        if name is not None:
            is_run = folder.config_file.is_file()
            goes_on = is_run and not folder.is_finished and not _differing(config, folder.config())
            raise FileExistsError(
                f"{folder.path} exists{'' if is_run else ' and has no config.yaml'}. "
                f"{'Continue that run with resume=true, choose' if goes_on else 'Choose'} "
                "another name=, or delete the folder."
            )
        number += 1
        folder = RunFolder(root / f"{stem}-{number}")
    return folder


def _take(folder: RunFolder, config: Mapping[str, Any]) -> bool:
    """Put the config of a new run into its folder; return False if the folder is another's.

    One of a run that was killed before its config was in it is nobody's.
    """
    with writing(folder.path):
        try:
            folder.path.mkdir(parents=True)
        except FileExistsError:
            if not _holds_nothing(folder.path):
                return False
        held = lock(folder.lock_file).acquire()
    with held:
        if not _holds_nothing(folder.path):  # a run that started at the same time was faster
            return False
        folder.save_config(config)
    return True


def _holds_nothing(path: Path) -> bool:
    """Return whether a folder has nothing in it but what a killed process had begun to write."""
    return path.is_dir() and all(
        each.name == ".lock" or each.name.endswith(UNFINISHED) for each in path.iterdir()
    )


def find_run_to_resume(
    root: Path, method: str, data: str, *, name: str | None, config: Mapping[str, Any]
) -> RunFolder:
    """Return the newest unfinished run of the same command: method, data, name and config.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If there are some but their configs differ, naming the keys of the newest.
    """
    typed = f"resume={'restart' if config.get('resume') == 'restart' else 'true'}"
    pattern = f"{method}-{data}-{name}" if name is not None else f"{method}-{data}-*"
    folders = [
        RunFolder(path)
        for path in Path(root).glob(pattern)
        if (path / "config.yaml").exists()
        # a data set's name may begin with another's: cuhk and cuhk-noisy
        and _same_choice(path, method, data, name)
    ]
    folders.sort(key=lambda folder: (folder.config_file.stat().st_mtime_ns, folder.name))
    unfinished = [folder for folder in folders if not folder.is_finished]
    if not unfinished:
        what = f"{Path(root) / pattern}"
        if folders:
            raise FileNotFoundError(
                f"{typed}: nothing to continue, {folders[-1].path} is finished. "
                f"checkpoint={folders[-1].path} starts one from its weights; or start a new "
                f"{without_resume(config)}; `crosswalk report {folders[-1].path}` writes its "
                "report again."
            )
        others = sorted(Path(root).glob(f"{method}-{data}-*/{CONFIG}")) if name is None else []
        if others:
            other = others[-1].parent
            raise FileNotFoundError(
                f"{typed}: no run of method={method} data={data} in {root} is without a name=. To "
                f"continue {other}, give name={other.name.removeprefix(f'{method}-{data}-')}."
            )
        raise FileNotFoundError(
            f"{typed}: no run {what} exists. Leave resume away to start one, or name the "
            "folder: resume=<run folder>."
        )
    for folder in reversed(unfinished):
        if not _differing(config, folder.config()):
            return folder
    newest = unfinished[-1]
    raise ValueError(
        f"{typed}: the {'newest ' if name is None else ''}unfinished run {newest.path} has another "
        f"config (its value → yours):\n{_explained(_differing(config, newest.config()))}\nGo on "
        f"with it by `{newest.resume_command(str(typed.partition('=')[2]))}`, or start a new "
        f"{without_resume(config)}."
    )


def without_resume(config: Mapping[str, Any]) -> str:
    """Return how another run than the one that would go on is started: not with its name.

    Example:
        >>> without_resume({"name": None}), without_resume({"name": "first"})
        ('run without resume', 'run without resume and with another name=')
    """
    named = config.get("name") is not None
    return f"run without resume{' and with another name=' if named else ''}"


def _differing(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, str]:
    """Return what must not differ when a run goes on, and does."""
    differing = differing_keys(ours, theirs).items()
    return {key: change for key, change in differing if key not in ROOTS}


def _same_choice(path: Path, method: str, data: str, name: str | None) -> bool:
    rest = path.name.removeprefix(f"{method}-{data}-")
    if name is not None:
        return rest == name
    if re.fullmatch(r"\d{8}-\d{6}(-\d+)?", rest) is None:
        return False
    return RunFolder(path).config().get("name") is None


def open_run_to_resume(path: Path, *, config: Mapping[str, Any]) -> RunFolder:
    """Return the run in the folder ``path`` if it can be continued with ``config``.

    Raises:
        FileNotFoundError: If there is no run in it.
        ValueError: If it is finished or its config differs, naming the keys.
    """
    folder = RunFolder(path.parent if path.suffix == ".ckpt" else path)
    if folder.evaluated != folder.path:
        raise ValueError(
            f"resume={path} is an evaluation of a run: name the run, resume={folder.evaluated}."
        )
    if not folder.config_file.is_file() and not folder.record_file.is_file():
        raise FileNotFoundError(
            f"resume={path}: {no_run(folder.path, str(config.get('output_dir', 'runs')))} "
            "resume=true finds the unfinished run of the same command."
        )
    differing = _differing(config, folder.config())
    if folder.is_finished:
        raise ValueError(
            f"resume={path}: that run is finished. checkpoint={path} starts one from its weights; "
            f"or start a new "
            f"{without_resume(config)}; `crosswalk report {folder.path}` writes its report again."
        )
    if differing:
        raise ValueError(
            f"resume={path}: its config differs from this command's (its value → yours):\n"
            f"{_explained(differing)}\nGo on with it by `{folder.resume_command(str(path))}`, or "
            f"start a new {without_resume(config)}."
        )
    _check_checkpoint_is_there(folder)
    return folder


def _check_checkpoint_is_there(folder: RunFolder) -> None:
    """Refuse to begin anew where a run had a checkpoint and somebody has taken it away.

    Raises:
        ValueError: If it had one: its log goes beyond the first epoch, or it has a best epoch.
    """
    if folder.last_checkpoint.exists():
        return
    later = any((line.get("epoch") or 0) >= 2 for line in folder.metrics())
    waits = folder.last_checkpoint.with_name("last.ckpt.next").exists()  # of a kill in its epoch
    if later or (folder.best_checkpoint.exists() and not waits):
        raise ValueError(
            f"{folder.last_checkpoint} is missing, from which {folder.path} would go on: it has "
            "been deleted. Put it back; or begin this run anew with resume=restart, or start "
            "another one from its best epoch with "
            f"checkpoint={folder.best_checkpoint} and another name=."
        )


def prepare_run_folder(config: Mapping[str, Any]) -> RunFolder:
    """Return the folder of this run, the same one on all of its processes.

    The first process creates or finds it. Processes that Lightning starts beside it learn it
    from the environment, those that torchrun or SLURM start from the store of their launch.

    Args:
        config: The resolved config, plain containers: ``output_dir`` is the folder of all runs,
            ``choices.method``, ``choices.data`` and ``name`` (None: the time) give its name;
            ``resume`` is True to continue the newest unfinished run of the same command, a path to
            continue that one, "restart" to begin the former anew.
    """
    root, resume = Path(config["output_dir"]), config["resume"]
    rank, launch = rank_and_launch(os.environ)
    if rank > 0:
        if launch is None:
            return RunFolder(Path(os.environ[CHILD_VARIABLE]))
        return RunFolder(_told_folder(launch))
    if resume == "restart":
        choices = config["choices"]
        folder = find_run_to_resume(
            root, choices["method"], choices["data"], name=config["name"], config=config
        )
        for path in (folder.last_checkpoint, folder.best_checkpoint, folder.results_file):
            path.unlink(missing_ok=True)
    elif resume:
        folder = run_to_resume(config)
    else:
        choices = config["choices"]
        folder = create_run_folder(
            root, choices["method"], choices["data"], name=config["name"], config=config
        )
    os.environ[CHILD_VARIABLE] = str(folder.path.resolve())
    os.environ[FIRST_VARIABLE] = str(os.getpid())
    if launch is not None:
        store_of(os.environ).set(f"crosswalk/{launch}", str(folder.path.resolve()))
    return folder


def run_to_resume(config: Mapping[str, Any]) -> RunFolder:
    """Return the run that a configuration with ``resume=true``, or of a folder, goes on with.

    Raises:
        FileNotFoundError: If there is none, or its checkpoint was taken away.
        ValueError: If it is finished, or its config differs, naming the keys.
    """
    if isinstance(config["resume"], str):
        return open_run_to_resume(Path(config["resume"]), config=config)
    root, choices = Path(config["output_dir"]), config["choices"]
    folder = find_run_to_resume(
        root, choices["method"], choices["data"], name=config["name"], config=config
    )
    _check_checkpoint_is_there(folder)
    return folder


def rank_and_launch(environment: Mapping[str, str]) -> tuple[int, str | None]:
    """Return this process's rank and, if torchrun or SLURM started it, a name of the launch.

    Example:
        >>> rank_and_launch({"SLURM_NTASKS": "2", "SLURM_PROCID": "1", "SLURM_JOB_ID": "7"})
        (1, 'slurm-7-0-0')
        >>> rank_and_launch({})
        (0, None)
    """
    if "TORCHELASTIC_RUN_ID" in environment:
        parts = [
            environment.get(key, "")
            for key in ("TORCHELASTIC_RUN_ID", "MASTER_PORT", "TORCHELASTIC_RESTART_COUNT")
        ]
        return int(environment["RANK"]), "-".join(["torchrun", *parts])
    if int(environment.get("SLURM_NTASKS", "1")) > 1 and "SLURM_PROCID" in environment:
        parts = [
            environment.get(key, "0")
            for key in ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT")
        ]
        return int(environment["SLURM_PROCID"]), "-".join(["slurm", *parts])
    if CHILD_VARIABLE in environment:
        return int(environment.get("LOCAL_RANK", "0")), None
    return 0, None


def is_first_process(environment: Mapping[str, str]) -> bool:
    """Return whether a process writes what its run leaves.

    Example:
        >>> is_first_process({}), is_first_process({"LOCAL_RANK": "1"})
        (True, False)
    """
    ranks = {environment.get(name, "0") for name in RANKS}
    return rank_and_launch(environment)[0] == 0 and ranks == {"0"}


def forget_stale_ranks(num_processes: int) -> None:
    """Be the first process where there is one and no launcher, whatever the environment says.

    Such as in a shell, or a program, that a launcher has left its variables to.

    Args:
        num_processes: Of the run.
    """
    if num_processes > 1 or rank_and_launch(os.environ)[1] is not None:
        return
    stale = [name for name in (*RANKS, "WORLD_SIZE") if os.environ.pop(name, None) is not None]
    if stale:
        from lightning.pytorch.utilities import rank_zero_only

        # it was read from the environment when Lightning was imported
        rank_zero_only.rank = 0  # type: ignore[attr-defined]


def store_of(environment: Mapping[str, str]) -> Any:  # noqa: ANN401
    """Return the store by which the processes of this launch find each other, and no others.

    It is the one that their process group is made from: of torchrun's agent, or of process 0.
    """
    from crosswalk.distributed import open_store

    host, port = environment.get("MASTER_ADDR"), environment.get("MASTER_PORT")
    if host is None or port is None:
        from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

        # what Lightning's strategy will take, without its checks, which come in their time
        slurm = SLURMEnvironment.__new__(SLURMEnvironment)
        host, port = host or slurm.main_address, port or str(slurm.main_port)
    hosts = rank_and_launch(environment)[0] == 0
    if environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        hosts = False
    return open_store(host, int(port), hosts=hosts, patience=PATIENCE)


def _told_folder(launch: str) -> Path:
    """Return the folder that process 0 of this launch told the others."""
    try:
        return Path(store_of(os.environ).get(f"crosswalk/{launch}").decode())
    except RuntimeError as error:
        raise RuntimeError(
            f"process 0 did not tell the run folder within {PATIENCE} s. Its own output says why."
        ) from error

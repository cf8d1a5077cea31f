"""The runs of a comparison: read, and refused where they do not answer the same queries."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from crosswalk.config.compose import compose
from crosswalk.config.keys import differing_keys, flatten
from crosswalk.config.plain import unresolved
from crosswalk.lab.compare.groups import split_fingerprint
from crosswalk.lab.report.evaluation_data import evaluation_data
from crosswalk.metrics.queries import QueryResults
from crosswalk.run.processes import to_type
from crosswalk.run.run_folder import RunFolder, runs_named

Queries = Mapping[str, QueryResults]
"""Per-query results by direction, and ``view/<view>`` of single views."""

VIEW = "view/"


@dataclass(frozen=True)
class Side:
    """One side of a comparison: a run, or several that only their seeds tell apart.

    Attributes:
        label: "A" or "B".
        checkpoint: "best", "last" or "start".
        split: "test" or "val".
        runs: Their folders, as the user named them.
        queries: The per-query results of each run.
    """

    label: str
    checkpoint: str
    split: str
    runs: tuple[RunFolder, ...]
    queries: tuple[Queries, ...]

    @property
    def directions(self) -> list[str]:
        """The retrieval directions of all runs, without single views."""
        return [name for name in self.queries[0] if not name.startswith(VIEW)]

    @property
    def views(self) -> list[str]:
        """The single views that all runs have."""
        return [
            name
            for name in self.queries[0]
            if name.startswith(VIEW) and all(name in queries for queries in self.queries)
        ]

    def of(self, direction: str) -> list[QueryResults]:
        """Return the results of one direction or view, run by run."""
        return [queries[direction] for queries in self.queries]


def shared_checkpoint(sides: Sequence[str], split: str) -> str:
    """Return the first of "best", "last" and "start" whose results all runs have.

    What was not trained here has "start" alone, and is compared by it with any. Where there is
    none, the first that any run has: reading the others says what is missing.

    Args:
        sides: As `read_side` takes them.
        split: "test" or "val".
    """
    runs = [run for words in sides for run in runs_named(words)]
    runs = [run for run in runs if not _is_untrained(run)] or runs
    for of in (all, any):
        for checkpoint in ("best", "last", "start"):
            if of(run.queries_file(split, checkpoint).exists() for run in runs):
                return checkpoint
    return "best"


def _is_untrained(run: RunFolder) -> bool:
    return run.config_file.exists() and _epochs(run) == 0


def _epochs(run: RunFolder) -> int | None:
    return (run.config().get("trainer") or {}).get("max_epochs")


def checkpoints_of(first: Side, second: Side) -> str:
    """Return what is compared, in words: one checkpoint of both sides, or that of each."""
    return " and ".join(dict.fromkeys([first.checkpoint, second.checkpoint]))


def read_side(words: str, label: str, *, checkpoint: str, split: str) -> Side:
    """Return the runs of one side with their per-query results.

    Args:
        words: A run folder, or several with commas between them.
        label: "A" or "B".
        checkpoint: "best", "last" or "start".
        split: "test" or "val".

    Raises:
        FileNotFoundError: If a folder holds no run, or a run has no such results.
    """
    runs = tuple(runs_named(words))
    if runs and all(_is_untrained(run) for run in runs):
        checkpoint = "start"
    if not runs:
        raise FileNotFoundError(f"side {label} names no run folder; `ls runs` shows yours.")
    return Side(
        label, checkpoint, split, runs, tuple(_queries(run, checkpoint, split) for run in runs)
    )


def _queries(run: RunFolder, checkpoint: str, split: str) -> Queries:
    run.runnable_config(())  # its data may be made again from it
    return run.queries(split, checkpoint)


def check_comparable(first: Side, second: Side) -> list[str]:
    """Return what a reader should know of the two sides; refuse sides with different queries.

    Args:
        first: Side A.
        second: Side B.

    Raises:
        ValueError: If directions, test data, queries or their matches differ, between the sides
            or within one.
    """
    notes = []
    reference, results = first.runs[0], first.queries[0]
    for side in (first, second):
        for run, queries in zip(side.runs, side.queries, strict=True):
            _check_directions(reference, results, run, queries)
            notes += _check_data(reference, run, first.split)
            for direction in (name for name in results if name in queries):
                _check_queries(direction, reference, results, run, queries)
            notes += [note] if (note := run.note()) is not None else []
        notes += _differences_within(side)
    views = set(first.views) ^ set(second.views)
    notes += [f"The view {name.removeprefix(VIEW)} is on one side only." for name in sorted(views)]
    return list(dict.fromkeys(notes))


def _check_directions(
    reference: RunFolder, results: Queries, run: RunFolder, queries: Queries
) -> None:
    ours, theirs = ({n for n in each if not n.startswith(VIEW)} for each in (results, queries))
    if ours != theirs:
        raise ValueError(
            f"{reference.path} looks for {_listed(ours)}, {run.path} for {_listed(theirs)}. Only "
            "runs with the same directions can be compared: those of the same kind of data."
        )


def _listed(directions: set[str]) -> str:
    return ", ".join(direction.replace("_", " ") for direction in sorted(directions))


def _check_data(reference: RunFolder, run: RunFolder, split: str) -> list[str]:
    """Refuse other data; where only the training part may differ, look at the data themselves."""
    ours, theirs = _evaluated(reference), _evaluated(run)
    held_out = [
        [(each.config().get("data") or {}).get(key) for key in ("protocol", "val_person_ids")]
        for each in (reference, run)
    ]
    same_people = split == "test" or held_out[0] == held_out[1]
    if ours["fingerprint"] == theirs["fingerprint"] and same_people:
        return []
    message = (
        f"{reference.path} was evaluated on {ours['dataset']} (fingerprint "
        f"{ours['fingerprint'][:12]}), {run.path} on {theirs['dataset']} "
        f"({theirs['fingerprint'][:12]})"
    )
    try:
        same = split_fingerprint(evaluation_data(reference), split) == split_fingerprint(
            evaluation_data(run), split
        )
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{message}. Whether at least the {split} split is the same cannot be seen: {error}"
        ) from error
    if not same:
        raise ValueError(
            f"{message}, and their {split} images, captions or persons differ. Queries can only be "
            f"compared with themselves: {_to_evaluate_on(reference, run)} evaluates the second run "
            "on the data of the first. Compare the folder that it prints."
        )
    if len(ours["fingerprint"]) != len(theirs["fingerprint"]):  # one is of an earlier release
        return []
    return [
        f"The data sets of the runs differ (fingerprints {ours['fingerprint'][:12]} and "
        f"{theirs['fingerprint'][:12]}), but not in their {split} split."
    ]


OF_THE_DATA = re.compile(
    r"((source|target)\.)?(root|synthetic\.\w+|val_person_ids|camera_rule|allow_missing)"
)
"""Keys of ``data`` that say which queries and gallery there are."""


def _to_evaluate_on(reference: RunFolder, run: RunFolder) -> str:
    """Return the command that evaluates a run on the data of another one."""
    config = reference.config()
    choices = config.get("choices") or {}
    words, own = [f"data={choices.get('data')}"], {}
    with suppress(ValueError):  # of a package that is not here
        own = flatten(unresolved(compose([f"method={choices.get('method')}", *words])["data"]))
    words += [
        f"data.{key}={value}"
        for key, value in flatten(config.get("data") or {}).items()
        if OF_THE_DATA.fullmatch(key) and own.get(key) != value
    ]
    return f"`{to_type('evaluate', str(run.path), *words)}`"


def _evaluated(run: RunFolder) -> dict[str, Any]:
    """Return what the record says of the data that the run was evaluated on."""
    data = run.record().get("data")
    if not data:
        raise ValueError(
            f"{run.record_file} does not say which data the run had, so nobody can tell whether "
            "its queries are those of another run. Compare a run that `crosswalk train` finished."
        )
    evaluated: dict[str, Any] = data.get("target", data)
    return evaluated


def _check_queries(
    direction: str, reference: RunFolder, results: Queries, run: RunFolder, queries: Queries
) -> None:
    ours, theirs = results[direction], queries[direction]
    facts = {"sample_index": "sample", "person_id": "person", "num_matches": "number of matches"}
    if len(ours.sample_index) != len(theirs.sample_index):
        raise ValueError(
            f"{reference.path} has {len(ours.sample_index):,} queries ({direction}), {run.path} "
            f"{len(theirs.sample_index):,}. Evaluate both again on the same data: `crosswalk "
            "evaluate <run>`."
        )
    for field, name in facts.items():
        left, right = getattr(ours, field), getattr(theirs, field)
        if not np.array_equal(left, right):
            row = int(np.flatnonzero(left != right)[0])
            hint = ""
            if field == "num_matches":
                hint = " Perhaps data.camera_rule differs; results by different rules say nothing."
            raise ValueError(
                f"the queries differ ({direction}): the {name} of query {row} is {left[row]} in "
                f"{reference.path} and {right[row]} in {run.path}.{hint}"
            )


def _differences_within(side: Side) -> list[str]:
    """Return a note on what else than seeds differs between the runs of one side."""
    first = side.runs[0].config()
    keys = {
        key
        for run in side.runs[1:]
        for key in differing_keys(run.config(), first)
        if key.split(".")[-1] != "seed"
    }
    if not keys:
        return []
    listed = ", ".join(sorted(keys))
    return [f"The runs of side {side.label} differ in more than their seed: {listed}."]


def run_facts(run: RunFolder, checkpoint: str) -> dict[str, Any]:
    """Return what tells a run from others, to show: its method, data, seed, epoch and code."""
    record, config = run.record(), run.config()
    choices = config.get("choices") or {}
    results = run.results()
    commit = str(record.get("commit") or "unknown")[:10]
    return {
        "run": str(run.path),
        "method": choices.get("method", "unknown"),
        "data": choices.get("data", "unknown"),
        "seed": ", ".join(map(str, (record.get("seeds") or {}).values())) or "unknown",
        "epoch": results.get(checkpoint, {}).get("epoch", "unknown"),
        "code": record.get("code") or "unknown",
        "commit": f"{commit}, changed" if record.get("dirty") else commit,
    }

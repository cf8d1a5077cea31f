"""Which runs a table needs: its rows times seeds, composed and checked before anything runs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from crosswalk.config.check import check
from crosswalk.config.compose import compose, targets_in
from crosswalk.config.overrides import parse_overrides
from crosswalk.config.plain import to_plain
from crosswalk.config.stored import check_stored, trusting
from crosswalk.config.words import did_you_mean
from crosswalk.lab.pool import PlannedRun, Pool, seconds_of, total_seconds
from crosswalk.lab.progress import Estimates, epochs_of
from crosswalk.lab.tables.manifest import Manifest, Row, row_overrides
from crosswalk.run.run_folder import RunFolder

LOGGER = "logger=csv"
"""Rows log to files; ``logger=wandb`` among the overrides of a table wins."""


MOST_LETTERS = 50
"""Of the name of a row in the name of a folder."""

OTHERS = 5
"""Runs of the same method and data whose time is looked at where a row itself never ran."""


@dataclass(frozen=True, eq=False, kw_only=True)
class TableRun(PlannedRun):
    """One run of a table, and the rows that are read from it.

    Attributes:
        rows: Rows with this very configuration, the first of which names it; those that are only
            measured on the run of another row are not among them.
        seed: Its seed.
        key: Its `identity`.
        views: Rows that were asked for by name and are measured on it as the run of another row.
    """

    rows: tuple[Row, ...]
    seed: int
    key: str
    views: tuple[Row, ...] = ()

    @property
    def identity(self) -> str:
        """Its configuration and code: in other tables the same run may have another name."""
        return self.key

    @property
    def kind(self) -> str:
        """The row that names it: its seed does not change how long it takes."""
        return self.rows[0].name


@dataclass(frozen=True)
class Plan:
    """A table and the runs behind it.

    Attributes:
        manifest: The table, on the data that were asked for.
        pool: Where its runs lie.
        runs: All of them, seed by seed, so that a whole table is there early.
        wanted: Those that are to be made.
        any_code: Whether a finished run of other code counts as made.
    """

    manifest: Manifest
    pool: Pool
    runs: tuple[TableRun, ...]
    wanted: tuple[TableRun, ...]
    any_code: bool = False

    def finished(self, run: TableRun) -> RunFolder | None:
        """Return the finished folder of a run; None if there is none."""
        return self.pool.finished(run.config, any_code=self.any_code)

    def missing(self) -> list[TableRun]:
        """Return the wanted runs that are not finished."""
        return [run for run in self.wanted if self.finished(run) is None]

    def codes(self) -> dict[str, str]:
        """Return the digest of the code that each row's runs are made with now, by its name."""
        return {
            row.name: self.pool.code_of(run.config)
            for row in self.manifest.rows
            for run in self.runs
            if (row.run or row.name) in {each.name for each in run.rows}
        }

    @property
    def skipped(self) -> dict[str, str]:
        """Why rows have no place on these data, by name."""
        return {row.name: row.skipped for row in self.manifest.rows if row.skipped is not None}


def make_plan(
    manifest: Manifest,
    pool: Pool,
    *,
    rows: Iterable[str] = (),
    seeds: Sequence[int] = (),
    any_code: bool = False,
) -> Plan:
    """Return the runs of a table; every row is composed, and the wanted ones are type-checked.

    Args:
        manifest: The table; its base holds what all rows share.
        pool: Where runs lie.
        rows: Names of the rows to run; all if empty. A row that is measured on the run of another
            one stands for that one.
        seeds: Seeds to run; the manifest's if empty.
        any_code: Whether finished runs of other code count.

    Raises:
        ValueError: If a row does not exist, has no place on these data, or its configuration is
            wrong; the message names the row.
    """
    asked = tuple(rows)
    names = _trained_rows(manifest, asked)
    wanted_seeds = tuple(seeds) or manifest.seeds
    all_seeds = (*manifest.seeds, *(seed for seed in wanted_seeds if seed not in manifest.seeds))
    composed = _compose_rows(manifest, checked=names)
    runs: dict[str, TableRun] = {}
    for seed in all_seeds:
        for row, config in composed:
            config.seed = seed
            run = planned(pool, row, seed, row_overrides(manifest, row, seed), to_plain(config))
            known = runs.setdefault(run.identity, run)
            if known is not run:
                runs[run.identity] = replace(known, rows=(*known.rows, row))
    wanted = tuple(
        _said_for(run, manifest, asked)
        for run in runs.values()
        if run.seed in wanted_seeds and any(row.name in names for row in run.rows)
    )
    return Plan(manifest, pool, tuple(runs.values()), wanted, any_code)


def _said_for(run: TableRun, manifest: Manifest, asked: Sequence[str]) -> TableRun:
    """Return a run that says which of the rows that were asked for are measured on it."""
    trained = {row.name for row in run.rows}
    views = tuple(row for row in manifest.rows if row.name in asked and row.run in trained)
    note = f"for {', '.join(row.name for row in views)}"
    return replace(run, note=note, views=views) if views else run


def at_home(pool: Pool, run: TableRun) -> TableRun:
    """Return a run where it lies now: another table may have begun it under another name."""
    folder = pool.folder(run.config, _words(run.rows[0], run.seed))
    if folder == run.folder:
        return run
    return replace(run, folder=folder, place=pool.place(run.config, folder))


def _words(row: Row, seed: int) -> str:
    return f"{row.name[:MOST_LETTERS]}-seed{seed}"


def planned(
    pool: Pool, row: Row, seed: int, overrides: Iterable[str], config: Mapping[str, Any]
) -> TableRun:
    """Return the run of a row and seed.

    Args:
        pool: Where it lies.
        row: The row.
        seed: Its seed.
        overrides: As the table says them.
        config: The resolved configuration, plain.
    """
    folder = pool.folder(config, _words(row, seed))
    return TableRun(
        title=f"{row.name}, seed {seed}",
        overrides=tuple(overrides),
        config=config,
        folder=folder,
        place=pool.place(config, folder),
        defaults=(LOGGER,),
        rows=(row,),
        seed=seed,
        key=pool.identity(config),
    )


def estimates_of(plan: Plan) -> Estimates:
    """Return how long the runs of a table take, as far as that is known.

    The best source counts: finished runs of the row with any seed and code, the committed results
    of the table, other runs of the same method and data by their epochs.
    """
    pool, committed = plan.pool, committed_runs(plan.manifest.committed_path)

    def of_the_row(run: PlannedRun) -> list[float]:
        same = [each for each in plan.runs if each.kind == run.kind]
        return [seconds_of(folder) for each in same for folder in pool.of_any_code(each.config)]

    def kept(run: PlannedRun) -> list[float]:
        wanted = _without_seed(run.overrides)
        return [
            float(entry["seconds"]) if "seconds" in entry else total_seconds(entry["sessions"])
            for entry in committed
            if _without_seed(entry["overrides"]) == wanted
        ]

    def others(run: PlannedRun) -> list[float]:
        return [
            seconds_of(folder) / epochs_of(folder.config()) * epochs_of(run.config)
            for folder in pool.of_method_and_data(run.config)[:OTHERS]
        ]

    return Estimates(
        [
            ("finished runs of the same rows", of_the_row),
            ("the committed results of the table", kept),
            ("other runs of the same method and data", others),
        ]
    )


def committed_runs(path: Path) -> list[Mapping[str, Any]]:
    """Return the runs in the committed results of a table, none where there is no such file.

    Example:
        >>> committed_runs(Path("experiments/nowhere.json"))
        []
    """
    if not path.exists():
        return []
    content = json.loads(path.read_text(encoding="utf-8"))
    runs: list[Mapping[str, Any]] = content if isinstance(content, list) else content["runs"]
    return runs


def _trained_rows(manifest: Manifest, rows: Iterable[str]) -> set[str]:
    """Return the names of the rows whose runs are wanted."""
    known = [row.name for row in manifest.rows]
    names = list(rows)
    for name in names:
        if name not in known:
            raise ValueError(
                f"{manifest.path} has no row '{name}'.{did_you_mean(name, known)} It has: "
                f"{'; '.join(known)}."
            )
        skipped = manifest.row(name).skipped
        if skipped is not None:
            raise ValueError(f"row '{name}' is not run on data={manifest.data}: {skipped}")
    return {
        row.run or row.name
        for row in manifest.rows
        if row.skipped is None and (not names or row.name in names)
    }


def _compose_rows(manifest: Manifest, *, checked: Iterable[str]) -> list[tuple[Row, Any]]:
    """Return the rows that have runs of their own with their configurations, checked by name."""
    composed, moved = [], manifest.data != manifest.published_data
    typed = [*manifest.overrides, *([f"data={manifest.data}"] if moved else ())]
    with trusting(targets_in(parse_overrides(typed))):
        for row in manifest.rows:
            if row.run is not None or row.skipped is not None:
                continue
            overrides = row_overrides(manifest, row, manifest.seeds[0])
            try:
                config = compose([LOGGER, *overrides])
                # a method, or what else it names, may have come with the table in configs/
                check_stored(to_plain(config), manifest.path)
                if row.name in checked:
                    check(config, stored=manifest.path)
            except ValueError as error:
                place = "" if _is_of_all_rows(error, manifest) else f"row '{row.name}': "
                raise ValueError(f"{place}{error}") from error
            composed.append((row, config))
    return composed


def _is_of_all_rows(error: ValueError, manifest: Manifest) -> bool:
    """Return whether the command's overrides are wrong by themselves, whatever a row says."""
    try:
        check(compose([LOGGER, *manifest.base, *manifest.overrides]), stored=manifest.path)
    except ValueError as same:
        return bool(manifest.overrides) and str(same) == str(error)
    return False


def _without_seed(overrides: Iterable[str]) -> list[str]:
    return [each for each in overrides if not each.startswith("seed=")]

"""Which runs a table needs: its rows times seeds, composed and checked before anything runs."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from crosswalk.config.check import check
from crosswalk.config.compose import compose, to_plain
from crosswalk.config.constructors import did_you_mean
from crosswalk.lab.pool import Pool
from crosswalk.lab.tables.manifest import Manifest, Row, row_overrides
from crosswalk.run.run_folder import RunFolder

LOGGER = "logger=csv"
"""Rows log to files; ``logger=wandb`` among the overrides of a table wins."""


@dataclass(frozen=True, eq=False)
class PlannedRun:
    """One training, and the rows that are read from it.

    Attributes:
        rows: Rows with this very configuration, the first of which names it; those that are only
            measured on the run of another row are not among them.
        seed: Its seed.
        overrides: As the table says them.
        config: The resolved configuration, plain.
        folder: Where it lies, or will lie.
    """

    rows: tuple[Row, ...]
    seed: int
    overrides: tuple[str, ...]
    config: Mapping[str, Any]
    folder: RunFolder

    @property
    def title(self) -> str:
        """The run in words."""
        return f"{self.rows[0].name}, seed {self.seed}"

    @property
    def command(self) -> str:
        """What repeats the run alone."""
        return command_of(self.overrides)


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
    runs: tuple[PlannedRun, ...]
    wanted: tuple[PlannedRun, ...]
    any_code: bool = False

    def finished(self, run: PlannedRun) -> RunFolder | None:
        """Return the finished folder of a run; None if there is none."""
        return self.pool.finished(run.config, any_code=self.any_code)

    def missing(self) -> list[PlannedRun]:
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


def command_of(overrides: Iterable[str]) -> str:
    """Return the command of a run as one types it.

    Example:
        >>> command_of(["method=rde", "tags=[a b]"])
        "crosswalk train method=rde 'tags=[a b]'"
    """
    return shlex.join(["crosswalk", "train", *overrides])


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
    names = _trained_rows(manifest, rows)
    wanted_seeds = tuple(seeds) or manifest.seeds
    all_seeds = (*manifest.seeds, *(seed for seed in wanted_seeds if seed not in manifest.seeds))
    composed = _compose_rows(manifest, checked=names)
    runs: dict[str, PlannedRun] = {}
    for seed in all_seeds:
        for row, config in composed:
            config.seed = seed
            plain = to_plain(config)
            folder = pool.folder(plain)
            known = runs.get(folder.name)
            overrides = tuple(row_overrides(manifest, row, seed))
            runs[folder.name] = (
                PlannedRun((row,), seed, overrides, plain, folder)
                if known is None
                else PlannedRun((*known.rows, row), seed, known.overrides, known.config, folder)
            )
    wanted = tuple(
        run
        for run in runs.values()
        if run.seed in wanted_seeds and any(row.name in names for row in run.rows)
    )
    return Plan(manifest, pool, tuple(runs.values()), wanted, any_code)


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
    composed = []
    for row in manifest.rows:
        if row.run is not None or row.skipped is not None:
            continue
        overrides = row_overrides(manifest, row, manifest.seeds[0])
        try:
            config = compose([LOGGER, *overrides])
            if row.name in checked:
                check(config)
        except ValueError as error:
            raise ValueError(f"row '{row.name}': {error}") from error
        composed.append((row, config))
    return composed

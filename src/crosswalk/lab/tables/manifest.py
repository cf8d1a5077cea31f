"""Tables as data: rows of overrides, and the published numbers beside the rows that repeat them.

A manifest is a file ``experiments/<method>/<table>.yaml``; experiments/README.md shows one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from crosswalk.config.constructors import did_you_mean
from crosswalk.lab.tables.manifest_checks import (
    MANIFEST_KEYS,
    NOT_OFFERED_KEYS,
    REFERENCE_KEYS,
    ROW_KEYS,
    SOURCE_KEYS,
    check_keys,
    checked_checkpoint,
    checked_list,
    checked_metrics,
    checked_numbers,
    checked_overrides,
    checked_seeds,
    checked_text,
)

Numbers = tuple[float | None, ...]
"""Published numbers in the order of the metrics, in percent; None where one is not known."""


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes:
        name: Distinguishes the rows of a table.
        overrides: What the row's run changes in the base configuration.
        published: The published numbers; None if there are none.
        checkpoint: Weights that the row is about: "start", "best" or "last".
        view: A single view of a model that has several; None: all together.
        run: Name of the row whose run this row is measured on; None: it has a run of its own.
        synthetic: What replaces ``overrides`` on synthetic data, or why the row has no place there.
        note: A sentence for the reader of the table.
        skipped: Why the row is not run on these data; None: it is run.
    """

    name: str
    overrides: tuple[str, ...]
    published: Numbers | None
    checkpoint: str = "best"
    view: str | None = None
    run: str | None = None
    synthetic: tuple[str, ...] | str | None = None
    note: str | None = None
    skipped: str | None = None


@dataclass(frozen=True)
class Reference:
    """Numbers of another method that stand in the table and are never run."""

    name: str
    published: Numbers
    source: str


@dataclass(frozen=True)
class NotOffered:
    """A row of the published table that cannot be run with crosswalk, and why."""

    name: str
    reason: str
    published: Numbers | None = None


@dataclass(frozen=True)
class Manifest:
    """One table.

    Attributes:
        path: Its file.
        title: What it shows.
        source: Where the published numbers are from: ``paper``, ``table``, ``verified`` (seen in
            the paper itself), sometimes ``note``.
        base: Overrides that all rows share.
        metrics: Names of the columns, without split and view.
        seeds: Every row is run once with each.
        places: Place of rows by name, 1 = best, where a source claims an order; rows of one place
            are not told apart by it. Written as ``order``: names, or lists of names, best first.
        rows: The lines.
        references: Lines of other methods.
        not_offered: Lines that crosswalk cannot run.
        synthetic: Overrides behind ``base`` on synthetic data.
        synthetic_checkpoint: Weights that rows about the best epoch are about on synthetic data.
        published_data: The data set that the published numbers are about.
    """

    path: Path
    title: str
    source: Mapping[str, Any]
    base: tuple[str, ...]
    metrics: tuple[str, ...]
    seeds: tuple[int, ...]
    places: Mapping[str, int]
    rows: tuple[Row, ...]
    references: tuple[Reference, ...]
    not_offered: tuple[NotOffered, ...]
    synthetic: tuple[str, ...]
    synthetic_checkpoint: str
    published_data: str

    @property
    def order(self) -> tuple[str, ...]:
        """Names of the rows that have a place, best first; empty if no source claims an order."""
        return tuple(sorted(self.places, key=lambda name: self.places[name]))

    @property
    def data(self) -> str:
        """The data set that the rows are run on."""
        return _data_of(self.base)

    @property
    def suitable_data(self) -> str | None:
        """The synthetic set that the table can be run on; None if the file names none."""
        return _data_of(self.synthetic) or None

    @property
    def is_on_published_data(self) -> bool:
        """Whether obtained numbers may be compared with the published ones."""
        return self.data == self.published_data and not self.data.startswith("synthetic")

    @property
    def name(self) -> str:
        """``<method>-<table>``, with ``-<data>`` behind it on other than the published data."""
        suffix = "" if self.data == self.published_data else f"-{self.data}"
        return f"{self.path.parent.name}-{self.path.stem}{suffix}"

    @property
    def committed_path(self) -> Path:
        """Where the results of this table are kept in the repository."""
        suffix = "" if self.data == self.published_data else f".{self.data}"
        return self.path.parent / "results" / f"{self.path.stem}{suffix}.json"

    def row(self, name: str) -> Row:
        """Return the row of that name.

        Raises:
            ValueError: If there is none.
        """
        for row in self.rows:
            if row.name == name:
                return row
        names = [row.name for row in self.rows]
        raise ValueError(
            f"{self.path} has no row '{name}'.{did_you_mean(name, names)} It has: "
            f"{'; '.join(names)}."
        )

    def with_data(self, data: str) -> Manifest:
        """Return the same table on another data set.

        On synthetic data ``synthetic`` of the manifest follows the base and ``synthetic`` of a row
        replaces its overrides; rows that have no place there say why in ``skipped``, and those
        about the best epoch are about ``synthetic_checkpoint``.

        Args:
            data: A value of ``data=``.

        Raises:
            ValueError: If the table was already moved to other data.
        """
        if self.data != self.published_data:
            raise ValueError(
                f"{self.name} was made for data={self.data} already; read {self.path} again for "
                f"data={data}."
            )
        if data == self.data:
            return self
        base = tuple(each for each in self.base if not each.startswith("data="))
        rows = self.rows
        if data.startswith("synthetic"):
            base += tuple(each for each in self.synthetic if not each.startswith("data="))
            rows = tuple(_on_synthetic(row, self.synthetic_checkpoint) for row in self.rows)
            reasons = {row.name: row.skipped for row in rows}
            rows = tuple(replace(row, skipped=reasons[row.run or row.name]) for row in rows)
        position = next(i for i, each in enumerate(self.base) if each.startswith("data="))
        return replace(self, base=(*base[:position], f"data={data}", *base[position:]), rows=rows)


def row_overrides(manifest: Manifest, row: Row, seed: int) -> list[str]:
    """Return the overrides of ``crosswalk train`` for a row and seed.

    A row with ``run`` has those of the row it is measured on.
    """
    trained = row if row.run is None else manifest.row(row.run)
    return [*manifest.base, *trained.overrides, f"seed={seed}"]


def metric_key(row: Row, metric: str, split: str = "test") -> str:
    """Return the name of a row's number in a run's results.

    Example:
        >>> metric_key(Row("TSE", (), None, view="token_selection"), "rank1")
        'test/view/token_selection/rank1'
        >>> metric_key(Row("RDE", (), None), "map", split="val")
        'val/map'
    """
    return f"{split}/{metric}" if row.view is None else f"{split}/view/{row.view}/{metric}"


def read_manifest(path: Path) -> Manifest:
    """Return the table that ``path`` describes.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a key is missing, unknown or of another kind than it should be, if numbers
            do not match the metrics, or if a row that another one names does not exist.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist; the tables lie in experiments/<method>/<table>.yaml"
        )
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    place = str(path)
    check_keys(content, MANIFEST_KEYS, place)
    check_keys(content["source"], SOURCE_KEYS, f"{place}, source")
    checkpoint = checked_checkpoint(content.get("checkpoint", "best"), place)
    metrics = checked_metrics(content["metrics"], place)
    base = checked_overrides(content["base"], f"{place}, base")
    if not _data_of(base):
        raise ValueError(f"{place}, base: needs data=<data set>, the one the numbers are about.")
    rows, references, not_offered = (
        checked_list(content.get(key, []), f"{place}: {key}")
        for key in ("rows", "references", "not_offered")
    )
    places = _places(checked_list(content.get("order", []), f"{place}: order"), path)
    manifest = Manifest(
        path=path,
        title=checked_text(content["title"], f"{place}: title"),
        source=content["source"],
        base=base,
        metrics=metrics,
        seeds=checked_seeds(content["seeds"], place),
        places=places,
        rows=tuple(_row(each, checkpoint, metrics, path) for each in rows),
        references=tuple(_reference(each, metrics, path) for each in references),
        not_offered=tuple(_design(each, metrics, path) for each in not_offered),
        synthetic=checked_overrides(content.get("synthetic", []), f"{place}, synthetic"),
        synthetic_checkpoint=checked_checkpoint(
            content.get("synthetic_checkpoint", "best"), f"{place}, synthetic_checkpoint"
        ),
        published_data=_data_of(base),
    )
    _check_names(manifest)
    return manifest


def _row(entry: Any, checkpoint: str, metrics: tuple[str, ...], path: Path) -> Row:  # noqa: ANN401
    place = _place(entry, path, "row")
    check_keys(entry, ROW_KEYS, place)
    if ("overrides" in entry) == ("run" in entry):
        raise ValueError(
            f"{place}: needs overrides (a run of its own; [] for the base alone) or run (the row "
            "whose run it is measured on), one of the two."
        )
    if "run" in entry and "synthetic" in entry:
        raise ValueError(f"{place}: synthetic belongs to row '{entry['run']}', whose run it is.")
    overrides = checked_overrides(entry.get("overrides", []), f"{place}, overrides")
    synthetic = entry.get("synthetic")
    if synthetic is not None and not isinstance(synthetic, str):
        synthetic = checked_overrides(synthetic, f"{place}, synthetic")
    if _data_of(overrides) or (isinstance(synthetic, tuple) and _data_of(synthetic)):
        raise ValueError(f"{place}: data= belongs to base; a table is about one data set.")
    return Row(
        name=checked_text(entry["name"], f"{path}: the name of a row"),
        overrides=overrides,
        published=checked_numbers(entry["published"], metrics, place),
        checkpoint=checked_checkpoint(entry.get("checkpoint", checkpoint), place),
        view=entry.get("view"),
        run=entry.get("run"),
        synthetic=synthetic,
        note=entry.get("note"),
    )


def _reference(entry: Any, metrics: tuple[str, ...], path: Path) -> Reference:  # noqa: ANN401
    place = _place(entry, path, "reference")
    check_keys(entry, REFERENCE_KEYS, place)
    published = checked_numbers(entry["published"], metrics, place)
    if published is None:
        raise ValueError(f"{place}: it stands here for its published numbers, and has none.")
    name = checked_text(entry["name"], f"{path}: the name of a reference")
    return Reference(name, published, checked_text(entry["source"], f"{place}: source"))


def _design(entry: Any, metrics: tuple[str, ...], path: Path) -> NotOffered:  # noqa: ANN401
    place = _place(entry, path, "not offered")
    check_keys(entry, NOT_OFFERED_KEYS, place)
    name = checked_text(entry["name"], f"{path}: the name of what is not offered")
    reason = checked_text(entry["reason"], f"{place}: reason")
    return NotOffered(name, reason, checked_numbers(entry["published"], metrics, place))


def _place(entry: Any, path: Path, kind: str) -> str:  # noqa: ANN401
    return f"{path}, {kind} '{entry.get('name') if isinstance(entry, dict) else entry}'"


def _places(order: list[Any], path: Path) -> dict[str, int]:
    groups = [group if isinstance(group, list) else [group] for group in order]
    names = [name for group in groups for name in group]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"{path}, order: '{twice[0]}' has two places.")
    return {name: place for place, group in enumerate(groups, start=1) for name in group}


def _check_names(manifest: Manifest) -> None:
    names = [row.name for row in manifest.rows]
    names += [reference.name for reference in manifest.references]
    names += [design.name for design in manifest.not_offered]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(
                f"{manifest.path}: two rows have the same name '{name}'; results are kept by row "
                "name"
            )
    for row in manifest.rows:
        if row.run is not None and manifest.row(row.run).run is not None:
            raise ValueError(
                f"{manifest.path}, row '{row.name}': run='{row.run}' has no run of its own."
            )
    for name in manifest.order:
        manifest.row(name)


def _on_synthetic(row: Row, checkpoint: str) -> Row:
    if row.checkpoint == "best":
        row = replace(row, checkpoint=checkpoint)
    if isinstance(row.synthetic, str):
        return replace(row, skipped=row.synthetic)
    return row if row.synthetic is None else replace(row, overrides=row.synthetic)


def _data_of(overrides: Iterable[str]) -> str:
    values = [each.partition("=")[2] for each in overrides if each.startswith("data=")]
    return values[-1] if values else ""

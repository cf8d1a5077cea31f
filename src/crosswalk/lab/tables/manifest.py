"""Tables as data: rows of overrides, and the published numbers beside the rows that repeat them.

A manifest is a file ``experiments/<method>/<table>.yaml``; experiments/README.md shows one.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from crosswalk.config.keys import TOP
from crosswalk.config.overrides import parse_overrides
from crosswalk.config.search import beside_configs, file_beside_configs, groups
from crosswalk.config.stored import check_overrides, read_yaml
from crosswalk.config.words import did_you_mean
from crosswalk.files import path_meant
from crosswalk.run.results import DIRECTIONS, EXTRA_MEASURES, MEASURES

EXPERIMENTS = Path("experiments")
CHECKPOINTS = ("start", "best", "last")

MANIFEST_KEYS = {
    **dict.fromkeys(("title", "source", "base", "metrics", "seeds", "rows"), True),
    **dict.fromkeys(
        (
            *("checkpoint", "synthetic", "synthetic_checkpoint", "order", "references"),
            *("not_offered", "note"),
        ),
        False,
    ),
}
SOURCE_KEYS = {"paper": True, "table": True, "verified": True, "note": False}
ROW_KEYS = {
    **{"name": True, "published": True},
    **dict.fromkeys(("overrides", "run", "view", "checkpoint", "synthetic", "note"), False),
}
REFERENCE_KEYS = {"name": True, "published": True, "source": True}
NOT_OFFERED_KEYS = {"name": True, "reason": True, "published": True}
"""Keys by whether they are needed."""

ELSEWHERE = {
    "data": "choose the data with --data",
    "seed": "choose seeds with --seeds",
    "output_dir": "choose the folder with --output-dir",
    "method": "a table is about one method",
    "name": "runs of tables are named by their configuration",
    "resume": "runs of tables go on by themselves",
}
"""Keys that are no override of a whole table, and where they belong."""

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
        note: A sentence for the reader of the table; such as that kept runs had another default.
        overrides: Of all rows, behind ``base``; the table itself does not have them.
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
    note: str | None = None
    overrides: tuple[str, ...] = ()

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

    def with_overrides(self, overrides: Iterable[str]) -> Manifest:
        """Return the table with overrides for all rows; what a row says itself is stronger.

        Raises:
            ValueError: If one is about what distinguishes rows and runs.
        """
        overrides = tuple(overrides)
        for override in overrides:
            key = override.lstrip("+~").partition("=")[0]
            if key not in TOP and key not in groups():  # misspelt, perhaps
                key = next(iter(difflib.get_close_matches(key, ELSEWHERE, 1, 0.8)), key)
            if key in ELSEWHERE:
                raise ValueError(f"{override}: {ELSEWHERE[key]}.")
        return replace(self, overrides=overrides)


def row_overrides(manifest: Manifest, row: Row, seed: int) -> list[str]:
    """Return the overrides of ``crosswalk train`` for a row and seed.

    A row with ``run`` has those of the row it is measured on.
    """
    trained = row if row.run is None else manifest.row(row.run)
    return [*manifest.base, *manifest.overrides, *trained.overrides, f"seed={seed}"]


def metric_key(row: Row, metric: str, split: str = "test") -> str:
    """Return the name of a row's number in a run's results.

    Example:
        >>> metric_key(Row("TSE", (), None, view="token_selection"), "rank1")
        'test/view/token_selection/rank1'
        >>> metric_key(Row("RDE", (), None), "map", split="val")
        'val/map'
    """
    return f"{split}/{metric}" if row.view is None else f"{split}/view/{row.view}/{metric}"


def find_table(name: Path) -> Path:
    """Return the path of a table, given itself or as ``<method>/<table>``, with its ending or not.

    Raises:
        FileNotFoundError: If there is none.

    Example:
        >>> find_table(Path("rde/table2")).as_posix().endswith("experiments/rde/table2.yaml")
        True
    """
    for given in (name, Path(f"{name}.yaml")):
        for path in (given, EXPERIMENTS / given):
            if (found := file_beside_configs(path)).is_file():
                return found
    tables = sorted(
        {
            path.relative_to(folder).with_suffix("").as_posix()
            for folder in beside_configs(EXPERIMENTS)
            for path in folder.glob("*/*.yaml")
        }
    )
    methods = list(dict.fromkeys(table.split("/")[0] for table in tables))
    method = next((part for part in name.parts if part in methods), "")
    among = [table for table in tables if table.startswith(f"{method}/")] if method else tables
    near = [table for table in among if table.split("/")[1] == name.stem]
    word, start = (name.stem, len(f"{method}/")) if method else ("/".join(name.parts[-2:]), 0)
    close = difflib.get_close_matches(word, [table[start:] for table in among], 1, 0.8)
    near += [f"{among[0][:start]}{each}" for each in close]
    meant = f" Did you mean {near[0]}?" if near else ""
    there = f"Name one as <method>/<table>; there are tables of {', '.join(methods)}."
    if method:
        there = f"Those of {method} are {', '.join(among)}."
    raise FileNotFoundError(f"{name} is neither a file nor a table of experiments/.{meant} {there}")


def read_manifest(path: Path) -> Manifest:
    """Return the table that ``path`` describes.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a key is missing, unknown or of another kind than it should be, if numbers
            do not match the metrics, or if a row that another one names does not exist.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist.{path_meant(path)} The tables lie in "
            "experiments/<method>/<table>.yaml."
        )
    content = read_yaml(path)
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
        note=checked_text(content["note"], f"{place}: note") if "note" in content else None,
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


def metric_label(metric: str) -> str:
    """Return the heading of a metric's column.

    Example:
        >>> [metric_label(name) for name in ("rank1", "image_to_text/map", "reranked/rank5")]
        ['R@1', 'mAP image → text', 'R@5 re-ranked']
        >>> metric_label("val/map")
        'mAP on val'
    """
    *groups, measure = metric.split("/")
    names = {**DIRECTIONS, "reranked": "re-ranked", "val": "on val"}
    label = (MEASURES | EXTRA_MEASURES).get(measure, measure)
    return " ".join([label, *(names.get(group, group) for group in groups)])


def check_keys(entry: Any, keys: Mapping[str, bool], place: str) -> None:  # noqa: ANN401
    """Refuse anything but a mapping with the needed keys and no unknown one.

    Raises:
        ValueError: What is wrong, after ``place``.

    Example:
        >>> check_keys({"name": "A", "publish": None}, {"name": True, "published": True}, "here")
        Traceback (most recent call last):
            ...
        ValueError: here: unknown key publish. Did you mean published? There are: name, published.
    """
    if not isinstance(entry, dict):
        raise ValueError(f"{place}: {entry!r} is no mapping with the keys {', '.join(keys)}.")
    for key in entry:
        if key not in keys:
            near = did_you_mean(str(key), keys)
            raise ValueError(f"{place}: unknown key {key}.{near} There are: {', '.join(keys)}.")
    missing = [key for key, needed in keys.items() if needed and key not in entry]
    if missing:
        raise ValueError(f"{place}: needs {' and '.join(missing)}.")


def checked_text(value: Any, place: str) -> str:  # noqa: ANN401
    """Return a text that is there.

    Example:
        >>> checked_text(0.1, "here: the name")
        Traceback (most recent call last):
            ...
        ValueError: here: the name is 0.1; write a text, in quotes where it looks like a number.
    """
    if not isinstance(value, str) or not value:
        raise ValueError(
            f"{place} is {value!r}; write a text, in quotes where it looks like a number."
        )
    return value


def checked_checkpoint(value: Any, place: str) -> str:  # noqa: ANN401
    """Return which weights a row is about.

    Example:
        >>> checked_checkpoint("last", "here")
        'last'
    """
    if value not in CHECKPOINTS:
        raise ValueError(
            f"{place}: checkpoint={value}; write start (the weights before training), best or last"
        )
    return str(value)


def checked_list(value: Any, place: str) -> list[Any]:  # noqa: ANN401
    """Return a list that is one.

    Example:
        >>> checked_list({"name": "A"}, "here: rows")
        Traceback (most recent call last):
            ...
        ValueError: here: rows is {'name': 'A'}; write a list.
    """
    if not isinstance(value, list):
        raise ValueError(f"{place} is {value!r}; write a list.")
    return value


def checked_numbers(
    value: Any,  # noqa: ANN401
    metrics: tuple[str, ...],
    place: str,
) -> tuple[float | None, ...] | None:
    """Return published numbers, one or None per metric; None if nothing was published.

    Example:
        >>> checked_numbers([71, None], ("rank1", "map"), "here")
        (71.0, None)
    """
    if value is None:
        return None
    numbers = checked_list(value, f"{place}: published")
    if len(numbers) != len(metrics):
        raise ValueError(
            f"{place}: {len(numbers)} published numbers for {len(metrics)} metrics; write null for "
            "a number that is not known"
        )
    for number in numbers:
        is_number = isinstance(number, (int, float)) and not isinstance(number, bool)
        if number is not None and not (is_number and 0 <= number <= 100):
            raise ValueError(f"{place}: published {number!r} is not a percentage from 0 to 100.")
    return tuple(None if number is None else float(number) for number in numbers)


def checked_overrides(value: Any, place: str) -> tuple[str, ...]:  # noqa: ANN401
    """Return overrides.

    Example:
        >>> checked_overrides(["method=rde"], "here")
        ('method=rde',)
    """
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise ValueError(f"{place}: {value!r} is no list of key=value; [] changes nothing.")
    check_overrides(parse_overrides(value), place)
    return tuple(value)


def checked_metrics(value: Any, place: str) -> tuple[str, ...]:  # noqa: ANN401
    """Return the names of the columns.

    Example:
        >>> checked_metrics(["rank1", "image_to_text/map"], "here")
        ('rank1', 'image_to_text/map')
    """
    measures = [*MEASURES, *EXTRA_MEASURES]
    for metric in checked_list(value, f"{place}: metrics"):
        *groups, measure = str(metric).split("/")
        if measure not in measures or not set(groups) <= {*DIRECTIONS, "reranked"}:
            near = did_you_mean(measure, measures)
            raise ValueError(
                f"{place}: unknown metric {metric}.{near} There are: {', '.join(measures)}; in "
                "another direction or re-ranked, image_to_text/<metric> and reranked/<metric>."
            )
    if len(set(value)) != len(value) or not value:
        raise ValueError(f"{place}: metrics={value!r}; write different ones, at least one.")
    return tuple(value)


def _is_seed(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**32


def checked_seeds(value: Any, place: str) -> tuple[int, ...]:  # noqa: ANN401
    """Return the seeds.

    Example:
        >>> checked_seeds([1, 2, 3], "here")
        (1, 2, 3)
    """
    seeds = checked_list(value, f"{place}: seeds")
    if not seeds or not all(_is_seed(seed) for seed in seeds) or len(set(seeds)) != len(seeds):
        raise ValueError(
            f"{place}: seeds={value!r}; write a list of different whole numbers, 0 or more."
        )
    return tuple(seeds)

"""What the doctor of data sets found, as JSON and as text."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from itertools import combinations
from typing import Literal

from crosswalk.doctor.integrity import KINDS, ImageProblem
from crosswalk.words import counted

SHOWN = 10  # ours: names per finding on the terminal; the JSON report has all


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found.

    Attributes:
        severity: ``error`` or ``warning``.
        code: Short name of the kind of finding, for programs.
        message: What was found, one sentence.
        next_step: What to do about it.
        items: The images, captions or ids concerned, one line each.
    """

    severity: Literal["error", "warning"]
    code: str
    message: str
    next_step: str
    items: tuple[str, ...] = ()


def found(
    severity: Literal["error", "warning"],
    code: str,
    noun: str,
    told: str,
    next_step: str,
    items: Iterable[object],
) -> list[Finding]:
    """Return the finding that there are such items, if there are any.

    Args:
        severity: See `Finding`.
        code: Likewise.
        noun: What the items are.
        told: What is wrong with them, behind "are".
        next_step: See `Finding`.
        items: The items.

    Example:
        >>> found("error", "empty_caption", "caption", "empty.", "Write it.", ["a.jpg"])[0].message
        '1 caption is empty.'
    """
    lines = tuple(map(str, items))
    if not lines:
        return []
    return [Finding(severity, code, f"{counted(len(lines), noun, 'are')} {told}", next_step, lines)]


def shared_identities(
    people: Mapping[str, set[int]],
    *,
    called: Callable[[int], str] = str,
    ids_may_restart: bool = False,
) -> list[Finding]:
    """Return which people are in two of train, val and test.

    Args:
        people: The person ids of each.
        called: What the data call a person.
        ids_may_restart: Whether the same numbers may mean different people where both count from 0.

    Example:
        >>> [of] = shared_identities({"train": {3, 4}, "val": set(), "test": {4}})
        >>> of.message, of.items
        ('1 identity is in both train and test.', ('4',))
    """
    findings = []
    for first, second in combinations(("train", "val", "test"), 2):
        shared = sorted(people[first] & people[second])
        restarts = ids_may_restart and shared and min(people[first]) == min(people[second]) == 0
        findings += found(
            "warning" if restarts else "error",
            "identity_in_two_splits",
            "identity",
            f"in both {first} and {second}.",
            "Both splits count from 0, so these are probably different people; compare some images."
            if restarts
            else f"Results on {second} do not count if it shows people of {first}: give each "
            "person one split, or different ids to different people.",
            map(called, shared),
        )
    return findings


@dataclass(frozen=True)
class Report:
    """What the doctor found out about one data set.

    Attributes:
        dataset: Name of the data set.
        root: The folder that holds it.
        layout: The layout that matched, below the folder that was given.
        image_folder: Folder that the image names start from.
        counts: Identities, images and captions per split; of image sets identities, images,
            cameras and junk left out.
        expected: Counts it should have, if known.
        expected_from: ``published``, ``expected_counts.json``, or empty.
        cameras: Images per split of each camera of an image set.
        sources: Per source folder the images named, and how many have each kind of problem.
        images: Images that cannot be used.
        findings: Errors, then warnings.
        notices: What the reader said.
        command: How to train on these data.
        fingerprint: See `crosswalk.doctor.integrity.fingerprint`.
        seconds: How long the check took.
    """

    dataset: str
    root: str
    layout: str = ""
    image_folder: str = ""
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    expected: dict[str, dict[str, int]] = field(default_factory=dict)
    expected_from: str = ""
    cameras: dict[str, dict[str, int]] = field(default_factory=dict)
    sources: dict[str, dict[str, int]] = field(default_factory=dict)
    images: tuple[ImageProblem, ...] = ()
    findings: tuple[Finding, ...] = ()
    notices: tuple[str, ...] = ()
    command: str = ""
    fingerprint: str = ""
    seconds: float = 0.0

    @property
    def errors(self) -> tuple[Finding, ...]:
        """Findings that make the data unusable as they are."""
        return tuple(finding for finding in self.findings if finding.severity == "error")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """Findings to know about."""
        return tuple(finding for finding in self.findings if finding.severity == "warning")

    @property
    def status(self) -> int:
        """Exit status: 1 with errors, else 0."""
        return 1 if self.errors else 0

    def to_dict(self) -> dict[str, object]:
        """Return the report as plain containers.

        Example:
            >>> Report("CUHK-PEDES", "/datasets").to_dict()["status"]
            0
        """
        content = asdict(self)
        content["status"] = self.status
        content["images"] = [{**image, "path": str(image["path"])} for image in content["images"]]
        return content

    def to_json(self) -> str:
        """Return the report as indented JSON.

        Example:
            >>> json.loads(Report("CUHK-PEDES", "/datasets").to_json())["dataset"]
            'CUHK-PEDES'
        """
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n"

    def to_text(self) -> str:
        """Return the report for a terminal, without colours.

        Example:
            >>> print(Report("CUHK-PEDES", "/datasets").to_text().splitlines()[-1])
            No problems found in CUHK-PEDES.
        """
        lines = []
        for block in _blocks(self):
            if isinstance(block, _Table):
                lines += ["", *block.plain()]
            else:
                lines.append(block[1])
        return "\n".join(lines) + "\n"


@dataclass(frozen=True, slots=True)
class _Table:
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def plain(self) -> list[str]:
        widths = [max(map(len, column)) for column in zip(self.header, *self.rows, strict=True)]
        lines = []
        for row in (self.header, *self.rows):
            cells = [row[0].ljust(widths[0])]
            cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
            lines.append("  ".join(cells).rstrip())
        return lines


_Line = tuple[str, str]  # style of rich, text


def _blocks(report: Report) -> Iterable[_Table | _Line]:
    """Yield the report as tables and lines, for either way of printing."""
    yield "bold", f"{report.dataset} at {report.root}"
    if report.layout:
        place = f", images in {report.image_folder}" if report.image_folder else ""
        yield "", f"layout       {report.layout}{place}"
    if report.fingerprint:
        yield "", f"fingerprint  {report.fingerprint}"
    if report.counts:
        known = {"": "nothing to compare with", "published": "compared with the published ones"}
        told = known.get(report.expected_from, f"compared with {report.expected_from}")
        yield "", f"counts       {told}"
    for notice in report.notices:
        yield "", f"note         {notice}"
    if report.counts:
        yield _count_table(report)
    if report.cameras:
        splits = [name for name, counts in report.counts.items() if counts["images"]]
        yield _Table(
            ("camera", *splits),
            tuple(
                (name, *(f"{row.get(split, 0):,}" for split in splits))
                for name, row in report.cameras.items()
            ),
        )
    if len(report.sources) > 1 or report.images:
        kinds = [kind for kind in KINDS if any(kind in row for row in report.sources.values())]
        yield _Table(
            ("source", "images", "usable", *kinds),
            tuple(
                (
                    name,
                    f"{row['images']:,}",
                    f"{row['images'] - sum(row.get(kind, 0) for kind in kinds):,}",
                    *(f"{row.get(kind, 0):,}" for kind in kinds),
                )
                for name, row in report.sources.items()
            ),
        )
    yield "", ""
    for finding in report.findings:
        error = finding.severity == "error"
        word = "ERROR" if error else "WARNING"
        yield ("bold red" if error else "bold yellow"), f"{word}  {finding.message}"
        for item in finding.items[:SHOWN]:
            yield "", f"    {item}"
        if len(finding.items) > SHOWN:
            yield "", f"    ... and {len(finding.items) - SHOWN:,} more (--json FILE lists all)"
        if finding.next_step:
            yield "", f"  -> {finding.next_step}"
    if report.findings:
        numbers = (counted(len(report.errors), "error"), counted(len(report.warnings), "warning"))
        yield "bold", f"{', '.join(numbers)} in {report.dataset}."
    else:
        yield "bold green", f"No problems found in {report.dataset}."
    if report.command:
        yield "", f"Train on it: {report.command}"


def _count_table(report: Report) -> _Table:
    rows = []
    for name, counts in report.counts.items():
        expected = report.expected.get(name, {})
        cells = [
            f"{number:,}"
            + (f" (expected {expected[what]:,})" if expected.get(what, number) != number else "")
            for what, number in counts.items()
        ]
        rows.append((name, *cells))
    columns = {name: name for counts in report.counts.values() for name in counts}
    columns["person_ids"] = "identities"
    return _Table(("split", *columns.values()), tuple(rows))


def print_report(report: Report) -> None:
    """Print the report, in colours where the output is a terminal.

    Example:
        >>> print_report(Report("RSTPReid", "/datasets"))
        RSTPReid at /datasets
        <BLANKLINE>
        No problems found in RSTPReid.
    """
    if not sys.stdout.isatty():
        print(report.to_text(), end="", flush=True)
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from crosswalk.terminal import fit

    console = Console(highlight=False)
    for block in _blocks(report):
        if isinstance(block, _Table):
            table = Table(*block.header)
            for column in table.columns[1:]:
                column.justify = "right"
            for row in block.rows:
                table.add_row(*map(Text, row))
            console.print(fit(table, console))
        else:
            # names of files and the command are copied from here, whole
            whole = block[1].startswith(("    ", "Train on it"))
            console.print(Text(block[1], style=block[0]), soft_wrap=whole)

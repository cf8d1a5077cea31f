"""The report of a run: one HTML file that holds everything and fetches nothing."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from crosswalk.config.build import instantiate
from crosswalk.config.compose import diagnostics_of
from crosswalk.config.places import refuse_inside_data
from crosswalk.diagnostics.base import Diagnostic
from crosswalk.files import write_text
from crosswalk.lab.report.configuration import configuration_section
from crosswalk.lab.report.curves import curves_section
from crosswalk.lab.report.embedding_map import embedding_map_section
from crosswalk.lab.report.evaluation_data import evaluation_data
from crosswalk.lab.report.open_set import open_set_section
from crosswalk.lab.report.outcome import (
    directions_of,
    lost_in_words,
    lost_parts,
    results_section,
    summary_section,
)
from crosswalk.lab.report.provenance import provenance_section
from crosswalk.lab.report.ranking_lists import ranking_lists_section
from crosswalk.pages import Section, render_page
from crosswalk.run.run_folder import RunFolder


def write_report(folder: RunFolder, data: Any = None, *, target: Path | None = None) -> Path:  # noqa: ANN401
    """Write the report of a run, finished or not, and return its path.

    Args:
        folder: The run.
        data: The data module of the run; None makes it again from the run's configuration.
        target: Where to; None is ``report.html`` in the run folder.

    Raises:
        FileNotFoundError: If the folder holds no run.
    """
    if not folder.is_in_use():
        folder.remove_unfinished("report.html.*")
    target = folder.path / "report.html" if target is None else target
    with _without_what_is_damaged(folder):
        sections = report_sections(folder, data)
    subtitle = f"{folder.config()['choices']['method']}, {folder.record().get('started', '')}"
    write_text(target, render_page(folder.name, sections, subtitle=subtitle.strip(", ")))
    return target


@contextmanager
def _without_what_is_damaged(folder: RunFolder) -> Iterator[None]:
    """Say of a damaged file below ``diagnostics/`` that a report can be written without it."""
    try:
        yield
    except ValueError as error:
        if str(folder.path / "diagnostics") not in str(error):
            raise
        raise ValueError(
            f"{error} Delete it, and the report is written without it; "
            f"`{folder.evaluate_command()}` writes again what evaluations keep there."
        ) from error


def report_sections(folder: RunFolder, data: Any = None) -> list[Section]:  # noqa: ANN401
    """Return the sections of the report, in order."""
    directions = directions_of(folder.results())
    diagnostics = diagnostics_in(folder)
    return [
        summary_section(folder),
        results_section(folder),
        curves_section(
            folder.metrics(), lambda metric: any(each.shows(metric) for each in diagnostics)
        ),
        *diagnostic_sections(folder, diagnostics),
        ranking_lists_section(folder, data or partial(evaluation_data, folder)),
        open_set_section(folder),
        embedding_map_section(folder, texts_are_queries=directions[0] == "text_to_image"),
        configuration_section(folder),
        provenance_section(folder),
    ]


def diagnostics_in(folder: RunFolder) -> list[Diagnostic]:
    """Return what the run's configuration names to observe it."""
    return [instantiate(node) for node in diagnostics_of(folder.runnable_config(["choices"]))]


def diagnostic_sections(folder: RunFolder, diagnostics: Iterable[Diagnostic]) -> list[Section]:
    """Return the sections of what observed the run.

    Needs neither the data set nor its images: what is shown was kept with the run.
    """
    sections = [each.section(folder) for each in diagnostics]
    return [section for section in sections if section is not None]


def run_report(path: Path, target: Path | None) -> int:
    """Write the report of the run in ``path`` and print where it is; return the exit status."""
    if target is not None:
        refuse_inside_data(RunFolder(path).runnable_config(()), target, "--out")
    folder = RunFolder(path)
    if gone := lost_parts(folder):
        print(f"note: {lost_in_words(folder, gone)}", file=sys.stderr)
    if (note := folder.note()) is not None:
        print(f"note: {note}", file=sys.stderr)
    print(f"Report: {write_report(folder, target=target)}")
    return 0

"""The files that a sweep leaves behind: its trials, its best one, and a page to look at."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from markupsafe import Markup

from crosswalk.files import write_text
from crosswalk.lab.sweeps.parallel_coordinates import parallel_coordinates
from crosswalk.lab.sweeps.parameters import short
from crosswalk.lab.sweeps.summary import (
    SweepSummary,
    best_command,
    importance_lines,
    notes_on,
    percent,
    states_of,
)
from crosswalk.lab.sweeps.trials import LocalSweep
from crosswalk.pages import Section, figure_tag, render_page, table_tag

SECONDS = (
    "Seconds are those of the run itself; the terminal's count the start of its process, too, and "
    "of a trial that went on only its last session."
)


def write_summary(sweep: LocalSweep, summary: SweepSummary) -> Path:
    """Write ``trials.json``, ``best.yaml`` and ``summary.html``; return the page."""
    folder = sweep.folder
    contents: dict[str, Any] = {
        "sweep": sweep.name,
        "metric": sweep.file.metric,
        "method": sweep.file.method,
        "seed": sweep.seed,
        "importances": summary.importances,
        "trials": [trial._asdict() for trial in summary.trials],
    }
    write_text(folder / "trials.json", json.dumps(contents, indent=2) + "\n")
    if summary.ranked:
        best = summary.ranked[0]
        chosen = {
            "trial": best.number,
            sweep.file.metric: best.value,
            "epoch": best.epoch,
            "folder": best.folder,
            "values": best.values,
            "overrides": sweep.trial_overrides(best.values),
            "command": best_command(sweep, best),
        }
        write_text(folder / "best.yaml", yaml.safe_dump(chosen, sort_keys=False, width=100))
    page = folder / "summary.html"
    write_text(page, as_page(sweep, summary))
    return page


def as_page(sweep: LocalSweep, summary: SweepSummary) -> str:
    """Return the summary as a page of its own."""
    names = list(sweep.file.parameters)
    metric = sweep.file.metric
    trials, ranked = summary.trials, summary.ranked
    others = [trial for trial in trials if trial.state != "ended"]
    rows = [
        [
            trial.number,
            trial.state,
            percent(trial.value),
            "-" if trial.epoch is None else trial.epoch,
            f"{trial.seconds:.0f}",
            *(short(value) for value in trial.values.values()),
        ]
        for trial in [*ranked, *others]
    ]
    table = table_tag(["trial", "state", f"{metric} (%)", "epoch", "seconds", *names], rows)
    best = Markup("<p>No trial has ended yet.</p>")
    if ranked:
        best = Markup("<p>{}</p><pre>{}</pre>").format(
            f"Trial {ranked[0].number}: {metric} {percent(ranked[0].value)} after epoch "
            f"{ranked[0].epoch}. {summary.ties}".rstrip(),
            best_command(sweep, ranked[0]),
        )
    for note in notes_on(sweep, summary):
        best += Markup("<p>{}</p>").format(note)
    line = importance_lines(summary)[0]
    share = table_tag(
        ["parameter", "importance"],
        [[name, f"{share:.0%}"] for name, share in summary.importances.items()],
    )
    figure = parallel_coordinates(sweep.file.parameters, trials, metric)
    what = f"Each line is a trial: its parameters and its {metric}"
    picture = Markup("<p>No trial has a value yet.</p>")
    if figure is not None:
        picture = figure_tag(figure, alt=what) + Markup(
            "<p>{}; the brighter, the better. Thin dashed lines were stopped early.</p>"
        ).format(what)
    errors = [
        Markup("<h3>Trial {}</h3><pre>{}</pre>").format(trial.number, trial.error)
        for trial in trials
        if trial.error
    ]
    sections = [
        Section("best", "Best", best),
        Section("picture", "Trials and their parameters", picture),
        Section(
            "importances",
            "Importances",
            Markup("<p>{}</p>").format(line.split(": ")[0]) + share
            if summary.importances
            else Markup("<p>{}</p>").format(line),
        ),
        Section(
            "trials",
            "All trials",
            Markup("<p>{} {}</p>").format(states_of(summary.trials), SECONDS) + table,
        ),
    ]
    if errors:
        sections.append(Section("failed", "Failed trials", Markup("").join(errors)))
    sections.append(
        Section("file", "Sweep file", Markup("<pre>{}</pre>").format(_file_text(sweep)))
    )
    subtitle = f"{sweep.file.method} search, {metric}, best over the epochs of a trial"
    return render_page(f"Sweep {sweep.name}", sections, subtitle=subtitle)


def _file_text(sweep: LocalSweep) -> str:
    further = f"\n# further overrides: {' '.join(sweep.overrides)}" if sweep.overrides else ""
    return f"{yaml.safe_dump(dict(sweep.file.contents), sort_keys=False)}{further}"

"""Pages about tables: what each paper published, what was obtained, and where it is kept."""

from __future__ import annotations

from pathlib import Path

from crosswalk.config.search import group_values
from crosswalk.lab.tables.kept import KeptResults, commit_of
from crosswalk.lab.tables.manifest import Manifest, metric_label, read_manifest
from crosswalk.lab.tables.words import percent, place_in_paper
from docs.tools.readme_tables import Options, kept_table, table_in_document


def manifests(experiments: Path, method: str) -> list[Manifest]:
    """Return all tables of a method in the order of their names."""
    return [read_manifest(path) for path in sorted((experiments / method).glob("*.yaml"))]


def kept_of(manifest: Manifest) -> list[tuple[str, Manifest, KeptResults]]:
    """Return what is kept of a table: its name, with the data, the table on these, its results."""
    folder, stem = manifest.path.parent, manifest.path.stem
    found = []
    for path in sorted((folder / "results").glob("*.json")):
        if path.stem.partition(".")[0] == stem:
            name = f"{folder.name}/{path.stem}"
            found.append((path.stem, *kept_table(folder.parent, name)))
    return found


def tables_of(experiments: Path, method: str) -> str:
    """Return the section of a method's page: each table as published, and as obtained."""
    if not manifests(experiments, method):
        return ""
    lines = ["## Its tables", ""]
    lines += [
        "Each is a file of `experiments/`, and `crosswalk ablate <file>` runs it. Numbers are "
        "percent.",
        "",
    ]
    for manifest in manifests(experiments, method):
        path = f"experiments/{method}/{manifest.path.stem}.yaml"
        kept = kept_of(manifest)
        state = f"run on {', '.join(each.data for _, each, _ in kept)}" if kept else "not run"
        body = [f"Source: {source(manifest)} File: [{path}](../../{path})", ""]
        if any(row.published for row in manifest.rows):
            body += [published(manifest), ""]
        for stem, moved, results in kept:
            metrics = tuple(each for each in ("rank1", "map") if each in moved.metrics)
            body += [
                f"Obtained on {moved.data} "
                f"([all of it](../../experiments/{method}/results/{stem}.md)):",
                "",
                table_in_document(moved, results, Options(metrics=metrics)),
                "",
            ]
        lines += [f'??? note "{manifest.title} ({state})"', ""]
        lines += [
            f"    {line}" if line else "" for text in body for line in text.splitlines() or [""]
        ]
    return "\n".join(lines)


def source(manifest: Manifest) -> str:
    """Return where the published numbers are from, and whether they were seen there."""
    said = manifest.source
    seen = "seen in the paper" if said["verified"] else "not checked against the paper"
    note = f" {said['note']}" if said.get("note") else ""
    return f"{place_in_paper(said)}; {seen}.{note}"


def published(manifest: Manifest) -> str:
    """Return the published numbers as a table in Markdown."""
    rows = [(row.name, row.published) for row in manifest.rows]
    rows += [(f"*{each.name}*", each.published) for each in manifest.references]
    header = ["row", *map(metric_label, manifest.metrics)]
    lines = ["| " + " | ".join(header) + " |", "|---|" + "---:|" * len(manifest.metrics)]
    for name, numbers in rows:
        cells = [percent(each) for each in numbers or [None] * len(manifest.metrics)]
        lines.append("| " + " | ".join([name.replace("|", "\\|"), *cells]) + " |")
    return "\n".join(lines)


def results_page(experiments: Path) -> str:
    """Return the page that lists every table, what it was run on, and at which commits."""
    lines = [
        "# Results",
        "",
        "Every table that was run, from the files that keep it. Numbers of papers stand beside "
        "ours, and are not reached: no table was run on the paper's own data. "
        "[What they show, and what they do not](../experiments/README.md).",
        "",
    ]
    missing = []
    for method in group_values("method"):
        rows = []
        for manifest in manifests(experiments, method):
            kept = kept_of(manifest)
            for stem, moved, results in kept:
                commits = ", ".join(sorted({commit_of(run) for run in results.runs}))
                link = f"[{manifest.title}](../experiments/{method}/results/{stem}.md)"
                rows.append(f"| {link} | {moved.data} | {len(results.runs)} | {commits} |")
            if not kept:
                path = f"experiments/{method}/{manifest.path.stem}.yaml"
                missing.append(f"- {method}: [{manifest.title}](../{path})")
        if rows:
            lines += [f"## {method}", "", "| table | data | runs | commit |", "|---|---|---:|---|"]
            lines += [*rows, ""]
    return "\n".join([*lines, "## Not run", "", *missing, ""])

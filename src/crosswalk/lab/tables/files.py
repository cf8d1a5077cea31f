"""The files of a table: written anew after every run, each whole or not at all."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from crosswalk.files import write_arrays, write_text
from crosswalk.lab.tables.collect import Collector
from crosswalk.lab.tables.document import render_markdown
from crosswalk.lab.tables.page import render_html
from crosswalk.lab.tables.terminal import verdict_json
from crosswalk.lab.tables.verdict import Verdict, judge


@dataclass(frozen=True)
class TableFiles:
    """The table of a plan as its finished runs have it, and the files that say so.

    Args:
        collector: Of the runs.
    """

    collector: Collector

    @property
    def path(self) -> Path:
        """Where the table is written as JSON; the others have its name and their own ending."""
        plan = self.collector.plan
        return plan.pool.path / "tables" / f"{plan.manifest.name}.json"

    def judged(self) -> Verdict:
        """Return what the finished runs say."""
        plan = self.collector.plan
        return judge(
            plan.manifest, self.collector.results(), self.collector.queries(), code=plan.codes()
        )

    def write(self) -> Verdict:
        """Write the table: JSON, queries in ``.queries.npz``, Markdown and a page; return it."""
        verdict = self.judged()
        self._write(self.path, verdict)
        write_text(self.path.with_suffix(".html"), render_html(verdict))
        return verdict

    def save(self) -> list[Path]:
        """Keep the table beside its manifest and return the files: JSON, queries and Markdown.

        Raises:
            ValueError: If there is nothing to keep.
        """
        verdict = self.judged()
        if not verdict.runs:
            raise ValueError(
                "--save: no run of this table is finished, so there is nothing to keep"
            )
        path = self.collector.plan.manifest.committed_path
        self._write(path, verdict)
        return [path, path.with_suffix(".queries.npz"), path.with_suffix(".md")]

    def _write(self, path: Path, verdict: Verdict) -> None:
        plan = self.collector.plan
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {
            "title": plan.manifest.title,
            "manifest": verdict.table,
            "data": plan.manifest.data,
            "overrides": list(plan.manifest.overrides),
            "code": plan.codes(),
            "runs": self.collector.results(),
            "verdict": verdict_json(verdict),
        }
        write_arrays(path.with_suffix(".queries.npz"), self.collector.queries())
        write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        write_text(path.with_suffix(".md"), render_markdown(verdict))

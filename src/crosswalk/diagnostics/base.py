"""What observes runs: hooks of a training, and a section of the report.

Reports of finished runs import it, and need neither torch nor Lightning: files of this room import
them within the hooks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from crosswalk.diagnostics.figures import Curves, curve_figures, side_by_side
from crosswalk.pages import Section
from crosswalk.run.run_folder import RunFolder


class Diagnostic:
    """Watches a run of a method that lists it under ``diagnostics:``, and shows what it saw.

    A hook is a method with the name and the arguments of one of Lightning's callbacks. They run
    after the sweep, the memories and the retrieval metrics of the same moment, and before a
    checkpoint. It only looks: no number of a run depends on it. What it wants to show later it
    logs as a metric, or writes as a small file (`record_file`).
    """

    at_test: ClassVar[bool] = False
    """Whether `crosswalk evaluate` listens to it too."""

    folder: Path
    data: Any

    def watch(self, folder: Path, data: Any) -> None:  # noqa: ANN401
        """Take the folder of the run and its data module, before the first hook."""
        self.folder = folder
        self.data = data

    def shows(self, metric: str) -> bool:
        """Return whether the section has a curve of a logged metric: it is drawn nowhere else."""
        return False

    def section(self, folder: RunFolder) -> Section | None:
        """Return what the report of a run shows; None where the run left nothing to show."""
        raise NotImplementedError(f"{type(self).__name__} does not define section()")


class LoggedCurves(Diagnostic):
    """Shows metrics that the method logs by itself."""

    anchor: ClassVar[str]
    title: ClassVar[str]
    curves: ClassVar[tuple[Curves, ...]]

    def shows(self, metric: str) -> bool:
        """Return whether it is in one of ``curves``."""
        return any(metric in curves.lines for curves in self.curves)

    def section(self, folder: RunFolder) -> Section | None:
        """Return a panel for each of ``curves`` of which anything was logged."""
        figures = curve_figures(folder.metrics(), self.curves)
        return Section(self.anchor, self.title, side_by_side(figures)) if figures else None


def record_file(folder: Path, name: str) -> Path:
    """Return the file of arrays called ``name`` that a diagnostic keeps of the run in ``folder``.

    Example:
        >>> record_file(Path("runs/rde-toy"), "division-last").as_posix()
        'runs/rde-toy/diagnostics/division-last.npz'
    """
    return folder / "diagnostics" / f"{name}.npz"

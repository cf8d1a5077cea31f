"""How far a run is, from the last line of its metrics."""

from __future__ import annotations

from typing import NamedTuple

from crosswalk.run.run_folder import RunFolder


class Position(NamedTuple):
    """How far a run is: epochs that ended, of how many, and the last step that was logged."""

    epoch: int
    epochs: int
    step: int | None

    @property
    def fraction(self) -> float:
        """Share of the epochs that is done, in [0, 1]."""
        return min(1.0, self.epoch / self.epochs)


def position(folder: RunFolder, epochs: int) -> Position:
    """Return how far a run is, from the last line of its metrics.

    Args:
        folder: The run.
        epochs: Epochs it trains; >= 1.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> folder = RunFolder(Path(tempfile.mkdtemp()))
        >>> position(folder, 3)
        Position(epoch=0, epochs=3, step=None)
        >>> _ = folder.metrics_file.write_text('{"step": 9, "epoch": 1}' + chr(10) + '{"st')
        >>> position(folder, 3)
        Position(epoch=1, epochs=3, step=9)
    """
    line = folder.latest_metrics()
    if line is None:
        return Position(0, epochs, None)
    ended = any(name.startswith("val/") for name in line)  # logged when its epoch has ended
    return Position(int(line.get("epoch") or 0) + ended, epochs, line.get("step"))

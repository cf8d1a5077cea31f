"""What only looks at a run, among the callbacks of a Trainer."""

from __future__ import annotations

import inspect
from typing import Any

import lightning.pytorch as L

HOOKS = [
    name
    for name, _ in inspect.getmembers(L.Callback, inspect.isfunction)
    if not name.startswith("_")
]
"""What a Trainer calls."""


class Observer(L.Callback):
    """Hands on to a diagnostic what a Trainer tells its callbacks, as far as it has hooks for it.

    Diagnostics are no callbacks themselves: so the report of a finished run shows their sections
    without importing Lightning.

    Args:
        diagnostic: A `crosswalk.diagnostics.base.Diagnostic`.
    """

    def __init__(self, diagnostic: Any) -> None:  # noqa: ANN401 - of a room above
        self.diagnostic = diagnostic
        for name in HOOKS:
            if hasattr(diagnostic, name):
                setattr(self, name, getattr(diagnostic, name))

    @property
    def state_key(self) -> str:
        """Under which a checkpoint holds the state of the diagnostic."""
        return type(self.diagnostic).__qualname__

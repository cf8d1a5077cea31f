"""The tables that synthetic people, their places and their captions are drawn from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml


def table(name: str) -> Any:  # noqa: ANN401
    """Return what ``<name>.yaml`` beside this module holds.

    Example:
        >>> table("people")["rgb"]["black"]
        [26, 26, 30]
    """
    return yaml.safe_load(Path(__file__).with_name(f"{name}.yaml").read_text(encoding="utf-8"))

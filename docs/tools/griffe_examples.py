"""Lets the site show ``Example:`` of a docstring as an example, as it does ``Examples:``."""

from __future__ import annotations

import re

import griffe


class ExampleSections(griffe.Extension):
    """Renames the sections while sources are read."""

    def on_object(self, *, obj: griffe.Object, **_: object) -> None:
        """Rename those of one object."""
        if obj.docstring is not None:
            said = obj.docstring.value
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", said, flags=re.MULTILINE)

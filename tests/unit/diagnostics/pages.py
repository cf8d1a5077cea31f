"""Run folders made by hand, and what is read from the sections that are made of them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from crosswalk.diagnostics.base import Diagnostic
from crosswalk.pages import Section
from crosswalk.run.run_folder import RunFolder


def folder_with(
    path: Path, history: list[dict[str, Any]], config: dict[str, Any] | None = None
) -> RunFolder:
    folder = RunFolder(path)
    folder.save_config(config or {"method": {}})
    lines = [{"step": 0, **line} for line in history]
    folder.metrics_file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def section_of(diagnostic: Diagnostic, folder: RunFolder) -> Section:
    section = diagnostic.section(folder)
    assert section is not None
    return section


def cells(section: Section) -> list[list[str]]:
    """Return the rows of the section's table, headings ahead."""
    rows = re.findall(r"<tr>(.*?)</tr>", section.body)
    return [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in rows]


def titles(section: Section) -> list[str]:
    return re.findall(r'aria-label="([^"]*)"', section.body)

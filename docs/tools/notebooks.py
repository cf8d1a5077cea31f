"""Executes the notebooks of ``examples/`` and keeps their outputs: ``make notebooks``."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from PIL import Image

FOLDER = Path("examples")
LONGEST = 3600
"""Seconds that a cell may take."""

COLOURS = 64
"""Of a picture that is kept."""


def executed(file: Path, settings: Mapping[str, str] | None = None) -> NotebookNode:
    """Return a notebook with its outputs.

    Args:
        file: The notebook.
        settings: Texts by the name of a variable, set behind the cell tagged ``parameters``.

    Raises:
        nbclient.exceptions.CellExecutionError: If a cell fails.
        ValueError: If there are settings, and no cell or more than one is tagged so.
    """
    notebook: NotebookNode = nbformat.read(file, as_version=4)
    if settings:
        tagged = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", ())]
        if len(tagged) != 1:
            raise ValueError(f"{file} has {len(tagged)} cells tagged 'parameters'; tag one.")
        lines = "".join(f"\n{name} = {value!r}" for name, value in settings.items())
        tagged[0].source += lines
    with TemporaryDirectory() as folder:  # where a cell writes without saying where
        place = {"metadata": {"path": folder}}
        client = NotebookClient(notebook, timeout=LONGEST, kernel_name="python3", resources=place)
        client.execute()
    # what a place is called on this machine is nobody else's business
    notebook = nbformat.reads(nbformat.writes(notebook).replace(f"{folder}/", ""), as_version=4)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # when it ran
    return notebook


def tidied(notebook: NotebookNode) -> NotebookNode:
    """Return an executed notebook without lines of progress, with its pictures in few colours."""
    for cell in notebook.cells:
        outputs = cell.get("outputs", [])
        cell.outputs = [each for each in outputs if each.get("name") != "stderr"]
        if cell.cell_type != "code":
            del cell["outputs"]
        for output in outputs:
            if content := output.get("data", {}).get("image/png"):
                output.data["image/png"] = smaller(content)
    return notebook


def smaller(content: str) -> str:
    """Return a picture, PNG in base64, with at most `COLOURS` colours.

    Example:
        >>> file = io.BytesIO()
        >>> Image.effect_noise((9, 17), 90).convert("RGB").save(file, "png")
        >>> kept = smaller(base64.b64encode(file.getvalue()).decode())
        >>> Image.open(io.BytesIO(base64.b64decode(kept))).size
        (9, 17)
    """
    file = io.BytesIO()
    picture = Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB")
    picture.quantize(COLOURS).save(file, "png", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


if __name__ == "__main__":
    for path in sorted(FOLDER.glob("*.ipynb")):
        nbformat.write(tidied(executed(path)), path)
        print(f"wrote {path}")

"""Tables of what was measured, made from the files that benchmarks write, so that none is typed.

A document says where they belong::

    <!-- benchmarks: bench.json -->
    <!-- /benchmarks -->

and ``make tables`` fills in what stands between, from ``benchmarks/results``.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

DOCUMENT = "benchmarks/README.md"
BLOCK = re.compile(
    r"^<!-- benchmarks: (?P<file>\S+) -->\n(?:.*?\n)?<!-- /benchmarks -->$",
    re.DOTALL | re.MULTILINE,
)


def number(value: float | None, unit: str = "") -> str:
    """Return a number with as many digits as mean something, and its unit.

    Example:
        >>> number(0.04567, "s"), number(1234.5, "MB"), number(17.26), number(None)
        ('0.046 s', '1,234 MB', '17.3', '')
    """
    if value is None:
        return ""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else None
    text = f"{value:,.{digits}f}" if digits is not None else f"{value:.2g}"
    return f"{text} {unit}".strip()


def aim(row: Mapping[str, Any]) -> str:
    """Return the aim of a row, and how it was judged.

    Example:
        >>> aim({"at_least": 25, "at_most": None, "ratio": 30.0, "met": True, "unit": "s"})
        'at least 25x: met'
        >>> aim({"at_least": None, "at_most": 0.5, "ratio": None, "met": False, "unit": "CPU s"})
        'at most 0.5 CPU s: missed'
    """
    if row["met"] is None:
        return ""
    which, value = (
        ("least", row["at_least"]) if row["at_least"] is not None else ("most", row["at_most"])
    )
    bound = f"{value:g}x" if row["ratio"] is not None else f"{value:g} {row['unit']}".strip()
    return f"at {which} {bound}: {'met' if row['met'] else 'missed'}"


def rows_in_markdown(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the lines of a table; a ratio is the other way over ours unless its aim is a most."""
    lines = [
        "| what | against | other way | ours | ratio | aim | |",
        "|---|---|---:|---:|---:|---|---|",
    ]
    for row in rows:
        ratio = "" if row["ratio"] is None else f"{number(row['ratio'])}x"
        cells = [
            *(row["name"], row["against"], number(row["baseline"], row["unit"])),
            *(number(row["ours"], row["unit"]), ratio, aim(row), row["note"]),
        ]
        lines.append(f"| {' | '.join(str(cell).replace('|', '/') for cell in cells)} |")
    return lines


def machine(results: Mapping[str, Any]) -> str:
    """Return a sentence about where, when and of which commit results are."""
    facts = results["machine"]
    loads = [each["load_before"] for each in results["scripts"].values()]
    versions = ", ".join(
        f"{name} {facts['versions'][name]}"
        for name in ("torch", "numpy", "numba", "faiss-gpu", "faiss-cpu")
        if name in facts["versions"]
    )
    unfinished = "" if results["finished"] else " It was not finished."
    if results["quick"]:
        unfinished += " Of small sizes, to see that everything runs, so that nothing was measured."
    where = ", ".join(filter(None, [facts.get("device"), facts["processor"]]))
    return (
        f"*One run of {results['begun'][:10]}, {results['seconds'] / 60:.0f} minutes, on "
        f"{where}, {facts['cores']} cores, {facts['memory_gb']} GB; Python "
        f"{facts['versions']['python']}, {versions}; commit {results['commit'][:7]}"
        f"{' with changes' if results['changed'] else ''}. Processes that wanted a core before "
        f"the scripts began (load): {min(loads):.1f} to {max(loads):.1f}.{unfinished}*"
    )


def table(results: Mapping[str, Any]) -> str:
    """Return the tables of a file of results, script by script, and where they are from.

    Of a run of small sizes nothing is shown.
    """
    lines = [machine(results)]
    for script in () if results["quick"] else results["scripts"]:
        rows = [row for row in results["rows"] if row["script"] == script]
        if rows:
            name = f"`{script}.py`" if "arguments" in results["scripts"][script] else script
            lines += ["", name[0].upper() + name[1:], "", *rows_in_markdown(rows)]
    return "\n".join(lines)


def rewrite(text: str, folder: Path) -> str:
    """Return a document with its tables as the files below ``folder`` are now.

    Raises:
        ValueError: If a marker is not closed.
        FileNotFoundError: If there is no such file.
    """

    def filled(block: re.Match[str]) -> str:
        results = json.loads((folder / block["file"]).read_text(encoding="utf-8"))
        begin = f"<!-- benchmarks: {block['file']} -->"
        return f"{begin}\n{table(results)}\n<!-- /benchmarks -->"

    marks = len(re.findall(r"^<!-- /?benchmarks", text, re.MULTILINE))
    if marks != 2 * len(BLOCK.findall(text)):
        raise ValueError(
            f"{DOCUMENT} has {marks} marks of tables that do not pair. Write a line "
            "<!-- benchmarks: <file> --> and a line <!-- /benchmarks -->."
        )
    return BLOCK.sub(filled, text)


def wanted_document(root: Path) -> tuple[Path, str]:
    """Return the document, and what it should hold."""
    path = root / DOCUMENT
    return path, rewrite(path.read_text(encoding="utf-8"), root / "benchmarks" / "results")


def main() -> int:
    """Rewrite the document if it is not current, and return the exit status."""
    path, text = wanted_document(Path(__file__).parents[2])
    if path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")
        print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

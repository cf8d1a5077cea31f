"""Tables of what was measured, made from the files that benchmarks write, so that none is typed.

A document says where they belong::

    <!-- benchmarks: bench.json -->
    <!-- /benchmarks -->

and ``make tables`` fills in what stands between, from ``benchmarks/results``. Beside
``<!-- growth: growth.json -->`` and ``<!-- /growth -->`` it writes what was measured at growing
sizes under one name.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

DOCUMENTS = ("benchmarks/README.md", "docs/growth.md", "docs/scale.md")
BLOCK = re.compile(
    r"^<!-- (?P<kind>benchmarks|growth): (?P<file>\S+) -->\n(?:.*?\n)?<!-- /(?P=kind) -->$",
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
    for name, each in results["scripts"].items():
        if "commit" in each:
            unfinished += f" `{name}.py` was run again at commit {each['commit'][:7]}."
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
    if "per_step" in results:
        return "\n".join(traffic_in_markdown(results))
    if "full_size" in results:
        return "\n".join(full_size_in_markdown(results))
    lines = [machine(results)]
    for script in () if results["quick"] else results["scripts"]:
        rows = [row for row in results["rows"] if row["script"] == script and not row.get("items")]
        if rows:
            name = f"`{script}.py`" if "arguments" in results["scripts"][script] else script
            lines += ["", name[0].upper() + name[1:], "", *rows_in_markdown(rows)]
    return "\n".join(lines)


def sent(rows: Mapping[str, Mapping[str, float]], num_processes: int) -> float:
    """Return the bytes that a process sends a step, by rings, on any number of processes.

    What is summed has one size on all. Of what is gathered a process has ``a / n + c`` bytes: its
    share of the batch, and what is one to a process; both follow from two and four processes.

    Args:
        rows: Of ``processes.py``, by number of processes; those of "2" and "4".
        num_processes: For which it is computed.

    Example:
        >>> of_two = {"gradients": 800, "reduced": 200, "gathered": 60, "other": 0}
        >>> rows = {"2": of_two, "4": {**of_two, "gathered": 35}}
        >>> [sent(rows, number) for number in (2, 4, 8)]
        [1060.0, 1605.0, 1907.5]
    """
    two, four = rows["2"], rows["4"]
    of_batch = 4 * (two["gathered"] - four["gathered"])
    of_each = two["gathered"] - of_batch / 2
    passed_on = (num_processes - 1) * (of_batch / num_processes + of_each)
    summed = 2 * (num_processes - 1) / num_processes * (two["gradients"] + two["reduced"])
    return summed + passed_on + two["other"]


def traffic_in_markdown(results: Mapping[str, Any]) -> list[str]:
    """Return the lines of two tables: a step's traffic, and what published sizes hold and send."""
    facts = results["machine"]
    lines = [
        f"*Measured on {facts['processor']}, {facts['cores']} cores shared with other programs; "
        f"Python {facts['versions']['python']}, torch {facts['versions']['torch']}.*",
        "",
        "| method | collectives | gradients, kB | sums, kB | gathered, kB: of 2 | of 4 "
        "| sent, kB: of 2 | of 4 | *of 8* | *of 64* | CPU ms: of 1 | of 2 | of 4 |",
        "|---|" + "---:|" * 12,
    ]
    for method, rows in results["per_step"].items():
        two, four = rows["2"], rows["4"]
        kilobytes = [two["gradients"], two["reduced"], two["gathered"], four["gathered"]]
        kilobytes += [two["sent"], four["sent"]]
        cells = [number(value / 1e3) for value in kilobytes]
        cells += [f"*{number(sent(rows, many) / 1e3)}*" for many in (8, 64)]
        cells += [number(1e3 * rows[many]["cpu"]) for many in ("1", "2", "4")]
        lines.append(f"| {method} | {two['collectives']:.0f} | {' | '.join(cells)} |")
    lines += [
        "",
        "| method | weights, MB | gradients | optimizer | memories | held by each, MB "
        "| *sent by each of 8, MB* | *of 64* |",
        "|---|" + "---:|" * 7,
    ]
    for method, held in results["published"].items():
        sizes = [held[name] for name in ("weights", "trainable", "optimizer", "buffers")]
        ring = [2 * (many - 1) / many * held["trainable"] for many in (8, 64)]
        cells = [number(value / 1e6) for value in [*sizes, sum(sizes)]]
        cells += [f"*{number(value / 1e6)}*" for value in ring]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return lines


def full_size_in_markdown(results: Mapping[str, Any]) -> list[str]:
    """Return the lines of a table: steps of published recipes on one process and on two."""
    facts = results["machine"]
    lines = [
        f"*Measured on {facts['processor']}, {facts['cores']} cores; Python "
        f"{facts['versions']['python']}, torch {facts['versions']['torch']}; commit "
        f"{results['commit'][:7]}{' with changes' if results['changed'] else ''}.*",
        "",
        "| method | s a step: of 1 | of 2 | ratio | CPU s: of 1 | of 2 | ratio | collectives "
        "| MB a step |",
        "|---|" + "---:|" * 8,
    ]
    for method, rows in results["full_size"].items():
        one, two = rows["1"], rows["2"]
        cells = [number(one["seconds"]), number(two["seconds"]), f"{number(two['ratio'])}x"]
        cells += [number(one["cpu"]), number(two["cpu"]), f"{number(two['cpu_ratio'])}x"]
        cells += [f"{two['collectives']:.0f}", number(two["bytes"] / 1e6)]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return lines


def growth_table(results: Mapping[str, Any]) -> str:
    """Return a table of what was measured at growing sizes, and where it is from.

    A line for each name: its cost at each size; the last is by arithmetic, which its note tells.
    """
    series: dict[str, dict[int, Mapping[str, Any]]] = {}
    for row in results["rows"]:
        if row.get("items"):
            series.setdefault(row["name"], {})[row["items"]] = row
    sizes = sorted({size for rows in series.values() for size in rows})
    ended = {each["exit"] for each in results["scripts"].values()}
    lines = [
        machine({**results, "finished": ended == {0}}),
        "",
        f"| | {' | '.join(f'{size:,}' for size in sizes)} | |",
        f"|---|{'---:|' * len(sizes)}---|",
    ]
    for name, rows in series.items():
        costs = [number(rows[size]["ours"], rows[size]["unit"]) for size in sizes]
        lines.append(f"| {' | '.join([name, *costs, rows[sizes[-1]]['note']])} |")
    return "\n".join(lines)


def rewrite(text: str, folder: Path) -> str:
    """Return a document with its tables as the files below ``folder`` are now.

    Raises:
        ValueError: If a marker is not closed.
        FileNotFoundError: If there is no such file.
    """

    def filled(block: re.Match[str]) -> str:
        results = json.loads((folder / block["file"]).read_text(encoding="utf-8"))
        kind = block["kind"]
        filling = {"benchmarks": table, "growth": growth_table}[kind](results)
        return f"<!-- {kind}: {block['file']} -->\n{filling}\n<!-- /{kind} -->"

    marks = len(re.findall(r"^<!-- /?(?:benchmarks|growth)", text, re.MULTILINE))
    if marks != 2 * len(BLOCK.findall(text)):
        raise ValueError(
            f"a document has {marks} marks of tables that do not pair. Write a line "
            "<!-- benchmarks: <file> --> and a line <!-- /benchmarks -->, or with growth both."
        )
    return BLOCK.sub(filled, text)


def wanted_documents(root: Path) -> dict[Path, str]:
    """Return what each document should hold."""
    results = root / "benchmarks" / "results"
    paths = [root / name for name in DOCUMENTS]
    return {path: rewrite(path.read_text(encoding="utf-8"), results) for path in paths}


def main() -> int:
    """Rewrite the documents that are not current, and return the exit status."""
    for path, text in wanted_documents(Path(__file__).parents[2]).items():
        if path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Tables inside documents, made from the results that are kept, so that no number is copied.

A document says where a table belongs and what it shows::

    <!-- table: mmcl/components_synthetic {metrics: [rank1, map], rows: [direct transfer, MMCL]} -->
    <!-- /table -->

and ``python -m crosswalk.lab.tables.readme_tables`` (``make tables``) fills in what stands between.
The options are those of `crosswalk.lab.tables.document_tables.Options`.
"""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

from crosswalk.lab.tables.document_tables import read_options, table_in_document
from crosswalk.lab.tables.manifest import Manifest, read_manifest
from crosswalk.lab.tables.table import KeptResults, read_results, render_markdown
from crosswalk.lab.tables.verdict import judge

DOCUMENTS = ("README.md", "experiments/README.md")
BLOCK = re.compile(
    r"^<!-- table: (?P<table>\S+)\s*(?P<options>\{.*?\})? -->\n.*?^<!-- /table -->$",
    re.DOTALL | re.MULTILINE,
)


def kept_table(experiments: Path, name: str) -> tuple[Manifest, KeptResults]:
    """Return a table on the data it was run on, and what is kept of it.

    Args:
        experiments: The folder of all tables.
        name: ``<method>/<table>``, with ``.<data>`` behind it on other than its own data.

    Raises:
        FileNotFoundError: If there is no such table, or nothing of it was kept.
    """
    method, _, stem = name.partition("/")
    table, _, data = stem.partition(".")
    manifest = read_manifest(experiments / method / f"{table}.yaml")
    if data:
        manifest = manifest.with_data(data)
    kept = read_results(experiments / method / "results" / f"{stem}.json")
    return replace(manifest, base=(*manifest.base, *kept.overrides)), kept


def rewrite(text: str, experiments: Path, *, place: str) -> str:
    """Return a document with all its tables as the kept results are now.

    Args:
        text: The document.
        experiments: The folder of all tables.
        place: Its name, for messages.

    Raises:
        FileNotFoundError: If a table does not exist or nothing of it was kept.
        ValueError: If a marker is not closed, or an option is wrong.
    """

    def filled(block: re.Match[str]) -> str:
        name = block["table"]
        options = read_options(block["options"], f"{place}, table {name}")
        begin = block[0][: block[0].index("-->") + 3]
        content = table_in_document(*kept_table(experiments, name), options)
        return f"{begin}\n{content}\n<!-- /table -->"

    marks, ends, blocks = (
        len(re.findall(r"^<!-- table:", text, re.MULTILINE)),
        len(re.findall(r"^<!-- /table -->$", text, re.MULTILINE)),
        len(BLOCK.findall(text)),
    )
    if not marks == ends == blocks:
        raise ValueError(
            f"{place} opens {marks} tables and closes {ends}, of which {blocks} can be read. Write "
            "a line <!-- table: <method>/<table> {options} --> and a line <!-- /table -->."
        )
    return BLOCK.sub(filled, text)


def own_program(results: Path) -> Path:
    """Return the program that makes this Markdown file instead of `render_markdown`, if it exists.

    Args:
        results: ``experiments/<method>/results/<table>.md``.

    Example:
        >>> own_program(Path("experiments/rde/results/table2.md")).as_posix()
        'experiments/rde/table2.py'
    """
    return results.parents[1] / f"{results.stem}.py"


def wanted_files(root: Path) -> dict[Path, str]:
    """Return what every generated file and every document with tables should hold.

    Args:
        root: Folder of the repository.
    """
    experiments = root / "experiments"
    files = {}
    for path in sorted(experiments.glob("*/results/*.json")):
        target = path.with_suffix(".md")
        if not own_program(target).exists():
            manifest, kept = kept_table(experiments, f"{path.parents[1].name}/{path.stem}")
            verdict = judge(manifest, kept.runs, kept.queries, overrides=kept.overrides)
            files[target] = render_markdown(verdict)
    for name in DOCUMENTS:
        path = root / name
        files[path] = rewrite(path.read_text(encoding="utf-8"), experiments, place=name)
    return files


def main(arguments: list[str]) -> int:
    """Rewrite what is not current, and return the exit status."""
    root = Path(arguments[0]) if arguments else Path.cwd()
    for path, content in wanted_files(root).items():
        if not path.is_file() or path.read_text(encoding="utf-8") != content:
            path.write_text(content, encoding="utf-8")
            print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

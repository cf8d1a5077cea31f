"""What mkdocs builds the site from beside the files of ``docs/``: a hook of ``mkdocs.yml``.

The reference, the results and the ends of method pages are generated. Files of the repository that
a page links to, such as a table or a program, become pages too, so that no link leaves the site for
a place that only a clone has. Notebooks are shown with the outputs that they hold.
"""

from __future__ import annotations

import ast
import base64
import contextlib
import io
import json
import os
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"(!?\[[^\]]*\]\()([^)\s]+)(\))")
FENCE = re.compile(r"^( *)(```|~~~)")
EXCERPT = re.compile(r"^<!-- code: (?P<file>\S+) (?P<name>\S+) -->$", re.MULTILINE)
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
LANGUAGES = {".py": "python", ".yaml": "yaml", ".toml": "toml", ".csv": "text", "": "text"}
"""Kinds of files that become pages with their text."""

FIRST_OF_FOLDER = {
    "docs/decisions": "docs/decisions/index.md",
    "docs/methods": "docs/methods/index.md",
    "docs": "docs/index.md",
    "": "docs/index.md",
}


def place(path: str) -> str:
    """Return the page of a file of the repository, as mkdocs names its source.

    Example:
        >>> place("docs/gallery.md"), place("experiments/rde/table2.yaml")
        ('gallery.md', 'experiments/rde/table2.yaml.md')
        >>> place("examples/a.ipynb"), place("README.md"), place("docs/pictures/page.png")
        ('examples/a.md', 'index.md', 'pictures/page.png')
    """
    if path == "README.md":
        return "index.md"
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if path.endswith(".ipynb"):
        return path.removesuffix(".ipynb") + ".md"
    if path.endswith(".md") or posixpath.splitext(path)[1] not in LANGUAGES:
        return path
    return f"{path}.md"


def outside_fences(text: str) -> Iterator[tuple[str, bool]]:
    r"""Yield each line, with whether it is text rather than code.

    Example:
        >>> [is_text for _, is_text in outside_fences("a\n```\nb\n```\nc")]
        [True, False, False, False, True]
    """
    fence = ""
    for line in text.split("\n"):
        found = FENCE.match(line)
        if found and not fence:
            fence = found[2]
            yield line, False
        elif found and found[2] == fence:
            fence = ""
            yield line, False
        else:
            yield line, not fence


def links(text: str) -> list[str]:
    """Return the targets of a page's links and pictures, without those in code.

    Example:
        >>> links("[a](b.md#c) `[d](e)` ![f](g.png)")
        ['b.md#c', 'g.png']
    """
    lines = (re.sub(r"`[^`]*`", "", line) for line, is_text in outside_fences(text) if is_text)
    return [found[2] for found in LINK.finditer("\n".join(lines))]


def target_of(link: str, page: str) -> str | None:
    """Return the file of the repository that a link of a file leads to; None: elsewhere.

    Example:
        >>> target_of("../experiments/README.md#limits", "docs/faq.md")
        'experiments/README.md'
        >>> target_of("#below", "docs/faq.md") is None
        True
    """
    name = link.partition("#")[0]
    if not name or re.match(r"\w+:", name):
        return None
    target = posixpath.normpath(posixpath.join(posixpath.dirname(page), name))
    for folder in (target, "" if target == "." else target):
        if folder in FIRST_OF_FOLDER:
            return FIRST_OF_FOLDER[folder]
    if (ROOT / target).is_dir():
        return f"{target}/README.md"
    return target


def moved_links(text: str, page: str) -> str:
    """Return a page whose links lead to the pages of the site.

    Example:
        >>> moved_links("[a](../experiments/README.md#limits)", "docs/faq.md")
        '[a](experiments/README.md#limits)'
        >>> moved_links("[a](../../docs/faq.md)", "experiments/rde/notes.md")
        '[a](../../faq.md)'
    """
    own = posixpath.dirname(place(page))

    def moved(found: re.Match[str]) -> str:
        target = target_of(found[2], page)
        if target is None:
            return found[0]
        anchor = found[2][len(found[2].partition("#")[0]) :]
        return f"{found[1]}{posixpath.relpath(place(target), own or '.')}{anchor}{found[3]}"

    return "\n".join(
        LINK.sub(moved, line) if is_text else line for line, is_text in outside_fences(text)
    )


def excerpt(file: str, name: str) -> str:
    r"""Return a class or function of a source file, or a whole other file, as a block of code.

    Example:
        >>> excerpt("src/crosswalk/losses/pair_losses.py", "weighted_sum").split("(")[0]
        '```python\ndef weighted_sum'
    """
    text = (ROOT / file).read_text(encoding="utf-8")
    if name != "all":
        nodes: Iterable[ast.stmt] = ast.parse(text).body
        for part in name.split("."):
            found = next(each for each in nodes if getattr(each, "name", None) == part)
            nodes = getattr(found, "body", ())
        start = min([found.lineno, *(each.lineno for each in getattr(found, "decorator_list", ()))])
        lines = text.splitlines()[start - 1 : found.end_lineno]
        indent = len(lines[0]) - len(lines[0].lstrip())
        text = "\n".join(line[indent:] for line in lines)
    return f"```{LANGUAGES[posixpath.splitext(file)[1]]}\n{text.rstrip()}\n```"


def with_excerpts(text: str) -> str:
    """Return a page with the code that its marks ``<!-- code: file name -->`` name.

    Raises:
        FileNotFoundError: If there is no such file.
        StopIteration: If it has no such class or function.
    """
    return EXCERPT.sub(lambda found: excerpt(found["file"], found["name"]), text)


def notebook_page(path: Path, picture: Callable[[str, bytes], str]) -> str:
    """Return a notebook as Markdown, with the outputs that it holds.

    Args:
        path: The notebook.
        picture: Keeps a picture by its name, and returns the link to it.
    """
    parts = []
    pictures = 0
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] != "code":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        said = ""
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if "image/png" in data:
                pictures += 1
                content = base64.b64decode("".join(data["image/png"]))
                parts.append(f"![Output]({picture(f'{path.stem}-{pictures}.png', content)})")
            else:
                said += "".join(output.get("text", data.get("text/plain", "")))
        if said := COLOUR.sub("", said).strip("\n"):
            parts.append(f"```text\n{said}\n```")
    return "\n\n".join(parts)


def file_page(path: str) -> str:
    """Return a file that is no page as one."""
    return f"---\nsearch:\n  exclude: true\n---\n# {path}\n\n{excerpt(path, 'all')}\n"


def decisions_page() -> str:
    """Return the list of decisions."""
    rows = [
        f"- [{_title(path)}]({path.name})"
        for path in sorted((ROOT / "docs/decisions").glob("0*.md"))
    ]
    return "\n".join(["# Decisions", "", "Why things are as they are.", "", *rows, ""])


def _title(path: Path) -> str:
    return path.read_text(encoding="utf-8").split("\n", 1)[0].lstrip("# ")


def commands_page() -> str:
    """Return what every command says of itself."""
    from crosswalk.cli import COMMANDS, parse

    os.environ["COLUMNS"] = "88"
    lines = ["# Commands", "", "What `crosswalk <command> --help` says.", ""]
    for name in COMMANDS:
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
            parse([*name.split(), "--help"])
        lines += [f"## crosswalk {name}", "", "```text", said.getvalue().rstrip(), "```", ""]
    return "\n".join(lines)


ROOMS = {
    "methods": "Methods",
    "losses": "Losses",
    "labels": "Labels",
    "memory": "Memories",
    "metrics": "Metrics",
    "encoders": "Encoders",
}
"""Folders of ``src/crosswalk`` with what papers describe, and the titles of their pages."""


def parts_page(room: str) -> str:
    """Return the page of a folder of the package: the docstrings of its modules."""
    modules = sorted((ROOT / "src/crosswalk" / room).rglob("*.py"))
    lines = [f"# {ROOMS[room]}", ""]
    for path in modules:
        if path.stem != "__init__":
            dotted = path.relative_to(ROOT / "src").with_suffix("").as_posix().replace("/", ".")
            lines += [f"::: {dotted}", "    options:", "      heading_level: 2", ""]
    return "\n".join(lines)


def methods_page() -> str:
    """Return the list of methods, as the README has it."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(r"^## Methods\n(.*?)(?=^## )", text, re.MULTILINE | re.DOTALL)
    assert found is not None
    return "# Methods\n" + found[1].replace("](docs/methods/", "](").replace("](docs/", "](../")


def generated() -> dict[str, Callable[[], str]]:
    """Return what makes each page that no file holds, by the place that links name."""
    from docs.tools import configuration_reference as reference
    from docs.tools.published_tables import results_page

    configuration = "docs/reference/configuration"
    return {
        "docs/decisions/index.md": decisions_page,
        "docs/methods/index.md": methods_page,
        "docs/results.md": partial(results_page, ROOT / "experiments"),
        "docs/reference/commands.md": commands_page,
        **{f"docs/reference/parts/{room}.md": partial(parts_page, room) for room in ROOMS},
        f"{configuration}/index.md": reference.first_page,
        f"{configuration}/runs.md": reference.runs_page,
        **{
            f"{configuration}/{group}.md": partial(reference.group_page, group)
            for group in reference.GROUPS
        },
    }


@cache
def end_of_method(method: str) -> str:
    """Return what is generated below a method's page: its options, and its tables."""
    from docs.tools import configuration_reference as reference
    from docs.tools.published_tables import tables_of

    path = ROOT / "configs" / "method" / f"{method}.yaml"
    chosen = []
    for each in reference.choices_of(path):
        group, _, value = each.partition("=")
        anchor = f"../reference/configuration/{group}.md#{group}{value}"
        chosen.append(f"[`{each}`]({anchor})" if group in reference.GROUPS else f"`{each}`")
    lines = [
        "## Its options",
        "",
        f"What `method={method}` sets, from its file and its constructors.",
    ]
    lines += [f"It chooses {', '.join(chosen)}."] if chosen else []
    lines += ["", reference.table(reference.keys_of("method", path)), ""]
    return "\n".join([*lines, tables_of(ROOT / "experiments", method)])


def outside_files(texts: dict[str, str], also: Iterable[str] = ()) -> dict[str, str | None]:
    """Return the files outside ``docs/`` that pages link to, and those that these link to.

    Args:
        texts: Pages by their place in the repository.
        also: Pages that nothing need link to, as mkdocs names them.

    Returns:
        Pages of Markdown with their text, other files with None.
    """
    found: dict[str, str | None] = {}
    sources = (each for page in also for each in (page, f"{page.removesuffix('.md')}.ipynb"))
    named = "\n".join(f"[page]({each})" for each in sources if (ROOT / each).is_file())
    waiting = [*texts.items(), ("", named)]
    while waiting:
        page, text = waiting.pop()
        for link in links(text):
            target = target_of(link, page)
            if target is None or target.startswith("docs/") or target in found:
                continue
            if target == "README.md" or not (ROOT / target).is_file():
                continue
            is_page = target.endswith(".md")
            found[target] = (ROOT / target).read_text(encoding="utf-8") if is_page else None
            if is_page:
                waiting.append((target, found[target] or ""))
    return found


# What mkdocs calls.

_pages: dict[str, str] = {}
"""Places in the repository by the names of mkdocs."""


def on_config(config: MkDocsConfig) -> None:
    """Expand ``*.md`` in the navigation, and leave out what does not exist yet."""
    from crosswalk.config.search import config_folder

    if config_folder() != ROOT / "configs":
        raise FileNotFoundError(f"crosswalk is not that of {ROOT}: make docs installs it")
    nav = _expanded(config.nav)
    named = set(re.findall(r"[\w./-]+\.md", str(nav)))
    others = sorted(path.name for path in (ROOT / "docs").glob("*.md") if path.name not in named)
    guides = next(item["Guides"] for item in nav if "Guides" in item)
    guides += others  # a page that the navigation does not name yet
    config.nav = nav


def _expanded(node: Any) -> Any:  # noqa: ANN401
    if isinstance(node, dict):
        items = {name: _expanded(inner) for name, inner in node.items()}
        return {name: inner for name, inner in items.items() if inner}
    if isinstance(node, str):
        optional = node.removesuffix("?")
        is_there = optional == node or (ROOT / "docs" / optional).is_file()
        return optional if is_there else None
    found: list[Any] = []
    for item in node:
        if isinstance(item, str) and "*" in item:
            paths = sorted((ROOT / "docs").glob(item))
            found += [path.relative_to(ROOT / "docs").as_posix() for path in paths]
        elif inner := _expanded(item):
            found.append(inner)
    return found


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages, and the files of the repository that pages link to."""
    from mkdocs.structure.files import File

    def add(path: str, content: str | bytes) -> None:
        _pages[place(path)] = path
        files.append(File.generated(config, place(path), content=content))

    texts = {f"docs/{file.src_uri}": file.content_string for file in files.documentation_pages()}
    _pages.update({place(path): path for path in texts})
    ends = {path: _end(path) for path in texts}
    for path, make in generated().items():
        texts[path] = make()
        add(path, texts[path])
    texts = {path: text + ends.get(path, "") for path, text in texts.items()}
    in_nav = set(re.findall(r"[\w./-]+\.md", str(config.nav)))
    for path, page in outside_files(texts, in_nav).items():
        if page is not None:
            add(path, page)
        elif path.endswith(".ipynb"):
            folder = posixpath.dirname(place(path))

            def keep(name: str, content: bytes, folder: str = folder) -> str:
                files.append(File.generated(config, f"{folder}/{name}", content=content))
                return name

            add(path, notebook_page(ROOT / path, keep))
        elif place(path) != path:
            add(path, file_page(path))
        else:
            files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
    return files


def _end(path: str) -> str:
    folder, name = posixpath.split(path)
    is_method = folder == "docs/methods" and name != "index.md"
    return f"\n{end_of_method(name.removesuffix('.md'))}" if is_method else ""


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Complete a page, and let its links lead to pages of the site."""
    path = _pages[page.file.src_uri]
    return moved_links(with_excerpts(markdown) + _end(path), path)

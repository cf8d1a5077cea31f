"""What the documents say works: commands are composed, Python is run, links lead somewhere."""

from __future__ import annotations

import importlib
import re
import shlex
import shutil
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import pytest
import torch
import yaml
from PIL import Image

from crosswalk.cli import COMMANDS, parse
from crosswalk.config.check import check, check_early
from crosswalk.config.compose import compose
from crosswalk.config.construct import construct
from crosswalk.config.keys import ASSETS, flatten
from crosswalk.config.search import config_folder, group_values
from crosswalk.lab.sweeps.sweep_file import find_sweep_file, read_sweep_file
from crosswalk.lab.tables.manifest import find_table, read_manifest
from docs.tools import configuration_reference as reference
from docs.tools.site_pages import generated, links, outside_fences, target_of, with_excerpts
from docs.tools.step_figures import FIGURES, drawn
from tests.unit.test_advice import composed_somewhere, filled
from tests.unit.test_makefile import dry_run

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/**/*.md", "experiments/*.md", "examples/**/*.md", "*/README.md")
    for path in ROOT.glob(pattern)
    if path.name != "CHANGELOG.md"  # whose old entries speak of old keys
)
BLOCK = re.compile(r'^```(\w+)(?: title="(\S+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
"""Language, file and text of a block of code."""


class Command(NamedTuple):
    """A line that a document tells to type."""

    document: str
    line: str


def text_of(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def blocks(document: str, language: str) -> list[str]:
    return [code for name, _, code in BLOCK.findall(text_of(document)) if name == language]


def commands() -> Iterator[Command]:
    for document in DOCUMENTS:
        for block in blocks(document, "sh"):
            for line in block.replace("\\\n", " ").splitlines():
                yield Command(document, line)
        for line, is_text in outside_fences(text_of(document)):
            for code in re.findall(r"`([^`]+)`", line) if is_text else ():
                yield Command(document, code)


def words_of(line: str) -> list[str]:
    """Return the words behind `crosswalk` that a line types, none for another program."""
    anything = "train METHOD=rde" if line.startswith("make") else "method=rde"
    line = filled(line.replace("…", anything).replace("$SLURM_NNODES", "2"))
    try:
        words = shlex.split(line.replace("<", "").replace(">", ""), comments=True)
    except ValueError:
        return []
    while words and re.match(r"[A-Z_]+=", words[0]):
        words = words[1:]
    if words[:1] == ["make"] and len(words) > 1 and not words[1].startswith("-"):
        made = dry_run(*words[1:]).stdout.replace("\\\n", " ")
        found = [each for each in made.splitlines() if "bin/crosswalk train method=" in each]
        return shlex.split(found[0])[2:] if found and words[1] == "train" else []
    if words[:1] in (["torchrun"], ["srun"]) and "crosswalk" in words:
        return words[words.index("crosswalk") + 1 :]
    if words[:1] == ["crosswalk"] or words[:3] == ["python", "-m", "crosswalk"]:
        return words[words.index("crosswalk") + 1 :]
    return []


TYPED = sorted({command for command in commands() if words_of(command.line)})


@pytest.fixture
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty folder that commands are typed in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def write_named_files(document: str, folder: Path) -> None:
    """Write what a document gives with a name, the title of its block."""
    for _, name, code in BLOCK.findall(text_of(document)):
        if name:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(code, encoding="utf-8")


@pytest.mark.parametrize("command", TYPED, ids=lambda command: f"{command.document}:{command.line}")
def test_every_command_of_a_document_is_understood(
    command: Command, working_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "toyreid" in command.document or "pair_contrast" in command.line:
        monkeypatch.setenv("CROSSWALK_CONFIG_PATH", str(ROOT / "examples/toyreid/toyreid/configs"))
        monkeypatch.syspath_prepend(str(ROOT / "examples/toyreid"))
    write_named_files(command.document, working_folder)
    words = words_of(command.line)
    if " ".join(words) in COMMANDS or words[0].startswith("--") or words[0] == "method":
        return  # a document speaks of a command
    if words[-1] == "--help":
        words = words[:-1]
        assert " ".join(words) in COMMANDS or words == ["command"]
        return

    options = parse(words)

    if words[0] == "ablate" and "toyreid" not in command.document and "table" in options:
        if "TABLE" not in words and "file" not in words:
            read_manifest(find_table(options.table))
    elif words[0] == "sweep" and options.sweep != "SWEEP":
        read_sweep_file(find_sweep_file(options.sweep))
    if words[0] in ("train", "config") and options.overrides:
        check_early(compose(options.overrides))
    elif options.overrides:
        for override in options.overrides:
            assert composed_somewhere(override) == ""


def python_blocks() -> list[tuple[str, int]]:
    return [(doc, place) for doc in DOCUMENTS for place in range(len(blocks(doc, "python")))]


@pytest.fixture
def prepared_folder(working_folder: Path) -> Path:
    """Return a folder with pictures, and a model with thresholds, for lines that are copied."""
    photos = working_folder / "photos"
    photos.mkdir()
    for place, name in enumerate(("1.jpg", "2.png", "3.jpg")):
        picture = Image.effect_noise((32, 96), 40 + place).convert("RGB")
        picture.save(photos / name)
    shutil.copytree(ASSETS / "models" / "rde", working_folder / "model")
    return working_folder


@pytest.mark.parametrize(("document", "place"), python_blocks())
def test_the_python_of_a_document_runs(document: str, place: int, prepared_folder: Path) -> None:
    code = blocks(document, "python")[place].replace('"runs/<name>")', '"tiny:rde")')

    names: dict[str, object] = {}
    exec(compile(code, f"{document}, block {place}", "exec"), names)

    assert set(names) - {"__builtins__"}


def test_the_loss_of_one_s_own_is_taken_by_a_run(working_folder: Path) -> None:
    write_named_files("docs/add/loss.md", working_folder)

    checked = check(compose(["method=rde", "loss=hinge", "method.loss.margin=0.1"]))
    loss = construct(checked.config["method"]["loss"], {})

    similarity = torch.tensor([[0.9, 0.85], [0.2, 0.3]])
    losses = loss.of_pairs(similarity, torch.eye(2, dtype=torch.bool))
    # captions: 0.1 + 0.85 - 0.9, 0.1 + 0.2 - 0.3; images: 0 and 0.1 + 0.85 - 0.3
    torch.testing.assert_close(losses, torch.tensor([0.05, 0.0 + 0.65]))


def anchors(document: str) -> set[str]:
    """Return the anchors of a document's headings, as the site and as GitHub make them."""
    found = set()
    for line, is_text in outside_fences(text_of(document)):
        if is_text and (heading := re.match(r"#+ (.+)", line)):
            words = re.sub(r"[^\w\s-]", "", heading[1].replace("`", "")).strip().lower()
            found |= {re.sub(r"[\s-]+", "-", words), words.replace(" ", "-")}
    return found


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_of_a_document_leads_somewhere(document: str) -> None:
    for link in links(text_of(document)):
        assert not link.startswith("/"), link
        target = document if link.startswith("#") else target_of(link, document)
        if target is None:
            continue
        is_file = (ROOT / target).is_file()
        assert is_file or target in generated(), f"{document}: {link} is no file"
        anchor = link.partition("#")[2]
        ends = {"its-options", "its-tables"} if target.startswith("docs/methods/") else set()
        if anchor and is_file:
            assert anchor in anchors(target) | ends, f"{document}: {link} is no heading"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_mark_of_code_names_code(document: str) -> None:
    assert "<!-- code:" not in with_excerpts(text_of(document))


def overrides_named() -> list[str]:
    found = set()
    for document in DOCUMENTS:
        for line, is_text in outside_fences(text_of(document)):
            for code in re.findall(r"`([^`]+)`", line) if is_text else ():
                if re.fullmatch(r"\+?[a-z_]+(\.[\w]+)*=(<[^>]+>|[\w./-]+)", code):
                    found.add(code)
    return sorted(found - SPOKEN_OF)


SPOKEN_OF = {
    *("broadcast_buffers=False", "weights_only=True"),  # arguments of torch
    "trusted_schema=OFF",  # of SQLite
    *("key=value", "data=station"),  # the grammar; a data set that an example speaks of
}
"""What looks like an override and is none, or is said to be refused."""


@pytest.mark.parametrize("override", overrides_named())
def test_every_override_that_a_document_names_is_taken(override: str) -> None:
    given = re.sub(r"<[^>]+>", "2", filled(override))

    assert composed_somewhere(given) == ""


def navigation() -> list[str]:
    nav = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
    return re.findall(r"[\w./*-]+\.md\??", str(nav["nav"]))


@pytest.mark.parametrize("page", [each for each in navigation() if each[-1] != "?"])
def test_the_navigation_of_the_site_names_pages(page: str) -> None:
    notebook = ROOT / f"{page.removesuffix('.md')}.ipynb"

    assert (
        any((ROOT / "docs").glob(page))
        or f"docs/{page}" in generated()
        or (ROOT / page).is_file()
        or notebook.is_file()
    )


def test_every_method_and_group_has_its_place_on_the_site() -> None:
    groups = {path.name for path in config_folder().iterdir() if path.is_dir()}

    assert groups - {"sweep", "experiment"} == set(reference.GROUPS)
    for method in group_values("method"):
        assert (ROOT / "docs" / "methods" / f"{method}.md").is_file()


@cache
def documented_keys() -> frozenset[str]:
    """Return the keys of all files, as the reference lists them."""
    files = [path for path in config_folder().rglob("*.yaml") if path.parent.name != "sweep"]
    return frozenset(key for path in files for key, _, _ in reference.leaves(path))


@pytest.mark.parametrize("method", group_values("method"))
def test_every_key_of_a_run_is_in_the_reference(method: str) -> None:
    known = documented_keys()

    for key in flatten(dict(compose([f"method={method}"]))):
        above = {key.rsplit(".", depth)[0] for depth in range(key.count(".") + 1)}
        assert above & known or key.startswith(("choices.", "small")), key


def test_the_reference_says_type_default_meaning_and_source_of_a_key() -> None:
    (key,) = [
        key
        for key in reference.keys_of("loss", config_folder() / "loss" / "triplet_alignment.yaml")
        if key.name == "method.loss.margin"
    ]

    assert key.kind == "float >= 0 and <= 2"
    assert key.default == "`0.1`"
    assert key.says.startswith("Least lead over the negatives, in cosine units")
    assert key.says.endswith("*RDE, implementation details; cosine units*")


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_current_and_names_code(name: str) -> None:
    kept = (ROOT / "docs" / "pictures" / name).read_text(encoding="utf-8")
    title = ElementTree.fromstring(kept).find("{http://www.w3.org/2000/svg}title")

    assert title is not None
    assert kept == drawn(FIGURES[name], str(title.text))
    for box in (box for boxes in FIGURES[name].values() for box in boxes):
        module, _, place = box.code.partition(":")
        if not place:
            assert (ROOT / module).is_file()
            continue
        found: object = importlib.import_module(f"crosswalk.{module}")
        for part in place.split("."):
            found = getattr(found, part)
        assert callable(found)


def test_the_citation_names_this_software_and_its_licence() -> None:
    citation = yaml.safe_load(text_of("CITATION.cff"))
    project = tomllib.loads(text_of("pyproject.toml"))["project"]

    assert citation["title"].startswith("crosswalk: ")
    assert citation["license"] == project["license"]
    assert {"cff-version", "message", "authors"} <= set(citation)

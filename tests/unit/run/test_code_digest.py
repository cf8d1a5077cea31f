from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import crosswalk
from crosswalk.config.compose import compose
from crosswalk.config.plain import to_plain
from crosswalk.run.code_digest import LOOKS_ONLY, _folder_of, code_digest, modules_of

PACKAGE = Path(crosswalk.__file__).parent

LOSS = '''\
"""Losses."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from toy_methods.words import Word

MARGIN = 0.2
"""Least lead of the positive."""


class Loss:
    """A loss."""

    def __call__(self, x: float) -> float:
        """Return the loss."""
        if x < 0:
            raise ValueError(f"x={x} is negative. " + "Give a distance.")
        assert x < 9, "too far"
        print("a loss is computed")
        return max(0.0, MARGIN - x)


async def slow() -> str:
    """Return a word."""
    return "word"
'''
FILES = {
    "__init__.py": "",
    "loss.py": LOSS,
    "method.py": "from . import tools\n\ndef make():\n    from toy_methods.loss import Loss\n",
    "tools.py": "LIMIT = 3\nTABLE = 'colours'\n",
    "words.py": "Word = str\n",
    "colours.yaml": "red: 1\n",
    "readme.txt": "red",
}


def config_of(*overrides: str) -> dict[str, Any]:
    return to_plain(compose(overrides))


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package."""
    target = tmp_path_factory.mktemp("copy") / "crosswalk"
    return shutil.copytree(PACKAGE, target, ignore=shutil.ignore_patterns("__pycache__"))


@pytest.fixture
def edited(package: Path) -> Iterator[Callable[[str, Callable[[str], str]], None]]:
    """Changes a file of the copy, or adds one, until the test has ended."""
    before: dict[Path, bytes | None] = {}

    def edit(name: str, change: Callable[[str], str]) -> None:
        path = package / name
        before[path] = path.read_bytes() if path.exists() else None
        text = (before[path] or b"").decode(errors="surrogateescape")
        assert change(text) != text
        path.write_text(change(text), errors="surrogateescape")

    yield edit
    for path, content in before.items():
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content)


def replaced(old: str, new: str) -> Callable[[str], str]:
    return lambda text: text.replace(old, new)


def added(text: str) -> Callable[[str], str]:
    return lambda before: before + text


RDE = ("method=rde", "data=synthetic_pairs", "encoder=clip_tiny")
CODE = added("\nMORE = 1\n")


def test_a_digest_is_twelve_hex_digits_and_the_same_again_and_elsewhere(package: Path) -> None:
    digest = code_digest(config_of(*RDE))

    assert re.fullmatch("[0-9a-f]{12}", digest)
    assert digest == code_digest(config_of(*RDE)) == code_digest(config_of(*RDE), package=package)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("methods/seventh.py", CODE),
        ("losses/seventh.py", CODE),
        ("methods/mmcl.py", CODE),
        ("lab/report/report.py", CODE),
        ("lab/tables/verdict.py", CODE),
        ("diagnostics/division.py", CODE),
        ("doctor/pairs.py", CODE),
        ("cli.py", CODE),
        ("config/check.py", CODE),
        ("config/data_kinds.py", CODE),
        ("run/results.py", CODE),
        ("run/callbacks/progress.py", CODE),
        ("__init__.py", lambda text: re.sub(r'__version__ = ".*"', '__version__ = "9"', text)),
        ("labels/consensus_division.py", replaced("The model diverged or", "It diverged, or")),
        ("losses/triplet_alignment.py", replaced("Triplet alignment loss:", "The loss:")),
        ("run/train.py", replaced("is missing: the run", "is missing; the run")),
        ("assets/noun_phrases.json", added(" ")),
    ],
)
def test_what_no_number_of_a_run_depends_on_leaves_it_finished(
    package: Path, edited: Callable[..., None], name: str, change: Callable[[str], str]
) -> None:
    before = code_digest(config_of(*RDE), package=package)

    edited(name, change)

    assert code_digest(config_of(*RDE), package=package) == before


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("losses/triplet_alignment.py", replaced(".clamp_min(0)", ".clamp_min(0.1)")),
        ("labels/consensus_division.py", replaced(" raise ValueError", " raise TypeError")),
        ("methods/rde.py", CODE),
        ("methods/base.py", CODE),
        ("labels/consensus_division.py", CODE),
        ("data/pipeline/loaders.py", CODE),
        ("data/pipeline/noise.py", CODE),
        ("metrics/ranking.py", CODE),
        ("optim.py", CODE),
        ("run/train.py", CODE),
        ("config/build.py", CODE),
        ("config/trainer_arguments.py", CODE),
        ("run/callbacks/checkpoints.py", CODE),
        ("synthetic/render.py", CODE),
        ("synthetic/captions.py", CODE),
        ("synthetic/looks.yaml", added("\n")),
        ("assets/tiny_clip.safetensors", added(" ")),
    ],
)
def test_what_a_number_depends_on_makes_another_run(
    package: Path, edited: Callable[..., None], name: str, change: Callable[[str], str]
) -> None:
    path = package / name
    if not path.exists():
        pytest.fail(f"{name} has moved: name what a number of RDE depends on")
    before = code_digest(config_of(*RDE), package=package)

    edited(name, change)

    assert code_digest(config_of(*RDE), package=package) != before


def test_synthetic_people_do_not_matter_to_a_run_on_photographs(
    package: Path, edited: Callable[..., None]
) -> None:
    photographs = config_of("method=rde", "data=cuhk_pedes", "data.root=/datasets")
    before = code_digest(photographs, package=package)

    edited("synthetic/render.py", CODE)

    assert code_digest(photographs, package=package) == before


def test_each_run_depends_on_the_loss_that_it_names(
    package: Path, edited: Callable[..., None]
) -> None:
    with_dbscan = config_of("method=cmmt", "text=lstm_learned_words")
    digests = [code_digest(each, package=package) for each in (config_of(*RDE), with_dbscan)]

    edited("labels/clustering.py", CODE)

    assert code_digest(config_of(*RDE), package=package) == digests[0]
    assert code_digest(with_dbscan, package=package) != digests[1]


def test_the_code_of_a_stage_counts_where_it_is_trained(
    package: Path, edited: Callable[..., None]
) -> None:
    runs = {
        "stage": config_of("experiment=mmcl/synthetic_images"),
        "no stage": config_of("experiment=mmcl/synthetic_images", "stage=null"),
        "checkpoint": config_of("experiment=mmcl/synthetic_images", "checkpoint=w.safetensors"),
    }
    before = {name: code_digest(config, package=package) for name, config in runs.items()}

    edited("methods/supervised.py", CODE)

    after = {name: code_digest(config, package=package) for name, config in runs.items()}
    assert [name for name in runs if after[name] != before[name]] == ["stage"]


@pytest.mark.parametrize(
    "override",
    ["seed=7", "name=tiny_clip", "tags=[noun_phrases]", "data.num_workers=0", "diagnostics=[]"],
)
def test_values_of_the_configuration_are_none_of_its_business(override: str) -> None:
    assert code_digest(config_of(*RDE, override)) == code_digest(config_of(*RDE))


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """Returns the digest of a run whose method is in a package of one's own, with these files."""
    monkeypatch.syspath_prepend(tmp_path)
    _folder_of.cache_clear()
    config = {"method": {"_target_": "toy_methods.method.make"}}

    def digest(files: Mapping[str, str]) -> str:
        shutil.rmtree(tmp_path / "toy_methods", ignore_errors=True)
        (tmp_path / "toy_methods").mkdir()
        for name, text in files.items():
            (tmp_path / "toy_methods" / name).write_text(text, encoding="utf-8")
        assert "crosswalk.run.train" in modules_of(config)
        return code_digest(config)

    yield digest
    _folder_of.cache_clear()
    assert "toy_methods" not in sys.modules


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('"""Losses."""\n', '"""Losses of pairs."""\n'),
        ('"""Losses."""\n', ""),
        ('    """A loss."""\n', '    """A loss of pairs."""\n'),
        ('        """Return the loss."""\n', ""),
        ('    """Return a word."""\n', '    """Return one word."""\n'),
        ('"""Least lead of the positive."""\n', ""),
        ("MARGIN = 0.2\n", "MARGIN = 0.2  # ours\n"),
        ("MARGIN = 0.2\n", "MARGIN = (\n    0.20\n)\n"),
        ('return "word"', "return 'word'"),
        ('f"x={x} is negative. "', 'f"{x} is less than nothing. "'),
        ('"Give a distance."', '"Distances have no sign."'),
        ('x < 9, "too far"', "x < 9"),
        ('"a loss is computed"', 'f"{MARGIN}"'),
        (
            "    from toy_methods.words import Word\n",
            "    from toy_methods.words import Word as W\n",
        ),
    ],
)
def test_words_about_the_code_do_not_count(
    own: Callable[..., str], before: str, after: str
) -> None:
    assert before in LOSS
    reworded = FILES | {"loss.py": LOSS.replace(before, after)}

    assert own(FILES) == own(reworded)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("MARGIN = 0.2", "MARGIN = 0.3"),
        ("MARGIN = 0.2\n", ""),
        ("MARGIN - x", "MARGIN + x"),
        ("max(0.0", "max(0"),
        ('return "word"', 'return "Word"'),
        ("self, x: float", "self, x: float = 1.0"),
        ("class Loss", "class Losses"),
        ("if x < 0", "if x < 1"),
    ],
)
def test_code_counts(own: Callable[..., str], before: str, after: str) -> None:
    assert before in LOSS
    changed = FILES | {"loss.py": LOSS.replace(before, after)}

    assert own(FILES) != own(changed)


@pytest.mark.parametrize(
    ("name", "text", "counts"),
    [
        ("tools.py", "LIMIT = 4\nTABLE = 'colours'\n", True),
        ("__init__.py", "import os\n", True),
        ("colours.yaml", "red: 2\n", True),  # a module has its name
        ("readme.txt", "blue", False),
        ("words.py", "Word = int\n", False),  # imported for types alone
        ("other.py", "x = 1\n", False),
    ],
)
def test_of_a_package_of_ones_own_counts_what_the_method_reaches(
    own: Callable[..., str], name: str, text: str, counts: bool
) -> None:
    assert (own(FILES) != own(FILES | {name: text})) is counts


def test_code_that_cannot_be_read_is_an_error(own: Callable[..., str]) -> None:
    with pytest.raises(SyntaxError):
        own(FILES | {"tools.py": "def broken(:\n"})


def test_what_does_not_count_exists() -> None:
    places = [PACKAGE / name.replace(".", "/") for name in LOOKS_ONLY]

    missing = [
        each for each in places if not each.is_dir() and not each.with_suffix(".py").exists()
    ]
    assert missing == []

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if importlib.util.find_spec("hatchling") is None:
        pytest.skip("hatchling, which builds the wheel, is not installed")
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    return next(folder.glob("*.whl"))


def test_a_wheel_carries_code_configurations_and_tables(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())

    for path in (ROOT / "configs").rglob("*.yaml"):
        assert f"crosswalk/{path.relative_to(ROOT).as_posix()}" in names
    assert "crosswalk/experiments/README.md" in names
    assert "crosswalk/assets/noun_phrases.json" in names
    assert "crosswalk/py.typed" in names
    assert not any(name.startswith(("tests/", "configs/")) for name in names)


def test_an_installed_wheel_composes_outside_the_clone(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "install",
            "-q",
            "--no-deps",
            "--no-index",
            "--target",
            str(site),
            str(wheel),
        ],
        check=True,
        capture_output=True,
    )
    code = (
        "from crosswalk.cli import main\n"
        "from crosswalk.config.search import config_folder\n"
        "main(['config', 'show', 'method=rde', 'data=cuhk_pedes'])\n"
        "print('FOLDER', config_folder())\n"
        "main(['ablate', 'experiments/rde/table2.yaml', '--data', 'synthetic_pairs', '--dry-run'])"
    )

    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
        check=True,
        capture_output=True,
        text=True,
    )

    assert "experiment: rde/cuhk_pedes\n" in done.stdout
    assert f"FOLDER {site / 'crosswalk' / 'configs'}" in done.stdout.splitlines()
    assert (
        "\nOn synthetic_pairs: 15 runs, of which 0 are finished and 15 are left.\n" in done.stdout
    )

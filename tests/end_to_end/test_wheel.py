from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "toyreid"
SOURCE = ROOT / "src" / "crosswalk"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def built_wheel(project: Path, folder: Path) -> Path:
    if importlib.util.find_spec("hatchling") is None:
        pytest.skip("hatchling, which builds the wheel, is not installed")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=project,
        check=True,
        capture_output=True,
    )
    return next(folder.glob("*.whl"))


def install(*wheels: Path, into: Path) -> None:
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index"]
    command = [*pip, "--target", str(into), *map(str, wheels)]
    subprocess.run(command, check=True, capture_output=True)


def write_people(folder: Path) -> None:
    """Write the data set of the example: rectangles in two colours, one line a picture."""
    colours = {"red": (200, 30, 30), "blue": (30, 30, 200), "grey": (120, 120, 120)}
    looks = [(coat, trousers) for coat in colours for trousers in colours]
    lines = []
    folder.mkdir(parents=True)
    for split, people in {"train": looks, "val": looks[:3], "test": looks[3:7]}.items():
        for person, (coat, trousers) in enumerate(people):
            for shot in range(2):
                picture = Image.new("RGB", (32, 96), (180, 180, 170))
                picture.paste(colours[coat], (8 + shot, 20, 24 + shot, 55))
                picture.paste(colours[trousers], (10 + shot, 55, 22 + shot, 90))
                name = f"{split}{person}_{shot}.png"
                picture.save(folder / name)
                lines.append(f"{split} {person} {name} A {coat} coat and {trousers} trousers.")
    (folder / "people.txt").write_text("\n".join(lines))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built_wheel(ROOT, tmp_path_factory.mktemp("wheel"))


def test_a_wheel_carries_code_configurations_tables_and_assets(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())

    for folder, kept_in in (("configs", ROOT), ("experiments", ROOT), ("assets", SOURCE)):
        files = [path for path in (kept_in / folder).rglob("*") if path.is_file()]
        assert {f"crosswalk/{path.relative_to(kept_in).as_posix()}" for path in files} <= names
        assert files
    assert "crosswalk/assets/models/rde/model.safetensors" in names
    assert "crosswalk/py.typed" in names
    assert not any(name.startswith(("tests/", "configs/")) for name in names)


def test_the_name_on_the_package_index_is_our_own_and_the_command_stays(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (folder,) = {name.split("/")[0] for name in archive.namelist() if ".dist-info/" in name}
        metadata = archive.read(f"{folder}/METADATA").decode().splitlines()
        commands = archive.read(f"{folder}/entry_points.txt").decode()

    assert f"Name: {PROJECT['name']}" in metadata
    assert {f"Provides-Extra: {extra}" for extra in PROJECT["optional-dependencies"]} <= set(
        metadata
    )
    assert "crosswalk = crosswalk.cli:main" in commands


def test_the_image_of_docker_gets_what_the_wheel_is_built_of(wheel: Path, tmp_path: Path) -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    for name in (line[1:] for line in lines if line.startswith("!")):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)

    built = built_wheel(tmp_path, tmp_path / "dist")

    assert set(zipfile.ZipFile(built).namelist()) == set(zipfile.ZipFile(wheel).namelist())


def test_nothing_advises_to_install_somebody_elses_package() -> None:
    places = ("README.md", "CONTRIBUTING.md", "docs", "examples", "experiments", "src", "configs")
    texts = [
        path
        for place in places
        for path in ([ROOT / place] if (ROOT / place).is_file() else (ROOT / place).rglob("*"))
        if path.suffix in {".md", ".py", ".yaml", ".toml"}
    ]

    strangers = re.compile(r"pip install\s+[\"']?crosswalk(\[|\s|[`\"'])")
    assert [path.name for path in texts if strangers.search(path.read_text())] == []
    assert len(texts) > 100


def test_an_installed_wheel_composes_outside_the_clone(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    install(wheel, into=site)
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
    assert "\nOn synthetic_pairs: 15 runs, 0 finished and 15 left.\n" in done.stdout


@pytest.mark.slow
def test_a_package_of_ones_own_is_trained_and_tabulated_without_a_clone(
    wheel: Path, tmp_path: Path
) -> None:
    """A method, a reader and a table in an environment that has both wheels and no clone."""
    environment, folder = tmp_path / "venv", tmp_path / "work"
    venv.create(environment, symlinks=True)
    site = next((environment / "lib").glob("python*/site-packages"))
    install(wheel, built_wheel(EXAMPLE, tmp_path / "own"), into=site)
    # what crosswalk depends on; its own editable installation is not followed from a second path
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    write_people(folder / "people")
    python = [str(environment / "bin" / "python"), "-m", "crosswalk"]
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    clean["COLUMNS"] = "200"  # whoever starts the tests has another width

    def crosswalk(*words: str) -> str:
        done = subprocess.run(
            [*python, *words], cwd=folder, env=clean, check=False, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    small = ("data.root=people", "trainer.max_epochs=1", "data.batch_size=6")
    table = "experiments/pair_contrast/temperature.yaml"
    trained = crosswalk(
        *("train", "method=pair_contrast", "data=lines", "name=own", "logger=csv", *small)
    )
    shown = crosswalk("ablate", table, *small)

    assert "text → image" in trained
    results = json.loads((folder / "runs/pair_contrast-lines-own/results.json").read_text())
    (kept,) = (folder / "runs" / "ablations" / "tables").glob("*temperature.json")
    rows = json.loads(kept.read_text())["runs"]
    ranks = {row["row"]: row["results"]["last"]["test/rank1"] for row in rows}
    assert set(ranks) == {"temperature 0.07", "temperature 0.5"}
    assert ranks["temperature 0.07"] == results["last"]["test/rank1"]
    assert "temperature 0.5" in shown

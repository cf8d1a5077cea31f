import os
import pty
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
INSTALLED = ("--old-file=.venv/.installed", "--old-file=.venv/.installed-dev")


def dry_run(*words: str) -> subprocess.CompletedProcess[str]:
    """Return what make would run."""
    options = ("--no-print-directory", "--dry-run", *INSTALLED)
    return subprocess.run(
        ["make", *options, *words],
        cwd=ROOT,
        env={**os.environ, "MAKEFLAGS": ""},
        capture_output=True,
        text=True,
        check=True,
    )


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        (
            "sweep SWEEP=rde LOCAL=1 AGENTS=4 DEVICES=0,1 TRIALS=20 ARGS=trainer.max_epochs=1",
            "sweep rde --local --agents 4 --devices 0,1 --trials 20 trainer.max_epochs=1",
        ),
        ("sweep SWEEP=rde LOCAL=0", "sweep rde"),
        (
            "ablation TABLE=t.yaml DATA=synthetic_pairs SEEDS=1,2 JOBS=2 DEVICES=0,1 SAVE=1 "
            "ARGS=trainer=cpu",
            "ablate t.yaml ${rows[@]+${rows[@]}} --seeds 1,2 --data synthetic_pairs --jobs 2 "
            "--devices 0,1 --save trainer=cpu",
        ),
        ("ablation TABLE=t.yaml SAVE=0", "ablate t.yaml ${rows[@]+${rows[@]}}"),
    ],
)
def test_make_passes_its_variables_on(variables: str, words: str) -> None:
    made = dry_run(*shlex.split(variables))

    command = made.stdout.replace("\\\n", " ").split("bin/crosswalk ")[1]
    assert shlex.split(command) == shlex.split(words)


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("method=mmcl", "METHOD=mmcl"),
        ("data.noise_rate=0.5", 'ARGS="data.noise_rate=0.5"'),
        ("METHODS=rde", 'ARGS="METHODS=rde"'),
    ],
)
def test_make_refuses_what_would_be_without_effect(word: str, meant: str) -> None:
    with pytest.raises(subprocess.CalledProcessError) as refused:
        dry_run("train", word)

    assert refused.value.returncode == 2
    assert f"{word} is nothing that make reads. Write {meant}." in refused.value.stderr
    assert refused.value.stdout == ""


def test_make_divides_the_names_of_rows_at_semicolons(tmp_path: Path) -> None:
    program = tmp_path / "crosswalk"
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    program.chmod(0o755)

    made = subprocess.run(
        [
            *("make", "--no-print-directory", *INSTALLED, f"BIN={tmp_path}"),
            *("ablation", "TABLE=t.yaml", "ROWS=one view; margin=0.1;it's"),
        ],
        cwd=ROOT,
        env={**os.environ, "MAKEFLAGS": ""},
        capture_output=True,
        text=True,
        check=True,
    )

    rows = ["--row", "one view", "--row", "margin=0.1", "--row", "it's"]
    assert made.stdout.splitlines() == ["ablate", "t.yaml", *rows]


def test_make_tells_the_run_how_it_was_called() -> None:
    made = dry_run("train", "METHOD=mmcl", "DATA=market1501", "ARGS=seed=2")

    words = shlex.split(made.stdout.replace("\\\n", " "))
    assert words[0] == "CROSSWALK_MAKE=make train METHOD=mmcl DATA=market1501"
    assert words[2:] == ["train", "method=mmcl", "data=market1501", "seed=2"]


PROGRAM = """#!/bin/bash
echo "$(basename "$0") $*" >>calls.txt
case "$*" in
  *venv*.venv*)
    mkdir -p .venv/bin
    for name in python crosswalk ruff; do cp "$0" .venv/bin/$name; done;;
  *pip*install*) {pip};;
esac
"""
"""Stands for Python, uv and what they install; writes down how it was called."""


def clone_with(folder: Path, pip: str = "true") -> dict[str, str]:
    """Write a clone without code, and Python and uv, whose pip does ``pip``; return variables."""
    (folder / "tools").mkdir()
    for name in ("Makefile", "pyproject.toml", "constraints.txt", "tools/install.sh"):
        shutil.copy(ROOT / name, folder / name)
    for name in ("fake-python", "uv"):
        (folder / name).write_text(PROGRAM.replace("{pip}", pip))
        (folder / name).chmod(0o755)
    return {**os.environ, "MAKEFLAGS": "", "PYTHON": str(folder / "fake-python"), "UV": ""}


def installations(folder: Path) -> list[str]:
    """Return the requirement of each installation, and the program that made it."""
    calls = [line.split() for line in (folder / "calls.txt").read_text().splitlines()]
    return [f"{call[0]} {call[-1]}" for call in calls if "install" in call]


def test_training_installs_no_tools_of_development_and_tests_add_them(tmp_path: Path) -> None:
    variables = clone_with(tmp_path)

    def make(target: str) -> list[str]:
        subprocess.run(["make", target], cwd=tmp_path, env=variables, check=True)
        return installations(tmp_path)

    assert make("train") == ["python ."]
    assert make("train") == ["python ."]
    assert make("lint") == ["python .", "python .[dev]"]
    assert make("format") == ["python .", "python .[dev]"]
    (tmp_path / "pyproject.toml").touch()
    assert make("train")[2:] == ["python ."]


@pytest.mark.parametrize("target", ["train", "ablation", "sweep", "pretrain", "models"])
def test_what_trains_needs_no_tools_of_development(target: str) -> None:
    rule = subprocess.run(
        ["make", "--print-data-base", "--question", "--no-builtin-rules", "help"],
        cwd=ROOT,
        env={**os.environ, "MAKEFLAGS": ""},
        capture_output=True,
        text=True,
        check=False,
    )

    assert f"\n{target}: .venv/.installed\n" in rule.stdout


def test_uv_installs_where_it_is_there(tmp_path: Path) -> None:
    variables = {**clone_with(tmp_path), "UV": str(tmp_path / "uv")}

    subprocess.run(["make", "setup"], cwd=tmp_path, env=variables, check=True)

    assert installations(tmp_path) == ["uv .", "uv .[dev]"]
    (made,) = [
        line for line in (tmp_path / "calls.txt").read_text().splitlines() if "venv --" in line
    ]
    assert "--seed" in made.split()  # pip is called in tests, and named in CONTRIBUTING.md


def test_uv_is_found_on_the_path(tmp_path: Path) -> None:
    variables = clone_with(tmp_path)
    del variables["UV"]
    variables["PATH"] = f"{tmp_path}:{variables['PATH']}"

    subprocess.run(["make", "train"], cwd=tmp_path, env=variables, check=True)

    assert installations(tmp_path) == ["uv ."]


def test_a_terminal_shows_how_much_was_fetched(tmp_path: Path) -> None:
    fetch = (
        'echo "  Downloading https://host/a/torch-2.whl (9 MB)"\n'
        "    head -c 3000000 /dev/zero >$TMPDIR/part\n"
        "    read line <go"
    )
    variables = clone_with(tmp_path, fetch)
    os.mkfifo(tmp_path / "go")
    ours, its = pty.openpty()
    with subprocess.Popen(
        ["make", "train"], cwd=tmp_path, env=variables, stdout=subprocess.DEVNULL, stderr=its
    ) as made:
        os.close(its)
        shown = b""
        while b"  3 MB fetched. Downloading torch-2.whl (9 MB)" not in shown:
            shown += os.read(ours, 1000)
        (tmp_path / "go").write_text("on\n")

    assert made.returncode == 0
    assert not (tmp_path / ".venv" / "fetched").exists()
    os.close(ours)


def test_a_failed_installation_says_why_and_is_tried_again(tmp_path: Path) -> None:
    variables = clone_with(tmp_path, "echo no such wheel >&2; exit 1")

    made = subprocess.run(
        ["make", "train"], cwd=tmp_path, env=variables, capture_output=True, text=True, check=False
    )

    assert made.returncode == 2
    assert "no such wheel\nInstallation failed.\n" in made.stderr
    assert not (tmp_path / ".venv" / ".installed").exists()

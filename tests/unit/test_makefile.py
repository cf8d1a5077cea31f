import os
import shlex
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def dry_run(*words: str) -> subprocess.CompletedProcess[str]:
    """Return what make would run."""
    options = ("--no-print-directory", "--dry-run", "--old-file=.venv/.installed")
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


def test_make_divides_the_names_of_rows_at_semicolons(tmp_path: Path) -> None:
    program = tmp_path / "crosswalk"
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    program.chmod(0o755)

    made = subprocess.run(
        [
            *("make", "--no-print-directory", "--old-file=.venv/.installed", f"BIN={tmp_path}"),
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

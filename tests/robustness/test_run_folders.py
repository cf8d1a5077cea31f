"""Run folders of which one file is damaged, opened by every command that reads it."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest
from _pytest.mark import ParameterSet

from crosswalk.run.run_folder import RunFolder
from tests.end_to_end.small_runs import WholeRuns, small_run
from tests.robustness.damage import ARCHIVE, JSON, TEXT, YAML, Damage, copy_of, damage
from tests.robustness.refusals import message_of

FILES: Mapping[str, tuple[Mapping[str, Damage], tuple[str, ...]]] = {
    "config.yaml": (
        {kind: change for kind, change in YAML.items() if kind != "cut"},  # half of it is one, too
        ("evaluate", "report", "compare", "config diff", "resume"),
    ),
    "run.json": (JSON, ("report", "compare", "resume")),
    "results.json": (JSON, ("report", "compare")),
    "metrics.jsonl": (TEXT, ("report",)),
    "last.ckpt": (ARCHIVE, ("evaluate", "export-weights", "resume", "checkpoint")),
    "queries/test-last.npz": (ARCHIVE, ("compare", "calibrate")),
}
"""Files of a run, how they are damaged, and which commands read them."""

SAYS_NOTHING = {
    *(("metrics.jsonl", each) for each in ("missing", "empty", "zeros", "cut", "deep")),
    *(("run.json", "missing"), ("results.json", "missing")),
}
"""Damage that cannot be told from a run that got no further, or was killed within a line."""


def drawn_cases() -> list[ParameterSet]:
    """Return every damage of every file with one of the commands, and every command."""
    random = np.random.default_rng(11)
    cases = []
    for name, (damages, commands) in FILES.items():
        kinds = [kind for kind in damages if (name, kind) not in SAYS_NOTHING]
        for kind, command in zip(random.permutation(kinds).tolist(), cycle(commands), strict=False):
            cases.append(pytest.param(name, damages[kind], command, id=f"{name}-{kind}-{command}"))
    return cases


def words_of(command: str, run: Path, other: Path, out: Path) -> list[str]:
    same = small_run("mmcl", "checkpoint_every_n_steps=2")
    return {
        "evaluate": ["evaluate", str(run)],
        "report": ["report", str(run)],
        "calibrate": ["calibrate", str(run), "--checkpoint=last"],
        "compare": ["compare", str(run), str(other), "--checkpoint=last"],
        "export-weights": ["export-weights", str(run), str(out / "x.safetensors"), "--which=last"],
        "config diff": ["config", "diff", str(run), str(other)],
        "resume": ["train", *same, f"resume={run}"],
        "checkpoint": ["train", *small_run("mmcl", f"checkpoint={run}", f"output_dir={out}")],
    }[command]


@pytest.mark.parametrize(("name", "change", "command"), drawn_cases())
def test_a_damaged_file_of_a_run_is_named(
    name: str,
    change: Damage,
    command: str,
    whole: WholeRuns,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CROSSWALK_CACHE", str(cache))
    run = copy_of(whole["mmcl"].path, tmp_path / "run")
    if command == "resume":  # it was killed before its end
        folder = RunFolder(run)
        folder.save_record({**folder.record(), "status": "running"})
        folder.results_file.unlink()
    damage(run / name, change)
    out = tmp_path / "out"

    words = words_of(command, run, whole["mmcl"].path, out)
    untouched = [out] if command == "resume" else [run, out]  # its record says that it failed

    message = message_of(words, capsys, untouched=untouched)

    assert name in message

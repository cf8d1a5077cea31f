"""The script for one large GPU, dry."""

from __future__ import annotations

import gc
import importlib
import json
import os
import weakref
from pathlib import Path

import pytest

from tests.unit.methods.test_rde import rde

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.mark.slow
def test_all_parts_run_on_the_cpu_and_leave_their_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setenv("CROSSWALK_CACHE", str(tmp_path / "cache"))
    gpu = importlib.import_module("gpu")
    out = tmp_path / "gpu.json"
    words = ["--device", "cpu", "--tiny", "--out", str(out), "--tests", str(Path(__file__).parent)]

    status = gpu.main([*words, "--methods", "rde", "mar", "--compile"])

    results = json.loads(out.read_text())
    assert rde().current_epoch == 0  # the steps leave other methods of this process alone
    assert status == 0, results["scripts"]
    assert results["finished"]
    assert {row["script"] for row in results["rows"]} == {
        *("step of rde", "step of mar", "input pipeline"),
        *(f"evaluation, {name}" for name in gpu.EVALUATIONS),
    }
    assert all(
        each["operations"] > 0 for name, each in results["scripts"].items() if "step" in name
    )


def test_a_step_is_gone_with_its_last_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    steps = importlib.import_module("steps")
    overrides = steps.configuration("rde", tmp_path, batch_size=4, tiny=True)
    monkeypatch.setenv("CROSSWALK_CACHE", str(tmp_path / "cache"))

    step = steps.Step(overrides, sizes=steps.TINY)
    seen = weakref.ref(step)
    step()
    gc.disable()  # nine methods of published size do not wait for it
    try:
        del step
        assert seen() is None
    finally:
        gc.enable()


def test_what_begins_too_late_is_left_out_and_a_part_that_fails_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    gpu = importlib.import_module("gpu")
    out, words = tmp_path / "gpu.json", ["--device", "cpu", "--tiny", "--methods", "--compile"]

    def fail(bench: object, *given: object) -> None:
        raise RuntimeError("another metric")

    monkeypatch.setattr(gpu, "gpu_tests", fail)
    monkeypatch.setattr(gpu, "input_pipeline", lambda bench: {})
    monkeypatch.setattr(gpu, "evaluation", lambda bench, name: {"seconds": 1.0})
    outcomes = [gpu.main([*words, "--out", str(out), "--minutes", each]) for each in ("12", "0")]

    late = json.loads(out.read_text())
    assert outcomes == [1, 0]
    assert not late["finished"]
    assert all("left_out" in each for each in late["scripts"].values())
    assert gpu.rows.VARIABLE not in os.environ

"""What the benchmark of processes counts."""

import importlib
from pathlib import Path

import pytest

from crosswalk.config.build import build
from crosswalk.config.check import check
from crosswalk.config.compose import compose
from crosswalk.config.plain import to_plain
from crosswalk.encoders.batch_norm import GroupBatchNorm


def test_a_step_has_two_collectives_a_normalisation_and_few_others(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CROSSWALK_CACHE", str(cache))
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    benchmark = importlib.import_module("processes")
    run = build(check(to_plain(compose(benchmark.overrides_of("supervised", quick=True, more=[])))))
    norms = sum(isinstance(each, GroupBatchNorm) for each in run.method.modules())

    assert benchmark.main(["--quick", "--methods", "supervised"]) == 0

    alone, two = [line.split() for line in capsys.readouterr().out.splitlines()[-2:]]
    assert [alone[1], *map(float, alone[-4:-1])] == ["1", 0, 0, 0]
    # two gathers with their gradients, and at most two buckets and two of the trainer
    assert two[1] == "2"
    assert 2 * norms + 4 < float(two[-4]) <= 2 * norms + 8
    assert float(two[-3]) > 0
    assert float(two[-2]) == pytest.approx(float(two[-3]), abs=0.2)  # of two, each sends it once


def test_steps_of_published_recipes_have_one_loss_on_two_processes(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CROSSWALK_CACHE", str(cache))
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    benchmark = importlib.import_module("processes")
    losses = []
    measure = benchmark.measure

    def seen(*arguments: object) -> list[dict[str, float]]:
        measured: list[dict[str, float]] = measure(*arguments)
        losses.extend(each["loss"] for each in measured)
        return measured

    monkeypatch.setattr(benchmark, "measure", seen)

    assert benchmark.main(["--full-size", "--quick", "--batch-size", "8", "--methods", "mar"]) == 0

    assert len(losses) == 3  # MAR's: agents that resemble images of either process's part
    assert losses == pytest.approx(losses[:1] * 3, rel=1e-4)
    assert capsys.readouterr().out.splitlines()[-1].split()[:2] == ["mar", "2"]

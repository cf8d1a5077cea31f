"""Values that are right alone and do not go with the others."""

from __future__ import annotations

import pytest

from crosswalk.config.build import build
from crosswalk.config.check import check, check_early
from crosswalk.config.compose import compose
from crosswalk.config.plain import to_plain
from crosswalk.config.values import check_together


@pytest.mark.parametrize(
    ("batch_size", "devices", "advice"),
    [(100, 8, "96 or 104"), (3, 7, "7 or a multiple"), (65, 2, "64 or 66")],
)
def test_a_batch_that_does_not_split_is_refused_with_sizes_that_do(
    batch_size: int, devices: int, advice: str
) -> None:
    config = {
        "data": {"plan": {"batch_size": batch_size}},
        "trainer": {"accelerator": "cpu", "devices": devices},
    }

    with pytest.raises(ValueError, match=rf"data\.plan\.batch_size={batch_size} .* {advice}"):
        check_together(config, whole_batch=True)


def test_accumulation_needs_a_method_that_defines_it() -> None:
    config = {"data": {}, "trainer": {"devices": 1, "accumulate_grad_batches": 2}}

    check_together(config, whole_batch=False)
    with pytest.raises(ValueError, match=r"accumulate_grad_batches=2.*compares all samples"):
        check_together(config, whole_batch=True)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["trainer.accumulate_grad_batches=2"], "accumulate_grad_batches=2"),
        (["trainer.devices=7", "trainer.accelerator=cpu"], "use 63 or 70"),
        (["encoder.select_ratio=much"], r"encoder\.select_ratio='much'"),
        (["+data.allow_mising=true"], r"Did you mean data\.allow_missing"),
        (["optim.optimizer.eps=tiny"], r"optim\.optimizer\.eps='tiny'"),
    ],
)
def test_build_refuses_before_it_reads_data(overrides: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(check(compose(["data.root=/nowhere", *overrides])))


def test_an_evaluation_shares_no_training_batches() -> None:
    config = to_plain(compose(["trainer.devices=7", "trainer.accelerator=cpu"]))

    check_together(config, whole_batch=True, trains=False)


def test_a_protocol_of_the_data_alone_is_refused() -> None:
    config = to_plain(compose(["method=rde", "data.protocol=official"]))

    with pytest.raises(ValueError, match="write protocol=official"):
        check_together(config, whole_batch=True)


def test_as_many_processes_must_be_started_as_are_configured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = to_plain(compose(["method=rde", "trainer=cpu"]))
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "7")
    monkeypatch.setenv("WORLD_SIZE", "8")

    with pytest.raises(ValueError, match="8 processes were started"):
        check_together(config, whole_batch=True)


@pytest.mark.parametrize("precision", ["64-true", "16-true", "bf16-true"])
def test_weights_of_another_type_than_images_are_refused(precision: str) -> None:
    with pytest.raises(ValueError, match=rf"trainer\.precision={precision}: images reach"):
        check(compose(["method=mmcl", f"trainer.precision={precision}"]))


def test_slurm_says_how_many_processes_a_machine_has(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("SLURM_PROCID", "0"), ("SLURM_NTASKS", "2"), ("SLURM_JOB_NAME", "it")):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("SLURM_NTASKS_PER_NODE", raising=False)
    config = compose(["method=rde", "trainer=cpu", "trainer.devices=2"])

    with pytest.raises(ValueError, match=r"--ntasks-per-node=2 for one machine.*of --ntasks"):
        check(config)
    monkeypatch.setenv("SLURM_NTASKS_PER_NODE", "2")
    check(config)


@pytest.mark.parametrize("every", [2, 5])
def test_a_best_epoch_that_no_validation_can_find_is_refused_before_the_run(every: int) -> None:
    words = ["method=rde", "trainer=cpu", "trainer.max_epochs=1"]

    check(compose(words))
    with pytest.raises(ValueError, match=rf"check_val_every_n_epoch={every} is more than"):
        check(compose([*words, f"+trainer.check_val_every_n_epoch={every}"]))


PLAN = "{_target_: crosswalk.data.pipeline.plans.identity_plan, _partial_: true}"


@pytest.mark.parametrize(
    ("overrides", "size", "reason"),
    [
        (["method=supervised", "data.batch_size=7"], 7, "no multiple of 4"),
        (["method=supervised", "data=market1501", "data.batch_size=7"], 7, "no multiple of 4"),
        (["method=clip_reid", "data.batch_size=66"], 66, "no multiple of 4"),
        (["method=cm_moco", "data.plan.samples_per_person=3"], 64, "no multiple of 3"),
        (["method=cm_moco", f"data.plan={PLAN}", "data.batch_size=3"], 3, "no multiple of 4"),
        (["method=mar", f"++data.plan={PLAN}", "data.batch_size=9"], 9, "no multiple of 4"),
        (["method=mar", f"++data.source.plan={PLAN}", "data.batch_size=9"], 9, "no multiple of 4"),
        (["method=rde", "trainer.devices=3"], 64, "3 processes"),
        (["method=mar", "trainer.devices=2", "trainer.num_nodes=3"], 64, "6 processes"),
    ],
)
def test_a_size_of_batches_that_no_data_would_fit_is_refused_before_anything_slow(
    overrides: list[str], size: int, reason: str
) -> None:
    words = reason.replace("no multiple of ", r"a multiple of data\.plan\.samples_per_person=")

    with pytest.raises(ValueError, match=rf"data\.batch_size={size} .*{words}[:;]"):
        check_early(compose(overrides))


def test_a_plan_that_leaves_numbers_to_its_defaults_is_made_with_them() -> None:
    check_early(compose(["method=cm_moco", f"data.plan={PLAN}", "data.batch_size=12"]))


def test_a_batch_of_one_compares_nothing() -> None:
    with pytest.raises(ValueError, match=r"^data\.batch_size=1: .* Set data\.batch_size to 2"):
        check(compose(["method=rde", "data.batch_size=1"]))

"""Learning rates per step of the schedule."""

from crosswalk.optim import StepDecay, WarmupSchedule
from tests.golden.harness import Case, golden


@golden("cmmt", "lr_warmup_multistep")
def lr_warmup_multistep(case: Case) -> None:
    num_steps = len(case["out_lr"])
    schedule = WarmupSchedule(
        num_epochs=num_steps,
        decay=StepDecay(case["milestones"].tolist(), gamma=case.item("gamma")),
        warmup_epochs=case.item("warmup_iters"),
        warmup_factor=case.item("warmup_factor"),
        warmup=case.item("method"),
        decay_in_warmup=True,
    )

    rates = [schedule(case.item("base_lr"), step) for step in range(num_steps)]

    case.close("out_lr", rates, rtol=1e-9, atol=1e-16)


@golden("cmmt", "lr_adjust_bug")
def lr_adjust_bug(case: Case) -> None:
    base_lr, gamma = case.item("base_lr"), 1 - case.item("decay_ratio")

    def rates(milestones: list[int], epochs: list[int]) -> list[float]:
        schedule = WarmupSchedule(num_epochs=len(epochs), decay=StepDecay(milestones, gamma=gamma))
        return [schedule(base_lr, epoch) for epoch in epochs]

    every = case.item("single")
    epochs = list(range(len(case["out_lr_single"])))
    case.close("out_lr_single", rates(epochs[every::every], epochs), rtol=1e-9, atol=1e-16)
    # The bug, which is not ported: after the first epoch, the list means the rate behind them all.
    milestones = [int(epoch) for epoch in str(case.item("milestones")).split("_")]
    wrong = [0] + [max(milestones)] * (len(case["out_lr_list"]) - 1)
    case.close("out_lr_list", rates(milestones, wrong), rtol=1e-9, atol=1e-16)

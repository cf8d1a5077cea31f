"""Learning rates per epoch."""

import numpy as np

from crosswalk.optim import (
    CosineDecay,
    Decay,
    ExponentialDecay,
    LinearDecay,
    PolynomialDecay,
    StepDecay,
    WarmupSchedule,
)
from tests.golden.harness import Case, golden


def decay(case: Case) -> Decay:
    makers = {
        "cosine": lambda: CosineDecay(target_lr=case.item("target_lr")),
        "step": lambda: StepDecay(case["milestones"].tolist(), gamma=case.item("gamma")),
        "exp": lambda: ExponentialDecay(power=case.item("power")),
        "linear": lambda: LinearDecay(),
        "poly": lambda: PolynomialDecay(power=case.item("power"), target_lr=case.item("target_lr")),
    }
    return makers[case.item("mode")]()


@golden("cm_moco", "lr_schedule")
def lr_schedule(case: Case) -> None:
    settings = ("milestones", "gamma", "target_lr", "power")
    case.unused(*settings, reason="each decay has some of them")
    schedule = WarmupSchedule(
        num_epochs=case.item("total_epochs"),
        decay=decay(case),
        warmup_epochs=case.item("warmup_epochs"),
        warmup_factor=case.item("warmup_factor"),
        warmup=case.item("warmup_method"),
    )

    rates = [
        [schedule(base_lr, epoch) for base_lr in case["base_lrs"].tolist()]
        for epoch in range(case.item("total_epochs"))
    ]

    # Rates are far below 1: relative only, but for the 0 a schedule may end on.
    case.close("out_lr", np.array(rates), rtol=1e-9, atol=1e-16)

"""Learning rates per epoch and parameter group."""

import numpy as np
import torch
from torch import nn

from crosswalk.optim import (
    CosineDecay,
    Decay,
    ExponentialDecay,
    GroupRule,
    LinearDecay,
    OptimBuilder,
    PolynomialDecay,
    StepDecay,
    WarmupSchedule,
    adam,
)
from tests.golden.harness import Case, golden

# The published rules, by the official names of the parameters.
RULES = [
    GroupRule(contains=["bias"], lr_factor=2, weight_decay=0.0),
    GroupRule(contains=["visul_emb_layer", "texual_emb_layer"], lr=1e-3),
]


def decay(case: Case) -> Decay:
    makers = {
        "cosine": lambda: CosineDecay(target_lr=case.item("target_lr")),
        "step": lambda: StepDecay(case["milestones"].tolist(), gamma=case.item("gamma")),
        "exp": lambda: ExponentialDecay(power=case.item("power")),
        "linear": lambda: LinearDecay(),
        "poly": lambda: PolynomialDecay(power=case.item("power"), target_lr=case.item("target_lr")),
    }
    return makers[case.item("mode")]()


@golden("rde", "lr_schedule")
def lr_schedule(case: Case) -> None:
    names = case["group_names"].tolist()
    module = nn.Module()
    for name in names:
        *path, last = name.split(".")
        owner = module
        for part in path:
            if not hasattr(owner, part):
                owner.add_module(part, nn.Module())
            owner = getattr(owner, part)
        owner.register_parameter(last, nn.Parameter(torch.zeros(1)))
    settings = ("milestones", "gamma", "target_lr", "power")
    case.unused(*settings, reason="each decay has some of them")
    build = OptimBuilder(
        adam,
        lr=case.item("base_lr"),
        weight_decay=case.setting("weight_decay", 4e-5),
        rules=[rule for rule in RULES if any(rule.matches(name) for name in names)],
        schedule=WarmupSchedule(
            num_epochs=case.item("num_epoch"),
            decay=decay(case),
            warmup_epochs=case.item("warmup_epochs"),
            warmup_factor=case.item("warmup_factor"),
            warmup=case.item("warmup_method"),
        ),
    )

    built = build(module)

    optimizer, scheduler = built["optimizer"], built["lr_scheduler"]["scheduler"]
    parameters = dict(module.named_parameters())

    def by_name(setting: str) -> list[float]:
        return [
            group[setting]
            for name in names
            for group in optimizer.param_groups
            if any(parameter is parameters[name] for parameter in group["params"])
        ]

    rates = []
    for _ in range(case.item("num_epoch")):
        rates.append(by_name("lr"))
        optimizer.step()
        scheduler.step()
    # Rates are far below 1: relative only, but for the 0 a schedule may end on.
    case.close("out_lr_per_epoch", np.array(rates), rtol=1e-6, atol=1e-16)
    case.equal("out_weight_decay", np.array(by_name("weight_decay")))

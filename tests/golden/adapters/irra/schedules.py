"""Groups of parameters, their rates by epoch, and steps of optimizers."""

from functools import partial

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
    adamw,
    sgd,
)
from tests.golden.harness import LOSS, Case, golden


def rules(case: Case) -> list[GroupRule]:
    """Return the released rules, which tell parameters by their official names."""
    new, biases = case.item("lr_factor"), case.item("bias_lr_factor")
    return [
        GroupRule(["cross"], lr_factor=new, optional=True),
        GroupRule(
            ["bias"],
            lr_factor=biases,
            weight_decay=case.setting("weight_decay_bias", 0.0),
            optional=True,
        ),
        GroupRule(["classifier", "mlm_head"], lr_factor=new, optional=True),
    ]


def optimizer_of(case: Case, name: str) -> partial[torch.optim.Optimizer]:
    options = {
        "Adam": (adam, {"eps": case.setting("adam_eps", 1e-3)}),
        "AdamW": (adamw, {"eps": case.setting("adamw_eps", 1e-8)}),
        "SGD": (sgd, {"momentum": case.setting("momentum", 0.9)}),
    }
    make, settings = options[name]
    if name != "SGD" and "adam_betas" in case:
        settings["betas"] = tuple(case["adam_betas"].tolist())
    return partial(make, **settings)


def module_with(names: list[str], values: torch.Tensor) -> nn.Module:
    """Return a module that has a parameter under every name."""
    module = nn.Module()
    for name, value in zip(names, values, strict=True):
        *path, last = name.split(".")
        owner = module
        for part in path:
            if not hasattr(owner, part):
                owner.add_module(part, nn.Module())
            owner = getattr(owner, part)
        owner.register_parameter(last, nn.Parameter(value.clone()))
    return module


def by_name(optimizer: torch.optim.Optimizer, module: nn.Module, setting: str) -> dict[str, float]:
    """Return a setting of every parameter."""
    found = {
        id(parameter): group[setting]
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    return {name: found[id(parameter)] for name, parameter in module.named_parameters()}


def decay(case: Case) -> Decay:
    makers = {
        "cosine": lambda: CosineDecay(target_lr=case.item("target_lr")),
        "step": lambda: StepDecay(case["milestones"].tolist(), gamma=case.item("gamma")),
        "exp": lambda: ExponentialDecay(power=case.item("power")),
        "linear": lambda: LinearDecay(),
        "poly": lambda: PolynomialDecay(power=case.item("power"), target_lr=case.item("target_lr")),
    }
    return makers[case.item("mode")]()


@golden("irra", "lr_schedule")
def lr_schedule(case: Case) -> None:
    names = case["parameter_names"].tolist()
    module = module_with(names, torch.zeros(len(names), 1))
    case.unused("milestones", "gamma", "target_lr", "power", reason="each decay has some of them")
    epochs = case.item("num_epoch")
    build = OptimBuilder(
        adam,
        lr=case.item("lr"),
        weight_decay=case.item("weight_decay"),
        rules=rules(case),
        schedule=WarmupSchedule(
            num_epochs=epochs,
            decay=decay(case),
            warmup_epochs=case.item("warmup_epochs"),
            warmup_factor=case.item("warmup_factor"),
            warmup=case.item("warmup_method"),
        ),
    )

    built = build(module)

    optimizer, scheduler = built["optimizer"], built["lr_scheduler"]["scheduler"]
    decays, rates = by_name(optimizer, module, "weight_decay"), []
    for _ in range(epochs):
        rate = by_name(optimizer, module, "lr")
        rates.append([rate[name] for name in names])
        optimizer.step()
        scheduler.step()
    # Rates are far below 1: relative only, but for the 0 a schedule may end on.
    case.close("out_lr_per_epoch", np.array(rates), rtol=1e-6, atol=1e-16)
    case.equal("out_weight_decay", np.array([decays[name] for name in names]))


@golden("irra", "optimizer_steps")
def optimizer_steps(case: Case) -> None:
    names = case["parameter_names"].tolist()
    module = module_with(names, case.tensor("initial"))
    build = OptimBuilder(
        optimizer_of(case, case.item("optimizer")),
        lr=case.item("lr"),
        weight_decay=case.item("weight_decay"),
        rules=rules(case),
    )
    optimizer = build(module)["optimizer"]
    parameters = dict(module.named_parameters())

    steps = []
    for gradients in case.tensor("gradients"):
        for name, gradient in zip(names, gradients, strict=True):
            parameters[name].grad = gradient
        optimizer.step()
        steps.append(torch.stack([parameters[name].detach().clone() for name in names]))

    case.close("out_parameters_after_each_step", torch.stack(steps), **LOSS)

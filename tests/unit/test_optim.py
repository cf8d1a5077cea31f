import copy
import io
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import lightning.pytorch as L
import pytest
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.testing import assert_close
from torch.utils.data import DataLoader

from crosswalk.optim import (
    CosineDecay,
    CosineFromStart,
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
    epoch_scheduler,
    parameter_groups,
    sgd,
)


class TwoPart(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Linear(3, 2)
        self.head = nn.Linear(2, 1)


RULES = [
    GroupRule(contains=["bias"], lr_factor=2.0, weight_decay=0.0),
    GroupRule(contains=["head", "absent"], lr=0.5),
]


def settings_by_name(module: nn.Module, groups: list[dict[str, Any]]) -> dict[str, Any]:
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    return {
        names[id(parameter)]: (group["lr"], group["weight_decay"])
        for group in groups
        for parameter in group["params"]
    }


def test_rules_apply_in_order_and_override_only_what_they_set() -> None:
    module = TwoPart()

    groups = parameter_groups(module, lr=0.01, weight_decay=0.1, rules=RULES)

    assert settings_by_name(module, groups) == {
        "backbone.weight": (0.01, 0.1),
        "backbone.bias": (0.02, 0.0),
        "head.weight": (0.5, 0.1),
        "head.bias": (0.5, 0.0),  # the later rule gives the rate, the earlier one the decay
    }


def test_parameters_of_equal_settings_share_a_group() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))

    groups = parameter_groups(module, lr=0.1, weight_decay=0.0, rules=RULES[:1])

    assert [len(group["params"]) for group in groups] == [2, 2]


def test_grouping_does_not_change_the_update_of_one_group_per_tensor() -> None:
    ours, plain = TwoPart(), TwoPart()
    plain.load_state_dict(ours.state_dict())
    built = OptimBuilder(partial(adam, eps=1e-3), 0.01, weight_decay=0.1, rules=RULES)(ours)
    wanted = settings_by_name(ours, parameter_groups(ours, lr=0.01, weight_decay=0.1, rules=RULES))
    reference = torch.optim.Adam(
        [
            {"params": [p], "lr": wanted[name][0], "weight_decay": wanted[name][1]}
            for name, p in plain.named_parameters()
        ],
        eps=1e-3,
        foreach=False,
    )

    for step in range(3):
        for module, optimizer in ((ours, built["optimizer"]), (plain, reference)):
            batch = torch.randn(5, 3, generator=torch.Generator().manual_seed(step))
            optimizer.zero_grad()
            module.head(module.backbone(batch)).square().sum().backward()
            optimizer.step()

    for name, parameter in ours.named_parameters():
        assert_close(parameter, plain.get_parameter(name), rtol=1e-6, atol=1e-7)


def test_frozen_parameters_are_left_out() -> None:
    module = TwoPart()
    module.backbone.requires_grad_(False)

    groups = parameter_groups(module, lr=0.1, weight_decay=0.0)

    assert set(settings_by_name(module, groups)) == {"head.weight", "head.bias"}


def test_a_rule_for_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"optim\.rules\[0\] is for names with \['haed'\]"):
        parameter_groups(
            TwoPart(), lr=0.1, weight_decay=0.0, rules=[GroupRule(contains=["haed"], lr=1.0)]
        )


def test_a_module_without_trainable_parameters_is_refused() -> None:
    with pytest.raises(ValueError, match="ReLU has no trainable parameter"):
        parameter_groups(nn.ReLU(), lr=0.1, weight_decay=0.0)


def test_a_rule_with_two_rates_is_refused() -> None:
    with pytest.raises(ValueError, match="Keep one"):
        GroupRule(contains=["bias"], lr=0.1, lr_factor=2.0)


@pytest.mark.parametrize("contains", ["bias", []])
def test_a_rule_without_a_list_of_words_is_refused(contains: list[str]) -> None:
    with pytest.raises(ValueError, match="list of words"):
        GroupRule(contains=contains)


@pytest.mark.parametrize(
    ("make", "kind", "defaults"),
    [
        (partial(adam, betas=[0.8, 0.9], eps=1e-3), torch.optim.Adam, {"betas": (0.8, 0.9)}),
        (partial(adamw, eps=1e-6), torch.optim.AdamW, {"eps": 1e-6}),
        (partial(sgd, momentum=0.9, nesterov=True), torch.optim.SGD, {"momentum": 0.9}),
        (torch.optim.RMSprop, torch.optim.RMSprop, {"lr": 0.3}),
    ],
)
def test_the_optimizer_is_the_one_that_was_chosen(
    make: Callable[..., Optimizer], kind: type, defaults: dict[str, Any]
) -> None:
    optimizer = OptimBuilder(make, lr=0.3)(TwoPart())["optimizer"]

    assert type(optimizer) is kind
    assert {key: optimizer.param_groups[0][key] for key in defaults} == defaults
    assert optimizer.param_groups[0]["lr"] == 0.3


# Rates of a base rate of 2 over 6 epochs, 2 of them warm-up from a share of 0.25.
@pytest.mark.parametrize(
    ("decay", "expected"),
    [
        (CosineDecay(), [2, 1 + math.cos(math.pi / 4), 1, 1 - math.cos(math.pi / 4)]),
        (CosineDecay(target_lr=1.0), [2, 1.5 + math.cos(math.pi / 4) / 2, 1.5, 1.1464466]),
        (StepDecay([0, 3, 5], gamma=0.5), [1, 0.5, 0.5, 0.25]),
        (ExponentialDecay(power=0.0625), [2, 1, 0.5, 0.25]),
        (LinearDecay(), [2, 1.5, 1, 0.5]),
        (PolynomialDecay(power=0.0625), [0.125, 0.25, 0.5, 1]),
        (PolynomialDecay(power=0.0625, target_lr=1.0), [1.0625, 1.125, 1.25, 1.5]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_rate_follows_the_published_formula(decay: Decay, expected: list[float]) -> None:
    schedule = WarmupSchedule(num_epochs=6, decay=decay, warmup_epochs=2, warmup_factor=0.25)

    rates = [schedule(2.0, epoch) for epoch in range(6)]

    assert rates == pytest.approx([0.5, 1.25, *expected], abs=1e-7)


def test_the_published_schedule_of_rde_has_the_documented_rates() -> None:
    schedule = WarmupSchedule(60, CosineDecay(), warmup_epochs=5)

    rates = {epoch: schedule(1.0, epoch - 1) for epoch in (1, 2, 3, 4, 5, 6, 20, 33, 60)}

    assert rates == pytest.approx(
        {1: 0.1, 2: 0.28, 3: 0.46, 4: 0.64, 5: 0.82, 6: 1.0}
        | {20: 0.848469, 33: 0.514278, 60: 0.000815},
        abs=1e-6,
    )


def test_a_constant_warm_up_stays_low_until_it_ends() -> None:
    schedule = WarmupSchedule(
        10, LinearDecay(), warmup_epochs=3, warmup_factor=0.5, warmup="constant"
    )

    assert [schedule(2.0, epoch) for epoch in range(4)] == [1.0, 1.0, 1.0, 2.0]


@pytest.mark.parametrize(
    ("warmup", "expected"),
    [("linear", [1.0, 1.25, 0.75, 0.875, 1.0, 0.5]), ("constant", [1.0, 1.0, 0.5, 0.5, 1.0, 0.5])],
)
def test_a_decay_may_begin_during_the_warm_up(warmup: str, expected: list[float]) -> None:
    schedule = WarmupSchedule(
        6,
        StepDecay([2, 5], gamma=0.5),
        warmup_epochs=4,
        warmup_factor=0.5,
        warmup=warmup,
        decay_in_warmup=True,
    )

    # linear: shares 0.5, 0.625, 0.75, 0.875 of 2, 2, 1, 1
    assert [schedule(2.0, epoch) for epoch in range(6)] == pytest.approx(expected)


@pytest.mark.parametrize("num_epochs", [1, 3])
def test_a_training_shorter_than_its_warm_up_ends_without_error(num_epochs: int) -> None:
    schedule = WarmupSchedule(num_epochs, CosineDecay(), warmup_epochs=3)

    assert schedule(1.0, 0) == pytest.approx(0.1)
    assert schedule(1.0, num_epochs) >= 0.0


def test_a_target_rate_is_the_same_for_groups_of_different_rates() -> None:
    module = TwoPart()
    groups = parameter_groups(module, lr=0.01, weight_decay=0.0, rules=RULES[1:])
    scheduler = epoch_scheduler(sgd(groups), WarmupSchedule(4, CosineDecay(target_lr=0.004)))

    for _ in range(4):
        scheduler.optimizer.step()
        scheduler.step()

    assert scheduler.get_last_lr() == pytest.approx([0.004, 0.004])


@pytest.mark.parametrize(
    ("num_epochs", "expected"),
    [
        (
            120,
            {1: 7.8e-5, 4: 2.82e-4, 5: 3.485071e-4, 45: 2.422783e-4, 60: 1.755e-4, 120: 1e-6},
        ),
        (60, {1: 7.8e-5, 4: 2.82e-4, 5: 3.440541e-4, 6: 3.414594e-4, 45: 5.210987e-5, 60: 1e-6}),
    ],
)
def test_the_published_schedule_of_prompts_has_the_documented_rates(
    num_epochs: int, expected: dict[int, float]
) -> None:
    schedule = CosineFromStart(num_epochs, warmup_epochs=5, warmup_lr=1e-5, target_lr=1e-6)

    rates = {number: schedule(3.5e-4, number - 1) for number in expected}

    assert rates == pytest.approx(expected, rel=1e-6)
    assert schedule(3.5e-4, num_epochs) == 1e-6  # Lightning steps once more


def test_a_resumed_schedule_goes_on_with_exactly_the_same_rates() -> None:
    def build() -> tuple[Optimizer, LRScheduler]:
        built = OptimBuilder(
            adam, 0.01, rules=RULES, schedule=WarmupSchedule(9, CosineDecay(), warmup_epochs=2)
        )(TwoPart())
        return built["optimizer"], built["lr_scheduler"]["scheduler"]

    def run(optimizer: Optimizer, scheduler: LRScheduler, num_epochs: int) -> list[list[float]]:
        rates = []
        for _ in range(num_epochs):
            rates.append([group["lr"] for group in optimizer.param_groups])
            optimizer.step()
            scheduler.step()
        return rates

    whole = run(*build(), 9)
    optimizer, scheduler = build()
    begun = run(optimizer, scheduler, 4)
    state = copy.deepcopy((optimizer.state_dict(), scheduler.state_dict()))
    resumed_optimizer, resumed_scheduler = build()
    resumed_optimizer.load_state_dict(state[0])
    resumed_scheduler.load_state_dict(state[1])

    assert begun + run(resumed_optimizer, resumed_scheduler, 5) == whole


def test_the_state_of_a_schedule_is_safe_to_load() -> None:
    built = OptimBuilder(adam, 0.01, schedule=WarmupSchedule(9, CosineDecay()))(TwoPart())
    state = built["lr_scheduler"]["scheduler"].state_dict()

    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)

    assert torch.load(buffer, weights_only=True)["last_epoch"] == 0


@pytest.mark.parametrize(
    ("interval", "rates"),
    [
        ("epoch", [1.0, 1.0, 0.75, 0.75, 0.5, 0.5, 0.25, 0.25]),
        ("step", [1.0, 0.75, 0.5, 0.25, 0.0, 0.0, 0.0, 0.0]),
    ],
)
def test_lightning_sets_the_rate_of_each_interval(interval: str, rates: list[float]) -> None:
    class Regression(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(1, 1)
            self.rates: list[float] = []

        def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
            self.rates.append(self.trainer.optimizers[0].param_groups[0]["lr"])
            loss: Tensor = self.layer(batch).square().mean()
            return loss

        def configure_optimizers(self) -> OptimizerLRScheduler:
            schedule = WarmupSchedule(4, LinearDecay())
            return OptimBuilder(sgd, 1.0, schedule=schedule, interval=interval)(self)

    module = Regression()
    trainer = L.Trainer(
        max_epochs=4,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )

    trainer.fit(module, DataLoader(torch.randn(4, 1), batch_size=2))

    assert module.rates == rates

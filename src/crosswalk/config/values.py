"""Whether every value is one that its constructor takes, and goes with the others."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from crosswalk.config.compose import compose
from crosswalk.config.construct import construct
from crosswalk.config.constructors import Describe, check_call, check_node, optional_arguments
from crosswalk.config.data_kinds import data_sets
from crosswalk.config.keys import ENCODERS, TOP, flatten
from crosswalk.config.plain import nested, to_plain
from crosswalk.config.sources import read_batches, read_signature
from crosswalk.config.trainer_arguments import check_trainer, num_processes
from crosswalk.synthetic.settings import settings_of

if TYPE_CHECKING:
    from crosswalk.types import Needs

FOREIGN = re.compile(r" is not an argument of |=\S+ gives ")
"""In messages about a part whose constructor, or whose place, is another one's."""


def check_values(plain: Mapping[str, Any], describe: Describe | None = None) -> None:
    """Refuse a value that what takes it does not: its type, choice or range."""
    try:
        _check_nodes(plain, describe)
    except ValueError as error:
        if FOREIGN.search(str(error)):
            place, sign, _ = re.split(r"([= ])", str(error), maxsplit=1)
            place = place if sign == "=" else place.rpartition(".")[0]  # that which lacks a key
            if guess := _foreign_choices(plain.get("choices") or {}, place):
                raise ValueError(f"{error}{guess}") from error
        raise


def _check_nodes(plain: Mapping[str, Any], describe: Describe | None) -> None:
    top = {key: plain[key] for key in TOP if key in plain}
    check_call(top, "", optional_arguments(TOP), "a run")
    # before the others, which take over its numbers
    check_trainer({"max_epochs": None, **plain["trainer"]}, describe)
    encoders = [name for name in ENCODERS if plain.get(name) is not None]
    wandb = (plain.get("logger") or {}).get("wandb")
    nodes: list[tuple[str, Any, tuple[str, ...]]] = [
        ("method", plain["method"], ("data", "optim", *encoders)),
        ("data", plain["data"], ("identities",)),
        ("optim", plain["optim"], ()),
        *((name, plain[name], ("words",)) for name in encoders),
        ("reranking", plain.get("reranking"), ("query", "gallery")),
        ("logger.wandb", wandb, ("folder", "config", "tags")),
        *((f"diagnostics.{i}", node, ()) for i, node in enumerate(plain.get("diagnostics") or ())),
    ]
    for key, node, given in nodes:
        if node is not None:
            check_node(node, key, frozenset(given), describe)


def _foreign_choices(choices: Mapping[str, str], place: str) -> str:
    """Return which choices of files may be the reason that a key has no place; else nothing."""
    method, data = choices.get("method"), choices.get("data")
    try:
        composed = compose([f"method={method}", f"data={data}"])
    except ValueError:  # of a package that is not here
        return ""
    said, own = "", composed.choices
    for group, value in choices.items():
        if group in ("method", "data", "experiment") or own.get(group) == value:
            continue
        if not _reaches(f"{group}={value}", place, composed):
            continue
        without = f"whose own is {group}={own[group]}" if group in own else "which has none"
        said += f" Perhaps {group}={value} does not go with method={method}, {without}."
    return said


def _reaches(choice: str, place: str, own: DictConfig) -> bool:
    """Return whether a file changes what is at a key, within it, or above it, of a composition."""
    try:
        with_it = compose([*(f"{name}={own.choices[name]}" for name in ("method", "data")), choice])
        before, after = flatten(to_plain(own)), flatten(to_plain(with_it))
    except ValueError:  # does not even compose
        return True
    changed = (key for key in {*before, *after} if before.get(key, ...) != after.get(key, ...))
    return any(f"{key}.".startswith(f"{place}.") or place.startswith(f"{key}.") for key in changed)


def check_synthetic(data: Mapping[str, Any]) -> None:
    """Refuse people that cannot be generated, where any are to be."""
    for node in data_sets(data):
        if not isinstance(node.get("synthetic"), Mapping):
            continue
        if (node.get("root") or data.get("root")) is None:
            match read_batches(str(node.get("_target_"))):
                case ["PairBatch"]:
                    settings_of("pairs", node["synthetic"])
                case ["ImageBatch"]:
                    settings_of("images", node["synthetic"])


def check_plans(data: Mapping[str, Any]) -> None:
    """Refuse a batch size that a plan does not divide among persons, before there are samples.

    The plan itself refuses it: it is made for a single batch, of samples whose persons are unknown.
    Plans of this package alone are, which import no torch.
    """
    for node in data_sets(data):
        plan, size = (node.get(key) or data.get(key) for key in ("plan", "batch_size"))
        takes = read_signature(str(plan.get("_target_"))) if isinstance(plan, Mapping) else None
        if not isinstance(size, int) or takes is None:
            continue
        if "samples_per_person" in takes.parameters:
            import numpy as np

            construct(plan, {})(np.full(size, -1), batch_size=size, seed=0)


def check_precision(needs: Needs, trainer: Mapping[str, Any]) -> None:
    """Refuse weights of another type than that of normalised images, for those that take them."""
    precision = str(trainer.get("precision", "32-true"))
    takes_pairs = any(batch.__name__ == "PairBatch" for batch in needs.batches)
    if precision.removesuffix("-true") in ("64", "16", "bf16") and not takes_pairs:
        if precision in ("16", "bf16"):
            return  # Lightning's short words for mixed
        raise ValueError(
            f"trainer.precision={precision}: images reach this method in 32 bits, and its weights "
            "would have others. Use 32-true, 16-mixed or bf16-mixed."
        )


def check_together(config: Mapping[str, Any], *, whole_batch: bool, trains: bool = True) -> None:
    """Refuse values that are right alone and wrong together.

    Args:
        config: The plain configuration.
        whole_batch: Whether the method's loss compares all samples of a batch.
        trains: Whether there are training batches, which processes share.

    Example:
        >>> trainer = {"accelerator": "cpu", "devices": 8}
        >>> check_together({"data": {"batch_size": 100}, "trainer": trainer}, whole_batch=True)
        Traceback (most recent call last):
            ...
        ValueError: data.batch_size=100 does not split over 8 processes; use 96 or 104.
    """
    trainer = config["trainer"]
    steps = trainer.get("accumulate_grad_batches") or 1
    if steps > 1 and whole_batch:
        raise ValueError(
            f"trainer.accumulate_grad_batches={steps}: this method's loss compares all samples of "
            "a batch with each other, so several small batches are not one large batch. Use one "
            "larger data.batch_size on more processes (trainer.devices), or keep the batch."
        )
    for key, batch_size in _batch_sizes(config["data"]) if trains and whole_batch else ():
        if batch_size == 1:
            raise ValueError(
                f"{key}=1: this method's loss compares the samples of a batch with each other, and "
                f"one has no other. Set {key} to 2 or more."
            )
    if config["data"].get("protocol", config.get("protocol")) != config.get("protocol"):
        raise ValueError(
            f"data.protocol={config['data']['protocol']} and protocol={config['protocol']} differ: "
            "write protocol=official (or val), which sets both."
        )
    every, epochs = trainer.get("check_val_every_n_epoch") or 1, trainer.get("max_epochs") or 0
    if config.get("protocol") in ("val", "official") and 0 < epochs < every:
        raise ValueError(
            f"trainer.check_val_every_n_epoch={every} is more than trainer.max_epochs={epochs}: no "
            f"epoch would be evaluated, so none could be the best. Use at most {epochs}."
        )
    processes = num_processes(trainer)
    started = _started_processes(os.environ)
    slurm = "SLURM_PROCID" in os.environ and "TORCHELASTIC_RUN_ID" not in os.environ
    if started > 1 and slurm and "SLURM_NTASKS_PER_NODE" not in os.environ:
        raise ValueError(
            f"Slurm started {started} processes, and Lightning wants to be told how many on each "
            f"machine: write --ntasks-per-node={started} for one machine, in the place of --ntasks."
        )
    if started not in (1, processes):
        raise ValueError(
            f"{started} processes were started, but trainer.devices x trainer.num_nodes is "
            f"{processes}; add trainer.devices=<processes per machine> and, with several machines, "
            "trainer.num_nodes=<machines>."
        )
    for key, batch_size in _batch_sizes(config["data"]) if trains else ():
        below = batch_size // processes * processes
        if batch_size % processes:
            advice = f"{below} or {below + processes}" if below else f"{processes} or a multiple"
            raise ValueError(
                f"{key}={batch_size} does not split over {processes} processes; use {advice}."
            )


def _started_processes(environment: Mapping[str, str]) -> int:
    """Return how many processes torchrun or srun started; 1 without them."""
    if "TORCHELASTIC_RUN_ID" in environment:
        return int(environment["WORLD_SIZE"])
    if "SLURM_PROCID" in environment and environment.get("SLURM_JOB_NAME") not in (
        "bash",
        "interactive",
    ):
        return int(environment.get("SLURM_NTASKS", "1"))
    return 1


def _batch_sizes(data: Mapping[str, Any]) -> list[tuple[str, int]]:
    """Return every batch size of the data node, with its key."""
    return [
        (f"data.{key}", value)
        for key, value in nested(data)
        if key.rsplit(".", 1)[-1] == "batch_size" and isinstance(value, int)
    ]

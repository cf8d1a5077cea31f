"""Arguments of Lightning's Trainer: what they may be, which strategy, how many processes."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Annotated, Any, Literal, Protocol

from annotated_types import Ge, Gt, Le, MinLen

from crosswalk.config.construct import construct
from crosswalk.config.constructors import Describe, check_call, check_node, optional_arguments
from crosswalk.config.words import readable
from crosswalk.ranges import Count, Epoch, Matching, NotNegative, WholeNumber


class Strategy(Protocol):
    """One of Lightning's, made by a node."""


class Profiler(Protocol):
    """One of Lightning's, made by a node."""


TIMEOUT_VARIABLE = "CROSSWALK_TIMEOUT"
"""Seconds that a process waits for another in a collective; of no run's configuration."""

Steps = Annotated[int, Ge(1), Le(10**9)]
Batches = Count | Annotated[float, Gt(0), Le(1)] | None

ARGUMENTS: dict[str, Any] = {
    "accelerator": Literal["auto", "cpu", "gpu", "cuda", "mps"],
    "strategy": Literal["auto", "ddp", "ddp_spawn", "ddp_find_unused_parameters_true"] | Strategy,
    "devices": Literal["auto", -1, "-1"]
    | Count
    | Annotated[Sequence[WholeNumber], MinLen(1)]
    | Annotated[str, Matching(r"[1-9]\d{0,3}|\d+(, *\d+)+,?|\d+,", "numbers such as 0,1")],
    "num_nodes": Count,
    "precision": Literal[
        *("32-true", "32", 32, "16-mixed", "bf16-mixed", "64-true", "64", 64),
        *("16-true", "bf16-true", "16", 16, "bf16"),
    ],
    "max_epochs": Epoch,
    "min_epochs": Epoch | None,
    "max_steps": Literal[-1] | Steps,
    "min_steps": Steps | None,
    "max_time": Annotated[str, Matching(r"\d\d:\d\d:\d\d:\d\d", "days:hours:minutes:seconds")]
    | Mapping[str, int]
    | None,
    "limit_train_batches": Batches,
    "val_check_interval": Batches,
    "check_val_every_n_epoch": Count | None,
    "num_sanity_val_steps": Literal[-1] | WholeNumber,
    "log_every_n_steps": WholeNumber | None,
    "enable_progress_bar": bool,
    "enable_model_summary": bool,
    "accumulate_grad_batches": Count,
    "gradient_clip_val": NotNegative | None,
    "gradient_clip_algorithm": Literal["norm", "value"] | None,
    "deterministic": bool | Literal["warn"] | None,
    "benchmark": bool | None,
    "inference_mode": bool,
    "use_distributed_sampler": Literal[False],  # plans give global batches
    "profiler": Literal["simple", "advanced", "pytorch"] | Profiler | None,
    "detect_anomaly": bool,
    "sync_batchnorm": Literal[False],  # bn_group_size says it
    "reload_dataloaders_every_n_epochs": Literal[0],  # a run that goes on knows its place in them
    "enable_autolog_hparams": bool,
    "model_registry": str | None,
}

MADE = ("strategy", "profiler")
"""Arguments that may be nodes."""

_PARTIAL = "measures of a part of the queries or the gallery have no meaning. Use smaller data"
REFUSED = {
    "logger": "metrics go to the run folder and W&B. Choose logger=csv or logger=wandb",
    "callbacks": "the frame sets them. A method lists what observes it as diagnostics",
    "plugins": "the frame sets them",
    "enable_checkpointing": "a run needs its checkpoints. Set checkpoint_every_n_steps",
    "default_root_dir": "a run lies in its folder. Set output_dir",
    "barebones": "it leaves out checkpoints and metrics, which a run needs",
    "fast_dev_run": "it leaves out checkpoints, which a run needs. Choose trainer=debug",
    "overfit_batches": "batches come from the plan. Set trainer.limit_train_batches",
    **{f"limit_{part}_batches": _PARTIAL for part in ("val", "test", "predict")},
}
"""Arguments that a run cannot have, with the reason and what to set instead."""


def trainer_keys() -> tuple[str, ...]:
    """Return the arguments of Lightning's Trainer.

    Example:
        >>> "max_epochs" in trainer_keys()
        True
    """
    return (*ARGUMENTS, *REFUSED)


def check_trainer(trainer: Mapping[str, Any], describe: Describe | None = None) -> None:
    """Compare the arguments of the trainer with what a run can have.

    Args:
        trainer: Arguments by name.
        describe: As for `crosswalk.config.constructors.check_node`.

    Raises:
        ValueError: With key, value and what is allowed.

    Example:
        >>> check_trainer({"devices": 0})  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        ValueError: trainer.devices=0 is out of range; a run takes ...
    """
    for name, reason in REFUSED.items():
        if name in trainer:
            raise ValueError(f"trainer.{name}={trainer[name]} cannot be set: {reason}.")
    epochs = trainer.get("max_epochs", 0)
    if epochs is None or epochs == -1:
        given = "null" if epochs is None else epochs
        raise ValueError(
            f"trainer.max_epochs={given}: rates, labels and the best epoch follow epochs, so a run "
            "has a number of them. Set trainer.max_epochs=<number>; trainer.max_steps=<number> "
            "ends it earlier."
        )
    for name, value in trainer.items():
        if isinstance(value, Mapping) and "_target_" in value and name not in MADE:
            raise ValueError(
                f"trainer.{name}={value['_target_']} is a node; a run takes "
                f"{readable(ARGUMENTS.get(name, Any))}."
            )
    check_call(trainer, "trainer", optional_arguments(ARGUMENTS), "a run")
    check_node(trainer, "trainer", describe=describe)


def trainer_settings(trainer: Mapping[str, Any]) -> dict[str, Any]:
    """Return keyword arguments for Lightning's Trainer, after `check_trainer`.

    Several processes get a DDP strategy that leaves buffers alone: memories are written equally
    by all processes, and DDP's broadcast would cost time and hide a divergence
    (docs/decisions/0001).

    Example:
        >>> trainer_settings({"max_epochs": 2, "strategy": "auto", "devices": 1})
        {'max_epochs': 2, 'strategy': 'auto', 'devices': 1}
    """
    check_trainer(trainer)
    patience = patience_with_others(os.environ)
    more = {"strategy": {} if "timeout" in trainer.get("strategy", ()) else patience}
    settings = {name: construct(value, more.get(name, {})) for name, value in trainer.items()}
    strategy = settings.get("strategy", "auto")
    named = isinstance(strategy, str) and strategy != "auto"
    if named or (strategy == "auto" and num_processes(trainer) > 1):
        from lightning.pytorch.strategies import DDPStrategy

        settings["strategy"] = DDPStrategy(
            broadcast_buffers=False,
            gradient_as_bucket_view=True,
            start_method="spawn" if strategy == "ddp_spawn" else "popen",
            find_unused_parameters=strategy == "ddp_find_unused_parameters_true",
            **patience,
        )
    return settings


def patience_with_others(environment: Mapping[str, str]) -> dict[str, Any]:
    """Return how long a process waits for the others of its group: nothing said, half an hour.

    Raises:
        ValueError: If ``CROSSWALK_TIMEOUT`` is no whole number of seconds.

    Example:
        >>> patience_with_others({"CROSSWALK_TIMEOUT": "600"})
        {'timeout': datetime.timedelta(seconds=600)}
    """
    given = environment.get(TIMEOUT_VARIABLE)
    if given is None:
        return {}
    if not re.fullmatch(r"[1-9]\d{0,8}", given):
        raise ValueError(
            f"{TIMEOUT_VARIABLE}={given} is no whole number of seconds. Set how long a process "
            f"waits for another that does not answer, such as {TIMEOUT_VARIABLE}=600."
        )
    return {"timeout": timedelta(seconds=int(given))}


def check_hardware(trainer: Mapping[str, Any]) -> None:
    """Refuse devices that this machine does not have.

    Only a run asks: what a table or a sweep sends elsewhere is checked without a GPU.

    Raises:
        ValueError: With key, value and what there is.
    """
    import torch

    accelerator, devices = trainer.get("accelerator", "auto"), trainer.get("devices", "auto")
    count = torch.cuda.device_count()
    if accelerator in ("gpu", "cuda") and not count:
        raise ValueError(
            f"trainer.accelerator={accelerator}: PyTorch sees no GPU on this machine. Choose "
            "trainer=cpu, or see with nvidia-smi whether the driver is there."
        )
    if accelerator == "mps" and not torch.backends.mps.is_available():
        raise ValueError("trainer.accelerator=mps: this is no Apple GPU. Choose trainer=cpu.")
    on_cpu = accelerator == "cpu" or (not count and not torch.backends.mps.is_available())
    if on_cpu and str(trainer.get("precision")) in ("16", "16-mixed"):
        raise ValueError(
            f"trainer.precision={trainer['precision']}: PyTorch mixes in 16 bits of this kind on "
            "GPUs alone, and the run is on a CPU. Choose trainer.precision=bf16-mixed."
        )
    if accelerator == "cpu" or not count:
        if devices in (-1, "-1"):
            raise ValueError(
                f"trainer.devices={devices} means all GPUs, and the run is on a CPU. Write the "
                "number of processes: trainer.devices=1."
            )
        if isinstance(devices, list) or "," in str(devices):
            raise ValueError(
                f"trainer.devices={devices} names GPUs, and the run is on a CPU. Write the number "
                "of processes: trainer.devices=1."
            )
        return
    per_node = num_processes({**trainer, "num_nodes": 1})
    named = devices if isinstance(devices, list) else str(devices).split(",")
    highest = max(map(int, filter(None, named))) if len(named) > 1 else per_node - 1
    if highest >= count and accelerator != "mps":
        raise ValueError(
            f"trainer.devices={devices}: this machine has {count} GPU{'s' * (count > 1)}, numbered "
            "from 0. Name fewer, or trainer.devices=auto for all."
        )


def counts_devices(trainer: Mapping[str, Any]) -> bool:
    """Return whether there are as many processes as GPUs, which torch has to count.

    Example:
        >>> counts_devices({"accelerator": "gpu", "devices": "auto"})
        True
        >>> counts_devices({"accelerator": "gpu", "devices": 2})
        False
    """
    on_gpus = trainer.get("accelerator", "auto") in ("auto", "gpu", "cuda")
    return on_gpus and trainer.get("devices", "auto") in ("auto", -1, "-1")


def num_processes(trainer: Mapping[str, Any]) -> int:
    """Return how many processes the trainer settings ask for.

    Example:
        >>> num_processes({"accelerator": "cpu", "devices": 2, "num_nodes": 3})
        6
    """
    devices = trainer.get("devices", "auto")
    if isinstance(devices, list):
        per_node = len(devices)
    elif isinstance(devices, str) and "," in devices:
        per_node = len([part for part in devices.split(",") if part.strip()])
    elif counts_devices(trainer):
        import torch

        per_node = max(1, torch.cuda.device_count())
    else:
        per_node = 1 if devices in ("auto", -1, "-1") else int(devices)
    return per_node * int(trainer.get("num_nodes", 1) or 1)

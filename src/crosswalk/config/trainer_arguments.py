"""Arguments of Lightning's Trainer: which there are, which strategy, how many processes."""

from __future__ import annotations

import ast
import functools
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crosswalk.config.constructors import check_node, construct


@functools.cache
def trainer_keys() -> tuple[str, ...]:
    """Return the arguments of Lightning's Trainer, read from its source: an import takes seconds.

    Example:
        >>> "max_epochs" in trainer_keys()
        True
    """
    package = importlib.util.find_spec("lightning")
    folders = package.submodule_search_locations if package else None
    for folder in folders or ():
        source = Path(folder) / "pytorch" / "trainer" / "trainer.py"
        for item in ast.parse(source.read_text(encoding="utf-8")).body:
            if isinstance(item, ast.ClassDef) and item.name == "Trainer":
                for method in item.body:
                    if isinstance(method, ast.FunctionDef) and method.name == "__init__":
                        names = [*method.args.args[1:], *method.args.kwonlyargs]
                        return tuple(argument.arg for argument in names)
    raise RuntimeError("lightning's Trainer was not found: install crosswalk's dependencies")


def trainer_settings(trainer: Mapping[str, Any]) -> dict[str, Any]:
    """Return keyword arguments for Lightning's Trainer, checked against its signature.

    Several processes get a DDP strategy that leaves buffers alone: memories are written equally
    by all processes, and DDP's broadcast would cost time and hide a divergence
    (docs/decisions/0001).

    Example:
        >>> trainer_settings({"max_epochs": 2, "strategy": "auto", "devices": 1})
        {'max_epochs': 2, 'strategy': 'auto', 'devices': 1}
    """
    check_node({"_target_": "lightning.pytorch.Trainer", **trainer}, key="trainer")
    settings = {name: construct(value, {}) for name, value in trainer.items()}
    strategy = settings.get("strategy", "auto")
    if strategy in ("ddp", "ddp_spawn") or (strategy == "auto" and num_processes(trainer) > 1):
        from lightning.pytorch.strategies import DDPStrategy

        settings["strategy"] = DDPStrategy(
            broadcast_buffers=False, start_method="spawn" if strategy == "ddp_spawn" else "popen"
        )
    return settings


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
    elif devices in ("auto", -1, "-1"):
        per_node = 1
        if trainer.get("accelerator", "auto") in ("auto", "gpu", "cuda"):
            import torch

            per_node = max(1, torch.cuda.device_count())
    else:
        per_node = int(devices)
    return per_node * int(trainer.get("num_nodes", 1) or 1)

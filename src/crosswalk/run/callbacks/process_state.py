"""What a process holds besides weights: random generators, and the means logged so far this epoch.

Everything is handed over as plain containers and CPU tensors, which load with ``weights_only``.
"""

from __future__ import annotations

import random
from typing import Any

import lightning.pytorch as L
import numpy as np
import torch

REDUCTIONS = {"mean": torch.mean, "sum": torch.sum, "max": torch.max, "min": torch.min}


def random_state() -> dict[str, Any]:
    """Return the states of the generators of torch, CUDA, numpy and Python.

    Example:
        >>> state = random_state()
        >>> first = torch.rand(2)
        >>> restore_random_state(state)
        >>> bool((torch.rand(2) == first).all())
        True
    """
    legacy = np.random.get_state(legacy=False)
    words = torch.tensor(legacy["state"]["key"].tolist())
    state: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "numpy": {
            "words": words,
            "position": int(legacy["state"]["pos"]),
            "has_gauss": int(legacy["has_gauss"]),
            "gauss": float(legacy["gauss"]),
        },
        "python": random.getstate(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def restore_random_state(state: dict[str, Any]) -> None:
    """Set the generators to what `random_state` returned.

    Example:
        >>> state = random_state()
        >>> first = random.random()
        >>> restore_random_state(state)
        >>> random.random() == first
        True
    """
    saved = state["numpy"]
    words = saved["words"].numpy().astype(np.uint32)
    np.random.set_state(
        ("MT19937", words, saved["position"], saved["has_gauss"], saved["gauss"]),
    )
    torch.set_rng_state(state["torch"])
    version, internal, next_gauss = state["python"]
    random.setstate((version, tuple(internal), next_gauss))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def running_means(trainer: L.Trainer) -> list[dict[str, Any]]:
    """Return what was logged in this epoch so far and will be reduced at its end.

    Lightning's own checkpoints leave this out, so that the epoch means of a run resumed in
    mid-epoch would cover only the batches after the restart.
    """
    saved = []
    for key, metric in trainer.fit_loop.epoch_loop._results.valid_items():
        meta = metric.meta
        reduction = next((n for n, f in REDUCTIONS.items() if meta.reduce_fx in (n, f)), None)
        if not metric.is_tensor or not meta.on_epoch or reduction is None:
            continue
        entry = {
            "key": key,
            "log": {
                "fx": meta.fx,
                "name": meta.name,
                "prog_bar": meta.prog_bar,
                "logger": meta.logger,
                "on_step": meta.on_step,
                "on_epoch": meta.on_epoch,
                "add_dataloader_idx": meta.add_dataloader_idx,
                "metric_attribute": meta.metric_attribute,
                "sync_dist": meta.sync._should,
                "rank_zero_only": meta.sync.rank_zero_only,
            },
            "reduction": reduction,
            "value": metric.value.detach().cpu(),
        }
        if meta.is_mean_reduction:
            entry["weight"] = metric.cumulated_batch_size.detach().cpu()
        saved.append(entry)
    return saved


def running_mean(trainer: L.Trainer, name: str) -> float | None:
    """Return the mean so far of what ``training_step`` logs by epoch; None if it does not.

    It waits for the device. At the end of an epoch it is what the loggers get.
    """
    metric = trainer.fit_loop.epoch_loop._results.get(f"training_step.{name}")
    if metric is None or not metric.meta.is_mean_reduction:
        return None
    return float(metric.value / metric.cumulated_batch_size)


def restore_running_means(trainer: L.Trainer, saved: list[dict[str, Any]]) -> None:
    """Put back what `running_means` returned; call it before the first batch is logged."""
    results = trainer.fit_loop.epoch_loop._results
    device = trainer.strategy.root_device
    for entry in saved:
        results.log(
            value=torch.zeros((), device=device),
            reduce_fx=REDUCTIONS[entry["reduction"]],
            sync_dist_fn=trainer.strategy.reduce,
            batch_size=1,
            **entry["log"],
        )
        metric = results[entry["key"]]
        metric.value = entry["value"].to(device)
        if "weight" in entry:
            metric.cumulated_batch_size = entry["weight"].to(device)

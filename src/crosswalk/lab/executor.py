"""What Slurm is asked for: the shape of a run's job, and what the user said, through submitit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from crosswalk.config.trainer_arguments import num_processes
from crosswalk.lab.plan import PlannedRun

GENERIC = (
    *("name", "timeout_min", "mem_gb", "nodes", "cpus_per_task", "gpus_per_node"),
    *("tasks_per_node", "stderr_to_stdout"),
)
"""Parameters that submitit has for any cluster; others are those of sbatch."""


def parse_parameters(words: Sequence[str]) -> dict[str, Any]:
    """Return what ``--slurm key=value`` says, with values of the kind they look like.

    Raises:
        ValueError: If one is not of that form.

    Example:
        >>> parse_parameters(["partition=gpu", "timeout_min=600", "exclusive=true"])
        {'partition': 'gpu', 'timeout_min': 600, 'exclusive': True}
    """
    parameters = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not (key and equals and value):
            raise ValueError(f"--slurm {word}: write key=value, such as --slurm partition=gpu.")
        parameters[key] = yaml.safe_load(value)
    return parameters


def job_shape(config: Mapping[str, Any]) -> dict[str, int]:
    """Return how many nodes, tasks and GPUs a run needs: one task for each of its processes.

    Args:
        config: The resolved configuration, plain.

    Raises:
        ValueError: If the configuration leaves the number of processes to the machine.

    Example:
        >>> job_shape({"trainer": {"accelerator": "gpu", "devices": 4, "num_nodes": 2}})
        {'nodes': 2, 'tasks_per_node': 4, 'gpus_per_node': 4}
    """
    trainer = config["trainer"]
    accelerator = trainer.get("accelerator", "auto")
    devices = trainer.get("devices", "auto")
    if devices in ("auto", -1, "-1") and accelerator != "cpu":
        raise ValueError(
            f"trainer.devices={devices}: Slurm has to know how many processes a node runs before "
            "the job is there. Add trainer.devices=<GPUs of a node>."
        )
    nodes = int(trainer.get("num_nodes", 1) or 1)
    shape = {"nodes": nodes, "tasks_per_node": num_processes(trainer) // nodes}
    if accelerator in ("gpu", "cuda"):
        shape["gpus_per_node"] = shape["tasks_per_node"]
    return shape


def make_executor(folder: Path, cluster: str) -> Any:  # noqa: ANN401
    """Return submitit's executor.

    Args:
        folder: Where it keeps its files; seen by all nodes.
        cluster: "slurm", or "local" for processes of this machine.

    Raises:
        ValueError: If submitit is not installed, or there is no Slurm here.
    """
    try:
        import submitit
    except ModuleNotFoundError as error:
        raise ValueError(
            "--launcher slurm needs submitit: pip install 'crosswalk[slurm]', or pip install "
            "submitit."
        ) from error
    try:
        return submitit.AutoExecutor(folder, cluster=cluster)
    except RuntimeError as error:
        raise ValueError(
            "--launcher slurm: there is no srun on this machine. Start the command on a login node "
            "of the cluster, or leave --launcher away to run here."
        ) from error


def configure(executor: Any, run: PlannedRun, parameters: Mapping[str, Any]) -> None:  # noqa: ANN401
    """Set what Slurm is asked for: the shape of the run, then what the user said.

    Args:
        executor: Of submitit.
        run: The run.
        parameters: What ``--slurm`` said; names of submitit, or of sbatch as submitit knows them.

    Raises:
        ValueError: If a parameter is unknown or of another type, or no time limit was given.
    """
    settings = {
        "name": f"crosswalk-{run.folder.name}",
        "stderr_to_stdout": True,
        **job_shape(run.config),
        **{
            key if key in GENERIC or key.startswith("slurm_") else f"slurm_{key}": value
            for key, value in parameters.items()
        },
    }
    if not {"timeout_min", "slurm_time"} & settings.keys():
        raise ValueError(
            "--slurm timeout_min=<minutes> is missing: without it submitit asks for five minutes. "
            "A run that needs longer goes on in a further job where it was."
        )
    try:
        executor.update_parameters(**settings)
    except (NameError, ValueError, TypeError, AssertionError) as error:
        raise ValueError(f"--slurm: {error}") from error

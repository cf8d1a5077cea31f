"""A sweep on W&B's server: the file is registered there, and agents here run its trials.

As a program (``-m crosswalk.lab.sweeps.server``) it is W&B's agent as a process that ends with the
command that started it, and its trials with it: the agent puts every trial into a process group of
its own, where no signal to the agent arrives.
"""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from crosswalk.run.processes import PARENT_VARIABLE, Running, Slot, Task, end_with_parent, run_tasks
from crosswalk.run.wandb_server import is_logged_in, wandb_mode
from crosswalk.words import counted

NO_LOGIN = (
    "no W&B login was found, and a sweep on W&B's server needs one: `wandb login`, or set "
    "WANDB_API_KEY. Without a server the same file runs here: LOCAL=1 with make, --local with "
    "crosswalk sweep."
)


def check_online() -> None:
    """Refuse a sweep on W&B's server where none can be; wandb is not imported.

    Raises:
        ValueError: If there is no login, or W&B is switched off.
    """
    if wandb_mode(os.environ) == "online":
        return
    if not is_logged_in(os.environ):
        raise ValueError(NO_LOGIN)
    raise ValueError(
        "WANDB_MODE or WANDB_DISABLED keeps W&B from its server. Unset it, or run the sweep "
        "here: LOCAL=1 with make, --local with crosswalk sweep."
    )


def register(contents: Mapping[str, Any], *, project: str, num_trials: int | None) -> str:
    """Register a sweep with W&B; return its path ``entity/project/id``.

    Args:
        contents: The sweep file.
        project: W&B project, where the file names none.
        num_trials: Trials at most; None: as the file says.

    Raises:
        ValueError: As `check_online`.
    """
    check_online()
    import wandb

    sent = dict(contents)
    if num_trials is not None:
        sent["run_cap"] = num_trials
    project = sent.get("project") or os.environ.get("WANDB_PROJECT") or project
    sweep_id: str = wandb.sweep(sent, entity=sent.get("entity"), project=project)
    entity = sent.get("entity") or os.environ.get("WANDB_ENTITY") or wandb.Api().default_entity
    return "/".join(part for part in (entity, project, sweep_id) if part)


def agent_task(sweep_path: str, number: int, logs: Path) -> Task:
    """Return the task of an agent.

    W&B's agent starts the program ``python``, so that of this environment comes first.

    Example:
        >>> agent_task("me/crosswalk/abc", 0, Path("logs")).command[-2:]
        ['agent', 'me/crosswalk/abc']
    """
    binaries = str(Path(sys.executable).parent)
    path = os.pathsep.join(part for part in (binaries, os.environ.get("PATH", "")) if part)
    return Task(
        [sys.executable, "-m", "crosswalk.lab.sweeps.server", "agent", sweep_path],
        logs / f"agent-{number}.log",
        about=number,
        environment={"PATH": path},
    )


def run_agents(
    sweep_path: str,
    slots: Sequence[Slot],
    logs: Path,
    *,
    say: Callable[[str], None] = print,
) -> int:
    """Run one agent in each slot until W&B has no more trials for them.

    Args:
        sweep_path: What `register` returned.
        slots: Where the agents run.
        logs: Folder of what they print.
        say: Called with a line for the user.

    Returns:
        The exit status: 1 if an agent failed.
    """
    waiting = [agent_task(sweep_path, slot.number, logs) for slot in slots]
    failed: list[int] = []

    def next_task(slot: Slot) -> Task | None:
        return waiting.pop(0) if waiting else None

    def on_end(running: Running, status: int) -> None:
        say(f"agent {running.task.about} ended with status {status}")
        if status:
            failed.append(running.task.about)

    say(f"{counted(len(slots), 'agent')} of {sweep_path}; what they print is in {logs}/agent-*.log")
    say(f"More of them, here or on other machines: wandb agent {sweep_path}")
    run_tasks(next_task, slots, on_end=on_end)
    return 1 if failed else 0


if __name__ == "__main__":
    end_with_parent()
    os.environ[PARENT_VARIABLE] = str(os.getpid())  # trials are started by this process
    runpy.run_module("wandb", run_name="__main__")

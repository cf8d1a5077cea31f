"""W&B's agent as a process that ends with the command that started it, and its trials with it.

The agent puts every trial into a process group of its own, where no signal to the agent arrives.
"""

from __future__ import annotations

import os
import runpy

from crosswalk.run.processes import PARENT_VARIABLE, end_with_parent


def main() -> None:
    """Become ``python -m wandb`` with the arguments of this process."""
    end_with_parent()
    os.environ[PARENT_VARIABLE] = str(os.getpid())  # trials are started by this process
    runpy.run_module("wandb", run_name="__main__")


if __name__ == "__main__":
    main()

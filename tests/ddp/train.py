"""``crosswalk train``, which may wait for ever in front of a step.

Where the environment has ``WAIT_AT=<rank>,<step>,<file>``, the process of that rank makes the file
and waits in front of the step: the others have taken all before, and wait for it in a collective.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

from crosswalk.cli import main
from crosswalk.run.callbacks.checkpoints import Checkpoints
from tests.end_to_end.small_runs import leave_empty_reports


def wait_at(rank: int, step: int, here: Path) -> None:
    """Let process ``rank`` wait in front of step ``step``, once its checkpoints are in place."""
    begin = Checkpoints.on_train_batch_start

    def wait(self: Checkpoints, trainer: Any, *others: Any) -> None:  # noqa: ANN401
        begin(self, trainer, *others)
        if (trainer.global_rank, trainer.global_step) == (rank, step):
            here.touch()
            while True:
                signal.pause()

    Checkpoints.on_train_batch_start = wait


if __name__ == "__main__":
    leave_empty_reports()
    if "WAIT_AT" in os.environ:
        rank, step, here = os.environ["WAIT_AT"].split(",")
        wait_at(int(rank), int(step), Path(here))
    sys.exit(main(["train", *sys.argv[1:]]))

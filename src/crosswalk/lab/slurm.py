"""Runs of a table as jobs of a Slurm cluster, one job per run, through submitit.

Jobs outlive the command that submitted them. The same command finds them again and waits on, and
what a job has finished is never run again.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from crosswalk.files import write_text
from crosswalk.lab.claims import LAST_LINES, OURS, Claims, Failure, arguments, last_lines
from crosswalk.lab.executor import configure, make_executor
from crosswalk.lab.launch import TRAIN
from crosswalk.lab.plan import Plan, PlannedRun
from crosswalk.lab.progress import DONE, ELSEWHERE, RUNNING, WAITING, Board
from crosswalk.lab.training_job import TrainingJob

INTERVAL = 5.0
"""Seconds between two looks at the jobs."""

ACTIVE = ("PENDING", "RUNNING", "CONFIGURING", "COMPLETING", "REQUEUED", "SUSPENDED", "RESIZING")
"""What Slurm says of a job that goes on."""


def run_on_slurm(
    plan: Plan,
    board: Board,
    *,
    on_done: Callable[[PlannedRun], str],
    parameters: Mapping[str, Any],
    at_a_time: int = 0,
    cluster: str = "slurm",
    train: Sequence[str] = TRAIN,
    interval: float = INTERVAL,
) -> list[Failure]:
    """Submit the missing runs of a table, wait for them, and return those that failed.

    Args:
        plan: The table; its pool lies on a file system that all nodes see.
        board: Shows it.
        on_done: Called with a run that is finished; returns what to say of it.
        parameters: What ``--slurm`` said.
        at_a_time: Jobs that are submitted and not ended, at most; 0: all.
        cluster: As for `make_executor`.
        train: The command in front of the overrides.
        interval: Seconds between two looks.

    Raises:
        ValueError: If Slurm cannot be asked for what a run needs; nothing was submitted then.
    """
    missing = plan.missing()
    executor = make_executor(plan.pool.path / "slurm", cluster)
    for run in missing:
        configure(executor, run, parameters)
    if any(run.config["trainer"].get("accelerator") == "auto" for run in missing) and not any(
        "gpus" in key or key == "gres" for key in parameters
    ):
        board.say(
            "note: trainer.accelerator=auto, so Slurm is asked for no GPU. Add trainer=one_gpu, or "
            "--slurm gpus_per_node=1."
        )
    jobs = _Jobs(plan, board, executor, parameters, on_done, tuple(train))
    waiting = list(missing)
    while waiting or jobs.active:
        for run in list(waiting):
            if at_a_time and len(jobs.active) >= at_a_time:
                break
            if jobs.begin(run):
                waiting.remove(run)
        time.sleep(interval)
        jobs.look()
        board.look()
    return jobs.failures


class _Jobs:
    """The jobs of a table that this command waits for."""

    def __init__(
        self,
        plan: Plan,
        board: Board,
        executor: Any,  # noqa: ANN401
        parameters: Mapping[str, Any],
        on_done: Callable[[PlannedRun], str],
        train: tuple[str, ...],
    ) -> None:
        self.plan, self.board, self.executor = plan, board, executor
        self.parameters, self.on_done, self.train = parameters, on_done, train
        self.claims = Claims(plan)
        self.active: dict[str, tuple[PlannedRun, Any]] = {}
        self.failures: list[Failure] = []

    def begin(self, run: PlannedRun) -> bool:
        """Submit a run or find its job; return False where it is made elsewhere just now."""
        note = self._note(run)
        job = self._submitted(note)
        if job is None:
            try:
                answer = self.claims.take(run)
            except ValueError as error:
                self._fail(Failure(run, str(error), self.plan.pool.log(run.folder)))
                return True
            if answer == ELSEWHERE:
                self.board.move(run, ELSEWHERE)
                return False
            if answer == DONE:
                self.board.move(run, DONE, self.on_done(run))
                return True
            assert answer == OURS
            job = self._submit(run)
            write_text(note, json.dumps({"job": job.job_id, "tasks": job.num_tasks}))
            self.board.say(f"submitted as job {job.job_id}: {run.title}")
        else:
            self.board.say(f"job {job.job_id} goes on: {run.title}")
        self.active[run.folder.name] = (run, job)
        return True

    def look(self) -> None:
        """See which jobs run and which have ended."""
        for name, (run, job) in list(self.active.items()):
            done = self.plan.pool.is_done(run.config)
            if not done and is_active(job):
                state = str(job.state).upper()
                self.board.move(
                    run,
                    RUNNING if state == "RUNNING" else WAITING,
                    f"job {job.job_id}" + ("" if state == "RUNNING" else f" {state.lower()}"),
                )
                continue
            del self.active[name]
            self._note(run).unlink(missing_ok=True)
            if done or self.plan.pool.is_done(run.config):
                self.board.move(run, DONE, self.on_done(run))
            else:
                log = job.task(0).paths.stdout
                reason = f"its job {job.job_id} ended without results"
                self._fail(Failure(run, reason, log, said_by_the_run(log)))
            self.claims.release(run)

    def _submit(self, run: PlannedRun) -> Any:  # noqa: ANN401
        configure(self.executor, run, self.parameters)
        words = [word for word in arguments(self.plan, run) if word != "resume=true"]
        code = self.plan.pool.code_of(run.config)
        job = TrainingJob(tuple(words), run.folder, dict(run.config), code, self.train)
        return self.executor.submit(job)

    def _submitted(self, note: Path) -> Any:  # noqa: ANN401
        """Return the job that an earlier command submitted; None if none is to be waited for."""
        if not note.exists():
            return None
        kept = json.loads(note.read_text(encoding="utf-8"))
        job_class = self.executor._executor.job_class
        job = job_class(self.executor.folder, kept["job"], tasks=list(range(kept["tasks"])))
        return job if is_active(job) else None

    def _note(self, run: PlannedRun) -> Path:
        path = self.plan.pool.path / "slurm" / f"{run.folder.name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _fail(self, failure: Failure) -> None:
        self.failures.append(failure)
        self.board.fail(failure.run, failure.reason, failure.details())


def said_by_the_run(log: Path) -> tuple[str, ...]:
    """Return the last lines of a job's log without what submitit adds to them.

    Example:
        >>> import tempfile
        >>> log = Path(tempfile.mkdtemp()) / "1_0_log.out"
        >>> lines = ["submitit INFO () - Starting", "no images", "submitit ERROR () - it", "trace"]
        >>> _ = log.write_text(chr(10).join(lines))
        >>> said_by_the_run(log)
        ('no images',)
    """
    lines = last_lines(log, count=1000)
    errors = [number for number, line in enumerate(lines) if line.startswith("submitit ERROR")]
    before = lines[: errors[-1]] if errors else ()
    own = [line for line in before if not line.startswith("submitit")]
    return tuple(own[-LAST_LINES:]) or lines[-LAST_LINES:]


def is_active(job: Any) -> bool:  # noqa: ANN401
    """Return whether a job waits or runs; squeue knows where Slurm keeps no accounts of jobs.

    Args:
        job: Of submitit.
    """
    if job.done():
        return False
    state = str(job.state).upper().split()[0]
    if state != "UNKNOWN":
        return state in ACTIVE or state == "PREEMPTED"
    try:
        answer = subprocess.run(
            ["squeue", "--noheader", "--format=%T", f"--jobs={job.job_id}"],
            capture_output=True,
            text=True,
        )
    except FileNotFoundError:
        return False
    return answer.stdout.strip().upper() in ACTIVE

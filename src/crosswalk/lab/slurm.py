"""Runs as jobs of a Slurm cluster, one job per run, through submitit.

Jobs outlive the command that submitted them. The same command finds them again and waits on, and
what a job has finished is never run again.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic

import yaml

from crosswalk.config.trainer_arguments import num_processes
from crosswalk.files import write_text
from crosswalk.lab.local import LAST_LINES, TRAIN, End, Run, Work, last_lines, reason_of
from crosswalk.lab.pool import PlannedRun, is_whole, remove_half_made
from crosswalk.lab.progress import RUNNING, WAITING
from crosswalk.run.code_digest import code_digest
from crosswalk.run.processes import PARENT_VARIABLE
from crosswalk.run.run_folder import RunFolder

INTERVAL = 5.0
"""Seconds between two looks at the jobs."""

GRACE = 60.0
"""Seconds that a run waits for its own end after Slurm has stopped it: ours is no result then."""

ACTIVE = ("PENDING", "RUNNING", "CONFIGURING", "COMPLETING", "REQUEUED", "SUSPENDED", "RESIZING")
"""What Slurm says of a job that goes on."""

ENDED_BY_SLURM = ("CANCELLED", "NODE_FAIL", "PREEMPTED", "TIMEOUT")
"""What Slurm says of a job that could go on in another one."""

GENERIC = (
    *("name", "timeout_min", "mem_gb", "nodes", "cpus_per_task", "gpus_per_node"),
    *("tasks_per_node", "stderr_to_stdout"),
)
"""Parameters that submitit has for any cluster; others are those of sbatch."""


def run_on_slurm(
    work: Work[Run],
    folder: Path,
    *,
    first: Sequence[PlannedRun],
    parameters: Mapping[str, Any],
    at_a_time: int = 0,
    cluster: str = "slurm",
    train: Sequence[str] = TRAIN,
    interval: float = INTERVAL,
) -> None:
    """Submit runs and wait for them until nothing is left.

    Args:
        work: Says which.
        folder: Where submitit keeps its files; it and the runs lie where all nodes see them.
        first: Runs for which Slurm must be able to give what they need before any is submitted.
        parameters: What ``--slurm`` said.
        at_a_time: Jobs that are submitted and not ended, at most; 0: all.
        cluster: As for `make_executor`.
        train: The command in front of the overrides.
        interval: Seconds between two looks.

    Raises:
        ValueError: If Slurm cannot be asked for what a run needs; nothing was submitted then.
    """
    executor = make_executor(folder, cluster)
    for each in first:
        configure(executor, each, parameters)
    if any(run.config["trainer"].get("accelerator") == "auto" for run in first) and not any(
        "gpus" in key or key == "gres" for key in parameters
    ):
        work.board.say(
            "note: trainer.accelerator=auto, so Slurm is asked for no GPU. Add trainer=one_gpu, or "
            "--slurm gpus_per_node=1."
        )
    jobs = _Jobs(work, executor, folder, parameters, tuple(train))
    while True:
        while not at_a_time or len(jobs.active) < at_a_time:
            run = work.next_run(lambda run: jobs.submitted(run) is not None)
            if run is None:
                break
            jobs.begin(run)
            work.look()  # submitting many takes longer than claims live without a sign
        if not jobs.active and not work.is_left():
            return
        time.sleep(interval)
        jobs.look()
        work.look()


class _Jobs(Generic[Run]):
    """The jobs that this command waits for."""

    def __init__(
        self,
        work: Work[Run],
        executor: Any,  # noqa: ANN401
        folder: Path,
        parameters: Mapping[str, Any],
        train: tuple[str, ...],
    ) -> None:
        self.work, self.executor, self.folder = work, executor, folder
        self.parameters, self.train = parameters, train
        self.active: dict[str, tuple[Run, Any]] = {}

    def submitted(self, run: PlannedRun) -> Any:  # noqa: ANN401
        """Return the job that an earlier command submitted; None if none is to be waited for."""
        note = self._note(run)
        if not note.exists():
            return None
        kept = json.loads(note.read_text(encoding="utf-8"))
        job_class = self.executor._executor.job_class
        job = job_class(self.executor.folder, kept["job"], tasks=list(range(kept["tasks"])))
        return job if is_active(job) else None

    def begin(self, run: Run) -> None:
        """Submit a run, or find its job."""
        job = self.submitted(run)
        if job is None:
            configure(self.executor, run, self.parameters)
            words = tuple(word for word in run.arguments() if word != "resume=true")
            config = dict(run.config)
            job = self.executor.submit(
                TrainingJob(words, run.folder, config, code_digest(config), self.train)
            )
            write_text(self._note(run), json.dumps({"job": job.job_id, "tasks": job.num_tasks}))
            self.work.board.say(f"submitted as job {job.job_id}: {run.title}")
        else:
            self.work.board.say(f"job {job.job_id} goes on: {run.title}")
        self.active[run.identity] = (run, job)

    def look(self) -> None:
        """See which jobs run, which are to be stopped and which have ended."""
        for name, (run, job) in list(self.active.items()):
            if not is_whole(run.folder) and is_active(job):
                if self.work.should_stop(run):
                    job.cancel()
                state = str(job.state).upper()
                self.work.board.move(
                    run,
                    RUNNING if state == "RUNNING" else WAITING,
                    f"job {job.job_id}" + ("" if state == "RUNNING" else f" {state.lower()}"),
                )
                continue
            del self.active[name]
            self._note(run).unlink(missing_ok=True)
            log = job.task(0).paths.stdout
            reason = f"its job {job.job_id} ended without results"
            self.work.ended(run, End(status_of(job), reason, log, said_by_the_run(log)))

    def _note(self, run: PlannedRun) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder / f"{run.identity}.json"


@dataclass(frozen=True)
class TrainingJob:
    """Starts ``crosswalk train``, or goes on with it in a job that was requeued.

    srun starts one such task for each process of a run, and Lightning finds the others in Slurm's
    environment.

    Attributes:
        overrides: Of the run, without ``resume=``.
        folder: Where it lies, or will lie.
        config: Its configuration.
        code: Digest of the code that it was submitted with.
        command: What starts a run.
    """

    overrides: tuple[str, ...]
    folder: RunFolder
    config: dict[str, Any]
    code: str
    command: tuple[str, ...]

    def __call__(self) -> None:
        """Train.

        Raises:
            RuntimeError: If the run failed, or the code was changed since the job was submitted.
        """
        if is_whole(self.folder):
            return
        if code_digest(self.config) != self.code:
            raise RuntimeError(
                f"the code is not that any more ({self.code}) with which this run was submitted. "
                "Start the same command again."
            )
        if os.environ.get("SLURM_PROCID", "0") == "0":
            remove_half_made(self.folder)
        words = [*self.command, *self.overrides]
        if self.folder.config_file.exists():
            words.append("resume=true")
        environment = {**os.environ, PARENT_VARIABLE: str(os.getpid())}
        status = subprocess.run(words, env=environment).returncode
        if status in (-signal.SIGTERM, 128 + signal.SIGTERM):
            time.sleep(GRACE)
        if status:
            raise RuntimeError(f"{reason_of(status)}; its messages are above")

    def checkpoint(self) -> Any:  # noqa: ANN401
        """Return what submitit runs in the next job after a time limit: the same."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


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
            "--launcher slurm needs submitit: pip install submitit, or "
            'pip install "<folder or URL of crosswalk>[slurm]".'
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


def status_of(job: Any) -> int | None:  # noqa: ANN401
    """Return -SIGTERM for a job that Slurm or somebody else ended, None for one that ended itself.

    Example:
        >>> from types import SimpleNamespace
        >>> [status_of(SimpleNamespace(state=state)) for state in ("FAILED", "CANCELLED by 0")]
        [None, -15]
    """
    return -int(signal.SIGTERM) if str(job.state).upper().startswith(ENDED_BY_SLURM) else None


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

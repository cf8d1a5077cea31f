"""The command ``crosswalk ablate``: plan, run, and show a table."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from crosswalk.config.constructors import did_you_mean
from crosswalk.config.search import file_beside_configs, group_values
from crosswalk.lab.claims import Failure
from crosswalk.lab.estimate import Estimates, total_in_words
from crosswalk.lab.executor import parse_parameters
from crosswalk.lab.launch import CodeChanged, run_locally
from crosswalk.lab.plan import Plan, PlannedRun, make_plan
from crosswalk.lab.pool import Pool
from crosswalk.lab.progress import Board
from crosswalk.lab.slurm import run_on_slurm
from crosswalk.lab.tables.collect import Collector
from crosswalk.lab.tables.manifest import Manifest, read_manifest
from crosswalk.lab.tables.table import read_results, render_terminal
from crosswalk.lab.tables.table_files import judged, save_table, with_overrides, write_table
from crosswalk.lab.tables.verdict import Verdict, judge
from crosswalk.run.code_digest import code_digest
from crosswalk.run.processes import Slot, devices_per_run, make_slots


def run_ablation(options: Namespace) -> int:
    """Run what is missing of a table, print it, and return the exit status: 1 if a run failed.

    Args:
        options: Those of ``crosswalk ablate``.

    Raises:
        ValueError: If something that was asked for does not exist or does not fit; nothing was
            started then.
    """
    manifest = _manifest(options)
    pool = Pool(options.output_dir.resolve() / "ablations", code_digest)
    plan = make_plan(
        manifest,
        pool,
        rows=options.row,
        seeds=parse_seeds(options.seeds, manifest),
        any_code=options.any_code,
    )
    table = _Table(plan, tuple(options.overrides))
    if options.show:
        table.show()
        return 0
    estimates, missing = Estimates(plan), plan.missing()
    at_a_time, slots = _places(options, missing)
    _announce(plan, missing, estimates, at_a_time)
    if options.dry_run:
        for run in missing:
            print(run.command)
        return 0
    if missing:
        check_data(missing[0])
    failures: list[Failure] = []
    changed = False
    board = Board(manifest.title, plan.wanted, estimates, at_a_time=at_a_time)
    for run in plan.wanted:
        if run not in missing:
            board.already(run)
    if missing:
        with board:
            try:
                failures = _run(options, plan, board, slots, table)
            except CodeChanged as error:
                print(f"crosswalk: {error}", file=sys.stderr)
                changed = True
    verdict = table.write()
    render_terminal(verdict)
    print(f"Table: {table.path.with_suffix('.html')}, .md and .json beside it")
    if options.save:
        print("Kept: " + ", ".join(map(str, table.save(verdict))))
    for failure in failures:
        print(f"failed: {failure.run.title}: {failure.reason}; see {failure.log}", file=sys.stderr)
    return 1 if failures or changed else 0


def parse_seeds(text: str, manifest: Manifest) -> tuple[int, ...]:
    """Return the seeds of ``--seeds``, none if it is empty.

    Raises:
        ValueError: If it is no list of different whole numbers.
    """
    words = [word.strip() for word in text.split(",")] if text else []
    if not all(word.isdecimal() for word in words) or len(set(words)) < len(words):
        raise ValueError(
            f"--seeds {text}: write different whole numbers, such as 1,2,3. The table's are "
            f"{','.join(map(str, manifest.seeds))}."
        )
    return tuple(map(int, words))


def _manifest(options: Namespace) -> Manifest:
    manifest = read_manifest(file_beside_configs(options.table))
    if options.data:
        values = group_values("data")
        if options.data not in values:
            raise ValueError(
                f"--data {options.data} does not exist.{did_you_mean(options.data, values)} There "
                f"are: {', '.join(values)}."
            )
        manifest = manifest.with_data(options.data)
    return with_overrides(manifest, options.overrides)


def check_data(run: PlannedRun) -> None:
    """Refuse before the first run what every run would refuse: all rows have the same data.

    Raises:
        ValueError: If there is neither a folder nor anything to generate.
    """
    data = run.config["data"]
    parts = [data[part] for part in ("source", "target") if data.get(part)] or [data]
    if any(
        (part.get("root") or data.get("root") or part.get("synthetic")) is None for part in parts
    ):
        raise ValueError(
            f"data={run.config['choices']['data']} needs data.root=<folder of the data set>. Add "
            "it to the command, or choose a generated set with --data."
        )


def _places(options: Namespace, missing: Sequence[PlannedRun]) -> tuple[int, list[Slot]]:
    """Return how many runs there are at a time, and the slots of this machine."""
    if options.jobs < 0:
        raise ValueError(f"--jobs {options.jobs}: write how many runs are made side by side.")
    if options.launcher == "slurm":
        if options.devices:
            raise ValueError("--devices is about this machine; Slurm is told with --slurm.")
        return options.jobs or max(1, len(missing)), []
    if options.slurm:
        raise ValueError("--slurm says what Slurm is asked for: add --launcher slurm.")
    devices = options.devices
    shapes = [run.config["trainer"] for run in missing]
    if any(int(trainer.get("num_nodes", 1) or 1) > 1 for trainer in shapes):
        raise ValueError("trainer.num_nodes is more than 1: start the table with --launcher slurm.")
    per_job = max(
        (
            devices_per_run(each.get("devices", "auto"), len(devices), at_a_time=options.jobs)
            for each in shapes
        ),
        default=1,
    )
    slots = make_slots(options.jobs, devices, devices_per_job=per_job)
    return len(slots), slots


def _announce(
    plan: Plan, missing: Sequence[PlannedRun], estimates: Estimates, at_a_time: int
) -> None:
    print(plan.manifest.title)
    print(
        f"On {plan.manifest.data}: {len(plan.wanted)} runs, of which "
        f"{len(plan.wanted) - len(missing)} are finished and {len(missing)} are left."
    )
    for name, reason in plan.skipped.items():
        print(f"Not run: {name}: {reason}")
    other = sum(bool(plan.pool.of_any_code(run.config)) for run in missing)
    if other:
        print(f"Of those left, {other} were finished by other code; --any-code takes them as done.")
    print(total_in_words(missing, estimates, at_a_time), flush=True)


def _run(
    options: Namespace, plan: Plan, board: Board, slots: Sequence[Slot], table: _Table
) -> list[Failure]:
    def on_done(run: PlannedRun) -> str:
        table.write()
        return table.collector.headline(run)

    on_slurm = options.launcher == "slurm"
    try:
        if not on_slurm:
            return run_locally(plan, slots, board, on_done=on_done, code_now=code_digest)
        return run_on_slurm(
            plan,
            board,
            on_done=on_done,
            parameters=parse_parameters(options.slurm),
            at_a_time=options.jobs,
        )
    except KeyboardInterrupt:
        jobs = "Jobs that were submitted go on, and the" if on_slurm else "The"
        board.say(f"{jobs} same command goes on where this one was stopped.")
        raise


class _Table:
    """The table of a plan as it stands."""

    def __init__(self, plan: Plan, overrides: tuple[str, ...]) -> None:
        self.plan, self.overrides = plan, overrides
        self.collector = Collector(plan)
        self.path = plan.pool.path / "tables" / f"{plan.manifest.name}.json"

    def write(self) -> Verdict:
        verdict = judged(self.collector, self.overrides)
        write_table(self.path, self.collector, verdict, overrides=self.overrides)
        return verdict

    def save(self, verdict: Verdict) -> list[Path]:
        if not verdict.runs:
            raise ValueError(
                "--save: no run of this table is finished, so there is nothing to keep"
            )
        return save_table(self.collector, verdict, overrides=self.overrides)

    def show(self) -> None:
        """Print the table from the runs that are there, or else from the kept results."""
        manifest = self.plan.manifest
        verdict = judged(self.collector, self.overrides)
        if not verdict.runs and manifest.committed_path.is_file():
            kept = read_results(manifest.committed_path)
            # as they were kept: with the overrides of then, such as where the data were
            own = manifest.base[: len(manifest.base) - len(self.overrides)]
            manifest = replace(manifest, base=(*own, *kept.overrides))
            verdict = judge(
                manifest,
                kept.runs,
                kept.queries,
                code=self.plan.codes(),
                overrides=kept.overrides,
            )
            print(
                f"No run of this code is here; these are the results in {manifest.committed_path}."
            )
        render_terminal(verdict)

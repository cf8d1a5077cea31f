"""The command ``crosswalk ablate``: plan, run, and show a table."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable, Sequence

from crosswalk.config.data_kinds import check_kind
from crosswalk.config.places import refuse_inside_data
from crosswalk.config.plain import to_plain
from crosswalk.config.search import group_values
from crosswalk.config.words import did_you_mean
from crosswalk.files import check_folder
from crosswalk.lab.launch import Launcher, launcher, only_said
from crosswalk.lab.pool import Pool
from crosswalk.lab.progress import Board, Estimates
from crosswalk.lab.tables.collect import Collector
from crosswalk.lab.tables.files import TableFiles
from crosswalk.lab.tables.kept import read_results
from crosswalk.lab.tables.manifest import Manifest, find_table, read_manifest
from crosswalk.lab.tables.plan import Plan, TableRun, estimates_of, make_plan
from crosswalk.lab.tables.runs import CodeChanged, TableRuns
from crosswalk.lab.tables.terminal import render_terminal
from crosswalk.lab.tables.verdict import judge
from crosswalk.run.code_digest import code_digest
from crosswalk.run.processes import to_type
from crosswalk.words import counted


def run_ablation(options: Namespace) -> int:
    """Run what is missing of a table, print it, and return the exit status: 1 if a run failed.

    Args:
        options: Those of ``crosswalk ablate``.

    Raises:
        ValueError: If something that was asked for does not exist or does not fit; nothing was
            started then.
    """
    check_folder(options.output_dir, f"--output-dir {options.output_dir}")
    manifest = _manifest(options)
    pool = Pool(options.output_dir.resolve() / "ablations", code_digest)
    seeds = parse_seeds(options.seeds, manifest)
    plan = make_plan(
        manifest,
        pool,
        rows=options.row,
        seeds=seeds,
        any_code=options.any_code,
    )
    table = TableFiles(Collector(plan))
    if options.show:
        _show(table, only=options.row, seeds=seeds)
        return 0
    estimates, missing = estimates_of(plan), plan.missing()
    configs, jobs = [run.config for run in missing], min(options.jobs, len(missing))
    where = launcher(options, configs, at_a_time=jobs)
    at_a_time = max(1, min(where.at_a_time or len(missing), len(missing)))
    _announce(plan, missing, estimates, at_a_time)
    if options.dry_run:
        for run in missing:
            print(f"# {', '.join(_rows_of(manifest, run))}; seed {run.seed}")
            print(run.command)
    if missing:
        config = to_plain(missing[0].config)
        refuse_inside_data(config, pool.path, "--output-dir")
        with only_said(options.dry_run):
            check_data(missing[0])
            # what a row alone gets wrong is its own failure
            where.look_ahead(to_plain(plan.wanted[0].config))
    if options.dry_run:
        return 0
    board = Board(
        manifest.title,
        missing,
        estimates,
        at_a_time=at_a_time,
        already=len(plan.wanted) - len(missing),
    )
    runs, changed = TableRuns(plan, board, on_done=_writer(table), code_now=code_digest), False
    if missing:
        try:
            with board:
                _run(where, runs)
        except CodeChanged as error:
            print(f"crosswalk: {error}", file=sys.stderr)
            changed = True
    render_terminal(table.write(), only=options.row)
    print(f"Table: {table.path.with_suffix('.html')}, .md and .json beside it")
    if options.save:
        print("Kept: " + ", ".join(map(str, table.save())))
    for failure in runs.failures:
        print(f"failed: {failure.run.title}: {failure.reason}; see {failure.log}", file=sys.stderr)
    return 1 if runs.failures or changed else 0


def _rows_of(manifest: Manifest, run: TableRun) -> list[str]:
    """Return the names of all rows that are read from a run."""
    trained = {row.name for row in run.rows}
    return [row.name for row in manifest.rows if (row.run or row.name) in trained]


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
    manifest = read_manifest(find_table(options.table))
    if options.data:
        values = group_values("data")
        if options.data not in values:
            raise ValueError(
                f"--data {options.data} does not exist.{did_you_mean(options.data, values)} There "
                f"are: {', '.join(values)}."
            )
        method = next((word[7:] for word in manifest.base if word.startswith("method=")), "")
        check_kind(method, options.data, option="--data ")
        manifest = manifest.with_data(options.data)
    return manifest.with_overrides(options.overrides)


def check_data(run: TableRun) -> None:
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


def _announce(
    plan: Plan, missing: Sequence[TableRun], estimates: Estimates, at_a_time: int
) -> None:
    print(plan.manifest.title)
    print(
        f"On {plan.manifest.data}: {counted(len(plan.wanted), 'run')}, "
        f"{len(plan.wanted) - len(missing)} finished and {len(missing)} left."
    )
    if plan.manifest.overrides:
        print(f"All rows are run with {' '.join(plan.manifest.overrides)}.")
    for name, reason in plan.skipped.items():
        print(f"Not run: {name}: {reason}")
    other = sum(bool(plan.pool.of_any_code(run.config)) for run in missing)
    if other:
        print(f"Finished by other code, of those left: {other}; --any-code takes them as done.")
    print(estimates.total_in_words(missing, at_a_time), flush=True)


def _writer(table: TableFiles) -> Callable[[TableRun], str]:
    def on_done(run: TableRun) -> str:
        table.write()
        return table.collector.headline(run)

    return on_done


def _run(where: Launcher, runs: TableRuns) -> None:
    try:
        where.make(runs, runs.plan.pool.path / "slurm", first=runs.waiting)
    except KeyboardInterrupt:
        jobs = "The" if where.slurm is None else "Jobs that were submitted go on, and the"
        runs.board.say(f"{jobs} same command goes on where this one was stopped:\n  {to_type()}")
        raise


def _show(table: TableFiles, *, only: Sequence[str], seeds: Sequence[int]) -> None:
    """Print the table from the runs that are there, or else from the kept results."""
    plan, verdict = table.collector.plan, table.judged()
    path = plan.manifest.committed_path
    if not verdict.runs and path.is_file():
        kept = read_results(path)
        runs = [run for run in kept.runs if not seeds or run["seed"] in seeds]
        # as they were kept: with the overrides of then, such as where the data were
        manifest = plan.manifest.with_overrides(kept.overrides)
        verdict = judge(manifest, runs, kept.queries, code=plan.codes())
        print(
            f"No finished run of this table by the code as it is now lies in {plan.pool.path}; "
            "overrides of a run are repeated behind --show. "
            f"These are the results that are kept in {path}."
        )
    render_terminal(verdict, only=only)

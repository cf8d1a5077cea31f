"""One run from start to end: its stage, build, fit, evaluate the chosen epochs."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as L
import torch
from lightning.pytorch.loggers import Logger

from crosswalk import __version__
from crosswalk.config.build import Run, build
from crosswalk.config.check import Checked, check
from crosswalk.config.compose import restore
from crosswalk.config.construct import construct
from crosswalk.config.keys import ROOTS, compared
from crosswalk.config.places import refuse_inside_data
from crosswalk.config.starting_weights import random_weights
from crosswalk.config.trainer_arguments import check_hardware, num_processes
from crosswalk.data.pairs import LearningTokenizer
from crosswalk.distributed import wait_for_everyone
from crosswalk.run.allocator import keep_freed_memory
from crosswalk.run.callbacks.checkpoints import AtomicCheckpointIO, Checkpoints, read_checkpoint
from crosswalk.run.callbacks.known_rows import KnownRows
from crosswalk.run.callbacks.observer import Observer
from crosswalk.run.callbacks.progress import Progress, quiet_lightning
from crosswalk.run.callbacks.ranking_lists import RankingLists
from crosswalk.run.callbacks.remember import StepMemory
from crosswalk.run.callbacks.retrieval import RetrievalMetrics
from crosswalk.run.callbacks.run_record import (
    RunRecord,
    commit_of_this_package,
    hardware,
    now,
    package_versions,
)
from crosswalk.run.callbacks.step_log import StepLog
from crosswalk.run.callbacks.sweep import EpochSweep
from crosswalk.run.code_digest import code_digest
from crosswalk.run.meeting import begun_together
from crosswalk.run.processes import command_line, end_with_parent
from crosswalk.run.ranking_lists import people_of
from crosswalk.run.results import monitor_of, print_results, what_counts_in
from crosswalk.run.run_folder import (
    EVALUATIONS,
    RunFolder,
    forget_stale_ranks,
    is_first_process,
    prepare_run_folder,
    without_resume,
)
from crosswalk.run.stages import finished_stage, load_stage
from crosswalk.run.tracking import RunLogger, wandb_run_id
from crosswalk.run.wandb_server import wandb_mode
from crosswalk.run.weights import load_encoder, load_start, save_encoder, saying_what_differs

Results = dict[str, dict[str, Any]]


class Trained(NamedTuple):
    """A run, or an evaluation, that has ended well: its folder and its data module."""

    folder: RunFolder
    data: Any


def train(config: Mapping[str, Any]) -> Trained | None:
    """Train, evaluate the starting weights, the best and the last epoch, print and save.

    The starting weights are evaluated where a stage or ``checkpoint=`` gave them; the best epoch
    where ``protocol=`` names a split to choose it on.

    Args:
        config: What `crosswalk.config.compose.compose` returns.

    Returns:
        The run; None on all processes but the first.
    """
    end_with_parent()
    quiet_lightning()
    keep_freed_memory()
    checked = check(config)
    config = checked.config
    check_hardware(config["trainer"])
    processes = num_processes(config["trainer"])
    refuse_inside_data(config, Path(config["output_dir"]), "output_dir")
    forget_stale_ranks(processes)
    if (config.get("logger") or {}).get("wandb") is not None:
        wandb_mode(os.environ)
    is_first_run = not Path(config["output_dir"]).exists()
    folder = prepare_run_folder(config)
    with RunRecord(
        folder,
        seeds={"seed": config["seed"]},
        config=config,
        takes_back=config["resume"] is False,
        took_root=is_first_run,
    ) as record:
        with begun_together(folder, config):
            run = _begin(checked, folder, record)
        trains = run.trainer["max_epochs"] != 0
        evaluates = bool(run.data.evaluation_roles("test"))
        if config["compile"]:
            run.method.get_submodule("encoder").compile()
        trainer = make_trainer(run, folder, record)
        results: Results = {}
        if trains:
            with _saying_what_differs(run, folder.resume_checkpoint):
                trainer.fit(run.method, datamodule=run.data, ckpt_path=folder.resume_checkpoint)
            if evaluates:
                results = evaluate_checkpoints(trainer, run, folder)
        else:
            # every process holds the starting weights: none needs the file of the first one, as
            # they do not know each other before the evaluation starts
            results = {"start": {"epoch": 0, **_tested(trainer, run, "start")}}
        if trainer.is_global_zero:
            folder.save_results(results)
            for logger in trainer.loggers:
                logger.log_metrics(final_metrics(results), trainer.global_step)
            if evaluates:
                _print(run, results, folder)
            else:
                print(f"Nothing was evaluated: {nothing_to_evaluate(run)}")
            print(f"Run folder: {folder.path}")
    return Trained(folder, run.data) if record.is_first_process else None


def _begin(checked: Checked, folder: RunFolder, record: RunRecord) -> Run:
    """Return a run whose data are there and whose weights are those that it starts from.

    Raises:
        ValueError: If the data have changed since it began, or there is nothing to do.
    """
    config = checked.config
    L.seed_everything(config["seed"], verbose=False)
    run = build(checked)
    trains = run.trainer["max_epochs"] != 0
    # before a stage is trained: whatever will be read later is opened now
    run.data.setup("fit" if trains else "test")
    evaluates = bool(run.data.evaluation_roles("test"))
    before = (folder.record().get("data") or {}).get("fingerprint")
    goes_on = folder.resume_checkpoint is not None
    if goes_on and before is not None and not run.data.is_fingerprint(before):
        raise ValueError(
            f"the data of {folder.path} have changed since it began (data.root="
            f"{config['data'].get('root')}, fingerprint {before}, now {run.data.fingerprint}): "
            "files are other ones, or of another size. Put them back, or start a new "
            f"{without_resume(config)}."
        )
    if not trains and not evaluates:
        raise ValueError(nothing_to_evaluate(run))
    described = run.data.describe()
    record.update(data=described)
    if record.is_first_process:
        print(f"{in_words(described)}; to {folder.path}", file=sys.stderr)
        random = [] if goes_on or not trains else random_weights(config)
        for notice in [*run.data.notices, *random, *_all_warmup(config)]:
            print(f"note: {notice}", file=sys.stderr)
        if trains and not goes_on and config["resume"] not in (False, "restart"):
            print(f"{folder.path} has no checkpoint yet: it starts again.", file=sys.stderr)
        folder.keep_people(people_of(run.data))
        tokenizer = getattr(run.data, "tokenizer", None)
        if isinstance(tokenizer, LearningTokenizer):
            folder.keep_vocabulary(tokenizer.save_vocabulary)
    _load_starting_weights(run, folder, record)
    return run


def in_words(data: Mapping[str, Any]) -> str:
    """Return which data a run found: the set, its layout, and what is in each split.

    Example:
        >>> mine = {"dataset": "mine", "layout": "pairs.csv", "counts": {"train": {"images": 9}}}
        >>> in_words(mine)
        'mine (pairs.csv): train 9 images'
        >>> in_words({"source": mine, "target": {**mine, "dataset": "yours"}})
        'mine (pairs.csv): train 9 images; to yours (pairs.csv): train 9 images'
        >>> in_words({**mine, "counts": {"test": {"person_ids": 2, "cameras": 1}}})
        'mine (pairs.csv): test 2 people, 1 camera'
    """
    if "counts" not in data:  # of two sets
        return f"{in_words(data['source'])}; to {in_words(data['target'])}"
    splits = [
        f"{split} {', '.join(_counted(number, name) for name, number in counts.items())}"
        for split, counts in data["counts"].items()
    ]
    return f"{data['dataset']} ({data['layout']}): {'; '.join(splits)}"


def _counted(number: int, name: str) -> str:
    one, many = (name.removesuffix("s"), name) if name != "person_ids" else ("person", "people")
    return f"{number:,} {one if number == 1 else many}"


def nothing_to_evaluate(run: Run) -> str:
    """Return what is missing of data that are neither queries nor a gallery, and what helps."""
    data = run.config["choices"]["data"]
    return (
        f"data={data} has neither queries nor a gallery. `crosswalk evaluate RUN data={data} "
        "data.root=<data with test images>` evaluates a run on other data."
    )


def _all_warmup(config: Mapping[str, Any]) -> list[str]:
    """Return what to say of a training that ends before its warm-up does."""
    epochs: int = config["trainer"]["max_epochs"]
    node: dict[str, Any] = (config.get("optim") or {}).get("schedule") or {}
    schedule = construct(node, {}) if epochs else None
    is_warming_up = getattr(schedule, "is_warming_up", None)  # schedules of others may have none
    if is_warming_up is None or not is_warming_up(epochs - 1):
        return []
    return [
        f"the whole training is warm-up (optim.schedule.warmup_epochs={node['warmup_epochs']}, "
        f"trainer.max_epochs={epochs}), so the learning rate does not reach optim.lr. For a short "
        "training pass optim.schedule.warmup_epochs=0."
    ]


def _load_starting_weights(run: Run, folder: RunFolder, record: RunRecord) -> None:
    """Take the weights of ``checkpoint=``, or else of the stage, and keep the encoder's.

    Every process takes them by itself; the file that the first one keeps is read only after the
    training, or by `evaluate`.
    """
    checkpoint, stage = run.config["checkpoint"], run.config["stage"]
    if checkpoint is not None:
        anew = load_start(run.method, Path(checkpoint))
        if anew and record.is_first_process:
            print(
                f"note: checkpoint={checkpoint} has no {' or '.join(anew)} that fits this run: "
                f"{'it starts' if len(anew) == 1 else 'they start'} anew.",
                file=sys.stderr,
            )
        origin = str(checkpoint)
    elif stage is not None:
        made = finished_stage(run.config)
        load_stage(run.method, made, stage["load"])
        record.update(stage={"folder": str(made.path), "commit": made.record().get("commit")})
        origin = made.name
    elif run.trainer["max_epochs"] == 0:
        origin = "the configuration"  # such as encoder.backbone.pretrained=
    else:
        return
    if record.is_first_process:
        save_encoder(folder.start_weights, run.method, origin=origin)


def evaluate(run_folder: Path, overrides: Iterable[str] = ()) -> Trained | None:
    """Evaluate the checkpoints of a finished run again and print the table.

    Args:
        run_folder: The folder `train` printed.
        overrides: Changes of the stored configuration, such as another ``data=``; with any, the
            stored results stay as they are, and the new ones have a folder below
            ``<run folder>/evaluations``, another for whatever can change a number.

    Returns:
        The folder with the results, and the data; None on all processes but the first.
    """
    quiet_lightning()
    folder = RunFolder(run_folder)
    folder.check_is_run("evaluate")
    overrides = list(overrides)
    vocabulary = folder.kept_vocabulary
    config = restore(folder.runnable_config(), overrides, vocabulary=vocabulary)
    if overrides and "camstyle" in config["data"]:  # of training images alone
        config["data"]["camstyle"] = "off"
    checked = check(config, trains=not overrides, stored=folder.config_file)
    check_hardware(checked.config["trainer"])
    forget_stale_ranks(num_processes(checked.config["trainer"]))
    run = build(checked, loads_weights=True)
    if vocabulary is None and isinstance(getattr(run.data, "tokenizer", None), LearningTokenizer):
        raise FileNotFoundError(
            f"{folder.vocabulary_file} is missing: the token ids of this model mean the words in "
            "it. Copy it from where the run was trained."
        )
    run.data.setup("test")
    if not run.data.evaluation_roles("test"):
        raise ValueError(nothing_to_evaluate(run))
    target, note = (evaluation_folder(folder, run) if overrides else folder), folder.note()
    told = None  # the record of the run itself is of its training
    if overrides:
        told = {**folder.record(), "evaluates": str(folder.path), **_measured_by(run)}

    def measure(trainer: L.Trainer) -> Results:
        return evaluate_checkpoints(trainer, run, folder, encoder_only=bool(overrides))

    watching = [] if overrides else _watching(run, folder)
    watching = [each for each in watching if each.diagnostic.at_test]
    notes = [] if note is None else [note]
    return _evaluated(run, target, measure, told=told, watching=watching, notes=notes)


def evaluate_weights(
    config: Mapping[str, Any], load: Callable[[Any], object], *, name: str, evaluates: str
) -> Trained | None:
    """Evaluate a model that is of no run here, and print the table: the zero-shot number.

    Args:
        config: That of a run without epochs, plain.
        load: Loads the weights into the method.
        name: What the folder of the results begins with, below ``output_dir``.
        evaluates: What people call the model.

    Returns:
        The folder with the results, and the data; None on all processes but the first.
    """
    quiet_lightning()
    checked = check(config, trains=False)
    refuse_inside_data(checked.config, Path(checked.config["output_dir"]), "output_dir")
    check_hardware(checked.config["trainer"])
    forget_stale_ranks(num_processes(checked.config["trainer"]))
    run = build(checked, loads_weights=True)
    run.data.setup("test")
    if not run.data.evaluation_roles("test"):
        raise ValueError(nothing_to_evaluate(run))
    load(run.method)
    target = weights_folder(run, name)
    tokenizer = getattr(run.data, "tokenizer", None)
    if isinstance(tokenizer, LearningTokenizer) and is_first_process(os.environ):
        target.keep_vocabulary(tokenizer.save_vocabulary)
    told = {"evaluates": evaluates, "zero_shot": True, **_measured_by(run)}

    def measure(trainer: L.Trainer) -> Results:
        return {"start": {"epoch": 0, **_tested(trainer, run, "start")}}

    return _evaluated(run, target, measure, told=told)


def _measured_by(run: Run) -> dict[str, Any]:
    """Return what an evaluation tells of itself: the code, the versions and the machine."""
    return {
        **commit_of_this_package(),
        "code": code_digest(run.config),
        "versions": package_versions(),
        "hardware": hardware(),
        "seeds": {"seed": run.config["seed"]},
    }


def _evaluated(
    run: Run,
    target: RunFolder,
    measure: Callable[[L.Trainer], Results],
    *,
    told: Mapping[str, Any] | None,
    watching: Sequence[Any] = (),
    notes: Sequence[str] = (),
) -> Trained | None:
    """Evaluate into a folder: that of the run itself, or where ``told`` goes into its record."""
    is_first = is_first_process(os.environ)
    with target.being_evaluated() if is_first else nullcontext():
        if told is not None and is_first:  # one that is killed is known as such
            described = {
                "name": target.name,
                "data": run.data.describe(),
                "command": command_line(),
            }
            # not those of the training, from whose record the rest is
            record = {**told, **described, "started": (started := now()), "ended": None}
            record["sessions"] = [{"started": started, "ended": None}]
            target.save_config({**run.config, "diagnostics": []})
            target.save_record({**record, "status": "running", "error": None})
            target.keep_people(people_of(run.data))
        trainer = L.Trainer(
            **{**run.trainer, "enable_progress_bar": False},
            callbacks=[
                RetrievalMetrics(folder=target.path, reranking=run.reranking),
                *watching,
                Progress(),
            ],
            plugins=[AtomicCheckpointIO()],
            logger=False,
            enable_checkpointing=False,
            default_root_dir=target.path,
        )
        results = measure(trainer)
        if not trainer.is_global_zero:
            return None
        target.save_results(results)
        if told is not None:
            record |= {"ended": (ended := now())}
            record["sessions"] = [
                {"started": record["started"], "ended": ended, "status": "finished"}
            ]
            target.save_record({**record, "status": "finished", "error": None})
    for notice in [*(run.data.notices if told is not None else ()), *notes]:
        print(f"note: {notice}", file=sys.stderr)
    _print(run, results, target)
    print(f"{'Run folder' if told is None else 'Evaluation'}: {target.path}")
    return Trained(target, run.data)


def evaluation_folder(folder: RunFolder, run: Run) -> RunFolder:
    """Return where an evaluation of a run on other data, or by other rules, lies."""
    digest = _digest_of_rules(run)
    for _, path in _checkpoints(run, folder):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return RunFolder(folder.path / EVALUATIONS / _name_of_evaluation(run, digest.hexdigest()))


def weights_folder(run: Run, name: str) -> RunFolder:
    """Return where an evaluation of weights that are of no run lies: beside the runs."""
    digest = _digest_of_rules(run, but=("checkpoint",))
    for key, row in sorted(run.method.get_submodule("encoder").state_dict().items()):
        digest.update(f"{key} {list(row.shape)}".encode())
        digest.update(row.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    whole = f"{name}-{_name_of_evaluation(run, digest.hexdigest())}"
    return RunFolder(Path(run.config["output_dir"]) / whole)


def _name_of_evaluation(run: Run, digest: str) -> str:
    return f"{run.config['choices']['data']}-{run.config['protocol']}-{digest[:8]}"


def _digest_of_rules(run: Run, *, but: Sequence[str] = ()) -> Any:  # noqa: ANN401
    # neither where the data lie counts, nor where the run does, with its words
    rules = {
        key: value
        for key, value in compared(run.config).items()
        if key not in (*ROOTS, "data.tokenizer.vocabulary", *but)
    }
    text = json.dumps([run.data.fingerprint, rules], sort_keys=True, default=str)
    return hashlib.sha256(text.encode())


def _checkpoints(run: Run, folder: RunFolder) -> list[tuple[str, Path]]:
    """Return what is evaluated of a run: the starting weights, the best and the last epoch.

    Raises:
        FileNotFoundError: If one is missing.
    """
    checkpoints = []
    trains = run.trainer["max_epochs"] != 0
    if not trains or run.config["checkpoint"] is not None or run.config["stage"] is not None:
        checkpoints.append(("start", folder.start_weights))
    if trains and monitor_of(folder.config()) is not None:  # by whatever rules it is evaluated
        checkpoints.append(("best", folder.best_checkpoint))
    if trains:
        checkpoints.append(("last", folder.last_checkpoint))
    for _, path in checkpoints:
        if not path.exists() and folder.is_finished:
            others = (other for _, other in checkpoints if other.exists())
            raise FileNotFoundError(
                f"{path} is missing, and the run has finished: it was deleted, or not copied. "
                f"Copy it back, {_evaluating(next(others, None), run.config)}train again with the "
                "same command plus resume=restart."
            )
        if not path.exists():
            raise FileNotFoundError(
                f"{path} is missing: the run did not finish an epoch. Continue it with the same "
                "command plus resume=true."
            )
    return checkpoints


def _evaluating(checkpoint: Path | None, config: Mapping[str, Any]) -> str:
    """Return what evaluates a checkpoint alone on the data of a run, as an alternative."""
    if checkpoint is None:
        return "or "
    words = ["crosswalk", "evaluate", str(checkpoint), f"data={config['choices']['data']}"]
    if (root := config["data"].get("root")) is not None:
        words.append(f"data.root={root}")
    return f"evaluate the one that is there (`{shlex.join(words)}`), or "


def _print(run: Run, results: Results, folder: RunFolder) -> None:
    """Print the table of a run, or of an evaluation in a folder, and what was evaluated."""
    data = run.data
    sizes = {
        split: (
            data.num_evaluation_samples(split, "query"),
            data.num_evaluation_samples(split, "gallery"),
        )
        for split in dict.fromkeys(split for split, _ in data.evaluation_roles("test"))
    }
    print_results(
        results,
        counts=what_counts_in(folder),
        directions=data.directions,
        data=run.config["choices"]["data"],
        sizes=sizes,
    )


def final_metrics(results: Results) -> dict[str, float]:
    """Return the metrics of all checkpoints under names of their own, for the loggers.

    Example:
        >>> final_metrics({"best": {"epoch": 7, "test/rank1": 0.5}})
        {'best/epoch': 7, 'best/test/rank1': 0.5}
    """
    return {
        f"{checkpoint}/{name}": value
        for checkpoint, metrics in results.items()
        for name, value in metrics.items()
    }


def make_trainer(run: Run, folder: RunFolder, record: RunRecord) -> L.Trainer:
    """Return the trainer of a run; its callbacks are ordered by what they need of each other."""
    config = run.config
    preprocessing = getattr(run.data, "preprocessing", None)
    record_in_checkpoint = {
        **{"config": config, "version": __version__, **commit_of_this_package()},
        # with these a checkpoint is enough to use the model
        "preprocessing": None if preprocessing is None else asdict(preprocessing),
        "vocabulary": folder.vocabulary(),
    }
    loggers: list[Logger] = [RunLogger(folder.path)]
    if run.tracker is not None:
        loggers.append(run.tracker(folder=folder.path, config=config, tags=tuple(config["tags"])))
        record_in_checkpoint["wandb_id"] = wandb_run_id(folder.path)
    settings = dict(run.trainer)
    show_progress = settings.pop("enable_progress_bar", True)
    monitor = monitor_of(config)
    progress = Progress(metrics=() if monitor is None else (monitor,))
    return L.Trainer(
        **settings,
        enable_progress_bar=False,
        enable_checkpointing=True,
        default_root_dir=folder.path,
        logger=loggers,
        plugins=[AtomicCheckpointIO()],
        callbacks=[
            record,
            *([progress] if show_progress else []),
            EpochSweep(run.data, progress.track if show_progress else None),
            KnownRows(),
            StepMemory(),
            StepLog(),
            RetrievalMetrics(
                folder=folder.path,
                monitor=None if monitor is None else "rank1",
                reranking=run.reranking,
            ),
            RankingLists(),
            *_watching(run, folder),
            Checkpoints(
                folder.path,
                record=record_in_checkpoint,
                monitor=monitor,
                every_n_steps=config["checkpoint_every_n_steps"],
            ),
        ],
    )


def _watching(run: Run, folder: RunFolder) -> list[Observer]:
    """Return what observes the run, ready to be listened to."""
    for each in run.diagnostics:
        each.watch(folder.path, run.data)
    return [Observer(each) for each in run.diagnostics]


def evaluate_checkpoints(
    trainer: L.Trainer, run: Run, folder: RunFolder, *, encoder_only: bool = False
) -> Results:
    """Return the metrics of the starting weights, the best and the last epoch on every split.

    Args:
        trainer: Evaluates.
        run: The method and its data.
        folder: Where the checkpoints lie.
        encoder_only: Whether to load the encoder alone, since a method's labels and memories have
            the size of the training set, which another data set does not have.

    Raises:
        FileNotFoundError: If the run has no checkpoint yet.
    """
    results: Results = {}
    wait_for_everyone()  # the first process may still be moving a checkpoint to its place
    for name, path in _checkpoints(run, folder):
        only_encoder = encoder_only or name == "start"
        epoch = 0
        if name != "start":
            epoch = 1 + int(read_checkpoint(path)["epoch"])
        if only_encoder:
            load_encoder(run.method, path)
        metrics = _tested(trainer, run, name, None if only_encoder else path)
        results[name] = {"epoch": epoch, **metrics}
    return results


def _saying_what_differs(run: Run, checkpoint: Path | None) -> AbstractContextManager[None]:
    return saying_what_differs(
        f"{checkpoint} does not fit the run's configuration",
        run.method,
        lambda: {} if checkpoint is None else read_checkpoint(checkpoint)["state_dict"],
        advice="It is of another run: put back a copy of its own.",
    )


def _tested(
    trainer: L.Trainer, run: Run, name: str, checkpoint: Path | None = None
) -> dict[str, float]:
    """Return the metrics of a checkpoint, or of the weights that the method holds, as ``name``."""
    callbacks: list[L.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    retrieval = next(each for each in callbacks if isinstance(each, RetrievalMetrics))
    retrieval.tag = name
    with _saying_what_differs(run, checkpoint):
        trainer.test(run.method, datamodule=run.data, ckpt_path=checkpoint, verbose=False)
    logged = {metric: float(value) for metric, value in trainer.callback_metrics.items()}
    return logged | retrieval.measured()  # Lightning rounds to float32

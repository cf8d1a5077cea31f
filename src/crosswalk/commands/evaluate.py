"""The command ``crosswalk evaluate``."""

from __future__ import annotations

import re
import shlex
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from crosswalk.commands.train import leave_report, say_begun
from crosswalk.use.source import MODELS, Source, description, reads_captions, recipe_of, source_of

if TYPE_CHECKING:
    from crosswalk.run.train import Trained

OF_A_RUN = ("method", "encoder", "loss", "text", "experiment", "stage", "checkpoint")
"""Groups and keys of which a run is evaluated with its own."""

OF_THE_MODEL = (
    *OF_A_RUN,
    *("transform", "data.image_size", "data.interpolation", "data.eval_interpolation"),
    *("data.normalization", "data.tokenizer", "data.context_length", "data.phrases"),
    *("data.transform.mean", "data.transform.std", "data.transform.pixel_format"),
)
"""Keys that a model without a run is evaluated with as it is, inner ones included."""

READ = (
    *("data", "reranking", "protocol", "logger", "encoder", "method.test_feature"),
    *("trainer.accelerator", "trainer.devices", "trainer.num_nodes", "trainer.strategy"),
    *("trainer.precision", "trainer.deterministic", "trainer.benchmark", "trainer.inference_mode"),
    *("trainer.profiler", "trainer.detect_anomaly", "trainer.enable_progress_bar"),
    *("trainer.enable_model_summary", "trainer.use_distributed_sampler"),
)
"""Keys that an evaluation reads, inner ones included; any other would be without effect."""

BATCH_SIZE = "data.batch_size"

OF_THE_TRAINING = (
    *(BATCH_SIZE, "data.plan", "data.sweep", "data.train_on", "data.crop", "data.camstyle"),
    *("data.noise_rate", "data.noise_seed", "data.noise_index", "data.phrases"),
    *(
        f"data.transform.{name}"
        for name in (
            *("image_augmentation", "text_augmentation", "flip_probability", "padding"),
            *("rotation", "brightness", "contrast", "saturation", "camera_style"),
            *("erase_probability", "erase_area", "erase_ratio", "erase_law", "erase_fill"),
        )
    ),
)
"""Keys of data, inner ones included, that are read for the training alone."""

INSTEAD = {
    "split": "Val and test are both evaluated, as far as the data have them, and have a row each",
    "output_dir": "The results go to evaluations/ in the folder of the run",
    "pretrained": "The weights are those of the model",
}
"""What to say of the last part of a key that is not read; of others what is."""


def configure(parser: ArgumentParser) -> None:
    """Add the words of the command."""
    parser.usage = "crosswalk evaluate MODEL [key=value ...]"
    parser.epilog = (
        "With overrides the results, per query too, and a report go to a folder of their own,\n"
        "RUN/evaluations/<data>-<protocol>-<digest>, of a model without a run to\n"
        "runs/zero-shot-<model>-<data>-<protocol>-<digest>; `report` and `compare` take it as a\n"
        "run. A model without a run needs data=, and of the data what is evaluated alone.\n\n"
        "Examples:\n"
        "  crosswalk evaluate runs/<name>\n"
        "  crosswalk evaluate runs/<name> data=icfg_pedes data.root=/datasets\n"
        "  crosswalk evaluate model/ data=own_pairs data.root=pairs.csv\n"
        "  crosswalk evaluate open_clip:ViT-B-16-quickgelu/openai data=icfg_pedes data.root=/data\n"
    )
    parser.add_argument("model", metavar="MODEL", help=f"{MODELS}; all but a run folder need data=")


def run(options: Namespace) -> int:
    """Do it, and return the exit status."""
    evaluated(options.model, options.overrides)
    return 0


def evaluated(model: str, overrides: Sequence[str]) -> Trained | None:
    """Evaluate a run or a model; return where the results lie, None on all processes but one."""
    from crosswalk.run.run_folder import RunFolder

    path = Path(model).expanduser()
    folder = RunFolder(path)
    if folder.config_file.is_file() or folder.record_file.is_file():
        return _run_of(path, overrides)
    return _zero_shot(source_of(model), overrides)


def _run_of(path: Path, overrides: Sequence[str]) -> Trained | None:
    from crosswalk.config.compose import restore
    from crosswalk.config.paths import check_paths, read_annotations
    from crosswalk.config.plain import to_plain
    from crosswalk.run.run_folder import RunFolder

    folder = RunFolder(path)
    folder.check_is_run("evaluate")
    stored = folder.runnable_config()
    _check_model_stays(stored.get("choices") or {}, overrides)
    own = str(stored["method"].get("_target_")).startswith("crosswalk.")
    _check_read(overrides, READ if own else (*READ, "method"))
    with _meant_of_evaluations():
        config = restore(stored, overrides, vocabulary=folder.kept_vocabulary)
    try:
        data = to_plain(config)["data"]
    except ValueError:  # said by `evaluate`, which looks at the whole of it
        data = {}
    if not overrides:
        data.pop("noise_index", None)  # of the training alone
    check_paths({"data": data})
    read_annotations(data)
    say_begun(f"Evaluating {path}")
    from crosswalk.run.train import evaluate

    found = evaluate(path, overrides)
    if found is not None and overrides:
        leave_report(found.folder, found.data)
    return found


def _check_model_stays(choices: Mapping[str, str], overrides: Sequence[str]) -> None:
    """Refuse other parts of a model than those that a run was trained with."""
    from crosswalk.config.overrides import parse_overrides

    for override in parse_overrides(overrides):
        key = override.key_or_group
        if key not in OF_A_RUN:
            continue
        if key == "checkpoint":
            raise ValueError(
                "checkpoint is not chosen in an evaluation: best and last are both evaluated, as "
                "far as the run has them, and have a row each. Leave it out."
            )
        trained = choices.get(key)
        if override.is_delete() or override.value() != trained:
            raise ValueError(
                f"{key} belongs to the model, which is evaluated as it was trained"
                f"{f', with {key}={trained}' if trained else ''}. Leave it out."
            )


def _check_read(overrides: Sequence[str], read: Sequence[str]) -> None:
    """Refuse overrides without effect: they would make an evaluation of equal numbers."""
    from crosswalk.config.keys import CALLED_ELSEWHERE, TOP
    from crosswalk.config.overrides import parse_overrides
    from crosswalk.config.plain import nested
    from crosswalk.config.search import groups
    from crosswalk.config.trainer_arguments import trainer_keys
    from crosswalk.config.words import did_you_mean

    for override in parse_overrides(overrides):
        name, value = override.key_or_group, None if override.is_delete() else override.value()
        inner = [key for key, _ in nested(value)] if isinstance(value, Mapping) else []
        for key in [f"{name}.{key}" for key in inner] or [name]:
            last = key.rpartition(".")[2]
            is_read = any(f"{key}.".startswith(f"{each}.") for each in read)
            if _is_of_training(key):
                raise ValueError(
                    f"{key} would have no effect: it is of the training alone, and an evaluation "
                    "does not read it. Leave it out."
                )
            if (is_read and last != "pretrained") or key in (*OF_A_RUN, "trainer"):
                continue
            if key.partition(".")[0] == "choices":  # `restore` says what it is
                continue
            parts = "data=, data.*, encoder.*, reranking=, protocol= and what the machine needs"
            advice = INSTEAD.get(last, f"It reads {parts}, such as trainer.devices=")
            of_trainer = key.startswith("trainer.")
            known = key in (*TOP, *groups(), *INSTEAD) or ("." in key and not of_trainer)
            known = known or (of_trainer and last in trainer_keys())
            read_here = (*read, "data.root", "data.eval_batch_size")
            called = "data.eval_batch_size" if CALLED_ELSEWHERE.get(key) == BATCH_SIZE else key
            near = "" if known else did_you_mean(called, read_here)
            raise ValueError(
                f"{key} would have no effect: an evaluation does not read it."
                f"{near or f' Leave it out. {advice}.'}"
            )


@contextmanager
def _meant_of_evaluations() -> Iterator[None]:
    """Let an unknown key be answered by none that an evaluation refuses in its turn."""
    try:
        yield
    except ValueError as error:
        said, _, meant = str(error).partition(" Did you mean ")
        meant = meant.removesuffix("?")
        if not _is_of_training(meant):
            raise
        instead = " Did you mean data.eval_batch_size?" if meant == BATCH_SIZE else " Leave it out."
        raise ValueError(f"{said} {meant} is of the training alone.{instead}") from error


def _is_of_training(key: str) -> bool:
    of_data = re.sub(r"^data\.(source|target)\.", "data.", key)
    return any(f"{of_data}.".startswith(f"{each}.") for each in OF_THE_TRAINING)


def _check_kept(source: Source, overrides: Sequence[str]) -> None:
    """Refuse overrides that would change the model, or have no effect on it."""
    from crosswalk.config.model_file import COLOURS
    from crosswalk.config.overrides import parse_overrides
    from crosswalk.config.plain import nested

    told = description(source) or {}
    steps = told.get("preprocessing") or {}
    for override in parse_overrides(overrides):
        name, value = override.key_or_group, None if override.is_delete() else override.value()
        values = {name: value}
        if isinstance(value, Mapping):
            values |= {f"{name}.{key}": each for key, each in nested(value)}
        for key, each in values.items():
            if key == COLOURS and COLOURS in (told.get("evaluation") or {}):
                continue
            if key in ("protocol", "data.protocol") and each == "val":
                raise ValueError(
                    f"{key}=val chooses an epoch, and {source.name} has none to choose: the test "
                    "images are evaluated. Leave it out."
                )
            is_kept = any(f"{key}.".startswith(f"{kept}.") for kept in OF_THE_MODEL)
            if is_kept and each != steps.get(key.removeprefix("data."), ...):
                raise ValueError(
                    f"{key} belongs to the model, which is evaluated as it is. Leave it out."
                )


def _zero_shot(source: Source, overrides: Sequence[str]) -> Trained | None:
    from crosswalk.config.compose import compose
    from crosswalk.config.overrides import parse_overrides
    from crosswalk.config.paths import check_paths, read_annotations
    from crosswalk.config.plain import to_plain

    if not any(each.key_or_group == "data" for each in parse_overrides(overrides)):
        if source.kind == "checkpoint" and source.folder.config_file.is_file():
            raise ValueError(
                f"{source.weights} alone needs data=<data set> data.root=<folder>. `crosswalk "
                f"evaluate {shlex.quote(str(source.folder.path))}` evaluates the checkpoints of "
                "its run on the data of the run."
            )
        raise ValueError(
            f"{source.name} is of no run here, so its data are not known. Say on which it is to be "
            "evaluated: data=<data set> data.root=<folder>."
        )
    _check_kept(source, overrides)
    _check_read(overrides, (*READ, "output_dir"))
    if source.kind != "checkpoint":  # whose content is not known yet
        with _meant_of_evaluations():
            config = compose([f"method={recipe_of(source)}", *overrides])
        if reads_captions(source) is False and "tokenizer" in config["data"]:
            raise ValueError(
                f"data={config['choices']['data']} gives image-caption pairs, and {source.name} is "
                "a model of images alone that knows no captions. Evaluate it on images of people, "
                "such as data=own_images data.root=<folder or .csv>."
            )
        try:
            data = to_plain(config)["data"]
        except ValueError:  # what has no value yet is said later
            data = {}
        check_paths({"data": data})
        read_annotations(data)
    say_begun(f"Evaluating {source.name}")
    from crosswalk.use.evaluate import evaluate_model

    found = evaluate_model(source, overrides)
    if found is not None:
        leave_report(found.folder, found.data)
    return found

"""Whether a configuration can be run: the one check, before data, stage or folder exist.

`train`, `evaluate`, `ablate`, `sweep` and `config show` ask `check`. What only the data can tell,
whether their people are known, `check_identities` asks once they have been read.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from crosswalk.config.compose import compose, nested, parse_overrides, to_plain
from crosswalk.config.constructors import (
    Describe,
    check_call,
    check_node,
    construct,
    locate,
    made_by,
    may_be,
    optional_arguments,
    signature_of,
)
from crosswalk.config.keys import NEEDED, TOP, flatten, path_in, with_absolute_paths
from crosswalk.config.model_file import model_in
from crosswalk.config.search import default_method, group_values, read_group_file
from crosswalk.config.sources import read_batches, read_fits, read_signature
from crosswalk.config.stage import stage_command
from crosswalk.config.stored import check_stored
from crosswalk.config.trainer_arguments import check_trainer, num_processes, trainer_settings
from crosswalk.synthetic.settings import settings_of
from crosswalk.words import no_root

if TYPE_CHECKING:
    from crosswalk.types import Needs

ENCODERS = ("encoder",)  # groups handed to the method by name


BATCHES = {
    "PairBatch": "image-caption pairs",
    "ImageBatch": "images of people",
    "SourceTargetBatch": "images of a labelled source and of a target",
}


SYNTHETIC = {"PairBatch": "pairs", "ImageBatch": "images", "SourceTargetBatch": "transfer"}
"""The kinds of generated people."""


@dataclass(frozen=True)
class Checked:
    """A configuration whose parts fit their constructors and each other.

    Attributes:
        config: The resolved configuration, plain.
        method: The class of the method.
        needs: What the method needs with these arguments.
        trainer: Keyword arguments of Lightning's Trainer, strategy included.
        trains: Whether the run is to train, or only to be evaluated.
    """

    config: dict[str, Any]
    method: Any  # a subclass of crosswalk.methods.base.Method
    needs: Needs
    trainer: dict[str, Any]
    trains: bool


def check(
    config: DictConfig | Mapping[str, Any], *, trains: bool = True, stored: Path | None = None
) -> Checked:
    """Return the configuration of a run, ready for `crosswalk.config.build.build`.

    Nothing is built, no data are read, nothing is written.

    Args:
        config: What `compose` or `restore` returns.
        trains: False for an evaluation, whose data may be of a kind that the method cannot train
            on.
        stored: The file of a stored configuration, whose stage may name no other code either.

    Raises:
        ValueError: A value that its constructor does not take, or that does not go with the
            others; the message names the key.
    """
    if trains:
        check_early(config)  # most of what may be wrong, before anything is imported
    _check_groups(config)
    method_class: Any = locate(config["method"]["_target_"], "method")
    needs = needs_of(method_class, config["method"])
    # first: a method may ask for keys that only its own kind of data has
    data_class = locate(config["data"]["_target_"], "data")
    takes, gives = _names(needs.batches), _names(getattr(data_class, "batch_types", ()))
    if trains:
        _check_batches(takes, gives, config["choices"])
    else:
        _check_captions(takes, gives, config["choices"])
    _check_encoders(config)
    plain = with_absolute_paths(to_plain(config))
    _check_values(plain)
    _check_precision(needs, plain["trainer"])
    check_together(plain, whole_batch=needs.whole_batch)
    if trains:
        _check_plan(needs, method_class, plain)
        if plain.get("stage") is not None and plain.get("checkpoint") is None:
            _check_stage(plain, stored)
    return Checked(plain, method_class, needs, trainer_settings(plain["trainer"]), trains)


def check_early(config: DictConfig | Mapping[str, Any]) -> None:
    """Refuse wrong types, choices, ranges and data without importing what the configuration names.

    So they are said at once; `check` says them too, and what only the constructors tell.

    Raises:
        ValueError: As `check`.
    """
    _check_groups(config)
    takes, gives = (
        read_batches(str(config[group].get("_target_"))) for group in ("method", "data")
    )
    if takes and gives:
        _check_batches(takes, gives, config["choices"])
    _check_encoders(config, _fits_by_source)
    plain = to_plain(config)
    _check_synthetic(plain["data"])
    try:
        _check_values(plain, read_signature)
    except ValueError as error:
        if str(error).startswith("encoder.") and not _has_own_encoder(config):
            _check_encoders(config)  # imports, but has the better words for it
        raise


def _check_synthetic(data: Mapping[str, Any]) -> None:
    """Refuse people that cannot be generated, where any are to be."""
    for node in (data, *(value for _, value in nested(data))):
        if not isinstance(node, Mapping) or not isinstance(node.get("synthetic"), Mapping):
            continue
        if (node.get("root") or data.get("root")) is None:
            match read_batches(str(node.get("_target_"))):
                case ["PairBatch"]:
                    settings_of("pairs", node["synthetic"])
                case ["ImageBatch"]:
                    settings_of("images", node["synthetic"])


def _has_own_encoder(config: DictConfig | Mapping[str, Any]) -> bool:
    """Return whether an encoder is of the class of the method's own one; nothing is imported."""
    try:
        own = compose([f"method={config['choices']['method']}"])
    except ValueError:  # of a package that is not here
        return False
    return all(
        (own.get(each) or {}).get("_target_") == config[each]["_target_"] for each in ENCODERS
    )


def check_paths(config: Mapping[str, Any]) -> None:
    """Refuse files and folders that are not there, before anything is imported.

    Those of a stage are looked for once it is trained, and weights where none come from elsewhere.

    Args:
        config: A configuration, or the part of it whose files will be read.

    Raises:
        FileNotFoundError: With the key.
    """
    for key, value in flatten(config).items():
        path = path_in(key, value)
        unread = key.startswith("stage.") or (
            key.endswith(".pretrained") and config.get("checkpoint") is not None
        )
        if path is not None and not unread and not path.exists():
            place = "" if Path(value).expanduser().is_absolute() else f" in {Path.cwd()}"
            raise FileNotFoundError(
                f"{key}={value} does not exist{place}. Correct the path, or copy or unpack there "
                "what it should hold."
            )
    _check_root(config.get("data") or {})


def _check_root(data: Mapping[str, Any]) -> None:
    """Refuse data of this package that are neither to be generated nor lie anywhere."""
    for node in (data, *(value for _, value in nested(data))):
        if not isinstance(node, Mapping) or "reader" not in node:
            continue
        if not str(node.get("_target_")).startswith("crosswalk."):
            continue  # knows itself what it needs
        given = (node.get("root"), node.get("synthetic"), data.get("root"))
        if all(each is None for each in given):
            gives = read_batches(str(data.get("_target_")))
            raise FileNotFoundError(no_root(SYNTHETIC[gives[0]] if gives else "pairs"))


def read_annotations(data: Mapping[str, Any]) -> None:
    """Refuse folders of another layout and damaged annotations, before anything slow is imported.

    Readers of this package alone are asked: they import no torch and open no image.

    Args:
        data: The ``data`` of a configuration, plain; nothing is generated.

    Raises:
        FileNotFoundError: As the reader.
        ValueError: As the reader.
    """
    for node in (data, *(value for _, value in nested(data))):
        if not isinstance(node, Mapping) or not isinstance(node.get("reader"), Mapping):
            continue
        root = node.get("root") or data.get("root")
        if root and str(node["reader"].get("_target_")).startswith("crosswalk.data.readers."):
            construct(node["reader"], {})(Path(str(root)).expanduser())


def _check_groups(config: Mapping[str, Any]) -> None:
    for group in NEEDED:
        if config.get(group) is None:
            values = ", ".join(f"{group}={value}" for value in group_values(group))
            raise ValueError(f"a run needs {group}=. Choose one of {values}.")


FOREIGN = re.compile(r" is not an argument of |=\S+ gives ")
"""In messages about a part whose constructor, or whose place, is another one's."""


def _check_values(plain: Mapping[str, Any], describe: Describe | None = None) -> None:
    """Compare every value with what takes it: type, choice and range."""
    try:
        _check_nodes(plain, describe)
    except ValueError as error:
        if FOREIGN.search(str(error)):
            place, sign, _ = re.split(r"([= ])", str(error), maxsplit=1)
            place = place if sign == "=" else place.rpartition(".")[0]  # that which lacks a key
            if guess := _foreign_choices(plain.get("choices") or {}, place):
                raise ValueError(f"{error}{guess}") from error
        raise


def _foreign_choices(choices: Mapping[str, str], place: str) -> str:
    """Return which choices of files may be the reason that a key has no place; else nothing."""
    method, data = choices.get("method"), choices.get("data")
    try:
        composed = compose([f"method={method}", f"data={data}"])
    except ValueError:  # of a package that is not here
        return ""
    said, own = "", composed.choices
    for group, value in choices.items():
        if group in ("method", "data", "experiment") or own.get(group) == value:
            continue
        if not _reaches(f"{group}={value}", place, composed):
            continue
        without = f"whose own is {group}={own[group]}" if group in own else "which has none"
        said += f" Perhaps {group}={value} does not go with method={method}, {without}."
    return said


def _reaches(choice: str, place: str, own: DictConfig) -> bool:
    """Return whether a file changes what is at a key, within it, or above it, of a composition."""
    try:
        with_it = compose([*(f"{name}={own.choices[name]}" for name in ("method", "data")), choice])
        before, after = flatten(to_plain(own)), flatten(to_plain(with_it))
    except ValueError:  # does not even compose
        return True
    changed = (key for key in {*before, *after} if before.get(key, ...) != after.get(key, ...))
    return any(f"{key}.".startswith(f"{place}.") or place.startswith(f"{key}.") for key in changed)


def _check_nodes(plain: Mapping[str, Any], describe: Describe | None) -> None:
    top = {key: plain[key] for key in TOP if key in plain}
    check_call(top, "", optional_arguments(TOP), "a run")
    # before the others, which take over its numbers
    check_trainer({"max_epochs": None, **plain["trainer"]}, describe)
    encoders = [name for name in ENCODERS if plain.get(name) is not None]
    wandb = (plain.get("logger") or {}).get("wandb")
    nodes: list[tuple[str, Any, tuple[str, ...]]] = [
        ("method", plain["method"], ("data", "optim", *encoders)),
        ("data", plain["data"], ("identities",)),
        ("optim", plain["optim"], ()),
        *((name, plain[name], ("words",)) for name in encoders),
        ("reranking", plain.get("reranking"), ("query", "gallery")),
        ("logger.wandb", wandb, ("folder", "config", "tags")),
        *((f"diagnostics.{i}", node, ()) for i, node in enumerate(plain.get("diagnostics") or ())),
    ]
    for key, node, given in nodes:
        if node is not None:
            check_node(node, key, frozenset(given), describe)


Fits = Callable[[Mapping[str, Any], str, str], tuple[bool | None, str]]
"""Whether what a node makes can be an argument of a constructor, and what that wants."""


def _fits_by_import(node: Mapping[str, Any], target: str, argument: str) -> tuple[bool, str]:
    takes = signature_of(target, "method")
    expected = takes.annotations.get(argument, Any) if takes is not None else Any
    return may_be(made_by(node), expected), str(getattr(expected, "__name__", expected))


def _fits_by_source(node: Mapping[str, Any], target: str, argument: str) -> tuple[bool | None, str]:
    return read_fits(str(node["_target_"]), target, argument)


def _check_encoders(config: Mapping[str, Any], fits: Fits = _fits_by_import) -> None:
    """Refuse encoders of another kind than the method's."""
    target = str(config["method"].get("_target_"))
    for name in ENCODERS:
        node = config.get(name)
        if node is None or "_target_" not in node:
            continue
        is_right, expected = fits(node, target, name)
        if is_right is not False:
            continue
        files = [(value, read_group_file(name, value)) for value in group_values(name)]
        right = [
            f"{name}={value}"
            for value, file in files
            if "_target_" in file and fits(file, target, name)[0]
        ]
        choices = config["choices"]
        checkpoint = str(config.get("checkpoint") or "")
        brought = model_in(Path(checkpoint).expanduser()) if checkpoint else None
        theirs = brought[0].get("encoder") if brought else None
        if isinstance(theirs, Mapping) and theirs.get("_target_") == node["_target_"]:
            raise ValueError(
                f"method={choices.get('method')} cannot start from checkpoint={checkpoint}, of "
                f"{name}={choices.get(name)}: {node['_target_']} is no {expected}. Name a "
                f"checkpoint of one of {', '.join(right)}, or leave checkpoint out."
            )
        raise ValueError(
            f"{name}={choices.get(name)} does not go with method={choices.get('method')}: "
            f"{node['_target_']} is no {expected}. Choose one of {', '.join(right)}."
        )


def _check_precision(needs: Needs, trainer: Mapping[str, Any]) -> None:
    """Refuse weights of another type than that of normalised images, for those that take them."""
    precision = str(trainer.get("precision", "32-true"))
    takes_pairs = any(batch.__name__ == "PairBatch" for batch in needs.batches)
    if precision.removesuffix("-true") in ("64", "16", "bf16") and not takes_pairs:
        if precision in ("16", "bf16"):
            return  # Lightning's short words for mixed
        raise ValueError(
            f"trainer.precision={precision}: images reach this method in 32 bits, and its weights "
            "would have others. Use 32-true, 16-mixed or bf16-mixed."
        )


def _check_stage(plain: Mapping[str, Any], stored: Path | None) -> None:
    """Look at the stage of a run before it is trained."""
    try:
        stage = compose(stage_command(plain))
        if stored is not None:
            check_stored(to_plain(stage), stored)
        check(stage, stored=stored)
    except ValueError as error:
        raise ValueError(f"stage (its keys are below stage.overrides): {error}") from error


def needs_of(method_class: Any, arguments: Mapping[str, Any]) -> Needs:  # noqa: ANN401
    """Return what a method needs when it is made with these arguments.

    Raises:
        ValueError: If the class does not say what it needs.

    Example:
        >>> from crosswalk.methods.cmmt import CMMT
        >>> needs_of(CMMT, {"relation": "text_iou"}).identities
        False
        >>> needs_of(CMMT, {"relation": "identities"}).identities
        True
    """
    needs: Needs | None = getattr(method_class, "needs", None)
    if needs is None:
        raise ValueError(
            f"method._target_={method_class.__module__}.{method_class.__qualname__} does not say "
            "what it needs: give the class `needs = crosswalk.types.Needs(batches=(...,))`."
        )
    if any(arguments.get(name) == value for name, value in needs.identities_if.items()):
        return replace(needs, identities=True)
    return needs


def _check_plan(needs: Needs, method_class: Any, config: Mapping[str, Any]) -> None:  # noqa: ANN401
    """Refuse batches by person for a method that neither needs persons nor tells its own."""
    if needs.plans_see_identities or method_class.gives_plan_labels():
        return
    for key, node in [("data", config["data"]), *nested(config["data"], "data.")]:
        if not key.endswith(".plan") or not isinstance(node, Mapping) or "_target_" not in node:
            continue
        if getattr(locate(node["_target_"], key), "by_person", False):
            raise ValueError(
                f"{key}={node['_target_']} puts several samples of a person into a batch, and "
                f"method={config['choices'].get('method')} does not look at identities. Leave "
                f"{key} as configs/data sets it."
            )


def check_types(
    node: DictConfig | Mapping[str, Any], key: str = "", given: Iterable[str] = ()
) -> None:
    """Compare a ``_target_`` node, and all nodes inside, with the constructors they name.

    Without this ``temperature=hot`` would reach the loss as a string.

    Args:
        node: A mapping with a ``_target_``.
        key: Its dotted key, for the message; a `DictConfig` knows its own.
        given: Names of arguments that will be handed over later.

    Raises:
        ValueError: A key the constructor does not have, a value it does not take, or no value
            where it has no default; the message names the dotted key.

    Example:
        >>> loss = {"_target_": "crosswalk.losses.info_nce.info_nce", "temperature": "hot"}
        >>> check_types(loss, key="loss")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        ValueError: loss.temperature='hot' is of type str; ...info_nce.info_nce takes float.
    """
    if isinstance(node, DictConfig):
        key = key or node._get_full_key(None)
    check_node(to_plain(node), key, frozenset(given))


def compose_training(overrides: Sequence[str]) -> DictConfig:
    """Return `compose` of the overrides of a training.

    Raises:
        ValueError: As `compose`; where the data are of another kind than the method takes, that,
            and not which key of its own kind they lack.
    """
    try:
        return compose(overrides)
    except ValueError:
        given: dict[str, Any] = {}
        with suppress(ValueError):  # said in the words of `compose`
            given = {each.key_or_group: each.value() for each in parse_overrides(overrides)}
        method, data = given.get("method", default_method()), given.get("data")
        check_kind(str(method), str(data))
        raise


def check_kind(method: str, data: str, *, option: str = "data=") -> None:
    """Refuse data of another kind than a method takes, by their files alone.

    Args:
        method: File of the method.
        data: File of the data.
        option: What the data were chosen with, for the message: ``data=`` or ``--data``.

    Raises:
        ValueError: Naming the data that would do.
    """
    if method not in group_values("method") or data not in group_values("data"):
        return  # said elsewhere
    takes, gives = read_batches(_target_of_method(method)), _given_by(data)
    if takes:
        _check_batches(takes, gives, {"method": method, "data": data}, option=option)


def _check_batches(
    takes: Sequence[str],
    gives: Sequence[str],
    choices: Mapping[str, str],
    *,
    option: str = "data=",
) -> None:
    """Refuse data without batches that the method takes, by the names of the kinds.

    A class names all kinds of batches it can give, an object the kind that it gives.
    """
    if not gives or set(gives) & set(takes):
        return
    known = [name for name in group_values("data") if set(_given_by(name)) & set(takes)]
    others = _methods_for(gives) if option == "data=" else []  # else the method is settled
    raise ValueError(
        f"{option}{choices.get('data')} gives {_named(gives)}; method={choices.get('method')} "
        f"trains on {_named(takes)}. Choose one of "
        f"{', '.join(f'{option}{name}' for name in known)}"
        f"{''.join(f', or method={name}' for name in others)}."
    )


def _methods_for(gives: Sequence[str]) -> list[str]:
    """Return the methods of this package that train on a kind of batches."""
    targets = {name: _target_of_method(name) for name in group_values("method")}
    return [
        name for name, target in targets.items() if set(read_batches(target) or ()) & set(gives)
    ]


def _target_of_method(name: str) -> str:
    return str(read_group_file("method", name).get("method", {}).get("_target_"))


def _given_by(data: str) -> Sequence[str]:
    """Return the kinds of batches of ``data=<data>``."""
    target = _target_of("data", data)
    if target is None:
        return ()
    read = read_batches(target)
    return _names(getattr(locate(target, "data"), "batch_types", ())) if read is None else read


def _target_of(group: str, value: str) -> str | None:
    """Return the ``_target_`` of a file, or of the file of its group that it is made of."""
    content = read_group_file(group, value)
    for entry in content.get("defaults", ()):
        if "_target_" not in content and isinstance(entry, str) and entry != "_self_":
            return _target_of(group, entry)
    return content.get("_target_")


def _check_captions(takes: Sequence[str], gives: Sequence[str], choices: Mapping[str, str]) -> None:
    """Refuse to evaluate a model of images alone on captions."""
    if set(gives) == {"PairBatch"} and "PairBatch" not in takes:
        raise ValueError(
            f"data={choices.get('data')} gives {_named(gives)}, and a model of method="
            f"{choices.get('method')} knows no captions. Evaluate it on images of people, such as "
            "data=own_images data.root=<folder or .csv>."
        )


def check_data(needs: Needs, data: Any, choices: Mapping[str, str]) -> None:  # noqa: ANN401
    """Refuse data that turn out to be of another kind, or without identities that are needed.

    Args:
        needs: What the method needs.
        data: The data module, its data read.
        choices: The files of the groups, for the message.
    """
    _check_batches(_names(needs.batches), _names(data.batch_types), choices)
    if data.spec.num_samples == 0:
        raise ValueError(
            f"data={choices.get('data')} has nothing to train on: no train split. Add one, or "
            f"evaluate a run on it: crosswalk evaluate RUN data={choices.get('data')} data.root=..."
        )
    if not needs.identities or getattr(data, "is_labelled", True):
        return
    name = choices.get("method")
    pairs = any(batch.__name__ == "PairBatch" for batch in data.batch_types)
    without = methods_without_identities(data.batch_types)
    advice = f"Choose method={' or '.join(without)}." if without else "Give them identities."
    if name in without:  # it can do without, but is told not to
        advice = f"Leave method.* as configs/method/{name}.yaml sets it."
    raise ValueError(
        f"method={name} learns from identities, and the training {'pairs' if pairs else 'images'} "
        f"of data={choices.get('data')} have none. {advice}"
    )


def methods_without_identities(batches: Iterable[type]) -> list[str]:
    """Return the methods that train on these batches without knowing people.

    The one with most published runs comes first.
    """
    runs = Counter(run.split("/")[0] for run in group_values("experiment"))
    found = []
    for name in group_values("method"):
        node = read_group_file("method", name).get("method", {})
        try:
            needs = needs_of(locate(node["_target_"], "method"), node)
        except (KeyError, ValueError):  # made of another file, or of a package that is not here
            continue
        if not needs.identities and set(batches) <= set(needs.batches):
            found.append(name)
    return sorted(found, key=lambda name: (-runs[name], name))


def _names(batches: Iterable[type]) -> list[str]:
    return [batch.__name__ for batch in batches]


def _named(batches: Iterable[str]) -> str:
    return " or ".join(BATCHES[batch] for batch in batches)


def check_together(config: Mapping[str, Any], *, whole_batch: bool) -> None:
    """Refuse values that are right alone and wrong together.

    Args:
        config: The plain configuration.
        whole_batch: Whether the method's loss compares all samples of a batch.

    Example:
        >>> trainer = {"accelerator": "cpu", "devices": 8}
        >>> check_together({"data": {"batch_size": 100}, "trainer": trainer}, whole_batch=True)
        Traceback (most recent call last):
            ...
        ValueError: data.batch_size=100 does not split over 8 processes; use 96 or 104.
    """
    trainer = config["trainer"]
    steps = trainer.get("accumulate_grad_batches") or 1
    if steps > 1 and whole_batch:
        raise ValueError(
            f"trainer.accumulate_grad_batches={steps}: this method's loss compares all samples of "
            "a batch with each other, so several small batches are not one large batch. Use one "
            "larger data.batch_size on more processes (trainer.devices), or keep the batch."
        )
    if config["data"].get("protocol", config.get("protocol")) != config.get("protocol"):
        raise ValueError(
            f"data.protocol={config['data']['protocol']} and protocol={config['protocol']} differ: "
            "write protocol=official (or val), which sets both."
        )
    every, epochs = trainer.get("check_val_every_n_epoch") or 1, trainer.get("max_epochs") or 0
    if config.get("protocol") in ("val", "official") and 0 < epochs < every:
        raise ValueError(
            f"trainer.check_val_every_n_epoch={every} is more than trainer.max_epochs={epochs}: no "
            f"epoch would be evaluated, so none could be the best. Use at most {epochs}."
        )
    processes = num_processes(trainer)
    started = _started_processes(os.environ)
    slurm = "SLURM_PROCID" in os.environ and "TORCHELASTIC_RUN_ID" not in os.environ
    if started > 1 and slurm and "SLURM_NTASKS_PER_NODE" not in os.environ:
        raise ValueError(
            f"Slurm started {started} processes, and Lightning wants to be told how many on each "
            f"machine: write --ntasks-per-node={started} for one machine, in the place of --ntasks."
        )
    if started not in (1, processes):
        raise ValueError(
            f"{started} processes were started, but trainer.devices x trainer.num_nodes is "
            f"{processes}; add trainer.devices=<processes per machine> and, with several machines, "
            "trainer.num_nodes=<machines>."
        )
    for key, batch_size in _batch_sizes(config["data"]):
        below = batch_size // processes * processes
        if batch_size % processes:
            advice = f"{below} or {below + processes}" if below else f"{processes} or a multiple"
            raise ValueError(
                f"{key}={batch_size} does not split over {processes} processes; use {advice}."
            )


def _started_processes(environment: Mapping[str, str]) -> int:
    """Return how many processes torchrun or srun started; 1 without them."""
    if "TORCHELASTIC_RUN_ID" in environment:
        return int(environment["WORLD_SIZE"])
    if "SLURM_PROCID" in environment and environment.get("SLURM_JOB_NAME") not in (
        "bash",
        "interactive",
    ):
        return int(environment.get("SLURM_NTASKS", "1"))
    return 1


def _batch_sizes(data: Mapping[str, Any]) -> list[tuple[str, int]]:
    """Return every batch size of the data node, with its key."""
    return [
        (f"data.{key}", value)
        for key, value in nested(data)
        if key.rsplit(".", 1)[-1] == "batch_size" and isinstance(value, int)
    ]

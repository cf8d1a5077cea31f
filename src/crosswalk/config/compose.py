"""From `key=value` overrides to objects. The only module that knows Hydra and OmegaConf.

`compose` reads the files under ``configs/`` and is quick: nothing heavy is imported before
`check_types` looks at constructors. `build` then makes the objects in the order they need each
other: data, their sizes, the method.
"""

from __future__ import annotations

import copy
import inspect
import os
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from crosswalk.config.constructors import check_node, construct, did_you_mean, locate
from crosswalk.config.trainer_arguments import num_processes, trainer_keys, trainer_settings

if TYPE_CHECKING:
    import lightning.pytorch as L
    from hydra.core.override_parser.types import Override

Config = DictConfig  # for annotations elsewhere: only this module imports OmegaConf
DEFAULT_METHOD = "rde"  # as in configs/train.yaml
ENCODERS = ("encoder",)  # groups handed to the method by name


OF_THE_MODEL = (
    *("image_size", "interpolation", "tokenizer", "context_length"),
    *("transform.mean", "transform.std", "transform.pixel_format"),
)
"""Keys of ``data`` that a model is evaluated with as it was trained, whatever the data are."""


def config_folder() -> Path:
    """Return the folder of the YAML files: inside an installed package, or beside ``src/``.

    Example:
        >>> (config_folder() / "train.yaml").is_file()
        True
    """
    package = Path(__file__).parents[1]
    for folder in (package / "configs", package.parents[1] / "configs"):
        if (folder / "train.yaml").is_file():
            return folder
    raise FileNotFoundError(
        f"no configs/train.yaml inside {package} or beside its src folder. The installation is "
        "incomplete: install crosswalk again, from a wheel or a whole clone."
    )


def group_values(group: str) -> list[str]:
    """Return what ``<group>=`` may be set to.

    Example:
        >>> "rde" in group_values("method")
        True
    """
    folder = config_folder() / group
    return sorted(str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.yaml"))


def compose(overrides: Iterable[str] = ()) -> DictConfig:
    """Return the configuration of a run, closed against unknown keys.

    From weakest to strongest: the group files, the published run
    ``configs/experiment/<method>/<data>.yaml`` where there is one, the overrides. Without
    ``data=`` the method's synthetic data are taken.

    Args:
        overrides: ``key=value`` in Hydra's grammar, with or without leading ``--``:
            ``group=file``, ``dotted.key=value``, ``+new.key=value``, ``~key``.

    Raises:
        ValueError: A key, a group or a value of a group does not exist; the message suggests
            the nearest one that does.

    Example:
        >>> compose(["method=rde", "seed=3"]).seed
        3
    """
    parsed, groups = _parse(overrides), _groups()
    choices = [override for override in parsed if _is_choice(override, groups)]
    for choice in choices:
        _check_choice(choice)
    chosen = {choice.key_or_group: choice.value() for choice in choices}
    lines = [line for choice in choices if (line := _choice_line(choice)) is not None]
    experiment = _published_run(chosen)
    if experiment is not None:
        lines.append(f"experiment={experiment}")
    config = copy.deepcopy(_hydra_compose(tuple(lines)))
    for override in parsed:
        if not _is_choice(override, groups):
            _apply(override, config, groups)
    return config


def restore(
    stored: Mapping[str, Any], overrides: Iterable[str] = (), *, vocabulary: Path | None = None
) -> DictConfig:
    """Return the configuration of an earlier run, changed by overrides.

    ``dotted.key=value`` changes the stored value; ``group=file`` replaces the group's part by a
    new one, as in ``data=icfg_pedes`` to evaluate a model on other data. How images and captions
    become numbers stays as the model has learned it.

    Args:
        stored: The plain configuration of the run.
        overrides: As for `compose`.
        vocabulary: File of the words that the run's tokenizer has learned, if it has.

    Raises:
        ValueError: An override does not exist, or gives one of `OF_THE_MODEL` another value.

    Example:
        >>> restore({"seed": 1, "trainer": {"devices": 2}}, ["trainer.devices=1"])
        {'seed': 1, 'trainer': {'devices': 1}}
    """
    config = OmegaConf.create(dict(stored))
    groups = _groups()
    parsed = _parse(overrides)
    choices = [override for override in parsed if _is_choice(override, groups)]
    for choice in choices:
        method = stored.get("choices", {}).get("method", DEFAULT_METHOD)
        fresh = compose([f"method={method}", choice.input_line or ""])
        chosen = OmegaConf.select(fresh, choice.key_or_group)  # None: the group is switched off
        OmegaConf.update(config, choice.key_or_group, chosen, merge=False)
    single = [override for override in parsed if override not in choices]
    for override in single:
        _apply(override, config, groups)
    if "data" in stored:  # what the model was built for, and what interpolations once said
        kept = dict(_nested(stored["data"]))
        present = {key for key, _ in _nested(OmegaConf.to_container(config.data, resolve=False))}
        names = [override.key_or_group for override in single]
        _check_model_kept(config, kept, single)
        for key in OF_THE_MODEL:
            if key in kept and key in present:
                OmegaConf.update(config.data, key, kept[key], merge=False)
        if vocabulary is not None and "tokenizer" in present:
            path = str(vocabulary.resolve())
            OmegaConf.update(config.data, "tokenizer.vocabulary", path, force_add=True)
        # given for the data alone it is refused later, by `check_together`
        if "protocol" in stored["data"] and "data.protocol" not in names:
            config.data.protocol = config.protocol
    OmegaConf.set_struct(config, True)
    return config


def to_plain(config: DictConfig | Mapping[str, Any]) -> dict[str, Any]:
    """Return the resolved configuration as plain dicts, lists and scalars.

    Raises:
        ValueError: A value is still ``???`` or an interpolation cannot be resolved.

    Example:
        >>> to_plain(OmegaConf.create({"seed": 1, "data": {"seed": "${seed}"}}))
        {'seed': 1, 'data': {'seed': 1}}
    """
    if not isinstance(config, DictConfig):
        return dict(config)
    try:
        plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", "") or ""
        if all(OmegaConf.select(config, f"{name}._target_") for name in ("method", "data")):
            # a method may ask for what only its own kind of data has
            method_class = locate(config.method._target_, "method")
            data_class = locate(config.data._target_, "data")
            _check_batches(method_class, data_class, config.get("choices", {}))
        raise ValueError(f"{key}: {_first_line(error)}. Set it with {key}=<value>.") from error
    return typing.cast(dict[str, Any], plain)


def to_yaml(config: DictConfig | Mapping[str, Any]) -> str:
    """Return the configuration as YAML, interpolations resolved where they can be.

    Example:
        >>> print(to_yaml({"seed": 1, "trainer": {"devices": 2}}))
        seed: 1
        trainer:
          devices: 2
        <BLANKLINE>
    """
    if isinstance(config, DictConfig):
        return OmegaConf.to_yaml(config, resolve=True)
    return OmegaConf.to_yaml(OmegaConf.create(dict(config)))


def read_yaml(path: Path) -> dict[str, Any]:
    """Return a stored ``config.yaml`` as plain dicts.

    Example:
        >>> read_yaml(config_folder() / "train.yaml")["seed"]
        1
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: a run folder holds the config.yaml of its run")
    return to_plain(typing.cast(DictConfig, OmegaConf.load(path)))


def differences(left: Mapping[str, Any], right: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return (dotted key, left value, right value) wherever two configurations differ.

    Example:
        >>> differences({"a": {"b": 1, "c": 2}}, {"a": {"b": 1}, "d": None})
        [('a.c', '2', '(absent)'), ('d', '(absent)', 'null')]
    """
    one, two = (
        {
            key: "null" if value is None else str(value)
            for key, value in _nested(config)
            if not (isinstance(value, (Mapping, list)) and value)
        }
        for config in (left, right)
    )
    rows = []
    for key in [*one, *(key for key in two if key not in one)]:
        if one.get(key, "(absent)") != two.get(key, "(absent)"):
            rows.append((key, one.get(key, "(absent)"), two.get(key, "(absent)")))
    return rows


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
        >>> loss = {"_target_": "crosswalk.losses.pair_losses.InfoNCE", "temperature": "hot"}
        >>> check_types(loss, key="loss")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        ValueError: loss.temperature='hot' is of type str; ...pair_losses.InfoNCE takes float.
    """
    if isinstance(node, DictConfig):
        key = key or node._get_full_key(None)
    check_node(to_plain(node), key, frozenset(given))


def instantiate(node: DictConfig | Mapping[str, Any] | None, **kwargs: Any) -> Any:  # noqa: ANN401
    """Return the object a ``_target_`` node describes, after `check_types`.

    Constructors get plain dicts, lists and scalars. With ``_partial_: true`` the object is a
    function that waits for its remaining arguments.

    Args:
        node: A mapping with a ``_target_``; None gives None.
        kwargs: Further arguments, objects of any kind.

    Example:
        >>> instantiate({"_target_": "fractions.Fraction", "numerator": 6}, denominator=4)
        Fraction(3, 2)
    """
    if node is None:
        return None
    check_types(node, given=kwargs)
    return construct(to_plain(node), kwargs)


@dataclass(frozen=True)
class Run:
    """What a configuration describes.

    Attributes:
        config: The resolved configuration, plain.
        data: The data module.
        method: The method, built with the data's sizes.
        trainer: Keyword arguments of Lightning's Trainer, strategy included; callbacks and
            loggers are the caller's.
    """

    config: dict[str, Any]
    data: Any  # a LightningDataModule with what the callbacks' protocols ask for
    method: L.LightningModule
    trainer: dict[str, Any]


def build(config: DictConfig | Mapping[str, Any], *, trains: bool = True) -> Run:
    """Return the objects of a run: first the data, then their sizes, then the method.

    The method's constructor gets its own node, the sizes of the data as ``data``, the optimizer's
    builder as ``optim``, and the encoders under the names of their groups. An encoder whose
    constructor has an argument ``words`` gets the word of each token id.

    Args:
        config: What `compose` or `restore` returns.
        trains: False for an evaluation on other data, which may be of a kind that the method
            cannot train on: its memories then have any sizes.

    Raises:
        ValueError: Values that do not fit their constructors, or each other.
    """
    plain = to_plain(config)
    method_class = locate(plain["method"]["_target_"], "method")
    data_class = locate(plain["data"]["_target_"], "data")
    if trains:
        _check_batches(method_class, data_class, plain["choices"])
    trainer = trainer_settings(plain["trainer"])
    encoders = [name for name in ENCODERS if plain.get(name) is not None]
    check_types(plain["method"], key="method", given=("data", "optim", *encoders))
    for name in ("data", "optim"):
        check_types(plain[name], key=name)
    for name in encoders:
        check_types(plain[name], key=name, given=("words",))
    if plain.get("reranking") is not None:
        check_types(plain["reranking"], key="reranking", given=("query", "gallery"))
    check_together(plain, accumulates=bool(getattr(method_class, "accumulates", False)))
    data = instantiate(plain["data"])
    sizes = data.spec
    if trains:
        _check_batches(method_class, data, plain["choices"])
        _check_labels(method_class, data, plain["choices"])
    elif sizes.num_source_person_ids == 0:
        sizes = replace(sizes, num_source_person_ids=1)
    parts = {"optim": instantiate(plain["optim"])}
    for name in encoders:
        parts[name] = instantiate(plain[name], **_words_for(plain[name], name, data))
    method = instantiate(plain["method"], data=sizes, **parts)
    if trains:
        _check_labels(method, data, plain["choices"])
    return Run(config=plain, data=data, method=method, trainer=trainer)


def _words_parameter(node: Mapping[str, Any]) -> inspect.Parameter | None:
    """Return the argument ``words`` of a node's constructor; None where it has none."""
    try:
        return inspect.signature(locate(node["_target_"], "")).parameters.get("words")
    except ValueError:  # some built-ins have no signature
        return None


def _words_for(node: Mapping[str, Any], name: str, data: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return the word of each token id for an encoder that takes them."""
    parameter = _words_parameter(node)
    if parameter is None:
        return {}
    words = getattr(data, "words", None)
    if words is None and parameter.default is parameter.empty:
        tokenizer = type(getattr(data, "tokenizer", None)).__name__
        raise ValueError(
            f"{name}={node['_target_']} is made for a vocabulary of words, and "
            f"data.tokenizer={tokenizer} has none. Choose "
            "data.tokenizer._target_=crosswalk.data.text.word_tokenizer.WordTokenizer."
        )
    return {"words": words}


BATCHES = {
    "PairBatch": "image-caption pairs",
    "ImageBatch": "images of people",
    "SourceTargetBatch": "images of a labelled source and of a target",
}


def _check_batches(method_class: Any, data: Any, choices: Mapping[str, str]) -> None:  # noqa: ANN401
    """Refuse data without batches that ``Method[...]``, the method's base class, takes.

    A class names all kinds of batches it can give, an object the kind that it gives.
    """
    bases = getattr(method_class, "__orig_bases__", ())
    takes = [batch for base in bases for batch in typing.get_args(base)]
    takes = [batch for union in takes for batch in (typing.get_args(union) or (union,))]
    gives = getattr(data, "batch_types", ())
    if not gives or not takes or set(gives) & set(takes):
        return
    method = choices.get("method")
    runs = [run for run in group_values("experiment") if run.startswith(f"{method}/")]
    known = sorted({run.split("/")[1] for run in runs} & set(group_values("data")))
    raise ValueError(
        f"data={choices.get('data')} gives {_named(gives)}; method={method} trains on "
        f"{_named(takes)}. Choose one of "
        f"{', '.join(f'data={name}' for name in known)}."
    )


def _check_labels(method: Any, data: Any, choices: Mapping[str, str]) -> None:  # noqa: ANN401
    """Refuse training data without identities for a method, or its class, that needs them."""
    if not getattr(method, "needs_labels", False) or getattr(data, "is_labelled", True):
        return
    pairs = any(batch.__name__ == "PairBatch" for batch in getattr(data, "batch_types", ()))
    what, without = ("pairs", "cmmt") if pairs else ("images", "mmcl")
    name = choices.get("method")
    advice = f"Choose method={without}."
    if name == without:  # it can do without, but is told not to
        advice = f"Leave method.* as configs/method/{name}.yaml sets it."
    raise ValueError(
        f"method={name} learns from identities, and the training {what} of "
        f"data={choices.get('data')} have none. {advice}"
    )


def _named(batches: Iterable[type]) -> str:
    return " or ".join(BATCHES[batch.__name__] for batch in batches)


def check_together(config: Mapping[str, Any], *, accumulates: bool) -> None:
    """Refuse values that are right alone and wrong together.

    Args:
        config: The plain configuration.
        accumulates: Whether the method defines its loss over accumulated batches.

    Example:
        >>> trainer = {"accelerator": "cpu", "devices": 8}
        >>> check_together({"data": {"batch_size": 100}, "trainer": trainer}, accumulates=False)
        Traceback (most recent call last):
            ...
        ValueError: data.batch_size=100 does not split over 8 processes; use 96 or 104.
    """
    trainer = config["trainer"]
    steps = trainer.get("accumulate_grad_batches") or 1
    if steps > 1 and not accumulates:
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
    processes = num_processes(trainer)
    started = _started_processes(os.environ)
    if started not in (1, processes):
        raise ValueError(
            f"{started} processes were started, but trainer.devices x trainer.num_nodes is "
            f"{processes}; add trainer.devices=<processes per machine> and, with several machines, "
            "trainer.num_nodes=<machines>."
        )
    for key, batch_size in _batch_sizes(config["data"]):
        below = batch_size // processes * processes
        if batch_size % processes:
            advice = f"{below} or {below + processes}" if below else f"{processes} or more"
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


def _check_model_kept(
    config: DictConfig, kept: Mapping[str, Any], overrides: Iterable[Override]
) -> None:
    """Refuse overrides of what a model is evaluated with as it was trained.

    Args:
        config: The stored configuration with its overrides.
        kept: Every dotted key of the stored ``data``, with its value.
        overrides: Those of single keys.
    """
    of_the_model = [key for key in OF_THE_MODEL if key in kept]
    given = []
    for override in overrides:
        name, value = override.key_or_group, None if override.is_delete() else override.value()
        inner = [key for key, _ in _nested(value)] if isinstance(value, Mapping) else []
        given += [name, *(f"{name}.{key}" for key in inner)]
    for name in given:
        key = name.removeprefix("data.")
        if key == name or not any(f"{key}.".startswith(f"{model}.") for model in of_the_model):
            continue
        value = OmegaConf.select(config, name)
        plain = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
        if key in kept and plain == kept[key]:
            continue
        trained = "" if kept.get(key) is None else f", with {kept[key]}"
        raise ValueError(
            f"{name} belongs to the model, which is evaluated as it was trained{trained}. Leave "
            "it out."
        )


# Composition


def _groups() -> list[str]:
    folders = (path.name for path in config_folder().iterdir() if path.is_dir())
    return sorted(name for name in folders if name != "sweep")  # files of W&B, not parts of a run


def _parse(overrides: Iterable[str]) -> list[Override]:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser = OverridesParser.create()
    parsed = []
    for line in overrides:
        line = line.removeprefix("--")
        try:
            override = parser.parse_override(line)
        except HydraException:
            try:  # paths may hold characters that the grammar wants quoted
                override = parser.parse_override(_quoted(line))
            except HydraException as error:
                raise ValueError(
                    f"{line!r} is not of the form key=value. Lists are written key=[1,2]; a value "
                    "with quotes or brackets of its own stands in quotes."
                ) from error
        if override.is_sweep_override():
            raise ValueError(
                f"{line!r} has several values. A list is written key=[1,2], a value with a comma "
                "'key=\"a,b\"'; for a sweep start one run per value."
            )
        parsed.append(override)
    return parsed


def _quoted(line: str) -> str:
    key, _, value = line.partition("=")
    if value.startswith(("[", "{", "'", '"')):
        return line
    if value.startswith("~"):
        value = str(Path(value).expanduser())
    return key + "='" + value.replace("'", "\\'") + "'"


def _is_choice(override: Override, groups: Sequence[str]) -> bool:
    """Return whether the override names a file of a group; ``method={...}`` is none."""
    return override.key_or_group in groups and (
        override.is_delete() or isinstance(override.value(), str) or override.value() is None
    )


def _check_choice(choice: Override) -> None:
    group, value = choice.key_or_group, choice.value()
    values = group_values(group)
    if value is None or value in values:
        return
    raise ValueError(
        f"{group}={value} does not exist.{did_you_mean(str(value), values)} "
        f"There are: {', '.join(values)}."
    )


def _choice_line(choice: Override) -> str | None:
    """Return the choice for Hydra, which knows ``~group`` but not ``group=null``."""
    if choice.is_delete() or choice.value() is not None:
        return choice.input_line
    return None if choice.key_or_group == "experiment" else f"~{choice.key_or_group}"


def _published_run(chosen: Mapping[str, Any]) -> str | None:
    """Return the experiment that belongs to the chosen method and data, unless one was named."""
    if "experiment" in chosen:
        return None
    method, runs = chosen.get("method", DEFAULT_METHOD), group_values("experiment")
    if chosen.get("data") is not None:
        wanted = [f"{method}/{chosen['data']}"]
    else:
        wanted = [run for run in runs if run.startswith(f"{method}/synthetic_")]
    return next((run for run in wanted if run in runs), None)


@cache  # the rows of a table and the trials of a sweep differ in values only
def _hydra_compose(lines: tuple[str, ...]) -> DictConfig:
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException

    OmegaConf.register_new_resolver("above", _above, replace=True)
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(config_folder()), version_base="1.3"):
            whole = hydra_compose("train", list(lines), return_hydra_config=True)
    except (HydraException, OmegaConfBaseException) as error:
        message = str(error).split("Config search path")[0]
        raise ValueError(" ".join(message.split())) from error
    finally:
        GlobalHydra.instance().clear()
    choices = dict(whole.hydra.runtime.choices)
    config = OmegaConf.masked_copy(whole, [str(key) for key in whole if key != "hydra"])
    OmegaConf.set_struct(config, False)
    config["choices"] = {
        group: value
        for group, value in sorted(choices.items())
        if value is not None and not group.startswith("hydra/")
    }
    OmegaConf.set_struct(config, True)
    return config


def _above(value: float, limit: float, then: Any, otherwise: Any) -> Any:  # noqa: ANN401
    """Return ``then`` if ``value > limit``: ``${above:${data.noise_rate},0.4,100,10}``."""
    return then if float(value) > float(limit) else otherwise


def _apply(override: Override, config: DictConfig, groups: Sequence[str]) -> None:
    """Change the configuration by one override, or say which key was meant."""
    key, line = override.key_or_group, override.input_line or ""
    known = [name for name, _ in _nested(OmegaConf.to_container(config, resolve=False))]
    adds = override.is_add() or override.is_force_add()
    if key.startswith("trainer.") and key not in known:
        _check_trainer_key(key, line)
        adds = not override.is_delete()
    if key not in known and not adds:
        near = did_you_mean(key, [*known, *groups])
        advice = near or f" `crosswalk config show` lists all; +{key}=<value> adds a new one."
        raise ValueError(f"{key} is not a key of this configuration.{advice}")
    if override.is_delete():
        parent, _, name = key.rpartition(".")
        node = OmegaConf.select(config, parent) if parent else config
        OmegaConf.set_struct(config, False)
        del node[name]
        OmegaConf.set_struct(config, True)
    else:
        OmegaConf.update(config, key, override.value(), merge=True, force_add=adds)


def _check_trainer_key(key: str, line: str) -> None:
    name = key.split(".")[1]
    if key.count(".") == 1 and name not in trainer_keys():
        near = did_you_mean(key, [f"trainer.{name}" for name in trainer_keys()])
        raise ValueError(f"{line}: Lightning's Trainer has no argument {name}.{near}")


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0].rstrip(".")


def _batch_sizes(data: Mapping[str, Any]) -> list[tuple[str, int]]:
    """Return every batch size of the data node, with its key."""
    return [
        (f"data.{key}", value)
        for key, value in _nested(data)
        if key.rsplit(".", 1)[-1] == "batch_size" and isinstance(value, int)
    ]


def _nested(node: Any, prefix: str = "") -> list[tuple[str, Any]]:  # noqa: ANN401
    """Return every dotted key below ``node`` with its value, inner nodes included."""
    rows: list[tuple[str, Any]] = []
    for name, value in node.items() if isinstance(node, Mapping) else enumerate(node):
        rows.append((f"{prefix}{name}", value))
        if isinstance(value, (Mapping, list)):
            rows += _nested(value, f"{prefix}{name}.")
    return rows

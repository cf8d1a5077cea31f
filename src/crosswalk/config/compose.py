"""From `key=value` overrides to a configuration; this room is the only one that knows Hydra.

`compose` reads the files of groups and is quick: nothing heavy is imported. After it
`crosswalk.config.check` looks at constructors, and `crosswalk.config.build` makes the objects.
"""

from __future__ import annotations

import copy
import importlib.util
import inspect
import re
import typing
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from crosswalk.config.constructors import Signature, check_node, did_you_mean, fits
from crosswalk.config.encoder_kinds import encoders_for
from crosswalk.config.keys import NEEDED, PARTS, TOP, flatten
from crosswalk.config.model_file import model_in
from crosswalk.config.model_names import checkpoint_named
from crosswalk.config.search import (
    config_folder,
    config_folders,
    default_method,
    group_values,
    groups,
)
from crosswalk.config.sources import read_signature
from crosswalk.config.stored import check_stored, targets_of, trusting
from crosswalk.config.trainer_arguments import trainer_keys

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

Config = DictConfig  # for annotations elsewhere: only this module imports OmegaConf


OPEN = ("stage.choices.", "stage.overrides.")
"""Parts that may get any key: `crosswalk.config.check` composes the stage of them."""

OF_THE_MODEL = (
    *("image_size", "interpolation", "tokenizer", "context_length"),
    *("transform.mean", "transform.std", "transform.pixel_format"),
)
"""Keys of ``data`` that a model is evaluated with as it was trained, whatever the data are."""


def compose(overrides: Iterable[str] = ()) -> DictConfig:
    """Return the configuration of a run, closed against unknown keys.

    From weakest to strongest: the group files, the published run
    ``configs/experiment/<method>/<data>.yaml`` where there is one, the overrides. Without
    ``data=`` the method's synthetic data are taken.

    Args:
        overrides: ``key=value`` in Hydra's grammar, with or without leading ``--``:
            ``group=file``, ``dotted.key=value``, ``+encoder.backbone.eps=1e-5``, ``~key``.

    Raises:
        ValueError: A key, a group or a value of a group does not exist; the message suggests
            the nearest one that does.

    Example:
        >>> compose(["method=rde", "seed=3"]).seed
        3
    """
    parsed, known = parse_overrides(overrides), groups()
    choices = [override for override in parsed if _is_choice(override, known)]
    chosen = {choice.key_or_group: choice.value() for choice in choices}
    for choice in choices:
        _check_choice(choice, chosen)
    lines = [line for choice in choices if (line := _choice_line(choice)) is not None]
    experiment = _published_run(chosen)
    if experiment is not None:
        lines.append(f"experiment={experiment}")
    config = copy.deepcopy(_hydra_compose(tuple(lines), config_folders()[1:]))
    parts, places = [str(part) for part in config], {}
    for override in parsed:
        if override.key_or_group == "checkpoint" and not override.is_delete():
            called = str(override.value())
            places[called] = checkpoint_named(called)
            _take_model(config, places[called], chosen)
    for override in parsed:
        if not _is_choice(override, known):
            _apply(override, config, known)
        if override.key_or_group == "checkpoint" and config.checkpoint in places:
            config.checkpoint = places[config.checkpoint]
    _check_read([each for each in parsed if not _is_choice(each, known)], config, parts)
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
        ValueError: An override does not exist, or gives one of `OF_THE_MODEL` another value; or the
            run's method makes other code of a group than the override by itself.

    Example:
        >>> restore({"seed": 1, "trainer": {"devices": 2}}, ["trainer.devices=1"])
        {'seed': 1, 'trainer': {'devices': 1}}
    """
    config = OmegaConf.create(dict(stored))
    known = groups()
    parsed = parse_overrides(overrides)
    choices = [override for override in parsed if _is_choice(override, known)]
    for choice in choices:
        method = stored.get("choices", {}).get("method") or default_method()
        fresh = compose([f"method={method}", choice.input_line or ""])
        chosen = OmegaConf.select(fresh, choice.key_or_group)  # None: the group is switched off
        OmegaConf.update(config, choice.key_or_group, chosen, merge=False)
        name = OmegaConf.select(fresh, f"choices.{choice.key_or_group}")
        OmegaConf.update(config, f"choices.{choice.key_or_group}", name, force_add=True)
    single = [override for override in parsed if override not in choices]
    for override in single:
        _apply(override, config, known)
    if "data" in stored:  # what the model was built for, and what interpolations once said
        kept = dict(nested(stored["data"]))
        present = {key for key, _ in nested(unresolved(config.data))}
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
    _check_chosen(config, choices, single)
    return config


def _check_chosen(
    config: DictConfig, choices: Sequence[Override], single: Sequence[Override]
) -> None:
    """Refuse code that came into replaced groups with the stored method, not with an override."""
    try:
        plain = to_plain(config) if choices else {}
    except ValueError:  # a value that nobody has given: said when the configuration is checked
        return
    with trusting(targets_in([*choices, *single])):
        for choice in choices:
            group = choice.key_or_group
            check_stored({group: plain.get(group)}, choice.input_line or group)


def targets_in(overrides: Iterable[Override]) -> list[str]:
    """Return the targets that overrides name, or the files that they choose.

    Example:
        >>> targets_in(parse_overrides(["+data.reader._target_=mine.read"]))
        ['mine.read']
    """
    known = groups()
    nodes: list[Any] = []
    for override in overrides:
        if _is_choice(override, known) and not override.is_delete():
            chosen = compose([override.input_line or ""])
            nodes.append(OmegaConf.to_container(chosen, resolve=False))
        elif not override.is_delete():
            nodes.append({override.key_or_group: override.value()})
    return [str(target) for node in nodes for _, target in targets_of(node)]


OF_NO_SHAPE = (
    *("pretrained", "last_stride", "last_relu", "max_pool", "group_size", "channels_last"),
    *("neck_bias", "statistics", "select_ratio", "frozen", "mask_padding", "dropout", "pool"),
)
"""Keys of encoders that leave names and shapes of the weights as they are."""


def _take_model(config: DictConfig, checkpoint: str, chosen: Mapping[str, Any]) -> None:
    """Give a run the encoder and the sizes of the model that its ``checkpoint=`` is of.

    An encoder that takes the weights stays, and so does one that was chosen.

    Args:
        config: The configuration of the run, before the overrides of single keys.
        checkpoint: Its ``checkpoint=``.
        chosen: The files of groups that were chosen, by group.
    """
    found = None if "encoder" in chosen else model_in(Path(checkpoint).expanduser())
    if found is None:
        return
    stored, file = found
    theirs = stored.get("encoder")
    if not isinstance(theirs, Mapping) or config.get("encoder") is None:
        return
    try:
        ours = OmegaConf.to_container(config.encoder, resolve=True)
    except OmegaConfBaseException:  # a value that nobody has given yet
        return
    part = isinstance(ours, dict) and _is_part(theirs, ours)
    if part:  # of an encoder that has more, which stays
        own = typing.cast(dict[str, Any], ours)
        theirs = {**own, **theirs, "_target_": own["_target_"]}
    if _of_shape(ours) == _of_shape(theirs):
        return
    kept = dict(nested(stored.get("data") or {}))
    sizes = {key: kept[key] for key in ("image_size", "context_length") if key in kept}
    name = None if part else (stored.get("choices") or {}).get("encoder")
    check_stored({"encoder": theirs, "data": sizes, "choices": {"encoder": name}}, file)
    OmegaConf.set_struct(config, False)
    config.encoder = dict(theirs)
    present = {key for key, _ in nested(unresolved(config.data))}
    for key, size in sizes.items():
        if key in present:
            OmegaConf.update(config.data, key, size, merge=False)
    if name:
        config.choices.encoder = name
    OmegaConf.set_struct(config, True)


def _is_part(theirs: Mapping[str, Any], ours: Mapping[Any, Any]) -> bool:
    """Return whether an encoder has a module for each of another one's, and more.

    Example:
        >>> clip = {"clip": {"_target_": "Clip"}}
        >>> _is_part({"_target_": "Plain", **clip}, {"_target_": "Richer", **clip, "head": 3})
        True
    """
    modules = {key for key, value in theirs.items() if isinstance(value, Mapping)}
    known = modules | {"_target_"}
    return bool(modules) and theirs.keys() == known and theirs.keys() < set(ours)


def _of_shape(encoder: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return the leaves of an encoder's node that names and shapes of its weights depend on."""
    leaves = flatten(encoder)
    timm = [key for key, value in leaves.items() if str(value).endswith(".timm_backbone")]
    for key in timm:  # most of its models take images of any size
        leaves.pop(key.replace("_target_", "image_size"), None)
    return {
        key: value for key, value in leaves.items() if not set(key.split(".")) & set(OF_NO_SHAPE)
    }


def diagnostics_of(stored: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the nodes of what observes a run.

    A run of the release before they were listed has what its method lists today, if there is such
    a method.

    Args:
        stored: The plain configuration of the run.

    Raises:
        ValueError: What the method lists today is no code that a stored configuration may name.

    Example:
        >>> diagnostics_of({"choices": {"method": "supervised"}})
        []
    """
    method = stored.get("choices", {}).get("method")
    if "diagnostics" in stored or method not in group_values("method"):
        return list(stored.get("diagnostics") or [])
    today = OmegaConf.to_container(compose([f"method={method}"]).diagnostics, resolve=True)
    check_stored({"diagnostics": today}, f"method={method}")  # its file may have come with the run
    return typing.cast(list[dict[str, Any]], today)


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
        raise ValueError(_unresolved(error)) from error
    return typing.cast(dict[str, Any], plain)


def unresolved(config: DictConfig | Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration as plain containers, with what it takes from elsewhere as written.

    Example:
        >>> unresolved(OmegaConf.create({"seed": 1, "data": {"seed": "${seed}"}}))
        {'seed': 1, 'data': {'seed': '${seed}'}}
    """
    if not isinstance(config, DictConfig):
        return dict(config)
    return typing.cast(dict[str, Any], OmegaConf.to_container(config, resolve=False))


def _unresolved(error: OmegaConfBaseException) -> str:
    """Return what to say of a value that is taken from elsewhere, and cannot be."""
    key, said = getattr(error, "full_key", "") or "", _first_line(error)
    if (lacks := re.search(r"Interpolation key '([\w.]+)' not found", said)) is not None:
        return (
            f"{key} is taken from {lacks[1]}, which this configuration does not have. Set it with "
            f"{key}=<value>."
        )
    missing = re.search(r"resolving interpolation: Missing mandatory value: ([\w.]+)", said)
    if missing is not None:
        return (
            f"{key} is taken from {missing[1]}, which has no value yet. Set it with "
            f"{missing[1]}=<value>."
        )
    return f"{key}: {said}. Set it with {key}=<value>."


def missing_keys(config: DictConfig) -> list[str]:
    """Return the keys that have no value yet, ``???`` in a file.

    Example:
        >>> missing_keys(OmegaConf.create({"seed": 1, "data": {"root": "???"}}))
        ['data.root']
    """
    return sorted(OmegaConf.missing_keys(config))


def to_yaml(config: DictConfig | Mapping[str, Any]) -> str:
    """Return the configuration as YAML, interpolations resolved.

    Raises:
        ValueError: One cannot be resolved.

    Example:
        >>> print(to_yaml({"seed": 1, "trainer": {"devices": 2}}))
        seed: 1
        trainer:
          devices: 2
        <BLANKLINE>
    """
    if isinstance(config, DictConfig):
        try:
            return OmegaConf.to_yaml(config, resolve=True)
        except OmegaConfBaseException as error:
            raise ValueError(_unresolved(error)) from error
    return OmegaConf.to_yaml(OmegaConf.create(dict(config)))


def differences(left: Mapping[str, Any], right: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return (dotted key, left value, right value) wherever two configurations differ.

    Example:
        >>> differences({"a": {"b": 1, "c": 2}}, {"a": {"b": 1}, "d": None})
        [('a.c', '2', '(absent)'), ('d', '(absent)', 'null')]
    """
    one, two = (
        {
            key: "null" if value is None else str(value)
            for key, value in nested(config)
            if not (isinstance(value, (Mapping, list)) and value)
        }
        for config in (left, right)
    )
    rows = []
    for key in [*one, *(key for key in two if key not in one)]:
        if one.get(key, "(absent)") != two.get(key, "(absent)"):
            rows.append((key, one.get(key, "(absent)"), two.get(key, "(absent)")))
    return rows


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
        inner = [key for key, _ in nested(value)] if isinstance(value, Mapping) else []
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


def parse_overrides(overrides: Iterable[str]) -> list[Override]:
    """Return overrides in Hydra's form.

    Raises:
        ValueError: One is not of the form ``key=value``, or has several values.

    Example:
        >>> [(each.key_or_group, each.value()) for each in parse_overrides(["--seed=3"])]
        [('seed', 3)]
    """
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
                "'key=\"a,b\"'. `crosswalk sweep <file>` starts a run for each of several values."
            )
        parsed.append(override)
    return parsed


def _quoted(line: str) -> str:
    key, _, value = line.partition("=")
    if value.startswith(("[", "{", "'", '"')):
        return line
    if value.startswith("~"):
        try:
            value = str(Path(value).expanduser())
        except RuntimeError as error:
            raise ValueError(
                f"{line}: there is no user {value.split('/')[0][1:]} on this machine. Write the "
                "folder out."
            ) from error
    return key + "='" + value.replace("'", "\\'") + "'"


def _is_choice(override: Override, groups: Sequence[str]) -> bool:
    """Return whether the override names a file of a group; ``method={...}`` is none."""
    return override.key_or_group in groups and (
        override.is_delete() or isinstance(override.value(), str) or override.value() is None
    )


def _check_choice(choice: Override, chosen: Mapping[str, Any]) -> None:
    """Refuse a file of a group that does not exist, and say which there are.

    Args:
        choice: Names the file.
        chosen: The files that all choices name, by group.
    """
    group, value = choice.key_or_group, choice.value()
    values = group_values(group)
    if value in values or (value is None and group not in NEEDED):
        return
    there = "There are"
    if group == "encoder" and (method := _method_of(chosen)) in group_values("method"):
        values = [name for name in encoders_for(method) if goes_with(name, chosen)]
        there = f"With method={method} go"
    advice = f"{there}: {', '.join(values)}."
    if value is None:
        raise ValueError(f"{choice.input_line}: a run needs {group}=. {advice}")
    if group == "encoder" and "timm" in values and _is_of_timm(str(value)):
        advice += f" A model of timm: encoder=timm encoder.backbone.name={value}."
    written = re.sub(r"\W", "_", str(value)).lower()
    near = did_you_mean(str(value), values) or did_you_mean(written, values)
    raise ValueError(f"{group}={value} does not exist.{near} {advice}")


def goes_with(encoder: str, chosen: Mapping[str, Any]) -> bool:
    """Return whether an encoder takes what the method and its run set of encoders.

    Args:
        encoder: A file of the group.
        chosen: Files by group, of which method, data and experiment count.

    Example:
        >>> goes_with("clip_rn50_global", {"method": "rde", "data": "cuhk_pedes"})
        True
        >>> goes_with("clip_rn50_global", {"method": "rde"})  # a tiny run
        False
    """
    run = {group: chosen.get(group) for group in ("method", "data", "experiment")}
    lines = [f"{group}={value}" for group, value in run.items() if value is not None]
    try:
        config = compose([*lines, f"encoder={encoder}"])
        if missing_keys(config):  # they are still to be set, such as the name of a model of timm
            return True
        check_node(to_plain(config)["encoder"], "encoder", frozenset({"words"}), read_signature)
    except ValueError:
        return False
    return True


def _method_of(chosen: Mapping[str, Any]) -> str:
    """Return the method that files of groups choose: it, or the run that was published of it."""
    published = str(chosen.get("experiment") or "").partition("/")[0]
    return str(chosen.get("method") or published or default_method())


def _is_of_timm(name: str) -> bool:
    """Return whether timm has a model, by its sources: to import it takes seconds."""
    found = importlib.util.find_spec("timm")
    folders = (
        [] if found is None else [Path(each) for each in found.submodule_search_locations or ()]
    )
    wanted = f"\ndef {name.partition('.')[0]}(".encode()
    return any(
        wanted in file.read_bytes() for folder in folders for file in folder.glob("models/*.py")
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
    method, runs = chosen.get("method") or default_method(), group_values("experiment")
    if chosen.get("data") is not None:
        wanted = [f"{method}/{chosen['data']}"]
    else:
        wanted = [run for run in runs if run.startswith(f"{method}/synthetic_")]
    return next((run for run in wanted if run in runs), None)


@cache  # the rows of a table and the trials of a sweep differ in values only
def _hydra_compose(lines: tuple[str, ...], beside: tuple[Path, ...]) -> DictConfig:
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException

    search = f"hydra.searchpath=[{','.join(f'file://{folder}' for folder in beside)}]"
    OmegaConf.register_new_resolver("above", _above, replace=True)
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(config_folder()), version_base="1.3"):
            whole = hydra_compose("train", [search, *lines], return_hydra_config=True)
    except (HydraException, OmegaConfBaseException) as error:
        message = str(error).split("Config search path")[0]
        raise ValueError(" ".join(message.split())) from error
    finally:
        GlobalHydra.instance().clear()
    choices = dict(whole.hydra.runtime.choices)
    kept = [str(key) for key in whole if key not in ("hydra", "small")]
    config = OmegaConf.masked_copy(whole, kept)
    OmegaConf.set_struct(config, False)
    config["choices"] = {
        group: value
        for group, value in sorted(choices.items())
        if value is not None and not group.startswith("hydra/")
    }
    OmegaConf.set_struct(config, True)
    return config


def _above(value: float, limit: float, then: Any, otherwise: Any) -> Any:  # noqa: ANN401
    """Return ``then`` if ``value > limit``: ``${above:${data.noise_rate},0.4,100,10}``.

    A value that is no number is not above: what takes it refuses it in the words of its own key.
    """
    return then if isinstance(value, (int, float)) and value > limit else otherwise


def _apply(override: Override, config: DictConfig, groups: Sequence[str]) -> None:
    """Change the configuration by one override, or say which key was meant.

    A part that comes with its ``_target_`` takes the place of the one before; of another part the
    keys that are given change.
    """
    key, line = override.key_or_group, override.input_line or ""
    _check_settable(override, config)
    is_known = _has_key(config, key)
    adds = override.is_add() or override.is_force_add() or key.startswith(OPEN)
    if key.startswith("trainer.") and not is_known:
        _check_trainer_key(key, line)
        adds = not override.is_delete()
    if not is_known and not adds:
        known = [name for name, _ in nested(unresolved(config))]
        near = did_you_mean(key, [*known, *groups, *(f"trainer.{name}" for name in trainer_keys())])
        advice = near or _how_to_add(key, config)
        raise ValueError(f"{key} is not a key of this configuration.{advice}")
    if override.is_delete():
        parent, _, name = key.rpartition(".")
        node = OmegaConf.select(config, parent) if parent else config
        if not isinstance(node, DictConfig):
            raise ValueError(f"{line}: {key} is part of a list. Set the whole: {parent}=[…].")
        OmegaConf.set_struct(config, False)
        del node[name]
        OmegaConf.set_struct(config, True)
    else:
        value = _as_typed(override, config)
        is_whole = isinstance(value, Mapping) and "_target_" in value
        try:
            OmegaConf.update(config, key, value, merge=not is_whole, force_add=adds)
        except (OmegaConfBaseException, AssertionError, TypeError, ValueError) as error:
            if key in groups:
                raise ValueError(
                    f"{line}: {key}= takes the name of one file. There are: "
                    f"{', '.join(group_values(key))}. Its keys are set one by one, {key}.<key>=."
                ) from error
            raise ValueError(
                f"{line}: what is above {key} is a single value. `crosswalk config show` says "
                f"which ({_first_line(error)})."
            ) from error


def _how_to_add(key: str, config: DictConfig) -> str:
    """Return how a key that is not there is added, or what is taken in its place instead."""
    listed, names = "`crosswalk config show` lists all", key.split(".")
    for depth in range(len(names) - 1, 0, -1):
        part, name = ".".join(names[:depth]), names[depth]
        target, takes = _constructor(part, config)
        if target is None:
            continue
        if takes is not None and name not in takes.parameters:
            kinds = {each.kind for each in takes.parameters.values()}
            if inspect.Parameter.VAR_KEYWORD not in kinds:
                return f" {target} takes {', '.join(takes.parameters)}."
        is_sure = takes is not None and depth == len(names) - 1
        condition = "" if is_sure else f", if {target} takes it"
        return f" {listed}; +{key}=<value> adds a new one{condition}."
    return f" {listed}."


def _check_read(overrides: Sequence[Override], config: DictConfig, parts: Sequence[str]) -> None:
    """Refuse a new part that nothing reads: a run knows none of its name, and no value takes it."""
    for override in overrides:
        key = override.key_or_group
        part = key.partition(".")[0]
        if part in (*parts, *TOP, *PARTS):
            continue
        if not re.search(rf"[{{,:]{re.escape(part)}[.}}]", OmegaConf.to_yaml(config)):
            known = [name for name, _ in nested(unresolved(config))]
            others = [name for name in known if name.partition(".")[0] != part]
            near = did_you_mean(key, [*parts, *others])
            raise ValueError(
                f"{override.input_line}: nothing in a run reads {part}.{near}"
                " `crosswalk config show` lists the keys."
            )


def _has_key(config: DictConfig, key: str) -> bool:
    """Return whether a configuration has a dotted key, as a list's place as well."""
    first, dot, rest = key.partition(".")
    parts = dict(config.items_ex(resolve=False))
    if first not in parts or not dot:
        return first in parts
    node = parts[first]
    plain = OmegaConf.to_container(node, resolve=False) if OmegaConf.is_config(node) else node
    return isinstance(plain, (dict, list)) and rest in dict(nested(plain))


def _check_settable(override: Override, config: DictConfig) -> None:
    """Refuse what an override cannot change: notes of choices, and keys that a run needs."""
    key = override.key_or_group
    if key == "choices" or key.startswith("choices."):
        group = key.partition(".")[2]
        wanted = f"{group}=<file>" if group else "method=<file>"
        raise ValueError(
            f"{key} only says which files were chosen. Choose another one with {wanted}."
        )
    needed = key in (*TOP, *NEEDED) and key not in ("source", "diagnostics")
    if override.is_delete() and needed and key in config:
        raise ValueError(f"~{key}: a run needs {key}. Set it: {key}=<value>.")


def _as_typed(override: Override, config: DictConfig) -> Any:  # noqa: ANN401
    """Return the value of an override, as text where its place takes text: ``name=1e3``."""
    value = override.value()
    words = (override.input_line or "").partition("=")[2]
    expected = _expected(override.key_or_group, config)
    if isinstance(value, list):
        simple = re.fullmatch(r"\[([^\[\]{}'\"]*)\]", words)
        texts: Any = [word.strip() for word in simple.group(1).split(",")] if simple else value
    else:
        texts = value if value is None else words
    plain = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
    return texts if not fits(plain, expected) and fits(texts, expected) else value


def _expected(key: str, config: DictConfig) -> Any:  # noqa: ANN401
    """Return what the place of a key takes, as far as no import is needed; Any elsewhere."""
    parent, _, name = key.rpartition(".")
    if not parent:
        return TOP.get(name, Any)
    _, takes = _constructor(parent, config)
    return Any if takes is None else takes.annotations.get(name, Any)


def _constructor(part: str, config: DictConfig) -> tuple[str | None, Signature | None]:
    """Return what builds a part, None for one that is not built, and what it takes, if known."""
    node = OmegaConf.select(config, part, throw_on_resolution_failure=False)
    target = node.get("_target_") if isinstance(node, DictConfig) else None
    if not isinstance(target, str):
        return None, None
    return target, read_signature(target)


def _check_trainer_key(key: str, line: str) -> None:
    name = key.split(".")[1]
    if key.count(".") == 1 and name not in trainer_keys():
        near = did_you_mean(key, [f"trainer.{name}" for name in trainer_keys()])
        raise ValueError(f"{line}: Lightning's Trainer has no argument {name}.{near}")


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0].rstrip(".")


def nested(node: Any, prefix: str = "") -> list[tuple[str, Any]]:  # noqa: ANN401
    """Return every dotted key below ``node`` with its value, inner nodes included."""
    rows: list[tuple[str, Any]] = []
    for name, value in node.items() if isinstance(node, Mapping) else enumerate(node):
        rows.append((f"{prefix}{name}", value))
        if isinstance(value, (Mapping, list)):
            rows += nested(value, f"{prefix}{name}.")
    return rows

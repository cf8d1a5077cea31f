"""From `key=value` overrides to a configuration, by Hydra.

`compose` reads the files of groups and is quick: nothing heavy is imported. After it
`crosswalk.config.check` looks at constructors, and `crosswalk.config.build` makes the objects.
"""

from __future__ import annotations

import copy
import re
import typing
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from crosswalk.config.brought import take_model
from crosswalk.config.choices import check_choice, choice_line, is_choice, published_run
from crosswalk.config.constructors import check_node
from crosswalk.config.keys import PARTS, TOP
from crosswalk.config.model_names import checkpoint_named
from crosswalk.config.overrides import apply, parse_overrides
from crosswalk.config.plain import missing_keys, nested, to_plain, unresolved
from crosswalk.config.search import (
    config_folder,
    config_folders,
    default_method,
    group_values,
    groups,
)
from crosswalk.config.sources import read_signature
from crosswalk.config.stored import check_stored, targets_of, trusting
from crosswalk.config.words import did_you_mean

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

Config = DictConfig  # for annotations elsewhere: only this room imports OmegaConf

OF_THE_MODEL = (
    *("image_size", "interpolation", "tokenizer", "context_length"),
    *("transform.mean", "transform.std", "transform.pixel_format"),
)
"""Keys of ``data`` that a model is evaluated with as it was trained, whatever the data are."""

LENGTH = (
    *("max_epochs", "min_epochs", "max_steps", "min_steps", "max_time"),
    *("limit_train_batches", "accumulate_grad_batches"),
)
"""Keys of ``trainer`` that say how long a run was, which another place to evaluate it keeps."""


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
    choices = [override for override in parsed if is_choice(override, known)]
    chosen = {choice.key_or_group: choice.value() for choice in choices}
    for choice in choices:
        check_choice(choice, chosen, goes_with)
    lines = [line for choice in choices if (line := choice_line(choice)) is not None]
    experiment = published_run(chosen)
    if experiment is not None:
        lines.append(f"experiment={experiment}")
    config = copy.deepcopy(_hydra_compose(tuple(lines), config_folders()[1:]))
    parts, places = [str(part) for part in config], {}
    for override in parsed:
        if override.key_or_group == "checkpoint" and not override.is_delete():
            called = str(override.value())
            places[called] = checkpoint_named(called)
            take_model(config, places[called], chosen)
    for override in parsed:
        if not is_choice(override, known):
            apply(override, config, known)
        if override.key_or_group == "checkpoint" and config.checkpoint in places:
            config.checkpoint = places[config.checkpoint]
    _check_read([each for each in parsed if not is_choice(each, known)], config, parts)
    return config


def restore(
    stored: Mapping[str, Any], overrides: Iterable[str] = (), *, vocabulary: Path | None = None
) -> DictConfig:
    """Return the configuration of an earlier run, changed by overrides.

    ``dotted.key=value`` changes the stored value; ``group=file`` replaces the group's part by a
    new one, as in ``data=icfg_pedes`` to evaluate a model on other data. How images and captions
    become numbers stays as the model has learned it, and so does how long it was trained.

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
    choices = [override for override in parsed if is_choice(override, known)]
    for choice in choices:
        method = stored.get("choices", {}).get("method") or default_method()
        fresh = compose([f"method={method}", choice.input_line or ""])
        chosen = OmegaConf.select(fresh, choice.key_or_group)  # None: the group is switched off
        if choice.key_or_group == "trainer" and chosen is not None:
            length = {key: value for key, value in stored["trainer"].items() if key in LENGTH}
            kept = {key: value for key, value in chosen.items() if key not in LENGTH}
            chosen = {**kept, **length}
        OmegaConf.update(config, choice.key_or_group, chosen, merge=False)
        name = OmegaConf.select(fresh, f"choices.{choice.key_or_group}")
        OmegaConf.update(config, f"choices.{choice.key_or_group}", name, force_add=True)
    single = [override for override in parsed if override not in choices]
    for override in single:
        apply(override, config, known)
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
        if is_choice(override, known) and not override.is_delete():
            chosen = compose([override.input_line or ""])
            nodes.append(OmegaConf.to_container(chosen, resolve=False))
        elif not override.is_delete():
            nodes.append({override.key_or_group: override.value()})
    return [str(target) for node in nodes for _, target in targets_of(node)]


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

"""Whether a configuration can be run: the one check, before data, stage or folder exist.

`train`, `evaluate`, `ablate`, `sweep` and `config show` ask `check`. What only the data can tell,
whether their people are known, `crosswalk.config.data_kinds.check_data` asks once they are read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from crosswalk.config.compose import compose, goes_with
from crosswalk.config.construct import locate
from crosswalk.config.constructors import check_node
from crosswalk.config.data_kinds import (
    check_batches,
    check_captions,
    check_kind,
    check_plan,
    names_of,
    needs_of,
)
from crosswalk.config.encoder_kinds import check_encoders, fits_by_source
from crosswalk.config.keys import ENCODERS, with_absolute_paths
from crosswalk.config.overrides import parse_overrides
from crosswalk.config.plain import to_plain
from crosswalk.config.search import default_method
from crosswalk.config.shape import check_shape
from crosswalk.config.sources import read_batches, read_signature
from crosswalk.config.stage import stage_command
from crosswalk.config.stored import check_stored
from crosswalk.config.trainer_arguments import counts_devices, trainer_settings
from crosswalk.config.values import (
    check_plans,
    check_precision,
    check_synthetic,
    check_together,
    check_values,
)

if TYPE_CHECKING:
    from crosswalk.types import Needs


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
    check_shape(config)
    method_class: Any = locate(config["method"]["_target_"], "method")
    needs = needs_of(method_class, config["method"])
    # first: a method may ask for keys that only its own kind of data has
    data_class = locate(config["data"]["_target_"], "data")
    takes, gives = names_of(needs.batches), names_of(getattr(data_class, "batch_types", ()))
    if trains:
        check_batches(takes, gives, config["choices"])
    else:
        check_captions(takes, gives, config["choices"])
    check_encoders(config, goes_with)
    plain = with_absolute_paths(to_plain(config))
    check_values(plain)
    check_precision(needs, plain["trainer"])
    check_together(plain, whole_batch=needs.whole_batch, trains=trains)
    if trains:
        check_plan(needs, method_class, plain)
        if plain.get("stage") is not None and plain.get("checkpoint") is None:
            _check_stage(plain, stored)
    return Checked(plain, method_class, needs, trainer_settings(plain["trainer"]), trains)


def check_early(config: DictConfig | Mapping[str, Any]) -> None:
    """Refuse wrong types, choices, ranges, data and sizes of batches, and import nothing slow.

    So they are said at once; `check` says them too, and what only the constructors tell.

    Raises:
        ValueError: As `check`.
    """
    _check_kinds(config)
    plain = to_plain(config)
    check_synthetic(plain["data"])
    try:
        check_values(plain, read_signature)
    except ValueError as error:
        if str(error).startswith("encoder.") and not _has_own_encoder(config):
            check_encoders(config, goes_with)  # imports, but has the better words for it
        raise
    check_plans(plain["data"])
    if not counts_devices(plain["trainer"]):
        check_together(plain, whole_batch=False)  # whether it is, only the class tells


def _has_own_encoder(config: Mapping[str, Any]) -> bool:
    """Return whether an encoder is of the class of the method's own one; nothing is imported."""
    try:
        own = compose([f"method={config['choices']['method']}"])
    except ValueError:  # of a package that is not here
        return False
    return all(
        (own.get(each) or {}).get("_target_") == config[each]["_target_"] for each in ENCODERS
    )


def _check_kinds(config: Mapping[str, Any]) -> None:
    """Refuse data and encoders of another kind than the method takes, by the sources of all."""
    check_shape(config)
    takes, gives = (
        read_batches(str(config[group].get("_target_"))) for group in ("method", "data")
    )
    if takes and gives:
        check_batches(takes, gives, config["choices"])
    check_encoders(config, goes_with, fits_by_source)


def _check_stage(plain: Mapping[str, Any], stored: Path | None) -> None:
    """Look at the stage of a run before it is trained."""
    try:
        stage = compose(stage_command(plain))
        if stored is not None:
            check_stored(to_plain(stage), stored)
        check(stage, stored=stored)
    except ValueError as error:
        raise ValueError(f"stage (its keys are below stage.overrides): {error}") from error


def compose_training(overrides: Sequence[str]) -> DictConfig:
    """Return `compose` of the overrides of a training.

    Raises:
        ValueError: As `compose`; where the data are of another kind than the method takes, that,
            and not which key of its own kind they lack, to set or to take a value from.
    """
    try:
        config = compose(overrides)
    except ValueError:
        given: dict[str, Any] = {}
        with suppress(ValueError):  # said in the words of `compose`
            given = {each.key_or_group: each.value() for each in parse_overrides(overrides)}
        method, data = given.get("method", default_method()), given.get("data")
        check_kind(str(method), str(data))
        raise
    _check_kinds(config)
    return config


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

"""From a composed configuration to objects: data, their sizes, encoders, method, trainer."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from crosswalk.config.check import Checked, check_types
from crosswalk.config.compose import diagnostics_of
from crosswalk.config.construct import construct, locate
from crosswalk.config.data_kinds import check_data
from crosswalk.config.keys import ENCODERS
from crosswalk.config.plain import nested, to_plain
from crosswalk.config.starting_weights import without_fetching
from crosswalk.network import NotFetchedError

if TYPE_CHECKING:
    import lightning.pytorch as L

    from crosswalk.types import DataSpec

NETWORKS = "crosswalk.encoders.resnet."
"""Their messages name the keys of encoders of images alone; others have them at another place."""


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
        reranking: Ranks test queries again; None leaves them.
        diagnostics: What observes the run.
        tracker: ``(folder=, config=, tags=) -> logger`` of W&B; None without it.
    """

    config: dict[str, Any]
    data: Any  # a LightningDataModule with what the callbacks' protocols ask for
    method: L.LightningModule
    trainer: dict[str, Any]
    reranking: Any
    diagnostics: list[Any]
    tracker: Callable[..., Any] | None


def build(checked: Checked, *, loads_weights: bool = False) -> Run:
    """Return the objects of a run: first the data, then their sizes, then the method.

    The method's constructor gets its own node, the sizes of the data as ``data``, the optimizer's
    builder as ``optim``, and the encoders under the names of their groups. An encoder whose
    constructor has an argument ``words`` gets the word of each token id.

    Args:
        checked: What `crosswalk.config.check.check` returns. An evaluation may be on data of a kind
            that the method cannot train on: its memories then have any sizes.
        loads_weights: Whether all weights of the encoders are loaded afterwards, so that none are
            downloaded; with ``checkpoint=`` they always are.

    Raises:
        ValueError: Data that turn out to be of another kind, or without identities that are needed.
    """
    config, needs = checked.config, checked.needs
    data = construct(config["data"], {"identities": needs.plans_see_identities})
    sizes = data.spec
    if checked.trains:
        check_data(needs, data, config["choices"])
        lacks_files = getattr(data, "lacks_files", lambda: False)  # data of others may not tell
        if config["trainer"].get("max_epochs") != 0 and lacks_files():
            # says which, and what else cannot be read, before weights are fetched
            data.setup("fit")
    else:  # what is only evaluated may have no training part, and a method has to be made
        least = {name: max(1, number) for name, number in asdict(sizes).items()}
        sizes = replace(sizes, **{**least, "vocabulary_size": sizes.vocabulary_size})
    from crosswalk.encoders.clip_weights import downloading

    with downloading(config.get("checkpoint") is None and not loads_weights):
        try:
            method = build_method(config, sizes, getattr(data, "tokenizer", None))
        except NotFetchedError as cause:
            if not checked.trains:
                raise
            raise NotFetchedError(f"{cause}{without_fetching(config)}") from cause
    size = _image_size(config)
    if size is not None and (error := _error_of(_embed_one_image, method, size)) is not None:
        _refuse_image_size(config, error, _error_of(_embed_one_image, method, _larger(size, size)))
    if checked.trains and checked.method.gives_plan_labels():
        data.plan_labels = method.plan_labels
    if checked.trains and not needs.images:
        data.reads_images = False
    wandb = (config.get("logger") or {}).get("wandb")
    return Run(
        config=config,
        data=data,
        method=method,
        trainer=checked.trainer,
        reranking=construct(config.get("reranking"), {}),
        diagnostics=construct(diagnostics_of(config), {}),
        tracker=None if wandb is None else construct({**wandb, "_partial_": True}, {}),
    )


def build_method(config: Mapping[str, Any], sizes: DataSpec, tokenizer: object) -> Any:  # noqa: ANN401
    """Return the method of a configuration, with its encoders.

    Args:
        config: The plain configuration: ``method``, the encoders and, to train, ``optim``.
        sizes: Of the training set.
        tokenizer: Its ``words`` go to encoders that take them; None without captions.

    Raises:
        ValueError: If an encoder is made for words and the tokenizer has none.
    """
    parts = {"optim": construct(config.get("optim"), {})}
    for name in ENCODERS:
        if config.get(name) is not None:
            words = _words_for(config[name], name, tokenizer)
            try:
                parts[name] = construct(config[name], words)
            except (ValueError, FileNotFoundError) as error:
                said = str(error).replace(f"{name}.backbone.", _backbone(config[name], name))
                if said == str(error):
                    raise
                raise type(error)(said) from error
            except AssertionError as error:  # timm's way to refuse
                larger = _larger(config[name], _image_size(config))
                _refuse_image_size(config, error, _error_of(construct, larger, words))
                raise
    return construct(config["method"], {"data": sizes, **parts})


def _backbone(encoder: Mapping[str, Any], name: str) -> str:
    """Return the key of a network of images within an encoder, which knows it as ``backbone``."""
    for key, node in nested(encoder):
        if isinstance(node, Mapping) and str(node.get("_target_")).startswith(NETWORKS):
            return f"{name}.{key}."
    return f"{name}.backbone."


def _image_size(config: Mapping[str, Any]) -> list[int] | None:
    """Return height and width of the images; None where one's own data say it in another way."""
    size = config["data"].get("image_size")
    whole = isinstance(size, list) and [type(each) for each in size] == [int, int]
    return size if whole else None


def _larger(value: Any, size: list[int] | None) -> Any:  # noqa: ANN401
    """Return a part of a configuration with larger images wherever it has their size."""
    if isinstance(value, Mapping):
        return {key: _larger(each, size) for key, each in value.items()}
    return [4 * each for each in value] if size is not None and value == size else value


def _error_of(function: Callable[..., object], *arguments: object) -> Exception | None:
    """Return what a call raises; None if it ends well."""
    try:
        function(*arguments)
    except Exception as error:  # of code of any kind
        return error
    return None


def _refuse_image_size(
    config: Mapping[str, Any], error: Exception, of_larger: Exception | None
) -> None:
    """Word an error with images of the configured size, unless larger ones have the same.

    Raises:
        ValueError: If it comes from their size.
    """
    if of_larger is not None and repr(of_larger) == repr(error):
        return
    if isinstance(error, ValueError):  # in the encoder's own words
        raise error
    size = _image_size(config)
    for key, own in nested(config.get("encoder") or {}):
        if key.endswith("image_size") and own is not None and list(own) != size:
            raise ValueError(
                f"the encoder takes images of encoder.{key}={list(own)}, and not of "
                f"data.image_size={size}. Give both keys the same, or leave data.image_size out: "
                "checkpoint= brings the size of its images."
            ) from error
    names = {key: name for key, name in nested(config.get("encoder") or {}) if key.endswith("name")}
    wanted = [f"encoder.{key}={name}" for key, name in names.items() if "image" in key]
    wanted = wanted or [f"encoder.{key}={name}" for key, name in names.items()]
    encoder = (wanted or [f"encoder={config['choices'].get('encoder')}"])[0]
    raise ValueError(
        f"{encoder} takes no images of data.image_size={size} "
        f"({next(iter(str(error).splitlines()), 'too small').rstrip('. ')}). Choose another "
        f"data.image_size, such as a larger one, or another {encoder.partition('=')[0]}."
    ) from error


def _embed_one_image(method: Any, size: Sequence[int]) -> None:  # noqa: ANN401
    """Let a method embed an image of a size, and leave it as it was."""
    import torch

    from crosswalk.types import ImageBatch

    modes = {module: module.training for module in method.modules()}
    no = torch.zeros(1, dtype=torch.int64)
    try:
        with torch.no_grad(), suppress(NotImplementedError):
            method.eval().embed(ImageBatch(torch.zeros(1, 3, *size), no, no, no, None))
    finally:
        for module, training in modes.items():
            module.training = training


def _words_parameter(node: Mapping[str, Any]) -> inspect.Parameter | None:
    """Return the argument ``words`` of a node's constructor; None where it has none."""
    try:
        return inspect.signature(locate(node["_target_"], "")).parameters.get("words")
    except ValueError:  # some built-ins have no signature
        return None


def _words_for(node: Mapping[str, Any], name: str, tokenizer: object) -> dict[str, Any]:
    """Return the word of each token id for an encoder that takes them."""
    parameter = _words_parameter(node)
    if parameter is None:
        return {}
    words = getattr(tokenizer, "words", None)
    if words is None and parameter.default is parameter.empty:
        raise ValueError(
            f"{name}={node['_target_']} is made for a vocabulary of words, and "
            f"data.tokenizer={type(tokenizer).__name__} has none. Choose "
            "data.tokenizer._target_=crosswalk.data.text.word_tokenizer.WordTokenizer."
        )
    return {"words": words}

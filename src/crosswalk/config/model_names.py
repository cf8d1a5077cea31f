"""Models by name: of this package, of libraries, of the hub.

Imports no torch, so that a mistake is answered at once.
"""

from __future__ import annotations

import difflib
import re
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from crosswalk.config.keys import ASSETS
from crosswalk.config.model_file import CARD, EXPORTED, THRESHOLDS, WEIGHTS, read_description

SHIPPED = ASSETS / "models"
"""Models that are part of the package, made by ``make models``."""

FORMS = {
    "tiny": "tiny:<method>, a small model of synthetic people that is part of crosswalk",
    "timm": "timm:<name>, timm:<name>.<tag> or timm:<name>/<file of weights>",
    "open_clip": "open_clip:<name>/<tag>, or a file of weights for the tag",
    "hf": "hf:<user>/<repository>, with @<revision> behind it or not",
}
"""How they are named, by what stands before the colon."""

OF_LIBRARY = re.compile(r"(\w[\w.-]*?)(?:/(.+))?", re.ASCII)
OF_HUB = re.compile(r"([\w.-]+/[\w.-]+?)(?:@([\w./-]+))?", re.ASCII)


class ModelName(NamedTuple):
    """A name in its parts.

    Attributes:
        library: One of `FORMS`.
        name: Of the model; of the hub its repository.
        rest: What follows: a tag or a file, or a revision.
    """

    library: str
    name: str
    rest: str | None


def parsed_name(model: str) -> ModelName | None:
    """Return the parts of a name of `FORMS`; None if the words look like a path.

    Raises:
        FileNotFoundError: If there is no such library.
        ValueError: If it is not of its library's form.

    Example:
        >>> parsed_name("open_clip:RN50/openai")
        ModelName(library='open_clip', name='RN50', rest='openai')
        >>> parsed_name("runs/rde") is None
        True
    """
    library, colon, name = model.partition(":")
    if colon and library in FORMS:
        found = (OF_HUB if library == "hf" else OF_LIBRARY).fullmatch(name)
        if found is None:
            raise ValueError(f"{model} is not of the form {FORMS[library]}.")
        return ModelName(library, found[1], found[2])
    if colon and re.fullmatch(r"\w\w+", library):
        near = difflib.get_close_matches(library.lower(), FORMS, n=1, cutoff=0.4)
        forms = FORMS[near[0]] if near else "; ".join(FORMS.values())
        raise FileNotFoundError(
            f"{model} does not exist, and {library}: is no library of models. "
            f"{'Did you mean' if near else 'There are'} {forms}{'?' if near else '.'}"
        )
    return None


def named_folder(named: ModelName) -> Path | None:
    """Return the exported folder of a name; None of libraries, whose models have none.

    Raises:
        FileNotFoundError: If there is no such model, or it can neither be fetched nor is in the
            cache.
        ValueError: If it is none of crosswalk.

    Example:
        >>> named_folder(ModelName("tiny", "rde", None)).name
        'rde'
    """
    if named.library == "tiny":
        return _of_package(named.name)
    return _of_hub(named.name, named.rest) if named.library == "hf" else None


def checkpoint_named(checkpoint: str) -> str:
    """Return what ``checkpoint=`` means: the folder of a name of `FORMS`, or what it says.

    Raises:
        ValueError: If there is no such model, or it is of a library, whose networks are no
            encoders of methods.

    Example:
        >>> checkpoint_named("tiny:rde") == str(SHIPPED / "rde"), checkpoint_named("runs/rde")
        (True, 'runs/rde')
        >>> checkpoint_named("timm:resnet18")
        Traceback (most recent call last):
            ...
        ValueError: checkpoint=timm:resnet18: published weights are those of a part of the \
        encoder. Write encoder=timm encoder.backbone.name=resnet18 for images.
    """
    if Path(checkpoint).expanduser().exists():
        return checkpoint
    try:
        named = parsed_name(checkpoint)
        folder = None if named is None else named_folder(named)
    except (FileNotFoundError, ValueError) as error:
        raise ValueError(f"checkpoint={checkpoint}: {error}") from error
    if named is None:
        return checkpoint
    if folder is not None:
        return str(folder)
    if named.library == "timm":
        file = f" encoder.backbone.pretrained={named.rest}" if named.rest else ""
        instead = f"encoder=timm encoder.backbone.name={named.name}{file} for images"
    else:
        weights = f" encoder.clip.pretrained={named.rest}" if named.rest else ""
        instead = f"encoder=clip_vit_b16 encoder.clip.name={named.name}{weights} for pairs"
    raise ValueError(
        f"checkpoint={checkpoint}: published weights are those of a part of the encoder. Write "
        f"{instead}."
    )


def _of_package(method: str) -> Path:
    if not (SHIPPED / method / WEIGHTS).is_file():
        there = ", ".join(
            sorted(f"tiny:{path.parent.name}" for path in SHIPPED.glob(f"*/{WEIGHTS}"))
        )
        raise FileNotFoundError(f"tiny:{method} is no model of this package, which has {there}.")
    return SHIPPED / method


def _of_hub(repository: str, revision: str | None) -> Path:
    """Return the folder of a repository of the hub in its cache, fetched if need be."""
    import huggingface_hub
    from huggingface_hub.errors import (  # type: ignore[attr-defined]
        EntryNotFoundError,
        HFValidationError,
        HTTPError,
    )

    from crosswalk.network import one_attempt

    try:
        with one_attempt():
            for name in (EXPORTED, WEIGHTS):
                file = Path(huggingface_hub.hf_hub_download(repository, name, revision=revision))
            for name in (CARD, THRESHOLDS):
                with suppress(EntryNotFoundError):  # it may have none
                    huggingface_hub.hf_hub_download(repository, name, revision=revision)
    except (OSError, HTTPError, HFValidationError) as error:
        why = " ".join(str(error).split()).split(". ")[0].rstrip(".") or type(error).__name__
        raise FileNotFoundError(
            f"hf:{repository} is no folder here, and {repository} could not be had from the "
            f"Hugging Face hub, nor is it in its cache ({why}). Check the name; where "
            "there is no network, name a run folder, or an exported folder that was copied here."
        ) from error
    try:
        read_description(file.parent / EXPORTED)
    except ValueError as error:
        raise ValueError(
            f"{repository} of the Hugging Face hub is no model of crosswalk: `crosswalk export` "
            f"did not write it ({error})"
        ) from error
    return file.parent

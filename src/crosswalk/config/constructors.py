"""Configuration nodes and the constructors they name: the constructor is the schema.

A node is a mapping with ``_target_``, the dotted path of a class or function; its other keys are
arguments, nodes again or plain values. With ``_partial_: true`` it describes a function that waits
for its remaining arguments.
"""

from __future__ import annotations

import collections.abc
import difflib
import functools
import importlib
import inspect
import os
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePath
from typing import Any, Literal, Union

PLAIN_TYPES = (bool, int, float, str)


def did_you_mean(word: str, candidates: Iterable[str]) -> str:
    """Return a question after the nearest candidate, or nothing where none is near.

    A dotted key whose last part is right somewhere else counts as nearest.

    Example:
        >>> did_you_mean("method.temperature", ["method.seed", "method.loss.temperature"])
        ' Did you mean method.loss.temperature?'
        >>> did_you_mean("rdee", ["rde", "mmcl"])
        ' Did you mean rde?'
    """
    candidates = list(dict.fromkeys(candidates))
    last = word.rsplit(".", 1)[-1]
    same_name = [candidate for candidate in candidates if candidate.rsplit(".", 1)[-1] == last]
    longer = [candidate for candidate in candidates if word and candidate.startswith(word)]
    near = [
        candidate
        for candidate in difflib.get_close_matches(word, candidates, n=3, cutoff=0.6)
        if difflib.get_close_matches(last, [candidate.rsplit(".", 1)[-1]], cutoff=0.6)
    ]
    best = (same_name or longer or near)[:1]
    return f" Did you mean {best[0]}?" if best else ""


def locate(target: str, key: str) -> Callable[..., Any]:
    """Return the class or function behind a dotted path; ``key`` is for the message.

    Example:
        >>> locate("fractions.Fraction", "share").__name__
        'Fraction'
    """
    parts = target.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        module = ".".join(parts[:cut])
        try:
            found: Any = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if f"{module}.".startswith(f"{error.name}."):
                continue
            raise
        for name in parts[cut:]:
            found = getattr(found, name, None)
        if callable(found):
            return typing.cast(Callable[..., Any], found)
        break
    raise ValueError(f"{key}._target_={target} names nothing that can be imported and called.")


def construct(value: Any, kwargs: Mapping[str, Any]) -> Any:  # noqa: ANN401
    """Return ``value`` with every node inside replaced by the object it describes.

    Args:
        value: A node, a list, a mapping, or a plain value.
        kwargs: Further arguments of the outermost node.

    Example:
        >>> half = {"_target_": "fractions.Fraction", "numerator": 1, "denominator": 2}
        >>> construct({"shares": [half, 3]}, {})
        {'shares': [Fraction(1, 2), 3]}
    """
    if isinstance(value, list):
        return [construct(item, {}) for item in value]
    if not isinstance(value, dict):
        return value
    if "_target_" not in value:
        return {name: construct(item, {}) for name, item in value.items()}
    target = locate(value["_target_"], "")
    arguments = {name: construct(item, {}) for name, item in _arguments(value).items()}
    if value.get("_partial_", False):
        return functools.partial(target, **arguments, **kwargs)
    return target(**arguments, **kwargs)


def _arguments(node: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in node.items() if not re.fullmatch(r"_\w+_", name)}


def check_node(node: Mapping[str, Any], key: str, given: frozenset[str] = frozenset()) -> None:
    """Compare a node, and all nodes inside, with the constructors they name.

    Args:
        node: A mapping, with or without ``_target_``.
        key: Its dotted key, for messages.
        given: Arguments of this node that will be handed over later.

    Raises:
        ValueError: An argument that the constructor does not have or that is handed over, a value
            that it does not take, or no value where it has no default.

    Example:
        >>> check_node({"_target_": "fractions.Fraction", "numerater": 1}, key="share")
        Traceback (most recent call last):
            ...
        ValueError: share.numerater is not an argument of fractions.Fraction. Did you mean \
        share.numerator?
    """
    if "_target_" in node:
        _check_call(node, key, given)
    for name, value in node.items():
        inner = f"{key}.{name}" if key else str(name)
        if isinstance(value, dict):
            check_node(value, inner)
        elif isinstance(value, list):
            for position, item in enumerate(value):
                if isinstance(item, dict):
                    check_node(item, f"{inner}.{position}")


def _check_call(node: Mapping[str, Any], key: str, given: frozenset[str]) -> None:
    target = locate(node["_target_"], key)
    try:
        parameters = inspect.signature(target).parameters
    except ValueError:  # some built-ins have no signature
        return
    kinds = {parameter.kind for parameter in parameters.values()}
    takes_all = inspect.Parameter.VAR_KEYWORD in kinds
    hints = _annotations(target)
    prefix = f"{key}." if key else ""
    for name, value in _arguments(node).items():
        if name not in parameters:
            if takes_all:
                continue
            near = did_you_mean(prefix + name, [prefix + known for known in parameters])
            raise ValueError(f"{prefix}{name} is not an argument of {node['_target_']}.{near}")
        if name in given:
            raise ValueError(
                f"{prefix}{name} is nothing to configure: {node['_target_']} is given it when the "
                f"run is built. Leave {prefix}{name} out."
            )
        expected = hints.get(name, Any)
        if isinstance(value, dict) and "_target_" in value:
            made = _made_by(value)
            if not _may_be(made, expected):
                kind = "a partial function" if made is functools.partial else _readable(made)
                raise ValueError(
                    f"{prefix}{name}={value['_target_']} gives {kind}; "
                    f"{node['_target_']} takes {_readable(expected)}."
                )
        elif not _fits(value, expected):
            choices = _choices(expected)
            kind = "no choice" if choices else f"of type {type(value).__name__}"
            takes = ", ".join(choices) or _readable(expected)
            raise ValueError(
                f"{prefix}{name}={value!r} is {kind}; {node['_target_']} takes {takes}."
            )
    if node.get("_partial_", False):
        return
    for name, parameter in parameters.items():
        optional = parameter.default is not inspect.Parameter.empty or parameter.kind in (
            inspect.Parameter.VAR_KEYWORD,
            inspect.Parameter.VAR_POSITIONAL,
        )
        if not optional and name not in node and name not in given:
            raise ValueError(
                f"{prefix}{name} has no value and {node['_target_']} has no default for it. "
                f"Add it with +{prefix}{name}=<value>."
            )


def _annotations(target: Callable[..., Any]) -> dict[str, Any]:
    """Return the annotation of each argument; one that cannot be evaluated counts as Any."""
    function: Any = target.__init__ if inspect.isclass(target) else target
    function = inspect.unwrap(function)
    names = dict(getattr(function, "__globals__", {}))
    hints: dict[str, Any] = {}
    for name, annotation in getattr(function, "__annotations__", {}).items():
        if isinstance(annotation, str):
            try:
                annotation = eval(annotation, names)  # the project's own source, not input
            except (NameError, AttributeError, TypeError, SyntaxError):
                annotation = Any
        hints[name] = annotation
    return hints


def _made_by(node: Mapping[str, Any]) -> Any:  # noqa: ANN401
    """Return the type of what a node describes; Any where its function does not say.

    Any, too, where there is no such function, which is said with its key when its turn comes.
    """
    try:
        target = locate(node["_target_"], "")
    except ValueError:
        return Any
    if node.get("_partial_", False):
        return functools.partial
    return target if inspect.isclass(target) else _annotations(target).get("return", Any)


def _is_open(expected: Any) -> bool:  # noqa: ANN401
    return expected is Any or expected is object or isinstance(expected, (str, typing.TypeVar))


def _may_be(made: Any, expected: Any) -> bool:  # noqa: ANN401
    """Return whether an object of the type ``made`` can be an argument with this annotation.

    What a protocol asks for is not looked at beyond its being no plain value.
    """
    origin, inner = typing.get_origin(expected), typing.get_args(expected)
    if _is_open(expected):
        return True
    if origin in (Union, types.UnionType):
        return any(_may_be(made, option) for option in inner)
    if origin is typing.Annotated:
        return _may_be(made, inner[0])
    if expected is None or origin is Literal or expected in (*PLAIN_TYPES, types.NoneType):
        return made is expected
    made = typing.get_origin(made) or made
    wanted = origin or expected
    if made is Any or not isinstance(made, type) or not isinstance(wanted, type):
        return True
    if any(getattr(each, "_is_protocol", False) for each in (made, wanted)):
        return True
    return issubclass(made, wanted) or issubclass(wanted, made)


def _fits(value: Any, expected: Any) -> bool:  # noqa: ANN401
    """Return whether a value of a YAML file can be an argument with this annotation."""
    origin, inner = typing.get_origin(expected), typing.get_args(expected)
    if _is_open(expected):
        return True
    if origin in (Union, types.UnionType):
        return any(_fits(value, option) for option in inner)
    if origin is typing.Annotated or origin in (typing.Final, typing.ClassVar):
        return _fits(value, inner[0])
    if origin is Literal:
        return any(value == option and type(value) is type(option) for option in inner)
    if value is None:
        return expected is None or expected is type(None)
    if isinstance(value, dict) and "_target_" in value:
        return _may_be(_made_by(value), expected)
    plain = origin or expected
    if isinstance(value, list):
        return _list_fits(value, plain, inner)
    if isinstance(value, dict):
        if plain not in (dict, collections.abc.Mapping, collections.abc.MutableMapping):
            return False
        return len(inner) != 2 or all(_fits(item, inner[1]) for item in value.values())
    return _scalar_fits(value, plain)


def _list_fits(value: list[Any], plain: Any, inner: tuple[Any, ...]) -> bool:  # noqa: ANN401
    if not isinstance(plain, type) or not issubclass(plain, collections.abc.Iterable):
        return False
    if issubclass(plain, (str, collections.abc.Mapping)):
        return False
    if plain is tuple and inner and inner[-1] is not Ellipsis:
        return len(value) == len(inner) and all(map(_fits, value, inner))
    return not inner or all(_fits(item, inner[0]) for item in value)


def _scalar_fits(value: Any, plain: Any) -> bool:  # noqa: ANN401
    if isinstance(value, bool):
        return plain is bool
    if plain is float:
        return isinstance(value, (int, float))
    if plain in (int, str):
        return isinstance(value, plain)
    return isinstance(value, str) and plain in (Path, PurePath, os.PathLike)


def _choices(expected: Any) -> list[str]:  # noqa: ANN401
    """Return the values of an annotation that lists them all; none for any other."""
    inner = typing.get_args(expected)
    if typing.get_origin(expected) is Literal:
        return [str(option) for option in inner]
    if typing.get_origin(expected) not in (Union, types.UnionType):
        return []
    words = {bool: ["true", "false"], types.NoneType: ["null"]}
    options = [words.get(option) or _choices(option) for option in inner]
    return [word for option in options for word in option] if all(options) else []


def _readable(expected: Any) -> str:  # noqa: ANN401
    if isinstance(expected, type) and not typing.get_args(expected):
        return expected.__name__
    return re.sub(r"\b(typing|collections\.abc|pathlib)\.", "", str(expected))

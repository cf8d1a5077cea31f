"""Whether nodes fit the constructors they name: the constructor is the schema."""

from __future__ import annotations

import collections.abc
import functools
import inspect
import math
import os
import sys
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path, PurePath
from typing import Any, Literal, NamedTuple, Union

from crosswalk.config.construct import arguments_of, locate
from crosswalk.config.keys import CALLED_VALUES
from crosswalk.config.limits import allows
from crosswalk.config.words import LISTS, PLAIN_TYPES, did_you_mean, readable, shown


class Signature(NamedTuple):
    """Arguments of a constructor, and their annotations."""

    parameters: Mapping[str, inspect.Parameter]
    annotations: Mapping[str, Any]


def optional_arguments(annotations: Mapping[str, Any]) -> Signature:
    """Return the signature of keyword arguments that may all be left out."""
    kind = inspect.Parameter.KEYWORD_ONLY
    parameters = {name: inspect.Parameter(name, kind, default=None) for name in annotations}
    return Signature(parameters, annotations)


Describe = Callable[[str, str], Signature | None]
"""From a target and its key to its signature; None for a target that is not looked at."""


def check_node(
    node: Mapping[str, Any],
    key: str,
    given: frozenset[str] = frozenset(),
    describe: Describe | None = None,
) -> None:
    """Compare a node, and all nodes inside, with the constructors they name.

    Args:
        node: A mapping, with or without ``_target_``.
        key: Its dotted key, for messages.
        given: Arguments of this node that will be handed over later.
        describe: Says what a constructor takes; it is imported by default.

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
    target: Any = node.get("_target_")
    takes = (describe or signature_of)(target, key) if "_target_" in node else None
    if takes is not None:
        check_call(node, key, takes, target, given=given, imports=describe is None)
    for name, value in node.items():
        inner = f"{key}.{name}" if key else str(name)
        if isinstance(value, dict):
            waits = describe is None and takes is not None and value.get("_partial_", False)
            later = _handed_over(target, name, takes, value) if waits else frozenset()
            check_node(value, inner, later, describe)
        elif isinstance(value, list):
            for position, item in enumerate(value):
                if isinstance(item, dict):
                    check_node(item, f"{inner}.{position}", describe=describe)


def _handed_over(
    outer: str, name: str, takes: Signature | None, node: Mapping[str, Any]
) -> frozenset[str]:
    """Return the arguments of a partial function that its caller gives, and nobody else can."""
    names = set(getattr(locate(outer, ""), "gives", {}).get(name, ()))
    inner = signature_of(node["_target_"], name) if "_target_" in node else None
    expected = takes.annotations.get(name, Any) if takes is not None else Any
    for option in (expected, *typing.get_args(expected)):
        arguments = next(iter(typing.get_args(option)), None)
        count = len(arguments) if isinstance(arguments, list) else 0  # of a Callable
        if getattr(option, "_is_protocol", False):
            call = list(inspect.signature(option.__call__).parameters.values())[1:]
            count = sum(each.kind is each.POSITIONAL_OR_KEYWORD for each in call)
            names |= {each.name for each in call if each.kind is each.KEYWORD_ONLY}
        positional = [
            each.name
            for each in (inner.parameters.values() if inner is not None else ())
            if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)
        ]
        names |= set(positional[:count])
    return frozenset(names)


def signature_of(target: str, key: str) -> Signature | None:
    """Return what a constructor takes; None for some built-ins, which have no signature."""
    constructor = locate(target, key)
    try:
        parameters = inspect.signature(constructor).parameters
    except ValueError:
        return None
    return Signature(parameters, _annotations(constructor))


def check_call(
    node: Mapping[str, Any],
    key: str,
    takes: Signature,
    who: str,
    *,
    given: frozenset[str] = frozenset(),
    imports: bool = False,
) -> None:
    """Compare the arguments of a node with what its constructor takes.

    Args:
        node: Arguments by name.
        key: Its dotted key, for messages.
        takes: What the constructor takes.
        who: Its name, for messages.
        given: Arguments that will be handed over later.
        imports: Whether to look what nodes in it make.

    Raises:
        ValueError: As `check_node`.
    """
    kinds = {parameter.kind for parameter in takes.parameters.values()}
    takes_all = inspect.Parameter.VAR_KEYWORD in kinds
    prefix = f"{key}." if key else ""
    for name, value in arguments_of(node).items():
        if name not in takes.parameters:
            if takes_all:
                continue
            near = did_you_mean(prefix + name, [prefix + known for known in takes.parameters])
            raise ValueError(f"{prefix}{name} is not an argument of {who}.{near}")
        if name in given:
            raise ValueError(
                f"{prefix}{name} is nothing to configure: {who} is given it when the "
                f"run is built. Leave {prefix}{name} out."
            )
        expected = takes.annotations.get(name, Any)
        if isinstance(value, dict) and "_target_" in value:
            made = made_by(value) if imports else Any
            if not may_be(made, expected):
                kind = "a partial function" if made is functools.partial else readable(made)
                raise ValueError(
                    f"{prefix}{name}={value['_target_']} gives {kind}; "
                    f"{who} takes {readable(expected)}."
                )
        else:
            check_value(value, expected, f"{prefix}{name}", who)
    if node.get("_partial_", False):
        return
    for name, parameter in takes.parameters.items():
        optional = parameter.default is not inspect.Parameter.empty or parameter.kind in (
            inspect.Parameter.VAR_KEYWORD,
            inspect.Parameter.VAR_POSITIONAL,
        )
        if not optional and name not in node and name not in given:
            raise ValueError(
                f"{prefix}{name} has no value and {who} has no default for it. "
                f"Add it with +{prefix}{name}=<value>."
            )


def check_value(value: Any, expected: Any, key: str, who: str) -> None:  # noqa: ANN401
    """Compare a value with an annotation: type, choice and range.

    Raises:
        ValueError: With key, value and what ``who`` takes.

    Example:
        >>> from crosswalk.ranges import Workers
        >>> check_value(-1, Workers, "data.num_workers", "the loader")
        Traceback (most recent call last):
            ...
        ValueError: data.num_workers=-1 is out of range; the loader takes int >= 0 and <= 1024.
    """
    if fits(value, expected):
        return
    choices = _choices(expected)
    if choices:
        kind = "no choice"
    elif isinstance(value, float) and not math.isfinite(value):
        kind = "no finite number"
    elif fits(value, _without_ranges(expected)):
        kind = "not allowed" if isinstance(value, str) else "out of range"
    else:
        kind = f"of type {type(value).__name__}" if value is not None else "no value"
    takes = ", ".join(choices) or readable(expected)
    meant = CALLED_VALUES.get(str(value).lower(), str(value))
    near = did_you_mean(meant, choices or (["true", "false"] if fits(True, expected) else []))
    lists = [[value] * count for count in (1, 2)]
    fitting = next((each for each in lists if fits(each, expected)), None)
    if fitting is not None and kind.startswith("of type"):
        takes += f": write {key}=[{','.join(map(str, fitting))}]"
    elif isinstance(value, float) and value.is_integer() and fits(int(value), expected):
        takes += f": write {key}={int(value)}"
    raise ValueError(f"{key}={shown(value)} is {kind}; {who} takes {takes}.{near}")


def _without_ranges(expected: Any) -> Any:  # noqa: ANN401
    """Return an annotation without what `crosswalk.ranges` adds to types."""
    inner = typing.get_args(expected)
    if typing.get_origin(expected) is typing.Annotated:
        return _without_ranges(inner[0])
    if typing.get_origin(expected) in (Union, types.UnionType):
        return Union[tuple(map(_without_ranges, inner))]  # noqa: UP007
    if not any(_is_ranged(each) for each in inner):
        return expected
    return typing.get_origin(expected)[tuple(map(_without_ranges, inner))]


def _is_ranged(expected: Any) -> bool:  # noqa: ANN401
    if typing.get_origin(expected) is typing.Annotated:
        return True
    return any(map(_is_ranged, typing.get_args(expected)))


def _annotations(target: Callable[..., Any]) -> dict[str, Any]:
    """Return the annotation of each argument; one that cannot be evaluated counts as Any."""
    function: Any = target.__init__ if inspect.isclass(target) else target
    function = inspect.unwrap(function)
    names = dict(getattr(function, "__globals__", {}))
    return {
        name: evaluated(annotation, names)
        for name, annotation in getattr(function, "__annotations__", {}).items()
    }


def evaluated(annotation: Any, names: Mapping[str, Any]) -> Any:  # noqa: ANN401
    """Return what an annotation of a source file means; Any where it cannot be told."""
    if not isinstance(annotation, str):
        return annotation
    try:
        return eval(annotation, dict(names))  # the project's own source, not input
    except (NameError, AttributeError, TypeError, SyntaxError):
        return Any


def made_by(node: Mapping[str, Any]) -> Any:  # noqa: ANN401
    """Return the type of what a node describes; Any where its function does not say.

    Any, too, where there is no such function, which is said with its key when its turn comes.
    """
    if not isinstance(node["_target_"], str):
        return Any
    try:
        target = locate(node["_target_"], "")
    except ValueError:
        return Any
    if node.get("_partial_", False):
        return functools.partial
    return target if inspect.isclass(target) else _annotations(target).get("return", Any)


def _is_open(expected: Any) -> bool:  # noqa: ANN401
    return expected is Any or expected is object or isinstance(expected, (str, typing.TypeVar))


def may_be(made: Any, expected: Any) -> bool:  # noqa: ANN401
    """Return whether an object of the type ``made`` can be an argument with this annotation.

    Of a protocol's methods is looked at whether they exist and take as many arguments.
    """
    origin, inner = typing.get_origin(expected), typing.get_args(expected)
    if _is_open(expected):
        return True
    if origin in (Union, types.UnionType):
        return any(may_be(made, option) for option in inner)
    if origin is typing.Annotated:
        return may_be(made, inner[0])
    if expected is None or origin is Literal or expected in (*PLAIN_TYPES, types.NoneType):
        return made is expected
    made = typing.get_origin(made) or made
    wanted = origin or expected
    if made is Any or not isinstance(made, type) or not isinstance(wanted, type):
        return True
    if getattr(wanted, "_is_protocol", False):
        return _answers(made, wanted)
    if getattr(made, "_is_protocol", False):
        return True
    return issubclass(made, wanted) or issubclass(wanted, made)


def _answers(made: type, protocol: type) -> bool:
    for name, asked in vars(protocol).items():
        if not inspect.isfunction(asked) or (name.startswith("_") and name != "__call__"):
            continue
        if name == "__call__":  # a torch module is called through its forward, if it has one
            forward = getattr(made, "forward", None)
            if getattr(forward, "__module__", "").startswith("torch.nn."):
                return False
            continue
        by_name = {
            name: None
            for name, parameter in inspect.signature(asked).parameters.items()
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY
        }
        positional = [None] * (len(inspect.signature(asked).parameters) - len(by_name))
        try:
            inspect.signature(getattr(made, name)).bind(*positional, **by_name)
        except (AttributeError, TypeError, ValueError):
            return False
    return True


def fits(value: Any, expected: Any) -> bool:  # noqa: ANN401
    """Return whether a value of a YAML file can be an argument with this annotation."""
    origin, inner = typing.get_origin(expected), typing.get_args(expected)
    if _is_open(expected):
        return True
    if origin in (Union, types.UnionType):
        return any(fits(value, option) for option in inner)
    if origin is typing.Annotated:
        return fits(value, inner[0]) and all(allows(limit, value) for limit in inner[1:])
    if origin is Literal:
        return any(value == option and type(value) is type(option) for option in inner)
    if value is None:
        return expected is None or expected is type(None)
    if isinstance(value, dict) and "_target_" in value:
        return may_be(made_by(value), expected)
    plain = origin or expected
    if isinstance(value, list):
        return _list_fits(value, plain, inner)
    if isinstance(value, dict):
        if plain not in (dict, collections.abc.Mapping, collections.abc.MutableMapping):
            return False
        return len(inner) != 2 or all(fits(item, inner[1]) for item in value.values())
    return _scalar_fits(value, plain)


def _list_fits(value: list[Any], plain: Any, inner: tuple[Any, ...]) -> bool:  # noqa: ANN401
    if not isinstance(plain, type) or plain.__module__ not in LISTS:
        return False
    if not issubclass(plain, collections.abc.Iterable):
        return False
    if issubclass(plain, (str, collections.abc.Mapping)):
        return False
    if plain is tuple and inner and inner[-1] is not Ellipsis:
        return len(value) == len(inner) and all(map(fits, value, inner))
    return not inner or all(fits(item, inner[0]) for item in value)


def _scalar_fits(value: Any, plain: Any) -> bool:  # noqa: ANN401
    if isinstance(value, bool):
        return plain is bool
    if plain is float:
        return isinstance(value, (int, float)) and abs(value) <= sys.float_info.max  # not NaN
    if plain in (int, str):
        return isinstance(value, plain)
    return isinstance(value, str) and plain in (Path, PurePath, os.PathLike)


def _choices(expected: Any) -> list[str]:  # noqa: ANN401
    """Return the values of an annotation that lists them all; none for any other."""
    inner = typing.get_args(expected)
    if typing.get_origin(expected) is Literal:
        return list(dict.fromkeys(map(str, inner)))
    if typing.get_origin(expected) not in (Union, types.UnionType):
        return []
    words = {bool: ["true", "false"], types.NoneType: ["null"]}
    options = [words.get(option) or _choices(option) for option in inner]
    return [word for option in options for word in option] if all(options) else []

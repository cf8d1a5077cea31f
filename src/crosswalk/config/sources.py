"""What constructors take, read from their source: importing them takes seconds."""

from __future__ import annotations

import ast
import collections.abc
import inspect
import typing
from functools import cache
from pathlib import Path, PurePath

from crosswalk import ranges
from crosswalk.config.constructors import Signature, evaluated

PACKAGE = Path(__file__).parents[1]
NAMES = {
    **{name: getattr(typing, name) for name in typing.__all__},
    **{name: getattr(collections.abc, name) for name in collections.abc.__all__},
    **vars(ranges),
    "Path": Path,
    "PurePath": PurePath,
}
"""What annotations may say; anything else counts as Any here."""


def read_signature(target: str, key: str = "") -> Signature | None:
    """Return what a constructor of this package takes; None where only an import tells.

    Types of other modules count as Any.

    Example:
        >>> takes = read_signature("crosswalk.optim.adam")
        >>> list(takes.parameters), takes.annotations["eps"] == ranges.Positive
        (['groups', 'betas', 'eps'], True)
        >>> read_signature("torch.nn.Linear") is None
        True
    """
    path, name = _place(target)
    return None if path is None else _signatures(path).get(name)


def read_batches(target: str) -> tuple[str, ...] | None:
    """Return the kinds of batches that a class of data gives, or one of methods takes.

    None where only an import tells: of what is not in this package.

    Example:
        >>> read_batches("crosswalk.methods.rde.RDE")
        ('PairBatch',)
        >>> read_batches("crosswalk.data.transfer.SourceTargetData")
        ('SourceTargetBatch', 'ImageBatch')
    """
    path, name = _place(target)
    for item in _parsed(path) if path is not None else ():
        if isinstance(item, ast.ClassDef) and item.name == name:
            values = {
                ast.unparse(each.targets[0] if isinstance(each, ast.Assign) else each.target): (
                    each.value
                )
                for each in item.body
                if isinstance(each, (ast.Assign, ast.AnnAssign))
            }
            value = values.get("batch_types", values.get("needs"))
            if isinstance(value, ast.Call):
                value = next((each.value for each in value.keywords if each.arg == "batches"), None)
            if isinstance(value, ast.Tuple):
                return tuple(map(ast.unparse, value.elts))
    return None


def read_fits(made: str, target: str, argument: str) -> tuple[bool | None, str]:
    """Return whether objects of a class can be an argument of a constructor, and what it wants.

    Of a protocol's methods is looked at whether they exist and take as many arguments. None where
    only an import tells.

    Example:
        >>> read_fits("crosswalk.encoders.image.ImageEncoder", "crosswalk.methods.rde.RDE", "encoder")
        (False, 'DualEncoder')
    """  # noqa: E501 - the example
    constructor, offered = _class(target), _class(made)
    wanted = None if constructor is None else _wanted(constructor, target, argument)
    if offered is None or wanted is None:
        return None, ""
    expected = _class(wanted)
    if expected is None:
        return None, ""
    if made == wanted:
        return True, expected.name
    if not all(ast.unparse(base) == "nn.Module" for base in offered.bases):
        return None, expected.name
    if any(ast.unparse(base) == "Protocol" for base in expected.bases):
        there, asked = _methods(offered), _methods(expected)
        if asked.pop("__call__", None) and "forward" not in there:
            return False, expected.name  # a torch module is called through it
        asked = {name: each for name, each in asked.items() if not name.startswith("_")}
        answers = all(name in there and _answers(there[name], asked[name]) for name in asked)
        return answers, expected.name
    return False, expected.name


def _methods(item: ast.ClassDef) -> dict[str, ast.FunctionDef]:
    functions = [each for each in item.body if isinstance(each, ast.FunctionDef)]
    return {each.name: each for each in functions if not each.decorator_list}


def _answers(offered: ast.FunctionDef, asked: ast.FunctionDef) -> bool:
    """Return whether a method can be called as another one is."""
    takes, wanted = (_of_function(each, is_method=True).parameters for each in (offered, asked))
    by_name = {name for name, each in wanted.items() if each.kind is each.KEYWORD_ONLY}
    try:
        inspect.Signature(list(takes.values())).bind(
            *[None] * (len(wanted) - len(by_name)), **dict.fromkeys(by_name)
        )
    except TypeError:
        return False
    return True


def _class(target: str) -> ast.ClassDef | None:
    path, name = _place(target)
    items = [] if path is None else _parsed(path)
    return next((it for it in items if isinstance(it, ast.ClassDef) and it.name == name), None)


def _wanted(constructor: ast.ClassDef, target: str, argument: str) -> str | None:
    """Return the class that an argument is annotated with, by its dotted name; None of others."""
    makers = [each for each in constructor.body if isinstance(each, ast.FunctionDef)]
    maker = next((each for each in makers if each.name == "__init__"), None)
    given = [] if maker is None else [*maker.args.args, *maker.args.kwonlyargs]
    annotation = next((each.annotation for each in given if each.arg == argument), None)
    path, _ = _place(target)
    if path is None or not isinstance(annotation, ast.Name):
        return None
    for item in _parsed(path):
        names = [each.name for each in item.names] if isinstance(item, ast.ImportFrom) else []
        if annotation.id in names:
            return f"{item.module}.{annotation.id}"  # type: ignore[attr-defined]
    return f"{target.rpartition('.')[0]}.{annotation.id}"


def _place(target: str) -> tuple[Path | None, str]:
    """Return the file of a target of this package, and its name there; None for others."""
    package, _, rest = target.partition(".")
    module, _, name = rest.rpartition(".")
    path = PACKAGE / f"{module.replace('.', '/')}.py"
    return path if package == "crosswalk" and path.is_file() else None, name


@cache
def _parsed(path: Path) -> list[ast.stmt]:
    return ast.parse(path.read_text(encoding="utf-8")).body


@cache
def _signatures(path: Path) -> dict[str, Signature]:
    found = {}
    for item in _parsed(path):
        if isinstance(item, ast.FunctionDef):
            found[item.name] = _of_function(item)
        elif isinstance(item, ast.ClassDef):
            makers = [each for each in item.body if isinstance(each, ast.FunctionDef)]
            maker = next((each for each in makers if each.name == "__init__"), None)
            if maker is not None:
                found[item.name] = _of_function(maker, is_method=True)
            elif any("dataclass" in ast.unparse(each) for each in item.decorator_list):
                found[item.name] = _of_fields(item)
    return found


def _of_function(function: ast.FunctionDef, *, is_method: bool = False) -> Signature:
    given = function.args
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    positional = [*given.posonlyargs, *given.args]
    required = len(positional) - len(given.defaults)
    rows: list[tuple[ast.arg, typing.Any, bool]]
    rows = [(each, kind, place < required) for place, each in enumerate(positional)]
    rows += [(each, inspect.Parameter.VAR_POSITIONAL, False) for each in [given.vararg] if each]
    rows += [
        (each, inspect.Parameter.KEYWORD_ONLY, default is None)
        for each, default in zip(given.kwonlyargs, given.kw_defaults, strict=True)
    ]
    rows += [(each, inspect.Parameter.VAR_KEYWORD, False) for each in [given.kwarg] if each]
    return _signature(
        (each.arg, each.annotation, kind, needed) for each, kind, needed in rows[is_method:]
    )


def _of_fields(item: ast.ClassDef) -> Signature:
    fields = [each for each in item.body if isinstance(each, ast.AnnAssign)]
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return _signature(
        (ast.unparse(each.target), each.annotation, kind, each.value is None) for each in fields
    )


def _signature(
    rows: typing.Iterable[tuple[str, ast.expr | None, typing.Any, bool]],
) -> Signature:
    parameters, annotations = {}, {}
    for name, annotation, kind, needed in rows:
        is_one = kind not in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        default = inspect.Parameter.empty if needed or not is_one else None
        parameters[name] = inspect.Parameter(name, kind, default=default)
        if annotation is not None:
            annotations[name] = evaluated(ast.unparse(annotation), NAMES)
    return Signature(parameters, annotations)

"""Kinds of data, and which of them a method trains on.

By the sources of classes before anything is imported, by the classes in the check, and by the data
once they have been read: only they tell whether their people are known.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from crosswalk.config.construct import locate
from crosswalk.config.plain import nested
from crosswalk.config.search import group_values, read_group_file
from crosswalk.config.sources import read_batches

if TYPE_CHECKING:
    from crosswalk.types import Needs

BATCHES = {
    "PairBatch": "image-caption pairs",
    "ImageBatch": "images of people",
    "SourceTargetBatch": "images of a labelled source and of a target",
}
SYNTHETIC = {"PairBatch": "pairs", "ImageBatch": "images", "SourceTargetBatch": "transfer"}
"""The kinds of generated people."""


def data_sets(data: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the parts of ``data`` that are read from somewhere: itself, or a source and a target.

    Example:
        >>> data_sets({"source": {"reader": 1}, "target": {"reader": 2}, "batch_size": 3})
        [{'reader': 1}, {'reader': 2}]
    """
    nodes = (data, *(value for _, value in nested(data)))
    return [node for node in nodes if isinstance(node, Mapping) and "reader" in node]


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
        check_batches(takes, gives, {"method": method, "data": data}, option=option)


def check_batches(
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
    return names_of(getattr(locate(target, "data"), "batch_types", ())) if read is None else read


def _target_of(group: str, value: str) -> str | None:
    """Return the ``_target_`` of a file, or of the file of its group that it is made of."""
    content = read_group_file(group, value)
    for entry in content.get("defaults", ()):
        if "_target_" not in content and isinstance(entry, str) and entry != "_self_":
            return _target_of(group, entry)
    return content.get("_target_")


def check_captions(takes: Sequence[str], gives: Sequence[str], choices: Mapping[str, str]) -> None:
    """Refuse to evaluate a model of images alone on captions."""
    if set(gives) == {"PairBatch"} and "PairBatch" not in takes:
        raise ValueError(
            f"data={choices.get('data')} gives {_named(gives)}, and a model of method="
            f"{choices.get('method')} knows no captions. Evaluate it on images of people, such as "
            "data=own_images data.root=<folder or .csv>."
        )


def check_plan(needs: Needs, method_class: Any, config: Mapping[str, Any]) -> None:  # noqa: ANN401
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


def check_data(needs: Needs, data: Any, choices: Mapping[str, str]) -> None:  # noqa: ANN401
    """Refuse data that turn out to be of another kind, or without identities that are needed.

    Args:
        needs: What the method needs.
        data: The data module, its data read.
        choices: The files of the groups, for the message.
    """
    check_batches(names_of(needs.batches), names_of(data.batch_types), choices)
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


def names_of(batches: Iterable[type]) -> list[str]:
    """Return the kinds of batches by their names."""
    return [batch.__name__ for batch in batches]


def _named(batches: Iterable[str]) -> str:
    return " or ".join(BATCHES[batch] for batch in batches)

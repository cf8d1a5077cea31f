"""Compares this package with outputs recorded from the published implementations.

A *case* is one ``.npz`` under ``<folder>/<method>/``: inputs, and expected outputs named
``out_*``. An *adapter* computes the outputs from the inputs, for every case of one recorded
function; it lives in ``tests/golden/adapters/<method>/<topic>.py`` and is found there by itself.

Writing an adapter::

    from tests.golden.harness import FLOAT32, GRADIENT, Case, golden

    @golden("rde", "pos_embed")                    # pos_embed_0.npz, pos_embed_17.npz, ...
    def pos_embed(case: Case) -> None:
        resized = resize_positions(
            case.tensor("pos_embed"), height=case.item("height"), width=case.item("width")
        )
        case.close("out_pos_embed", resized)       # rtol 1e-6 unless told; shapes must agree

    @golden("rde", "dataset_parse", named=True)    # dataset_parse_cuhk.npz: a word, not a number
    def dataset_parse(case: Case) -> None:
        annotation = case.json("annotation_json")  # parsed; case.item("x") is a plain scalar or str
        ...
        case.equal_json("out_train_json", train)   # parsed JSON must be equal
        case.equal("out_num_train_ids", 3)         # integers, flags, strings: exactly equal

    @golden("rde", "tiny_model")
    def tiny_model(case: Case) -> None:
        state = case.sibling("tiny_checkpoint")    # the Case of tiny_checkpoint_<same number>.npz
        images = case.tensor("images", requires_grad=True)
        ...
        case.close("out_bge_image", ours, **FLOAT32)
        case.close("out_grad_images", images.grad, **GRADIENT)
        case.close("out_bad", ours, nan=0.0)       # recorded NaN documents a bug: we return 0
        case.documented("out_fp16_bge_image", "half precision on CPU, informative only")
        case.check(len(keys) == 335, "the checkpoint has every key")   # anything else

Rules: everything comes from the arrays of the file (other sizes, settings and seeds are run too),
nothing from its number. A setting that no recording names yet is ``case.setting("momentum", 0.9)``:
the published value, unless a case says another. A case with an input that the adapter did not read
fails, unless it is declared: ``case.unused("labels", reason="the released code ignores them")``.
Every ``out_*`` array has to be compared, or named with a reason by `documented`; a case with one
left over fails, so does a case without any comparison. An exception of the adapter is a failure of
the case. Optional arrays: ``if "out_x" in case: ...``; ``case.outputs`` lists them.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict

import numpy as np
import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "tests" / "golden" / "data"
ADAPTERS = ROOT / "tests" / "golden" / "adapters"

if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))  # adapters are imported as `tests.golden.adapters...`


class Tolerance(TypedDict):
    """Keyword arguments of `Case.close`."""

    rtol: float
    atol: float


LOSS: Tolerance = {"rtol": 1e-6, "atol": 1e-9}
GRADIENT: Tolerance = {"rtol": 1e-5, "atol": 1e-7}
FLOAT32: Tolerance = {"rtol": 2e-4, "atol": 2e-5}


class Case:
    """One golden file: its arrays by name, and what an adapter found out about its outputs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.method = path.parent.name
        self.name = path.stem.removesuffix("_io")
        self.function = self.name
        self.failures: list[str] = []
        self.checked: set[str] = set()
        self.read: set[str] = set()
        with np.load(path, allow_pickle=False) as archive:
            self.arrays: dict[str, np.ndarray[Any, Any]] = {key: archive[key] for key in archive}

    def __contains__(self, name: str) -> bool:
        return name in self.arrays

    def __getitem__(self, name: str) -> np.ndarray[Any, Any]:
        self.read.add(name)
        return self.arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.arrays)

    @property
    def folder(self) -> Path:
        """Where accompanying files lie."""
        return self.path.parent

    @property
    def outputs(self) -> list[str]:
        """Names of the expected outputs."""
        return [name for name in self.arrays if name.startswith("out_")]

    @property
    def unread(self) -> set[str]:
        """Names of the inputs that nothing has looked at."""
        return {name for name in self.arrays if not name.startswith("out_")} - self.read

    def unused(self, *names: str, reason: str) -> None:
        """Declare that inputs have no bearing on the outputs, and why."""
        assert reason
        self.read.update(names)

    def tensor(self, name: str, *, requires_grad: bool = False) -> Tensor:
        """Return an input as a tensor of its own memory."""
        return torch.tensor(self[name]).requires_grad_(requires_grad)

    def item(self, name: str) -> Any:  # noqa: ANN401
        """Return a 0-d array as a plain number or string."""
        return self[name].item()

    def setting(self, name: str, published: Any) -> Any:  # noqa: ANN401
        """Return an input as a plain number, string or list; ``published`` where there is none.

        For settings that a recording shares with the published run and so does not name.
        """
        return self[name].tolist() if name in self else published

    def json(self, name: str) -> Any:  # noqa: ANN401
        """Return what a JSON string holds."""
        return json.loads(self.item(name))

    def sibling(self, function: str) -> Case:
        """Return the case of ``function`` with this case's number, or the only one in the folder.

        Raises:
            FileNotFoundError: If there is none, or several with other numbers.
        """
        suffix = self.name.removeprefix(self.function)
        exact = self.folder / f"{function}{suffix}.npz"
        if exact.exists():
            return Case(exact)
        others = [
            path
            for path in sorted(self.folder.glob(f"{function}_*.npz"))
            if re.fullmatch(r"_\d+", path.stem.removeprefix(function))
        ]
        if len(others) != 1:
            raise FileNotFoundError(f"{exact.name} is missing, and {len(others)} others are there")
        return Case(others[0])

    def close(
        self,
        name: str,
        actual: object,
        *,
        rtol: float = 1e-6,
        atol: float = 1e-9,
        nan: float | None = None,
    ) -> None:
        """Compare ``actual`` with output ``name``: ``|actual - out| <= atol + rtol * |out|``.

        Args:
            name: An ``out_*`` array.
            actual: Tensor, array or number of the same shape.
            rtol: Relative tolerance.
            atol: Absolute tolerance.
            nan: What this package returns where the recorded output is NaN; None means NaN.
        """
        expected, found = self._pair(name, actual)
        if expected is None or found is None:
            return
        expected, found = expected.astype(np.float64), found.astype(np.float64)
        if nan is not None:
            expected = np.where(np.isnan(expected), nan, expected)
        # A NaN on one side only must not pass, nor an infinity of the other sign.
        fine = np.isclose(found, expected, rtol=rtol, atol=atol, equal_nan=True)
        if not fine.all():
            worst = np.nanmax(np.where(fine, 0.0, np.abs(found - expected)), initial=0.0)
            self.failures.append(
                f"{name}: {(~fine).sum()} of {fine.size} values differ, by up to {worst:.3g} "
                f"(rtol {rtol:g}, atol {atol:g})"
            )

    def equal(self, name: str, actual: object) -> None:
        """Compare ``actual`` with output ``name`` exactly, shapes included."""
        expected, found = self._pair(name, actual)
        if expected is None or found is None:
            return
        wrong = int((expected != found).sum())
        if wrong:
            self.failures.append(f"{name}: {wrong} of {expected.size} values are not equal")

    def equal_json(self, name: str, actual: object) -> None:
        """Compare ``actual`` with the JSON of output ``name``; tuples count as lists."""
        self.checked.add(name)
        if json.loads(json.dumps(actual)) != self.json(name):
            self.failures.append(f"{name}: not equal")

    def documented(self, name: str, reason: str) -> None:
        """Leave output ``name`` unchecked, because of ``reason``; no error if it is absent."""
        if not reason:
            raise ValueError(f"{name}: say why this output is not compared")
        self.checked.add(name)

    def check(self, fine: bool, statement: str) -> None:
        """Require that ``statement`` holds."""
        self.checked.add(statement)
        if not fine:
            self.failures.append(f"not true: {statement}")

    def _pair(
        self, name: str, actual: object
    ) -> tuple[np.ndarray[Any, Any] | None, np.ndarray[Any, Any] | None]:
        self.checked.add(name)
        self.read.add(name)
        if name not in self.arrays:
            self.failures.append(f"{name}: the file has no such array")
            return None, None
        expected = self.arrays[name]
        if actual is None:
            self.failures.append(f"{name}: nothing to compare (None; a missing gradient?)")
            return None, None
        found = np.asarray(
            actual.detach().cpu().numpy() if isinstance(actual, Tensor) else actual  # type: ignore[no-untyped-call,unused-ignore]
        )
        if expected.shape != found.shape:
            self.failures.append(f"{name}: shape {found.shape}, expected {expected.shape}")
            return None, None
        return expected, found


Adapter = Callable[[Case], None]


@dataclass(frozen=True)
class _Registered:
    adapter: Adapter
    pattern: re.Pattern[str]


_registry: dict[tuple[str, str], _Registered] = {}


def golden(method: str, function: str, *, named: bool = False) -> Callable[[Adapter], Adapter]:
    """Register the decorated adapter for the cases of ``function`` of ``method``.

    Args:
        method: Name of the folder of golden files.
        function: File name without the trailing ``_<k>`` (and what follows it, as in
            ``mmcl_loss_0_single_label``).
        named: Whether any words may follow the name instead of a number.
    """
    rest = r"_.+" if named else r"(_\d+(_.*)?)?"

    def register(adapter: Adapter) -> Adapter:
        _registry[method, function] = _Registered(adapter, re.compile(re.escape(function) + rest))
        return adapter

    return register


def load_adapters(methods: Iterable[str]) -> list[str]:
    """Import the adapters of ``methods``; return one line per module that cannot be imported."""
    problems = []
    for method in methods:
        for path in sorted((ADAPTERS / method).glob("*.py")):
            if path.stem == "__init__":
                continue
            try:
                importlib.import_module(f"tests.golden.adapters.{method}.{path.stem}")
            except Exception as error:  # one broken module must not hide the other results
                problems.append(f"{method}/{path.name}: {_one_line(error)}")
    return problems


def _find(method: str, name: str) -> tuple[str, Adapter] | None:
    fitting = [
        (function, registered.adapter)
        for (of, function), registered in _registry.items()
        if of == method and registered.pattern.fullmatch(name)
    ]
    return max(fitting, key=lambda found: len(found[0]), default=None)


def golden_files(folder: Path, method: str) -> list[Path]:
    """Return the cases of ``method``, without files that only accompany one."""
    files = sorted((folder / method).rglob("*.npz"))
    return [path for path in files if not _accompanies(path)]


def _accompanies(path: Path) -> bool:
    stem = path.stem
    return (
        stem.endswith("_state") and path.with_name(stem.removesuffix("_state") + "_io.npz").exists()
    )


@dataclass(frozen=True)
class Result:
    """Outcome of one case, and why it is not "passed"."""

    path: Path
    outcome: Literal["passed", "failed", "unknown"]
    reason: str = ""


def run_case(path: Path, method: str) -> Result:
    """Run one golden file through its adapter."""
    found = _find(method, path.stem.removesuffix("_io"))
    if found is None:
        return Result(path, "unknown", "no adapter")
    function, adapter = found
    try:
        case = Case(path)
    except (Exception, zipfile.BadZipFile) as error:
        return Result(path, "failed", _one_line(error))
    case.function = function
    try:
        adapter(case)
    except Exception as error:
        case.failures.append(_one_line(error))
    else:
        unchecked = sorted(set(case.outputs) - case.checked)
        if unchecked:
            case.failures.append(f"not compared by the adapter: {', '.join(unchecked)}")
        if not case.checked:
            case.failures.append("the adapter compared nothing")
        if case.unread:
            case.failures.append(f"not read by the adapter: {', '.join(sorted(case.unread))}")
    if case.failures:
        return Result(path, "failed", "; ".join(case.failures))
    return Result(path, "passed")


def run_folder(folder: Path, methods: Iterable[str]) -> Iterator[Result]:
    """Run every case of ``methods`` under ``folder``, in the order of their names."""
    for method in methods:
        for path in golden_files(folder, method):
            yield run_case(path, method)


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())

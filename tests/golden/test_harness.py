"""The harness itself: what counts as passed, failed and unknown."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.golden import harness
from tests.golden.harness import Case, golden, golden_files, run_case
from tests.golden.run import main


@pytest.fixture(autouse=True)
def _empty_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "_registry", {})


def write(folder: Path, file: str, **arrays: object) -> Path:
    path = folder / "some_method" / file
    path.parent.mkdir(exist_ok=True)
    np.savez(path, **arrays)
    return path


def test_a_case_passes_if_its_outputs_agree(tmp_path: Path) -> None:
    @golden("some_method", "double")
    def double(case: Case) -> None:
        case.close("out_y", 2 * case.tensor("x"))

    path = write(tmp_path, "double_12.npz", x=np.ones(3), out_y=np.full(3, 2.0))

    assert run_case(path, "some_method").outcome == "passed"


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (np.array([1.0, 2.1]), "1 of 2 values differ, by up to 0.1"),
        (np.array([1.0, np.nan]), "1 of 2 values differ"),
        (np.array([1.0, np.inf]), "1 of 2 values differ"),
        (np.array([[1.0, 2.0]]), "shape (1, 2), expected (2,)"),
        (np.float64(1.0), "shape (), expected (2,)"),
        (None, "nothing to compare"),
    ],
)
def test_a_case_fails_if_an_output_differs(tmp_path: Path, found: object, reason: str) -> None:
    golden("some_method", "f")(lambda case: case.close("out_y", found))
    path = write(tmp_path, "f_0.npz", out_y=np.array([1.0, 2.0]))

    result = run_case(path, "some_method")

    assert result.outcome == "failed"
    assert reason in result.reason


def test_a_case_fails_if_an_output_is_left_over(tmp_path: Path) -> None:
    golden("some_method", "f")(lambda case: case.equal("out_y", 1))
    path = write(tmp_path, "f_0.npz", out_y=1, out_z=2)

    assert run_case(path, "some_method").reason == "not compared by the adapter: out_z"


def test_a_case_fails_if_an_input_is_never_looked_at(tmp_path: Path) -> None:
    golden("some_method", "f")(lambda case: case.equal("out_y", case.item("x")))
    path = write(tmp_path, "f_0.npz", x=1, margin=0.2, sd__w=3, out_y=1)

    assert run_case(path, "some_method").reason == "not read by the adapter: margin, sd__w"


def test_an_input_may_be_declared_to_have_no_bearing(tmp_path: Path) -> None:
    @golden("some_method", "f")
    def f(case: Case) -> None:
        case.unused("labels", reason="the released code ignores them")
        case.equal("out_y", case.setting("x", 2))

    assert run_case(write(tmp_path, "f_0.npz", labels=1, out_y=2), "some_method").reason == ""
    assert run_case(write(tmp_path, "f_1.npz", x=1, out_y=1), "some_method").reason == ""


def test_an_adapter_that_compares_nothing_fails(tmp_path: Path) -> None:
    golden("some_method", "f")(lambda case: case.item("x"))

    result = run_case(write(tmp_path, "f_0.npz", x=1), "some_method")

    assert result.reason == "the adapter compared nothing"


def test_an_error_of_the_adapter_is_a_failure_on_one_line(tmp_path: Path) -> None:
    @golden("some_method", "f")
    def f(case: Case) -> None:
        raise KeyError("first\nsecond")

    result = run_case(write(tmp_path, "f_0.npz", out_y=1), "some_method")

    assert result.outcome == "failed"
    assert "\n" not in result.reason


def test_a_file_that_cannot_be_read_is_a_failure(tmp_path: Path) -> None:
    golden("some_method", "f")(lambda case: case.equal("out_y", 1))
    path = write(tmp_path, "f_0.npz", out_y=1)
    path.write_bytes(path.read_bytes()[:50])

    assert run_case(path, "some_method").outcome == "failed"


def test_recorded_nan_passes_only_with_the_value_declared_for_it(tmp_path: Path) -> None:
    path = write(tmp_path, "f_0.npz", out_y=np.array([np.nan, 1.0]))

    golden("some_method", "f")(lambda case: case.close("out_y", np.array([0.0, 1.0])))
    undeclared = run_case(path, "some_method").outcome
    golden("some_method", "f")(lambda case: case.close("out_y", np.array([0.0, 1.0]), nan=0.0))
    declared = run_case(path, "some_method").outcome

    assert (undeclared, declared) == ("failed", "passed")


def test_a_documented_output_needs_no_comparison(tmp_path: Path) -> None:
    @golden("some_method", "f")
    def f(case: Case) -> None:
        case.documented("out_half", "informative only")
        case.equal_json("out_json", [[1, "a"]])

    path = write(tmp_path, "f_0.npz", out_half=1.0, out_json='[[1, "a"]]')

    assert run_case(path, "some_method").outcome == "passed"


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("sdm_0", "sdm"),
        ("sdm_imageid_0", "sdm_imageid"),
        ("sdm_3_single_label", "sdm"),
        ("sdm_10_io", "sdm"),
        ("sdm_other_0", None),
        ("sdm_", None),
        ("parse_cuhk", "parse"),
        ("parse_CUHK-PEDES_0.2", "parse"),
        ("parser_0", None),
    ],
)
def test_the_function_is_the_name_without_the_number(
    tmp_path: Path, name: str, function: str | None
) -> None:
    called = []
    for known in ("sdm", "sdm_imageid", "parse"):

        @golden("some_method", known, named=known == "parse")
        def adapter(case: Case, known: str = known) -> None:
            called.append(known)
            case.equal("out_y", 1)

    result = run_case(write(tmp_path, f"{name}.npz", out_y=1), "some_method")

    assert called == ([function] if function else [])
    assert result.outcome == ("passed" if function else "unknown")


def test_a_state_counts_with_the_case_it_accompanies(tmp_path: Path) -> None:
    write(tmp_path, "model_0_io.npz", out_y=1)
    write(tmp_path, "model_0_state.npz", weight=1)
    write(tmp_path, "model_1_state.npz", weight=1)
    (tmp_path / "some_method" / "lexicon.json").write_text("{}")

    names = [path.name for path in golden_files(tmp_path, "some_method")]

    assert names == ["model_0_io.npz", "model_1_state.npz"]


@pytest.mark.parametrize(("others", "found"), [(["state_5"], "state_5"), (["state_3"], "state_3")])
def test_a_sibling_has_the_same_number_or_is_the_only_one(
    tmp_path: Path, others: list[str], found: str
) -> None:
    case = Case(write(tmp_path, "f_3.npz", out_y=1))
    case.function = "f"
    for other in others:
        write(tmp_path, f"{other}.npz", name=other)

    assert case.sibling("state").item("name") == found


def test_the_program_counts_what_passed_failed_and_is_unknown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    golden("some_method", "f")(lambda case: case.equal("out_y", case["x"]))
    write(tmp_path, "f_0.npz", x=1, out_y=1)
    write(tmp_path, "f_1.npz", x=1, out_y=2)
    write(tmp_path, "never_heard_of_0.npz", out_y=1)

    status = main(["--dir", str(tmp_path), "--methods", ""])

    assert status == 1
    assert capsys.readouterr().out.splitlines() == [
        "FAILED  some_method/f_1.npz: out_y: 1 of 1 values are not equal",
        "UNKNOWN some_method/never_heard_of_0.npz: no adapter",
        "golden: 1 passed, 1 failed, 1 unknown",
    ]


def test_the_program_succeeds_if_all_passed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    golden("some_method", "f")(lambda case: case.equal("out_y", case["x"]))
    write(tmp_path, "f_0.npz", x=1, out_y=1)

    assert main(["--dir", str(tmp_path), "--methods", "some_method"]) == 0
    assert capsys.readouterr().out == "golden: 1 passed, 0 failed, 0 unknown\n"


def test_the_program_refuses_a_method_without_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--dir", str(tmp_path), "--methods", "edr"]) == 2
    assert "GOLDEN_METHODS" in capsys.readouterr().err

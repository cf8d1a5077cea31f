import math
import re
from typing import Any

import numpy as np
import pytest

from crosswalk.lab.sweeps.parameters import Choice, Constant, Parameter, Range, read_parameter


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"value": 3}, Constant(3)),
        ({"value": True}, Constant(True)),
        ({"value": [96, 32]}, Constant("[96, 32]")),
        ({"distribution": "constant", "value": "rde"}, Constant("rde")),
        ({"values": [0.1, 0.2]}, Choice((0.1, 0.2))),
        ({"values": [[96, 32], [192, 64]]}, Choice(("[96, 32]", "[192, 64]"))),
        ({"distribution": "categorical", "values": [True, False]}, Choice((True, False))),
        ({"min": 2, "max": 6}, Range(2, 6, whole=True)),
        ({"distribution": "int_uniform", "min": -1, "max": 1}, Range(-1, 1, whole=True)),
        ({"min": 0.0, "max": 0.4}, Range(0.0, 0.4)),
        ({"min": 0, "max": 0.4}, Range(0.0, 0.4)),
        ({"distribution": "uniform", "min": 0, "max": 1}, Range(0.0, 1.0)),
        (
            {"distribution": "log_uniform_values", "min": 0.001, "max": 0.1},
            Range(0.001, 0.1, log=True),
        ),
        (
            {"distribution": "inv_log_uniform_values", "min": 0.001, "max": 0.1},
            Range(0.001, 0.1, log=True),
        ),
        (
            {"distribution": "q_uniform", "min": 0, "max": 1, "q": 0.25},
            Range(0.0, 1.0, multiple=0.25),
        ),
        ({"distribution": "q_uniform", "min": 16, "max": 64}, Range(16.0, 64.0, multiple=1)),
        (
            {"distribution": "q_log_uniform_values", "min": 16, "max": 64, "q": 8},
            Range(16.0, 64.0, log=True, multiple=8),
        ),
    ],
)
def test_a_parameter_is_what_wandb_means_by_it(given: dict[str, Any], expected: Parameter) -> None:
    found = read_parameter("key", given)

    assert found == expected
    assert repr(found) == repr(expected)  # 1 == 1.0 == True


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"parameters": {"lr": {"value": 1}}}, "parameters.key.parameters: nested"),
        ({"distribution": "normal", "mu": 1.0, "sigma": 0.5}, "uniform, min: 0, max: 2 "),
        ({"distribution": "q_normal", "mu": 10, "sigma": 2}, "q_uniform, min: 6, max: 14 "),
        ({"distribution": "log_normal"}, "log_uniform_values, min: 0.135335, max: 7.38906 "),
        ({"distribution": "beta", "a": 2, "b": 2}, "no beta distribution. Write"),
        (
            {"distribution": "log_uniform", "min": math.log(0.01), "max": math.log(0.1)},
            "log_uniform_values, min: 0.01, max: 0.1.",
        ),
        (
            {"distribution": "inv_log_uniform", "min": math.log(10), "max": math.log(100)},
            "log_uniform_values, min: 0.01, max: 0.1.",
        ),
        (
            {"values": [1, 2], "probabilities": [0.3, 0.7]},
            "parameters.key.probabilities: Optuna draws all values equally often",
        ),
        ({"values": [1, 1]}, "has 1 twice"),
        ({"values": []}, "is not a list of values"),
        ({"values": 3}, "is not a list of values"),
        ({"value": None}, "Write 'null' in quotes"),
        ({"value": {"a": 1}}, "a dotted name for each key"),
        ({"min": 0.1, "max": 0.1}, "min=0.1 is not less than max=0.1"),
        ({"min": "3e-6", "max": 0.1}, "number. YAML reads it as text; write 3.0e-06."),
        ({"min": "1e-4", "max": 0.1}, "min='1e-4' is not a number. YAML reads it as text; write"),
        ({"distribution": "int_uniform", "min": 0.5, "max": 2}, "min=0.5 is not a whole number"),
        ({"distribution": "log_uniform_values", "min": 0, "max": 1}, "min=0 must be above 0"),
        ({"distribution": "q_uniform", "min": 0, "max": 1, "q": 0}, "q=0 must be above 0"),
        ({"distribution": "even", "min": 0, "max": 1}, "distribution=even does not exist"),
        ({"min": 0, "max": 1, "mean": 3}, "parameters.key.mean is not a key"),
        ({"value": 1, "min": 0}, "parameters.key.min does not belong to distribution: constant"),
        ({"min": 0}, "must name a distribution"),
        ([1, 2], "write value, values, or min and max"),
        ({"distribution": "uniform", "min": 0}, "parameters.key.max is missing"),
    ],
)
def test_what_cannot_be_honoured_is_refused_with_its_key(given: object, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as refused:
        read_parameter("key", given)

    assert str(refused.value).startswith("parameters.key")


@pytest.mark.parametrize(
    ("multiple", "drawn", "expected"),
    [(0.25, 0.4, 0.5), (0.1, 0.31, 0.3), (10, 57.1, 60), (8, 20.0, 16), (1e-4, 0.00027, 0.0003)],
)
def test_a_rounded_value_is_a_multiple_without_rounding_errors(
    multiple: float, drawn: float, expected: float
) -> None:
    found = Range(0.0, 100.0, multiple=multiple).rounded(drawn)

    assert found == expected
    assert type(found) is type(expected)


def test_rounded_values_are_as_likely_as_those_of_wandb() -> None:
    """Multiples of 0.5 in [0, 1]: the ends get the draws of half as long a stretch."""
    parameter = Range(0.0, 1.0, multiple=0.5)
    draws = (np.arange(1000) + 0.5) / 1000

    values = [parameter.rounded(float(drawn)) for drawn in draws]

    assert [values.count(value) for value in (0.0, 0.5, 1.0)] == [250, 500, 250]

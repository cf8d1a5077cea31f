"""The benchmark embeds as many as it says, and divides the time by them."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from crosswalk.data.pipeline.preprocessing import Preprocessing
from crosswalk.use.benchmark import Speed, speeds

PREPROCESSING = Preprocessing((8, 4), "bilinear", (0.5,) * 3, (0.5,) * 3)


class SlowTimer:
    """Says that repetitions of two calls took 1, 2, ... seconds."""

    def __init__(self, call: Callable[[], object]) -> None:
        self.call = call

    def autorange(self) -> tuple[int, float]:
        self.call()
        return 2, 0.2

    def repeat(self, repetitions: int, number: int) -> list[float]:
        assert number == 2
        return [1.0 + place for place in range(repetitions)]


@pytest.mark.parametrize("tokenizer", [None, len])
def test_a_row_for_each_input_and_batch(tokenizer: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("timeit.Timer", SlowTimer)
    seen: list[tuple[str, int, int]] = []

    def embed(inputs: list[Any], batch_size: int) -> None:
        seen.append((type(inputs[0]).__name__, len(inputs), batch_size))

    model: Any = SimpleNamespace(
        preprocessing=PREPROCESSING, tokenizer=tokenizer, embed_images=embed, embed_texts=embed
    )
    found = speeds(model, batch_size=3)

    kinds = ["images", "image files", *(["captions"] if tokenizer else [])]
    assert found == [Speed(what, batch, 2.0, 1.5) for what in kinds for batch in (1, 3)]
    assert [row.per_second for row in found[:2]] == [0.5, 1.5]
    types = ["ndarray", "PosixPath", *(["str"] if tokenizer else [])]
    assert seen == [(kind, batch, batch) for kind in types for batch in (1, 3)]


def test_one_at_a_time_is_not_timed_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("timeit.Timer", SlowTimer)
    model: Any = SimpleNamespace(
        preprocessing=PREPROCESSING, tokenizer=None, embed_images=lambda *_, **__: None
    )
    assert [row.batch for row in speeds(model, batch_size=1)] == [1, 1]

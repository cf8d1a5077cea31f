"""The benchmark embeds as many as it says, and divides the time by them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from crosswalk.data.pipeline.preprocessing import Preprocessing
from crosswalk.use.benchmark import Speed, facts_of, speeds

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


def test_published_weights_have_no_file_whose_size_could_be_told(tmp_path: Path) -> None:
    encoder = torch.nn.Linear(2, 3, bias=False)
    model: Any = SimpleNamespace(
        **{"preprocessing": PREPROCESSING, "device": torch.device("cpu"), "precision": "float32"},
        **{"name": "timm:resnet18", "fingerprint": "0", "embedding_size": 3},
        method=SimpleNamespace(get_submodule=lambda _: encoder),
    )
    (tmp_path / "model.safetensors").write_bytes(b"12345")

    named = facts_of(model, Path("timm:resnet18"))

    assert (named["parameters"], named["bytes_in_memory"]) == (6, 24)
    assert named["bytes_of_file"] is None
    assert facts_of(model, tmp_path / "model.safetensors")["bytes_of_file"] == 5

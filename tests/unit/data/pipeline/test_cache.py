import os
from pathlib import Path

import pytest
import torch

from crosswalk.data.pipeline.cache import cached_tokens, fingerprint


def test_tokens_are_made_once_per_settings_and_captions(tmp_path: Path) -> None:
    calls: list[int] = []

    def tokenize(captions: list[str]) -> torch.Tensor:
        calls.append(len(captions))
        return torch.tensor([[len(caption), 49407] for caption in captions])

    def tokens(captions: list[str], length: int) -> torch.Tensor:
        return cached_tokens(
            captions, tokenize, settings={"length": length}, name="set", folder=tmp_path
        )

    expected = torch.tensor([[1, 49407], [5, 49407]])
    for _ in range(2):
        assert torch.equal(tokens(["a", "woman"], 77), expected)
    assert torch.equal(tokens(["a", "woman"], 64), expected)
    tokens(["a", "man"], 77)
    tokens(["aw", "oman"], 77)

    assert calls == [2, 2, 2, 2]


@pytest.mark.parametrize("width", [0, 1, 3])
def test_other_numbers_of_captions_are_kept_beside_their_tokens(tmp_path: Path, width: int) -> None:
    def numbers(start: int, kind: str) -> torch.Tensor:
        rows = torch.arange(start, start + 2 * width).reshape(2, width)
        return cached_tokens(
            ["a", "b"], lambda _: rows, settings={}, name="set", kind=kind, folder=tmp_path
        )

    tokens, phrases = numbers(5, "tokens"), numbers(70000, "phrases")

    assert tokens.tolist() == [[5 + width * row + n for n in range(width)] for row in (0, 1)]
    assert phrases.tolist() == [[70000 + width * row + n for n in range(width)] for row in (0, 1)]
    assert torch.equal(numbers(9, "tokens"), tokens)
    assert len(list(tmp_path.glob("set-phrases-*"))) == 1


def test_fingerprints_follow_names_sizes_and_times(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("abc")
    first = fingerprint([one, two], {"size": 1})

    two.write_text("abc")
    second = fingerprint([one, two], {"size": 1})
    os.utime(one, ns=(1, 1))
    third = fingerprint([one, two], {"size": 1})

    assert len({first, second, third, fingerprint([two, one], {"size": 1})}) == 4
    assert fingerprint([one, two], {"size": 1}) == third

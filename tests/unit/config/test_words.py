import pytest

from crosswalk.config.words import did_you_mean


@pytest.mark.parametrize(
    ("word", "candidates", "expected"),
    [
        ("methd", ["method", "data"], " Did you mean method?"),
        ("cuhk", ["cuhk_pedes", "icfg_pedes"], " Did you mean cuhk_pedes?"),
        (
            "temperature",
            ["seed", "method.loss.temperature"],
            " Did you mean method.loss.temperature?",
        ),
        ("data.foo", ["data.root", "data.seed"], ""),
        ("zzz", ["method"], ""),
        ("gpu", ["cpu", "one_gpu"], " Did you mean one_gpu?"),
        ("on", ["long", "ccd"], ""),  # half of it, by chance
        ("lrr", ["lr"], " Did you mean lr?"),
        ("", ["method"], ""),
        ("dropout", ["data.root"], ""),
        ("dataRoot", ["data.root", "data"], " Did you mean data.root?"),
        ("learning-rate", ["optim.lr"], " Did you mean optim.lr?"),
    ],
)
def test_the_nearest_candidate_is_suggested(
    word: str, candidates: list[str], expected: str
) -> None:
    assert did_you_mean(word, candidates) == expected

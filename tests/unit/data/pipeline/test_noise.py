import hashlib
import random
from pathlib import Path

import numpy as np
import pytest

from crosswalk.data.pipeline.noise import noisy_caption_index, read_noise_index

CUHK_PEDES, ICFG_PEDES, RSTP_REID = 68_126, 34_674, 37_010

# Number of pairs, rate, size of the subset, changed entries of the nine published files.
PUBLISHED = [
    (CUHK_PEDES, 0.2, 13_625, 13_624),
    (CUHK_PEDES, 0.5, 34_063, 34_062),
    (CUHK_PEDES, 0.8, 54_500, 54_500),
    (ICFG_PEDES, 0.2, 6_934, 6_933),
    (ICFG_PEDES, 0.5, 17_337, 17_337),
    (ICFG_PEDES, 0.8, 27_739, 27_737),
    (RSTP_REID, 0.2, 7_402, 7_400),
    (RSTP_REID, 0.5, 18_505, 18_505),
    (RSTP_REID, 0.8, 29_608, 29_605),
]

# SHA-256 of the little-endian int64 bytes of published files.
DIGESTS = {
    (CUHK_PEDES, 0.2): "3516fa7d900a6f79408d355ffeb7329bcf79b71a86791ca7002eb704aea86603",
    (CUHK_PEDES, 0.5): "173348b248297b97eb2887b5936f099e99b230d7e3c2d9e5f77439cc601519c1",
    (ICFG_PEDES, 0.2): "cb0daebb05ddd2e29b7840585b552911de08d1eb00f884acbb67ebb7c809f466",
    (RSTP_REID, 0.5): "16824df5c91b5f6383d85d84858d87827ff13a4bc3214d197c28251cfda99eb6",
    (RSTP_REID, 0.8): "3099ed399629ac95bf6adf04d33591f0107c311d97d2c87c7e261021d2aea8b5",
}


@pytest.mark.parametrize(("num_pairs", "rate", "subset", "changed"), PUBLISHED)
def test_the_default_seed_gives_the_published_files(
    num_pairs: int, rate: float, subset: int, changed: int
) -> None:
    index = noisy_caption_index(num_pairs, rate)

    assert int(rate * num_pairs) == subset
    assert (index != np.arange(num_pairs)).sum() == changed
    assert np.array_equal(np.sort(index), np.arange(num_pairs))
    digest = hashlib.sha256(index.astype("<i8").tobytes()).hexdigest()
    assert digest == DIGESTS.get((num_pairs, rate), digest)


@pytest.mark.parametrize("num_pairs", [0, 1, 7])
def test_without_noise_every_pair_keeps_its_caption(num_pairs: int) -> None:
    assert noisy_caption_index(num_pairs, 0.0).tolist() == list(range(num_pairs))


@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_only_the_subset_is_exchanged(rate: float) -> None:
    generator = np.random.RandomState(9)
    order = list(range(50))
    generator.shuffle(order)

    index = noisy_caption_index(50, rate, seed=9)

    changed = set(np.flatnonzero(index != np.arange(50)).tolist())
    assert changed <= set(order[: int(rate * 50)])


def test_the_index_depends_on_the_seed_and_on_no_earlier_draw() -> None:
    first = noisy_caption_index(100, 0.5)

    np.random.seed(5)
    random.seed(5)

    assert np.array_equal(first, noisy_caption_index(100, 0.5))
    assert not np.array_equal(first, noisy_caption_index(100, 0.5, seed=2))


@pytest.mark.parametrize("rate", [-0.1, 1.5, float("nan")])
def test_a_rate_that_is_no_share_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match=r"data\.noise_rate="):
        noisy_caption_index(10, rate)


def test_an_index_of_another_integer_type_is_read(tmp_path: Path) -> None:
    np.save(tmp_path / "noise.npy", np.array([2, 0, 1], dtype=">i4"))

    index = read_noise_index(tmp_path / "noise.npy", 3)

    assert index.dtype == np.int64
    assert index.tolist() == [2, 0, 1]


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (np.array([0, 1]), r"covers 2 pairs, the training set has 3"),
        (np.array([0, 1, 1]), r"no permutation: caption 1 of 3 occurs 2 times"),
        (np.array([0, 1, 3]), r"no permutation: caption 2 of 3 occurs 0 times"),
        (np.array([0, 1, -1]), r"no permutation: caption 2 of 3 occurs 0 times"),
        (np.array([0.0, 1.0, 2.0]), r"holds float64 \(3,\)"),
        (np.array([[0, 1, 2]]), r"holds int64 \(1, 3\)"),
    ],
)
def test_a_wrong_index_is_refused_with_the_file_and_the_reason(
    tmp_path: Path, stored: np.ndarray, message: str
) -> None:
    np.save(tmp_path / "noise.npy", stored)

    with pytest.raises(ValueError, match=message) as caught:
        read_noise_index(tmp_path / "noise.npy", 3)
    assert "noise.npy" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"not an array", b"\x93NUMPY"])
def test_a_file_that_is_no_array_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "noise.npy").write_bytes(content)

    with pytest.raises(ValueError, match=r"noise\.npy is not a NumPy \.npy file"):
        read_noise_index(tmp_path / "noise.npy", 3)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"data\.noise_index"):
        read_noise_index(tmp_path / "noise.npy", 3)

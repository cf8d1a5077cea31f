"""Synthetic noisy correspondence: captions exchanged among a share of the training pairs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

CaptionIndex = NDArray[np.int64]


def noisy_caption_index(num_pairs: int, noise_rate: float, *, seed: int = 1) -> CaptionIndex:
    """Return which caption each training pair gets; images and person ids stay where they are.

    The captions of a random subset are shuffled among themselves, so a few keep their place and
    a caption may come from the same person. Depends on nothing but its arguments: no rank, no
    worker, no earlier random draw.
    Source: Qin et al., RDE, CVPR 2024, official code; seed 1 gives the nine published files.

    Args:
        num_pairs: Training pairs, in annotation order.
        noise_rate: Share of the pairs in the shuffled subset, in [0, 1].
        seed: Seed of NumPy's legacy generator.

    Returns:
        ``[num_pairs]`` int64: pair i gets caption ``index[i]`` of the original order.

    Raises:
        ValueError: If ``noise_rate`` is not in [0, 1].

    Example:
        >>> noisy_caption_index(10, 0.5)
        array([0, 1, 4, 3, 6, 5, 9, 7, 8, 2])
    """
    if not 0 <= noise_rate <= 1:
        raise ValueError(f"data.noise_rate={noise_rate} is not a share. Give a number from 0 to 1.")
    generator = np.random.RandomState(seed)
    order = np.arange(num_pairs, dtype=np.int64)
    generator.shuffle(order)
    subset = order[: int(noise_rate * num_pairs)]
    exchanged = subset.copy()
    generator.shuffle(exchanged)
    index = np.arange(num_pairs, dtype=np.int64)
    index[subset] = exchanged
    return index


def read_noise_index(path: str | Path, num_pairs: int) -> CaptionIndex:
    """Return the caption index stored in a ``.npy`` file, such as the published ones.

    Args:
        path: File of an integer array.
        num_pairs: Training pairs it has to cover.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not a permutation of ``num_pairs`` numbers.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.save(Path(folder, "noise.npy"), noisy_caption_index(10, 0.5))
        ...     read_noise_index(Path(folder, "noise.npy"), 10)
        array([0, 1, 4, 3, 6, 5, 9, 7, 8, 2])
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"the noise index {path} is missing. Correct data.noise_index, or leave it out and "
            "set data.noise_rate: rates 0.2, 0.5 and 0.8 give the published files by themselves."
        )
    try:
        index = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(
            f"the noise index {path} is not a NumPy .npy file of integers ({error})."
        ) from error
    if not isinstance(index, np.ndarray) or index.dtype.kind not in "iu" or index.ndim != 1:
        what = f"{index.dtype} {index.shape}" if isinstance(index, np.ndarray) else "an archive"
        raise ValueError(f"the noise index {path} holds {what}, not a list of integers.")
    if len(index) != num_pairs:
        raise ValueError(
            f"the noise index {path} covers {len(index):,} pairs, the training set has "
            f"{num_pairs:,}. It belongs to another data set or another annotation file; "
            "data.allow_missing=true also changes the number of pairs."
        )
    count = np.bincount(index[(index >= 0) & (index < num_pairs)], minlength=num_pairs)
    if (count != 1).any():
        raise ValueError(
            f"the noise index {path} is no permutation: caption {int(np.argmax(count != 1))} of "
            f"{num_pairs:,} occurs {int(count[np.argmax(count != 1)])} times. Write a new one."
        )
    return index.astype(np.int64)

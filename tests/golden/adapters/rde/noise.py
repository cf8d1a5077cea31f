"""Synthetic noisy correspondence, and digests of the published noise files."""

import hashlib

import numpy as np

from crosswalk.data.pipeline.noise import CaptionIndex, noisy_caption_index
from tests.golden.harness import Case, golden


def caption_index(case: Case) -> CaptionIndex:
    return noisy_caption_index(
        case.item("num_pairs"), case.item("noise_rate"), seed=case.item("numpy_seed")
    )


@golden("rde", "noise_index")
def noise_index(case: Case) -> None:
    index = caption_index(case)

    case.equal("out_caption_index", index)
    case.equal("out_real_correspondence", index == np.arange(len(index)))
    case.equal("out_pid_after", case["pid"])  # the identity is the image's and stays


@golden("rde", "noise_official", named=True)
def noise_official(case: Case) -> None:
    index = caption_index(case)

    case.equal("out_head", index[: len(case["out_head"])])
    case.equal("out_tail", index[-len(case["out_tail"]) :])
    case.equal("out_num_mismatched", (index != np.arange(len(index))).sum())
    case.equal("out_sha256_int64_le", hashlib.sha256(index.astype("<i8").tobytes()).hexdigest())

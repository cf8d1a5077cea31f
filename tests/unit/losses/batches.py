"""Similarities and identities for the tests of losses."""

import torch
from torch import Tensor

# Worked example of the pair losses, calculated by hand: two persons, the first with two pairs.
HAND_SIMILARITY = [[0.50, 0.60, 0.55], [0.40, 0.45, 0.30], [0.20, 0.50, 0.40]]
HAND_PERSON = [1, 1, 2]


def hand_example() -> tuple[Tensor, Tensor]:
    person_id = torch.tensor(HAND_PERSON)
    similarity = torch.tensor(HAND_SIMILARITY, dtype=torch.float64)
    return similarity, person_id[:, None] == person_id


def random_batch(num_pairs: int, num_persons: int, *, seed: int) -> tuple[Tensor, Tensor]:
    """Return float64 cosine similarities and positives of pairs of ``num_persons`` identities."""
    generator = torch.Generator().manual_seed(seed)
    text, image = torch.randn(2, num_pairs, 4, generator=generator, dtype=torch.float64)
    person_id = torch.arange(num_pairs) % num_persons
    similarity = torch.nn.functional.normalize(text) @ torch.nn.functional.normalize(image).T
    return similarity, person_id[:, None] == person_id

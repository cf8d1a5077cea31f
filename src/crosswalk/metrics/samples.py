"""The samples of one role of an evaluation, and a few of them to look at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor


class Samples(NamedTuple):
    """All samples of one role, each once, sorted by sample index."""

    embedding: Tensor
    person_id: Tensor
    camera_id: Tensor
    sample_index: Tensor


class DrawnSamples(NamedTuple):
    """Samples of a few persons, queries first.

    Attributes:
        embedding: ``[samples, D]`` float32, unit vectors of all views side by side.
        is_query: ``[samples]`` bool, false for the gallery.
        person_id: ``[samples]`` their persons.
        camera_id: ``[samples]`` their cameras, -1 = unknown.
        sample_index: ``[samples]`` sample index within the role.
    """

    embedding: NDArray[np.float32]
    is_query: NDArray[np.bool_]
    person_id: NDArray[np.int64]
    camera_id: NDArray[np.int64]
    sample_index: NDArray[np.int64]


def draw_persons(
    samples: Mapping[str, Samples], *, num_persons: int, most_each: int, seed: int
) -> DrawnSamples:
    """Return the samples of some persons that are among the queries and in the gallery.

    The choice depends on the seed, the persons and the sample indices alone, so it is the same
    for every checkpoint of a run and can be compared.

    Args:
        samples: Those of the roles "query" and "gallery".
        num_persons: Persons to draw; all of them if there are fewer.
        most_each: Most samples of a person in each role.
        seed: Seed of the choice.

    Example:
        >>> import torch
        >>> ids = torch.tensor([5, 5, 5, 8])
        >>> both = Samples(torch.eye(4), ids, -ids, torch.arange(4))
        >>> drawn = draw_persons(
        ...     {"query": both, "gallery": both}, num_persons=9, most_each=1, seed=0
        ... )
        >>> drawn.person_id.tolist(), drawn.is_query.tolist()
        ([5, 8, 5, 8], [True, True, False, False])
    """
    random = np.random.default_rng(seed)
    person_id = {role: each.person_id.cpu().numpy() for role, each in samples.items()}
    common = np.intersect1d(person_id["query"], person_id["gallery"])
    persons = np.sort(random.permutation(common)[:num_persons])
    rows = {
        role: np.sort(
            np.concatenate(
                [
                    random.permutation(np.flatnonzero(person_id[role] == person))[:most_each]
                    for person in persons
                ]
                or [np.zeros(0, np.int64)]
            )
        )
        for role in ("query", "gallery")
    }

    def both(field: str) -> NDArray[np.generic]:
        return np.concatenate(
            [getattr(samples[role], field)[index].cpu().numpy() for role, index in rows.items()]
        )

    return DrawnSamples(
        both("embedding").astype(np.float32),
        np.repeat([True, False], [len(index) for index in rows.values()]),
        both("person_id").astype(np.int64),
        both("camera_id").astype(np.int64),
        both("sample_index").astype(np.int64),
    )

"""Plans: which samples form the global batches of an epoch.

A plan knows nothing of processes; `crosswalk.data.loaders` cuts its batches. It is a function of
(seed, epoch, pass), so any process can compute it and a resumed run finds its place again.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Index = NDArray[np.int64]


class BatchPlan(Protocol):
    """Global batches of sample indices, one pass over the data at a time."""

    def set_epoch(self, epoch: int, pass_: int = 0) -> None:
        """Choose the pass that `__iter__` and `__len__` speak of."""

    def __iter__(self) -> Iterator[Index]:
        """Yield global batches, each an int64 array of sample indices."""

    def __len__(self) -> int:
        """Return the number of global batches."""


class SequentialBatches:
    """All samples in order; the last batch may be short.

    Example:
        >>> [batch.tolist() for batch in SequentialBatches(5, batch_size=2)]
        [[0, 1], [2, 3], [4]]
    """

    def __init__(self, num_samples: int, batch_size: int) -> None:
        _check_batch_size(batch_size)
        self.num_samples = num_samples
        self.batch_size = batch_size

    def set_epoch(self, epoch: int, pass_: int = 0) -> None:
        """Do nothing: every pass is the same."""

    def __iter__(self) -> Iterator[Index]:
        order = np.arange(self.num_samples)
        for start in range(0, self.num_samples, self.batch_size):
            yield order[start : start + self.batch_size]

    def __len__(self) -> int:
        return -(-self.num_samples // self.batch_size)


class ShuffledBatches:
    """All samples once, in a new random order in every pass; the last batch may be short.

    Args:
        num_samples: Size of the training set.
        batch_size: Samples of a global batch.
        seed: Not negative.
        drop_last: Whether a short last batch is left out; other samples miss in every pass.

    Example:
        >>> plan = ShuffledBatches(5, batch_size=2, seed=0)
        >>> sorted(int(index) for batch in plan for index in batch)
        [0, 1, 2, 3, 4]
    """

    def __init__(
        self, num_samples: int, batch_size: int, seed: int, *, drop_last: bool = False
    ) -> None:
        _check_batch_size(batch_size)
        if drop_last and num_samples < batch_size:
            raise ValueError(
                f"data.batch_size={batch_size} is larger than the training set of {num_samples} "
                "samples, so dropping the incomplete batch leaves none. Use a smaller "
                "data.batch_size."
            )
        self.num_samples = num_samples
        self.batch_size = batch_size
        self.seed = seed
        self.drop_last = drop_last
        self.set_epoch(0)

    def set_epoch(self, epoch: int, pass_: int = 0) -> None:
        """Choose the random order."""
        self.epoch, self.pass_ = epoch, pass_

    def __iter__(self) -> Iterator[Index]:
        random = np.random.default_rng([self.seed, self.epoch, self.pass_])
        order = random.permutation(self.num_samples)
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            yield order[start : start + self.batch_size]

    def __len__(self) -> int:
        whole, rest = divmod(self.num_samples, self.batch_size)
        return whole + (rest > 0 and not self.drop_last)


class IdentityBatches:
    """Batches of P identities with K samples each, as metric learning wants them.

    The samples of every identity are shuffled and cut in chunks of K, the remainder dropped; an
    identity with fewer than K samples gives one chunk, drawn with replacement. Every batch takes
    a chunk of P identities drawn among those with chunks left. Where fewer than P have one, all
    identities are cut anew. A pass has as many batches as fit into the training set, at least
    one: a number that depends on no draw, since a trainer wants every epoch equally long.
    Source: RDE's released code, option ``identity``, which stops where we cut anew.

    Args:
        person_id: ``[num_samples]`` identity of each sample.
        batch_size: Samples of a global batch, P * K.
        seed: Not negative.
        samples_per_person: K.

    Example:
        >>> person_id = np.array([0, 0, 1, 1, 2, 2])
        >>> plan = IdentityBatches(person_id, batch_size=4, seed=0, samples_per_person=2)
        >>> [len(set(person_id[batch].tolist())) for batch in plan]
        [2]
    """

    def __init__(
        self, person_id: Index, batch_size: int, seed: int, samples_per_person: int = 4
    ) -> None:
        _check_batch_size(batch_size)
        if batch_size % samples_per_person:
            raise ValueError(
                f"data.batch_size={batch_size} is not a multiple of "
                f"data.plan.samples_per_person={samples_per_person}: a batch holds that many "
                "samples of each of its identities. Change one of the two."
            )
        self.num_batches = max(1, len(person_id) // batch_size)
        self.people_per_batch = batch_size // samples_per_person
        num_people = len(np.unique(person_id))
        if num_people < self.people_per_batch:
            raise ValueError(
                f"data.batch_size={batch_size} with data.plan.samples_per_person="
                f"{samples_per_person} needs {self.people_per_batch} identities in a batch, but "
                f"the training set has {num_people}. Use a smaller data.batch_size."
            )
        self.person_id = np.asarray(person_id)
        self.seed = seed
        self.samples_per_person = samples_per_person
        self.set_epoch(0)

    def set_epoch(self, epoch: int, pass_: int = 0) -> None:
        """Choose the random order."""
        self.epoch, self.pass_ = epoch, pass_
        self._batches: Index | None = None

    def _plan(self) -> Index:
        """Return ``[num_batches, batch_size]`` sample indices."""
        if self._batches is None:
            random = np.random.default_rng([self.seed, self.epoch, self.pass_])
            rounds: list[Index] = []
            missing = self.num_batches
            while missing:
                chunks, num_chunks = self._chunks(random)
                picked = self._pick(num_chunks, random, missing)
                rounds.append(chunks[picked].reshape(len(picked), -1))
                missing -= len(picked)
            self._batches = np.concatenate(rounds)
        return self._batches

    def _chunks(self, random: np.random.Generator) -> tuple[Index, Index]:
        """Return ``[chunks, K]`` samples, grouped by identity, and how many each identity has."""
        size = self.samples_per_person
        # sorted by identity, at random within it
        order = np.lexsort((random.random(len(self.person_id)), self.person_id))
        counts = np.unique(self.person_id, return_counts=True)[1]
        first = np.cumsum(counts) - counts
        num_chunks = np.maximum(counts // size, 1)
        owner = np.repeat(np.arange(len(counts)), num_chunks)
        place = np.arange(len(owner)) - np.repeat(np.cumsum(num_chunks) - num_chunks, num_chunks)
        within = place[:, None] * size + np.arange(size)
        scarce = counts[owner] < size
        drawn = random.random((int(scarce.sum()), size)) * counts[owner[scarce], None]
        within[scarce] = drawn.astype(np.int64)
        return order[first[owner, None] + within], num_chunks

    def _pick(self, num_chunks: Index, random: np.random.Generator, limit: int) -> Index:
        """Return ``[batches, P]`` chunk numbers, each batch from P different identities.

        There is at least one batch, for P identities have a chunk, and ``limit`` at most.
        """
        # lists: a step looks at P numbers only, for which a NumPy call costs more than the work
        sample = Random(int(random.integers(1 << 62))).sample
        next_chunk = (np.cumsum(num_chunks) - num_chunks).tolist()
        end = np.cumsum(num_chunks).tolist()
        available = list(range(len(end)))
        picked: list[list[int]] = []
        while len(available) >= self.people_per_batch and len(picked) < limit:
            places = sample(range(len(available)), self.people_per_batch)
            chosen = [available[place] for place in places]
            picked.append([next_chunk[person] for person in chosen])
            for person in chosen:
                next_chunk[person] += 1
            # from the back, so that the last identity, which takes a spent one's place, has chunks
            for place in sorted(places, reverse=True):
                if next_chunk[available[place]] == end[available[place]]:
                    available[place] = available[-1]
                    available.pop()
        return np.array(picked)

    def __iter__(self) -> Iterator[Index]:
        yield from self._plan()

    def __len__(self) -> int:
        return self.num_batches


def shuffled_plan(
    person_id: Index, *, batch_size: int, seed: int, drop_last: bool = False
) -> ShuffledBatches:
    """Return `ShuffledBatches` over the samples; a value for ``data.plan``.

    Example:
        >>> len(shuffled_plan(np.array([0, 0, 1]), batch_size=2, seed=0))
        2
        >>> len(shuffled_plan(np.array([0, 0, 1]), batch_size=2, seed=0, drop_last=True))
        1
    """
    return ShuffledBatches(len(person_id), batch_size, seed, drop_last=drop_last)


def identity_plan(
    person_id: Index, *, batch_size: int, seed: int, samples_per_person: int = 4
) -> IdentityBatches:
    """Return `IdentityBatches` over the samples; a value for ``data.plan``.

    Example:
        >>> len(identity_plan(np.arange(8) // 4, batch_size=8, seed=0))
        1
    """
    return IdentityBatches(person_id, batch_size, seed, samples_per_person)


def _check_batch_size(batch_size: int) -> None:
    if batch_size < 1:
        raise ValueError(f"data.batch_size={batch_size} should be at least 1.")

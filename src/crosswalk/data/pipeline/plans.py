"""Plans: which samples form the global batches of an epoch.

A plan knows nothing of processes; `crosswalk.data.pipeline.loaders` cuts its batches. It is a
function of (seed, epoch, pass), so any process can compute it and a resumed run finds its place
again.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from crosswalk.ranges import Count, Seed

Index = NDArray[np.int64]


class BatchPlan(Protocol):
    """Global batches of sample indices, one pass over the data at a time."""

    def set_epoch(self, epoch: int, pass_: int = 0) -> None:
        """Choose the pass that `__iter__` and `__len__` speak of."""

    def set_labels(self, labels: Index | None) -> None:
        """Take the pseudo labels of the passes from now on; plans without identities need none.

        Args:
            labels: ``[num_samples]`` int64, -1 = outlier; None: what the plan was made with.
        """

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

    def set_labels(self, labels: Index | None) -> None:
        """Do nothing: all samples are taken, whosever they are."""

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

    def set_labels(self, labels: Index | None) -> None:
        """Do nothing: all samples are taken, whosever they are."""

    def __iter__(self) -> Iterator[Index]:
        random = np.random.default_rng([self.seed, self.epoch, self.pass_])
        order = random.permutation(self.num_samples)
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            yield order[start : start + self.batch_size]

    def __len__(self) -> int:
        whole, rest = divmod(self.num_samples, self.batch_size)
        return whole + (rest > 0 and not self.drop_last)


def identity_chunks(
    person_id: Index, place: NDArray[np.generic], *, size: int, drawn: NDArray[np.float64] | None
) -> tuple[Index, Index]:
    """Return every identity's samples in chunks of ``size``, and how many chunks it has.

    The remainder is dropped. An identity with too few samples has one chunk, in which samples are
    repeated.

    Args:
        person_id: ``[num_samples]`` identity of each sample.
        place: ``[num_samples]`` sort key: an identity's samples are taken in this order.
        size: Samples of a chunk.
        drawn: ``[>= identities, size]`` in [0, 1): which of its samples fill the chunk of an
            identity with too few, row by row. None repeats each of its n samples ceil(size / n)
            times in a row and takes the first ``size``: a a b b of a, b, c.

    Returns:
        ``[chunks, size]`` sample indices, grouped by identity in rising order, and
        ``[identities]`` numbers of chunks.

    Example:
        >>> person_id = np.array([7, 7, 7, 7, 7, 9, 9])
        >>> chunks, num_chunks = identity_chunks(person_id, -np.arange(7), size=2, drawn=None)
        >>> chunks.tolist(), num_chunks.tolist()
        ([[4, 3], [2, 1], [6, 5]], [2, 1])
        >>> identity_chunks(person_id[4:], np.arange(3), size=4, drawn=None)[0].tolist()
        [[0, 0, 0, 0], [1, 1, 2, 2]]
    """
    order = np.lexsort((place, person_id))  # by identity, then by place
    counts = np.unique(person_id, return_counts=True)[1]
    first = np.cumsum(counts) - counts
    num_chunks = np.maximum(counts // size, 1)
    owner = np.repeat(np.arange(len(counts)), num_chunks)
    number = np.arange(len(owner)) - np.repeat(np.cumsum(num_chunks) - num_chunks, num_chunks)
    within = number[:, None] * size + np.arange(size)
    scarce = counts[owner] < size
    available = counts[owner[scarce], None]
    if drawn is None:
        within[scarce] = np.arange(size) // -(-size // available)
    else:
        within[scarce] = (drawn[: len(available)] * available).astype(np.int64)
    return order[first[owner, None] + within], num_chunks


def chunks_in_turn(people: Index, num_chunks: Index) -> Index:
    """Return which chunk each drawn identity gives: its first, the next time its second, ...

    Args:
        people: ``[batches, P]`` identities, numbered from 0 in rising order, in order of the draw.
        num_chunks: ``[identities]`` from `identity_chunks`.

    Returns:
        ``[batches, P]`` rows of the chunks of `identity_chunks`.

    Example:
        >>> chunks_in_turn(np.array([[0, 2], [2, 0]]), np.array([3, 1, 2])).tolist()
        [[0, 4], [5, 1]]
    """
    flat = people.ravel()
    order = np.argsort(flat, kind="stable")
    grouped = flat[order]
    turn = np.empty_like(flat)
    turn[order] = np.arange(len(flat)) - np.searchsorted(grouped, grouped)
    first = np.cumsum(num_chunks) - num_chunks
    chunks: Index = (first[flat] + turn).reshape(people.shape)
    return chunks


def by_first_place(batches: Index, place: NDArray[np.generic]) -> Index:
    """Return the batches in the order of their first samples' places.

    Example:
        >>> by_first_place(np.array([[0, 1], [2, 3]]), np.array([9, 0, 3, 4])).tolist()
        [[2, 3], [0, 1]]
    """
    return batches[np.argsort(place[batches[:, 0]], kind="stable")]


class IdentityBatches:
    """Batches of P identities with K samples each, as metric learning wants them.

    The samples of every identity are shuffled and cut in chunks of K, the remainder dropped; an
    identity with fewer than K samples gives one chunk with repetitions. Every batch takes a chunk
    of P identities drawn among those with chunks left. Where fewer than P have one, all
    identities are cut anew. A pass has as many batches as fit into the training set, at least
    one: a number that depends on no draw, since a trainer wants every epoch equally long.

    Pseudo labels (`set_labels`) are identities that change; outliers among them are left out.
    There may be too few: of fewer clusters than P every batch has all, some of them several
    times, and where all samples are outliers, batches are drawn of all of them. The number and
    the size of the batches are those of any other labels.

    Source: RDE's released code, option ``identity``, and CM-MoCo's (Han et al., BMVC 2021), which
    stop where we cut anew. CM-MoCo's identities have to be 0, 1, ..., here they may be any.

    Args:
        person_id: ``[num_samples]`` identity of each sample; -1 where it is unknown. Where all
            are, there are no batches before there are labels.
        batch_size: Samples of a global batch, P * K.
        seed: Not negative.
        samples_per_person: K.
        scarce: What fills the chunk of an identity with fewer than K samples: ``draw`` takes them
            at random with replacement (RDE), ``repeat`` as in `identity_chunks` (CM-MoCo).
        sort_batches: Whether the batches of one cut come in the order in which the shuffle has
            their first samples (CM-MoCo), instead of the order of the draws.

    Example:
        >>> person_id = np.array([0, 0, 1, 1, 2, 2])
        >>> plan = IdentityBatches(person_id, batch_size=4, seed=0, samples_per_person=2)
        >>> [len(set(person_id[batch].tolist())) for batch in plan]
        [2]
    """

    def __init__(
        self,
        person_id: Index,
        batch_size: int,
        seed: int,
        samples_per_person: int = 4,
        *,
        scarce: Literal["draw", "repeat"] = "draw",
        sort_batches: bool = False,
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
        self.person_id = np.asarray(person_id)
        known = np.unique(self.person_id[self.person_id >= 0])
        if 0 < len(known) < self.people_per_batch:
            raise ValueError(
                f"data.batch_size={batch_size} with data.plan.samples_per_person="
                f"{samples_per_person} needs {self.people_per_batch} identities in a batch, but "
                f"the training set has {len(known)}. Use a data.batch_size of at most "
                f"{len(known) * samples_per_person}."
            )
        self.seed = seed
        self.samples_per_person = samples_per_person
        self.scarce = scarce
        self.sort_batches = sort_batches
        self.set_labels(None)
        self.set_epoch(0)

    def set_epoch(self, epoch: int, pass_: int = 0) -> None:
        """Choose the random order."""
        self.epoch, self.pass_ = epoch, pass_
        self._batches: Index | None = None

    def set_labels(self, labels: Index | None) -> None:
        """Take other identities than those of the constructor, or with None those again.

        Raises:
            ValueError: If there is not one label per sample.
        """
        if labels is None:
            self.labels = self.person_id if (self.person_id >= 0).any() else None
        elif labels.shape != self.person_id.shape:
            raise ValueError(
                f"plan_labels() of the method gives {list(labels.shape)} labels, and there are "
                f"{len(self.person_id)} training samples. Return one label per sample."
            )
        else:
            self.labels = labels
        self._batches = None

    def _plan(self) -> Index:
        """Return ``[num_batches, batch_size]`` sample indices."""
        if self._batches is None:
            if self.labels is None:
                raise ValueError(
                    "data.plan=identity_plan puts several samples of a person into a batch, and "
                    "the training set has no person ids, or the method is not to know them, and "
                    "gives no labels of its own (plan_labels). Take "
                    "crosswalk.data.pipeline.plans.shuffled_plan as data.plan._target_, without "
                    "data.plan.samples_per_person."
                )
            random = np.random.default_rng([self.seed, self.epoch, self.pass_])
            known = np.flatnonzero(self.labels >= 0)
            person_id = self.labels[known]
            counts = np.unique(person_id, return_counts=True)[1]
            if len(counts) == 0:
                size = self.people_per_batch * self.samples_per_person
                everything = np.arange(len(self.labels))
                drawn = _over_and_over(everything, self.num_batches * size, random)
                self._batches = drawn.reshape(self.num_batches, size)
            elif len(counts) < self.people_per_batch:
                self._batches = known[self._of_few(person_id, random)]
            else:
                self._batches = known[self._of_many(person_id, counts, random)]
        return self._batches

    def _of_many(self, person_id: Index, counts: Index, random: np.random.Generator) -> Index:
        """Return the batches of at least P identities, in places of ``person_id``."""
        num_scarce = int((counts < self.samples_per_person).sum())
        rounds: list[Index] = []
        missing = self.num_batches
        while missing:
            place = random.random(len(person_id))
            drawn = (
                random.random((num_scarce, self.samples_per_person))
                if self.scarce == "draw"
                else None
            )
            chunks, num_chunks = identity_chunks(
                person_id, place, size=self.samples_per_person, drawn=drawn
            )
            people = self._draw(num_chunks, random, missing)
            batches = chunks[chunks_in_turn(people, num_chunks)].reshape(len(people), -1)
            rounds.append(by_first_place(batches, place) if self.sort_batches else batches)
            missing -= len(people)
        return np.concatenate(rounds)

    def _of_few(self, person_id: Index, random: np.random.Generator) -> Index:
        """Return the batches of fewer than P identities, in places of ``person_id``."""
        people = np.unique(person_id)
        owner = np.concatenate(
            [_over_and_over(people, self.people_per_batch, random) for _ in range(self.num_batches)]
        )
        chunks = np.empty((len(owner), self.samples_per_person), dtype=np.int64)
        for person in people:
            own = np.flatnonzero(person_id == person)
            count = int((owner == person).sum()) * self.samples_per_person
            drawn = _over_and_over(own, count, random)
            chunks[owner == person] = drawn.reshape(-1, self.samples_per_person)
        return chunks.reshape(self.num_batches, -1)

    def _draw(self, num_chunks: Index, random: np.random.Generator, limit: int) -> Index:
        """Return ``[batches, P]`` identities, P different ones per batch while they have chunks.

        There is at least one batch, for P identities have a chunk, and ``limit`` at most.
        """
        # lists: a step looks at P numbers only, for which a NumPy call costs more than the work
        sample = Random(int(random.integers(1 << 62))).sample
        left = num_chunks.tolist()
        available = list(range(len(left)))
        drawn: list[list[int]] = []
        while len(available) >= self.people_per_batch and len(drawn) < limit:
            places = sample(range(len(available)), self.people_per_batch)
            drawn.append([available[place] for place in places])
            for person in drawn[-1]:
                left[person] -= 1
            # from the back, so that the last identity, which takes a spent one's place, has chunks
            for place in sorted(places, reverse=True):
                if not left[available[place]]:
                    available[place] = available[-1]
                    available.pop()
        return np.array(drawn)

    def __iter__(self) -> Iterator[Index]:
        yield from self._plan()

    def __len__(self) -> int:
        return self.num_batches


def _over_and_over(items: Index, count: int, random: np.random.Generator) -> Index:
    """Return ``[count]`` of the items: all of them in random order, then again in another one."""
    rounds = np.tile(items, (-(-count // len(items)), 1))
    return random.permuted(rounds, axis=1).ravel()[:count]


def shuffled_plan(
    person_id: Index, *, batch_size: Count, seed: Seed, drop_last: bool = False
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
    person_id: Index,
    *,
    batch_size: Count,
    seed: Seed,
    samples_per_person: Count = 4,
    scarce: Literal["draw", "repeat"] = "draw",
    sort_batches: bool = False,
) -> IdentityBatches:
    """Return `IdentityBatches` over the samples; a value for ``data.plan``.

    Its attribute ``by_person`` says that it needs identities, or labels of the method's.

    Example:
        >>> len(identity_plan(np.arange(8) // 4, batch_size=8, seed=0))
        1
    """
    return IdentityBatches(
        person_id,
        batch_size,
        seed,
        samples_per_person,
        scarce=scarce,
        sort_batches=sort_batches,
    )


identity_plan.by_person = True  # type: ignore[attr-defined]


def _check_batch_size(batch_size: int) -> None:
    if batch_size < 1:
        raise ValueError(f"data.batch_size={batch_size} should be at least 1.")

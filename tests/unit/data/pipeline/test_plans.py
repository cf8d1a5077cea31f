from itertools import chain

import numpy as np
import pytest

from crosswalk.data.pipeline.plans import (
    BatchPlan,
    IdentityBatches,
    SequentialBatches,
    ShuffledBatches,
    by_first_place,
    chunks_in_turn,
    identity_chunks,
    identity_plan,
    shuffled_plan,
)


def lists(plan: BatchPlan) -> list[list[int]]:
    return [batch.tolist() for batch in plan]


@pytest.mark.parametrize(("num_samples", "batch_size"), [(7, 3), (6, 3), (2, 5), (1, 1)])
def test_sequential_batches_hold_all_samples_in_order(num_samples: int, batch_size: int) -> None:
    plan = SequentialBatches(num_samples, batch_size)

    batches = lists(plan)

    assert list(chain(*batches)) == list(range(num_samples))
    assert {len(batch) for batch in batches[:-1]} <= {batch_size}
    assert len(plan) == len(batches)


@pytest.mark.parametrize(("num_samples", "batch_size"), [(68_126, 64), (7, 3), (6, 3), (2, 5)])
def test_shuffled_batches_hold_every_sample_once(num_samples: int, batch_size: int) -> None:
    plan = ShuffledBatches(num_samples, batch_size, seed=1)

    batches = lists(plan)

    assert sorted(chain(*batches)) == list(range(num_samples))
    assert [len(batch) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
    assert len(batches[-1]) == num_samples - batch_size * (len(batches) - 1)
    assert len(plan) == len(batches)


@pytest.mark.parametrize(("num_samples", "batches"), [(12, 4), (13, 4), (14, 4), (3, 1)])
def test_an_incomplete_last_batch_may_be_dropped(num_samples: int, batches: int) -> None:
    plan = ShuffledBatches(num_samples, 3, seed=1, drop_last=True)
    kept = lists(ShuffledBatches(num_samples, 3, seed=1))[:batches]

    assert lists(plan) == kept
    assert len(plan) == batches


def test_the_samples_of_a_dropped_batch_are_others_in_every_pass() -> None:
    plan = ShuffledBatches(7, 3, seed=1, drop_last=True)
    missing = set()
    for epoch in range(60):
        plan.set_epoch(epoch)
        missing |= set(range(7)) - set(chain(*lists(plan)))

    assert missing == set(range(7))


def test_orders_of_epochs_passes_and_seeds_differ_and_repeat() -> None:
    orders = {}
    for seed in (0, 1):
        for epoch in (0, 1):
            for pass_ in (0, 1):
                plan = ShuffledBatches(100, 100, seed=seed)
                plan.set_epoch(epoch, pass_)
                orders[seed, epoch, pass_] = lists(plan)
                assert lists(plan) == orders[seed, epoch, pass_]

    assert len({str(order) for order in orders.values()}) == 8


def test_every_place_of_a_shuffled_order_gets_every_sample_equally_often() -> None:
    counts = np.zeros((6, 6))
    plan = ShuffledBatches(6, 6, seed=0)
    for epoch in range(3000):
        plan.set_epoch(epoch)
        (order,) = plan
        counts[np.arange(6), order] += 1

    # 500 expected, standard deviation sqrt(3000 / 6 * 5 / 6) = 20.4
    assert np.abs(counts - 500).max() < 5 * 20.4


def people(*sizes: int) -> np.ndarray:
    """Return person ids 10, 11, ... with the given numbers of samples, mixed up."""
    person_id = np.repeat(np.arange(len(sizes)) + 10, sizes)
    return np.random.default_rng(0).permutation(person_id)


@pytest.mark.parametrize("sizes", [(4, 8, 5, 9, 3, 1), (4, 4, 4), (1, 1, 2), (13, 2, 4, 4)])
def test_identity_batches_hold_k_samples_of_p_identities(sizes: tuple[int, ...]) -> None:
    person_id = people(*sizes)
    plan = IdentityBatches(person_id, batch_size=12, seed=3, samples_per_person=4)

    batches = lists(plan)

    assert len(plan) == len(batches)
    for batch in batches:
        owners = person_id[batch].reshape(3, 4)
        assert (owners == owners[:, :1]).all()
        assert len(set(owners[:, 0].tolist())) == 3


def test_identity_batches_cut_every_identity_once_before_they_cut_anew() -> None:
    # chunks: 2, 1, 1, 2, 1, 1 of 31 samples, so at least two of the three batches are of one cut
    sizes = {10: 9, 11: 5, 12: 3, 13: 8, 14: 2, 15: 4}
    chunks = {10: 2, 11: 1, 12: 1, 13: 2, 14: 1, 15: 1}
    person_id = people(*sizes.values())
    plan = IdentityBatches(person_id, batch_size=8, seed=1, samples_per_person=4)

    for epoch in range(50):
        plan.set_epoch(epoch)
        left, used = dict(chunks), set()
        for batch in plan:
            if sum(number > 0 for number in left.values()) < 2:
                left, used = dict(chunks), set()
            for chunk in batch.reshape(2, 4):
                owner = int(person_id[chunk[0]])
                left[owner] -= 1
                if sizes[owner] >= 4:
                    assert len({*chunk.tolist()} - used) == 4
                    used |= set(chunk.tolist())
        assert min(left.values()) >= 0


@pytest.mark.parametrize(
    ("sizes", "batch_size", "batches"),
    [
        ((9, 5, 3, 8, 2, 4), 8, 3),
        ((40, 4, 4), 12, 4),  # without cutting anew there is one batch
        ((4, 7), 8, 1),
        ((1, 1, 1), 12, 1),  # fewer samples than a batch holds
        ((1,) * 16, 8, 2),  # 16 chunks: not all of them are used
    ],
)
def test_identity_passes_have_one_length_in_all_epochs(
    sizes: tuple[int, ...], batch_size: int, batches: int
) -> None:
    plan = IdentityBatches(people(*sizes), batch_size, seed=0, samples_per_person=4)

    lengths = set()
    for epoch in range(30):
        plan.set_epoch(epoch)
        lengths |= {len(plan), len(lists(plan))}

    assert lengths == {batches}


def test_first_identity_batch_takes_every_pair_of_identities_equally_often() -> None:
    person_id = people(2, 2, 2, 2)
    plan = IdentityBatches(person_id, batch_size=4, seed=0, samples_per_person=2)

    counts: dict[tuple[int, ...], int] = {}
    for epoch in range(3000):
        plan.set_epoch(epoch)
        pair = tuple(sorted(set(person_id[next(iter(plan))].tolist())))
        counts[pair] = counts.get(pair, 0) + 1

    # six pairs: 500 expected, standard deviation 20.4
    assert len(counts) == 6
    assert max(abs(count - 500) for count in counts.values()) < 5 * 20.4


def test_identity_batches_repeat_with_their_epoch() -> None:
    person_id = people(9, 5, 3, 8, 2, 4)
    plan = IdentityBatches(person_id, batch_size=8, seed=1, samples_per_person=4)

    first = lists(plan)
    plan.set_epoch(1)
    second = lists(plan)
    plan.set_epoch(0)

    assert first != second
    assert lists(plan) == first


def test_plans_refuse_what_cannot_be_batched() -> None:
    with pytest.raises(ValueError, match=r"batch_size=0 should be at least 1"):
        ShuffledBatches(5, 0, seed=0)
    with pytest.raises(ValueError, match=r"batch_size=6 is larger than the training set of 5"):
        ShuffledBatches(5, 6, seed=0, drop_last=True)
    with pytest.raises(ValueError, match=r"batch_size=6 is not a multiple of .*=4"):
        identity_plan(people(4, 4), batch_size=6, seed=0)
    with pytest.raises(ValueError, match=r"needs 3 .* has 2.*of at most 8\."):
        identity_plan(people(4, 4), batch_size=12, seed=0)


def test_the_shuffled_plan_covers_every_sample() -> None:
    plan = shuffled_plan(people(4, 4), batch_size=3, seed=0)

    assert sorted(np.concatenate(list(plan)).tolist()) == list(range(8))


def test_the_shuffled_plan_may_drop_the_incomplete_batch() -> None:
    plan = shuffled_plan(people(4, 4), batch_size=3, seed=0, drop_last=True)

    assert [len(batch) for batch in plan] == [3, 3]


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("sizes", [(1, 2, 3, 4, 5, 8, 9), (1,), (7, 7)])
def test_chunks_are_cut_from_the_shuffled_samples_of_each_identity(
    sizes: tuple[int, ...], size: int
) -> None:
    person_id = people(*sizes)
    order = np.random.default_rng(1).permutation(len(person_id))

    chunks, num_chunks = identity_chunks(person_id, np.argsort(order), size=size, drawn=None)

    expected: list[list[int]] = []
    for number in sorted(set(person_id.tolist())):
        own = [int(sample) for sample in order if person_id[sample] == number]
        if len(own) < size:
            times = -(-size // len(own))
            own = [sample for sample in own for _ in range(times)]
            expected.append(own[:size])
        else:
            whole = len(own) // size
            expected += [own[size * chunk : size * (chunk + 1)] for chunk in range(whole)]
    assert chunks.tolist() == expected
    assert num_chunks.tolist() == [max(1, number // size) for number in sizes]


def test_a_scarce_identity_is_filled_with_the_drawn_samples() -> None:
    person_id = np.array([4, 4, 4, 4, 9, 9, 9])
    drawn = np.array([[0.0, 0.99, 0.34, 0.33]])

    chunks, _ = identity_chunks(person_id, np.arange(7), size=4, drawn=drawn)

    assert chunks.tolist() == [[0, 1, 2, 3], [4, 6, 5, 4]]


def test_an_identity_gives_its_chunks_in_turn() -> None:
    drawn = np.array([[2, 0], [1, 2], [2, 1]])

    # identity 0 has chunk 0, identity 1 has 1 and 2, identity 2 has 3, 4 and 5
    assert chunks_in_turn(drawn, np.array([1, 2, 3])).tolist() == [[3, 0], [1, 4], [5, 2]]


def test_batches_are_sorted_by_the_place_of_their_first_sample() -> None:
    place = np.array([5, 0, 3, 4, 1, 2])

    assert by_first_place(np.array([[0, 1], [3, 4], [2, 5]]), place).tolist() == [
        [2, 5],
        [3, 4],
        [0, 1],
    ]


@pytest.mark.parametrize("sizes", [(4, 8, 5, 9, 3, 1), (1, 1, 2, 2), (3, 3, 3, 3)])
def test_a_plan_may_repeat_the_samples_of_scarce_identities(sizes: tuple[int, ...]) -> None:
    person_id = people(*sizes)
    count = dict(zip(*np.unique(person_id, return_counts=True), strict=True))
    plan = identity_plan(person_id, batch_size=8, seed=3, scarce="repeat")

    for batch in plan:
        for chunk in batch.reshape(2, 4):
            assert len(set(person_id[chunk].tolist())) == 1
            distinct = {1: 1, 2: 2, 3: 2}.get(count[person_id[chunk[0]]], 4)
            assert len(set(chunk.tolist())) == distinct
            assert sorted(chunk.tolist(), key=chunk.tolist().index) == chunk.tolist()


def test_sorting_changes_only_the_order_of_the_batches_of_a_cut() -> None:
    person_id = people(*(4,) * 8)  # one chunk each: every pass has one cut
    drawn = IdentityBatches(person_id, 8, seed=1, scarce="repeat")
    ordered = IdentityBatches(person_id, 8, seed=1, scarce="repeat", sort_batches=True)

    differ = 0
    for epoch in range(20):
        drawn.set_epoch(epoch)
        ordered.set_epoch(epoch)
        place = np.random.default_rng([1, epoch, 0]).random(len(person_id))
        assert sorted(lists(ordered)) == sorted(lists(drawn))
        assert lists(ordered) == sorted(lists(drawn), key=lambda batch: place[batch[0]])
        differ += lists(ordered) != lists(drawn)
    assert differ > 10


def test_a_sorted_plan_has_its_fixed_length_with_several_cuts() -> None:
    plan = identity_plan(people(40, 4, 4), batch_size=12, seed=0, sort_batches=True)

    assert len(lists(plan)) == len(plan) == 4


@pytest.mark.parametrize("person_id", [[-1], [-1] * 9])
def test_identities_have_to_be_known_to_be_batched(person_id: list[int]) -> None:
    plan = identity_plan(np.array(person_id), batch_size=4, seed=0)

    with pytest.raises(ValueError, match=r"no person ids.* Take .*plans\.shuffled_plan"):
        next(iter(plan))


@pytest.mark.parametrize("scarce", ["draw", "repeat"])
@pytest.mark.parametrize("sort_batches", [False, True])
def test_labels_make_the_batches_that_such_identities_make(scarce: str, sort_batches: bool) -> None:
    labels = people(9, 5, 3, 8, 2, 4)
    options = {"batch_size": 8, "seed": 1, "scarce": scarce, "sort_batches": sort_batches}
    known = identity_plan(labels, **options)
    told = identity_plan(np.full(len(labels), -1), **options)

    for epoch in range(4):
        told.set_labels(labels)
        told.set_epoch(epoch)
        known.set_epoch(epoch)
        assert lists(told) == lists(known)


def test_outliers_are_in_no_batch() -> None:
    labels = np.where(np.arange(60) % 3 == 0, -1, np.arange(60) % 7)
    plan = identity_plan(np.full(60, -1), batch_size=8, seed=0, samples_per_person=2)
    plan.set_labels(labels)

    seen = set()
    for epoch in range(30):
        plan.set_epoch(epoch)
        assert len(lists(plan)) == len(plan) == 60 // 8
        for batch in plan:
            assert np.unique(labels[batch], return_counts=True)[1].tolist() == [2] * 4
            seen |= set(batch.tolist())

    assert seen == set(np.flatnonzero(labels >= 0).tolist())


# The second is smaller than a batch, the third has samples for one of the four in a chunk.
@pytest.mark.parametrize("sizes", [(40, 9, 11), (2, 1), (1,), (30,)])
def test_every_batch_has_all_of_fewer_clusters_than_it_holds(sizes: tuple[int, ...]) -> None:
    labels = np.concatenate([people(*sizes), np.full(5, -1)])
    plan = identity_plan(np.full(len(labels), -1), batch_size=16, seed=2)
    plan.set_labels(labels)

    batches = lists(plan)

    assert len(batches) == len(plan) == max(1, len(labels) // 16)
    owners = labels[np.array(batches)].reshape(len(batches), 4, 4)
    assert (owners == owners[:, :, :1]).all()
    rows = owners[:, :, 0]
    assert rows.min() >= 0
    for batch in rows:
        times = np.unique(batch, return_counts=True)[1]
        assert len(times) == len(sizes)
        assert times.max() - times.min() <= 1
    drawn = np.unique(np.array(batches), return_counts=True)
    for person in set(labels.tolist()) - {-1}:  # no sample twice before all were there once
        times = dict(zip(*(each.tolist() for each in drawn), strict=True))
        own = [times.get(int(sample), 0) for sample in np.flatnonzero(labels == person)]
        assert max(own) - min(own) <= 1


@pytest.mark.parametrize("num_samples", [60, 16, 5])
def test_batches_of_outliers_alone_are_drawn_of_all_samples(num_samples: int) -> None:
    plan = identity_plan(np.full(num_samples, -1), batch_size=16, seed=0)
    plan.set_labels(np.full(num_samples, -1))

    batches = lists(plan)

    assert len(batches) == len(plan) == max(1, num_samples // 16)
    assert {len(batch) for batch in batches} == {16}
    times = np.bincount(list(chain(*batches)), minlength=num_samples)
    assert times.max() - times.min() <= 1


def test_without_labels_a_plan_falls_back_to_its_identities() -> None:
    person_id = people(4, 4, 4)
    plan = identity_plan(person_id, batch_size=8, seed=0)
    first = lists(plan)
    plan.set_labels(np.arange(12) % 2)
    changed = lists(plan)

    plan.set_labels(None)

    assert lists(plan) == first != changed


def test_there_is_one_label_per_sample() -> None:
    plan = identity_plan(people(4, 4), batch_size=8, seed=0)

    with pytest.raises(ValueError, match=r"plan_labels\(\) .* gives \[7\] labels.* are 8 training"):
        plan.set_labels(np.zeros(7, dtype=np.int64))


def test_plans_that_take_every_sample_have_no_use_for_labels() -> None:
    for plan in (SequentialBatches(7, 3), ShuffledBatches(7, 3, seed=0)):
        before = lists(plan)

        plan.set_labels(np.arange(7))

        assert lists(plan) == before


def test_a_plan_that_batches_by_person_says_so() -> None:
    assert identity_plan.by_person
    assert not hasattr(shuffled_plan, "by_person")


def test_the_default_identity_plan_is_that_of_earlier_versions() -> None:
    plan = identity_plan(people(5, 3, 2, 4, 1), batch_size=4, seed=7, samples_per_person=2)

    assert lists(plan) == [[11, 13, 3, 12], [4, 14, 9, 1], [0, 2, 8, 8]]

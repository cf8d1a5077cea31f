"""Batches with several captions of every identity."""

import numpy as np

from crosswalk.data.pipeline.plans import by_first_place, chunks_in_turn, identity_chunks
from tests.golden.harness import Case, golden


@golden("cm_moco", "sampler_split")
def sampler_split(case: Case) -> None:
    indices = case["indices"]
    of_one = np.zeros(len(indices), dtype=np.int64)

    chunks, _ = identity_chunks(of_one, np.arange(len(indices)), size=case.item("size"), drawn=None)

    case.equal("out_chunks", indices[chunks])


@golden("cm_moco", "sampler_batches")
def sampler_batches(case: Case) -> None:
    case.unused("python_random_seed", reason="pid_draws and order are what was drawn with it")
    person_id, order, size = case["pids"], case["order"], case.item("num_instances")
    place = np.argsort(order)
    people = np.searchsorted(np.unique(person_id), case["pid_draws"])

    chunks, num_chunks = identity_chunks(person_id, place, size=size, drawn=None)
    batches = chunks[chunks_in_turn(people, num_chunks)].reshape(len(people), -1)

    case.equal("out_batches", by_first_place(batches, place))
    left = num_chunks - np.bincount(people.ravel(), minlength=len(num_chunks))
    case.check(bool((left >= 0).all()), "no identity is drawn more often than it has chunks")
    case.check(int((left > 0).sum()) < case.item("batch_size") // size, "no batch is left over")

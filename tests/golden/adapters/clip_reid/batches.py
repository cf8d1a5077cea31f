"""Batches of both trainings, from what was drawn when recorded."""

import numpy as np
import torch

from crosswalk.data.pipeline.plans import ShuffledBatches, chunks_in_turn, identity_chunks
from tests.golden.harness import Case, golden


@golden("clip_reid", "identity_sampler")
def identity_sampler(case: Case) -> None:
    case.unused("seed", reason="out_shuffled and out_people are what was drawn with it")
    person_id, size = case["person_id"], case.item("samples_per_person")
    people = case["out_people"]
    known, counts = np.unique(person_id, return_counts=True)
    order, sizes = case["out_person_order"], case["out_shuffled_sizes"]
    shuffled = dict(
        zip(order.tolist(), np.split(case["out_shuffled"], sizes.cumsum()[:-1]), strict=True)
    )

    place = np.zeros(len(person_id), dtype=np.int64)
    drawn = np.zeros((int((counts < size).sum()), size))
    scarce = iter(drawn)
    for person, count in zip(known.tolist(), counts.tolist(), strict=True):
        own = np.flatnonzero(person_id == person)
        given = shuffled[person]
        if count < size:  # K of its samples: the middle of what is rounded down to each
            place[own] = np.arange(count)
            next(scarce)[:] = (np.searchsorted(own, given) + 0.5) / count
        else:
            place[given] = np.arange(count)
    chunks, num_chunks = identity_chunks(person_id, place, size=size, drawn=drawn)
    rows = chunks_in_turn(np.searchsorted(known, people), num_chunks)

    case.equal("out_index", chunks[rows].ravel())
    first = [person_id.tolist().index(person) for person in order]
    case.check(first == sorted(first), "people come in the order in which they appear")
    case.equal("out_shuffled_sizes", np.maximum(counts, size)[np.searchsorted(known, order)])
    rounded = np.maximum(counts, size) // size * size
    case.equal("out_length", rounded.sum())
    left = num_chunks - np.bincount(np.searchsorted(known, people).ravel(), minlength=len(known))
    per_batch = case.item("batch_size") // size
    case.check(bool((left >= 0).all()), "nobody is drawn more often than there are chunks")
    case.check(int((left > 0).sum()) < per_batch, "no batch is left over")
    case.check(people.shape[1] == per_batch, "every batch has all its people")
    for name in ("out_people", "out_shuffled", "out_person_order"):
        case.documented(name, "the recorded draws that the batches above are made of")


@golden("clip_reid", "stage1_plan")
def stage1_plan(case: Case) -> None:
    number, size = case.item("num_images"), case.item("batch_size")
    torch.manual_seed(case.item("seed"))
    orders = [torch.randperm(number) for _ in range(case.item("num_epochs"))]

    ours = [len(batch) for batch in ShuffledBatches(number, size, seed=0)]

    case.equal("out_order", torch.stack(orders))
    sizes = case["out_batch_sizes"].tolist()
    # an empty batch, on which the released code fails, is none here
    case.check(ours == [each for each in sizes if each], "all images, cut in order")
    case.equal("out_batch_sizes", [*ours, *[0] * (number % size == 0)])
    case.equal("out_fails", int(number % size == 0))

"""Passes over clusters and the batches that they are cut into."""

import numpy as np

from crosswalk.data.pipeline.cluster_plans import pass_over_clusters
from tests.golden.adapters.cluster_contrast.given import (
    OfficialDraws,
    check_generators,
    official_batches,
    seed_generators,
)
from tests.golden.harness import Case, golden


def seeded(case: Case) -> None:
    seed_generators(
        python=case.item("python_seed"),
        numpy=case.item("numpy_seed"),
        torch_=case.item("torch_seed"),
    )


def sampled(case: Case, *, by_camera: bool) -> None:
    labels, camera_id = case["label"], case["camera"]
    size = case.item("num_instances")
    seeded(case)
    for number in range(case.item("num_passes")):
        draws = OfficialDraws()
        found = pass_over_clusters(
            labels, camera_id, draws, images_per_cluster=size, by_camera=by_camera
        )
        case.equal(f"out_indices_{number}", found)
        branches = []
        for anchor, pool in zip(draws.anchors, draws.pools, strict=True):
            other = [camera_id[image] != camera_id[anchor] for image in pool]
            # without cameras the released code has one branch for all but single images
            branches.append(-1 if not pool else int(all(other)) if by_camera else 1)
        if by_camera:
            case.equal(f"out_branch_{number}", branches)
        else:
            recorded = case.arrays[f"out_branch_{number}"]
            case.check(
                (np.equal(recorded, -1) == np.equal(branches, -1)).all(),
                f"the same clusters are of one image in pass {number}",
            )
            case.documented(f"out_branch_{number}", "there is one branch without cameras")
        same = (
            (case[f"drawn_order_{number}"] == draws.drawn_order).all()
            and (case[f"drawn_anchor_{number}"] == draws.anchors).all()
            and all(
                row.tolist() == (mine or [-1] * len(row))
                for row, mine in zip(case[f"drawn_others_{number}"], draws.drawn, strict=True)
            )
        )
        case.check(bool(same), f"the draws of pass {number} are asked for in the recorded order")
    groups, first = np.unique(labels, return_index=True)
    case.equal("out_clusters_in_order", groups[np.argsort(first)])
    case.equal("out_length", len(groups) * size)
    check_generators(case)


@golden("cluster_contrast", "sampler")
def sampler(case: Case) -> None:
    sampled(case, by_camera=True)


@golden("cluster_contrast", "sampler_no_camera")
def sampler_no_camera(case: Case) -> None:
    sampled(case, by_camera=False)


@golden("cluster_contrast", "batch_plan")
def batch_plan(case: Case) -> None:
    labels = case["labels"]
    kept = np.flatnonzero(labels >= 0)
    passes: list[int] = []
    seeded(case)
    batches = np.array(official_batches(labels, case["camera"], case, passes.append))

    case.equal("out_kept", kept)
    case.equal("out_batches_original", batches)
    case.equal("out_batches", np.searchsorted(kept, batches))
    case.equal("out_target", labels[batches])
    case.equal("out_pass", passes)
    check_generators(case)

"""What a fork server has done when it forks: imported, composed, checked and read the code.

A run that is forked then does nothing of it again, which takes longer than its training.
"""

from __future__ import annotations

import gc

import numpy as np
import sklearn.cluster
import sklearn.mixture  # noqa: F401
import torch

import crosswalk.commands.report
import crosswalk.commands.train  # noqa: F401
from crosswalk.byte_pairs import byte_pairs
from crosswalk.config.check import check
from crosswalk.config.compose import compose
from crosswalk.config.plain import to_plain
from crosswalk.config.stage import stage_config
from crosswalk.config.starting_weights import random_weights
from crosswalk.data.pipeline.decoding import resize
from crosswalk.data.pipeline.one_pass import Draws, augment_on_cpu
from crosswalk.metrics.ranking import rank_embeddings
from crosswalk.nearest import nearest
from crosswalk.run.code_digest import code_digest
from tests.end_to_end.small_runs import KINDS, small_run


def load_loops() -> None:
    """Load the compiled loops of images, ranking and clusters, from the smallest work for them."""
    torch.set_num_threads(1)
    resize(np.zeros((1, 1, 3), np.uint8), (4, 2), "bilinear")
    image = torch.zeros((1, 3, 4, 2), dtype=torch.uint8)
    augment_on_cpu(image, Draws(), lambda values: values / 2, fill=None)
    person = torch.tensor([0, 1])
    rank_embeddings(torch.eye(2), torch.eye(2), query_person_id=person, gallery_person_id=person)
    nearest(torch.eye(2), 2)


for kind in KINDS:
    words = [word for word in small_run(kind) if word != "stage=null"]
    config = to_plain(compose(words))
    check(config)
    random_weights({**config, "stage": None})
    code_digest(config)
    if config["stage"] is not None:
        check(stage_config(config))
load_loops()
byte_pairs()
gc.collect()
gc.freeze()  # what is never written is never copied

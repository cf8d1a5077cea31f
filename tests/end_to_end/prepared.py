"""What a fork server has done when it forks: imported, composed, checked and read the code.

A run that is forked then does nothing of it again, which takes longer than its training.
"""

from __future__ import annotations

import gc

import sklearn.cluster
import sklearn.mixture  # noqa: F401

import crosswalk.commands.report
import crosswalk.commands.train  # noqa: F401
from crosswalk.byte_pairs import byte_pairs
from crosswalk.config.check import check
from crosswalk.config.compose import compose
from crosswalk.config.plain import to_plain
from crosswalk.config.stage import stage_config
from crosswalk.run.code_digest import code_digest
from tests.end_to_end.small_runs import KINDS, small_run

for kind in KINDS:
    words = [word for word in small_run(kind) if word != "stage=null"]
    config = to_plain(compose(words))
    check(config)
    code_digest(config)
    if config["stage"] is not None:
        check(stage_config(config))
byte_pairs()
gc.collect()
gc.freeze()  # what is never written is never copied

import numpy as np
import pytest
import torch

from crosswalk import distributed
from crosswalk.run.callbacks.known_rows import KnownRows
from crosswalk.types import ImageBatch, SourceTargetBatch, WholeBatch


def batch_of(total: int | None) -> ImageBatch:
    """Return a batch without samples, the share of one of ``total``."""
    no = torch.zeros(0, dtype=torch.int64)
    column = np.arange(total or 0)
    whole = None if total is None else WholeBatch(0, column, column, column, column)
    return ImageBatch(torch.zeros(0, 3, 1, 1), no, no, no, None, whole)


@pytest.mark.parametrize(
    ("batch", "expected"),
    [
        (batch_of(5), 5),
        (batch_of(None), None),
        (SourceTargetBatch(batch_of(5), batch_of(5)), 5),
        (SourceTargetBatch(batch_of(5), batch_of(6)), None),
    ],
)
@pytest.mark.parametrize("end", ["on_train_batch_end", "on_exception"])
def test_the_rows_of_a_step_are_those_of_its_plan_until_it_ends(
    batch: ImageBatch | SourceTargetBatch, expected: int | None, end: str
) -> None:
    callback = KnownRows()

    callback.on_train_batch_start(None, None, batch, 0)
    within = distributed._step_rows
    getattr(callback, end)()

    assert within == expected
    assert distributed._step_rows is None

"""How alike two captions are: the overlap of what their noun phrases say."""

from __future__ import annotations

import torch
from torch import Tensor


def text_iou(phrases: Tensor) -> Tensor:
    """Return the share of noun-phrase units that each two captions have in common.

    Captions of one person name the same garments and colours, so without identities the overlap
    says how probably two captions are of one person. A caption is always one with itself, even
    where it has no noun phrase.
    Source: Zhao et al., CMMT, ICCV 2021, Text-IoU.

    Args:
        phrases: ``[B, P]`` int64 units of each caption, numbered from 1; 0 is padding. A unit that
            is repeated counts once.

    Returns:
        ``[B, B]`` float32 in [0, 1], symmetric, without gradient: intersection over union of the
        units, 0 where both captions have none, 1 on the diagonal.

    Example:
        >>> text_iou(torch.tensor([[1, 2, 3], [3, 4, 1], [0, 0, 0]]))
        tensor([[1.0000, 0.5000, 0.0000],
                [0.5000, 1.0000, 0.0000],
                [0.0000, 0.0000, 1.0000]])
    """
    # a column for each place in the batch, where the first of equal units stands once sorted: the
    # number of different units, which would be fewer columns, nobody on the host knows
    column = torch.searchsorted(phrases.flatten().sort().values, phrases)
    has_unit = torch.zeros(len(phrases), phrases.numel(), device=phrases.device)
    has_unit.scatter_(1, column, (phrases > 0).float())  # padding has a column of its own
    with torch.autocast(phrases.device.type, enabled=False):  # bfloat16 counts to 256 only
        common = has_unit @ has_unit.T
    count = common.diagonal()
    iou = common / (count[:, None] + count - common).clamp_min(1)
    return iou.fill_diagonal_(1)

"""How alike two captions are: the overlap of what their noun phrases say."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from crosswalk.host import Values, on_host, to_device


def text_iou(phrases: Values, device: torch.device | str = "cpu") -> Tensor:
    """Return the share of noun-phrase units that each two captions have in common.

    Captions of one person name the same garments and colours, so without identities the overlap
    says how probably two captions are of one person. A caption is always one with itself, even
    where it has no noun phrase.
    Source: Zhao et al., CMMT, ICCV 2021, Text-IoU.

    Args:
        phrases: ``[B, P]`` int64 units of each caption, numbered from 1; 0 is padding. A unit that
            is repeated counts once.
        device: Where the result is wanted.

    Returns:
        ``[B, B]`` float32 in [0, 1], symmetric, without gradient: intersection over union of the
        units, 0 where both captions have none, 1 on the diagonal.

    Example:
        >>> text_iou(torch.tensor([[1, 2, 3], [3, 4, 1], [0, 0, 0]]))
        tensor([[1.0000, 0.5000, 0.0000],
                [0.5000, 1.0000, 0.0000],
                [0.0000, 0.0000, 1.0000]])
    """
    units, column = np.unique(on_host(phrases), return_inverse=True)
    column[units[column] <= 0] = len(units)  # padding has a column of its own, which does not count
    has_unit = torch.zeros(len(column), len(units) + 1, device=device)
    has_unit.scatter_(1, to_device(column, has_unit.device), 1.0)
    has_unit = has_unit[:, :-1]
    with torch.autocast(has_unit.device.type, enabled=False):  # bfloat16 counts to 256 only
        common = has_unit @ has_unit.T
    count = common.diagonal()
    iou = common / (count[:, None] + count - common).clamp_min(1)
    return iou.fill_diagonal_(1)

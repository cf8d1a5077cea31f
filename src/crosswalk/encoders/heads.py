"""What stands between the features of a stream and its embeddings."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from crosswalk.encoders.batch_norm import GroupBatchNorm
from crosswalk.ranges import Count, Width


def num_features_of(stream: nn.Module) -> int:
    """Return how many channels the features of a stream have."""
    size = stream.num_features
    assert isinstance(size, int)
    return size


def averaged(features: Tensor) -> Tensor:
    """Return ``[b, F]`` means over positions of ``[b, F, h, w]`` maps; ``[b, F]`` as they are.

    At least in float32, under autocast too: similarities and their ranking start here.
    """
    wide = torch.promote_types(features.dtype, torch.float32)
    return features.mean(dim=(2, 3), dtype=wide) if features.dim() == 4 else features.to(wide)


def no_features(stream: nn.Module) -> Tensor:
    """Return no rows, from which every parameter gets a gradient of 0, as DDP waits for one."""
    first, *rest = (weight.sum() for weight in stream.parameters())
    return sum(rest, first).expand(0, num_features_of(stream))


def embed_layer(in_features: Width, embedding_size: Width) -> nn.Linear:
    """Return one linear layer, initialised for a ReLU behind it although there is none.

    Weights are normal with variance 2 / embedding_size, the bias is 0.
    Source: Han et al., CM-MoCo, BMVC 2021, released code.

    Args:
        in_features: Channels of the features.
        embedding_size: Channels of the embeddings.

    Example:
        >>> layer = embed_layer(3, 2)
        >>> layer.weight.shape, layer.bias
        (torch.Size([2, 3]), Parameter containing:
        tensor([0., 0.], requires_grad=True))
    """
    layer = nn.Linear(in_features, embedding_size)
    reinitialize_linears(layer)
    return layer


def mlp_head(in_features: Width, embedding_size: Width) -> nn.Sequential:
    """Return two linear layers with a ReLU between them, as wide inside as behind.

    Initialised as `embed_layer`.
    Source: Han et al., CM-MoCo, BMVC 2021, released code: the extra MLP for the contrast.

    Args:
        in_features: Channels of the features.
        embedding_size: Channels of the embeddings.

    Example:
        >>> [tuple(row.shape) for row in mlp_head(5, 2).parameters()]
        [(2, 5), (2,), (2, 2), (2,)]
    """
    head = nn.Sequential(
        nn.Linear(in_features, embedding_size),
        nn.ReLU(),
        nn.Linear(embedding_size, embedding_size),
    )
    reinitialize_linears(head)
    return head


def normed_projection(
    in_features: Width, embedding_size: Width, *, group_size: Count | None = None
) -> nn.Sequential:
    """Return a linear layer and a batch normalisation; nothing between them.

    The linear layer starts as torch's, which is also the start of the 1x1 convolution it stands
    for, the batch normalisation with scale 1 and shift 0.
    Source: Zhao et al., CMMT, ICCV 2021, released code: the head of the image stream.

    Args:
        in_features: Channels of the features.
        embedding_size: Channels of the embeddings.
        group_size: Samples of the global batch that share statistics; None means all.

    Example:
        >>> normed_projection(3, 2)
        Sequential(
          (linear): Linear(in_features=3, out_features=2, bias=True)
          (norm): GroupBatchNorm(2, group_size=None, statistics='train', eps=1e-05, momentum=0.1)
        )
    """
    linear = nn.Linear(in_features, embedding_size)
    norm = GroupBatchNorm(embedding_size, group_size=group_size)
    return nn.Sequential(OrderedDict(linear=linear, norm=norm))


def normed(
    in_features: Width, embedding_size: Width, *, group_size: Count | None = None
) -> GroupBatchNorm:
    """Return a batch normalisation for features that have the embeddings' size already.

    Source: Zhao et al., CMMT, ICCV 2021, released code: the head of the text stream.

    Args:
        in_features: Channels of the features.
        embedding_size: Channels of the embeddings; the same.
        group_size: Samples of the global batch that share statistics; None means all.

    Raises:
        ValueError: If the sizes differ.

    Example:
        >>> normed(2, 2)
        GroupBatchNorm(2, group_size=None, statistics='train', eps=1e-05, momentum=0.1)
    """
    if in_features != embedding_size:
        raise ValueError(
            f"the stream gives {in_features} features and encoder.embedding_size={embedding_size}: "
            "a head that only normalises cannot change that. Set the stream's output_size to "
            "encoder.embedding_size, or take the head normed_projection."
        )
    return GroupBatchNorm(embedding_size, group_size=group_size)


def reinitialize_linears(module: nn.Module) -> None:
    """Draw every `torch.nn.Linear` in ``module`` anew: variance 2 / its outputs, bias 0.

    CM-MoCo's released code does so with all of its encoders before training, which throws away
    CLIP's projections in the attention pool. Layers are drawn in the order of `modules`. A module
    with ``keeps_linears = True``, such as CLIP's whole text encoder, is left as it is: the
    released code has none there.
    Source: Han et al., CM-MoCo, BMVC 2021, released code (Kaiming normal, fan out).

    Args:
        module: Changed in place.

    Example:
        >>> layer = nn.Linear(4, 2)
        >>> reinitialize_linears(nn.Sequential(layer))
        >>> layer.bias.tolist()
        [0.0, 0.0]
    """
    kept = {
        layer
        for owner in module.modules()
        if getattr(owner, "keeps_linears", False)
        for layer in owner.modules()
    }
    for layer in module.modules():
        if isinstance(layer, nn.Linear) and layer not in kept:
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

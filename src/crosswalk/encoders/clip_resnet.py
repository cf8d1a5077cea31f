"""CLIP's ResNet: three convolutions at the start, averages for strides, an attention pool."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from crosswalk.encoders.batch_norm import GroupBatchNorm, replace_batch_norms
from crosswalk.encoders.clip_weights import (
    interpolate_positions,
    load_backbone,
    plain_model_config,
    pretrained_file,
    read_weights,
)
from crosswalk.ranges import Count, Depth, Pixels, Width

_SIZES: dict[str, dict[str, Any]] = {
    # ours: for images of 96x32 on a CPU, below 2 ms each, forward and backward, on one core
    "tiny": {"layers": (1, 1, 1, 1), "width": 12, "output_dim": 128, "heads": 4},
}


class ClipResNet(nn.Module):
    """Images to one vector each: the image stream of CLIP's RN models.

    Blocks are open_clip's, names those of OpenAI's release. The last stage may keep its stride of
    1 and images may have any proportion, as in CM-MoCo. Initialised as CLIP: the last batch
    normalisation of every block with scale 0, so that blocks begin as their shortcut; projections
    of the attention pool normal with variance 1 / channels; the rest as torch does.

    Args:
        layers: Blocks of the four stages.
        width: Channels behind the stem; a stage has 4, 8, 16 and 32 times as many.
        output_dim: Length of the vectors.
        heads: Attention heads of the pool; a divisor of 32 * width.
        image_size: (height, width) in pixels.
        last_stride: Of the last stage: 1 in CM-MoCo, 2 in CLIP.
        group_size: Samples that share statistics in a batch normalisation; None means all.

    Raises:
        ValueError: If the stride is another one, or the last map would have no position.

    Example:
        >>> encoder = ClipResNet((1, 1, 1, 1), width=4, output_dim=5, heads=2, image_size=(48, 32))
        >>> encoder.attnpool.grid, encoder(torch.zeros(2, 3, 48, 32)).shape
        ((3, 2), torch.Size([2, 5]))
    """

    def __init__(
        self,
        layers: Sequence[Depth],
        *,
        width: Width,
        output_dim: Width,
        heads: Depth,
        image_size: tuple[Pixels, Pixels],
        last_stride: Literal[1, 2] = 1,
        group_size: Count | None = None,
    ) -> None:
        super().__init__()
        height, across = image_size
        grid = _map_side(height, last_stride), _map_side(across, last_stride)
        if 0 in grid:
            raise ValueError(
                f"images of {height}x{across} (data.image_size) leave a map of {grid[0]}x{grid[1]} "
                f"with last_stride={last_stride}: no position to pool. Choose larger images."
            )
        stem = width // 2
        self.num_features = output_dim
        self.conv1 = nn.Conv2d(3, stem, 3, 2, 1, bias=False)
        self.bn1 = GroupBatchNorm(stem, group_size=group_size)
        self.conv2 = nn.Conv2d(stem, stem, 3, 1, 1, bias=False)
        self.bn2 = GroupBatchNorm(stem, group_size=group_size)
        self.conv3 = nn.Conv2d(stem, width, 3, 1, 1, bias=False)
        self.bn3 = GroupBatchNorm(width, group_size=group_size)
        self.relu = nn.ReLU(inplace=True)
        self.avgpool = nn.AvgPool2d(2)
        depths = zip(layers, (1, 2, 2, last_stride), (1, 4, 8, 16), strict=True)
        for stage, (depth, stride, before) in enumerate(depths, start=1):
            planes = width * 2 ** (stage - 1)
            blocks = _blocks(depth, width * before, planes, stride)
            self.add_module(f"layer{stage}", replace_batch_norms(blocks, group_size))
        self.attnpool = AttentionPool(32 * width, grid=grid, heads=heads, output_dim=output_dim)

    def forward(self, image: Tensor) -> Tensor:
        """Return the ``[b, output_dim]`` vectors of ``[b, 3, height, width]`` normalised images.

        They are not of unit length, and in float32 under autocast too.
        """
        pooled: Tensor = self.attnpool(self.maps(image))
        return pooled

    def maps(self, image: Tensor) -> Tensor:
        """Return the ``[b, channels, rows, columns]`` maps that `forward` pools."""
        return self.last_maps(image)[1]

    def last_maps(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return the maps behind the last stage but one, and behind the last."""
        x = self.relu(self.bn1(self.conv1(image)))
        x = self.relu(self.bn2(self.conv2(x)))
        x = self.avgpool(self.relu(self.bn3(self.conv3(x))))
        for stage in ("layer1", "layer2", "layer3"):
            x = self.get_submodule(stage)(x)
        return x, self.get_submodule("layer4")(x)


class AttentionPool(nn.Module):
    """Map to vector: what the mean of all positions attends to, among them and itself.

    CLIP computes this attention for every position and keeps that of the mean. With one query per
    head the projections of keys and values move to the other side of the sums: the query is
    projected back instead of all tokens to keys, and one mixed token per head is projected instead
    of all tokens to values. Results differ from CLIP's in rounding only.

    Computed in float32 under autocast, which costs next to nothing this way.

    Args:
        channels: Of the map.
        grid: (rows, columns) of the map.
        heads: Attention heads; a divisor of ``channels``.
        output_dim: Length of the vectors.

    Example:
        >>> AttentionPool(8, grid=(3, 2), heads=2, output_dim=5)(torch.zeros(4, 8, 3, 2)).shape
        torch.Size([4, 5])
    """

    def __init__(
        self, channels: int, *, grid: tuple[int, int], heads: int, output_dim: int
    ) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"{channels} channels are no multiple of the {heads} attention heads")
        self.grid = grid
        self.heads = heads
        std = channels**-0.5
        self.positional_embedding = nn.Parameter(std * torch.randn(1 + math.prod(grid), channels))
        self.k_proj = nn.Linear(channels, channels)
        self.q_proj = nn.Linear(channels, channels)
        self.v_proj = nn.Linear(channels, channels)
        self.c_proj = nn.Linear(channels, output_dim)
        for layer in (self.k_proj, self.q_proj, self.v_proj, self.c_proj):
            nn.init.normal_(layer.weight, std=std)

    def forward(self, maps: Tensor) -> Tensor:
        """Return ``[b, output_dim]`` vectors of ``[b, channels, rows, columns]`` maps.

        Raises:
            ValueError: If the map has another grid.
        """
        with torch.autocast(maps.device.type, enabled=False):
            tokens = self.tokens(maps)
            mixed = self._attend(self.q_proj(tokens[:, 0]), tokens)
            value = self._per_head(self.v_proj.weight)
            heads = torch.einsum("bhc,hdc->bhd", mixed, value).flatten(1) + self.v_proj.bias
            pooled: Tensor = self.c_proj(heads)
            return pooled

    def tokens(self, maps: Tensor) -> Tensor:
        """Return ``[b, 1 + positions, channels]``: the mean and each position, with its embedding.

        Raises:
            ValueError: If the map has another grid.
        """
        if maps.shape[2:] != self.grid:
            raise ValueError(
                f"the last map has {tuple(maps.shape[2:])} positions, the encoder was made for "
                f"{self.grid}. Give encoder.image.image_size the size of the images."
            )
        positions = maps.flatten(2).mT.to(self.positional_embedding.dtype)
        tokens = torch.cat([positions.mean(dim=1, keepdim=True), positions], dim=1)
        return tokens + self.positional_embedding

    def _attend(self, query: Tensor, tokens: Tensor) -> Tensor:
        """Return ``[b, heads, channels]``: every head's mean of the ``[b, n, channels]`` tokens."""
        size = query.shape[1] // self.heads
        query = query.view(query.shape[0], self.heads, size) * size**-0.5
        back = torch.einsum("bhd,hdc->bhc", query, self._per_head(self.k_proj.weight))
        # The bias of keys would shift a row alike, so do nothing. DDP waits for its gradient, which
        # is 0 here; Adam would scale one of rounding errors up to whole steps
        nothing = 0 * self.k_proj.bias.sum()
        weight = (back @ tokens.mT + nothing).softmax(dim=2)
        return weight @ tokens

    def _per_head(self, weight: Tensor) -> Tensor:
        """Return ``[heads, channels / heads, channels]`` rows of a projection."""
        return weight.view(self.heads, -1, weight.shape[1])


def clip_resnet(
    name: str,
    *,
    image_size: tuple[Pixels, Pixels],
    last_stride: Literal[1, 2] = 1,
    group_size: Count | None = None,
    pretrained: str | None = None,
) -> ClipResNet:
    """Return the `ClipResNet` that open_clip lists under ``name``.

    Args:
        name: ``RN50``, ``RN101``, ``RN50x4``, ``RN50x16`` or ``RN50x64``; or ``tiny``, for images
            of 96x32 on a CPU.
        image_size: (height, width) in pixels; the square grid of positions in pretrained weights
            is interpolated.
        last_stride: Of the last stage: 1 in CM-MoCo, 2 in CLIP.
        group_size: Samples that share statistics in a batch normalisation; None means all.
        pretrained: A local file with OpenAI's names, of the whole CLIP or of the image stream
            alone; or a tag that open_clip can download, such as ``openai``; None starts from
            random weights.

    Raises:
        ValueError: If there is no such model, or the weights are another model's.
        FileNotFoundError: If there is no such file, no such tag, or the download fails.

    Example:
        >>> clip_resnet("tiny", image_size=(96, 32))(torch.zeros(2, 3, 96, 32)).shape
        torch.Size([2, 128])
    """
    sizes = _sizes_of(name)
    model = ClipResNet(
        **sizes, image_size=image_size, last_stride=last_stride, group_size=group_size
    )
    if pretrained is not None:
        file = pretrained_file(name, pretrained, setting="encoder.image.pretrained")
        if file is not None:
            _load(model, read_weights(file), origin=pretrained)
    return model


def _sizes_of(name: str) -> dict[str, Any]:
    """Return the arguments of `ClipResNet` that belong to a name."""
    if name in _SIZES:
        return _SIZES[name]
    import open_clip  # seconds to import

    config = plain_model_config(name) or {}
    vision = config.get("vision_cfg", {})
    if not isinstance(vision.get("layers"), list):
        models = [model for model in open_clip.list_models() if model.startswith("RN")]
        known = ", ".join([*_SIZES, *(model for model in models if "-" not in model)])
        raise ValueError(f"encoder.image.name={name!r} is none of CLIP's ResNets: {known}.")
    return {
        "layers": tuple(vision["layers"]),
        "width": vision["width"],
        "output_dim": config["embed_dim"],
        "heads": 32 * vision["width"] // vision.get("head_width", 64),
    }


def _blocks(depth: int, inputs: int, planes: int, stride: int) -> nn.Sequential:
    """Return one stage: the first block changes the number of channels, and the size."""
    from open_clip.modified_resnet import Bottleneck  # seconds to import

    blocks = []
    for number in range(depth):
        first = number == 0
        block = Bottleneck(inputs if first else 4 * planes, planes, stride if first else 1)
        nn.init.zeros_(block.bn3.weight)
        blocks.append(block)
    return nn.Sequential(*blocks)


def _map_side(pixels: int, last_stride: int) -> int:
    """Return the rows (columns) of the last map of images this high (wide)."""
    side = (pixels + 1) // 2  # the first convolution pads
    for stride in (2, 2, 2, last_stride):
        side //= stride
    return side


def _load(model: ClipResNet, weights: dict[str, Tensor], *, origin: str) -> None:
    """Load the image stream's weights, whose names have to agree.

    As many positions as the model has are its own; another number that is a square is read as a
    square grid.
    """
    visual = "visual."
    if any(name.startswith(visual) for name in weights):
        weights = {n[len(visual) :]: row for n, row in weights.items() if n.startswith(visual)}
    name = "attnpool.positional_embedding"
    if name in weights:
        side = math.isqrt(len(weights[name]) - 1)
        own = len(weights[name]) == len(model.attnpool.positional_embedding)
        if side * side == len(weights[name]) - 1 and side and not own:
            # OpenAI's file is in float16: to float32 before, not behind, the interpolation
            rows = weights[name].to(model.attnpool.positional_embedding.dtype)
            grid = model.attnpool.grid
            weights = weights | {name: interpolate_positions(rows, (side, side), grid)}
    load_backbone(model, weights, key="encoder.image", origin=origin)

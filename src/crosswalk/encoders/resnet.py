"""ResNets of image re-identification, and any other backbone of timm."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torchvision.models.resnet import (  # type: ignore[import-untyped]
    BasicBlock,
    Bottleneck,
    conv1x1,
)

from crosswalk.encoders.batch_norm import GroupBatchNorm, replace_batch_norms
from crosswalk.encoders.clip_weights import (
    are_downloaded,
    load_backbone,
    local_file,
    read_weights,
)
from crosswalk.encoders.known_names import from_torchvision, torchvision_eps, unwrapped
from crosswalk.network import NotFetchedError, one_attempt
from crosswalk.ranges import Count, Pixels, Positive
from crosswalk.weight_files import mismatch

BlockKind = Literal["basic", "bottleneck"]
Stride = Literal[1, 2]

_SIZES: dict[str, dict[str, Any]] = {
    "resnet18": {"block": "basic", "layers": (2, 2, 2, 2)},
    "resnet34": {"block": "basic", "layers": (3, 4, 6, 3)},
    "resnet50": {"block": "bottleneck", "layers": (3, 4, 6, 3)},
    "resnet101": {"block": "bottleneck", "layers": (3, 4, 23, 3)},
    "resnet152": {"block": "bottleneck", "layers": (3, 8, 36, 3)},
    # ours: below 2 ms per 128x64 image, forward and backward, on one core
    "tiny": {
        "block": "basic",
        "layers": (1, 1, 1, 1),
        "stem_width": 16,
        "planes": (16, 32, 64, 128),
    },
}


class ResNet(nn.Module):
    """Images to feature maps, from torchvision's blocks and with its parameter names.

    There is no pooling and no classifier behind the last stage. Initialised as in torchvision and
    MAR: convolutions normal with variance 2 / (height * width * output channels) of the kernel,
    batch normalisations with scale 1 and shift 0.

    Args:
        layers: Blocks of each stage.
        block: Kind of the blocks: two 3x3 convolutions, or 1x1, 3x3, 1x1 with four times the
            channels at the end.
        stem_width: Channels of the first convolution.
        planes: Inner channels of each stage.
        max_pool: Whether a 3x3 maximum with stride 2 follows the first convolution.
        last_stride: Of the last stage, 1 or 2: of the convolutions of its first block that
            torchvision gives stride 2. With 1 the map is twice as high and wide, as in MMCL.
        last_relu: Whether the last block ends in a ReLU; MAR leaves it out.
        group_size: Samples that share statistics in a batch normalisation; None means all.

    Example:
        >>> import torch
        >>> resnet = ResNet((1, 1), block="basic", stem_width=2, planes=(2, 3), last_stride=1)
        >>> resnet(torch.zeros(2, 3, 64, 32)).shape
        torch.Size([2, 3, 16, 8])
        >>> resnet.num_features
        3
    """

    def __init__(
        self,
        layers: Sequence[int],
        *,
        block: BlockKind,
        stem_width: int = 64,
        planes: Sequence[int] = (64, 128, 256, 512),
        max_pool: bool = True,
        last_stride: Stride = 2,
        last_relu: bool = True,
        group_size: Count | None = None,
    ) -> None:
        super().__init__()
        if len(layers) != len(planes):
            raise ValueError(f"{len(layers)} numbers of layers, but planes of {len(planes)} stages")
        norm = partial(GroupBatchNorm, group_size=group_size)
        self.conv1 = nn.Conv2d(3, stem_width, 7, 2, 3, bias=False)
        self.bn1 = norm(stem_width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1) if max_pool else nn.Identity()
        kind = BasicBlock if block == "basic" else Bottleneck
        without_relu = _LinearBasicBlock if block == "basic" else _LinearBottleneck
        width, self.num_stages = stem_width, len(planes)
        for stage, (depth, plane) in enumerate(zip(layers, planes, strict=True), start=1):
            is_last = stage == len(planes)
            kinds = [kind] * (depth - 1) + [kind if last_relu or not is_last else without_relu]
            blocks = []
            for number, this_kind in enumerate(kinds):
                entry, out = number == 0 and stage > 1, plane * kind.expansion
                stride = 1 if not entry else last_stride if is_last else 2
                downsample = None
                # As torchvision, which takes stride 2 for granted: also where the stride is 1 now
                if entry or width != out:
                    downsample = nn.Sequential(conv1x1(width, out, stride), norm(out))
                blocks.append(this_kind(width, plane, stride, downsample, norm_layer=norm))
                width = out
            self.add_module(f"layer{stage}", nn.Sequential(*blocks))
        self.num_features = width
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, image: Tensor) -> Tensor:
        """Return the ``[b, D, h, w]`` map of ``[b, 3, H, W]`` normalised images."""
        x: Tensor = self.maxpool(self.relu(self.bn1(self.conv1(image))))
        for stage in range(1, self.num_stages + 1):
            x = self.get_submodule(f"layer{stage}")(x)
        return x


class _LinearBasicBlock(BasicBlock):  # type: ignore[misc]
    """A block whose sum leaves without a ReLU, so that features may be negative."""

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        shortcut: Tensor = x if self.downsample is None else self.downsample(x)
        summed: Tensor = out + shortcut
        return summed


class _LinearBottleneck(Bottleneck):  # type: ignore[misc]
    """A block whose sum leaves without a ReLU, so that features may be negative."""

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        shortcut: Tensor = x if self.downsample is None else self.downsample(x)
        summed: Tensor = out + shortcut
        return summed


def resnet(
    name: str,
    *,
    last_stride: Stride = 2,
    last_relu: bool = True,
    max_pool: bool = True,
    group_size: Count | None = None,
    pretrained: str | None = None,
) -> ResNet:
    """Return the `ResNet` of this name.

    Args:
        name: ``resnet18``, ``resnet34``, ``resnet50``, ``resnet101``, ``resnet152``, or ``tiny``:
            0.3 million parameters, for images of 96x48 to 128x64 on a CPU.
        last_stride: Of the last stage: 1 in MMCL and the strong baseline, 2 in MAR.
        last_relu: Whether the last block ends in a ReLU; MAR leaves it out.
        max_pool: Whether a 3x3 maximum with stride 2 follows the first convolution.
        group_size: Samples that share statistics in a batch normalisation; None means all.
        pretrained: A local file with torchvision's names; or a timm tag of the same architecture,
            downloaded: ``resnet50.tv_in1k`` are torchvision's first ImageNet weights. A classifier
            ``fc`` in it is dropped. None starts from random weights.

    Raises:
        ValueError: If there is no such model, or the weights are another model's.
        FileNotFoundError: If there is no such file, no such tag, or the download fails.

    Example:
        >>> import torch
        >>> resnet("tiny", last_stride=1)(torch.zeros(2, 3, 96, 48)).shape
        torch.Size([2, 128, 6, 3])
    """
    if name not in _SIZES:
        raise ValueError(
            f"encoder.backbone.name={name!r} is none of {', '.join(_SIZES)}. Any other model of "
            "timm: encoder=timm encoder.backbone.name=<name>."
        )
    model = ResNet(
        **_SIZES[name],
        max_pool=max_pool,
        last_stride=last_stride,
        last_relu=last_relu,
        group_size=group_size,
    )
    if pretrained is not None:
        weights = _without(_weights_of(name, pretrained), ("fc", "classifier"))
        load_backbone(model, weights, key="encoder.backbone", origin=pretrained)
    return model


def timm_backbone(
    name: str,
    *,
    pretrained: bool | str = True,
    group_size: Count | None = None,
    image_size: tuple[Pixels, Pixels] | None = None,
    eps: Positive | None = None,
) -> nn.Module:
    """Return a model of timm that gives one vector per image, pooled as timm does.

    Its batch normalisations become `GroupBatchNorm`. For a ResNet with another last stride see
    `resnet`.

    Args:
        name: As timm spells it, with or without the tag of its weights.
        pretrained: True downloads the weights; a local file has timm's names, and its classifier
            is dropped; False starts from random weights.
        group_size: Samples that share statistics in a batch normalisation; None means all.
        image_size: (height, width) in pixels, for models that are made for one size, such as
            vision transformers: the position embedding of pretrained weights is resized. Others
            take any size, and this is ignored. None means the size of pre-training.
        eps: Of its batch normalisations; None means timm's. torchvision's weights of some networks
            need another.

    Returns:
        A module with ``num_features``, the length of the vectors.

    Raises:
        ValueError: If timm has no such model, or the weights are another model's or need an
            ``eps`` that was not given.
        FileNotFoundError: If there is no such file, or the download fails.

    Example:
        >>> import torch
        >>> backbone = timm_backbone("resnet10t", pretrained=False)
        >>> backbone(torch.zeros(2, 3, 64, 32)).shape
        torch.Size([2, 512])
    """
    import timm  # seconds to import

    if not timm.is_model(name):
        word, names = name.split(".")[0].lower(), timm.list_models()
        near = difflib.get_close_matches(word, names, n=3)
        near = near or sorted((each for each in names if word in each), key=len)[:3]
        told = f"Near: {', '.join(near)}." if near else "timm.list_models() lists them in Python."
        raise ValueError(f"encoder.backbone.name={name!r} is no model of timm. {told}")
    try:
        settings = timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        tags = ", ".join(timm.list_pretrained(f"{name.split('.')[0]}.*")) or "none"
        raise ValueError(
            f"encoder.backbone.name={name!r} has a tag that timm does not know; it has {tags}."
        ) from error
    arguments: dict[str, Any] = {"num_classes": 0}
    if image_size is not None and settings is not None and settings.fixed_input_size:
        arguments["img_size"] = tuple(image_size)
    if isinstance(pretrained, str):
        classifier = None if settings is None else settings.classifier
        heads = (classifier,) if isinstance(classifier, str) else tuple(classifier or ())
        if local_file(pretrained) is None:
            raise FileNotFoundError(f"encoder.backbone.pretrained: {pretrained} is missing")
        with torch.device("meta"):
            wanted = timm.create_model(name, pretrained=False, **arguments).state_dict()
        found = read_weights(pretrained)
        needed = torchvision_eps(name, found)
        if needed is not None and eps is None:
            raise ValueError(
                f"encoder.backbone.pretrained={pretrained} holds torchvision's weights of {name}, "
                f"whose batch normalisations have an eps of {needed}. Pass "
                f"+encoder.backbone.eps={needed}."
            )
        state = _without(from_torchvision(name, unwrapped(found, wanted), wanted), heads)
        try:
            # with 0 classes on both sides timm loads strictly
            overlay = {"state_dict": state, "num_classes": 0}
            model: nn.Module = timm.create_model(
                name, pretrained=True, pretrained_cfg_overlay=overlay, **arguments
            )
        except (RuntimeError, KeyError, ValueError, AttributeError, IndexError) as error:
            raise ValueError(
                f"encoder.backbone.pretrained={pretrained} does not fit {name}: "
                f"{mismatch(wanted, state)}. Choose the encoder.backbone.name that the weights "
                "were trained with."
            ) from error
    elif pretrained:
        model = _downloaded(name, arguments)
    else:
        model = timm.create_model(name, pretrained=False, **arguments)
    for module in model.modules():
        if eps is not None and hasattr(module, "running_var"):
            module.eps = eps  # type: ignore[assignment]
    # What leaves the model; with a convolution behind the pooling timm's num_features is another
    model.num_features = getattr(model, "head_hidden_size", model.num_features)
    return replace_batch_norms(model, group_size)


def _downloaded(name: str, arguments: dict[str, Any]) -> nn.Module:
    """Return a model of timm with its published weights."""
    import timm

    try:
        with one_attempt():
            model: nn.Module = timm.create_model(name, pretrained=are_downloaded(), **arguments)
    except (OSError, RuntimeError, ValueError) as error:
        settings: Any = timm.get_pretrained_cfg(name)
        places = [] if settings is None else [settings.url, settings.hf_hub_id]
        where = " or ".join(place for place in places if place) or "timm lists no address"
        raise NotFetchedError(
            f"the weights of {name} could not be downloaded ({error}). Fetch the file on a machine "
            f"with network access ({where}) and pass encoder.backbone.pretrained=<file>."
        ) from error
    return model


def _weights_of(name: str, pretrained: str) -> dict[str, Tensor]:
    """Return the weights in a local file, or those that timm downloads under a tag."""
    if local_file(pretrained) is not None:
        return read_weights(pretrained)
    import timm

    tags: list[str] = timm.list_pretrained(f"{name}.*")
    if pretrained not in tags:
        raise FileNotFoundError(
            f"encoder.backbone.pretrained={pretrained} is neither a file nor a tag of {name} in "
            f"timm (tags: {', '.join(tags) or 'none'})."
        )
    return _downloaded(pretrained, {}).state_dict()


def _without(weights: dict[str, Tensor], heads: Iterable[str]) -> dict[str, Tensor]:
    """Return ``weights`` without those of the modules ``heads``."""
    prefixes = tuple(f"{head}." for head in heads)
    return {name: row for name, row in weights.items() if not name.startswith(prefixes)}

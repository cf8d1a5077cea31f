"""CLIP's two transformers, giving the tokens of an image or caption rather than one vector."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crosswalk.encoders.clip_weights import (
    fit_weights,
    plain_model_config,
    pretrained_file,
    read_weights,
)
from crosswalk.ranges import Count, Depth, Pixels, Positive, TokenCount, Width


class ClipTokens(NamedTuple):
    """Tokens on the threshold of the last block, which `project_*` finishes where needed.

    The last block mixes tokens only through its keys and values. Once these are known, any
    subset of positions can be finished alone, so tokens that no head selects cost nothing more.
    """

    hidden: Tensor
    """``[B, L, width]`` input of the last block."""
    key: Tensor
    """``[B, heads, L, width / heads]`` of the last block."""
    value: Tensor
    """``[B, heads, L, width / heads]`` of the last block."""
    attention: Tensor
    """``[B, L]`` what the global token attends to in the last block: rows that sum to 1, the mean
    over heads. Without gradient."""
    global_position: Tensor
    """``[B]`` position of the class token or end token."""


class ClipDualEncoder(nn.Module):
    """A vision and a text transformer whose tokens are projected into one space.

    Parameters carry the names of OpenAI's release, so that its weights and those of open_clip
    load as they are. The two models share no parameter.

    Args:
        image_size: (height, width) in pixels.
        patch_size: Side of the square patches, in pixels.
        vision_width: Channels of the vision transformer.
        vision_layers: Blocks of the vision transformer.
        vision_heads: Attention heads of the vision transformer.
        text_width: Channels of the text transformer.
        text_layers: Blocks of the text transformer.
        text_heads: Attention heads of the text transformer.
        embed_dim: Channels of the common space.
        context_length: Tokens of a caption, start, end and padding included.
        vocabulary_size: Token ids are below it; the end token is the largest id.
        stride: Distance of patches in pixels; None means ``patch_size`` (no overlap).
        quick_gelu: Whether the activation is x sigmoid(1.702 x), as in OpenAI's weights, or GELU.
        vision_mlp_ratio: Channels inside the vision blocks' MLP, in multiples of the width.
        pretrained: File with weights of this architecture: OpenAI's ``.pt``, a state dict, or
            ``.safetensors``; None starts from random weights.

    Example:
        >>> clip = ClipDualEncoder(
        ...     image_size=(32, 16), patch_size=8, vision_width=8, vision_layers=2, vision_heads=2,
        ...     text_width=8, text_layers=2, text_heads=2, embed_dim=4, context_length=6,
        ...     vocabulary_size=10,
        ... )
        >>> tokens = clip.encode_text(torch.tensor([[8, 3, 9, 0, 0, 0]]))
        >>> tokens.global_position
        tensor([2])
        >>> clip.project_text(tokens, tokens.global_position[:, None]).shape
        torch.Size([1, 1, 4])
    """

    def __init__(
        self,
        *,
        image_size: tuple[Pixels, Pixels],
        patch_size: Pixels,
        vision_width: Width,
        vision_layers: Depth,
        vision_heads: Depth,
        text_width: Width,
        text_layers: Depth,
        text_heads: Depth,
        embed_dim: Width,
        context_length: TokenCount,
        vocabulary_size: Count,
        stride: Pixels | None = None,
        quick_gelu: bool = True,
        vision_mlp_ratio: Positive = 4.0,
        pretrained: str | None = None,
    ) -> None:
        super().__init__()
        activation = quick_gelu_activation if quick_gelu else F.gelu
        self.embed_dim = embed_dim
        self.context_length = context_length
        self.visual = VisionTransformer(
            image_size,
            patch_size=patch_size,
            stride=stride or patch_size,
            width=vision_width,
            layers=vision_layers,
            heads=vision_heads,
            mlp_width=int(vision_width * vision_mlp_ratio),
            embed_dim=embed_dim,
            activation=activation,
        )
        self.token_embedding = nn.Embedding(vocabulary_size, text_width)
        self.positional_embedding = nn.Parameter(torch.randn(context_length, text_width) * 0.01)
        self.transformer = Transformer(
            text_width,
            layers=text_layers,
            heads=text_heads,
            mlp_width=4 * text_width,
            activation=activation,
            causal=True,
        )
        self.ln_final = nn.LayerNorm(text_width)
        self.text_projection = nn.Parameter(torch.randn(text_width, embed_dim) * text_width**-0.5)
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        if pretrained is not None:
            weights = read_weights(pretrained)
            self.load_state_dict(
                fit_weights(weights, self.state_dict(), self.visual.grid, origin=pretrained)
            )

    @property
    def num_patches(self) -> int:
        """Tokens of an image without the class token."""
        return math.prod(self.visual.grid)

    def encode_image(self, image: Tensor) -> ClipTokens:
        """Return the tokens of ``[B, 3, height, width]`` normalised images, class token first."""
        tokens: ClipTokens = self.visual(image)
        return tokens

    def project_image(self, tokens: ClipTokens, position: Tensor) -> Tensor:
        """Return the tokens at ``[B, n]`` positions in the common space, ``[B, n, embed_dim]``."""
        return self.visual.project(tokens, position)

    def encode_text(self, tokens: Tensor) -> ClipTokens:
        """Return the tokens of ``[B, context_length]`` token ids, start token first.

        The global token is the end token: the first occurrence of the largest id.
        """
        hidden = self.token_embedding(tokens) + self.positional_embedding
        encoded: ClipTokens = self.transformer(hidden, tokens.argmax(dim=1))
        return encoded

    def project_text(self, tokens: ClipTokens, position: Tensor) -> Tensor:
        """Return the tokens at ``[B, n]`` positions in the common space, ``[B, n, embed_dim]``."""
        finished = self.ln_final(self.transformer.finish(tokens, position))
        projected: Tensor = finished @ self.text_projection
        return projected


def open_clip_vit(
    name: str,
    *,
    image_size: tuple[Pixels, Pixels] | None = None,
    context_length: TokenCount | None = None,
    stride: Pixels | None = None,
    pretrained: str | None = None,
) -> ClipDualEncoder:
    """Return the `ClipDualEncoder` that open_clip lists under ``name``.

    Supported are the plain CLIP vision transformers: ViT-S/M/B/L/H/g/e/bigG with OpenAI's or
    open_clip's weights. SigLIP, CLIPA, CoCa, EVA and other text encoders are built differently.

    Args:
        name: For example ``ViT-B-16-quickgelu``. OpenAI's weights need a ``-quickgelu`` name.
        image_size: (height, width) in pixels; None means the size of pre-training. The position
            embedding of pretrained weights is resized to it.
        context_length: Tokens of a caption; None means that of pre-training. With fewer, the
            first positions of pretrained weights are used.
        stride: Distance of patches in pixels; None means the patch size.
        pretrained: A local file, or a tag that open_clip can download, such as ``openai``; None
            starts from random weights.

    Raises:
        ValueError: If open_clip has no such model, or it is none of the supported ones.

    Example:
        >>> with torch.device("meta"):
        ...     open_clip_vit("ViT-B-16-quickgelu", image_size=(384, 128)).num_patches
        192
    """
    import open_clip  # seconds to import, and of no use to encoders given by sizes

    config = plain_model_config(name)
    if config is None:
        vits = ", ".join(known for known in open_clip.list_models() if known.startswith("ViT"))
        raise ValueError(f"open_clip has no model {name!r} (encoder.clip.name). It has {vits}.")
    vision, text = dict(config["vision_cfg"]), dict(config["text_cfg"])
    size, patch_size = vision.pop("image_size"), vision.pop("patch_size", None)
    vision_width, text_width = vision.pop("width", None), text.pop("width", None)
    sizes = {
        "image_size": (size, size) if isinstance(size, int) else tuple(size),
        "patch_size": patch_size,
        "vision_width": vision_width,
        "vision_layers": vision.pop("layers", None),
        "vision_heads": (vision_width or 0) // vision.pop("head_width", 64),
        "vision_mlp_ratio": vision.pop("mlp_ratio", 4.0),
        "text_width": text_width,
        "text_layers": text.pop("layers", None),
        "text_heads": text.pop("heads", None),
        "context_length": text.pop("context_length", 77),
        "vocabulary_size": text.pop("vocab_size", 49408),
        "embed_dim": config["embed_dim"],
        "quick_gelu": config.get("quick_gelu", False),
    }
    unknown = {"embed_dim", "quick_gelu", "vision_cfg", "text_cfg"} ^ config.keys()
    unknown = (unknown - {"quick_gelu"}) | vision.keys() | text.keys()
    missing = [key for key, value in sizes.items() if value is None]
    if unknown or missing or not isinstance(sizes["vision_layers"], int):
        raise ValueError(
            f"{name} (encoder.clip.name) is not a plain CLIP vision transformer: its definition in "
            f"open_clip has {sorted(unknown) or missing or 'convolutional stages'}. Take a name "
            "such as ViT-B-16-quickgelu."
        )
    given = {"image_size": image_size, "context_length": context_length}
    sizes |= {key: value for key, value in given.items() if value is not None}
    file = None if pretrained is None else pretrained_file(name, pretrained)
    return ClipDualEncoder(**sizes, stride=stride, pretrained=file)


class VisionTransformer(nn.Module):
    """Image to tokens: patches, a class token before them, positions, blocks."""

    def __init__(
        self,
        image_size: tuple[int, int],
        *,
        patch_size: int,
        stride: int,
        width: int,
        layers: int,
        heads: int,
        mlp_width: int,
        embed_dim: int,
        activation: Callable[[Tensor], Tensor],
    ) -> None:
        super().__init__()
        height, across = image_size
        if min(height, across) < patch_size:
            raise ValueError(
                f"data.image_size={list(image_size)} is smaller than the encoder's patches of "
                f"{patch_size} by {patch_size} pixels. Choose a larger one."
            )
        self.grid = ((height - patch_size) // stride + 1, (across - patch_size) // stride + 1)
        scale = width**-0.5
        self.conv1 = nn.Conv2d(3, width, patch_size, stride, bias=False)
        self.class_embedding = nn.Parameter(scale * torch.randn(width))
        self.positional_embedding = nn.Parameter(
            scale * torch.randn(1 + math.prod(self.grid), width)
        )
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = Transformer(
            width,
            layers=layers,
            heads=heads,
            mlp_width=mlp_width,
            activation=activation,
            causal=False,
        )
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(scale * torch.randn(width, embed_dim))

    def forward(self, image: Tensor, class_shift: Tensor | None = None) -> ClipTokens:
        """Return the tokens of ``[B, 3, height, width]`` images.

        Args:
            image: Normalised.
            class_shift: ``[B, width]``, added to the class token before the positions.
        """
        patches = self.conv1(image).flatten(2).mT
        class_token = self.class_embedding.to(patches.dtype).expand(patches.shape[0], 1, -1)
        if class_shift is not None:
            class_token = class_token + class_shift[:, None].to(patches.dtype)
        hidden = torch.cat([class_token, patches], dim=1) + self.positional_embedding
        global_position = torch.zeros(image.shape[0], dtype=torch.int64, device=image.device)
        tokens: ClipTokens = self.transformer(self.ln_pre(hidden), global_position)
        return tokens

    def project(self, tokens: ClipTokens, position: Tensor) -> Tensor:
        """Return the tokens at ``[B, n]`` positions in the common space."""
        finished = self.ln_post(self.transformer.finish(tokens, position))
        projected: Tensor = finished @ self.proj
        return projected


class Transformer(nn.Module):
    """A stack of blocks, the last of which is computed where it is needed."""

    def __init__(
        self,
        width: int,
        *,
        layers: int,
        heads: int,
        mlp_width: int,
        activation: Callable[[Tensor], Tensor],
        causal: bool,
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"the width {width} is not a multiple of the {heads} attention heads")
        self.causal = causal
        self.resblocks = nn.ModuleList(
            Block(width, heads=heads, mlp_width=mlp_width, activation=activation, causal=causal)
            for _ in range(layers)
        )
        for block in self._blocks():
            nn.init.normal_(block.attn.in_proj_weight, std=width**-0.5)
            nn.init.normal_(block.attn.out_proj.weight, std=(2 * layers * width) ** -0.5)
            nn.init.zeros_(block.attn.out_proj.bias)
            nn.init.normal_(block.mlp.c_fc.weight, std=(2 * width) ** -0.5)
            nn.init.normal_(block.mlp.c_proj.weight, std=(2 * layers * width) ** -0.5)

    def forward(self, hidden: Tensor, global_position: Tensor) -> ClipTokens:
        """Return the tokens before the last block, and its one row of attention."""
        *blocks, last = self._blocks()
        for block in blocks:
            hidden = block(hidden)
        normalised = last.ln_1(hidden)
        key, value = last.attn.keys_and_values(normalised)
        with torch.no_grad():
            query = last.attn.queries(_rows(normalised, global_position[:, None]))
            attention = attention_row(query, key, global_position if self.causal else None)
        return ClipTokens(hidden, key, value, attention, global_position)

    def finish(self, tokens: ClipTokens, position: Tensor) -> Tensor:
        """Return ``[B, n, width]``: what leaves the last block at ``[B, n]`` positions."""
        last = self._blocks()[-1]
        hidden = _rows(tokens.hidden, position)
        query = last.attn.queries(last.ln_1(hidden))
        visible = None
        if self.causal:
            columns = torch.arange(tokens.hidden.shape[1], device=position.device)
            visible = (columns <= position[:, :, None])[:, None]
        mixed = F.scaled_dot_product_attention(query, tokens.key, tokens.value, visible)
        return last.feed_forward(hidden + last.attn.merge(mixed))

    def _blocks(self) -> list[Block]:
        return cast("list[Block]", list(self.resblocks))


class Block(nn.Module):
    """Attention, then an MLP, each added to its input after a layer normalisation."""

    def __init__(
        self,
        width: int,
        *,
        heads: int,
        mlp_width: int,
        activation: Callable[[Tensor], Tensor],
        causal: bool,
    ) -> None:
        super().__init__()
        self.causal = causal
        self.ln_1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, mlp_width, activation)

    def forward(self, hidden: Tensor) -> Tensor:
        """Return ``[B, L, width]`` from ``[B, L, width]``."""
        return self.feed_forward(hidden + self.attn(self.ln_1(hidden), causal=self.causal))

    def feed_forward(self, hidden: Tensor) -> Tensor:
        """Return the second half of the block."""
        added: Tensor = hidden + self.mlp(self.ln_2(hidden))
        return added


class Attention(nn.Module):
    """Multi-head attention of `torch.nn.MultiheadAttention`'s parameters, in pieces."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor, *, causal: bool) -> Tensor:
        """Return ``[B, L, width]``, every token attending to all (or to earlier) tokens."""
        query, key, value = self._heads(x, self.in_proj_weight, self.in_proj_bias, 3)
        return self.merge(F.scaled_dot_product_attention(query, key, value, is_causal=causal))

    def queries(self, x: Tensor) -> Tensor:
        """Return ``[B, heads, n, width / heads]`` queries of ``[B, n, width]`` tokens."""
        width = x.shape[-1]
        return self._heads(x, self.in_proj_weight[:width], self.in_proj_bias[:width], 1)[0]

    def keys_and_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``[B, heads, L, width / heads]`` keys and values of ``[B, L, width]`` tokens."""
        width = x.shape[-1]
        key, value = self._heads(x, self.in_proj_weight[width:], self.in_proj_bias[width:], 2)
        return key, value

    def merge(self, mixed: Tensor) -> Tensor:
        """Return ``[B, n, width]`` from the values mixed in each head."""
        merged: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return merged

    def _heads(self, x: Tensor, weight: Tensor, bias: Tensor, parts: int) -> tuple[Tensor, ...]:
        batch, length, width = x.shape
        projected = F.linear(x, weight, bias)
        projected = projected.view(batch, length, parts, self.heads, width // self.heads)
        heads: tuple[Tensor, ...] = projected.permute(2, 0, 3, 1, 4).unbind(0)
        return heads


class Mlp(nn.Module):
    """Two linear layers around an activation."""

    def __init__(self, width: int, hidden: int, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, hidden)
        self.activation = activation
        self.c_proj = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[..., width]`` from ``[..., width]``."""
        out: Tensor = self.c_proj(self.activation(self.c_fc(x)))
        return out


def attention_row(query: Tensor, key: Tensor, last_visible: Tensor | None = None) -> Tensor:
    """Return how much one token attends to each token, the mean over heads.

    Args:
        query: ``[B, heads, 1, channels]`` of that token.
        key: ``[B, heads, L, channels]`` of all tokens.
        last_visible: ``[B]`` position after which nothing is seen; None means all is seen.

    Returns:
        ``[B, L]`` float32 rows (float64 for float64 input) that sum to 1.

    Example:
        >>> query, key = torch.ones(1, 1, 1, 1), torch.tensor([0.0, 0.0, 9.0]).view(1, 1, 3, 1)
        >>> attention_row(query, key, torch.tensor([1]))
        tensor([[0.5000, 0.5000, 0.0000]])
    """
    scores = (query * query.shape[-1] ** -0.5) @ key.mT
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32)).squeeze(2)
    if last_visible is not None:
        hidden = torch.arange(key.shape[2], device=key.device) > last_visible[:, None]
        scores = scores.masked_fill(hidden[:, None], -torch.inf)
    row: Tensor = scores.softmax(dim=-1).mean(dim=1)
    return row


def _rows(tokens: Tensor, position: Tensor) -> Tensor:
    return tokens.gather(1, position[:, :, None].expand(-1, -1, tokens.shape[2]))


def quick_gelu_activation(x: Tensor) -> Tensor:
    """Return x sigmoid(1.702 x), the activation of OpenAI's weights.

    Example:
        >>> quick_gelu_activation(torch.tensor([0.0, 1.0]))  # 1 / (1 + exp(-1.702))
        tensor([0.0000, 0.8458])
    """
    out: Tensor = x * torch.sigmoid(1.702 * x)
    return out

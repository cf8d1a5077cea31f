"""CLIP's text transformer as a caption encoder: one vector per caption."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crosswalk.encoders.clip import Transformer, quick_gelu_activation
from crosswalk.encoders.clip_weights import (
    fit_weights,
    plain_model_config,
    pretrained_file,
    read_weights,
)
from crosswalk.encoders.heads import no_features
from crosswalk.host import Values, on_host
from crosswalk.ranges import TokenCount

_SETTING = "encoder.text.pretrained"

_SIZES: dict[str, dict[str, Any]] = {
    # ours: the text side of configs/encoder/clip_tiny.yaml, of which tiny_clip.safetensors is
    "tiny": {
        "width": 64,
        "layers": 3,
        "heads": 2,
        "embed_dim": 64,
        "context_length": 48,
        "vocabulary_size": 49408,
        "quick_gelu": True,
    },
}


class ClipText(nn.Module):
    """The end token of a caption, projected into the space that CLIP shares with images.

    Parameters carry the names of OpenAI's release, so that the text side of its weights and of
    open_clip's loads as it is.
    Source: Radford et al., Learning transferable visual models from natural language supervision,
    ICML 2021. As a stream of its own: Han et al., CM-MoCo, BMVC 2021, the comparison with moving
    CLIP's whole encoders.

    Args:
        words: None. A list of words means a tokenizer whose ids are no byte pairs of CLIP.
        width: Channels of the transformer.
        layers: Blocks of the transformer.
        heads: Attention heads of the transformer.
        embed_dim: Channels of the features.
        context_length: Tokens of a caption, start, end and padding included.
        vocabulary_size: Token ids are below it; the end token is the largest id.
        quick_gelu: Whether the activation is x sigmoid(1.702 x), as in OpenAI's weights, or GELU.
        pretrained: File with weights of this architecture, images' or none beside; None starts
            from random weights.
        frozen: Whether the weights are never trained.
        setting: The key of the configuration that says ``pretrained``, for messages.

    Raises:
        ValueError: If there are words, or the weights are another architecture's.
        FileNotFoundError: If there is no such file.

    Example:
        >>> text = ClipText(
        ...     width=8, layers=2, heads=2, embed_dim=4, context_length=6, vocabulary_size=10
        ... )
        >>> tokens, length = torch.tensor([[8, 3, 9, 0, 0, 0]]), torch.tensor([3])
        >>> text(tokens, length, longest=3).shape, text.num_features
        (torch.Size([1, 4]), 4)
    """

    keeps_linears = True
    """CM-MoCo's initialisation of linear layers passes by what is moved as a whole."""

    def __init__(
        self,
        words: Sequence[str] | None = None,
        *,
        width: int,
        layers: int,
        heads: int,
        embed_dim: int,
        context_length: int,
        vocabulary_size: int,
        quick_gelu: bool = True,
        pretrained: str | None = None,
        frozen: bool = False,
        setting: str = _SETTING,
    ) -> None:
        super().__init__()
        if words is not None:
            raise ValueError(
                f"data.tokenizer numbers {len(words)} words, but CLIP's text encoder (text=) reads "
                "CLIP's byte pairs. Choose CLIP's tokenizer, or a text stream with word vectors."
            )
        self.num_features = embed_dim
        self.context_length = context_length
        self.token_embedding = nn.Embedding(vocabulary_size, width)
        self.positional_embedding = nn.Parameter(torch.randn(context_length, width) * 0.01)
        self.transformer = Transformer(
            width,
            layers=layers,
            heads=heads,
            mlp_width=4 * width,
            activation=quick_gelu_activation if quick_gelu else F.gelu,
            causal=True,
        )
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.randn(width, embed_dim) * width**-0.5)
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        if pretrained is not None:
            weights = {
                name: row
                for name, row in read_weights(pretrained).items()
                if not name.startswith("visual.")
            }
            wanted = self.state_dict()
            no_grid = (0, 0)  # there are no image positions
            self.load_state_dict(
                fit_weights(weights, wanted, no_grid, origin=pretrained, setting=setting)
            )
        self.requires_grad_(not frozen)

    def forward(self, tokens: Tensor, length: Values, longest: int) -> Tensor:
        """Return ``[b, embed_dim]`` features of ``[b, context_length]`` token ids.

        Args:
            tokens: Start token, byte pairs, end token, zeros; b may be 0.
            length: ``[b]`` tokens of each caption, best on the host: padding is not read. The end
                token, the largest id, tells where a caption ends.
            longest: Not used.
        """
        if not tokens.shape[0]:
            return no_features(self)
        end = tokens.argmax(dim=1)
        # nothing sees the padding; an exported graph has one shape for all captions
        exported = torch.compiler.is_exporting()
        shown = tokens.shape[1] if exported else int(on_host(length).max())
        return self.of_vectors(self.token_embedding(tokens[:, :shown]), end)

    def of_vectors(self, vectors: Tensor, end: Tensor) -> Tensor:
        """Return ``[b, embed_dim]`` features of captions that are given as token vectors.

        Args:
            vectors: ``[b, n, width]`` rows of the token table, or others in their place.
            end: ``[b]`` position of the end token.
        """
        hidden = vectors + self.positional_embedding[: vectors.shape[1]]
        finished = self.transformer.finish(self.transformer(hidden, end), end[:, None])
        features: Tensor = self.ln_final(finished[:, 0]) @ self.text_projection
        return features


def open_clip_text(
    words: Sequence[str] | None = None,
    *,
    name: str,
    pretrained: str | None,
    context_length: TokenCount | None = None,
    frozen: bool = False,
    setting: str = _SETTING,
) -> ClipText:
    """Return the text side of the model that open_clip lists under ``name``.

    Supported are the plain CLIP models with a vision transformer or a ResNet. The text encoders of
    SigLIP, CoCa and models with a Hugging Face text encoder are built differently.

    Args:
        words: None, see `ClipText`.
        name: For example ``ViT-B-32-quickgelu`` or ``RN101-quickgelu``; or ``tiny``, whose weights
            come with this package as ``tiny_clip.safetensors``.
        pretrained: A local file, or a tag that open_clip can download, such as ``openai``; None
            starts from random weights.
        context_length: Tokens of a caption; None means that of pre-training. With fewer, the
            first positions of pretrained weights are used.
        frozen: Whether the weights are never trained.
        setting: The key of the configuration that says ``pretrained``, for messages.

    Raises:
        ValueError: If open_clip has no such model, it is none of the supported ones, or it has
            another activation than the weights.
        FileNotFoundError: If there is no such file, no such tag, or the download fails.

    Example:
        >>> with torch.device("meta"):
        ...     open_clip_text(name="RN50-quickgelu", pretrained=None).num_features
        1024
    """
    key = setting.removesuffix("pretrained")
    sizes = dict(_SIZES[name]) if name in _SIZES else _sizes_in_open_clip(name, f"{key}name")
    if context_length is not None:
        sizes["context_length"] = context_length
    file = None
    if pretrained is not None:
        _check_activation(name, pretrained, sizes["quick_gelu"], f"{key}name")
        file = pretrained_file(name, pretrained, setting=setting)
    return ClipText(words, **sizes, pretrained=file, frozen=frozen, setting=setting)


def _sizes_in_open_clip(name: str, key: str) -> dict[str, Any]:
    import open_clip  # seconds to import, and of no use to "tiny"

    config = plain_model_config(name)
    if config is None:
        raise ValueError(
            f"open_clip has no model {name!r} ({key}). It has "
            f"{', '.join(known for known in open_clip.list_models() if known[:2] in ('RN', 'Vi'))}."
        )
    text = dict(config["text_cfg"])
    sizes = {
        "width": text.pop("width", None),
        "layers": text.pop("layers", None),
        "heads": text.pop("heads", None),
        "embed_dim": config["embed_dim"],
        "context_length": text.pop("context_length", 77),
        "vocabulary_size": text.pop("vocab_size", 49408),
        "quick_gelu": config.get("quick_gelu", False),
    }
    missing = [size for size, value in sizes.items() if value is None]
    unknown = config.keys() - {"embed_dim", "quick_gelu", "vision_cfg", "text_cfg"} | text.keys()
    if missing or unknown:
        raise ValueError(
            f"{name} ({key}) has no plain CLIP text encoder: its definition in open_clip has "
            f"{sorted(unknown) or missing}. Take a name such as ViT-B-32-quickgelu."
        )
    return sizes


def _check_activation(name: str, pretrained: str, quick_gelu: bool, key: str) -> None:
    """Raise an error if a tag's weights were trained with the other activation."""
    if name in _SIZES or Path(pretrained).is_file():
        return
    from open_clip import pretrained as registry

    entry = registry.get_pretrained_cfg(name, pretrained)
    if entry and entry.get("quick_gelu", False) and not quick_gelu:
        raise ValueError(
            f"the weights {pretrained!r} of {name} need the activation of {name}-quickgelu: set "
            f"{key}={name}-quickgelu."
        )

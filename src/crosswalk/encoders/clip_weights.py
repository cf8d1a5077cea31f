"""Reads pretrained CLIP weights and fits them to another image size."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crosswalk.encoders.known_names import unwrapped
from crosswalk.network import NotFetchedError, one_attempt
from crosswalk.weight_files import mismatch, plain_names, tensors_in

# What CLIP files hold besides the two transformers; the temperature belongs to the loss here.
_NOT_OURS = frozenset(
    {"logit_scale", "logit_bias", "input_resolution", "context_length", "vocab_size"}
)

ASSETS = Path(__file__).parents[1] / "assets"
"""Small weight files that come with the package."""


def resize_position_embedding(embedding: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return a position embedding for another patch grid, as RDE resizes it.

    The row of the class token is kept; the square grid behind it is interpolated bilinearly,
    without antialiasing. Nothing changes if the number of rows agrees already.

    Args:
        embedding: ``[1 + g * g, width]``, the grid row by row.
        grid: (rows, columns) of patches wanted.

    Returns:
        ``[1 + rows * columns, width]``.

    Raises:
        ValueError: If the patches of ``embedding`` form no square.

    Example:
        >>> resize_position_embedding(torch.tensor([[9.0], [0], [4], [2], [6]]), (2, 1)).T
        tensor([[9., 2., 4.]])
    """
    rows, columns = grid
    if len(embedding) == 1 + rows * columns:
        return embedding
    side = round((len(embedding) - 1) ** 0.5)
    if side * side != len(embedding) - 1:
        raise ValueError(
            f"a position embedding of {len(embedding)} rows cannot be resized to {rows}x{columns} "
            "patches: without the class token it is no square grid. Use weights that were trained "
            "on square images, or leave data.image_size out: the method has the size of its own."
        )
    return interpolate_positions(embedding, (side, side), grid)


def interpolate_positions(
    embedding: Tensor, given: tuple[int, int], wanted: tuple[int, int]
) -> Tensor:
    """Return a position embedding for another grid; the first row stands for no position.

    Bilinear between the centres of cells, without antialiasing, in float32 or better.

    Args:
        embedding: ``[1 + rows * columns, width]``, the grid row by row.
        given: (rows, columns) of ``embedding``.
        wanted: (rows, columns) of the result.

    Returns:
        ``[1 + rows * columns, width]`` of the wanted grid.

    Example:
        >>> rows = torch.tensor([[9.0], [0], [4], [2], [6]])
        >>> interpolate_positions(rows, (2, 2), (4, 1)).T
        tensor([[9.0000, 2.0000, 2.5000, 3.5000, 4.0000]])
    """
    patches = embedding[1:].T.reshape(1, -1, *given)
    # float32: half precision weights, and a CPU, interpolate badly in float16
    patches = patches.to(torch.promote_types(patches.dtype, torch.float32))
    resized = F.interpolate(patches, size=wanted, mode="bilinear", align_corners=False)
    return torch.cat([embedding[:1], resized[0].flatten(1).T.to(embedding.dtype)])


def local_file(name: str | Path) -> Path | None:
    """Return the file called ``name``, also one that comes with this package; None without one."""
    return next((path for path in (Path(name), ASSETS / name) if path.is_file()), None)


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Return the tensors of a weight file by name, on the CPU.

    Args:
        path: ``.safetensors``, a file of `torch.save` (read without running code from it), or a
            TorchScript archive such as OpenAI's ``ViT-B-16.pt``; see
            `crosswalk.weight_files.tensors_in`. The name of a file that comes with this package
            (``assets/``) is enough.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file holds no weights.
    """
    found = local_file(path)
    if found is None:
        raise FileNotFoundError(
            f"{path} is missing: name a file of weights, or write null for random ones."
        )
    if is_torchscript(found):
        return plain_names(_scripted(found))
    return tensors_in(found)


def _scripted(path: Path) -> dict[str, Tensor]:
    """Return the state dict of a TorchScript archive; ``__setstate__`` alone would run here."""
    with zipfile.ZipFile(path) as archive:
        sources = [name for name in archive.namelist() if name.endswith(".py")]
        if any(b"__setstate__" in archive.read(name) for name in sources):
            raise ValueError(
                f"{path} is an archive of TorchScript that runs code while it is loaded, so it was "
                "not read. Save its state_dict() by torch.save where it comes from."
            )
    try:
        with warnings.catch_warnings():  # deprecated, but OpenAI published nothing else
            warnings.simplefilter("ignore", FutureWarning)
            loaded = torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        raise ValueError(f"{path} is cut off or damaged. Fetch or copy it again.") from error
    state: dict[str, Tensor] = loaded.state_dict()
    return state


def fit_weights(
    weights: dict[str, Tensor],
    wanted: dict[str, Tensor],
    grid: tuple[int, int],
    *,
    origin: str = "the weights",
    setting: str = "encoder.clip.pretrained",
) -> dict[str, Tensor]:
    """Return ``weights`` with the shapes of ``wanted``, without entries that are no part of CLIP.

    The image positions are resized; of the text positions the first are taken.

    Args:
        weights: A CLIP state dict with OpenAI's names.
        wanted: The state dict of a `ClipDualEncoder`.
        grid: Its (rows, columns) of patches.
        origin: Where the weights come from, for messages.
        setting: The key of the configuration that names them, for messages.

    Raises:
        ValueError: If names or other shapes differ.
    """
    fitted = {name: row for name, row in weights.items() if name not in _NOT_OURS}
    name = "visual.positional_embedding"
    if name in fitted:
        fitted[name] = resize_position_embedding(fitted[name], grid)
    name = "positional_embedding"
    if name in fitted:
        fitted[name] = fitted[name][: len(wanted[name])]
    if _differ(wanted, fitted):
        raise ValueError(
            f"{origin} ({setting}) does not fit the architecture: {mismatch(wanted, fitted)}. "
            f"Choose the {setting.removesuffix('pretrained')}name, or the sizes, that the weights "
            "were trained with."
        )
    return fitted


def load_backbone(model: nn.Module, weights: dict[str, Tensor], *, key: str, origin: str) -> None:
    """Load all weights of ``model``, whose names have to agree.

    Raises:
        ValueError: If they do not, with the settings ``name`` and ``pretrained`` below ``key``.
    """
    # Files of PyTorch before 0.4.1, such as the first ImageNet weights, count no batches
    wanted = model.state_dict()
    counters = {name: torch.tensor(0) for name in wanted if name.endswith("_tracked")}
    fitted = counters | unwrapped(weights, wanted)
    if _differ(wanted, fitted):
        raise ValueError(
            f"{key}.pretrained={origin} does not fit the backbone: {mismatch(wanted, fitted)}. "
            f"Choose the {key}.name that the weights were trained with."
        )
    model.load_state_dict(fitted)


def _differ(wanted: dict[str, Tensor], given: dict[str, Tensor]) -> bool:
    """Return whether names or shapes of two state dicts differ."""
    shapes = ({name: row.shape for name, row in each.items()} for each in (wanted, given))
    return next(shapes) != next(shapes)


_downloads: ContextVar[bool] = ContextVar("_downloads", default=True)


@contextmanager
def downloading(wanted: bool) -> Iterator[None]:
    """Say whether published weights are fetched; without, the same networks stay random.

    For encoders whose weights all come from a checkpoint afterwards.

    Example:
        >>> with downloading(False):
        ...     pretrained_file("ViT-B-16-quickgelu", "openai") is None
        True
    """
    token = _downloads.set(wanted)
    try:
        yield
    finally:
        _downloads.reset(token)


def are_downloaded() -> bool:
    """Return whether published weights are fetched now, see `downloading`."""
    return _downloads.get()


def pretrained_file(
    name: str, pretrained: str, *, setting: str = "encoder.clip.pretrained"
) -> str | None:
    """Return the path of weights for open_clip's model ``name``, downloaded if need be.

    None within ``downloading(False)``, unless it is a local file.

    Args:
        name: Of the model, as open_clip spells it.
        pretrained: A tag that open_clip knows for the model, or a local file, or one that comes
            with this package. A file of a tag's name is written ``./openai``.
        setting: The key of the configuration that says ``pretrained``, for messages.

    Raises:
        FileNotFoundError: If there is no such file, no such tag, or the download fails.
    """
    is_path = Path(pretrained).name != pretrained or bool(Path(pretrained).suffix)
    if local_file(pretrained) is not None and (is_path or not _is_tag(name, pretrained)):
        return pretrained
    if not are_downloaded():
        return None
    from open_clip import pretrained as registry

    entry = registry.get_pretrained_cfg(name, pretrained)
    if not entry:
        tags = ", ".join(registry.list_pretrained_tags_by_model(name)) or "none"
        raise FileNotFoundError(
            f"{setting}={pretrained} is neither a file nor a tag of {name} in open_clip "
            f"(tags: {tags})."
        )
    try:
        with one_attempt():
            return str(registry.download_pretrained(entry))
    except (OSError, RuntimeError, ValueError) as error:
        raise NotFetchedError(
            f"the weights {pretrained!r} of {name} could not be downloaded ({error}). Fetch the "
            f"file on a machine with network access ({entry.get('url') or entry.get('hf_hub')}) "
            f"and pass {setting}=<file>."
        ) from error


def plain_model_config(name: str) -> dict[str, Any] | None:
    """Return open_clip's definition of a model that it lists; None of any other name.

    Other names would have it look on the hub, or into a folder, which a stored configuration may
    not.

    Example:
        >>> plain_model_config("hf-hub:somebody/model") is None
        True
    """
    import open_clip  # seconds to import

    found: dict[str, Any] | None = None
    if name in open_clip.list_models():
        found = open_clip.get_model_config(name)
    return found


def _is_tag(name: str, pretrained: str) -> bool:
    """Return whether open_clip has weights called so, which a file beside does not replace."""
    from open_clip import pretrained as registry

    return bool(registry.get_pretrained_cfg(name, pretrained))


def is_torchscript(path: Path) -> bool:
    """Return whether the file is an archive of compiled code, which `torch.load` refuses."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())

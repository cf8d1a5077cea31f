"""Weight files: an encoder's state dict as safetensors, with its origin in the header."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from crosswalk import __version__
from crosswalk.config.construct import locate
from crosswalk.config.model_file import COLOURS, HEADER, model_in
from crosswalk.config.search import group_values, read_group_file
from crosswalk.files import check_safetensors, safetensors_header, whole
from crosswalk.importers._methods import check_importable
from crosswalk.run.imported import description_of
from crosswalk.run.run_folder import weights_of
from crosswalk.weight_files import mismatch

if TYPE_CHECKING:
    from torch import Tensor, nn

    from crosswalk.methods.base import Method

PREFIX = "encoder."


def run_import(
    method: str,
    source: Path,
    target: Path,
    *,
    vocabulary: Path | None = None,
    word_table: Path | None = None,
    image_size: tuple[int, int] | None = None,
    stride: int | None = None,
) -> int:
    """Write the weights of an official checkpoint to ``target``, say so, and return 0.

    Where all is known that they need, the file describes its model and can be loaded alone.

    Args:
        method: Whose checkpoint it is.
        source: The official file.
        target: The ``.safetensors`` to write; ``checkpoint=<target>`` starts a run from it.
        vocabulary: A file with the words of its token ids, of CM-MoCo and CMMT.
        word_table: A ``.npy`` with their vectors, of CM-MoCo.
        image_size: (height, width) of its images in pixels, where weights only tell the number of
            patches or positions, of RDE and CM-MoCo; None is the published one.
        stride: Distance of its patches in pixels, of RDE; None is the patch size.

    Raises:
        ValueError: If no importer of this name exists, or the file is another model's.
        FileNotFoundError: If there is no such file.
    """
    check_importable(method)
    importer = importlib.import_module(f"crosswalk.importers.{method}")
    official = getattr(importer, f"read_{method}")(source)
    weights = getattr(importer, f"import_{method}")(official)
    given = {"image_size": image_size, "stride": stride}
    given = {name: value for name, value in given.items() if value is not None}
    for name in given.keys() - signature(importer.architecture_of).parameters.keys():
        raise ValueError(
            f"--{name.replace('_', '-')}: weights of {method} do not depend on it. Leave it out."
        )
    architecture = importer.architecture_of(official, **given)
    description = description_of(
        method,
        importer.PUBLISHED_DATA,
        architecture,
        importer.recipe_of,
        weights,
        vocabulary=vocabulary,
        word_table=word_table,
    )
    save_weights(
        target,
        weights,
        method=method,
        origin=source.name,
        architecture=architecture,
        description=description,
    )
    print(f"{len(weights)} tensors of {source} are in {target}. Architecture:")
    print(json.dumps(architecture, indent=2))
    if description is None:
        print(
            "Such a file holds no words: it can start a run (checkpoint=), and not be loaded or "
            "evaluated alone. Repeat this with --vocabulary FILE (its published list, or the "
            "vocabulary.json of a run on the same data), and with --word-table FILE.npy where it "
            "looks words up in a table."
        )
        return 0
    told = json.loads(description)
    if COLOURS in told["evaluation"]:
        colours = ", ".join(f"{name} {told['preprocessing'][name]}" for name in ("mean", "std"))
        print(
            "Its method normalises each set by the colours of its own training images, and the "
            "file holds those of none. `crosswalk evaluate` measures them; `crosswalk.load`, "
            f"`embed` and `export` take {colours}."
        )
    return 0


def run_export(
    run: Path, target: Path, which: str = "best", *, part: str = "", half: bool = False
) -> int:
    """Write the encoder of a finished run to ``target``, say so, and return 0.

    Args:
        run: The run folder, or one of its checkpoints.
        target: The ``.safetensors`` to write.
        which: "best" or "last", where ``run`` is a folder.
        part: Only this submodule of the encoder, such as ``clip``, for ``encoder.clip.pretrained``.
        half: Whether weights are rounded to float16, see `halved`.

    Raises:
        FileNotFoundError: If the run has no such checkpoint.
        ValueError: If the checkpoint holds no encoder.
    """
    path = run if run.is_file() or run.suffix else run / f"{which}.ckpt"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing: name a run folder, or one of its .ckpt files. A run without val "
            "split has no best epoch; pass --which last."
        )
    weights = encoder_weights(path) | _parts_in(path, _parts_of_methods())
    if part:
        prefix = part + "."
        weights = {
            name.removeprefix(prefix): tensor
            for name, tensor in weights.items()
            if name.startswith(prefix)
        }
        if not weights:
            raise ValueError(
                f"the encoder of {path} has no part {part!r}; CLIP models have 'clip'."
            )
    if half:
        weights = halved(weights)
    save_weights(target, weights, method="", origin=path.parent.name, architecture={})
    print(f"{len(weights)} tensors of {path} are in {target}.")
    return 0


def halved(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights with matrices and filters rounded to float16, about half the size.

    What has one dimension stays, as it takes no space and variances know no common size; and so do
    matrices that float16 does not hold: it ends at 65504, and begins at 6e-8.

    Example:
        >>> import torch
        >>> found = halved({"w": torch.ones(1, 1), "v": torch.ones(1), "big": torch.full((1, 1), 7e4)})
        >>> [tensor.dtype for tensor in found.values()]
        [torch.float16, torch.float32, torch.float32]
    """  # noqa: E501 - the example
    return {name: _rounded(tensor) for name, tensor in weights.items()}


def _rounded(tensor: Tensor) -> Tensor:
    if not tensor.is_floating_point() or tensor.dim() < 2 or tensor.numel() == 0:
        return tensor
    half = tensor.half()
    is_near = (half.to(tensor.dtype) - tensor).abs().max() <= 1e-3 * tensor.abs().max()
    return half if is_near else tensor


def save_weights(
    target: Path,
    weights: dict[str, Tensor],
    *,
    method: str,
    origin: str,
    architecture: Mapping[str, object],
    description: str | None = None,
) -> None:
    """Write a weight file whose header says where it is from and, if known, what it is of.

    Raises:
        ValueError: If the name does not end in ``.safetensors``.

    Example:
        >>> import tempfile, torch
        >>> target = Path(tempfile.mkdtemp()) / "w.safetensors"
        >>> save_weights(target, {"w": torch.ones(2)}, method="rde", origin="x", architecture={})
        >>> from safetensors.torch import load_file
        >>> load_file(target)["w"]
        tensor([1., 1.])
    """
    from safetensors.torch import save_file

    check_safetensors(target)
    header = {
        "format": "pt",
        "crosswalk": __version__,
        "method": method,
        "origin": origin,
        "architecture": json.dumps(architecture),
    }
    if description is not None:
        header[HEADER] = description
    tensors = {name: tensor.contiguous() for name, tensor in weights.items()}
    with whole(target) as unfinished:
        unfinished.touch()
        mode = unfinished.stat().st_mode  # of any new file; safetensors makes one that is private
        save_file(tensors, unfinished, header)
        unfinished.chmod(mode)


def save_encoder(target: Path, method: nn.Module, *, origin: str) -> None:
    """Write the encoder of ``method`` as it is now; `load_encoder` reads it.

    Args:
        target: The ``.safetensors`` to write.
        method: Has the submodule ``encoder``.
        origin: Where the weights come from, for the header.
    """
    weights = method.get_submodule("encoder").state_dict()
    save_weights(target, weights, method="", origin=origin, architecture={})


def load_encoder(method: nn.Module, path: Path, *, may_lack: Sequence[str] = ()) -> None:
    """Load a weight file, or the encoder of a run's checkpoint, into ``method.encoder``.

    Args:
        method: Has the submodule ``encoder``.
        path: The file.
        may_lack: Submodules of the encoder that stay as they are where the file has none of them.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If names or shapes differ from those of the encoder.
    """
    encoder: nn.Module = method.get_submodule("encoder")
    contents = _contents(path)
    weights = _encoder_in(contents) or contents
    wanted = encoder.state_dict()
    if not weights.keys() <= wanted.keys():  # a file for another method, perhaps
        weights = without_parts(weights)
    for part in may_lack:
        if not _of(part, weights):
            weights |= {name: wanted[name] for name in _of(part, wanted)}
    begin = f"checkpoint={path} does not fit the configured encoder"
    load_weights(method, weights, begin, advice=_how_to_fit(path))


def load_weights(
    method: nn.Module, weights: Mapping[str, Tensor], begin: str, *, advice: str
) -> None:
    """Load the encoder's weights.

    Args:
        method: Has the submodule ``encoder``.
        weights: By name.
        begin: Begins the message where they do not fit.
        advice: Ends it.

    Raises:
        ValueError: If names or shapes differ from those of the encoder.
    """
    encoder = method.get_submodule("encoder")
    with saying_what_differs(begin, encoder, lambda: weights, advice=advice):
        encoder.load_state_dict(weights)
    cast("Method[Any]", method).encoder_loaded()


@contextmanager
def saying_what_differs(
    begin: str, module: nn.Module, weights: Callable[[], Mapping[str, Tensor]], *, advice: str
) -> Iterator[None]:
    """Say which file does not fit, and where, when loading a state dict fails.

    Args:
        begin: Begins the message.
        module: What the weights are loaded into.
        weights: Returns them.
        advice: Ends the message.

    Raises:
        ValueError: Instead of torch's error, which lists every name.
    """
    try:
        yield
    except RuntimeError as error:
        if "loading state_dict" not in str(error):
            raise
        differing = mismatch(module.state_dict(), weights())
        raise ValueError(f"{begin}: {differing}. {advice}") from error


def _how_to_fit(path: Path) -> str:
    """Return the overrides that give a run the encoder of the run that a checkpoint is from."""
    config = _config_of(path)
    encoder = ((config or {}).get("choices") or {}).get("encoder")
    if config is None or encoder is None:
        return "Choose the encoder= and the sizes that the weights were trained with."
    words = [f"encoder={encoder}"]
    backbone = (config.get("encoder") or {}).get("backbone") or {}
    if isinstance(backbone, dict) and "name" in backbone:
        words.append(f"encoder.backbone.name={backbone['name']}")
    data = config.get("data") or {}
    for key in ("image_size", "context_length"):
        if data.get(key):
            words.append(f"data.{key}={str(data[key]).replace(' ', '')}")
    return f"Its run had {' '.join(words)}: give these, or leave encoder= out."


def _config_of(path: Path) -> dict[str, Any] | None:
    """Return what is known of the model that a checkpoint is of; None where nobody says."""
    try:
        found = model_in(path)
    except (OSError, ValueError):
        return None
    return None if found is None else found[0]


def _of(part: str, weights: Mapping[str, Tensor]) -> list[str]:
    """Return the names of a submodule's weights."""
    return [name for name in weights if name.startswith(f"{part}.")]


def load_start(method: nn.Module, path: Path) -> list[str]:
    """Load what a run starts from: the encoder, and whatever else its method `starts_with`.

    Returns:
        The parts of encoder and method that the file may hold and does not, or of other sizes:
        they start anew.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If names or shapes differ from those of the encoder, or a part that the method
            starts with is not there in its size.
    """
    parts: tuple[str, ...] = getattr(method.get_submodule("encoder"), "may_start_anew", ())
    load_encoder(method, path, may_lack=parts)
    wanted = cast("Method[Any]", method).starts_with
    found = _parts_in(path, wanted) if wanted else {}
    for name in wanted:
        ours, theirs = method.get_parameter(name), found.get(name)
        if theirs is None or theirs.shape != ours.shape:
            has = "no" if theirs is None else f"{len(theirs)}"
            what = name.split(".")[0]
            raise ValueError(
                f"checkpoint={path} has {has} {what}, and the data need {len(ours)}: this run "
                f"would start with random {what}. Leave checkpoint away, then its stage makes "
                "them, or name weights of a model of these data."
            )
        ours.data.copy_(theirs)
    contents = _contents(path)
    weights = _encoder_in(contents) or contents
    anew = [part for part in parts if not _of(part, weights)]
    for part in cast("Method[Any]", method).may_start_with:
        module: nn.Module | None = getattr(method, part)
        if module is not None and not _take_part(module, part, contents):
            anew.append(part)
    return anew


def _take_part(module: nn.Module, part: str, contents: Mapping[str, Tensor]) -> bool:
    """Load a submodule of a method if the file has all of it in its sizes."""
    rows = {name.removeprefix(f"{part}."): contents[name] for name in _of(part, contents)}
    shapes = {name: row.shape for name, row in rows.items()}
    if shapes != {name: row.shape for name, row in module.state_dict().items()}:
        return False
    module.load_state_dict(rows)
    return True


def without_parts(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights without what methods start with beside their encoder.

    Example:
        >>> sorted(without_parts({"agents.weight": None, "neck.bias": None}))
        ['neck.bias']
    """
    parts = _parts_of_methods()
    modules = {name for method in _methods() for name in method.may_start_with}
    return {
        name: tensor
        for name, tensor in weights.items()
        if name not in parts and name.split(".")[0] not in modules
    }


def _methods() -> list[Any]:
    files = [read_group_file("method", name) for name in group_values("method")]
    return [locate(file["method"]["_target_"], "method") for file in files]


def _parts_of_methods() -> dict[str, tuple[str, ...]]:
    """Return what any method starts with beside its encoder."""
    return {name: names for method in _methods() for name, names in method.starts_with.items()}


def _contents(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a weight file, or the state of a checkpoint's method, by name."""
    from crosswalk.weight_files import tensors_in

    return tensors_in(weights_of(path))


def _encoder_in(contents: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the encoder's weights among those of a run's checkpoint; none among others."""
    from crosswalk.weight_files import plain_names

    weights = {
        name.removeprefix(PREFIX): tensor.contiguous()
        for name, tensor in contents.items()
        if name.startswith(PREFIX)
    }
    return plain_names(weights)


def encoder_weights(path: Path) -> dict[str, Tensor]:
    """Return the encoder's weights of a checkpoint, or everything that a weight file holds.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds no weights of an encoder, or is damaged.
    """
    contents = _contents(path)
    weights = _encoder_in(contents)
    if not weights and safetensors_header(weights_of(path)):
        return contents
    if not weights:
        listed = ", ".join(list(contents)[:5])
        raise ValueError(
            f"{path} holds no entries {PREFIX}*, but {listed}; it is no checkpoint of a run."
        )
    return weights


def _parts_in(path: Path, parts: Mapping[str, tuple[str, ...]]) -> dict[str, Tensor]:
    """Return those of ``parts`` that the file holds under one of their names, the first found."""
    contents = _contents(path)
    found = {}
    for name, names in parts.items():
        for each in names:
            if each in contents:
                found[name] = contents[each]
                break
    return found

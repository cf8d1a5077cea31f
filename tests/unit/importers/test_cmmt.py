import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.testing import assert_close

from crosswalk.encoders.heads import normed, normed_projection
from crosswalk.encoders.resnet import ResNet
from crosswalk.encoders.text_recurrent import BiLstm
from crosswalk.encoders.two_stream import TwoStream
from crosswalk.encoders.word_vectors import LearnedWords
from crosswalk.importers.cmmt import architecture_of, import_cmmt, read_cmmt
from crosswalk.run.weights import run_import

MANIFEST = Path(__file__).parents[2] / "golden" / "data" / "cmmt" / "checkpoint_manifest.json"
SIZES = {"block": "bottleneck", "layers": (1, 2), "stem_width": 3, "planes": (2, 3)}
OFFICIAL = {  # ours -> theirs
    "image.": "image_model.",
    "text.vectors.embedding.": "bilstm.embed.",
    "text.lstm.": "bilstm.bilstm.0.",
    "text.projection.": "conv_text.",
    "image_head.linear.": "conv_images.",
    "image_head.norm.": "bottleneck_image.",
    "text_head.": "bottleneck_text.",
}


def encoder(
    image: ResNet, num_words: int, size: int, hidden_size: int, num_layers: int, embedding_size: int
) -> TwoStream:
    vectors = partial(LearnedWords, num_words=num_words, size=size)
    text = partial(
        BiLstm,
        vectors=vectors,
        hidden_size=hidden_size,
        num_layers=num_layers,
        output_size=embedding_size,
    )
    return TwoStream(
        image,
        text,
        image_head=normed_projection,
        text_head=normed,
        embedding_size=embedding_size,
    )


def small_encoder(num_layers: int = 2) -> TwoStream:
    torch.manual_seed(1)
    model = encoder(ResNet(**SIZES), 11, 7, 5, num_layers, 6)  # type: ignore[arg-type]
    for row in model.state_dict().values():
        row.copy_(torch.rand(row.shape) * 9)
    return model


def official_state(model: TwoStream, prefix: str = "module.") -> dict[str, Tensor]:
    """Return the weights as the official code saves them, with the unused classifier."""
    state = {}
    for name, row in model.state_dict().items():
        [(ours, theirs)] = [pair for pair in OFFICIAL.items() if name.startswith(pair[0])]
        official = prefix + theirs + name.removeprefix(ours)
        is_convolution = theirs.startswith("conv_") and row.dim() == 2
        state[official] = row[:, :, None, None] if is_convolution else row
    state[f"{prefix}image_model.fc.weight"] = torch.randn(4, 12)
    state[f"{prefix}image_model.fc.bias"] = torch.randn(4)
    return state


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("num_layers", [1, 2])
def test_official_weights_become_the_same_encoder(
    tmp_path: Path, prefix: str, num_layers: int
) -> None:
    model = small_encoder(num_layers)
    checkpoint = {"network": official_state(model, prefix), "epoch": 7, "W": torch.zeros(2)}
    torch.save(checkpoint, tmp_path / "7.pth.tar")

    imported = import_cmmt(read_cmmt(tmp_path / "7.pth.tar"))

    assert_close(imported, dict(model.state_dict()), rtol=0, atol=0)


def test_the_sizes_are_read_from_the_weights() -> None:
    assert architecture_of(official_state(small_encoder(), prefix="")) == {
        "embedding_size": 6,
        "image": {"name": None, **SIZES, "last_stride": 2, "last_relu": True},
        "text": {"hidden_size": 5, "num_layers": 2, "output_size": 6},
        "vectors": {"num_words": 11, "size": 7},
    }


def test_every_entry_of_the_published_checkpoint_is_used_or_known_to_be_unused() -> None:
    manifest = json.loads(MANIFEST.read_text())
    state = {
        name.removeprefix("module."): torch.zeros(shape, dtype=getattr(torch, dtype))
        for name, (shape, dtype) in manifest.items()
    }

    imported = import_cmmt(state)

    unused = {name for name in state if name.startswith("image_model.fc.")}
    assert len(manifest) == 343
    parameters = [row for name, row in state.items() if "running" not in name and row.dim()]
    assert sum(row.numel() for row in parameters) == 41_809_960
    assert len(imported) == 343 - len(unused) == 341
    sizes = architecture_of(state)
    assert sizes["image"]["name"] == "resnet50"
    with torch.device("meta"):
        model = encoder(
            ResNet((3, 4, 6, 3), block="bottleneck"),
            **sizes["vectors"],
            hidden_size=512,
            num_layers=2,
            embedding_size=512,
        )
    assert {name: row.shape for name, row in model.state_dict().items()} == {
        name: row.shape for name, row in imported.items()
    }
    assert sizes["text"] == {"hidden_size": 512, "num_layers": 2, "output_size": 512}
    assert sizes["vectors"] == {"num_words": 4092, "size": 768}


def test_half_precision_is_widened_and_missing_counters_are_zero() -> None:
    model = small_encoder()
    stored = {
        name: row.half() if row.is_floating_point() else row
        for name, row in official_state(model, prefix="").items()
        if not name.startswith("image_model.bn1.num_batches")
    }

    imported = import_cmmt(stored)

    assert imported["image.bn1.num_batches_tracked"] == 0
    assert (
        imported["text_head.num_batches_tracked"] == stored["bottleneck_text.num_batches_tracked"]
    )
    assert imported["text.projection.weight"].dtype == torch.float32
    assert_close(
        imported["text.projection.weight"], model.text.projection.weight.data, rtol=1e-3, atol=1e-3
    )


def test_missing_and_unknown_entries_are_named() -> None:
    state = official_state(small_encoder(), prefix="")
    del state["bilstm.bilstm.0.weight_hh_l1_reverse"]
    state["attention.weight"] = torch.zeros(2)

    with pytest.raises(ValueError, match=r"weight_hh_l1_reverse.*attention\.weight"):
        import_cmmt(state)
    with pytest.raises(ValueError, match="bilstm or conv_text are missing"):
        architecture_of({"conv_images.weight": torch.zeros(2, 3, 1, 1)})


@pytest.mark.parametrize("kind", ["checkpoint", "state", "npz"])
def test_weights_are_read_from_every_kind_of_file(tmp_path: Path, kind: str) -> None:
    state = official_state(small_encoder())
    path = tmp_path / ("m.npz" if kind == "npz" else "0.pth.tar")
    if kind == "npz":
        np.savez(path, **{name: row.numpy() for name, row in state.items()})
    else:
        torch.save({"network": state, "epoch": 0} if kind == "checkpoint" else state, path)

    assert_close(
        read_cmmt(path), {name.removeprefix("module."): row for name, row in state.items()}
    )


def test_other_files_are_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "empty.pth")

    with pytest.raises(ValueError, match="no checkpoint of CMMT"):
        read_cmmt(tmp_path / "empty.pth")
    with pytest.raises(FileNotFoundError, match=r"none\.pth is missing"):
        read_cmmt(tmp_path / "none.pth")


def test_the_command_writes_a_file_that_an_encoder_loads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = small_encoder()
    torch.save({"network": official_state(model), "epoch": 3}, tmp_path / "3.pth.tar")

    run_import("cmmt", tmp_path / "3.pth.tar", tmp_path / "w.safetensors")

    assert '"num_words": 11' in capsys.readouterr().out
    other = small_encoder()
    other.load_state_dict(load_file(tmp_path / "w.safetensors"))
    assert_close(other.state_dict(), model.state_dict())

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from crosswalk.encoders.clip import ClipDualEncoder
from crosswalk.encoders.dual_embedding import DualEmbedding
from crosswalk.importers.rde import architecture_of, import_rde, read_rde

SIZES = {
    "image_size": (48, 16),
    "patch_size": 8,
    "stride": 8,
    "vision_width": 128,
    "vision_layers": 2,
    "vision_heads": 2,
    "text_width": 64,
    "text_layers": 1,
    "text_heads": 1,
    "embed_dim": 6,
    "context_length": 9,
    "vocabulary_size": 30,
    "quick_gelu": True,
}


def encoder() -> DualEmbedding:
    torch.manual_seed(1)
    return DualEmbedding(ClipDualEncoder(**SIZES), select_ratio=0.5, embedding_size=10)


def official_state(model: DualEmbedding) -> dict[str, Tensor]:
    """Return the weights as the official code saves them: its names, its dtypes, dead layers."""
    state = {}
    for name, row in model.state_dict().items():
        for ours, theirs in [
            ("clip.", "base_model."),
            ("image_selection.token_mlp.residual", "visul_emb_layer.fc"),
            ("text_selection.token_mlp.residual", "texual_emb_layer.linear"),
            ("image_selection.token_mlp", "visul_emb_layer.mlp"),
            ("text_selection.token_mlp", "texual_emb_layer.mlp"),
            ("mlp.hidden", "mlp.layers.0"),
            ("mlp.out", "mlp.layers.1"),
            ("mlp.norm", "mlp.bns.0"),
        ]:
            name = name.replace(ours, theirs)
        state[name] = row.half() if "attn." in name or "layers" in name else row
    state["visul_emb_layer.linear.weight"] = torch.randn(10, 6)
    state["visul_emb_layer.linear.bias"] = torch.randn(10)
    for head in ("visul_emb_layer", "texual_emb_layer"):
        for part in ("weight", "bias", "running_mean", "running_var"):
            state[f"{head}.mlp.bns.1.{part}"] = torch.randn(10)
        state[f"{head}.mlp.bns.1.num_batches_tracked"] = torch.tensor(4)
    return state


@pytest.mark.parametrize("prefix", ["", "module."])
def test_official_weights_become_the_same_encoder_in_float32(tmp_path: Path, prefix: str) -> None:
    model = encoder()
    official = {prefix + name: row for name, row in official_state(model).items()}
    torch.save(official, tmp_path / "best.pth")

    imported = import_rde(read_rde(tmp_path / "best.pth"))

    expected = model.state_dict()
    assert imported.keys() == expected.keys()
    for name, row in imported.items():
        assert row.dtype == expected[name].dtype
        assert_close(row, expected[name], rtol=1e-3, atol=1e-3)  # half precision in the file


def test_the_sizes_are_read_from_the_weights() -> None:
    architecture = architecture_of(official_state(encoder()))

    assert architecture == {"embedding_size": 10, "clip": SIZES}


def test_the_image_size_can_be_told() -> None:
    state = official_state(encoder())

    assert architecture_of(state, image_size=(24, 32))["clip"]["image_size"] == (24, 32)
    with pytest.raises(ValueError, match="12 patches"):
        architecture_of(state, image_size=(32, 32))


def test_missing_and_unknown_entries_are_named() -> None:
    state = official_state(encoder())
    del state["base_model.ln_final.bias"]
    state["classifier.weight"] = torch.zeros(2)

    with pytest.raises(ValueError, match=r"ln_final\.bias.*classifier\.weight"):
        import_rde(state)


@pytest.mark.parametrize("kind", ["checkpoint", "state", "npz"])
def test_weights_are_read_from_every_kind_of_file(tmp_path: Path, kind: str) -> None:
    state = official_state(encoder())
    path = tmp_path / ("best.npz" if kind == "npz" else "best.pth")
    if kind == "npz":
        np.savez(path, **{name: row.numpy() for name, row in state.items()})
    else:
        torch.save({"model": state, "epoch": 3} if kind == "checkpoint" else state, path)

    assert_close(read_rde(path), state)


class Unsafe:
    pass


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    torch.save({"model": official_state(encoder()), "args": Unsafe()}, tmp_path / "best.pth")

    with pytest.raises(ValueError, match=r"code from it.*'model' is needed"):
        read_rde(tmp_path / "best.pth")


def test_a_file_without_weights_is_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "best.pth")

    with pytest.raises(ValueError, match="no checkpoint of RDE"):
        read_rde(tmp_path / "best.pth")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"best\.pth is missing"):
        read_rde(tmp_path / "best.pth")

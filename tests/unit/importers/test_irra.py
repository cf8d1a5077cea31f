from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from crosswalk.encoders.clip import ClipDualEncoder
from crosswalk.encoders.clip_embedding import ClipEmbedding
from crosswalk.encoders.clip_weights import interpolate_positions
from crosswalk.importers.irra import architecture_of, import_irra, read_irra
from tests.unit.importers.test_rde import SIZES

RECORDED = Path(__file__).parents[2] / "golden" / "data" / "irra"


def encoder(**sizes: Any) -> ClipEmbedding:  # noqa: ANN401
    torch.manual_seed(1)
    return ClipEmbedding(ClipDualEncoder(**SIZES | sizes))


def official_state(model: ClipEmbedding) -> dict[str, Tensor]:
    """Return the encoder's weights by the official names, some in float16."""
    return {
        name.replace("clip.", "base_model.", 1): row.half() if "attn." in name else row
        for name, row in model.state_dict().items()
    }


def recorded() -> dict[str, Tensor]:
    with np.load(RECORDED / "tiny_checkpoint_0.npz") as archive:
        return {name: torch.from_numpy(archive[name]) for name in archive.files}


def only_clip(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: row for name, row in state.items() if name.startswith("base_model.")}


FORMS = {
    "IRRA": lambda state: {"model": state, "optimizer": {}, "epoch": 3},
    "NAM": lambda state: {"model": {f"module.{n}": row for n, row in only_clip(state).items()}},
    "HAM": lambda state: {"model": only_clip(state), "iteration": 0, "num_epoch": 60},
    "GA-DMS": lambda state: {
        "state_dict": {
            **{f"module.{n.removeprefix('base_model.')}": r for n, r in only_clip(state).items()},
            "module.logit_scale": torch.tensor(4.6),
        }
    },
    "state": only_clip,
}


@pytest.mark.parametrize("form", FORMS)
def test_the_recorded_checkpoint_embeds_as_recorded_in_every_form(
    form: str, tmp_path: Path
) -> None:
    torch.save(FORMS[form](recorded()), tmp_path / "best.pth")
    with np.load(RECORDED / "tiny_model_0.npz") as archive:
        case = {name: archive[name] for name in archive.files}

    state = read_irra(tmp_path / "best.pth")
    weights = import_irra(state)
    sizes = architecture_of(state, image_size=tuple(case["image_size_hw"].tolist()))["clip"]
    heads = {name: int(case[name]) for name in ("vision_heads", "text_heads")}
    model = ClipEmbedding(ClipDualEncoder(**sizes | heads)).double()
    model.load_state_dict({n: row for n, row in weights.items() if n.startswith("clip.")})

    image = model.image_embedding(model.clip.encode_image(torch.tensor(case["images"]).double()))
    text = model.text_embedding(model.clip.encode_text(torch.tensor(case["caption_ids"])))
    assert_close(image, torch.tensor(case["out_image_embedding"]), rtol=1e-6, atol=1e-6)
    assert_close(text, torch.tensor(case["out_text_embedding"]), rtol=1e-6, atol=1e-6)
    assert all(row.dtype == torch.float32 for row in weights.values())


def test_what_is_in_a_file_beside_clip_is_told() -> None:
    whole = recorded()
    without_a_norm = {name: row for name, row in whole.items() if name != "ln_post.bias"}
    other = {"fusion.weight": torch.zeros(2)}

    full = architecture_of(whole)
    assert full["cross_modal"] == {"depth": 1, "vocabulary_size": 60}
    assert (full["classifier"], full["left_out"]) == (9, [])
    partly = architecture_of(without_a_norm | other)
    assert partly["cross_modal"] is None
    assert {"fusion.weight", "ln_post.weight"} <= {*partly["left_out"]}
    clip = architecture_of(only_clip(whole))
    assert (clip["cross_modal"], clip["classifier"], clip["left_out"]) == (None, None, [])

    parts = {name.split(".")[0] for name in import_irra(whole)}
    assert parts == {"clip", "mlm", "classifier"}
    assert {n.split(".")[0] for n in import_irra(without_a_norm | other)} == {"clip", "classifier"}


@pytest.mark.parametrize("prefix", ["base_model.", ""])
def test_a_missing_entry_of_clip_is_named(prefix: str) -> None:
    state = {f"{prefix}{n[11:]}": row for n, row in only_clip(recorded()).items()}
    del state[f"{prefix}ln_final.bias"]

    with pytest.raises(ValueError, match=r"1 entries are missing \['ln_final\.bias'\]"):
        import_irra(state)


def test_positions_of_square_images_become_those_of_upright_ones() -> None:
    square = encoder(image_size=(32, 32), patch_size=8)
    state = official_state(square)
    state["base_model.visual.positional_embedding"] = state[
        "base_model.visual.positional_embedding"
    ].half()

    found = import_irra(state)["clip.visual.positional_embedding"]

    rows = state["base_model.visual.positional_embedding"].float()
    assert_close(found, interpolate_positions(rows, (4, 4), (48, 16)))
    assert architecture_of(state)["clip"]["image_size"] == (384, 128)


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "best.pth")

    with pytest.raises(ValueError, match="no checkpoint of IRRA or of its form"):
        read_irra(tmp_path / "best.pth")
    with pytest.raises(FileNotFoundError, match=r"none\.pth is missing"):
        read_irra(tmp_path / "none.pth")
    with pytest.raises(ValueError, match="entries are missing"):
        import_irra({"layer1.0.conv1.weight": torch.zeros(2)})

"""Official CLIP-ReID files: the recorded tiny one by its embeddings, and the sizes of others."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from crosswalk.encoders.clip import ClipDualEncoder
from crosswalk.encoders.clip_layers import VitLayers
from crosswalk.importers.clip_reid import (
    TEXTS,
    architecture_of,
    import_clip_reid,
    read_clip_reid,
    recipe_of,
    sentence_features,
)

GOLDEN = Path(__file__).parents[2] / "golden" / "data" / "clip_reid"
FILE = GOLDEN / "tiny_vit_0_checkpoint.pth"
SIZE = (64, 32)


@pytest.fixture(scope="module")
def official() -> dict[str, Tensor]:
    return read_clip_reid(FILE)


def state_in(name: str) -> dict[str, Tensor]:
    with np.load(GOLDEN / name) as archive:
        return {key: torch.tensor(archive[key]) for key in archive}


def test_the_recorded_file_embeds_as_the_official_model_that_wrote_it(
    official: dict[str, Tensor],
) -> None:
    sizes = architecture_of(official, image_size=SIZE)
    for name in ("kind", "name", "num_cameras"):
        sizes.pop(name)
    clip = ClipDualEncoder(
        **{**sizes, "vision_heads": 2},  # of 4 channels, where published ones have 64
        text_width=2, text_layers=1, text_heads=1, context_length=2, vocabulary_size=2,
    )  # fmt: skip
    encoder = VitLayers(clip)
    weights = import_clip_reid(official, text_heads=2)
    texts = weights.pop(TEXTS)
    encoder.load_state_dict(weights)
    with np.load(GOLDEN / "tiny_vit_0_io.npz") as given:
        images = torch.tensor(given["images"]).double() / 255
        mean, std = (torch.tensor(given[name])[:, None, None] for name in ("mean", "std"))
    with np.load(GOLDEN / "tiny_vit_0_stage2.npz") as recorded:
        expected = torch.tensor(recorded["out_test_feature"])
        expected_texts = torch.tensor(recorded["start_text_features"])

    with torch.no_grad():
        found = encoder.double().eval().layer_features((images - mean) / std)

    # the file has float32 values of a training in float64
    embedding = torch.cat([found.last, found.projected], dim=1)
    torch.testing.assert_close(F.normalize(embedding), F.normalize(expected), rtol=0, atol=1e-5)
    torch.testing.assert_close(texts.double(), expected_texts, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_baseline_has_no_texts_and_classifiers_are_left_out(
    official: dict[str, Tensor], tmp_path: Path, prefix: str
) -> None:
    baseline = {
        prefix + name: row
        for name, row in official.items()
        if not name.startswith(("prompt_learner.", "text_encoder."))
    }
    torch.save(baseline, tmp_path / "baseline.pth")

    weights = import_clip_reid(read_clip_reid(tmp_path / "baseline.pth"))

    assert TEXTS not in weights
    assert not any("classifier" in name for name in weights)
    assert weights.keys() == import_clip_reid(official, text_heads=2).keys() - {TEXTS}


def test_cameras_count_from_one_behind_a_row_for_those_nobody_tells() -> None:
    state = state_in("tiny_vit_1_sie_overlap_state.npz")

    rows = import_clip_reid(state, text_heads=2)["cameras.weight"]

    assert not rows[0].any()
    torch.testing.assert_close(rows[1:], state["cv_embed"])
    sizes = architecture_of(state, image_size=SIZE)
    assert (sizes["stride"], sizes["num_cameras"]) == (12, 3)
    assert recipe_of(sizes)["encoder.num_cameras"] == 3


def test_texts_depend_on_the_words_of_their_own_person_alone(official: dict[str, Tensor]) -> None:
    before = sentence_features(official, heads=2)
    changed = {name: row.clone() for name, row in official.items()}
    changed["prompt_learner.cls_ctx"][1] += 1
    changed["prompt_learner.token_suffix"][:, 3:] += 1  # behind the end token

    found = sentence_features(changed, heads=2)

    assert (found != before).any(dim=1).nonzero().flatten().tolist() == [1]


def test_a_resnet_is_told_by_its_attention_pool() -> None:
    state = state_in("tiny_rn_0_state.npz")

    sizes = architecture_of(state, image_size=SIZE)

    assert (sizes["kind"], sizes["width"], sizes["output_dim"]) == ("resnet", 2, 10)
    recipe = recipe_of(sizes)
    assert recipe["encoder"]["_target_"].endswith("ResNetLayers")
    assert recipe["choices.encoder"] == "clip_layers_rn50"
    assert TEXTS in import_clip_reid(state, text_heads=2)


def test_the_size_of_images_that_does_not_fit_is_answered(official: dict[str, Tensor]) -> None:
    with pytest.raises(ValueError, match=r"8 patches, and images of 256x128 .*--image-size HxW"):
        architecture_of(official)


def test_missing_and_unknown_entries_are_named(official: dict[str, Tensor]) -> None:
    state = {**official, "image_encoder.more": torch.zeros(2)}
    del state["image_encoder.ln_post.bias"]

    with pytest.raises(ValueError, match=r"image_encoder\.ln_post\.bias.*image_encoder\.more"):
        import_clip_reid(state, text_heads=2)

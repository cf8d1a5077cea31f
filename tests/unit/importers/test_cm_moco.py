from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from crosswalk.encoders.clip_resnet import ClipResNet
from crosswalk.encoders.heads import embed_layer
from crosswalk.encoders.resnet import ResNet
from crosswalk.encoders.text_recurrent import BiGru
from crosswalk.encoders.two_stream import TwoStream
from crosswalk.encoders.word_vectors import LearnedWords, ProjectedWords, WordTable
from crosswalk.importers.cm_moco import (
    architecture_of,
    import_cm_moco,
    read_cm_moco,
    recipe_of,
)
from crosswalk.methods.base import Method
from crosswalk.run.weights import load_start, run_import

CLIP = {"layers": (2, 1, 1, 1), "width": 4, "output_dim": 6, "heads": 2, "image_size": (96, 32)}
RESNET = {"layers": (1, 2), "block": "bottleneck", "stem_width": 4, "planes": (2, 3)}
WORDS = ["", "a", "man", "woman"]
TABLE = torch.arange(28.0).view(4, 7)


def table(words: Sequence[str]) -> Tensor:
    return TABLE


VECTORS: dict[str, Callable[..., nn.Module]] = {
    "table": partial(WordTable, table=table),
    "projected": partial(ProjectedWords, table=table, size=7),
    "learned": partial(LearnedWords, size=7, num_words=9),
}


def encoder(*, image: str = "clip_resnet", vectors: str = "table", seed: int = 1) -> TwoStream:
    torch.manual_seed(seed)
    stream = ClipResNet(**CLIP) if image == "clip_resnet" else ResNet(**RESNET, last_stride=1)
    return TwoStream(
        stream,
        partial(BiGru, vectors=VECTORS[vectors], hidden_size=3),
        image_head=embed_layer,
        text_head=embed_layer,
        embedding_size=5,
        words=WORDS,
    )


HEADS = {
    "queues": {
        "image_head.": "embed_model.v_embed_layer.",
        "text_head.": "embed_model.t_embed_layer.",
    },
    "simple": {
        "image_head.": "embed_model.visual_embed_layer.",
        "text_head.": "embed_model.textual_embed_layer.",
    },
}
STREAMS = {
    "queues": {"image.": "embed_model.v_encoder_q.", "text.": "embed_model.t_encoder_q."},
    "simple": {"image.": "visual_model.", "text.": "textual_model."},
}
LAYOUTS = ["queues", "queues of the first commit", "simple"]


def renamed(state: dict[str, Tensor], names: dict[str, str]) -> dict[str, Tensor]:
    found = {}
    for name, row in state.items():
        for ours, theirs in names.items():
            if name.startswith(ours):
                found[theirs + name.removeprefix(ours)] = row.clone()
    return found


def official_state(model: TwoStream, layout: str = "queues") -> dict[str, Tensor]:
    """Return the weights as the official code saves them, with all that serves training alone."""
    state = {}
    for name, row in model.state_dict().items():
        name = name.replace("text.vectors.projection", "text.embed")
        name = name.replace("text.vectors.embedding", "text.embed")
        if not name.endswith("table"):
            state[name] = row
    kind = layout.split()[0]
    official = renamed(state, STREAMS[kind] | HEADS[kind])
    if layout == "queues":
        official |= renamed(state, STREAMS["simple"])
    if kind == "queues":
        keys = {"image.": "embed_model.v_encoder_k.", "text.": "embed_model.t_encoder_k."}
        official |= {name: row + 1 for name, row in renamed(state, keys).items()}
        official |= {f"embed_model.{side}_queue": torch.randn(5, 8) for side in "vt"}
        official["embed_model.id_queue"] = torch.full((1, 8), -1)
        official["embed_model.queue_ptr"] = torch.zeros(1, dtype=torch.int64)
        for name in ("v_fc_q", "v_fc_k", "t_fc_q", "t_fc_k"):
            official[f"embed_model.{name}.0.weight"] = torch.randn(5, 6)
    official["embed_model.loss_evaluator.projection"] = torch.randn(5, 11)
    return official


@pytest.mark.parametrize("vectors", VECTORS)
@pytest.mark.parametrize("image", ["clip_resnet", "resnet"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_official_weights_become_the_same_encoder(
    tmp_path: Path, layout: str, image: str, vectors: str
) -> None:
    model = encoder(image=image, vectors=vectors)
    official = official_state(model, layout)
    torch.save({f"module.{name}": row for name, row in official.items()}, tmp_path / "best.pth")

    imported = import_cm_moco(read_cm_moco(tmp_path / "best.pth"))

    expected = model.state_dict()
    assert imported.keys() == {name for name in expected if not name.endswith("table")}
    for name, row in imported.items():
        assert_close(row, expected[name], rtol=0, atol=0)


def test_an_encoder_with_imported_weights_keeps_its_own_word_table() -> None:
    model = encoder().eval()
    other = encoder(seed=2).eval()
    images = torch.randn(2, 3, 96, 32)
    tokens, length = torch.tensor([[1, 2, 3], [2, 0, 0]]), torch.tensor([3, 1])

    other.load_state_dict(import_cm_moco(official_state(model)))

    assert_close(other.text.vectors.table, TABLE)
    assert_close(other.embed_images(images), model.embed_images(images))
    expected = model.embed_texts(tokens, length, longest=3)
    assert_close(other.embed_texts(tokens, length, longest=3), expected)


def test_half_precision_is_widened_and_double_precision_kept() -> None:
    state = official_state(encoder(), "simple")
    name = "image_head.weight"

    for given, expected in [(torch.float16, torch.float32), (torch.float64, torch.float64)]:
        rows = {n: row.to(given) if row.is_floating_point() else row for n, row in state.items()}
        assert import_cm_moco(rows)[name].dtype == expected


def test_copies_that_differ_are_named() -> None:
    state = official_state(encoder())
    state["visual_model.layer2.0.bn1.running_mean"] += 1
    with pytest.raises(ValueError, match=r"v_encoder_q and visual_model .* 1 .*bn1\.running_mean"):
        import_cm_moco(state)

    state = official_state(encoder())
    del state["textual_model.gru.weight_hh_l0"]
    with pytest.raises(ValueError, match=r"t_encoder_q and textual_model .*weight_hh_l0"):
        import_cm_moco(state)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_missing_and_unknown_entries_are_named(layout: str) -> None:
    state = official_state(encoder(), layout)
    prefix = STREAMS[layout.split()[0]]["image."]
    copies = [prefix, "visual_model."] if layout == "queues" else [prefix]
    for each in copies:
        del state[f"{each}attnpool.k_proj.bias"]
    state["embed_model.other"] = torch.zeros(2)

    with pytest.raises(ValueError, match=r"1 entries are missing.*k_proj\.bias.*1 are.*\.other"):
        import_cm_moco(state)


def test_a_file_without_streams_is_no_cm_moco() -> None:
    with pytest.raises(ValueError, match=r"no entries embed_model\.v_encoder_q, .*v_embed_layer"):
        import_cm_moco({"conv1.weight": torch.zeros(1)})


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_sizes_are_read_from_the_weights(layout: str) -> None:
    architecture = architecture_of(official_state(encoder(vectors="projected"), layout))

    left_out = architecture.pop("left_out")
    assert architecture == {
        "embedding_size": 5,
        # as 64 channels per head would be
        "image": CLIP | {"kind": "clip_resnet", "name": None, "last_stride": 1, "heads": 2},
        "text": {"vectors": "projected", "size": 7, "hidden_size": 3, "table_size": 7},
    }
    assert ("embed_model.v_queue" in left_out) == (layout != "simple")
    assert "embed_model.loss_evaluator" in left_out
    assert "visual_model" not in str(left_out)


def test_an_imagenet_resnet_and_learned_words_are_recognised() -> None:
    state = official_state(encoder(image="resnet", vectors="learned"), "simple")
    state["visual_model.fc.weight"] = torch.zeros(10, 12)

    architecture = architecture_of(state)

    assert architecture["image"] == RESNET | {"kind": "resnet", "name": None, "last_stride": 1}
    assert architecture["text"] == {
        **{"vectors": "learned", "size": 7, "hidden_size": 3, "num_words": 9}
    }
    assert architecture["left_out"] == ["embed_model.loss_evaluator", "visual_model.fc"]
    assert "image.fc.weight" not in import_cm_moco(state)


@pytest.mark.parametrize(
    ("num_positions", "given", "expected"),
    [
        (192, None, ((384, 128), 1)),
        (49, None, ((224, 224), 2)),
        (128, None, (None, None)),
        (128, (256, 128), ((256, 128), 1)),
        (48, (384, 128), ((384, 128), 2)),
    ],
)
def test_image_size_and_stride_follow_from_the_positions(
    num_positions: int,
    given: tuple[int, int] | None,
    expected: tuple[tuple[int, int] | None, int | None],
) -> None:
    state = official_state(encoder(), "simple")
    state["visual_model.attnpool.positional_embedding"] = torch.zeros(1 + num_positions, 128)

    image = architecture_of(state, image_size=given)["image"]

    assert (image["image_size"], image["last_stride"]) == expected
    if expected[0] is None:
        with pytest.raises(ValueError, match="takes --image-size HxW"):
            recipe_of(architecture_of(state))


def test_an_image_size_that_the_positions_do_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"12 positions, which images of \(64, 64\)"):
        architecture_of(official_state(encoder()), image_size=(64, 64))


def test_a_checkpoint_file_becomes_the_start_of_a_run(tmp_path: Path) -> None:
    model = encoder()
    official = {"model": official_state(model), "optimizer": {}, "iteration": 3, "epoch": 80}
    torch.save(official, tmp_path / "best.pth")

    run_import("cm_moco", tmp_path / "best.pth", tmp_path / "best.safetensors")
    method = Method(optim=lambda module: None)
    method.encoder = encoder(seed=2)
    load_start(method, tmp_path / "best.safetensors")

    assert_close(method.encoder.state_dict(), model.state_dict())
    assert read_cm_moco(tmp_path / "best.pth").keys() == official["model"].keys()

"""The official checkpoint of a full-size model: names, shapes and numbers of parameters."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from crosswalk.encoders.classifier import NormalizedClassifier
from crosswalk.encoders.clip_resnet import ClipResNet
from crosswalk.encoders.heads import embed_layer
from crosswalk.encoders.resnet import ResNet
from crosswalk.encoders.text_recurrent import BiGru
from crosswalk.encoders.two_stream import TwoStream
from crosswalk.encoders.word_vectors import LearnedWords, ProjectedWords, WordTable
from crosswalk.importers.cm_moco import architecture_of, import_cm_moco
from tests.golden.harness import Case, golden

VECTORS = {"table": "table", "table+linear": "projected", "embedding": "learned"}


def state_of(case: Case) -> dict[str, Tensor]:
    """Return the state dict that the case lists, of zeros that take no memory."""
    rows = zip(case["sd_keys"], case["sd_shapes"], case["sd_dtypes"], strict=True)
    return {
        str(name): torch.zeros((), dtype=getattr(torch, str(dtype))).expand(
            [int(side) for side in str(shape).split(",") if side]
        )
        for name, shape, dtype in rows
    }


def image_stream(sizes: dict[str, Any]) -> nn.Module:
    kind = {"clip_resnet": ClipResNet, "resnet": ResNet}[sizes["kind"]]
    return kind(**{key: value for key, value in sizes.items() if key not in ("kind", "name")})


def text_stream(sizes: dict[str, Any]) -> partial[BiGru]:
    size = sizes["size"]
    if sizes["vectors"] == "learned":
        vectors: Any = partial(LearnedWords, size=size, num_words=sizes["num_words"])
    elif sizes["vectors"] == "projected":
        wide = sizes["table_size"]
        vectors = partial(
            ProjectedWords, table=lambda words: torch.empty(len(words), wide), size=size
        )
    else:
        vectors = partial(WordTable, table=lambda words: torch.empty(len(words), size))
    return partial(BiGru, vectors=vectors, hidden_size=sizes["hidden_size"])


def num_parameters(*modules: nn.Module) -> int:
    return sum(row.numel() for module in modules for row in module.parameters())


@golden("cm_moco", "layout", named=True)
def layout(case: Case) -> None:
    state = state_of(case)
    architecture = architecture_of(state)
    kind = "clip_resnet" if case.item("visual_model").startswith("m_") else "resnet"
    case.check(architecture["image"]["kind"] == kind, "the backbone is read from the weights")
    vectors = VECTORS[case.item("embedding_mode")]
    case.check(architecture["text"]["vectors"] == vectors, "so is the kind of word vectors")
    with torch.device("meta"):
        encoder = TwoStream(
            image_stream(architecture["image"]),
            text_stream(architecture["text"]),
            image_head=embed_layer,
            text_head=embed_layer,
            embedding_size=architecture["embedding_size"],
            words=["", "word"],
        )
        num_persons = state["embed_model.loss_evaluator.projection"].shape[1]
        classifier = NormalizedClassifier(architecture["embedding_size"], num_persons)
    wanted = {name: row for name, row in encoder.state_dict().items() if name[-5:] != "table"}

    imported = import_cm_moco(state)

    case.check(imported.keys() == wanted.keys(), "the encoder has an entry for each, and no more")
    for name, row in imported.items():
        case.check(row.shape == wanted[name].shape, f"{name} has the encoder's shape")
        case.check(row.dtype == wanted[name].dtype, f"{name} has the encoder's type")
    has_keys = case.item("head") == "moco"
    # the momentum copies are of the streams, not of the heads
    copies = num_parameters(encoder.image, encoder.text) if has_keys else 0
    parameters = num_parameters(encoder, classifier)
    case.equal("out_num_trainable", parameters)
    case.equal("out_num_params", parameters + copies)

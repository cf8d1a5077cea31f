"""CMMT's network, read from its checkpoint."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from crosswalk.encoders.heads import normed, normed_projection
from crosswalk.encoders.text_recurrent import BiLstm
from crosswalk.encoders.two_stream import TwoStream
from crosswalk.encoders.word_vectors import LearnedWords
from crosswalk.importers.cmmt import architecture_of, import_cmmt, read_cmmt
from tests.golden.harness import Case, golden

EXACT = {"rtol": 1e-9, "atol": 1e-12}
GRADIENT = {"rtol": 1e-7, "atol": 1e-11}
OURS = {
    "embed_weight": "text.vectors.embedding.weight",
    "conv_text_weight": "text.projection.weight",
    "conv_images_weight": "image_head.linear.weight",
    "conv_images_bias": "image_head.linear.bias",
    "conv_text_bias": "text.projection.bias",
}


class GivenMaps(nn.Identity):
    """Stands for the image stream where feature maps are recorded, not images."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features


@golden("cmmt", "tiny_model")
def tiny_model(case: Case) -> None:
    state = read_cmmt(case.path.with_name(f"{case.name}_state.npz"))
    sizes = architecture_of(state)
    encoder = TwoStream(
        GivenMaps(case["feature_map"].shape[1]),
        partial(BiLstm, vectors=partial(LearnedWords, **sizes["vectors"]), **sizes["text"]),
        image_head=normed_projection,
        text_head=normed,
        embedding_size=sizes["embedding_size"],
    )
    encoder.load_state_dict(import_cmmt(state))
    encoder.double()
    maps = case.tensor("feature_map", requires_grad=True)
    tokens, length = case.tensor("text"), case.tensor("text_length")
    longest = int(length.max())

    encoder.eval()
    with torch.no_grad():
        case.close("out_eval_image", encoder.embed_images(maps), **EXACT)
        case.close("out_eval_text", encoder.embed_texts(tokens, length, longest), **EXACT)
        states = encoder.text.states(tokens, length, longest).padded(0.0)
        case.close("out_eval_sequence", states, **EXACT)
        alone = encoder.embed_texts(tokens[:1], length[:1], int(length[0]))
    case.check(
        torch.allclose(alone[0], torch.tensor(case["out_eval_text"][0]), rtol=1e-9),
        "a batch of one is embedded as it is among others",
    )

    encoder.train()
    image, text = encoder.embed_images(maps), encoder.embed_texts(tokens, length, longest)
    loss = (image * case.tensor("probe_image")).sum() + (text * case.tensor("probe_text")).sum()
    loss.backward()

    case.close("out_train_image", image, **EXACT)
    case.close("out_train_text", text, **EXACT)
    case.close("out_grad_feature_map", maps.grad, **GRADIENT)
    parameters, buffers = dict(encoder.named_parameters()), dict(encoder.named_buffers())
    for name in case.outputs:
        if name.startswith("out_running_"):
            statistic, _, stream = name.removeprefix("out_").rpartition("_")
            norm = {"image": "image_head.norm", "text": "text_head"}[stream]
            case.close(name, buffers[f"{norm}.{statistic}"], **EXACT)
        elif name.startswith("out_grad_") and name != "out_grad_feature_map":
            official = name.removeprefix("out_grad_")
            gradient = parameters[OURS.get(official, f"text.lstm.{official}")].grad
            if gradient is not None:  # a 1x1 convolution there, a linear layer here
                gradient = gradient.view(case[name].shape)
            case.close(name, gradient, **GRADIENT)

"""Pooling, IBN, the whole network, its layout and its checkpoint."""

import re

import numpy as np
import torch
from torch import nn

from crosswalk.encoders.gem import GemPool
from crosswalk.encoders.ibn import InstanceBatchNorm, with_ibn
from crosswalk.encoders.image import ImageEncoder
from crosswalk.encoders.resnet import resnet
from crosswalk.importers.cluster_contrast import import_cluster_contrast
from tests.golden.adapters.cluster_contrast.given import (
    batch_of,
    encoder_of,
    method_of,
    official_name,
    state_of,
)
from tests.golden.harness import Case, golden

EXACT = {"rtol": 1e-9, "atol": 1e-9}


def gradient(case: Case, name: str, actual: torch.Tensor | None) -> None:
    """Compare a gradient to 1e-9 of its largest magnitude."""
    largest = float(np.abs(case.arrays[name]).max(initial=1e-30))
    case.close(name, actual, rtol=1e-9, atol=1e-9 * max(largest, 1.0))


@golden("cluster_contrast", "gem_pool")
def gem_pool(case: Case) -> None:
    x = case.tensor("x", requires_grad=True)
    pool = GemPool().double()
    pool.load_state_dict({"p": case.tensor("p")})
    pooled = pool(x)
    upstream = case.tensor("grad_pooled")
    pooled.backward(upstream.flatten(1))

    case.close("out_pooled", pooled.view(upstream.shape), **EXACT)
    gradient(case, "out_grad_x", x.grad)
    gradient(case, "out_grad_p", pool.p.grad)


@golden("cluster_contrast", "ibn_layer")
def ibn_layer(case: Case) -> None:
    x = case.tensor("x", requires_grad=True)
    norm = InstanceBatchNorm(x.shape[1]).double()
    norm.load_state_dict(state_of(case))
    norm.eval()
    with torch.no_grad():
        case.close("out_eval", norm(x), **EXACT)
    norm.train()
    out = norm(x)
    out.backward(case.tensor("grad_output"))

    case.close("out_train", out, **EXACT)
    gradient(case, "out_grad_x", x.grad)
    for name, parameter in norm.named_parameters():
        gradient(case, f"out_grad.{name}", parameter.grad)
    for name, buffer in norm.named_buffers():
        case.close(f"out_final.{name}", buffer, **EXACT)


@golden("cluster_contrast", "tiny_model")
def tiny_model(case: Case) -> None:
    encoder = encoder_of(case)
    image = case.tensor("image")
    method = method_of(encoder, num_samples=len(image)).double()
    batch = batch_of(image, torch.arange(len(image)))
    method.eval()
    with torch.no_grad():
        case.close("out_eval", method.embed(batch)["global"], **EXACT)
    method.train()
    embedding = method.embed(batch)["global"]
    embedding.backward(case.tensor("grad_embedding"))

    case.close("out_train", embedding, **EXACT)
    trained = {
        official_name(name): parameter
        for name, parameter in encoder.named_parameters()
        if parameter.requires_grad
    }
    case.equal("out_trainable", list(trained))
    for name, parameter in trained.items():
        gradient(case, f"out_grad.{name}", parameter.grad)
    for name, buffer in encoder.named_buffers():
        case.close(f"out_final.{official_name(name)}", buffer, **EXACT)


@golden("cluster_contrast", "model_layout")
def model_layout(case: Case) -> None:
    kind, ibn, depth = re.fullmatch(r"(resnet)(_ibn)?(\d+)a?", case.item("arch")).groups()
    with torch.device("meta"):
        backbone = resnet(f"{kind}{depth}", last_stride=1)
        encoder = ImageEncoder(
            with_ibn(backbone) if ibn else backbone, neck_bias=False, pooling=GemPool()
        )
    state = {official_name(name): row for name, row in encoder.state_dict().items()}
    parameters = dict(encoder.named_parameters())
    trained = [name for name, parameter in parameters.items() if parameter.requires_grad]

    case.equal("out_name", list(state))
    case.equal("out_shape", ["x".join(map(str, row.shape)) for row in state.values()])
    case.equal("out_dtype", [str(row.dtype).removeprefix("torch.") for row in state.values()])
    case.equal("out_trainable", [official_name(name) for name in trained])
    case.equal("out_num_trainable", sum(parameters[name].numel() for name in trained))
    case.equal("out_num_parameters", sum(each.numel() for each in parameters.values()))
    convolutions = [
        f"{official_name(f'{name}.weight').removesuffix('.weight')} {module.stride[0]}"
        for name, module in encoder.named_modules()
        if isinstance(module, nn.Conv2d)
    ]
    case.equal("out_conv_stride", convolutions)
    imported = import_cluster_contrast(state)
    case.check(imported.keys() == encoder.state_dict().keys(), "the importer knows all names")

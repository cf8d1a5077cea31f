"""Both methods in float64, with the sizes and the weights of a recorded model."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from crosswalk.encoders.clip import ClipDualEncoder
from crosswalk.encoders.clip_layers import ResNetLayers, VitLayers
from crosswalk.encoders.clip_resnet import ClipResNet
from crosswalk.encoders.clip_text import ClipText
from crosswalk.encoders.prompts import LearnedPrompts
from crosswalk.importers._files import entries_below
from crosswalk.importers.clip_reid import TEXTS, architecture_of, import_clip_reid
from crosswalk.methods.clip_reid import ClipReid, PromptLearning
from crosswalk.types import DataSpec
from tests.golden.harness import Case

NAMES = {
    "projected_classifier.": "classifier_proj.",
    "last_classifier.": "classifier.",
    "encoder.visual.": "image_encoder.",
    "encoder.last_neck.": "bottleneck.",
    "encoder.projected_neck.": "bottleneck_proj.",
    "encoder.cameras.weight": "cv_embed",
}
"""What parts are called in the released code."""


def model_of(case: Case) -> Case:
    """Return the recorded model of a case: its sizes, images and people."""
    name = case.name.partition("_stage")[0]
    return Case(case.folder / f"{name}_io.npz")


def state_of(case: Case) -> dict[str, Tensor]:
    """Return the official state dict at the start, in float64."""
    state = Case(case.folder / f"{model_of(case).name}_state.npz")
    tensors = {name: state.tensor(name) for name in state}
    return {n: row.double() if row.is_floating_point() else row for n, row in tensors.items()}


def images_of(case: Case) -> Tensor:
    mean, std = (case.tensor(name)[:, None, None] for name in ("mean", "std"))
    return (case.tensor("images").double() / 255 - mean) / std


def official_name(name: str) -> str:
    for ours, theirs in NAMES.items():
        if name.startswith(ours):
            return theirs + name[len(ours) :]
    return name


def sizes_of(case: Case) -> DataSpec:
    number = len(case["person_id"])
    return DataSpec(
        num_samples=number,
        num_images=number,
        num_person_ids=case.item("num_classes"),
        num_cameras=int(case["camera_id"].max()) + 2,
    )


def make_encoder(case: Case, state: dict[str, Tensor]) -> VitLayers | ResNetLayers:
    """Return the encoder with the recorded weights."""
    height, width = case["images"].shape[2:]
    stride = case.item("stride")
    sizes = architecture_of(
        state,
        image_size=(height, width),
        **({} if "image_encoder.proj" not in state else {"stride": stride}),
    )
    heads, kind = case.item("vision_heads"), sizes.pop("kind")
    sizes.pop("name")
    encoder: VitLayers | ResNetLayers
    if kind == "resnet":
        case.unused("sie", "sie_weight", reason="ResNets know no cameras")
        encoder = ResNetLayers(ClipResNet(**{**sizes, "heads": heads}))
    else:
        cameras = sizes.pop("num_cameras")
        text = {"text_width": 2, "text_layers": 1, "text_heads": 1, "context_length": 2}
        clip = ClipDualEncoder(**{**sizes, "vision_heads": heads}, **text, vocabulary_size=2)
        weight = case.item("sie_weight")
        encoder = VitLayers(
            clip, num_cameras=cameras if case.item("sie") else 0, camera_weight=weight
        )
    encoder.double()
    weights = import_clip_reid(state, text_heads=case.item("text_heads"))
    weights.pop(TEXTS)
    encoder.load_state_dict(weights)
    return encoder


def make_second(case: Case, state: dict[str, Tensor], **settings: Any) -> ClipReid:  # noqa: ANN401
    """Return the second training, logging nowhere; its weights are those of the ViT or the RN50."""
    encoder = make_encoder(case, state)
    if "identity_weight" not in settings:  # of the shipped configurations
        settings["identity_weight"] = 0.25 if isinstance(encoder, VitLayers) else 1.0
    settings.setdefault("optim", lambda module: None)
    method = ClipReid(encoder, sizes_of(case), **settings).double()
    with torch.no_grad():
        method.last_classifier.weight.copy_(state["classifier.weight"])
        method.projected_classifier.weight.copy_(state["classifier_proj.weight"])
    return quiet(method)


def make_prompts(case: Case, state: dict[str, Tensor], **settings: Any) -> PromptLearning:  # noqa: ANN401
    """Return the first training, logging nowhere."""
    text = entries_below("text_encoder.", state)
    context = state["prompt_learner.cls_ctx"]
    layers = len({name.split(".")[2] for name in text if name.startswith("transformer.")})
    encoder = ClipText(
        width=context.shape[2],
        layers=layers,
        heads=case.item("text_heads"),
        embed_dim=text["text_projection"].shape[1],
        context_length=len(text["positional_embedding"]),
        vocabulary_size=49408,
    )
    settings.setdefault("optim", lambda module: None)
    method = PromptLearning(
        make_encoder(case, state),
        sizes_of(case),
        prompts=partial(LearnedPrompts, encoder, num_words=context.shape[1]),
        **settings,
    ).double()
    prompts = method.prompts
    prompts.text.load_state_dict(text)
    with torch.no_grad():
        prompts.context.copy_(context)
        prompts.prefix.copy_(state["prompt_learner.token_prefix"])
        behind = prompts.suffix.shape[1]
        prompts.suffix.copy_(state["prompt_learner.token_suffix"][:, :behind])
    return quiet(method)


def quiet(method: Any) -> Any:  # noqa: ANN401
    method.log = lambda *args, **kwargs: None
    method.log_dict = lambda *args, **kwargs: None
    return method

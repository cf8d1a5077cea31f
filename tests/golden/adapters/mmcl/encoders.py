"""MMCL's network and its checkpoint."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from crosswalk.encoders.image import ImageEncoder
from crosswalk.encoders.resnet import ResNet
from crosswalk.importers.mmcl import architecture_of, import_mmcl, read_mmcl
from tests.golden.harness import Case, golden

EXACT = {"rtol": 1e-9, "atol": 1e-9}


@golden("mmcl", "tiny_model")
def tiny_model(case: Case) -> None:
    state = read_mmcl(case.path.with_name(f"{case.name}_state.npz"))
    architecture = architecture_of(state)
    backbone = architecture["backbone"]
    case.check(backbone["block"] == case.item("arch_block"), "the block is read from the weights")
    for key, ours in (("layers", "layers"), ("planes", "planes"), ("stem", "stem_width")):
        case.check(
            np.array_equal(case[f"arch_{key}"], backbone[ours]), f"{key} is read from the weights"
        )
    case.unused("arch_imagenet_classes", reason="of a layer that the official model never calls")
    num_classes = case.item("arch_num_classes")
    case.check(("classifier.weight" in state) == (num_classes > 0), "the state has the classifier")
    encoder = ImageEncoder(ResNet(**backbone), neck=architecture["neck"])
    encoder.load_state_dict(import_mmcl(state))
    encoder.double()
    images = case.tensor("images_int8").double() * case.item("image_scale")

    encoder.eval()
    with torch.no_grad():
        features, maps = encoder(images), encoder.backbone(images)
    case.close("out_raw_pool5", features.pooled, **EXACT)
    for name in ("out_pool5", "out_via_extract_cnn_feature"):
        case.close(name, F.normalize(features.pooled), **EXACT)
    case.close("out_l2feat_eval", F.normalize(features.neck), **EXACT)
    case.equal("out_feature_map_shape", maps.shape)
    if "out_bn_feat" in case:
        case.close("out_bn_feat", features.neck, **EXACT)
    if "out_classifier_logits" in case:
        classifier = nn.Linear(encoder.embedding_size, num_classes)
        classifier.load_state_dict(
            {part: state[f"classifier.{part}"] for part in ("weight", "bias")}
        )
        case.close("out_classifier_logits", classifier.double()(features.neck), **EXACT)

    encoder.train()
    with torch.no_grad():
        case.close("out_l2feat_train", F.normalize(encoder(images).neck), **EXACT)
    for statistic in ("mean", "var"):
        running = encoder.neck.get_buffer(f"running_{statistic}")
        case.close(f"out_neck_running_{statistic}_after_train", running, **EXACT)

    checkpoint = case.folder / f"{case.name.replace('model', 'checkpoint')}.pth.tar"
    if checkpoint.is_file():
        same = read_mmcl(checkpoint)
        case.check(
            same.keys() == state.keys() and all(torch.equal(same[key], state[key]) for key in same),
            "the checkpoint holds the same state dict",
        )

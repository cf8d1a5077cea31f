"""MAR's network: head, tiny and full ResNet, checkpoint."""

import numpy as np
import torch
from torch import Tensor, nn

from crosswalk.encoders.image import ImageEncoder, norm_scale
from crosswalk.encoders.resnet import ResNet
from crosswalk.importers.mar import AGENTS, architecture_of, import_mar
from tests.golden.harness import Case, golden

EXACT = {"rtol": 1e-9, "atol": 1e-12}
GRADIENT = {"rtol": 1e-8, "atol": 1e-10}


class Maps(nn.Identity):
    """A backbone whose input is its output."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features


@golden("mar", "head")
def head(case: Case) -> None:
    maps = case.tensor("feature_map", requires_grad=True)
    weight = case.tensor("weight", requires_grad=True)

    feature = norm_scale(ImageEncoder(Maps(maps.shape[1]), neck="none")(maps).pooled)
    agents = norm_scale(weight)
    similarity = feature @ agents.T
    cotangents = case.tensor("cot_feature"), case.tensor("cot_similarity")
    torch.autograd.backward([feature, similarity], list(cotangents))

    case.close("out_feature", feature, **EXACT)
    case.close("out_agents", agents, **EXACT)
    case.close("out_similarity", similarity, **EXACT)
    # a row below 1e-5 is multiplied by 1e5, so its gradient is of that size
    case.close("out_grad_feature_map", maps.grad, **GRADIENT)
    case.close("out_grad_weight", weight.grad, **GRADIENT)


def encoder_of(state: dict[str, Tensor]) -> tuple[ImageEncoder, Tensor]:
    """Return the network of an official state dict in float64, and its scaled agents."""
    architecture = architecture_of(state)
    encoder = ImageEncoder(ResNet(**architecture["backbone"]), neck=architecture["neck"])
    weights = import_mar(state)
    agents = norm_scale(weights.pop(AGENTS).double())
    encoder.load_state_dict(weights)
    return encoder.double(), agents


@golden("mar", "tiny_resnet")
def tiny_resnet(case: Case) -> None:
    state = {name[3:]: case.tensor(name) for name in case if name.startswith("sd.")}
    encoder, agents = encoder_of(state)
    images = case.tensor("images").double()
    backbone = architecture_of(state)["backbone"]
    case.check(backbone["layers"] == tuple(case["layers"]), "layers are read from the weights")
    case.check(backbone["stem_width"] == case.item("width"), "the width is read from the weights")
    case.check(len(agents) == case.item("num_classes"), "an agent stands for each class")

    encoder.eval()
    with torch.no_grad():
        maps = encoder.backbone(images)
        feature = norm_scale(encoder(images).pooled)
    case.close("out_eval_feature", feature, **EXACT)
    case.close("out_eval_similarity", feature @ agents.T, **EXACT)
    case.close("out_eval_feature_map_mean", maps.mean(dim=(2, 3)), **EXACT)
    case.equal("out_eval_feature_map_shape", maps.shape)
    case.close("out_eval_feature_map_min", maps.min(), **EXACT)

    encoder.train()
    feature = norm_scale(encoder(images).pooled)
    weight = torch.linspace(-1, 1, feature.numel(), dtype=torch.float64).view_as(feature)
    (feature * weight).sum().backward()
    case.close("out_train_feature", feature, **EXACT)
    case.close("out_train_similarity", feature @ agents.T, **EXACT)
    backbone = encoder.backbone
    assert isinstance(backbone, ResNet)
    case.close("out_train_bn1_running_mean", backbone.bn1.running_mean, **EXACT)
    case.close("out_train_bn1_running_var", backbone.bn1.running_var, **EXACT)
    case.close("out_train_grad_conv1", backbone.conv1.weight.grad, **GRADIENT)
    last = backbone.layer4[-1].bn3.weight
    case.close("out_train_grad_layer4_last_bn3", last.grad, **GRADIENT)


def recipe_array(key: str, shape: tuple[int, ...], seed: int) -> Tensor:
    """Return the numbers of one entry as the README of the golden files prescribes."""
    random = np.random.RandomState(seed)
    if key.endswith("num_batches_tracked"):
        return torch.tensor(0)
    if key.endswith("running_mean"):
        array = 0.1 * random.standard_normal(shape)
    elif key.endswith("running_var"):
        array = 0.5 + random.random_sample(shape)
    elif len(shape) == 4:
        array = random.standard_normal(shape) * np.sqrt(2 / (shape[0] * shape[2] * shape[3]))
    elif len(shape) == 2:
        array = random.standard_normal(shape) / np.sqrt(shape[1])
    elif key.endswith("weight"):
        array = 0.5 + random.random_sample(shape)
    else:
        array = 0.1 * random.standard_normal(shape)
    return torch.from_numpy(array.astype(np.float32))


@golden("mar", "resnet50_recipe")
def resnet50_recipe(case: Case) -> None:
    rows = zip(case["state_dict_keys"], case["state_dict_shapes"], strict=True)
    state = {
        str(key): recipe_array(str(key), tuple(side for side in shape if side), seed)
        for seed, (key, shape) in enumerate(rows, start=case.item("seed"))
    }
    first = case.tensor("check_conv1_first")
    case.check(torch.equal(state["conv1.weight"].flatten()[: len(first)], first), "conv1 as drawn")
    total = state["fc.weight"].double().sum().item()
    case.check(abs(total - case.item("check_fc_sum")) < 1e-6, "fc as drawn")
    case.check(architecture_of(state)["name"] == "resnet50", "the weights are those of a resnet50")
    encoder, agents = encoder_of(state)
    case.check(len(agents) == case.item("num_classes"), "an agent stands for each class")
    images = case.tensor("images").double()

    encoder.eval()
    with torch.no_grad():
        feature = norm_scale(encoder(images).pooled)
        shape = encoder.backbone(images).shape
    case.close("out_feature", feature, **EXACT)
    case.close("out_similarity", feature @ agents.T, **EXACT)
    case.equal("out_feature_map_shape", shape)

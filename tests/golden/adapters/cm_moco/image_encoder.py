"""CM-MoCo's image stream, and the positions of its attention pool."""

import math

import torch

from crosswalk.encoders.clip_resnet import ClipResNet
from crosswalk.encoders.clip_weights import interpolate_positions
from tests.golden.harness import Case, golden

EXACT = {"rtol": 1e-9, "atol": 1e-12}
GRADIENT = {"rtol": 1e-7, "atol": 1e-11}


@golden("cm_moco", "clip_resnet")
def clip_resnet(case: Case) -> None:
    encoder = ClipResNet(
        case["layers"].tolist(),
        width=case.item("width"),
        output_dim=case.item("output_dim"),
        heads=case.item("heads"),
        image_size=tuple(case["input_resolution"].tolist()),
        last_stride=case.item("last_stride"),
    ).double()
    encoder.load_state_dict({n[4:]: case.tensor(n) for n in case if n.startswith("sd__")})
    images = case.tensor("images")

    encoder.eval()
    with torch.no_grad():
        case.close("out_eval", encoder(images), **EXACT)
    encoder.train()
    features = encoder(images)
    (features * case.tensor("cotangent")).sum().backward()

    case.close("out_train", features, **EXACT)
    state = encoder.state_dict()
    for name in case.outputs:
        if name.startswith("out_grad_"):
            gradient = encoder.get_parameter(name.removeprefix("out_grad_")).grad
            case.close(name, gradient, **GRADIENT)
        elif name.startswith("out_after_train_"):
            ours = state[name.removeprefix("out_after_train_")]
            if ours.is_floating_point():
                case.close(name, ours, **EXACT)
            else:
                case.equal(name, ours)


@golden("cm_moco", "pos_embed_resize")
def pos_embed_resize(case: Case) -> None:
    rows = case.tensor("pos_embed")
    side = math.isqrt(len(rows) - 1)
    rows_wanted, columns_wanted = case["new_grid"].tolist()
    resized = interpolate_positions(rows, (side, side), (rows_wanted, columns_wanted))
    case.close("out_pos_embed", resized, **EXACT)

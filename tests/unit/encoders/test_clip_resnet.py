import copy
import math
from collections.abc import Callable
from pathlib import Path

import open_clip
import pytest
import torch
from open_clip.modified_resnet import AttentionPool2d, ModifiedResNet
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.testing import assert_close

from crosswalk.encoders import clip_resnet as module
from crosswalk.encoders.batch_norm import GroupBatchNorm
from crosswalk.encoders.clip_resnet import AttentionPool, ClipResNet, clip_resnet
from crosswalk.encoders.clip_weights import interpolate_positions

SMALL = {"width": 4, "output_dim": 5, "heads": 2}


def set_scales_to_one(encoder: nn.Module) -> None:
    """Let the residual branches, which start at 0, take part."""
    for name, parameter in encoder.named_parameters():
        if name.endswith("bn3.weight"):
            nn.init.uniform_(parameter, 0.5, 1.5)


def square_twins(seed: int) -> tuple[ClipResNet, ModifiedResNet]:
    """Return our encoder and open_clip's with the same weights, for 64x64 images."""
    torch.manual_seed(seed)
    theirs = ModifiedResNet([2, 1, 1, 1], image_size=64, **SMALL).double()
    set_scales_to_one(theirs)
    ours = ClipResNet([2, 1, 1, 1], image_size=(64, 64), last_stride=2, **SMALL).double()
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


@pytest.mark.parametrize("training", [False, True])
def test_vectors_and_gradients_are_those_of_open_clip(training: bool) -> None:
    ours, theirs = square_twins(seed=1)
    images = torch.randn(3, 3, 64, 64, dtype=torch.float64)
    weight = torch.randn(3, 5, dtype=torch.float64)

    vectors = [encoder.train(training)(images) for encoder in (ours, theirs)]
    for each in vectors:
        (each * weight).sum().backward()

    assert_close(vectors[0], vectors[1], rtol=1e-9, atol=1e-12)
    expected = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        assert_close(parameter.grad, expected[name].grad, rtol=1e-7, atol=1e-10)
    for name, buffer in ours.named_buffers():
        assert_close(buffer, theirs.get_buffer(name))


def test_with_last_stride_1_only_the_averages_of_the_last_stage_are_missing() -> None:
    torch.manual_seed(2)
    ours, theirs = square_twins(seed=2)
    wide = ClipResNet([2, 1, 1, 1], image_size=(64, 64), last_stride=1, **SMALL).double()
    state = theirs.state_dict() | {
        "attnpool.positional_embedding": wide.attnpool.positional_embedding.detach()
    }
    wide.load_state_dict(state)
    theirs.load_state_dict(ours.state_dict())
    first = theirs.layer4[0]
    first.avgpool, first.downsample[0] = nn.Identity(), nn.Identity()
    theirs.attnpool = AttentionPool2d(4, 128, 2, 5).double()
    theirs.load_state_dict(state)
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)

    assert_close(wide.eval()(images), theirs.eval()(images), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("grid", [(1, 1), (3, 2), (1, 7)])
def test_the_pool_attends_from_the_mean_to_everything(grid: tuple[int, int], heads: int) -> None:
    torch.manual_seed(3)
    pool = AttentionPool(6, grid=grid, heads=heads, output_dim=4).double()
    maps = torch.randn(2, 6, *grid, dtype=torch.float64)
    size = 6 // heads

    pooled = pool(maps)

    for row, each in enumerate(maps):
        cells = [each[:, y, x] for y in range(grid[0]) for x in range(grid[1])]
        mean = torch.stack(cells).mean(dim=0)
        tokens = [
            cell + position
            for cell, position in zip([mean, *cells], pool.positional_embedding, strict=True)
        ]
        query = pool.q_proj(tokens[0])
        mixed = []
        for head in range(heads):
            part = slice(head * size, (head + 1) * size)
            products = [
                (query[part] @ pool.k_proj(token)[part]).item() / math.sqrt(size)
                for token in tokens
            ]
            total = sum(math.exp(product) for product in products)
            mixed += [
                sum(
                    math.exp(product) / total * pool.v_proj(token)[part]
                    for product, token in zip(products, tokens, strict=True)
                )
            ]
        assert_close(pooled[row], pool.c_proj(torch.cat(mixed)), rtol=1e-9, atol=1e-12)


def test_the_bias_of_the_keys_does_nothing_and_has_a_gradient_of_exactly_0() -> None:
    torch.manual_seed(4)
    pool = AttentionPool(6, grid=(3, 2), heads=2, output_dim=4)
    nn.init.normal_(pool.k_proj.bias)
    maps = torch.randn(2, 6, 3, 2)

    before = pool(maps)
    before.square().sum().backward()
    nn.init.normal_(pool.k_proj.bias)

    # without one distributed training stops; Adam makes whole steps of rounding errors
    assert_close(pool.k_proj.bias.grad, torch.zeros(6), rtol=0, atol=0)
    assert_close(pool(maps), before)


def test_vectors_are_pooled_in_float32_under_autocast() -> None:
    torch.manual_seed(5)
    pool = AttentionPool(6, grid=(3, 2), heads=2, output_dim=4)
    maps = torch.randn(2, 6, 3, 2)

    with torch.autocast("cpu", torch.bfloat16):
        pooled = pool(maps)

    assert pooled.dtype == torch.float32
    assert_close(pooled, pool(maps), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("image_size", "last_stride", "grid"),
    [
        ((384, 128), 1, (24, 8)),
        ((384, 128), 2, (12, 4)),
        ((96, 32), 1, (6, 2)),
        ((31, 17), 1, (2, 1)),
    ],
)
def test_the_pool_has_the_grid_of_the_last_map(
    image_size: tuple[int, int], last_stride: int, grid: tuple[int, int]
) -> None:
    encoder = ClipResNet((1, 1, 1, 1), image_size=image_size, last_stride=last_stride, **SMALL)

    assert encoder.attnpool.grid == grid
    assert encoder(torch.randn(2, 3, *image_size)).shape == (2, 5)


def test_images_of_another_size_are_refused() -> None:
    encoder = ClipResNet((1, 1, 1, 1), image_size=(64, 32), **SMALL)

    with pytest.raises(ValueError, match=r"last map has \(2, 4\).*made for \(4, 2\)"):
        encoder(torch.zeros(1, 3, 32, 64))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": (64, 14)}, "leave a map of 4x0"),
        ({"heads": 3}, "128 channels are no multiple of the 3"),
    ],
)
def test_wrong_sizes_are_named(change: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {"image_size": (64, 32)} | SMALL | change

    with pytest.raises(ValueError, match=message):
        ClipResNet((1, 1, 1, 1), **arguments)


@pytest.mark.parametrize(("name", "num_parameters"), [("RN50", 38_609_760), ("RN101", 56_552_800)])
def test_published_encoders_have_the_published_numbers_of_parameters(
    name: str, num_parameters: int
) -> None:
    # of the trainable ones in CM-MoCo are no part of it: GRU, embed layers and classifier
    with torch.device("meta"):
        encoder = clip_resnet(name, image_size=(384, 128))

    assert sum(parameter.numel() for parameter in encoder.parameters()) == num_parameters
    assert encoder.attnpool.positional_embedding.shape == (193, 2048)
    assert encoder.attnpool.heads == 32
    assert encoder.num_features == {"RN50": 1024, "RN101": 512}[name]


@pytest.mark.parametrize("name", ["RN50", "RN50x4"])
def test_names_of_the_state_are_those_of_open_clip(name: str) -> None:
    with torch.device("meta"):
        ours = clip_resnet(name, image_size=(288, 288), last_stride=2)
        config = open_clip.get_model_config(name)
        config["vision_cfg"]["image_size"] = 288
        theirs = open_clip.CLIP(**config).visual

    shapes = {key: row.shape for key, row in theirs.state_dict().items()}
    assert {key: row.shape for key, row in ours.state_dict().items()} == shapes
    assert ours.attnpool.heads == theirs.attnpool.num_heads


def test_an_encoder_starts_as_clip_does() -> None:
    torch.manual_seed(6)
    encoder = ClipResNet((2, 1, 1, 1), image_size=(64, 32), **SMALL)

    for name, parameter in encoder.named_parameters():
        if name.startswith("layer") and name.endswith("bn3.weight"):
            assert not parameter.any()
        elif "bn" in name and name.endswith("weight"):
            assert bool((parameter == 1).all())
    for layer in ("k_proj", "q_proj", "v_proj"):
        spread = encoder.attnpool.get_parameter(f"{layer}.weight").std().item()
        assert spread == pytest.approx(128**-0.5, rel=0.05)


def test_every_normalisation_has_the_group_size() -> None:
    encoder = clip_resnet("tiny", image_size=(96, 32), group_size=7)

    norms = [part for part in encoder.modules() if isinstance(part, GroupBatchNorm)]
    assert len(norms) == 3 + 4 * 4
    assert {norm.group_size for norm in norms} == {7}
    assert not any(isinstance(part, nn.BatchNorm2d) for part in encoder.modules())


def test_a_copy_shares_nothing_and_computes_the_same() -> None:
    torch.manual_seed(7)
    encoder = clip_resnet("tiny", image_size=(96, 32)).eval()
    images = torch.randn(2, 3, 96, 32)

    copied = copy.deepcopy(encoder)
    expected = encoder(images)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(1)

    assert_close(copied(images), expected, rtol=0, atol=0)


def test_pixels_in_another_order_of_memory_give_the_same_vectors() -> None:
    torch.manual_seed(8)
    encoder = clip_resnet("tiny", image_size=(96, 32)).double()
    images = torch.randn(2, 3, 96, 32, dtype=torch.float64)
    expected = encoder(images)

    encoder.to(memory_format=torch.channels_last)

    assert_close(encoder(images.contiguous(memory_format=torch.channels_last)), expected)


@pytest.fixture
def square_weights() -> dict[str, Tensor]:
    """Weights of a square CLIP: image stream and text, as OpenAI names them."""
    torch.manual_seed(9)
    theirs = ModifiedResNet([1, 1, 1, 1], output_dim=128, heads=4, image_size=96, width=12)
    state = {f"visual.{name}": row for name, row in theirs.state_dict().items()}
    return state | {"logit_scale": torch.tensor(4.6), "ln_final.weight": torch.ones(3)}


def as_saved(weights: dict[str, Tensor], kind: str) -> dict[str, Tensor]:
    image = {name[7:]: row for name, row in weights.items() if name.startswith("visual.")}
    if kind == "image stream":
        return image
    if kind == "half":
        return {n: row.half() if row.is_floating_point() else row for n, row in weights.items()}
    if kind == "no counters":
        return {name: row for name, row in weights.items() if not name.endswith("_tracked")}
    return weights


@pytest.mark.parametrize("kind", ["whole clip", "image stream", "half", "no counters"])
def test_weights_are_loaded_and_positions_interpolated_in_float32(
    tmp_path: Path, square_weights: dict[str, Tensor], kind: str
) -> None:
    saved = as_saved(square_weights, kind)
    save_file(saved, tmp_path / "clip.safetensors")

    encoder = clip_resnet(
        "tiny", image_size=(96, 32), pretrained=str(tmp_path / "clip.safetensors")
    )

    state = encoder.state_dict()
    prefix = "" if kind == "image stream" else "visual."
    positions = saved[f"{prefix}attnpool.positional_embedding"].float()
    assert_close(
        state.pop("attnpool.positional_embedding"),
        torch.cat([positions[:1], interpolate_positions(positions, (3, 3), (6, 2))[1:]]),
    )
    for name, row in state.items():
        expected = saved.get(prefix + name, torch.tensor(0))
        assert_close(row, expected.to(row.dtype), rtol=0, atol=0)


def test_as_many_positions_as_the_encoder_has_are_its_own_though_a_square_has_as_many() -> None:
    encoder = ClipResNet((1, 1, 1, 1), image_size=(64, 16), **SMALL)  # 4x1 positions
    weights = encoder.state_dict()
    weights["attnpool.positional_embedding"] = torch.arange(5.0)[:, None].repeat(1, 128)

    module._load(encoder, weights, origin="clip.pt")

    assert_close(encoder.attnpool.positional_embedding[:, 0].detach(), torch.arange(5.0))


def test_positions_of_the_encoders_own_grid_are_kept() -> None:
    encoder = ClipResNet((1, 1, 1, 1), image_size=(96, 32), **SMALL)
    weights = {name: torch.randn(row.shape) for name, row in encoder.state_dict().items()}

    module._load(encoder, weights, origin="clip.pt")

    name = "attnpool.positional_embedding"
    assert_close(encoder.state_dict()[name], weights[name])


def without_a_layer(weights: dict[str, Tensor]) -> None:
    del weights["visual.layer3.0.conv1.weight"]


def with_another_layer(weights: dict[str, Tensor]) -> None:
    weights["visual.layer3.1.conv1.weight"] = torch.zeros(1)


def of_another_width(weights: dict[str, Tensor]) -> None:
    weights["visual.conv1.weight"] = torch.zeros(8, 3, 3, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_a_layer, r"layer3\.0\.conv1"),
        (with_another_layer, r"layer3\.1\.conv1"),
        (of_another_width, "shapes that differ: conv1"),
    ],
)
def test_weights_of_another_encoder_are_refused(
    tmp_path: Path,
    square_weights: dict[str, Tensor],
    change: Callable[[dict[str, Tensor]], None],
    message: str,
) -> None:
    change(square_weights)
    torch.save(square_weights, tmp_path / "clip.pt")

    with pytest.raises(ValueError, match=rf"(?s)encoder\.image\.pretrained=.*{message}"):
        clip_resnet("tiny", image_size=(96, 32), pretrained=str(tmp_path / "clip.pt"))


def test_positions_that_fit_no_grid_are_refused(
    tmp_path: Path, square_weights: dict[str, Tensor]
) -> None:
    square_weights["visual.attnpool.positional_embedding"] = torch.zeros(8, 384)
    torch.save(square_weights, tmp_path / "clip.pt")

    with pytest.raises(ValueError, match=r"positional_embedding.*\[8, 384\]"):
        clip_resnet("tiny", image_size=(96, 32), pretrained=str(tmp_path / "clip.pt"))


def test_unknown_names_and_tags_are_answered_with_those_there_are() -> None:
    for name in ("RN51", "ViT-B-16"):
        with pytest.raises(ValueError, match=r"none of CLIP's ResNets: tiny, .*RN50x4"):
            clip_resnet(name, image_size=(96, 32))
    with pytest.raises(FileNotFoundError, match=r"encoder\.image\.pretrained=opnai.*openai"):
        clip_resnet("RN50", image_size=(96, 32), pretrained="opnai")

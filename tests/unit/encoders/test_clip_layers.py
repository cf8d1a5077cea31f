"""Features of CLIP's last layers, cameras, and necks."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from crosswalk.encoders.clip import ClipDualEncoder
from crosswalk.encoders.clip_layers import ResNetLayers, VitLayers
from crosswalk.encoders.clip_resnet import clip_resnet


def vit(*, stride: int | None = None, **settings: object) -> VitLayers:
    torch.manual_seed(3)
    clip = ClipDualEncoder(
        image_size=(40, 24),
        patch_size=8,
        stride=stride,
        vision_width=12,
        vision_layers=3,
        vision_heads=3,
        text_width=8,
        text_layers=1,
        text_heads=1,
        embed_dim=5,
        context_length=4,
        vocabulary_size=6,
    )
    return VitLayers(clip, **settings).double()


def pictures(number: int) -> Tensor:
    return torch.randn(number, 3, 40, 24, generator=torch.Generator().manual_seed(1)).double()


@pytest.mark.parametrize(("stride", "patches"), [(None, 15), (6, 18)])
def test_features_are_the_class_token_before_and_behind_the_last_block(
    stride: int | None, patches: int
) -> None:
    encoder, images = vit(stride=stride), pictures(3)
    visual = encoder.visual

    features = encoder.layer_features(images)

    rows = visual.conv1(images).flatten(2).mT
    assert rows.shape[1] == patches
    hidden = torch.cat([visual.class_embedding.expand(3, 1, -1), rows], dim=1)
    hidden = visual.ln_pre(hidden + visual.positional_embedding)
    *blocks, last = visual.transformer.resblocks
    for block in blocks:
        hidden = block(hidden)
    behind = visual.ln_post(last(hidden)[:, 0])
    torch.testing.assert_close(features.earlier, hidden[:, 0])
    torch.testing.assert_close(features.last, behind)
    torch.testing.assert_close(features.projected, behind @ visual.proj)


def test_a_camera_shifts_the_class_token_by_its_row() -> None:
    encoder, images = vit(num_cameras=3, camera_weight=0.5), pictures(2)
    encoder.eval()
    before = encoder.visual.class_embedding.detach().clone()

    found = encoder.layer_features(images, torch.tensor([3, 3])).projected

    with torch.no_grad():
        encoder.visual.class_embedding.copy_(before + 0.5 * encoder.cameras.weight[3])
    torch.testing.assert_close(found, encoder.layer_features(images).projected)


@pytest.mark.parametrize("camera", [0, -1])
def test_a_camera_that_nobody_tells_adds_nothing(camera: int) -> None:
    encoder, images = vit(num_cameras=3).eval(), pictures(2)

    features = encoder.layer_features(images, torch.tensor([camera, 1]))
    (features.last.square().sum()).backward()

    torch.testing.assert_close(features.last[0], encoder.layer_features(images).last[0])
    assert not torch.allclose(features.last[1], encoder.layer_features(images).last[1])
    assert not encoder.cameras.weight[0].any()
    assert not encoder.cameras.weight.grad[0].any()
    assert encoder.cameras.weight.grad[1].any()


def test_an_unknown_camera_is_answered_with_those_that_were_learned() -> None:
    encoder = vit(num_cameras=6)

    with pytest.raises(ValueError, match=r"by camera 7.*1 to 6 \(encoder.num_cameras\)"):
        encoder.layer_features(pictures(2), torch.tensor([6, 7]))


def test_without_a_table_cameras_change_nothing() -> None:
    encoder, images = vit(), pictures(2)

    torch.testing.assert_close(
        encoder.layer_features(images, torch.tensor([1, 99])).last,
        encoder.layer_features(images).last,
        rtol=0,
        atol=0,
    )


def test_necks_have_statistics_of_their_own_and_a_shift_that_stays() -> None:
    encoder, images = vit(), pictures(5)

    features = encoder.layer_features(images)

    for name in ("last", "projected"):
        rows = getattr(features, name)
        expected = F.batch_norm(rows, None, None, training=True)
        torch.testing.assert_close(getattr(features, f"{name}_neck"), expected)
        assert not getattr(encoder, f"{name}_neck").bias.requires_grad
        assert getattr(encoder, f"{name}_neck").weight.requires_grad


def test_a_resnet_gives_the_averages_of_its_last_stages() -> None:
    torch.manual_seed(2)
    encoder = ResNetLayers(clip_resnet("tiny", image_size=(64, 32))).double().eval()
    images = torch.randn(3, 3, 64, 32).double()
    maps = {}
    for name in ("layer3", "layer4"):
        encoder.visual.get_submodule(name).register_forward_hook(
            lambda module, given, out, name=name: maps.update({name: out})
        )

    features = encoder.layer_features(images, torch.tensor([1, 2, 9]))

    torch.testing.assert_close(features.earlier, maps["layer3"].mean(dim=(2, 3)))
    torch.testing.assert_close(features.last, maps["layer4"].mean(dim=(2, 3)))
    torch.testing.assert_close(features.projected, encoder.visual(images))
    assert maps["layer3"].shape[2:] == maps["layer4"].shape[2:] == (4, 2)

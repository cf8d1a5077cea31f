import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from crosswalk.encoders.batch_norm import GroupBatchNorm
from crosswalk.encoders.image import ImageEncoder, norm_scale
from crosswalk.encoders.resnet import resnet, timm_backbone


class Maps(nn.Identity):
    """A backbone whose input is its output."""

    num_features = 3


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)


@pytest.mark.parametrize("shape", [(5, 3, 1, 1), (5, 3, 4, 2), (1, 3, 7, 3)], ids=str)
def test_pooled_features_are_the_mean_of_all_positions(shape: tuple[int, ...]) -> None:
    maps = random(*shape)

    features = ImageEncoder(Maps(), neck="none")(maps)

    for sample in range(shape[0]):
        for channel in range(3):
            values = maps[sample, channel].flatten().tolist()
            expected = sum(values) / len(values)
            assert features.pooled[sample, channel].item() == pytest.approx(expected)
    assert torch.equal(features.neck, features.pooled)


def test_vectors_of_a_backbone_are_taken_as_they_are() -> None:
    encoder = ImageEncoder(timm_backbone("vit_tiny_patch16_224", pretrained=False), neck="none")
    x = torch.randn(1, 3, 224, 224)

    assert encoder.embedding_size == 192
    assert_close(encoder(x).pooled, encoder.backbone(x))


@pytest.mark.parametrize("training", [True, False])
def test_the_neck_is_a_batch_normalisation_of_the_pooled_features(training: bool) -> None:
    encoder = ImageEncoder(Maps()).double().train(training)
    expected = nn.BatchNorm1d(3).double().train(training)
    assert_close(encoder.neck.state_dict(), expected.state_dict())
    maps = random(5, 3, 4, 2)

    features = encoder(maps)

    assert_close(features.neck, expected(maps.mean(dim=(2, 3))))
    assert_close(encoder.neck.state_dict(), expected.state_dict())


def test_the_neck_has_groups() -> None:
    encoder = ImageEncoder(Maps(), group_size=2).double()
    maps = random(4, 3, 2, 2)

    together = encoder(maps).neck

    assert_close(together[:2], encoder(maps[:2]).neck)
    assert_close(together[2:], encoder(maps[2:]).neck)


@pytest.mark.parametrize("neck_bias", [True, False])
def test_a_neck_without_bias_keeps_it_at_zero(neck_bias: bool) -> None:
    encoder = ImageEncoder(Maps(), neck_bias=neck_bias)
    trained = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
    sgd = torch.optim.SGD(trained, lr=1.0)

    (encoder(random(5, 3, 2, 2).float()).neck * torch.arange(5.0)[:, None]).sum().backward()
    sgd.step()

    assert isinstance(encoder.neck, GroupBatchNorm)
    assert bool((encoder.neck.bias != 0).all()) == neck_bias
    assert bool((encoder.neck.weight != 1).all())


def test_channels_last_changes_rounding_only() -> None:
    torch.manual_seed(0)
    plain = ImageEncoder(resnet("tiny", last_stride=1)).double()
    other = ImageEncoder(resnet("tiny", last_stride=1), channels_last=True).double()
    other.load_state_dict(plain.state_dict())
    x = random(4, 3, 64, 32)

    features, same = plain(x), other(x)
    (features.neck.square() * random(4, 128)).sum().backward()
    (same.neck.square() * random(4, 128)).sum().backward()

    assert_close(same, features)
    for ours, theirs in zip(other.parameters(), plain.parameters(), strict=True):
        assert_close(ours.grad, theirs.grad)
    assert other.backbone(x).is_contiguous(memory_format=torch.channels_last)
    weight = other.backbone.get_parameter("layer2.0.conv1.weight")
    assert weight.is_contiguous(memory_format=torch.channels_last)


def test_features_are_float32_under_autocast() -> None:
    encoder = ImageEncoder(resnet("tiny"))

    with torch.autocast("cpu", torch.bfloat16):
        features = encoder(torch.randn(4, 3, 64, 32))
        maps = encoder.backbone(torch.randn(4, 3, 64, 32))

    assert maps.dtype == torch.bfloat16
    assert (features.pooled.dtype, features.neck.dtype) == (torch.float32, torch.float32)


@pytest.mark.parametrize("length", [2.0, 1.1e-5, 1e-5, 3e-6, 0.0])
def test_rows_are_scaled_by_their_length_with_a_floor(length: float) -> None:
    rows = torch.tensor([[0.6, -0.8, 0.0]], dtype=torch.float64) * length

    norm = sum(value**2 for value in rows[0].tolist()) ** 0.5
    factor = 1 / (norm + 1e-7) if norm > 1e-5 else 1e5
    assert_close(norm_scale(rows), rows * factor)


def test_the_gradient_of_scaled_rows_follows_their_length() -> None:
    rows = torch.cat([random(4, 5), random(2, 5) * 1e-6]).requires_grad_()

    # steps of 1e-10 lie below the short rows; relative to their slope of 1e5
    assert torch.autograd.gradcheck(norm_scale, (rows,), eps=1e-10, atol=1e-4, rtol=1e-4)


def test_a_row_of_zeros_has_a_gradient() -> None:
    rows = torch.zeros(2, 3, requires_grad=True)

    norm_scale(rows).backward(torch.ones(2, 3))

    assert_close(rows.grad, torch.full((2, 3), 1e5))

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from crosswalk.encoders.batch_norm import GroupBatchNorm
from crosswalk.encoders.ibn import InstanceBatchNorm, with_ibn
from crosswalk.encoders.resnet import ResNet, resnet


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(5, 2, 4, 3), (3, 6, 1, 7)], ids=str)
def test_one_half_is_instance_and_the_other_batch_normalisation(
    shape: tuple[int, ...], training: bool
) -> None:
    half = shape[1] // 2
    norm = InstanceBatchNorm(shape[1]).double().train(training)
    first = nn.InstanceNorm2d(half, affine=True).double().train(training)
    second = nn.BatchNorm2d(half).double().train(training)
    for ours, theirs in ((norm.IN, first), (norm.BN, second)):
        ours.weight.data = random(half)
        theirs.load_state_dict(ours.state_dict())
    x = random(*shape)

    out = norm(x)

    assert_close(out, torch.cat([first(x[:, :half]), second(x[:, half:])], dim=1))
    assert_close(norm.BN.state_dict(), second.state_dict())
    assert not [name for name, _ in norm.IN.named_buffers()]


def test_an_odd_number_of_channels_is_refused() -> None:
    with pytest.raises(ValueError, match="3 channels have no two halves"):
        InstanceBatchNorm(3)


@pytest.mark.parametrize("block", ["basic", "bottleneck"])
def test_the_first_normalisation_of_every_block_but_those_of_the_last_stage_is_replaced(
    block: str,
) -> None:
    plain = ResNet((1, 2, 1, 2), block=block, stem_width=4, planes=(2, 4, 6, 8), group_size=3)

    model = with_ibn(plain)

    replaced = [n for n, m in model.named_modules() if isinstance(m, InstanceBatchNorm)]
    assert replaced == [f"layer{stage}.{n}.bn1" for stage, n in ((1, 0), (2, 0), (2, 1), (3, 0))]
    assert {m.group_size for m in model.modules() if isinstance(m, GroupBatchNorm)} == {3}


@pytest.mark.parametrize("prefix", ["", "module."])
def test_published_weights_are_loaded_without_their_classifier(tmp_path: Path, prefix: str) -> None:
    model = with_ibn(resnet("tiny"))
    for row in model.state_dict().values():
        row.copy_(torch.rand(row.shape) * 9)
    state = {prefix + name: row for name, row in model.state_dict().items()}
    state |= {f"{prefix}fc.weight": torch.zeros(5, 128), f"{prefix}fc.bias": torch.zeros(5)}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "ibn.pth.tar")

    loaded = with_ibn(resnet("tiny"), pretrained=str(tmp_path / "ibn.pth.tar"))

    assert_close(loaded.state_dict(), model.state_dict(), rtol=0, atol=0)


def test_weights_without_ibn_are_refused(tmp_path: Path) -> None:
    plain = ResNet((1, 1, 1, 1), block="basic", stem_width=16, planes=(16, 32, 64, 128))
    torch.save(plain.state_dict(), tmp_path / "plain.pth")

    with pytest.raises(ValueError, match=r"encoder\.backbone\.pretrained=.*layer1\.0\.bn1\.IN"):
        with_ibn(resnet("tiny"), pretrained=str(tmp_path / "plain.pth"))

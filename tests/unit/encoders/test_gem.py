import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from crosswalk.encoders.gem import GemPool
from crosswalk.encoders.image import ImageEncoder


class Maps(nn.Identity):
    """A backbone whose input is its output."""

    num_features = 3


def pool_with(p: float) -> GemPool:
    """Return a pooling whose exponent is exactly that float64 number."""
    pool = GemPool().double()
    pool.p.data.fill_(p)
    return pool


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)


@pytest.mark.parametrize("p", [1.0, 3.0, 4.7])
@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (5, 3, 4, 2), (3, 3, 7, 3)], ids=str)
def test_every_channel_has_the_mean_of_powers_of_its_positions(
    p: float, shape: tuple[int, ...]
) -> None:
    maps = random(*shape)
    pool = pool_with(p)

    pooled = pool(maps)

    for sample in range(shape[0]):
        for channel in range(3):
            powers = [max(v, 1e-6) ** p for v in maps[sample, channel].flatten().tolist()]
            expected = (sum(powers) / len(powers)) ** (1 / p)
            assert pooled[sample, channel].item() == pytest.approx(expected, rel=1e-9)


def test_small_values_get_no_gradient_and_the_exponent_gets_one() -> None:
    maps = torch.tensor([1.0, 2.0, 0.0, -4.0], dtype=torch.float64).view(1, 1, 2, 2)
    maps.requires_grad_()
    pool = GemPool().double()

    pooled = pool(maps)
    pooled.sum().backward()

    assert pooled.item() == pytest.approx(2.25 ** (1 / 3))
    expected = [1 / (4 * 2.25 ** (2 / 3)), 4 / (4 * 2.25 ** (2 / 3)), 0, 0]
    assert_close(maps.grad.flatten(), torch.tensor(expected, dtype=torch.float64))
    step = 1e-6
    ends = [pool_with(3.0 + side * step)(maps).item() for side in (-1, 1)]
    assert pool.p.grad.item() == pytest.approx((ends[1] - ends[0]) / (2 * step), rel=1e-6)


def test_it_is_computed_in_float32_under_autocast() -> None:
    maps = 300 * random(2, 3, 4, 2).float().abs()  # their cubes leave the range of float16

    with torch.autocast("cpu", dtype=torch.bfloat16):
        pooled = GemPool()(maps.bfloat16())

    assert pooled.dtype == torch.float32
    assert_close(pooled, GemPool()(maps.bfloat16().float()))


def test_an_encoder_pools_by_it() -> None:
    maps = random(5, 3, 4, 2)
    encoder = ImageEncoder(Maps(), pooling=GemPool(), neck="none").double()

    assert_close(encoder(maps).pooled, GemPool().double()(maps))
    assert list(encoder.state_dict()) == ["pooling.p"]


def test_an_encoder_pools_by_a_module_of_torch_and_takes_vectors_as_they_are() -> None:
    maps = random(5, 3, 4, 2)
    encoder = ImageEncoder(Maps(), pooling=nn.AdaptiveMaxPool2d(1), neck="none")

    assert_close(encoder(maps).pooled, maps.amax(dim=(2, 3)))
    assert_close(encoder(maps[:, :, 0, 0]).pooled, maps[:, :, 0, 0])

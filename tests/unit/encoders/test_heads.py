import math
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from crosswalk.encoders.heads import (
    embed_layer,
    mlp_head,
    normed,
    normed_projection,
    reinitialize_linears,
)


def assert_kaiming(layer: nn.Linear) -> None:
    deviation = math.sqrt(2 / layer.out_features)
    assert layer.weight.std().item() == pytest.approx(deviation, rel=0.05)
    assert layer.weight.abs().max() > 2.5 * deviation  # normal, not uniform
    assert not layer.bias.any()


def test_linear_heads_start_normal_by_their_outputs() -> None:
    torch.manual_seed(0)
    mlp = mlp_head(300, 70)

    assert_kaiming(embed_layer(300, 40))
    assert_kaiming(mlp[0])
    assert_kaiming(mlp[2])
    assert [mlp[0].in_features, mlp[0].out_features, mlp[2].out_features] == [300, 70, 70]


def test_the_mlp_matches_an_explicit_loop() -> None:
    head = mlp_head(3, 2).double()
    features = torch.tensor([[1.0, -2.0, 0.5], [0.0, 0.0, 0.0]], dtype=torch.float64)

    out = head(features)

    def linear(layer: nn.Linear, row: list[float]) -> list[float]:
        return [sum(w * x for w, x in zip(ws, row, strict=True)) for ws in layer.weight.tolist()]

    for row, feature in zip(out.tolist(), features.tolist(), strict=True):
        hidden = [max(0.0, value) for value in linear(head[0], feature)]
        assert row == pytest.approx(linear(head[2], hidden))


def test_the_normed_projection_normalises_a_linear_layer() -> None:
    head = normed_projection(3, 2).double()
    features = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    out = head(features)

    for channel in range(2):
        weight, bias = head.linear.weight[channel].tolist(), head.linear.bias[channel].item()
        values = [
            bias + sum(map(math.prod, zip(weight, row, strict=True))) for row in features.tolist()
        ]
        mean = sum(values) / 5
        variance = sum((value - mean) ** 2 for value in values) / 5
        expected = [(value - mean) / math.sqrt(variance + 1e-5) for value in values]
        assert out[:, channel].tolist() == pytest.approx(expected)


def test_a_projection_starts_as_the_convolution_it_stands_for() -> None:
    torch.manual_seed(0)
    weight = normed_projection(400, 90).linear.weight

    assert weight.abs().max() <= 0.05  # 1 / sqrt(400)
    assert weight.std().item() == pytest.approx(0.05 / math.sqrt(3), rel=0.02)


@pytest.mark.parametrize("make", [normed_projection, normed])
def test_groups_of_the_batch_have_statistics_of_their_own(make: Callable[..., nn.Module]) -> None:
    head = make(2, 2, group_size=3).double()
    features = torch.randn(6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    assert_close(head(features), torch.cat([head(features[:3]), head(features[3:])]))


@pytest.mark.parametrize("make", [normed_projection, normed])
def test_one_sample_is_normalised_by_stored_statistics_in_evaluation(
    make: Callable[..., nn.Module],
) -> None:
    head = make(2, 2).eval()

    assert head(torch.ones(1, 2)).shape == (1, 2)


def test_a_head_that_only_normalises_cannot_change_the_size() -> None:
    with pytest.raises(ValueError, match=r"gives 3 features and encoder\.embedding_size=2"):
        normed(3, 2)


def test_every_linear_layer_below_is_drawn_anew_and_nothing_else() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(2, 3, 1), nn.Sequential(nn.Linear(300, 40)), nn.Linear(50, 90, bias=False)
    )
    nn.init.ones_(module[1][0].bias)
    before = [row.clone() for row in module[0].parameters()]

    reinitialize_linears(module)

    assert_kaiming(module[1][0])
    assert module[2].weight.std().item() == pytest.approx(math.sqrt(2 / 90), rel=0.05)
    assert all(map(torch.equal, before, module[0].parameters()))


def test_a_stream_that_keeps_its_linear_layers_is_not_drawn_anew() -> None:
    class Whole(nn.Module):
        keeps_linears = True

        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 2)

    module = nn.ModuleList([nn.Linear(2, 2), Whole()])
    before = [parameter.clone() for parameter in module.parameters()]

    reinitialize_linears(module)

    changed = [
        not torch.equal(old, new) for old, new in zip(before, module.parameters(), strict=True)
    ]
    assert changed == [True, True, False, False]

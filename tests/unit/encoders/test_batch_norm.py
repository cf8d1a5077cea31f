import copy

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from crosswalk.encoders.batch_norm import GroupBatchNorm, follow_groups, replace_batch_norms

SHAPES = [(6, 3), (6, 3, 5), (6, 3, 4, 2)]


def library_norm(num_dimensions: int) -> torch.nn.Module:
    kind = torch.nn.BatchNorm2d if num_dimensions == 4 else torch.nn.BatchNorm1d
    return kind(3).double()


def inputs(shape: tuple[int, ...]) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    x = 2 + 3 * torch.randn(*shape, dtype=torch.float64, generator=generator)
    return x.requires_grad_()


def with_affine(norm: torch.nn.Module) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(7)
    for parameter in norm.parameters():
        parameter.data = torch.randn(3, dtype=torch.float64, generator=generator)
    return norm


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_one_group_is_the_batch_normalisation_of_torch(shape: tuple[int, ...]) -> None:
    norm, expected = with_affine(GroupBatchNorm(3).double()), with_affine(library_norm(len(shape)))
    x, same = inputs(shape), inputs(shape)
    cotangent = torch.randn(*shape, dtype=torch.float64)

    out, expected_out = norm(x), expected(same)
    (out * cotangent).sum().backward()
    (expected_out * cotangent).sum().backward()

    assert_close(out, expected_out)
    assert_close(x.grad, same.grad)
    assert_close(norm.weight.grad, expected.weight.grad)
    assert_close(norm.bias.grad, expected.bias.grad)
    assert_close(norm.state_dict(), expected.state_dict())


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("group_size", [2, 4])
def test_groups_are_normalised_one_after_the_other(shape: tuple[int, ...], group_size: int) -> None:
    norm = with_affine(GroupBatchNorm(3, group_size=group_size).double())
    expected = with_affine(library_norm(len(shape)))
    x = inputs(shape)

    out = norm(x)

    parts = [expected(x[start : start + group_size]) for start in range(0, 6, group_size)]
    assert_close(out, torch.cat(parts))
    assert_close(norm.state_dict(), expected.state_dict())


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("group_size", [2, 4, 6, None])
def test_the_first_group_alone_may_reach_the_running_statistics(
    shape: tuple[int, ...], group_size: int | None
) -> None:
    norm = with_affine(GroupBatchNorm(3, group_size=group_size).double())
    expected = with_affine(library_norm(len(shape)))
    follow_groups(norm, "first_group")
    x, size = inputs(shape), group_size or 6

    for _ in range(2):
        out = norm(x)

        groups = [copy.deepcopy(expected)(part) for part in x.split(size)]
        expected(x[:size])
        assert_close(out, torch.cat(groups))
        assert_close(norm.state_dict(), expected.state_dict())


def test_evaluation_uses_the_running_statistics() -> None:
    norm, expected = with_affine(GroupBatchNorm(3).double()), with_affine(library_norm(2))
    norm(inputs((6, 3)))
    expected(inputs((6, 3)))

    assert_close(norm.eval()(inputs((4, 3))), expected.eval()(inputs((4, 3))))


@pytest.mark.parametrize("training", [True, False])
def test_frozen_statistics_make_an_affine_map_in_either_mode(training: bool) -> None:
    norm = with_affine(GroupBatchNorm(3, statistics="frozen").double()).train(training)
    x = inputs((6, 3))

    out = norm(x)

    assert_close(out, x * norm.weight / (1 + 1e-5) ** 0.5 + norm.bias)
    assert norm.num_batches_tracked == 0
    assert_close(norm.running_var, torch.ones(3, dtype=torch.float64))


def test_a_rest_of_one_value_is_an_error_that_says_what_to_change() -> None:
    with pytest.raises(ValueError, match="no rest of one sample"):
        GroupBatchNorm(3, group_size=5)(torch.randn(6, 3))


def test_a_rest_of_one_sample_with_several_positions_is_normalised() -> None:
    x = torch.randn(3, 2, 4, dtype=torch.float64)

    out = GroupBatchNorm(2, group_size=2).double()(x)

    rest = (x[2] - x[2].mean(dim=1, keepdim=True)) / (
        x[2].var(dim=1, unbiased=False, keepdim=True) + 1e-5
    ).sqrt()
    assert_close(out[2], rest)


def test_a_group_of_no_samples_is_refused() -> None:
    with pytest.raises(ValueError, match="group_size=0"):
        GroupBatchNorm(3, group_size=0)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_memory_format_and_the_type_of_the_input_stay(
    dtype: torch.dtype, training: bool
) -> None:
    norm, expected = GroupBatchNorm(3).train(training), torch.nn.BatchNorm2d(3).train(training)
    x = inputs((5, 3, 4, 2)).detach().to(dtype).contiguous(memory_format=torch.channels_last)

    out = norm(x)

    assert out.dtype == dtype
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(out, expected(x))


def test_under_autocast_the_type_of_the_convolution_before_stays() -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 3, 1), GroupBatchNorm(3))

    with torch.autocast("cpu", torch.bfloat16):
        out = model(torch.randn(4, 3, 2, 2))
    out.float().sum().backward()

    assert out.dtype == torch.bfloat16
    assert model[1].running_mean.dtype == torch.float32
    assert model[0].weight.grad is not None


def test_a_batch_not_larger_than_a_group_is_one_group() -> None:
    x = inputs((6, 3)).detach()

    whole = GroupBatchNorm(3).double()(x)

    for group_size in (6, 7):
        norm = GroupBatchNorm(3, group_size=group_size).double()
        assert torch.equal(norm(x), whole)
        assert norm.num_batches_tracked == 1


class Twice(torch.nn.Module):
    """One normalisation under two names, inside and outside a sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = torch.nn.BatchNorm2d(3, eps=1e-3, momentum=0.2)
        self.rest = torch.nn.Sequential(self.norm, torch.nn.GroupNorm(1, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.rest(self.norm(x))


@pytest.mark.parametrize("training", [True, False])
def test_a_replaced_normalisation_computes_the_same_under_the_same_names(training: bool) -> None:
    original = with_random_statistics(Twice().double()).train(training)
    replaced = replace_batch_norms(copy.deepcopy(original))
    x = inputs((5, 3, 4, 2)).detach()

    assert isinstance(replaced.norm, GroupBatchNorm)
    assert replaced.norm is replaced.rest[0]
    assert_close(replaced(x), original(x))
    assert_close(replaced.state_dict(), original.state_dict())
    assert [name for name, _ in replaced.named_parameters()] == [
        name for name, _ in original.named_parameters()
    ]


def with_random_statistics(module: torch.nn.Module) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(9)
    for row in module.state_dict().values():
        if row.is_floating_point():
            row.copy_(torch.rand(row.shape, generator=generator) + 0.5)
    return module


@pytest.mark.parametrize("training", [True, False])
def test_an_activation_inside_a_normalisation_of_timm_is_kept(training: bool) -> None:
    from timm.layers import BatchNormAct2d

    original = torch.nn.Sequential(BatchNormAct2d(3, act_layer=torch.nn.ReLU, inplace=False))
    original = with_random_statistics(original.double()).train(training)
    replaced = replace_batch_norms(copy.deepcopy(original), group_size=5)
    x = inputs((5, 3, 4, 2)).detach() - 2

    out = replaced(x)

    assert isinstance(replaced[0], GroupBatchNorm)
    assert replaced[0].group_size == 5
    assert out.min().item() == 0.0
    assert_close(out, original(x))
    assert_close(replaced.state_dict(), original.state_dict())


def test_a_module_that_is_a_normalisation_is_replaced_itself() -> None:
    norm = replace_batch_norms(torch.nn.BatchNorm1d(3).eval(), group_size=2)

    assert isinstance(norm, GroupBatchNorm)
    assert not norm.training


class OtherNorm(torch.nn.BatchNorm2d):
    pass


@pytest.mark.parametrize(
    "norm",
    [
        torch.nn.BatchNorm2d(3, affine=False),
        torch.nn.BatchNorm2d(3, track_running_stats=False),
        torch.nn.BatchNorm2d(3, momentum=None),
        OtherNorm(3),
    ],
    ids=["no scale", "no statistics", "no momentum", "unknown class"],
)
def test_a_normalisation_without_counterpart_is_named(norm: torch.nn.Module) -> None:
    model = torch.nn.Sequential(torch.nn.Identity(), torch.nn.Sequential(norm))

    with pytest.raises(ValueError, match=r"^1\.0 is a"):
        replace_batch_norms(model)

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from crosswalk.encoders.batch_norm import GroupBatchNorm

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


@pytest.mark.parametrize(
    "options", [{"statistics": "eval"}, {"group_size": 0}], ids=["statistics", "group_size"]
)
def test_a_wrong_option_is_named(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        GroupBatchNorm(3, **options)

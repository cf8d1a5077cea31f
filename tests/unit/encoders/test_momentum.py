import pytest
import torch
from torch import nn
from torch.testing import assert_close

from crosswalk.encoders.batch_norm import GroupBatchNorm
from crosswalk.encoders.momentum import MomentumEncoder
from crosswalk.encoders.text_recurrent import BiGru
from crosswalk.encoders.word_vectors import WordTable


def toy(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Linear(3, 4), GroupBatchNorm(4), nn.Linear(4, 2, bias=False))
    for value in [*module.parameters(), module[1].running_mean]:
        value.data.uniform_(-1, 1)
    return module.double()


def test_it_starts_as_a_copy_without_gradient() -> None:
    online = toy(0)

    slow = MomentumEncoder(online)

    assert {f"module.{name}" for name in online.state_dict()} == set(slow.state_dict())
    for name, value in online.state_dict().items():
        mine = slow.state_dict()[f"module.{name}"]
        assert torch.equal(mine, value)
        assert mine.data_ptr() != value.data_ptr()
    assert not any(parameter.requires_grad for parameter in slow.parameters())
    assert all(parameter.requires_grad for parameter in online.parameters())


def test_a_frozen_word_table_is_shared_also_after_a_change_of_type() -> None:
    words = ["", "a", "man"]
    online = BiGru(
        words, vectors=lambda words: WordTable(words, table=lambda _: torch.eye(3)), hidden_size=2
    )
    holder = nn.ModuleList([online, MomentumEncoder(online)]).double()

    mine, theirs = holder[1].module.vectors.table, online.vectors.table

    assert mine.data_ptr() == theirs.data_ptr()
    assert mine.dtype == torch.float64
    assert holder[1].module.gru.weight_hh_l0.data_ptr() != online.gru.weight_hh_l0.data_ptr()
    assert "1.module.vectors.table" in holder.state_dict()


@pytest.mark.parametrize("momentum", [0.999, 0.5, 0.3, 0.0, 1.0])
@pytest.mark.parametrize("num_updates", [1, 3])
def test_parameters_move_toward_the_encoder_and_buffers_do_not(
    momentum: float, num_updates: int
) -> None:
    online, slow = toy(0), MomentumEncoder(toy(1))
    before = {name: value.clone() for name, value in slow.module.state_dict().items()}
    theirs = {name: value.clone() for name, value in online.state_dict().items()}
    buffers = {name for name, _ in online.named_buffers()}

    for _ in range(num_updates):
        slow.update_from(online, momentum=momentum)

    assert buffers == {"1.running_mean", "1.running_var", "1.num_batches_tracked"}
    for name, value in slow.module.state_dict().items():
        expected = before[name]
        for _ in range(0 if name in buffers else num_updates):
            expected = momentum * expected + (1 - momentum) * theirs[name]
        assert_close(value, expected, rtol=1e-12, atol=1e-14)
        assert torch.equal(online.state_dict()[name], theirs[name])


def test_a_momentum_of_almost_one_moves_single_precision_weights_by_the_right_step() -> None:
    online, slow = nn.Linear(1, 1), MomentumEncoder(nn.Linear(1, 1))
    online.weight.data.fill_(3.0)
    slow.module.weight.data.fill_(1.0)

    slow.update_from(online, momentum=0.999)

    assert slow.module.weight.item() == pytest.approx(1.002, abs=1e-7)


def test_an_encoder_without_parameters_has_nothing_to_move() -> None:
    MomentumEncoder(nn.ModuleDict()).update_from(nn.ModuleDict(), momentum=0.9)


def test_running_statistics_are_its_own() -> None:
    online = toy(0)
    slow = MomentumEncoder(online).train()
    before = online[1].running_mean.clone()

    with torch.no_grad():
        slow.module(torch.randn(5, 3).double())

    assert torch.equal(online[1].running_mean, before)
    assert not torch.equal(slow.module[1].running_mean, before)
    assert slow.module[1].num_batches_tracked == 1
    assert online[1].num_batches_tracked == 0


def test_it_can_start_again_from_the_encoder() -> None:
    online, slow = toy(0), MomentumEncoder(toy(1))

    slow.copy_from(online)

    for name, value in online.state_dict().items():
        assert torch.equal(slow.module.state_dict()[name], value)
    assert not any(parameter.requires_grad for parameter in slow.parameters())

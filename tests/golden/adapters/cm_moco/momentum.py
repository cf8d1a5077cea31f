"""The momentum update of key encoders and key heads."""

from __future__ import annotations

from torch import Tensor, nn

from crosswalk.encoders.batch_norm import GroupBatchNorm
from crosswalk.encoders.heads import mlp_head
from crosswalk.encoders.momentum import MomentumEncoder
from tests.golden.harness import LOSS, Case, golden


def below(case: Case, prefix: str) -> dict[str, Tensor]:
    """Return the arrays whose names begin with a prefix, under the rest of their names."""
    return {
        name.removeprefix(prefix): case.tensor(name) for name in case if name.startswith(prefix)
    }


def branch_of(state: dict[str, Tensor]) -> nn.Module:
    """Return one of the recorded encoders, or heads, with its parameters and buffers."""
    if "lin.weight" in state:
        size_out, size_in = state["lin.weight"].shape
        parts = {"lin": nn.Linear(size_in, size_out), "bn": GroupBatchNorm(size_out)}
        module: nn.Module = nn.ModuleDict(parts)
    else:
        size_out, size_in = state["0.weight"].shape
        module = mlp_head(size_in, size_out)
    module.double().load_state_dict(state)
    return module


@golden("cm_moco", "momentum_update")
def momentum_update(case: Case) -> None:
    for branch in ("v_encoder", "t_encoder", "v_fc", "t_fc"):
        online = branch_of(below(case, f"init_{branch}_q."))
        slow = MomentumEncoder(branch_of(below(case, f"init_{branch}_k.")))

        for _ in range(case.item("n_updates")):
            slow.update_from(online, momentum=case.item("m"))

        for role, module in (("q", online), ("k", slow.module)):
            for name, value in module.state_dict().items():
                case.close(f"out_{branch}_{role}.{name}", value, **LOSS)

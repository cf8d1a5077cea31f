"""The memory bank: scores, gradient, update."""

import numpy as np

from crosswalk.memory.memory_bank import MemoryBank
from tests.golden.adapters.mmcl.training import mmcl
from tests.golden.harness import GRADIENT, LOSS, Case, golden


@golden("mmcl", "memory_steps")
def memory_steps(case: Case) -> None:
    num_samples, embedding_size = case["mem0"].shape
    bank = MemoryBank(num_samples, embedding_size).double()
    bank.rows.copy_(case.tensor("mem0"))
    method = mmcl(num_samples, embedding_size, case)
    momenta = [method.momentum_at(epoch) for epoch in case["epochs"].tolist()]

    for step in range(case.item("num_steps")):
        embedding = case.tensor(f"x_{step}", requires_grad=True)
        logits = bank.scores(embedding)
        logits.backward(case.tensor(f"gout_{step}"))
        bank.update(embedding.detach(), case.tensor(f"idx_{step}"), momentum=momenta[step])

        case.close(f"out_logits_{step}", logits, **LOSS)
        case.close(f"out_grad_x_{step}", embedding.grad, **GRADIENT)
        case.close(f"out_mem_{step}", bank.rows, **LOSS)
    case.close("out_alpha", np.array(momenta), **LOSS)

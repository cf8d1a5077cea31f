from __future__ import annotations

import math

import pytest
import torch

from crosswalk.encoders.classifier import AgentClassifier


def test_logits_are_scaled_cosines_to_every_agent() -> None:
    agents = AgentClassifier(3, 4, scale=30.0).double()
    features = torch.tensor([[1.0, 2.0, -2.0], [0.5, 0.0, 0.0]], dtype=torch.float64)

    logits = agents(features)

    for row, feature in zip(logits.tolist(), features.tolist(), strict=True):
        for logit, agent in zip(row, agents.weight.tolist(), strict=True):
            product = sum(a * b for a, b in zip(feature, agent, strict=True))
            cosine = product / math.hypot(*feature) / math.hypot(*agent)
            # lengths are divided by r + 1e-7, so cosines are short by that
            assert logit == pytest.approx(30 * cosine, rel=1e-5)


def test_agents_start_as_a_linear_layer_does() -> None:
    torch.manual_seed(0)
    agents = AgentClassifier(16, 2000, scale=30.0)

    assert agents.weight.abs().max() <= 0.25
    assert agents.weight.std().item() == pytest.approx(0.25 / math.sqrt(3), rel=0.02)

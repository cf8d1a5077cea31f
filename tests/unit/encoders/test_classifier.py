from __future__ import annotations

import math

import pytest
import torch

from crosswalk.encoders.classifier import AgentClassifier, NormalizedClassifier


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


def test_only_the_directions_of_persons_count_and_embeddings_keep_their_length() -> None:
    classifier = NormalizedClassifier(3, 5).double()
    embedding = torch.tensor([[1.0, 2.0, -2.0], [0.5, 0.0, 0.0]], dtype=torch.float64)

    logits = classifier(embedding)

    for row, own in zip(logits.tolist(), embedding.tolist(), strict=True):
        for logit, column in zip(row, classifier.weight.T.tolist(), strict=True):
            product = sum(a * b for a, b in zip(own, column, strict=True))
            assert logit == pytest.approx(product / math.hypot(*column), rel=1e-12)


def test_the_vectors_of_persons_start_uniform_between_the_bounds_of_xavier() -> None:
    torch.manual_seed(0)
    classifier = NormalizedClassifier(10, 590)

    assert classifier.weight.shape == (10, 590)
    assert classifier.weight.abs().max() <= 0.1  # (6 / (10 + 590)) ** 0.5
    assert classifier.weight.std().item() == pytest.approx(0.1 / math.sqrt(3), rel=0.02)
    assert [name for name, _ in classifier.named_parameters()] == ["weight"]

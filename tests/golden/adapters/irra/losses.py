"""Losses: masked words, also split over processes, SDM in corner cases, identities."""

import torch
import torch.nn.functional as F
from torch import Tensor

from crosswalk.encoders.masked_language_model import Guesses, guesses_of
from crosswalk.losses.identity import identity_loss
from crosswalk.losses.pair_losses import similarity_distribution_of_pairs, weighted_mean
from tests.golden.harness import GRADIENT, LOSS, Case, Tolerance, golden

FLOAT32_LABELS: Tolerance = {"rtol": 1e-6, "atol": 3e-8}
"""Labels of SDM are float32, as in RDE's code and recordings: there 1 + 1e-8 is 1."""


def guesses_at_labels(scores: Tensor, labels: Tensor) -> Guesses:
    """Return the guesses at the labelled places of ``[B * L, V]`` scores."""
    place = labels != 0
    return guesses_of(scores[place.flatten()], labels[place], place.nonzero()[:, 0])


def mean(values: Tensor) -> Tensor:
    return weighted_mean(values, torch.ones_like(values))


@golden("irra", "mlm_loss")
def mlm_loss(case: Case) -> None:
    scores, labels = case.tensor("scores", requires_grad=True), case.tensor("labels")

    guesses = guesses_at_labels(scores, labels)
    loss = mean(guesses.loss)
    loss.backward()

    # NaN: the official mean of no row; ours is 0
    case.close("out_loss", loss, nan=0.0, **LOSS)
    case.close("out_accuracy", mean(guesses.hit), nan=0.0, **LOSS)
    case.equal("out_num_targets", len(guesses.loss))
    case.close("out_grad_scores", scores.grad, nan=0.0, **GRADIENT)


@golden("irra", "mlm_split")
def mlm_split(case: Case) -> None:
    scores, labels = case.tensor("scores", requires_grad=True), case.tensor("labels")
    parts = case.item("num_processes")

    whole = mean(guesses_at_labels(scores, labels).loss)
    whole.backward()
    split = [
        guesses_at_labels(*part).loss
        for part in zip(scores.chunk(parts), labels.chunk(parts), strict=True)
    ]

    case.close("out_loss_of_whole_batch", whole, **LOSS)
    case.close("out_loss_of_whole_batch", mean(torch.cat(split)), **LOSS)  # gathered
    case.close("out_loss_of_each_part", torch.stack([mean(part) for part in split]), **LOSS)
    case.equal("out_targets_of_each_part", torch.tensor([len(part) for part in split]))
    wrong = torch.stack([mean(part) for part in split]).mean()
    case.close("out_mean_of_parts_is_wrong", wrong, **LOSS)
    case.close("out_grad_scores", scores.grad, **GRADIENT)


@golden("irra", "sdm_edge")
def sdm_edge(case: Case) -> None:
    image = case.tensor("image_features", requires_grad=True)
    text = case.tensor("text_features", requires_grad=True)
    pid = case.tensor("pid")

    loss = similarity_distribution_of_pairs(temperature=1 / case.item("logit_scale")).of_pairs(
        F.normalize(text) @ F.normalize(image).T, pid[:, None] == pid
    )
    loss.mean().backward()

    if case.item("kind") == "zero":
        for name in case.outputs:
            case.documented(name, "NaN in the released code, which divides by a length of 0")
        assert image.grad is not None
        case.check(bool(loss.isfinite().all()), "a zero embedding has a finite loss")
        case.check(bool(image.grad.isfinite().all()), "and a finite gradient")
        return
    case.close("out_loss", loss.mean(), **FLOAT32_LABELS)
    case.close("out_grad_image_features", image.grad, **GRADIENT)
    case.close("out_grad_text_features", text.grad, **GRADIENT)


@golden("irra", "id_head")
def id_head(case: Case) -> None:
    names = ("image_features", "text_features", "weight", "bias")
    rows = {name: case.tensor(name, requires_grad=True) for name in names}
    pid = case.tensor("pid")

    losses = []
    for side in ("image", "text"):
        logits = F.linear(rows[f"{side}_features"], rows["weight"], rows["bias"])
        losses.append(identity_loss(logits, pid))
        case.close(f"out_{side}_accuracy", (logits.argmax(dim=1) == pid).double().mean(), **LOSS)
    loss = torch.stack(losses).mean()
    loss.backward()

    case.close("out_loss", loss, **LOSS)
    for name, row in rows.items():
        case.close(f"out_grad_{name}", row.grad, **GRADIENT)

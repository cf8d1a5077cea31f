"""The three losses of CM-MoCo, and two that its released code ships without using them."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import normalize

from crosswalk.encoders.classifier import NormalizedClassifier
from crosswalk.losses.alignment import alignment_loss
from crosswalk.losses.identity import identity_loss
from crosswalk.losses.queue_contrast import contrast_loss
from tests.golden.harness import GRADIENT, LOSS, Case, golden
from tests.golden.unused_losses import projection_classification_loss, projection_matching_loss


def switched_smoothing(case: Case) -> float:
    """Return the share that is smoothed: to the released code, epsilon is a switch for 0.1."""
    return 0.1 if case.item("epsilon") > 0 else 0.0


def same_person(case: Case) -> Tensor:
    labels = case.tensor("labels")
    return labels[:, None] == labels


def gradients(case: Case, **inputs: Tensor) -> None:
    for name, value in inputs.items():
        case.close(f"out_grad_{name}", value.grad, **GRADIENT)


def mean_alignment_loss(case: Case, similarity: Tensor) -> Tensor:
    settings = {name: case.item(name) for name in ("alpha", "beta", "scale_pos", "scale_neg")}
    return alignment_loss(similarity, same_person(case), **settings).mean()


@golden("cm_moco", "global_align_loss")
def global_align_loss(case: Case) -> None:
    image = case.tensor("visual_embed", requires_grad=True)
    text = case.tensor("textual_embed", requires_grad=True)

    loss = mean_alignment_loss(case, normalize(image) @ normalize(text).T)
    loss.backward()

    case.close("out_loss", loss, **LOSS)
    gradients(case, visual_embed=image, textual_embed=text)


@golden("cm_moco", "global_align_loss_from_sim")
def global_align_loss_from_sim(case: Case) -> None:
    similarity = case.tensor("similarity", requires_grad=True)

    loss = mean_alignment_loss(case, similarity)
    loss.backward()

    case.close("out_loss", loss, **LOSS)
    gradients(case, similarity=similarity)


@golden("cm_moco", "instance_loss")
def instance_loss(case: Case) -> None:
    image = case.tensor("visual_embed", requires_grad=True)
    text = case.tensor("textual_embed", requires_grad=True)
    person_id = case.tensor("labels")
    classifier = NormalizedClassifier(*case["projection"].shape).double()
    classifier.weight.data.copy_(case.tensor("projection"))

    losses = [
        identity_loss(
            case.item("scale")
            * classifier(normalize(embedding) if case.item("norm") else embedding),
            person_id,
            label_smoothing=switched_smoothing(case),
        )
        for embedding in (image, text)
    ]
    loss = sum(losses).mean()
    loss.backward()

    case.close("out_loss", loss, **LOSS)
    gradients(case, projection=classifier.weight, visual_embed=image, textual_embed=text)


@golden("cm_moco", "label_smooth_ce")
def label_smooth_ce(case: Case) -> None:
    logits = case.tensor("logits", requires_grad=True)

    loss = identity_loss(logits, case.tensor("labels"), label_smoothing=case.item("epsilon")).mean()
    loss.backward()

    case.close("out_loss", loss, **LOSS)
    gradients(case, logits=logits)


@golden("cm_moco", "infonce_loss")
def infonce_loss(case: Case) -> None:
    names = ("v_pos", "v_neg", "t_pos", "t_neg")
    inputs = {name: case.tensor(name, requires_grad=True) for name in names}

    losses = [
        contrast_loss(
            inputs[f"{side}_pos"][:, 0], inputs[f"{side}_neg"], temperature=case.item("T")
        )
        for side in "vt"
    ]
    loss = sum(losses).mean()
    loss.backward()

    case.close("out_loss", loss, **LOSS)
    gradients(case, **inputs)


@golden("cm_moco", "cmpc_loss")
def cmpc_loss(case: Case) -> None:
    image = case.tensor("visual_embed", requires_grad=True)
    text = case.tensor("textual_embed", requires_grad=True)
    weight = case.tensor("projection", requires_grad=True)
    person_id = case.tensor("labels")

    loss = (
        projection_classification_loss(image, text, weight, person_id)
        + projection_classification_loss(text, image, weight, person_id)
    ).mean()
    loss.backward()

    case.close("out_loss", loss, **LOSS)
    gradients(case, projection=weight, visual_embed=image, textual_embed=text)


@golden("cm_moco", "cmpm_loss")
def cmpm_loss(case: Case) -> None:
    image = case.tensor("visual_embed", requires_grad=True)
    text = case.tensor("textual_embed", requires_grad=True)
    positive, epsilon = same_person(case), case.item("epsilon")

    loss = (
        projection_matching_loss(image @ normalize(text).T, positive, epsilon=epsilon)
        + projection_matching_loss(text @ normalize(image).T, positive, epsilon=epsilon)
    ).mean()
    loss.backward()

    case.close("out_loss", loss, **LOSS)
    gradients(case, visual_embed=image, textual_embed=text)

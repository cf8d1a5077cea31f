"""Both trainings of CLIP-ReID through the frame against plain loops."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from crosswalk.config.build import build
from crosswalk.config.check import check
from crosswalk.data.pipeline.plans import identity_plan, shuffled_plan
from crosswalk.types import ImageBatch
from tests.ddp.small_fits import composed, fit
from tests.end_to_end.small_runs import small_run

EPOCHS, BATCH, LR, LR_OF_IMAGES, DECAY, ADAM_EPS = 2, 16, 1e-3, 3e-4, 1e-4, 1e-3
PLAIN = (
    # what is drawn for an image has tests of its own
    *("data.transform.flip_probability=0", "data.transform.padding=0"),
    "data.transform.erase_probability=0",
)
FIRST = (
    *("experiment=clip_reid/prompts", "data=synthetic_images", "encoder=clip_layers_tiny"),
    *("trainer=cpu", "logger=csv", f"trainer.max_epochs={EPOCHS}", "data.image_size=[64,32]"),
    *("data.synthetic.size=tiny", f"data.batch_size={BATCH}", "data.eval_batch_size=16"),
    *("method.prompts.text.name=tiny", "method.prompts.text.pretrained=null"),
    *(f"optim.lr={LR}", f"+optim.optimizer.eps={ADAM_EPS}"),
)
State = dict[str, Tensor]


def block(x: Tensor, state: State, name: str, heads: int, *, causal: bool) -> Tensor:
    """Return what leaves a pre-norm block of CLIP."""

    def normed(x: Tensor, part: str) -> Tensor:
        weight, bias = (state[f"{name}.{part}.{each}"] for each in ("weight", "bias"))
        return F.layer_norm(x, x.shape[2:], weight, bias)

    def linear(x: Tensor, part: str) -> Tensor:
        return x @ state[f"{name}.{part}.weight"].T + state[f"{name}.{part}.bias"]

    number, length, width = x.shape
    packed = normed(x, "ln_1") @ state[f"{name}.attn.in_proj_weight"].T
    packed = packed + state[f"{name}.attn.in_proj_bias"]
    parts = packed.view(number, length, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
    query, key, value = parts
    scores = query @ key.mT / math.sqrt(width // heads)
    if causal:
        later = torch.ones(length, length, dtype=torch.bool).triu(1)
        scores = scores.masked_fill(later, -math.inf)
    mixed = (scores.softmax(dim=3) @ value).transpose(1, 2).reshape(number, length, width)
    x = x + linear(mixed, "attn.out_proj")
    inner = linear(normed(x, "ln_2"), "mlp.c_fc")
    return x + linear(inner * torch.sigmoid(1.702 * inner), "mlp.c_proj")


def image_features(state: State, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the class token before the last of four blocks, behind it, and projected."""
    rows = F.conv2d(image, state["encoder.visual.conv1.weight"], stride=8).flatten(2).mT
    token = state["encoder.visual.class_embedding"].expand(len(image), 1, -1)
    x = torch.cat([token, rows], dim=1) + state["encoder.visual.positional_embedding"]
    x = F.layer_norm(
        x, x.shape[2:], state["encoder.visual.ln_pre.weight"], state["encoder.visual.ln_pre.bias"]
    )
    before = x
    for number in range(4):
        before, x = (
            x,
            block(x, state, f"encoder.visual.transformer.resblocks.{number}", 3, causal=False),
        )
    last = F.layer_norm(
        x[:, 0],
        x.shape[2:],
        state["encoder.visual.ln_post.weight"],
        state["encoder.visual.ln_post.bias"],
    )
    return before[:, 0], last, last @ state["encoder.visual.proj"]


def texts_of(state: State) -> Tensor:
    """Return the features of all people's sentences."""
    context = state["prompts.context"]
    around = (state[f"prompts.{side}"] for side in ("prefix", "suffix"))
    prefix, suffix = (rows.expand(len(context), -1, -1) for rows in around)
    x = torch.cat([prefix, context, suffix], dim=1)
    x = x + state["prompts.text.positional_embedding"][: x.shape[1]]
    for number in range(3):
        x = block(x, state, f"prompts.text.transformer.resblocks.{number}", 2, causal=True)
    final = [state[f"prompts.text.ln_final.{part}"] for part in ("weight", "bias")]
    return F.layer_norm(x[:, -1], x.shape[2:], *final) @ state["prompts.text.text_projection"]


def smoothed(logits: Tensor, target: Tensor) -> Tensor:
    classes = logits.shape[1]
    wanted = 0.1 / classes + 0.9 * F.one_hot(target, classes).double()
    return -(wanted * logits.log_softmax(dim=1)).sum(dim=1).mean()


def triplets(x: Tensor, person_id: Tensor) -> Tensor:
    """Return the mean loss of every anchor with its hardest pair, anchor by anchor."""
    losses = []
    for anchor in range(len(x)):
        away = [(x[anchor] - other).square().sum() for other in x]
        own = [
            d.sqrt()
            for d, p in zip(away, person_id, strict=True)
            if p == person_id[anchor] and d > 0
        ]
        others = [d.sqrt() for d, p in zip(away, person_id, strict=True) if p != person_id[anchor]]
        losses.append((torch.stack(own).max() - torch.stack(others).min() + 0.3).clamp_min(0))
    return torch.stack(losses).mean()


def start_of(config: dict[str, Any]) -> tuple[State, ImageBatch]:
    """Return the weights that `fit` starts from, and all training images."""
    L.seed_everything(1, verbose=False)
    run = build(check(config))
    state = {name: row.clone() for name, row in run.method.double().state_dict().items()}
    run.data.prepare_training()
    run.data.reads_images = True
    everyone = np.arange(run.data.spec.num_samples)
    batch = run.data.transform_batch(run.data.train_dataloader().batch_of(everyone))
    return state, batch._replace(image=batch.image.double())


def test_two_epochs_of_prompts_are_those_of_a_plain_loop(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CROSSWALK_CACHE", str(cache))
    config = composed(FIRST)
    state, images = start_of(config)

    found = fit(config, cache, tmp_path, 1)["state"]

    context = state["prompts.context"].requires_grad_()
    optimizer = torch.optim.Adam([context], weight_decay=DECAY, eps=ADAM_EPS)
    with torch.no_grad():
        table = image_features(state, images.image)[2]
    plan = shuffled_plan(images.person_id.numpy(), batch_size=BATCH, seed=config["seed"])
    for epoch in range(EPOCHS):
        # the warm-up of five epochs, counted from 1
        optimizer.param_groups[0]["lr"] = 1e-5 + (epoch + 1) * (LR - 1e-5) / 5
        plan.set_epoch(epoch)
        for rows in plan:
            ids = images.person_id[rows]
            scores = table[rows] @ texts_of(state)[ids].T
            same = (ids[:, None] == ids).double()
            loss = sum(
                -((each.log_softmax(dim=1) * same).sum(dim=1) / same.sum(dim=1)).mean()
                for each in (scores, scores.T)
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert_close(found["image_features"], table, rtol=0, atol=1e-10)
    assert_close(found["prompts.context"], context.detach(), rtol=0, atol=1e-10)
    assert_close(found["texts.rows"], texts_of(state).detach(), rtol=0, atol=1e-10)
    for name, row in state.items():
        if name.startswith(("encoder.", "prompts.text.")):
            assert torch.equal(found[name], row), name


def test_two_epochs_of_fine_tuning_are_those_of_a_plain_loop(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CROSSWALK_CACHE", str(cache))
    config = composed(small_run("clip_reid", *PLAIN, f"optim.lr={LR_OF_IMAGES}"))
    state, images = start_of(config)

    found = fit(config, cache, tmp_path, 1)["state"]

    fixed = ("running_mean", "running_var", "_tracked", "neck.bias", "texts.rows")
    trained = {n: row.requires_grad_() for n, row in state.items() if not n.endswith(fixed)}
    groups = [
        {"params": [row for n, row in trained.items() if ("bias" in n) == bias]}
        for bias in (False, True)
    ]
    optimizer = torch.optim.Adam(groups, weight_decay=DECAY, eps=ADAM_EPS)
    plan = identity_plan(
        images.person_id.numpy(), batch_size=BATCH, seed=config["seed"], samples_per_person=4
    )
    for epoch in range(EPOCHS):
        rate = LR_OF_IMAGES * (0.19 + (1 - 0.19) * epoch / 3)  # of the synthetic run, three epochs
        for group, factor in zip(optimizer.param_groups, (1, 2), strict=True):
            group["lr"] = factor * rate
        plan.set_epoch(epoch)
        for rows in plan:
            ids = images.person_id[rows]
            earlier, last, projected = image_features(state, images.image[rows])
            loss = smoothed(projected @ state["texts.rows"].T, ids)
            loss = loss + sum(triplets(x, ids) for x in (earlier, last, projected))
            for name, x in (("last", last), ("projected", projected)):
                neck = f"encoder.{name}_neck"
                behind = F.batch_norm(
                    x,
                    state[f"{neck}.running_mean"],
                    state[f"{neck}.running_var"],
                    state[f"{neck}.weight"],
                    state[f"{neck}.bias"],
                    training=True,
                )
                state[f"{neck}.num_batches_tracked"] += 1
                loss = loss + 0.25 * smoothed(behind @ state[f"{name}_classifier.weight"].T, ids)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert found.keys() == state.keys()
    for name, row in state.items():
        assert_close(
            found[name], row.detach(), rtol=0, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}"
        )

"""IRRA's own loop, and the runs that begin with weights in its form."""

from __future__ import annotations

import math
import re
from pathlib import Path

import lightning.pytorch as L
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from crosswalk.cli import main
from crosswalk.config.build import build
from crosswalk.config.check import check
from crosswalk.draws import keyed_uniform
from crosswalk.run.run_folder import RunFolder
from crosswalk.types import PairBatch
from tests.ddp.processes import run_on_processes
from tests.ddp.small_fits import composed, fit, in_float64
from tests.end_to_end.small_runs import run_kind, small_run
from tests.end_to_end.toy_run import exit_code_of

RECORDED = Path(__file__).parents[1] / "golden" / "data" / "irra"
MASK = 49405
Weights = dict[str, Tensor]


# The method as its description has it: no module of the package below, but for the draws.


def normed(x: Tensor, state: Weights, name: str) -> Tensor:
    centred = x - x.mean(dim=-1, keepdim=True)
    variance = centred.square().mean(dim=-1, keepdim=True)
    return centred / (variance + 1e-5).sqrt() * state[f"{name}.weight"] + state[f"{name}.bias"]


def linear(x: Tensor, state: Weights, name: str) -> Tensor:
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def quick_gelu(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-1.702 * x))


def attention(
    asking: Tensor, other: Tensor, state: Weights, name: str, *, heads: int, causal: bool = False
) -> Tensor:
    width = asking.shape[2]
    weights = state[f"{name}.in_proj_weight"].split(width)
    biases = state[f"{name}.in_proj_bias"].split(width)
    query, key, value = (
        x @ weight.T + bias
        for x, weight, bias in zip((asking, other, other), weights, biases, strict=True)
    )
    size, mixed = width // heads, []
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        scores = query[..., part] @ key[..., part].mT / size**0.5
        if causal:
            later = torch.ones(scores.shape[1:]).triu(1).bool()
            scores = scores.masked_fill(later, -torch.inf)
        mixed.append(scores.softmax(dim=-1) @ value[..., part])
    return linear(torch.cat(mixed, dim=2), state, f"{name}.out_proj")


def blocks(x: Tensor, state: Weights, name: str, *, heads: int, causal: bool) -> Tensor:
    count = len({n.split(".resblocks.")[1][0] for n in state if n.startswith(f"{name}.resblocks")})
    for number in range(count):
        own = f"{name}.resblocks.{number}"
        seen = normed(x, state, f"{own}.ln_1")
        x = x + attention(seen, seen, state, f"{own}.attn", heads=heads, causal=causal)
        hidden = quick_gelu(linear(normed(x, state, f"{own}.ln_2"), state, f"{own}.mlp.c_fc"))
        x = x + linear(hidden, state, f"{own}.mlp.c_proj")
    return x


def image_tokens(image: Tensor, state: Weights, *, heads: int) -> Tensor:
    own = "encoder.clip.visual"
    filters = state[f"{own}.conv1.weight"]
    side = filters.shape[3]
    patches = image.unfold(2, side, side).unfold(3, side, side)  # [B, 3, rows, columns, side, side]
    patches = patches.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2) @ filters.flatten(1).T
    first = state[f"{own}.class_embedding"].expand(len(image), 1, -1)
    x = torch.cat([first, patches], dim=1) + state[f"{own}.positional_embedding"]
    x = normed(x, state, f"{own}.ln_pre")
    x = blocks(x, state, f"{own}.transformer", heads=heads, causal=False)
    return normed(x, state, f"{own}.ln_post") @ state[f"{own}.proj"]


def text_tokens(tokens: Tensor, state: Weights, *, heads: int) -> Tensor:
    own = "encoder.clip"
    x = state[f"{own}.token_embedding.weight"][tokens] + state[f"{own}.positional_embedding"]
    x = blocks(x, state, f"{own}.transformer", heads=heads, causal=True)
    return normed(x, state, f"{own}.ln_final") @ state[f"{own}.text_projection"]


def masked(batch: PairBatch) -> tuple[Tensor, Tensor]:
    """Return masked captions and labels, word by word."""
    captions, labels = batch.tokens.clone(), torch.zeros_like(batch.tokens)
    assert batch.key is not None
    length = captions.shape[1]
    draws = keyed_uniform(batch.key, 2 * length, stream=2)
    for row, numbers in enumerate(draws.tolist()):
        drawn = taken = 0
        for place in range(length):
            word = int(captions[row, place])
            if not 0 < word < MASK:
                continue
            share = numbers[drawn] / 0.15
            drawn += 1
            if share >= 1:
                continue
            labels[row, place] = word
            if share < 0.8:
                captions[row, place] = MASK
            elif share < 0.9:
                captions[row, place] = 1 + math.floor(numbers[length + taken] * (MASK - 1))
                taken += 1
        if not labels[row].any():
            labels[row, 1], captions[row, 1] = captions[row, 1], MASK
    return captions, labels


def divergence(logits: Tensor, same: Tensor) -> Tensor:
    share = same / same.sum(dim=1, keepdim=True)
    # labels are float32, as in the recordings of RDE
    log_label = (share.float() + 1e-8).log().double()
    log = logits - logits.logsumexp(dim=1, keepdim=True)
    return (log.exp() * (log - log_label)).sum(dim=1).mean()


def loss_of(batch: PairBatch, state: Weights, heads: dict[str, int], *, shared: bool) -> Tensor:
    tokens, labels = masked(batch)
    images = image_tokens(batch.image, state, heads=heads["vision"])
    words = text_tokens(tokens, state, heads=heads["text"])
    seen, texts = (tokens, words) if shared else (batch.tokens, None)
    if texts is None:
        texts = text_tokens(seen, state, heads=heads["text"])
    image = images[:, 0]
    text = torch.stack([row[ids.argmax()] for row, ids in zip(texts, seen, strict=True)])
    person = batch.person_id
    same = (person[:, None] == person).double()
    cosine = (text / text.norm(dim=1, keepdim=True)) @ (image / image.norm(dim=1, keepdim=True)).T
    sdm = divergence(50 * cosine, same) + divergence(50 * cosine.T, same)
    logits = [linear(rows, state, "classifier") for rows in (image, text)]
    identity = sum(F.cross_entropy(rows, person) for rows in logits) / 2
    x = attention(
        normed(words, state, "mlm.ln_pre_t"),
        normed(images, state, "mlm.ln_pre_i"),
        state,
        "mlm.cross_attn",
        heads=heads["cross"],
    )
    x = blocks(x, state, "mlm.cross_modal_transformer", heads=heads["cross"], causal=False)
    x = quick_gelu(linear(normed(x, state, "mlm.ln_post"), state, "mlm.mlm_head.dense"))
    scores = linear(normed(x, state, "mlm.mlm_head.ln"), state, "mlm.mlm_head.fc")
    return sdm + identity + F.cross_entropy(scores.flatten(0, 1), labels.flatten(), ignore_index=0)


def rate_and_decay(name: str, lr: float, decay: float) -> tuple[float, float]:
    rate = 5 * lr if "cross" in name else lr
    if "bias" in name:
        rate, decay = 2 * lr, 0.0
    if "classifier" in name or "mlm_head" in name:
        rate = 5 * lr
    return rate, decay


class Adam:
    """With the decay added to the gradient."""

    def __init__(self, eps: float) -> None:
        self.eps, self.count = eps, 0
        self.kept: dict[str, tuple[Tensor, Tensor]] = {}

    def step(self, state: Weights, gradients: Weights, lr: float, decay: float) -> Weights:
        self.count += 1
        moved = {}
        for name, gradient in gradients.items():
            rate, own_decay = rate_and_decay(name, lr, decay)
            gradient = gradient + own_decay * state[name]
            first, second = self.kept.get(name, (torch.zeros_like(gradient),) * 2)
            first = 0.9 * first + 0.1 * gradient
            second = 0.999 * second + 0.001 * gradient.square()
            self.kept[name] = first, second
            mean, square = first / (1 - 0.9**self.count), second / (1 - 0.999**self.count)
            moved[name] = state[name] - rate * mean / (square.sqrt() + self.eps)
        return moved


@pytest.mark.parametrize("mlm", ["shared", "separate"])
def test_two_epochs_are_those_of_a_loop_written_from_the_description(
    mlm: str, cache: Path, tmp_path: Path
) -> None:
    config = composed(small_run("irra", f"mlm={mlm}", "method.mlm.depth=2"))
    lr, eps, decay = (
        config["optim"]["lr"],
        config["optim"]["optimizer"]["eps"],
        config["optim"]["weight_decay"],
    )
    found = run_on_processes(fit, 1, config, cache, tmp_path, 1)[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CROSSWALK_CACHE", str(cache))
        L.seed_everything(1, verbose=False)
        run = build(check(config))
        in_float64(run)
        run.data.setup("fit")
        state = {name: p.detach().clone() for name, p in run.method.named_parameters()}
        clip = config["encoder"]["clip"]
        heads = {"vision": clip["vision_heads"], "text": clip["text_heads"], "cross": 1}
        optimizer, steps = Adam(eps), 0
        loader = run.data.train_dataloader()
        for epoch, factor in enumerate((0.1, 1.0)):  # one epoch of warm-up, then a cosine from 1
            loader.set_epoch(epoch)
            for batch in loader:
                leaves = {name: row.requires_grad_() for name, row in state.items()}
                loss = loss_of(
                    run.data.transform_batch(batch), leaves, heads, shared=mlm == "shared"
                )
                gradients = torch.autograd.grad(loss, [*leaves.values()])
                with torch.no_grad():
                    named = dict(zip(leaves, gradients, strict=True))
                    state = optimizer.step(state, named, factor * lr, decay)
                steps += 1

    assert steps == found["steps"] == 14
    assert found["state"].keys() == {*state, "clean"}
    for name, expected in state.items():
        torch.testing.assert_close(
            found["state"][name],
            expected,
            rtol=0,
            atol=1e-10,
            msg=lambda text, n=name: f"{n}: {text}",
        )


# Weights in IRRA's form: NAM, HAM and others


def recorded() -> dict[str, Tensor]:
    with np.load(RECORDED / "tiny_checkpoint_0.npz") as archive:
        return {name: torch.from_numpy(archive[name]) for name in archive.files}


def test_irra_and_rde_start_from_an_imported_file_of_clip_alone(
    cache: Path, tmp_path: Path
) -> None:
    clip = {n: row for n, row in recorded().items() if n.startswith("base_model.")}
    clip["base_model.token_embedding.weight"] = torch.randn(49408, 128).half()
    torch.save({"model": {f"module.{n}": r for n, r in clip.items()}}, tmp_path / "nam.pth")
    file = tmp_path / "nam.safetensors"
    words = ["import-weights", "irra", str(tmp_path / "nam.pth"), str(file)]
    assert main([*words, "--image-size", "24x8"]) == 0

    for method, anew in (("irra", "classifier or mlm"), ("rde", "image_selection or text_select")):
        small = [each for each in small_run(method) if not each.startswith("encoder.clip.")]
        small += ["data.noise_rate=0", f"checkpoint={file}", "trainer.max_epochs=1", "optim.lr=0"]
        runs = tmp_path / method
        code = exit_code_of(
            train_quietly, [*small, f"output_dir={runs}", "name=it"], str(cache), runs
        )

        assert code == 0
        (folder,) = runs.glob("*-it")
        state = torch.load(RunFolder(folder).last_checkpoint, weights_only=True)["state_dict"]
        for name, row in clip.items():
            name = name.replace("base_model.", "encoder.clip.")
            assert torch.equal(state[name], row.float()), name
        said = (runs / "said.txt").read_text()
        assert re.search(rf"note: checkpoint=\S+ has no {anew}.* that fits this run: they", said)
        parts = {name.split(".")[1] for name in state if name.startswith("encoder.")}
        assert parts == ({"clip"} if method == "irra" else {"clip", *PARTS_OF_RDE})


PARTS_OF_RDE = ("image_selection", "text_selection")


def train_quietly(overrides: list[str], cache: str, runs: Path) -> None:
    """Train, and keep what is said on the error stream."""
    import contextlib

    from tests.end_to_end.small_runs import train

    runs.mkdir()
    with (runs / "said.txt").open("w") as file, contextlib.redirect_stderr(file):
        train(overrides, cache)


# Parts of one method in another, by configuration alone


@pytest.mark.parametrize(
    ("kind", "more", "logged"),
    [
        ("irra", ["division=published", "data.noise_rate=0.5"], "train/clean_fraction"),
        ("rde", ["mlm=separate", "method.mlm.depth=1"], "train/mlm_accuracy"),
    ],
)
def test_division_and_guessed_words_go_with_the_other_method(
    kind: str, more: list[str], logged: str, cache: Path, tmp_path: Path
) -> None:
    code, folder = run_kind(kind, tmp_path, cache, *more)

    assert code == 0
    lines = [line for line in folder.metrics() if logged in line]
    assert [line["epoch"] for line in lines] == [1, 2]
    if kind == "irra":
        assert 0 < lines[-1][logged] < 1

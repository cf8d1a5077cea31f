"""Times RDE's training step: written straightforwardly, and as the package does it.

``python benchmarks/training_step.py`` trains ViT-B/16 on 384 x 128 images (random weights and
data) and prints, per variant, the fastest of a few steps and how many times faster than the first
it is. It fails if a variant's first loss is not the first variant's, to the precision of its
numbers. ``--quick`` takes a tiny encoder, to see that everything runs.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crosswalk.encoders.clip import ClipDualEncoder, Transformer, open_clip_vit
from crosswalk.encoders.dual_embedding import DualEmbedding
from crosswalk.encoders.token_selection import (
    best_positions,
    image_token_scores,
    num_pooled,
    text_token_scores,
)
from crosswalk.losses.pair_losses import triplet_alignment_of_pairs

Views = dict[str, Tensor]


class Straightforward(nn.Module):
    """The same encoder with every attention map in memory and every token projected."""

    def __init__(self, encoder: DualEmbedding) -> None:
        super().__init__()
        self.encoder = encoder

    def embed_images(self, image: Tensor) -> Views:
        """Return unit vectors by view."""
        visual = self.encoder.clip.visual
        patches = visual.conv1(image).flatten(2).mT
        class_token = visual.class_embedding.expand(len(image), 1, -1)
        x = visual.ln_pre(torch.cat([class_token, patches], 1) + visual.positional_embedding)
        x, attention = all_attention(visual.transformer, x)
        tokens = visual.ln_post(x) @ visual.proj
        scores = image_token_scores(attention[:, 0].detach())
        selected = gather(tokens, best_positions(scores, self.encoder.num_image_tokens))
        return views(tokens[:, 0], self.encoder.image_selection(selected))

    def embed_texts(self, ids: Tensor) -> Views:
        """Return unit vectors by view."""
        clip, count = self.encoder.clip, self.encoder.num_text_tokens
        x, attention = all_attention(
            clip.transformer, clip.token_embedding(ids) + clip.positional_embedding
        )
        tokens = clip.ln_final(x) @ clip.text_projection
        every, end = torch.arange(len(ids)), ids.argmax(dim=1)
        scores = text_token_scores(attention[every, end].detach(), ids)
        selected = gather(tokens, best_positions(scores, count))
        embedding = self.encoder.text_selection(selected, num_pooled(ids, count))
        return views(tokens[every, end], embedding)


def all_attention(transformer: Transformer, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the last tokens, and the last attention weights averaged over heads."""
    length, weights = x.shape[1], x
    for block in transformer.resblocks:
        attention = block.attn
        packed = F.linear(block.ln_1(x), attention.in_proj_weight, attention.in_proj_bias)
        query, key, value = packed.view(*x.shape[:2], 3, attention.heads, -1).permute(2, 0, 3, 1, 4)
        scores = query @ key.mT * query.shape[-1] ** -0.5
        if transformer.causal:
            scores = scores + torch.full((length, length), -torch.inf).triu(1)
        probability = scores.softmax(dim=-1)
        weights = probability.mean(dim=1)
        x = block.feed_forward(x + attention.merge(probability @ value))
    return x, weights


def gather(tokens: Tensor, position: Tensor) -> Tensor:
    return tokens[torch.arange(len(tokens))[:, None], position]


def views(global_token: Tensor, selection: Tensor) -> Views:
    return {
        "global": F.normalize(global_token, dim=1),
        "token_selection": F.normalize(selection, dim=1),
    }


@dataclass(frozen=True)
class Variant:
    """One way of training, and how far its loss may be from float32, relatively."""

    name: str
    prepare: Callable[[DualEmbedding], nn.Module]
    bfloat16: bool
    fused: bool
    tolerance: float


def as_it_is(encoder: DualEmbedding) -> nn.Module:
    return encoder


def compiled(encoder: DualEmbedding) -> nn.Module:
    encoder.compile()
    return encoder


VARIANTS = [
    Variant("straightforward, float32", Straightforward, False, False, 0.0),
    Variant("ours, float32", as_it_is, False, True, 1e-3),
    Variant("ours, bfloat16", as_it_is, True, True, 3e-2),
    Variant("ours, bfloat16, compiled", compiled, True, True, 3e-2),
]


def build(quick: bool) -> DualEmbedding:
    torch.manual_seed(0)
    if not quick:
        clip = open_clip_vit("ViT-B-16-quickgelu", image_size=(384, 128))
        return DualEmbedding(clip, select_ratio=0.3)
    clip = ClipDualEncoder(
        image_size=(48, 16),
        patch_size=8,
        vision_width=32,
        vision_layers=2,
        vision_heads=2,
        text_width=16,
        text_layers=2,
        text_heads=2,
        embed_dim=16,
        context_length=24,
        vocabulary_size=49408,
    )
    return DualEmbedding(clip, select_ratio=0.3, embedding_size=32)


def random_batch(encoder: DualEmbedding, batch_size: int, quick: bool) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(batch_size, 3, *((48, 16) if quick else (384, 128)), generator=generator)
    ids = torch.zeros(batch_size, encoder.clip.context_length, dtype=torch.int64)
    for row in ids:
        end = int(torch.randint(8, 20 if quick else 40, (), generator=generator))
        row[:end] = torch.randint(1, 49405, (end,), generator=generator)
        row[0], row[end] = 49406, 49407
    return image, ids


def time_variant(
    variant: Variant, batch_size: int, steps: int, quick: bool
) -> tuple[float, float, float]:
    """Return the first loss, the fastest step and the fastest forward pass in seconds."""
    encoder = build(quick)
    model = variant.prepare(encoder)
    image, ids = random_batch(encoder, batch_size, quick)
    positive = torch.eye(batch_size, dtype=torch.bool)
    pair_loss = triplet_alignment_of_pairs(margin=0.1, temperature=0.015)
    kind = {"fused": True} if variant.fused else {"foreach": False}
    adam = torch.optim.Adam(model.parameters(), lr=1e-5, eps=1e-3, weight_decay=4e-5, **kind)

    def total_loss() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=variant.bfloat16):
            images, texts = model.embed_images(image), model.embed_texts(ids)
        return torch.stack(
            [pair_loss.of_pairs(texts[view] @ images[view].T, positive).sum() for view in images]
        ).sum()

    first_loss = total_loss().item()
    durations, forwards = [], []
    for _ in range(steps + 1):
        start = time.perf_counter()
        loss = total_loss()
        adam.zero_grad()
        loss.backward()
        adam.step()
        durations.append(time.perf_counter() - start)
    with torch.no_grad():
        for _ in range(steps + 1):
            start = time.perf_counter()
            total_loss()
            forwards.append(time.perf_counter() - start)
    return first_loss, min(durations[1:]), min(forwards[1:])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Time RDE's training step on this CPU.")
    parser.add_argument("--batch-size", type=int, default=8, help="pairs per step")
    parser.add_argument("--steps", type=int, default=3, help="timed steps; the fastest counts")
    parser.add_argument("--quick", action="store_true", help="a tiny encoder, one step")
    options = parser.parse_args(arguments)
    steps = 1 if options.quick else options.steps

    wrong = []
    print(f"batch of {options.batch_size}, {torch.get_num_threads()} threads")
    print(f"{'variant':<28}{'step':>9}{'ratio':>7}{'forward':>10}{'ratio':>7}{'loss':>12}")
    baseline = None
    for variant in VARIANTS:
        loss, step, forward = time_variant(variant, options.batch_size, steps, options.quick)
        baseline = baseline or (loss, step, forward)
        ratios = baseline[1] / step, baseline[2] / forward
        print(
            f"{variant.name:<28}{step:>7.3f} s{ratios[0]:>7.2f}{forward:>8.3f} s{ratios[1]:>7.2f}"
            f"{loss:>12.5f}",
            flush=True,
        )
        if abs(loss - baseline[0]) > variant.tolerance * abs(baseline[0]):
            wrong.append(f"{variant.name}: loss {loss}, expected {baseline[0]}")
    print("\n".join(wrong) or "all losses agree")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

"""What the published steps do in a plainer way, put in the place of the package's parts.

RDE keeps all attention maps and projects every token; CM-MoCo's attention pool computes all tokens
and keeps one; MMCL ranks the whole memory for each sample and each candidate; MAR goes through its
images one by one. The other methods have no such part.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crosswalk.encoders.clip import Transformer
from crosswalk.encoders.clip_resnet import AttentionPool
from crosswalk.encoders.dual_embedding import DualEmbedding
from crosswalk.encoders.image import norm_scale
from crosswalk.encoders.token_selection import (
    best_positions,
    image_token_scores,
    num_pooled,
    text_token_scores,
)
from crosswalk.losses.reference_agents import agent_loss

Views = dict[str, Tensor]


class AllAttention(nn.Module):
    """RDE's encoder with every attention map in memory and every token projected."""

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


class AllTokens(nn.Module):
    """CLIP's attention pool: the attention of every token, of which the first is kept."""

    def __init__(self, pool: AttentionPool) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, maps: Tensor) -> Tensor:
        """Return ``[b, output_dim]`` vectors."""
        pool, tokens = self.pool, self.pool.tokens(maps)
        query, key, value = (
            layer(tokens).unflatten(2, (pool.heads, -1)).transpose(1, 2)
            for layer in (pool.q_proj, pool.k_proj, pool.v_proj)
        )
        weights = (query @ key.mT * query.shape[-1] ** -0.5).softmax(dim=-1)
        vectors: Tensor = pool.c_proj((weights @ value).transpose(1, 2).flatten(2))
        return vectors[:, 0]


def ranked_labels(rows: Tensor, index: Tensor, *, threshold: float = 0.6) -> Tensor:
    """Return MMCL's labels by a ranking of all rows per sample, and another per candidate."""
    labels = torch.zeros(len(index), len(rows), dtype=torch.bool)
    for sample, row in enumerate(index.tolist()):
        similarity, ranked = (rows @ rows[row]).sort(descending=True, stable=True)
        similar = int((similarity > threshold).sum())
        walked = candidates = max(similar, 10)
        for place, candidate in enumerate(ranked[:candidates].tolist()):
            own = (rows @ rows[candidate]).argsort(descending=True, stable=True)
            if int((own == ranked[0]).nonzero()) > candidates:
                walked = place
                break
        labels[sample, ranked[: min(max(walked, 2), similar)]] = True
        labels[sample, row] = True
    return labels


def looped_multilabel(
    logits: Tensor, labels: Tensor, *, delta: float = 5.0, ratio: float = 0.01
) -> Tensor:
    """Return MMCL's ``[B]`` losses, the negatives of each sample ranked by themselves."""
    losses = []
    for scores, positive in zip(logits, labels, strict=True):
        wrong = scores[~positive].sort(descending=True).values
        hardest = wrong[: int(ratio * len(wrong))]
        attraction = delta * (1 - scores[positive]).square().mean()
        losses.append(attraction + (1 + hardest).square().mean())
    return torch.stack(losses)


def looped_reference(method: Any) -> Callable[..., dict[str, Tensor]]:  # noqa: ANN401
    """Return MAR's losses around the agents, image by image."""

    def losses(
        source: Tensor, target: Tensor, person_id: Tensor, target_similarity: Tensor
    ) -> dict[str, Tensor]:
        agents = norm_scale(method.agents.weight)
        similarity = source @ agents.T
        fixed, terms = agents.detach(), []
        for number, image in enumerate([*source, *target]):
            near = image.detach() @ fixed.T > 1 - method.margin / 2
            if number < len(source):
                own = person_id[number]
                terms.append((image - fixed[own]).square().sum())
                near[own] = False
            if near.any():
                distance = (image - fixed[near]).square().sum(dim=1)
                terms.append((method.margin - distance).clamp_min(0).mean())
        named = agent_loss(similarity, person_id, scale=method.scale).mean()
        return {"agent": named, "joint": torch.stack(terms).mean()}

    return losses


def make_plain(method: Any) -> str:  # noqa: ANN401
    """Put the plainer parts into a method; return what they are, "" where there is none."""
    name = type(method).__name__
    if name == "RDE":
        method.encoder = AllAttention(method.encoder)
        return "all attention maps, all tokens projected"
    if name == "CMMoCo":
        for part in (method.encoder, method.keys):
            for owner in list(part.modules()):
                if isinstance(getattr(owner, "attnpool", None), AttentionPool):
                    owner.attnpool = AllTokens(owner.attnpool)
        return "all tokens of the attention pool"
    if name == "MMCL":
        method.predict_labels, method.multilabel_loss = ranked_labels, looped_multilabel
        return "loops over samples and candidates"
    if name == "MAR":
        method.reference_losses = looped_reference(method)
        return "a loop over images"
    return ""

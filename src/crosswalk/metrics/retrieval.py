"""Collects the embeddings of an evaluation, batch by batch and process by process, and ranks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric

from crosswalk.distributed import (
    all_gather_rows,
    gather_objects,
    on_rank_zero,
    rank_and_world_size,
)
from crosswalk.metrics.average_precision import check_extra_map
from crosswalk.metrics.counting import Labels
from crosswalk.metrics.queries import RANKS, QueryResults
from crosswalk.metrics.ranking import (
    Processes,
    Ranking,
    mean_average_precision,
    mean_inp,
    rank_k,
    rank_views,
)
from crosswalk.metrics.reranking import Reranking
from crosswalk.metrics.samples import DrawnSamples, Samples, draw_persons

ROLES = ("query", "gallery")
DIRECTIONS = {
    "text_to_image": ("query", "gallery"),
    "image_to_image": ("query", "gallery"),
    "image_to_text": ("gallery", "query"),
}
"""What is looked for in what, by the name of the retrieval direction."""
DRAWN_OF_EACH = 6
"""Most samples of a person in each role among those to look at."""


class RetrievalResult(NamedTuple):
    """Measures by name, as fractions and counts; per-query results by direction or view.

    ``drawn`` are a few samples to look at, where they were asked for.
    """

    values: dict[str, float]
    queries: dict[str, QueryResults]
    drawn: DrawnSamples | None = None


class RetrievalScores(Metric):
    """Rank-k, mAP and mINP of an evaluation that may be spread over batches and processes.

    Every process ends with the same values. A sample that was seen twice, for example because a
    sampler filled up a last batch, counts once. Update it in evaluation only; reset it before the
    next one.

    Args:
        num_query: Samples expected in role "query", or None to accept any number.
        num_gallery: Samples expected in role "gallery", or None to accept any number.
        camera_rule: Whether a gallery image of the same person by the same camera as the query
            is ignored, as the image re-identification protocols say.
        same_pictures: The picture that each sample index of the queries, and of the gallery, is:
            a query is not ranked against its own picture; below 0 is none that is in both. Of
            directions from queries to the gallery alone. None: everything is ranked.
        topk: Length of the ranking lists kept per query.
        directions: Names from `DIRECTIONS`. The measures of the first have plain names
            (``rank1``), those of others start with the direction (``image_to_text/rank1``).
            With several views, the first direction is also measured view by view
            (``view/<view>/rank1``; per-query results under ``view/<view>``, without lists).
        extra_map: Further definitions of average precision, names from
            `crosswalk.metrics.average_precision.EXTRA_MAP`, measured as ``map_<name>``.
        reranking: A function of `crosswalk.metrics.reranking` with its numbers set, or None.
            What it makes of all views together is measured beside the plain measures, as
            ``reranked/rank1`` and so on, ``image_to_text/reranked/rank1`` in other directions;
            the per-query results stay those of the plain similarities.
        num_drawn_persons: Persons whose embeddings are returned to look at, some of each role.

    Raises:
        ValueError: If a direction or a definition is unknown, or no direction is given.

    Example:
        >>> scores = RetrievalScores(directions=["text_to_image"])
        >>> view, ids = {"global": torch.eye(2)}, torch.tensor([1, 2])
        >>> for role in ("query", "gallery"):
        ...     scores.update(role, view, person_id=ids, camera_id=-ids, sample_index=ids)
        >>> scores.compute().values["rank1"]
        1.0
    """

    full_state_update = False
    query_embedding: list[Tensor]
    query_labels: list[Tensor]
    gallery_embedding: list[Tensor]
    gallery_labels: list[Tensor]

    def __init__(
        self,
        *,
        num_query: int | None = None,
        num_gallery: int | None = None,
        camera_rule: bool = False,
        same_pictures: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None,
        topk: int = 10,
        directions: Sequence[str] = ("text_to_image", "image_to_text"),
        extra_map: Sequence[str] = (),
        reranking: Reranking | None = None,
        num_drawn_persons: int = 0,
    ) -> None:
        # Gathered in `compute`: torchmetrics skips the collective on a process without samples,
        # and the others would wait for ever.
        super().__init__(sync_on_compute=False)
        unknown = sorted(set(directions) - set(DIRECTIONS))
        if unknown or not directions:
            raise ValueError(
                f"directions={list(directions)}: choose one or more of {sorted(DIRECTIONS)}."
            )
        check_extra_map(extra_map)
        self.num_expected = {"query": num_query, "gallery": num_gallery}
        self.camera_rule = camera_rule
        self.same_pictures = same_pictures
        self.topk = topk
        self.directions = tuple(directions)
        self.extra_map = tuple(extra_map)
        self.reranking = reranking
        self.num_drawn_persons = num_drawn_persons
        self.widths: dict[str, int] = {}
        for role in ROLES:
            self.add_state(f"{role}_embedding", [], dist_reduce_fx="cat")
            self.add_state(f"{role}_labels", [], dist_reduce_fx="cat")

    def update(
        self,
        role: str,
        views: Mapping[str, Tensor],
        person_id: Tensor,
        camera_id: Tensor,
        sample_index: Tensor,
    ) -> None:
        """Take one batch.

        Args:
            role: "query" or "gallery".
            views: ``[b, D]`` unit vectors by view; the same views and sizes in every batch.
            person_id: ``[b]`` int64.
            camera_id: ``[b]`` int64, -1 = unknown.
            sample_index: ``[b]`` int64, distinguishes the samples of a role.

        Raises:
            ValueError: If the role is unknown or the views differ from those before.
        """
        if role not in ROLES:
            raise ValueError(f"role {role!r} is unknown, choose one of {list(ROLES)}.")
        widths = {view: embedding.shape[1] for view, embedding in views.items()}
        if self.widths and widths != self.widths:
            raise ValueError(
                f"a {role} batch has views {widths}, earlier batches had {self.widths}. Let "
                "validation_step return the same views of the same sizes for every loader."
            )
        self.widths = widths
        embedding = torch.cat([views[view].detach() for view in sorted(views)], dim=1)
        if embedding.dtype != torch.float64:
            embedding = embedding.float()
        getattr(self, f"{role}_embedding").append(embedding)
        labels = torch.stack([person_id, camera_id, sample_index], dim=1)
        getattr(self, f"{role}_labels").append(labels.to(embedding.device))

    def reset(self) -> None:
        """Forget all samples."""
        super().reset()
        self.widths = {}

    def compute(self) -> RetrievalResult:
        """Return the measures over all processes' samples, the same on every process.

        Raises:
            RuntimeError: If samples are missing.
            ValueError: If no query has a match.
        """
        widths, dtype = self._agree_on_views()
        samples = {role: self._gather(role, sum(widths.values()), dtype) for role in ROLES}
        roles = DIRECTIONS[self.directions[0]]
        query, gallery = (samples[role] for role in roles)
        views = sorted(widths)
        found = rank_views(
            query.embedding,
            gallery.embedding,
            self._labels(query, gallery),
            widths=[widths[view] for view in views],
            by_view=len(views) > 1,
            both_ways=any(DIRECTIONS[direction] != roles for direction in self.directions),
            topk=self.topk,
            extra_map=self.extra_map,
            processes=Processes(*rank_and_world_size(), gather_objects),
        )
        values: dict[str, float] = {}
        queries = {}
        for number, direction in enumerate(self.directions):
            query, gallery = (samples[role] for role in DIRECTIONS[direction])
            prefix = f"{direction}/" if number else ""
            ranking = found.joint if DIRECTIONS[direction] == roles else found.backward
            assert ranking is not None
            measures = _measures("", ranking)
            values |= {f"{prefix}{name}": value for name, value in measures.items()}
            if self.reranking is not None:
                # rank 0 alone: it is work for all cores of a machine, and not for each process
                measured = on_rank_zero(self._rerank, query, gallery, widths).tolist()
                names = (f"{prefix}reranked/{name}" for name in measures)
                values |= dict(zip(names, measured, strict=True))
            values[f"{prefix}queries_without_match"] = float((~ranking.valid).sum())
            queries[direction] = _per_query(query, gallery, ranking)
            if number == 0:
                for view, ranking in zip(views, found.views, strict=False):
                    values |= _measures(f"view/{view}/", ranking)
                    queries[f"view/{view}"] = _per_query(query, gallery, ranking)
        drawn = None
        if self.num_drawn_persons:
            drawn = draw_persons(
                samples, num_persons=self.num_drawn_persons, most_each=DRAWN_OF_EACH, seed=0
            )
        return RetrievalResult(values, queries, drawn)

    def _agree_on_views(self) -> tuple[dict[str, int], torch.dtype]:
        embeddings = [*self.query_embedding, *self.gallery_embedding]
        known = gather_objects((self.widths, embeddings[0].dtype if embeddings else None))
        seen = [(widths, dtype) for widths, dtype in known if widths]
        if not seen:
            raise RuntimeError(
                "the evaluation saw no sample. Check that the split is not empty and that "
                "validation_step returns the embeddings."
            )
        if any(each != seen[0] for each in seen):
            raise RuntimeError(f"processes evaluated different views: {seen}.")
        return seen[0]

    def _gather(self, role: str, width: int, dtype: torch.dtype) -> Samples:
        empty = torch.zeros((0, width), dtype=dtype, device=self.device)
        embedding = all_gather_rows(torch.cat([empty, *getattr(self, f"{role}_embedding")]))
        no_label = torch.zeros((0, 3), dtype=torch.int64, device=self.device)
        labels = all_gather_rows(torch.cat([no_label, *getattr(self, f"{role}_labels")]))
        sample_index, order = labels[:, 2].sort(stable=True)
        first = torch.ones_like(sample_index, dtype=torch.bool)
        first[1:] = sample_index[1:] != sample_index[:-1]
        kept = order[first]
        expected = self.num_expected[role]
        if expected is not None and len(kept) != expected:
            raise RuntimeError(
                f"the evaluation saw {len(kept)} different {role} samples, the split has "
                f"{expected}. Metrics of a part have no meaning: leave trainer.limit_val_batches "
                "and trainer.limit_test_batches at 1.0, and check that the loader of each process "
                "takes its own slice."
            )
        person_id, camera_id, sample_index = labels[kept].unbind(dim=1)
        return Samples(embedding[kept], person_id, camera_id, sample_index)

    def _rerank(self, query: Samples, gallery: Samples, widths: dict[str, int]) -> Tensor:
        """Return ``[measures]`` of the re-ranked gallery, in the order of `_measures`."""
        assert self.reranking is not None
        vectors = [samples.embedding for samples in (query, gallery)]
        if len(widths) > 1:  # their cosine is then the mean over views
            vectors = [each / math.sqrt(len(widths)) for each in vectors]
        ranking = rank_views(
            query.embedding,
            gallery.embedding,
            self._labels(query, gallery),
            widths=[widths[view] for view in sorted(widths)],
            topk=0,
            extra_map=self.extra_map,
            rescoring=self.reranking(*vectors),
        ).joint
        return torch.tensor(list(_measures("", ranking).values()), dtype=torch.float64)

    def _labels(self, query: Samples, gallery: Samples) -> Labels:
        labels = Labels(query.person_id, gallery.person_id)
        if self.camera_rule:
            labels = labels._replace(
                query_camera_id=query.camera_id, gallery_camera_id=gallery.camera_id
            )
        if self.same_pictures is not None:
            pictures = (
                torch.from_numpy(of_role)[samples.sample_index.cpu()]
                for of_role, samples in zip(self.same_pictures, (query, gallery), strict=True)
            )
            labels = labels._replace(
                **dict(zip(("query_picture", "gallery_picture"), pictures, strict=True))
            )
        return labels


def _measures(prefix: str, ranking: Ranking) -> dict[str, float]:
    values = {f"{prefix}rank{k}": rank_k(ranking, k) for k in RANKS}
    values[f"{prefix}map"] = mean_average_precision(ranking)
    for name in ranking.extra_average_precision:
        values[f"{prefix}map_{name}"] = mean_average_precision(ranking, name)
    values[f"{prefix}minp"] = mean_inp(ranking)
    return values


def _per_query(query: Samples, gallery: Samples, ranking: Ranking) -> QueryResults:
    def looked_up(values: Tensor) -> NDArray[np.int64]:
        return np.where(ranking.top_index < 0, -1, values.cpu().numpy()[ranking.top_index])

    return QueryResults(
        query.sample_index.cpu().numpy(),
        query.person_id.cpu().numpy(),
        ranking.num_matches,
        ranking.first_hit,
        ranking.average_precision,
        ranking.inverse_negative_penalty,
        looked_up(gallery.sample_index),
        looked_up(gallery.person_id),
        ranking.top_score,
        ranking.best_score,
        ranking.best_other_score,
        np.full(len(ranking.first_hit), len(gallery.sample_index)),
    )

"""MAR: unsupervised person ReID by soft multilabel learning (Yu et al., CVPR 2019)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, ClassVar

import torch
from annotated_types import Gt, Lt
from torch import Tensor, nn

from crosswalk.distributed import all_gather_rows, global_column, on_rank_zero, whole_column
from crosswalk.encoders.image import norm_scale
from crosswalk.host import Values
from crosswalk.labels.soft_multilabel import (
    agreeing_pairs,
    initial_threshold,
    kth_largest,
    log_soft_multilabel,
    mine_pairs,
    pair_agreements,
)
from crosswalk.losses.reference_agents import agent_loss, joint_embedding_loss
from crosswalk.losses.soft_multilabel import (
    camera_statistics,
    consistency_loss,
    discriminative_loss,
    initial_centers,
)
from crosswalk.memory.multilabel_memory import MultilabelMemory
from crosswalk.methods.base import Method, OptimFactory
from crosswalk.ranges import Count, Epoch, NotNegative, Positive, Share
from crosswalk.types import DataSpec, ImageBatch, ImageEncoder, Needs, SourceTargetBatch, TextBatch


class MAR(Method[SourceTargetBatch]):
    """Tells target images apart by their likeness to the people of a labelled source.

    Once, before the first epoch: the multilabels of all target images (`sweep_step`) give the
    centres of the cameras and the agreement that counts as such (`on_sweep_end`). Each step: 1. the
    agents learn their persons, and both domains are tied to them; 2. the multilabels of a batch are
    held together over the cameras (`consistency_loss`); 3. from the second epoch on, look-alikes
    are drawn together or apart, by their multilabels (`discriminative_loss`).

    Everything that a step writes is used by the same step, so it is written inside it.

    Args:
        encoder: Gives the features of images; the pooled ones are used, scaled to length 1.
        data: Sizes of the target, and how many persons the source has.
        optim: Builds the optimizer and its schedule.
        mining: ``(agreement [K], threshold) -> [K]``: which of the most similar pairs, nearest
            first, are positive; the others are hard negatives.
        scale: Inverse temperature of the softmax over the agents.
        margin: Squared distance that strangers keep from an agent.
        joint_weight: Weight of the joint embedding loss beside the agent loss.
        reference_weight: Weight of both together.
        consistency_weight: Weight of the consistency loss.
        mining_ratio: Share of all pairs that counts as similar, and as agreeing.
        mining_start_epoch: First epoch with the discriminative loss.
        memory_momentum: Weight of a sample's old multilabel.
        threshold_momentum: Weight of the old agreement threshold.
        center_images: Images, of both domains together, after which the centres are wholly renewed.
        use_std: Whether cameras agree in the deviation of multilabels too, not only in the mean.
        source_negatives: Whether source images are pushed from strangers' agents too.
        detach_agents: Whether the joint embedding loss leaves the agents alone.
        official_compat: Whether a batch with too few pairs moves the threshold to its least
            agreement, as in the official code; else it leaves the threshold alone.
    """

    needs = Needs(batches=(SourceTargetBatch,))
    # its own, or the rows of the classifier that its stage trained
    starts_with: ClassVar = {"agents.weight": ("agents.weight", "classifier.weight")}
    initialised: Tensor
    threshold: Tensor
    center_mean: Tensor
    center_std: Tensor
    num_positives: Tensor
    true_positive_rate: Tensor

    def __init__(
        self,
        encoder: ImageEncoder,
        data: DataSpec,
        optim: OptimFactory,
        *,
        mining: Callable[[Tensor, Tensor], Tensor] = agreeing_pairs,
        scale: Positive = 30.0,
        margin: NotNegative = 1.0,
        joint_weight: NotNegative = 0.2,
        reference_weight: NotNegative = 50.0,
        consistency_weight: NotNegative = 2e-4,
        mining_ratio: Annotated[float, Gt(0), Lt(1)] = 0.005,
        mining_start_epoch: Epoch = 1,
        memory_momentum: Share = 0.9,
        threshold_momentum: Share = 0.9,
        center_images: Count = 10_000,
        use_std: bool = True,
        source_negatives: bool = True,
        detach_agents: bool = True,
        official_compat: bool = False,
    ) -> None:
        super().__init__(optim)
        num_agents = data.num_source_person_ids
        if num_agents < 1:
            raise ValueError(
                "MAR describes people by those of a labelled source, and the data have none. "
                "Choose a source and a target: experiment=mar/msmt17_to_market1501."
            )
        if not 0 < mining_ratio < 1:
            raise ValueError(f"method.mining_ratio={mining_ratio} is not between 0 and 1.")
        self.encoder = encoder
        self.agents = nn.Linear(encoder.embedding_size, num_agents, bias=False)
        self.memory = MultilabelMemory(data.num_samples, num_agents)
        self.mining = mining
        self.scale = scale
        self.margin = margin
        self.joint_weight = joint_weight
        self.reference_weight = reference_weight
        self.consistency_weight = consistency_weight
        self.mining_ratio = mining_ratio
        self.mining_start_epoch = mining_start_epoch
        self.memory_momentum = memory_momentum
        self.threshold_momentum = threshold_momentum
        self.center_images = center_images
        self.use_std = use_std
        self.source_negatives = source_negatives
        self.detach_agents = detach_agents
        self.official_compat = official_compat
        self.register_buffer("initialised", torch.tensor(False))
        for name in ("threshold", "num_positives", "true_positive_rate"):
            self.register_buffer(name, torch.zeros(()))
        for name in ("center_mean", "center_std"):
            self.register_buffer(name, torch.zeros(num_agents))

    def embed(self, batch: ImageBatch | TextBatch) -> dict[str, Tensor]:
        assert isinstance(batch, ImageBatch)
        pooled = self.encoder(batch.image).pooled
        return {"global": norm_scale(pooled.to(self.agents.weight.dtype))}

    def similarity(self, embedding: Tensor) -> Tensor:
        """Return ``[n, agents]`` cosines, whose gradient leaves the agents alone."""
        return embedding @ norm_scale(self.agents.weight.detach()).T

    def wants_sweep(self, epoch: int) -> bool:
        return not bool(self.initialised)

    def sweep_step(self, batch: ImageBatch) -> dict[str, Tensor]:
        embedding = self.embed(batch)["global"]
        with torch.autocast(embedding.device.type, enabled=False):
            log_multilabel = log_soft_multilabel(self.similarity(embedding), scale=self.scale)
        return {"log_multilabel": log_multilabel, "camera_id": batch.camera_id}

    def on_sweep_end(self, table: dict[str, Tensor]) -> None:
        log_multilabel = table["log_multilabel"]
        mean, std = initial_centers(log_multilabel, table["camera_id"])
        self.center_mean.copy_(mean)
        self.center_std.copy_(std)
        threshold = on_rank_zero(
            initial_threshold,
            log_multilabel.exp(),
            mining_ratio=self.mining_ratio,
            official_compat=self.official_compat,
        )
        self.threshold.copy_(threshold)
        self.initialised.fill_(True)

    def reference_losses(
        self, source: Tensor, target: Tensor, person_id: Tensor, target_similarity: Tensor
    ) -> dict[str, Tensor]:
        """Return the agent loss of the source and the joint embedding loss of both domains."""
        agents = norm_scale(self.agents.weight)
        similarity = source @ agents.T
        own = agent_loss(similarity, person_id, scale=self.scale)
        joint = joint_embedding_loss(
            source,
            target,
            agents.detach() if self.detach_agents else agents,
            person_id,
            source_similarity=similarity,
            target_similarity=target_similarity,
            margin=self.margin,
            source_negatives=self.source_negatives,
        )
        return {"agent": own.mean(), "joint": joint.loss.sum() / joint.counted.sum()}

    def consistency_loss(
        self, log_multilabel: Tensor, camera_id: Values, *, batch_size: int
    ) -> Tensor:
        """Move the centres to the batch, and return its cameras' mean distance from them."""
        cameras = camera_statistics(log_multilabel, camera_id, min_size=2)
        if len(cameras.size) == 0:  # nothing to compare; the official code fails here
            return log_multilabel.sum() * 0
        momentum = min(1.0, batch_size / self.center_images)
        self.center_mean.lerp_(cameras.mean.detach().mean(dim=0), momentum)
        if self.use_std:
            self.center_std.lerp_(cameras.std.detach().mean(dim=0), momentum)
        centers = (self.center_mean, self.center_std)
        return consistency_loss(cameras, *centers, use_std=self.use_std).mean()

    def discriminative_loss(
        self, embedding: Tensor, multilabel: Tensor, person_id: Tensor
    ) -> Tensor:
        """Return the loss of the batch's most similar pairs, and move the threshold.

        The identities of the target are used for `true_positive_rate` alone, which is only logged.
        """
        agreement = pair_agreements(multilabel)
        first, second, positive = mine_pairs(
            embedding,
            agreement,
            self.threshold,
            mining_ratio=self.mining_ratio,
            mining=self.mining,
        )
        self.watch(positive, person_id[first] == person_id[second])
        rank = len(positive) or (len(agreement) if self.official_compat else 0)
        if rank:
            at_rank = kth_largest(agreement, rank)
            self.threshold.lerp_(at_rank, 1 - self.threshold_momentum)
        squared_distance = (embedding[first] - embedding[second]).square().sum(dim=1)
        return discriminative_loss(squared_distance, positive)

    def watch(self, positive: Tensor, same_person: Tensor) -> None:
        """Update what is logged: moving averages of positive pairs and of those that are right."""
        number = positive.sum().to(self.num_positives.dtype)
        rate = (positive & same_person).sum() / number.clamp_min(1)
        moved = self.true_positive_rate.lerp(rate.to(number.dtype), 0.1)
        self.true_positive_rate.copy_(torch.where(number > 0, moved, self.true_positive_rate))
        self.num_positives.lerp_(number, 0.1)

    def training_step(self, batch: SourceTargetBatch, batch_idx: int) -> Tensor:
        # Two passes: each domain has batch statistics of its own.
        source = all_gather_rows(self.embed(batch.source)["global"])
        target = all_gather_rows(self.embed(batch.target)["global"])
        source_person_id = whole_column(batch.source, "person_id")
        target_person_id = whole_column(batch.target, "person_id")
        camera_id = global_column(batch.target, "camera_id")
        index = whole_column(batch.target, "sample_index")
        # float32 outside autocast: exp(30 * cosine), and distances of look-alikes
        with torch.autocast(target.device.type, enabled=False):
            similarity = self.similarity(target)
            losses = self.reference_losses(source, target, source_person_id, similarity)
            losses["agent"] = self.reference_weight * losses["agent"]
            losses["joint"] = self.reference_weight * self.joint_weight * losses["joint"]
            log_multilabel = log_soft_multilabel(similarity, scale=self.scale)
            losses["consistency"] = self.consistency_weight * self.consistency_loss(
                log_multilabel, camera_id, batch_size=len(source) + len(target)
            )
            if self.current_epoch >= self.mining_start_epoch:
                multilabel = log_multilabel.detach().exp()
                self.memory.update(multilabel, index, momentum=self.memory_momentum)
                losses["discriminative"] = self.discriminative_loss(
                    target, self.memory.read(index), target_person_id
                )
        return self.log_total("train", losses)

    def on_train_epoch_end(self) -> None:
        self.log("train/agreement_threshold", self.threshold)
        self.log("train/positive_pairs", self.num_positives)
        self.log("train/true_positive_rate", self.true_positive_rate)

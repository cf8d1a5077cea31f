"""Training steps of every method of ``configs/method``, at its published size, without a trainer.

A `Step` is what a run repeats: a batch as it left the loader is augmented, goes through the method
under the trainer's precision, backward, the optimizer, and into the method's memory. Weights are
random and the data synthetic, but sizes are those of a run: images, encoder, persons, and rows of
memories, which hold clusters as those of a half-trained network do.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from crosswalk.config.build import build_method, construct
from crosswalk.config.check import check
from crosswalk.config.compose import compose
from crosswalk.config.keys import flatten
from crosswalk.config.plain import to_plain
from crosswalk.config.search import group_values, small_overrides
from crosswalk.distributed import all_gather_ragged, rank_and_world_size
from crosswalk.encoders.clip_weights import downloading
from crosswalk.run.callbacks.known_rows import KnownRows
from crosswalk.synthetic.generate import synthesize_pairs
from crosswalk.synthetic.images import synthesize_images
from crosswalk.types import PairBatch, SourceTargetBatch

METHODS = tuple(group_values("method"))
PUBLISHED_DATA = ("cuhk_pedes", "market1501", "msmt17_to_market1501")
"""The first of these that a method has an experiment for."""
EPOCH = 10
"""Of which the steps are: labels are predicted, clusters known."""
CLUSTER = 17
"""Images of a person in a memory, as in Market-1501."""


@dataclass(frozen=True)
class Sizes:
    """How large the training set is that memories are made for; the files may be fewer."""

    images: int
    pairs: int
    persons: int
    source_persons: int


PUBLISHED = Sizes(images=12_936, pairs=68_126, persons=11_003, source_persons=4_101)
"""Market-1501's images, CUHK-PEDES' pairs and persons, MSMT17's persons."""
SMALL = Sizes(images=4_000, pairs=8_000, persons=11_003, source_persons=4_101)
"""Where clusters of all of them would take longer than the steps."""
TINY = Sizes(images=340, pairs=680, persons=200, source_persons=150)


def takes_pairs(method: str) -> bool:
    """Return whether a method's published data are images with captions."""
    return f"{method}/cuhk_pedes" in group_values("experiment")


def data_root(data: str, folder: Path, size: str) -> Path:
    """Return the root of a synthetic set in the layout of ``data``, made once below ``folder``."""
    if data == "cuhk_pedes":
        return synthesize_pairs(folder / "pairs", size=size, progress=False)
    for layout in ("market1501", *(["msmt17"] if "msmt17" in data else [])):
        synthesize_images(folder / "images" / layout, layout=layout, size=size, progress=False)
    if data == "market1501":
        return folder / "images" / data / "Market-1501-v15.09.15"
    root = folder / "images" / "both"
    root.mkdir(exist_ok=True)
    for layout, name in (("market1501", "Market-1501-v15.09.15"), ("msmt17", "MSMT17_V1")):
        if not (root / name).exists():
            (root / name).symlink_to(folder / "images" / layout / name)
    return root


def configuration(
    method: str, folder: Path, *, batch_size: int, tiny: bool = False, set_size: str = "tiny"
) -> list[str]:
    """Return the overrides of a method's published recipe on synthetic data; ``tiny``: its small.

    Args:
        method: Its name.
        folder: Where the synthetic sets are, or are made.
        batch_size: Samples of a step, of MAR's from either set.
        tiny: Whether encoder and images are small ones.
        set_size: Of the synthetic set; it holds at least a batch.
    """
    if tiny:
        own = [each for each in small_overrides(method) if not each.startswith("data.batch_size")]
        start = [f"method={method}", *own]
    else:
        experiments = group_values("experiment")
        data = next(each for each in PUBLISHED_DATA if f"{method}/{each}" in experiments)
        start = [f"experiment={method}/{data}", f"data.root={data_root(data, folder, set_size)}"]
    start += ["trainer=cpu", "logger=csv", "stage=null", "data.num_workers=0", "data.cache=off"]
    start.append(f"data.batch_size={batch_size}")
    keys = flatten(to_plain(compose(start)))
    started = re.compile(r"(?!.*table\.).*\b(pretrained|vectors\.start)")
    start += [f"{key}=null" for key in keys if started.fullmatch(key)]
    if not tiny and "encoder.text.vectors.table.pretrained" in keys:  # a download
        words = "crosswalk.encoders.word_vectors.LearnedWords"
        start.append(
            f"encoder.text.vectors={{_target_: {words}, _partial_: true, size: 512, start: null}}"
        )
    if "data.plan.images_per_cluster" in keys:  # clusters come from the memory, not from a sweep
        plan = "crosswalk.data.pipeline.plans.shuffled_plan"
        start.append(f"data.plan={{_target_: {plan}, _partial_: true}}")
    if (keys["bn_group_size"] or 0) > batch_size:
        start.append("bn_group_size=null")
    return start


def clustered(count: int, size: int) -> Tensor:
    """Return ``[count, size]`` unit rows; `CLUSTER` in turn have cosines of about 0.7."""
    person = torch.arange(count) // CLUSTER
    centre = F.normalize(torch.randn(int(person.max()) + 1, size))
    return F.normalize(centre[person] + 0.65 * F.normalize(torch.randn(count, size)))


def spread(batch_size: int, count: int) -> Tensor:
    """Return ``[batch_size]`` different rows of ``count``, four of each cluster."""
    place = torch.arange(batch_size)
    groups = -(-batch_size // 4)
    return place // 4 * (count // groups // CLUSTER * CLUSTER) + place % 4


def sized(batch: Any, sizes: Sizes) -> Any:  # noqa: ANN401
    """Return a batch whose samples are spread over a training set of ``sizes``."""
    if isinstance(batch, SourceTargetBatch):
        return batch._replace(target=sized(batch.target, sizes))
    whole = batch.whole
    if isinstance(batch, PairBatch):
        rows = spread(len(whole.sample_index), sizes.pairs)
        columns = {"sample_index": rows, "image_index": image_of_pair(rows, sizes)}
    else:
        columns = {"sample_index": spread(len(whole.sample_index), sizes.images)}
    here = slice(whole.start, whole.start + len(batch.sample_index))
    known = whole._replace(**{name: column.numpy() for name, column in columns.items()})
    return batch._replace(whole=known, **{name: each[here] for name, each in columns.items()})


def image_of_pair(pair: Tensor, sizes: Sizes) -> Tensor:
    """Return the image of each pair: two captions of one image in turn."""
    return pair // 2 % (sizes.pairs // 2)


def fill(method: Any, sizes: Sizes) -> None:  # noqa: ANN401
    """Write into a method's memories what its sweeps would find of half-trained embeddings.

    Raises:
        ValueError: If it wants a sweep of which nothing is known here.
    """
    name = type(method).__name__
    if name == "MMCL":
        method.bank.rows.copy_(clustered(*method.bank.rows.shape))
    elif name == "ClipReid":
        method.texts.write(F.normalize(torch.randn_like(method.texts.rows)))
    elif name == "ClusterContrast":
        rows = clustered(sizes.images, method.encoder.embedding_size)
        method.memory.fill(rows, torch.arange(sizes.images) // CLUSTER)
    elif name == "MAR":
        agents = method.agents.weight.shape[0]
        sample = torch.randn(400, agents).log_softmax(dim=1)
        table = {"log_multilabel": sample, "camera_id": torch.arange(400) % 6}
        method.on_sweep_end({key: row.to(method.device) for key, row in table.items()})
    elif name == "CMMT":
        pair = torch.arange(sizes.pairs)
        image = image_of_pair(pair, sizes)
        rows = clustered(sizes.pairs // 2, method.encoder.embedding_size)[image]
        near = F.normalize(rows + 0.3 * F.normalize(torch.randn_like(rows)))
        method.on_sweep_end({"image": rows, "text": near, "image_index": image})
        method.on_train_epoch_start()
    elif method.wants_sweep(EPOCH) and not hasattr(method, "clean"):
        raise ValueError(f"{name} wants a sweep, and benchmarks/steps.py cannot make one up.")


def built(overrides: list[str], sizes: Sizes) -> tuple[Any, Any]:
    """Return the data module and the method of a configuration, made for a training set."""
    checked = check(compose(overrides))
    data = construct(checked.config["data"], {"identities": checked.needs.plans_see_identities})
    data.setup("fit")
    pairs = hasattr(data, "tokenizer")
    spec = replace(
        data.spec,
        num_samples=sizes.pairs if pairs else sizes.images,
        num_images=sizes.pairs // 2 if pairs else sizes.images,
        num_person_ids=sizes.persons,
        num_source_person_ids=bool(data.spec.num_source_person_ids) * sizes.source_persons,
    )
    torch.manual_seed(0)
    with downloading(False):
        return data, build_method(checked.config, spec, getattr(data, "tokenizer", None))


class _Forward(nn.Module):
    """What DistributedDataParallel wraps: the forward part of a step."""

    def __init__(self, method: Any, forward: Callable[[], Any]) -> None:  # noqa: ANN401
        super().__init__()
        self.method, self._forward = method, forward

    def forward(self) -> Any:  # noqa: ANN401
        return self._forward()


class Step:
    """A method in training on one batch, which every call takes again.

    Where there is a process group, each process has its part of the batch, and gradients are
    averaged as in a run.

    Args:
        overrides: What `configuration` returns, and more.
        sizes: Of the training set.
        device: Where to.
        bfloat16: Whether under autocast, as with ``trainer.precision=bf16-mixed``.
    """

    def __init__(
        self,
        overrides: list[str],
        *,
        sizes: Sizes,
        device: torch.device | str = "cpu",
        bfloat16: bool = False,
    ) -> None:
        self.device, self.bfloat16 = torch.device(device), bfloat16
        self.data, self.method = built(overrides, sizes)
        self.method.log = self.method.log_dict = lambda *_, **__: None  # there is no trainer
        kind = type(self.method)  # of this one alone: a program may have other methods
        self.method.__class__ = type(kind.__name__, (kind,), {"current_epoch": EPOCH})
        self.batch = sized(next(iter(self.data.train_dataloader())), sizes)
        with torch.no_grad():
            fill(self.method, sizes)
        self.method.to(self.device).train()
        self.batch = on_device(self.batch, self.device)
        if type(self.method).__name__ == "MAR":
            self.choose_agents()
        self.optimizer = self.method.configure_optimizers()["optimizer"]
        for group in self.optimizer.param_groups:
            group["lr"] = 1e-7  # random weights, and every step should cost what the first one does
        self.model: DistributedDataParallel | None = None
        if rank_and_world_size()[1] > 1:
            KnownRows().on_train_batch_start(None, self.method, self.batch, 0)
            self.model = DistributedDataParallel(
                _Forward(self.method, self.forward),
                broadcast_buffers=False,
                gradient_as_bucket_view=True,
            )

    @torch.no_grad()
    def choose_agents(self) -> None:
        """Let a hundredth of the agents resemble images of the batch: each has hard ones."""
        batch = self.data.transform_batch(self.batch)
        parts = [all_gather_ragged(self.method.embed(each)["global"]) for each in batch]
        images = torch.cat(parts)
        rows = self.method.agents.weight.data
        number = max(len(images), len(rows) // 100)
        near = images.repeat(-(-number // len(images)), 1)[:number]
        generator = torch.Generator().manual_seed(2)
        noise = torch.randn(near.shape, generator=generator).to(near)
        rows[-number:] = near + 0.8 * F.normalize(noise)

    def hard_agents(self) -> Tensor:
        """Return ``[target images]`` how many agents are closer to each than MAR's margin."""
        with torch.no_grad():
            batch = self.data.transform_batch(self.batch)
            similarity = self.method.similarity(self.method.embed(batch.target)["global"])
        return (similarity > 1 - self.method.margin / 2).sum(dim=1)

    def forward(self) -> Any:  # noqa: ANN401
        """Return what the method's training step returns."""
        batch = self.data.transform_batch(self.batch)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            return self.method.training_step(batch, 0)

    def __call__(self) -> Tensor:
        """Take one whole step; return its loss, still on the device."""
        outputs = self.forward() if self.model is None else self.model()
        loss: Tensor = outputs["loss"] if isinstance(outputs, dict) else outputs
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        if isinstance(outputs, dict):
            self.method.remember(outputs)
        return loss.detach()


def on_device(batch: Any, device: torch.device) -> Any:  # noqa: ANN401
    """Return a batch whose tensors are on the device."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, tuple):
        return type(batch)(*(on_device(each, device) for each in batch))
    return batch

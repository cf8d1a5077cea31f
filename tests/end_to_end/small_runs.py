"""Runs of real configurations, cut down to seconds: tiny data, tiny encoder, two epochs."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import lightning.pytorch as L
import torch

from crosswalk.cli import main
from crosswalk.config.compose import compose
from crosswalk.config.constructors import locate
from crosswalk.methods.base import Method
from crosswalk.run.run_folder import RunFolder
from crosswalk.run.train import evaluate
from crosswalk.synthetic.generate import synthesize_pairs
from crosswalk.synthetic.images import synthesize_images
from tests.end_to_end.toy_run import assert_same, exit_code_of, traces

SMALL = (
    "trainer=cpu",
    "trainer.max_epochs=2",
    "logger=csv",
    "data.batch_size=18",  # 122 pairs: six batches of 18 and one of 14
    "data.eval_batch_size=16",
    "encoder=clip_tiny",
    "encoder.clip.pretrained=null",
    "encoder.clip.vision_width=32",
    "encoder.clip.vision_layers=2",
    "encoder.clip.vision_heads=2",
    "encoder.clip.text_width=16",
    "encoder.clip.text_layers=2",
    "encoder.clip.embed_dim=16",
    "encoder.embedding_size=24",
)
BATCHES_PER_EPOCH = 7

SMALL_IMAGES = (
    "trainer=cpu",
    "trainer.max_epochs=2",
    "logger=csv",
    "stage=null",
    "data.image_size=[64,32]",
    "data.eval_batch_size=16",
)
IMAGE_METHODS = {
    # identity batches need as many images of a person as they take
    "supervised": ("method=supervised", "data.batch_size=16", "+optim.optimizer.eps=1e-3"),
    # labels are predicted in the second epoch, from a bank of a few dozen rows
    "mmcl": ("method=mmcl", "data.batch_size=16", "method.mplp_start_epoch=1", "optim.lr=0.01"),
    "mmcl_transfer": (
        *("method=mmcl", "data=synthetic_transfer", "data.batch_size=12"),
        *("method.mplp_start_epoch=1", "optim.lr=0.01"),
    ),
    # a tenth of the pairs of 12 images are similar
    "mar": ("method=mar", "data.batch_size=12", "method.mining_ratio=0.1"),
}
"""Overrides of a run of seconds for each kind of image run."""

SMALL_PAIRS = (
    "experiment=null",  # its numbers are tuned for other sizes
    "trainer=cpu",
    "trainer.max_epochs=2",
    "logger=csv",
    "data.image_size=[64,32]",
    "data.eval_batch_size=16",
    "encoder.embedding_size=24",
    "encoder.text.hidden_size=8",
    "optim.lr=1e-3",
)
PAIR_METHODS = {
    # 6 steps of 5 people with 4 pairs each; keys wrap around in the queues, also within a batch
    "cm_moco": (
        *("method=cm_moco", "encoder=clip_resnet_tiny", "text=gru_clip_words_tiny"),
        *("data.batch_size=20", "method.queue_size=33", "method.momentum=0.9"),
    ),
    # 122 pairs: six batches of 18 and one of 14; clusters of the 61 images, some of them outliers
    "cmmt": (
        *("method=cmmt", "encoder=resnet_tiny_normed", "text=lstm_learned_words_tiny"),
        *("data.batch_size=18", "encoder.text.vectors.size=8", "encoder.text.vectors.start=null"),
        *("method.clustering.k1=6", "method.clustering.k2=2", "method.clustering.min_samples=3"),
        # the bias in front of a batch normalisation has gradients that are rounding errors, which
        # a smaller one turns into steps
        "+optim.optimizer.eps=1e-3",
    ),
}
"""Overrides of a run of seconds for the two methods that train images with captions."""


def small_overrides(data_root: Path, *more: str) -> list[str]:
    """Return overrides that turn the default run into one of a few seconds."""
    return [*SMALL, f"data.root={data_root}", *more]


def tiny_pairs(folder: Path) -> Path:
    """Return the root of a tiny synthetic set below ``folder``."""
    return synthesize_pairs(folder / "tiny-pairs", size="tiny", seed=3, progress=False)


def tiny_images(folder: Path) -> Path:
    """Return the folder of two tiny synthetic image sets, a source and a target."""
    for layout in ("msmt17", "market1501"):
        synthesize_images(folder / layout, layout=layout, size="tiny", seed=3, progress=False)
    return folder


def small_image_overrides(kind: str, folder: Path, *more: str) -> list[str]:
    """Return overrides of a run of seconds; ``kind`` is one of `IMAGE_METHODS`."""
    target = folder / "market1501"
    roots = [f"data.root={target}"]
    if kind in ("mar", "mmcl_transfer"):
        roots = [f"data.source.root={folder / 'msmt17'}", f"data.target.root={target}"]
    return [*IMAGE_METHODS[kind], *SMALL_IMAGES, *roots, *more]


def small_pair_overrides(kind: str, root: Path, *more: str) -> list[str]:
    """Return overrides of a run of seconds; ``kind`` is one of `PAIR_METHODS`."""
    return [*PAIR_METHODS[kind], *SMALL_PAIRS, f"data.root={root}", *more]


class _Count:
    """Kills this process when something has happened often enough."""

    def __init__(self, limit: int) -> None:
        self.left = limit

    def __call__(self) -> None:
        self.left -= 1
        if self.left < 0:
            os.kill(os.getpid(), signal.SIGKILL)


def train_and_be_killed(
    overrides: list[str], event: str | None = None, count: int = 0, environment: dict | None = None
) -> None:
    """Run ``crosswalk train``; SIGKILL this process at the event after ``count`` of its kind.

    Events: ``step`` (a training step begins), ``sweep`` (a batch of the division pass begins),
    ``evaluation`` (a batch of an evaluation begins).
    """
    torch.set_num_threads(1)
    os.environ |= environment or {}
    if event is not None:
        method = locate(compose(overrides).method._target_, "method")
        name = {"step": "training_step", "sweep": "sweep_step", "evaluation": "embed"}[event]
        original, tick = getattr(method, name), _Count(count)

        def ticking(self: Method, *args: object) -> object:
            tick()
            return original(self, *args)

        setattr(method, name, ticking)
    L.seed_everything(0, verbose=False)
    if status := main(["train", *overrides]):
        raise RuntimeError(f"the run ended with status {status}")


def evaluate_again(folder: Path, cache: str, overrides: Sequence[str] = ()) -> None:
    """Run ``crosswalk evaluate``."""
    torch.set_num_threads(1)
    os.environ["CROSSWALK_CACHE"] = cache
    if status := evaluate(folder, overrides):
        raise RuntimeError(f"the evaluation ended with status {status}")


def run_small(
    overrides: list[str], runs: Path, cache: Path, event: str | None = None, count: int = 0
) -> tuple[int | None, RunFolder]:
    """Run `train_and_be_killed` in a process of its own; return its exit code and its folder.

    Args:
        overrides: Of the run; name and output folder are added.
        runs: Where its folder is made; it should hold no other.
        cache: The cache folder.
        event: When to kill it.
        count: Likewise.
    """
    overrides = [f"output_dir={runs}", "name=it", *overrides]
    environment = {"CROSSWALK_CACHE": str(cache)}
    code = exit_code_of(train_and_be_killed, overrides, event, count, environment)
    (folder,) = runs.glob("*-it")
    return code, RunFolder(folder)


class WholeRuns(dict[str, RunFolder]):
    """Uninterrupted runs by kind, each made when it is first asked for."""

    def __init__(self, make: Callable[[str], tuple[int | None, RunFolder]]) -> None:
        super().__init__()
        self.make = make

    def __missing__(self, kind: str) -> RunFolder:
        code, self[kind] = self.make(kind)
        assert code == 0
        return self[kind]


def assert_same_run(found: RunFolder, expected: RunFolder) -> None:
    """Check that two runs left the same behind, bit by bit."""
    assert_same(traces(found.path), traces(expected.path))
    assert found.results_file.read_text() == expected.results_file.read_text()


def evaluated_copy(
    run: RunFolder, target: Path, cache: Path, overrides: Sequence[str] = ()
) -> RunFolder:
    """Return a copy of a run below ``target`` that was evaluated again.

    Without overrides the copy has no results before.
    """
    copy = RunFolder(shutil.copytree(run.path, target / "copy"))
    if not overrides:
        copy.results_file.unlink()
    assert exit_code_of(evaluate_again, copy.path, str(cache), overrides) == 0
    return copy

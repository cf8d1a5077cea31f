from __future__ import annotations

from pathlib import Path

import lightning.pytorch as L
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from crosswalk.run.callbacks.observer import Observer


class Steps:
    """Counts training steps, and keeps the count in checkpoints; it is no callback."""

    def __init__(self) -> None:
        self.count = 0

    def on_train_batch_end(self, *arguments: object) -> None:
        self.count += 1

    def state_dict(self) -> dict[str, int]:
        return {"count": self.count}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self.count = state_dict["count"]


class Line(L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def training_step(self, batch: Tensor) -> Tensor:
        return (self.weight * batch).sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trainer(folder: Path, steps: Steps, epochs: int) -> L.Trainer:
    return L.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        callbacks=[Observer(steps)],
    )


def test_a_trainer_calls_the_hooks_of_what_is_observed_for_and_keeps_its_state(
    tmp_path: Path,
) -> None:
    batches = DataLoader(torch.ones(3, 1), batch_size=1)
    first, second = Steps(), Steps()
    begun = trainer(tmp_path, first, 1)
    begun.fit(Line(), batches)
    begun.save_checkpoint(tmp_path / "begun.ckpt")

    trainer(tmp_path, second, 2).fit(Line(), batches, ckpt_path=tmp_path / "begun.ckpt")

    assert (first.count, second.count) == (3, 6)
    stored = torch.load(tmp_path / "begun.ckpt", weights_only=True)["callbacks"]
    assert stored["Steps"] == {"count": 3}  # where releases that had callbacks kept it

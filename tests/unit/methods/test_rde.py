from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from crosswalk.labels.consensus_division import Division, divide
from crosswalk.losses.pair_losses import PairLoss, info_nce_of_pairs, triplet_alignment_of_pairs
from crosswalk.methods.rde import RDE
from crosswalk.types import DataSpec, ImageBatch, PairBatch, TextBatch

SPEC = DataSpec(num_samples=6, num_images=6, num_person_ids=3)


class ToyEncoder(nn.Module):
    """Two linear views of flat images and of embedded token bags."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.image = nn.ModuleDict({"one": nn.Linear(12, 4), "two": nn.Linear(12, 5)})
        self.text = nn.ModuleDict({"one": nn.EmbeddingBag(9, 4), "two": nn.EmbeddingBag(9, 5)})

    def embed_images(self, image: Tensor) -> dict[str, Tensor]:
        return {view: normalize(layer(image.flatten(1))) for view, layer in self.image.items()}

    def embed_texts(self, tokens: Tensor) -> dict[str, Tensor]:
        return {view: normalize(layer(tokens)) for view, layer in self.text.items()}


def rde(
    loss: PairLoss | None = None, division: Callable[..., Division] | None = None, warmup: int = 0
) -> RDE:
    method = RDE(
        ToyEncoder(),
        SPEC,
        lambda module: torch.optim.SGD(module.parameters(), lr=0.1),
        loss=loss or triplet_alignment_of_pairs(margin=0.1, temperature=0.05),
        division=division,
        warmup_epochs=warmup,
    )
    method.log = lambda *args, **kwargs: None  # type: ignore[method-assign]  # no trainer here
    method.log_dict = lambda *args, **kwargs: None  # type: ignore[method-assign]
    return method


def batch(sample_index: list[int]) -> PairBatch:
    generator = torch.Generator().manual_seed(5)
    size = len(sample_index)
    return PairBatch(
        image=torch.randn(size, 3, 2, 2, generator=generator),
        tokens=torch.randint(1, 9, (size, 4), generator=generator),
        length=torch.full((size,), 4),
        person_id=torch.arange(size) // 2,
        camera_id=torch.zeros(size, dtype=torch.int64),
        sample_index=torch.tensor(sample_index),
        image_index=torch.tensor(sample_index),
        phrases=None,
        key=None,
    )


def test_without_a_division_the_loss_is_the_sum_over_all_pairs_of_both_views() -> None:
    method, pairs = rde(), batch([0, 1, 2, 3])

    loss = method.training_step(pairs, 0)

    positive = pairs.person_id[:, None] == pairs.person_id
    expected = 0.0
    for view in ("one", "two"):
        similarity = (
            method.encoder.embed_texts(pairs.tokens)[view]
            @ method.encoder.embed_images(pairs.image)[view].T
        )
        expected += method.pair_loss.of_pairs(similarity, positive).sum().item()
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    assert not method.wants_sweep(0)


def test_a_pair_judged_noisy_loses_its_own_loss_and_stays_a_negative_of_the_others() -> None:
    method, pairs = rde(loss=info_nce_of_pairs(temperature=0.5)), batch([5, 4, 1, 0])
    method.clean[torch.tensor([4, 0])] = 0
    image = pairs.image.requires_grad_()

    loss = method.training_step(pairs, 0)
    loss.backward()

    kept = [0, 2]  # places of samples 5 and 1
    assert loss.item() == pytest.approx(
        sum(losses[kept].mean().item() for losses in method.pair_losses(pairs).values()), rel=1e-6
    )
    assert float(image.grad[1].abs().max()) > 1e-3


def test_the_division_gets_the_losses_of_both_views_and_sets_the_pairs_kept() -> None:
    seen = []

    def keep_the_even_samples(*losses: Tensor, seed: int) -> Division:
        seen.append(([column.tolist() for column in losses], seed))
        even = torch.arange(6) % 2 == 0
        return Division(
            even.float(), 2 * even.long(), even.expand(2, 6), even.expand(2, 6).double()
        )

    method = rde(division=keep_the_even_samples)
    table = {"one": torch.arange(6.0), "two": torch.arange(6.0) * 2}

    method.on_sweep_end(table)

    assert seen == [([table["one"].tolist(), table["two"].tolist()], 1)]
    assert method.clean.tolist() == [1, 0, 1, 0, 1, 0]
    assert method.latest_losses == table
    assert method.latest_division is not None
    assert method.latest_division.votes.tolist() == [2, 0, 2, 0, 2, 0]


def test_the_first_division_comes_after_the_warm_up() -> None:
    method = rde(division=partial(divide, max_iter=10, tol=1e-2, reg_covar=5e-4), warmup=2)

    assert [method.wants_sweep(epoch) for epoch in range(4)] == [False, False, True, True]


def test_the_pairs_kept_survive_a_checkpoint() -> None:
    method = rde()
    method.clean[3] = 0

    restored = rde()
    restored.load_state_dict(method.state_dict())

    assert restored.clean.tolist() == [1, 1, 1, 0, 1, 1]


def test_a_batch_without_a_kept_pair_has_loss_zero_and_no_gradient() -> None:
    for loss in (
        info_nce_of_pairs(temperature=0.02),
        triplet_alignment_of_pairs(margin=0.1, temperature=0.015),
    ):
        method = rde(loss=loss)
        method.clean.zero_()

        total = method.training_step(batch([0, 1, 2, 3]), 0)
        total.backward()

        assert total.item() == 0.0
        assert all(float(p.grad.abs().max()) == 0.0 for p in method.parameters())


def test_images_and_captions_are_embedded_by_their_own_encoder() -> None:
    method, pairs = rde(), batch([0, 1])
    camera = torch.zeros(2, dtype=torch.int64)
    images = ImageBatch(pairs.image, pairs.person_id, camera, pairs.sample_index, None)
    texts = TextBatch(pairs.tokens, pairs.length, pairs.person_id, camera, pairs.sample_index)

    torch.testing.assert_close(
        method.embed(images)["two"], method.encoder.embed_images(pairs.image)["two"]
    )
    torch.testing.assert_close(
        method.embed(texts)["one"], method.encoder.embed_texts(pairs.tokens)["one"]
    )

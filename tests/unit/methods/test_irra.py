import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize
from torch.testing import assert_close

from crosswalk.encoders.clip import ClipDualEncoder
from crosswalk.encoders.clip_embedding import ClipEmbedding, every_token
from crosswalk.encoders.masked_language_model import MaskedLanguageModel
from crosswalk.labels.consensus_division import Division
from crosswalk.labels.masked_words import WordMasking
from crosswalk.methods.irra import IRRA
from crosswalk.types import DataSpec, ImageBatch, PairBatch, TextBatch

SPEC = DataSpec(num_samples=9, num_images=9, num_person_ids=5, vocabulary_size=30)
MASKING = WordMasking(mask_id=27, probability=0.4)
SEPARATE = WordMasking("separate", mask_id=27, probability=0.4)


def irra(**settings: Any) -> IRRA:  # noqa: ANN401
    torch.manual_seed(4)
    clip = ClipDualEncoder(
        image_size=(16, 8),
        patch_size=8,
        vision_width=8,
        vision_layers=2,
        vision_heads=2,
        text_width=8,
        text_layers=2,
        text_heads=2,
        embed_dim=6,
        context_length=7,
        vocabulary_size=30,
    )
    settings.setdefault("losses", ("sdm", "id"))
    method = IRRA(
        ClipEmbedding(clip),
        SPEC,
        lambda module: torch.optim.SGD(module.parameters(), lr=0.1),
        **settings,
    ).double()
    method.logged = {}  # type: ignore[assignment]
    method.log = lambda name, value, **_: method.logged.update({name: value})  # type: ignore
    method.log_dict = lambda terms, **_: method.logged.update(terms)  # type: ignore
    return method


def mlm(**settings: Any) -> partial[MaskedLanguageModel]:  # noqa: ANN401
    return partial(MaskedLanguageModel, depth=1, heads=2, **settings)


def batch(sample_index: list[int]) -> PairBatch:
    generator = torch.Generator().manual_seed(5)
    size = len(sample_index)
    tokens = torch.randint(1, 27, (size, 7), generator=generator)
    tokens[:, 0], tokens[:, 5], tokens[:, 6] = 28, 29, 0
    index = torch.tensor(sample_index, dtype=torch.int64)
    return PairBatch(
        image=torch.randn(size, 3, 16, 8, generator=generator).double(),
        tokens=tokens,
        length=torch.full((size,), 6),
        person_id=torch.arange(size) // 2,
        camera_id=torch.zeros(size, dtype=torch.int64),
        sample_index=index,
        image_index=index,
        phrases=None,
        key=index + 11,
    )


def embedded(method: IRRA, pairs: PairBatch, tokens: Tensor) -> tuple[Tensor, Tensor]:
    clip = method.encoder.clip
    images, texts = clip.encode_image(pairs.image), clip.encode_text(tokens)
    image = every_token(clip.project_image, images)[:, 0]
    text = every_token(clip.project_text, texts)
    return image, text[torch.arange(len(text)), tokens.argmax(dim=1)]


def divergence(logits: Tensor, label: Tensor) -> Tensor:
    log = logits.log_softmax(dim=1)
    return (log.exp() * (log - (label + 1e-8).log())).sum(dim=1).mean()


def expected_loss(name: str, image: Tensor, text: Tensor, person: Tensor, method: IRRA) -> Tensor:
    same = (person[:, None] == person).double()
    cosine = normalize(text) @ normalize(image).T
    share = same / same.sum(dim=1, keepdim=True)
    if name == "sdm":
        return divergence(50 * cosine, share) + divergence(50 * cosine.T, share)
    if name == "itc":
        own = torch.arange(len(person))
        return (cross_entropy(50 * cosine, own) + cross_entropy(50 * cosine.T, own)) / 2
    if name == "cmpm":
        label = same / same.norm(dim=1, keepdim=True)
        return divergence(text @ normalize(image).T, label) + divergence(
            image @ normalize(text).T, label
        )
    assert method.classifier is not None
    both = [cross_entropy(method.classifier(each), person) for each in (image, text)]
    return (both[0] + both[1]) / 2


@pytest.mark.parametrize(
    "losses", [["sdm"], ["itc"], ["cmpm"], ["id"], ["sdm", "id"], ["itc", "sdm", "cmpm", "id"]]
)
def test_losses_of_embeddings_are_the_written_ones_in_any_combination(losses: list[str]) -> None:
    method, pairs = irra(losses=losses), batch([0, 1, 2, 3, 4])

    total = method.training_step(pairs, 0)

    image, text = embedded(method, pairs, pairs.tokens)
    sum_ = 0.0
    for name in losses:
        expected = expected_loss(name, image, text, pairs.person_id, method)
        assert_close(method.logged[f"train/loss_{name}"], expected.detach(), rtol=1e-6, atol=1e-6)
        sum_ += expected.item()
    assert total.item() == pytest.approx(sum_, rel=1e-6)
    assert (method.classifier is not None) == ("id" in losses)


@pytest.mark.parametrize("masking", [MASKING, SEPARATE])
def test_words_are_guessed_from_masked_captions_and_their_mean_is_over_all_of_them(
    masking: WordMasking,
) -> None:
    method, pairs = irra(losses=["id"], masking=masking, mlm=mlm(weight=0.3)), batch([0, 1, 2])
    assert method.mlm is not None
    captions = masking(pairs.tokens, pairs.key)
    assert len({int((row != 0).sum()) for row in captions.label}) > 1  # means would differ

    method.training_step(pairs, 0)

    clip = method.encoder.clip
    words = every_token(clip.project_text, clip.encode_text(captions.masked))
    image = every_token(clip.project_image, clip.encode_image(pairs.image))
    logits = method.mlm.mlm_head(method.mlm.fused(words, image)).flatten(0, 1)
    loss = cross_entropy(logits, captions.label.flatten(), ignore_index=0)
    assert_close(method.logged["train/loss_mlm"], 0.3 * loss.detach())
    place = captions.label.flatten() != 0
    right = (logits.argmax(dim=1) == captions.label.flatten())[place].double().mean()
    assert_close(method.logged["train/mlm_accuracy"], right)
    image, text = embedded(method, pairs, captions.tokens)
    expected = expected_loss("id", image, text, pairs.person_id, method)
    assert_close(method.logged["train/loss_id"], expected.detach())


def test_shared_captions_are_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for masking, passes in ((MASKING, 1), (SEPARATE, 2)):
        method, count = irra(masking=masking, mlm=mlm()), []
        encode = method.encoder.clip.encode_text
        monkeypatch.setattr(
            method.encoder.clip,
            "encode_text",
            lambda tokens, encode=encode, count=count: (count.append(1), encode(tokens))[1],
        )
        method.training_step(batch([0, 1, 2]), 0)
        assert len(count) == passes


def test_masking_without_guessing_is_an_augmentation() -> None:
    method, pairs = irra(losses=["itc"], masking=MASKING), batch([0, 1, 2])

    method.training_step(pairs, 0)

    masked = MASKING(pairs.tokens, pairs.key).masked
    assert not torch.equal(masked, pairs.tokens)
    expected = expected_loss("itc", *embedded(method, pairs, masked), pairs.person_id, method)
    assert_close(method.logged["train/loss_itc"], expected.detach(), rtol=1e-6, atol=1e-6)
    assert [name for name, _ in method.named_parameters() if not name.startswith("encoder.")] == []


def test_the_accuracies_of_the_classifier_are_logged_by_modality() -> None:
    method, pairs = irra(losses=["id"]), batch([0, 1, 2, 3])
    assert method.classifier is not None
    torch.nn.init.normal_(method.classifier.weight)

    method.training_step(pairs, 0)

    for name, rows in zip(("image", "text"), embedded(method, pairs, pairs.tokens), strict=True):
        right = (method.classifier(rows).argmax(dim=1) == pairs.person_id).double().mean()
        assert_close(method.logged[f"train/{name}_accuracy"], right)


def drop(samples: list[int]) -> Callable[..., Division]:
    def division(*losses: Tensor, seed: int) -> Division:
        clean = torch.ones(len(losses[0]))
        clean[samples] = 0
        views = clean.bool().expand(len(losses), -1)
        return Division(clean, views.sum(dim=0), views, views.double())

    return division


def test_pairs_that_a_division_drops_have_no_loss_and_stay_negatives() -> None:
    method = irra(losses=["itc", "id"], masking=MASKING, mlm=mlm(), division=drop([1, 2]))
    pairs = batch([0, 1, 2, 3])
    table = {"itc": torch.arange(9.0)}
    assert method.wants_sweep(0)
    method.on_sweep_end(table)
    assert method.clean.tolist() == [1, 0, 0, 1, 1, 1, 1, 1, 1]
    assert method.latest_losses == table

    method.training_step(pairs, 0)

    captions = MASKING(pairs.tokens, pairs.key)
    image, text = embedded(method, pairs, captions.tokens)
    cosine = 50 * normalize(text) @ normalize(image).T
    own = torch.arange(4)
    each = [cross_entropy(rows, own, reduction="none")[[0, 3]] for rows in (cosine, cosine.T)]
    assert_close(
        method.logged["train/loss_itc"], torch.stack(each).mean().detach(), rtol=1e-6, atol=0
    )
    assert method.classifier is not None
    assert method.mlm is not None
    losses = [
        cross_entropy(method.classifier(rows)[[0, 3]], pairs.person_id[[0, 3]])
        for rows in (image, text)
    ]
    assert_close(method.logged["train/loss_id"], torch.stack(losses).mean().detach())
    kept = [0, 3]
    clip = method.encoder.clip
    words = every_token(clip.project_text, clip.encode_text(captions.masked[kept]))
    seen = every_token(clip.project_image, clip.encode_image(pairs.image[kept]))
    expected = method.mlm(words, seen, captions.label[kept]).loss.mean()
    assert_close(method.logged["train/loss_mlm"], expected.detach())


def test_a_sweep_gives_the_losses_of_pairs_that_the_division_judges() -> None:
    method = irra(losses=["sdm", "itc", "id"], division=drop([]))
    pairs = batch([0, 1, 2])

    rows = method.sweep_step(pairs)

    assert rows.keys() == {"sdm", "itc"}
    image, text = embedded(method, pairs, pairs.tokens)
    for name, row in rows.items():
        expected = expected_loss(name, image, text, pairs.person_id, method)
        assert_close(row.mean(), expected, rtol=1e-6, atol=1e-6)


def test_a_batch_of_one_pair_and_one_of_one_person_are_fine() -> None:
    for pairs in (batch([3]), batch([3, 4])):
        method = irra(masking=MASKING, mlm=mlm())
        total = method.training_step(pairs, 0)
        total.backward()
        assert math.isfinite(total.item())
        sdm = method.logged["train/loss_sdm"].item()
        assert sdm == pytest.approx(0, abs=1e-7) if len(pairs.tokens) == 1 else sdm >= 0


def test_images_and_captions_are_embedded_by_clip() -> None:
    method, pairs = irra(), batch([0, 1])
    nobody = torch.zeros(2, dtype=torch.int64)

    images = method.embed(ImageBatch(pairs.image, nobody, nobody, nobody, None))
    texts = method.embed(TextBatch(pairs.tokens, nobody, nobody, nobody, nobody))

    image, text = embedded(method, pairs, pairs.tokens)
    assert_close(images, {"global": normalize(image)})
    assert_close(texts, {"global": normalize(text)})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"losses": []}, "trains nothing"),
        ({"losses": ["sdm", "id", "sdm"]}, "has a loss twice"),
        ({"mlm": mlm()}, "method.masking=null masks none"),
        ({"masking": WordMasking()}, "mask_id=49405 is no id of data.tokenizer, which has 30"),
        ({"losses": ["id"], "division": drop([])}, "none of sdm, itc and cmpm"),
    ],
)
def test_settings_that_leave_nothing_to_do_are_refused(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        irra(**settings)

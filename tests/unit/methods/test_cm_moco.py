import copy
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.testing import assert_close

from crosswalk.encoders.batch_norm import GroupBatchNorm
from crosswalk.encoders.clip_resnet import ClipResNet
from crosswalk.encoders.heads import embed_layer, mlp_head
from crosswalk.encoders.text_recurrent import BiGru
from crosswalk.encoders.two_stream import TwoStream
from crosswalk.encoders.word_vectors import LearnedWords
from crosswalk.losses.alignment import alignment_loss
from crosswalk.methods.cm_moco import CMMoCo
from crosswalk.types import DataSpec, ImageBatch, PairBatch, TextBatch

NUM_PERSONS, NUM_WORDS, SIZE = 6, 9, 5
ALIGNMENT = partial(alignment_loss, alpha=0.6, beta=0.4, scale_pos=10.0, scale_neg=40.0)


class ToyImages(nn.Module):
    """A linear layer of flat images and a batch normalisation."""

    num_features = 7

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(12, 7)
        self.norm = GroupBatchNorm(7)

    def forward(self, image: Tensor) -> Tensor:
        return self.norm(self.linear(image.flatten(1)))


def toy_encoder(image: nn.Module | None = None) -> TwoStream:
    return TwoStream(
        ToyImages() if image is None else image,
        partial(BiGru, vectors=partial(LearnedWords, size=4, num_words=NUM_WORDS), hidden_size=3),
        image_head=embed_layer,
        text_head=embed_layer,
        embedding_size=SIZE,
    )


class Recorded(CMMoCo):
    """The method with its losses and other values in dictionaries instead of a trainer's log."""

    def log(self, name: str, value: Tensor, **kwargs: object) -> None:
        self.values = {**getattr(self, "values", {}), name: value}

    def log_dict(self, terms: dict[str, Tensor], **kwargs: object) -> None:
        self.terms = {name.removeprefix("train/loss_"): term for name, term in terms.items()}


def cm_moco(seed: int = 0, encoder: TwoStream | None = None, **settings: object) -> Recorded:
    torch.manual_seed(seed)
    return Recorded(
        encoder or toy_encoder(),
        DataSpec(11, 11, NUM_PERSONS, vocabulary_size=NUM_WORDS),
        lambda module: torch.optim.SGD(module.parameters(), lr=0.1),
        **{"alignment": ALIGNMENT, "queue_size": 8, **settings},
    ).double()


def pairs(person_id: list[int], seed: int = 5) -> PairBatch:
    generator = torch.Generator().manual_seed(seed)
    persons = torch.tensor(person_id)
    image = torch.randn(len(persons), 3, 2, 2, generator=generator, dtype=torch.float64)
    length = torch.randint(1, 5, persons.shape, generator=generator)
    tokens = torch.randint(1, NUM_WORDS, (len(persons), 6), generator=generator)
    tokens[torch.arange(6) >= length[:, None]] = 0
    nothing = torch.zeros_like(persons)
    return PairBatch(image, tokens, length, persons, nothing, nothing, nothing, None, None)


def embeddings(encoder: TwoStream, batch: PairBatch) -> tuple[Tensor, Tensor]:
    """Return embeddings, and leave the statistics of batch normalisations as they were."""
    encoder = copy.deepcopy(encoder)
    longest = int(batch.length.max())
    return (
        encoder.embed_images(batch.image).detach(),
        encoder.embed_texts(batch.tokens, batch.length, longest).detach(),
    )


def run_step(method: CMMoCo, optimizer: torch.optim.Optimizer, batch: PairBatch) -> Tensor:
    outputs = method.training_step(batch, 0)
    optimizer.zero_grad()
    outputs["loss"].backward()
    method.remember(outputs)
    optimizer.step()
    return outputs["loss"].detach()


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 0.4])
@pytest.mark.parametrize("person_id", [[0, 1, 0, 4, 2], [3, 3, 3]], ids=str)
def test_the_losses_are_those_of_loops_over_the_batch(
    person_id: list[int], label_smoothing: float
) -> None:
    method, batch = cm_moco(label_smoothing=label_smoothing), pairs(person_id)
    image, text = embeddings(method.encoder, batch)
    queue = method.queue
    queue.person_id.copy_(torch.tensor([0, 5, -1, 3, 5, 2, -1, 5]))
    is_negative = [person not in person_id for person in queue.person_id.tolist()]

    outputs = method.training_step(batch, 0)

    image_key, text_key = outputs["image_key"], outputs["text_key"]
    persons = normalize(method.classifier.weight.detach(), dim=0)
    identity = alignment = contrast = 0.0
    positive, negative = [], []
    for row, person in enumerate(person_id):
        for embedding in (image, text):
            target = torch.full((NUM_PERSONS,), label_smoothing / NUM_PERSONS).double()
            target[person] += 1 - label_smoothing
            identity -= float(target @ (embedding[row] @ persons).log_softmax(dim=0))
        for other, other_person in enumerate(person_id):
            s = float(torch.cosine_similarity(image[row], text[other], dim=0))
            sharp = -10 * (s - 0.6) if person == other_person else 40 * (s - 0.4)
            alignment += 2 * float(torch.tensor(sharp).double().exp().log1p())
        for query, key, rows in (
            (image[row], text_key[row], queue.text),
            (text[row], image_key[row], queue.image),
        ):
            used = [one for one, negative in zip(rows, is_negative, strict=True) if negative]
            logits = torch.stack([key, *used]) @ normalize(query, dim=0) / 0.07
            positive.append(0.07 * float(logits[0]))
            negative += (0.07 * logits[1:]).tolist()
            contrast -= float(logits.log_softmax(dim=0)[0])
    expected = {"identity": identity, "alignment": alignment, "contrast": contrast}
    for name, total in expected.items():
        assert method.terms[name].item() == pytest.approx(total / len(person_id), rel=1e-7)
    assert outputs["loss"].item() == pytest.approx(
        sum(expected.values()) / len(person_id), rel=1e-7
    )
    for name, similarities in {"positive": positive, "negative": negative}.items():
        mean = sum(similarities) / len(similarities)
        assert method.values[f"train/{name}_similarity"].item() == pytest.approx(mean, rel=1e-7)


def test_the_key_encoder_moves_before_it_gives_the_keys_of_the_step() -> None:
    method, batch = cm_moco(momentum=0.75), pairs([0, 1, 2])
    before = {name: value.clone() for name, value in method.keys.module.named_parameters()}
    online = dict(method.encoder.named_parameters())

    outputs = method.training_step(batch, 0)

    for name, value in method.keys.module.named_parameters():
        assert_close(value, 0.75 * before[name] + 0.25 * online[name], rtol=1e-12, atol=1e-14)
    keys = copy.deepcopy(method.keys.module)
    keys.image_head, keys.text_head = method.encoder.image_head, method.encoder.text_head
    image, text = embeddings(keys, batch)
    assert_close(outputs["image_key"], normalize(image), rtol=1e-12, atol=1e-14)
    assert_close(outputs["text_key"], normalize(text), rtol=1e-12, atol=1e-14)


def test_the_key_encoder_follows_the_weights_of_before_the_optimizer_step() -> None:
    method = cm_moco(momentum=0.5)
    before = method.keys.module.image.linear.weight.clone()
    online = method.encoder.image.linear.weight.detach().clone()

    run_step(method, torch.optim.SGD(method.parameters(), lr=0.1), pairs([0, 1, 2]))

    assert_close(method.keys.module.image.linear.weight, (before + online) / 2)
    assert not torch.equal(method.encoder.image.linear.weight, online)


def test_keys_may_have_momentum_copies_of_the_heads() -> None:
    method, batch = cm_moco(key_head="momentum"), pairs([0, 1, 2])

    outputs = method.training_step(batch, 0)

    image, text = embeddings(method.keys.module, batch)
    assert_close(outputs["image_key"], normalize(image), rtol=1e-12, atol=1e-14)
    assert_close(outputs["text_key"], normalize(text), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("settings", [{}, {"projection": mlp_head}, {"key_head": "momentum"}])
def test_only_what_gives_queries_gets_a_gradient(settings: dict[str, object]) -> None:
    method = cm_moco(**settings, identity_weight=0.0, alignment_weight=0.0)

    outputs = method.training_step(pairs([0, 1, 2]), 0)
    outputs["loss"].backward()

    unused = ("classifier.",)
    if "projection" in settings:  # the contrast alone, and it has heads of its own
        unused = (*unused, "encoder.image_head.", "encoder.text_head.")
    for name, parameter in method.named_parameters():
        if name.startswith(("keys.", "key_projections.")):
            assert not parameter.requires_grad
            assert parameter.grad is None
        elif name.startswith(unused):
            assert not parameter.grad.any()
        elif not name.startswith("encoder.image.linear.bias"):  # its batch normalisation undoes it
            assert parameter.grad.any(), name
    assert not outputs["image_key"].requires_grad
    assert not outputs["text_key"].requires_grad


def test_the_batch_enters_the_queue_after_the_step_and_not_before() -> None:
    method, batch = cm_moco(), pairs([4, 0, 4])
    before = {name: value.clone() for name, value in method.queue.state_dict().items()}

    outputs = method.training_step(batch, 0)
    outputs["loss"].backward()
    between = {name: value.clone() for name, value in method.queue.state_dict().items()}
    method.remember(outputs)

    for name, value in before.items():
        assert torch.equal(between[name], value)
    assert method.queue.person_id.tolist() == [4, 0, 4, -1, -1, -1, -1, -1]
    assert method.queue.pointer.item() == 3
    assert torch.equal(method.queue.image[:3], outputs["image_key"])
    assert torch.equal(method.queue.text[:3], outputs["text_key"])
    assert torch.equal(method.queue.image[3:], before["image"][3:])


def test_people_of_the_batch_are_no_negatives() -> None:
    method, batch = cm_moco(queue_size=3), pairs([0, 1, 2])
    for expected in (False, True):
        outputs = method.training_step(batch, 0)
        method.remember(outputs)

        assert (method.terms["contrast"].item() == 0) == expected


@pytest.mark.parametrize("queue_size", [1, 5, 7, 40])
@pytest.mark.parametrize("sizes", [[3, 3, 3], [2, 4, 2, 3], [9, 2]], ids=str)
def test_the_queue_need_not_be_a_multiple_of_the_batch(queue_size: int, sizes: list[int]) -> None:
    method = cm_moco(queue_size=queue_size)
    optimizer = torch.optim.SGD(method.parameters(), lr=1e-3)
    seen: list[int] = []

    for number, size in enumerate(sizes):
        person_id = [(number + row) % NUM_PERSONS for row in range(size)]
        run_step(method, optimizer, pairs(person_id, seed=number))
        seen += person_id

    newest_first = (int(method.queue.pointer) - 1 - torch.arange(queue_size)) % queue_size
    stored = method.queue.person_id[newest_first].tolist()
    assert stored == [*reversed(seen), *[-1] * queue_size][:queue_size]


def test_without_a_queue_there_is_neither_contrast_nor_key_encoder() -> None:
    method, batch = cm_moco(queue_size=0), pairs([0, 1, 0])

    outputs = method.training_step(batch, 0)
    method.remember(outputs)

    assert set(outputs) == {"loss"}
    assert set(method.terms) == {"identity", "alignment"}
    assert_close(outputs["loss"], method.terms["identity"] + method.terms["alignment"])
    assert {name.split(".")[0] for name in method.state_dict()} == {"encoder", "classifier"}


@pytest.mark.parametrize("name", ["identity", "alignment", "contrast"])
def test_every_loss_has_a_weight(name: str) -> None:
    plain, weighted = cm_moco(), cm_moco(**{f"{name}_weight": 0.25})
    batch = pairs([0, 1, 2, 1])

    plain.training_step(batch, 0)
    total = weighted.training_step(batch, 0)["loss"]

    for term, value in plain.terms.items():
        assert_close(weighted.terms[term], (0.25 if term == name else 1.0) * value)
    assert_close(total, sum(weighted.terms.values()))


def test_an_mlp_takes_the_place_of_the_heads_in_the_contrast_alone() -> None:
    method, batch = cm_moco(projection=mlp_head), pairs([0, 1, 2])
    plain = cm_moco()
    plain.load_state_dict(method.state_dict(), strict=False)
    online, queue = copy.deepcopy(method.encoder), copy.deepcopy(method.queue)

    outputs = method.training_step(batch, 0)
    plain.training_step(batch, 0)

    assert_close(method.terms["identity"], plain.terms["identity"])
    assert_close(method.terms["alignment"], plain.terms["alignment"])
    longest = int(batch.length.max())
    features = {
        "image": (online.image_features(batch.image), outputs["text_key"], queue.text),
        "text": (
            online.text_features(batch.tokens, batch.length, longest),
            outputs["image_key"],
            queue.image,
        ),
    }
    expected = 0.0
    for stream, (rows, key, others) in features.items():
        query = normalize(method.projections[stream](rows))
        logits = torch.cat([(query * key).sum(dim=1, keepdim=True), query @ others.T], dim=1)
        expected -= (logits / 0.07).log_softmax(dim=1)[:, 0].mean().item()
    assert method.terms["contrast"].item() == pytest.approx(expected, rel=1e-9)
    keys = copy.deepcopy(method.keys.module)
    text = method.key_projections.module["text"](
        keys.text_features(batch.tokens, batch.length, longest)
    )
    assert_close(outputs["text_key"], normalize(text), rtol=1e-12, atol=1e-14)


def test_the_mlp_of_the_keys_moves_as_the_key_encoder_does() -> None:
    method = cm_moco(projection=mlp_head, momentum=0.25)
    before = {name: p.clone() for name, p in method.key_projections.module.named_parameters()}
    online = dict(method.projections.named_parameters())

    method.training_step(pairs([0, 1, 2]), 0)

    assert len(online) == 8
    for name, value in method.key_projections.module.named_parameters():
        assert_close(value, 0.25 * before[name] + 0.75 * online[name], rtol=1e-12, atol=1e-14)


def tiny_clip_encoder() -> TwoStream:
    image = ClipResNet((1, 1, 1, 1), width=2, output_dim=400, heads=2, image_size=(32, 16))
    for parameter in image.attnpool.parameters():
        nn.init.constant_(parameter, 0.5)
    return toy_encoder(image)


def test_linear_layers_start_anew_and_apart_in_encoder_and_key_encoder() -> None:
    method = cm_moco(encoder=tiny_clip_encoder(), projection=mlp_head)
    drawn = {
        f"image.attnpool.{name}_proj.{kind}" for name in "qkvc" for kind in ("weight", "bias")
    } | {f"{side}_head.{kind}" for side in ("image", "text") for kind in ("weight", "bias")}

    keys = dict(method.keys.module.named_parameters())
    for name, value in method.encoder.named_parameters():
        if name not in drawn:
            assert torch.equal(keys[name], value), name
        elif name.endswith("bias"):
            assert not value.any(), name
            assert not keys[name].any(), name
        else:
            assert not torch.equal(keys[name], value), name
    for module in (method.encoder, method.keys.module):
        weight = module.image.attnpool.c_proj.weight
        assert weight.std().item() == pytest.approx((2 / 400) ** 0.5, rel=0.02)
    positions = method.encoder.image.attnpool.positional_embedding
    assert torch.equal(positions, torch.full_like(positions, 0.5))
    one, other = method.projections, method.key_projections.module
    assert not torch.equal(one["image"][0].weight, other["image"][0].weight)


@pytest.mark.parametrize("settings", [{"reinitialize": False}, {"queue_size": 0}])
def test_pretrained_layers_can_be_kept(settings: dict[str, object]) -> None:
    method = cm_moco(encoder=tiny_clip_encoder(), **{"reinitialize": False, **settings})

    for parameter in method.encoder.image.attnpool.parameters():
        assert torch.equal(parameter, torch.full_like(parameter, 0.5))
    if method.queue is not None:
        for name, value in method.encoder.state_dict().items():
            assert torch.equal(method.keys.module.state_dict()[name], value)


def test_loaded_weights_reach_the_key_encoder() -> None:
    method = cm_moco()
    with torch.no_grad():
        method.encoder.text.gru.weight_hh_l0.fill_(0.125)
        method.encoder.image.norm.running_mean.fill_(3.0)

    method.encoder_loaded()

    for name, value in method.encoder.state_dict().items():
        assert torch.equal(method.keys.module.state_dict()[name], value)
    cm_moco(queue_size=0).encoder_loaded()  # nothing to do


def test_the_key_encoder_normalises_by_the_batch_and_keeps_statistics_of_its_own() -> None:
    method, batch = cm_moco(momentum=0.5), pairs([0, 1, 2, 3])
    with torch.no_grad():
        method.keys.module.image.linear.weight.mul_(3)

    method.training_step(batch, 0)

    keys = method.keys.module.image
    linear = keys.linear(batch.image.flatten(1))
    assert_close(keys.norm.running_mean, 0.1 * linear.mean(dim=0))
    assert_close(keys.norm.running_var, 0.9 + 0.1 * linear.var(dim=0))
    assert keys.norm.num_batches_tracked == 1
    assert not torch.allclose(keys.norm.running_var, method.encoder.image.norm.running_var)


def test_unit_vectors_of_the_encoder_are_compared_at_test() -> None:
    method, batch = cm_moco(projection=mlp_head).eval(), pairs([0, 1, 2, 3, 4])
    with torch.no_grad():
        for parameter in method.keys.parameters():
            parameter.fill_(9.0)
    ids = (batch.person_id, batch.camera_id, batch.sample_index)

    image = method.embed(ImageBatch(batch.image, *ids, None))["global"]
    text = method.embed(TextBatch(batch.tokens, batch.length, *ids))["global"]

    expected_image, expected_text = embeddings(method.encoder, batch)
    assert_close(image, normalize(expected_image))
    assert_close(text, normalize(expected_text))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"queue_size": -1}, "method.queue_size=-1 must be 0"),
    ],
)
def test_settings_without_meaning_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cm_moco(**settings)


def test_similarities_and_keys_stay_float32_under_autocast() -> None:
    seen = []

    def record(similarity: Tensor, positive: Tensor) -> Tensor:
        seen.append(similarity.dtype)
        return ALIGNMENT(similarity, positive)

    method = cm_moco(alignment=record).float()
    batch = pairs([0, 1, 2, 3])
    batch = batch._replace(image=batch.image.float())

    with torch.autocast("cpu", torch.bfloat16):
        outputs = method.training_step(batch, 0)
    outputs["loss"].backward()

    assert seen == [torch.float32]
    assert {outputs[name].dtype for name in ("loss", "image_key", "text_key")} == {torch.float32}
    lengths = outputs["image_key"].norm(dim=1)
    assert_close(lengths, torch.ones(4), rtol=1e-6, atol=0)


BATCHES = [[0, 1, 2], [3, 4], [5, 0, 1], [2, 2, 3, 4]]


@pytest.mark.parametrize("settings", [{}, {"projection": mlp_head}, {"key_head": "momentum"}])
def test_a_training_that_stops_and_goes_on_ends_where_one_in_a_piece_ends(
    settings: dict[str, object],
) -> None:
    method = cm_moco(**settings, queue_size=5, momentum=0.9)
    optimizer = torch.optim.Adam(method.parameters(), lr=0.01)
    for number, person_id in enumerate(BATCHES[:2]):
        run_step(method, optimizer, pairs(person_id, seed=number))

    resumed = cm_moco(seed=99, **settings, queue_size=5, momentum=0.9)
    resumed.load_state_dict(copy.deepcopy(method.state_dict()))
    resumed_optimizer = torch.optim.Adam(resumed.parameters(), lr=0.01)
    resumed_optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for number, person_id in enumerate(BATCHES[2:], start=2):
        for one, its_optimizer in ((method, optimizer), (resumed, resumed_optimizer)):
            run_step(one, its_optimizer, pairs(person_id, seed=number))

    for name, value in method.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


def test_training_is_the_same_in_two_runs_and_lowers_the_loss() -> None:
    outcomes = []
    for _ in range(2):
        method = cm_moco(queue_size=5)
        optimizer = torch.optim.Adam(method.parameters(), lr=0.01)
        losses = [run_step(method, optimizer, pairs([0, 1, 2, 3])) for _ in range(30)]
        outcomes.append((losses, method.state_dict()))

    (losses, state), (again, other) = outcomes
    assert losses == again
    assert all(torch.equal(state[name], other[name]) for name in state)
    assert losses[-1] < 0.5 * losses[0]

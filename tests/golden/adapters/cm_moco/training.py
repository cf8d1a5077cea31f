"""Training steps: with stubs for encoders, and with small networks."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from crosswalk.encoders.clip_resnet import ClipResNet
from crosswalk.encoders.heads import embed_layer, mlp_head
from crosswalk.encoders.text_recurrent import BiGru
from crosswalk.encoders.two_stream import TwoStream
from crosswalk.encoders.word_vectors import LearnedWords, MakeVectors, ProjectedWords, WordTable
from crosswalk.importers.cm_moco import import_cm_moco
from crosswalk.losses.alignment import alignment_loss
from crosswalk.methods.cm_moco import CMMoCo
from crosswalk.optim import GroupRule, OptimBuilder, adam, sgd
from crosswalk.types import DataSpec, PairBatch
from tests.golden.adapters.cm_moco.losses import switched_smoothing
from tests.golden.harness import GRADIENT, LOSS, Case, Tolerance, golden

TRAJECTORY: Tolerance = {"rtol": 1e-7, "atol": 1e-9}
LOSSES = {"instance_loss": "identity", "infonce_loss": "contrast", "global_align_loss": "alignment"}
ALIGNMENT = {"alpha": 0.6, "beta": 0.4, "scale_pos": 10.0, "scale_neg": 40.0}

# Official names of modules, the first that fits, and ours; of both heads and all branches.
PARTS = {
    "visual_model.": "encoder.image.",
    "textual_model.": "encoder.text.",
    "v_encoder_q.": "encoder.image.",
    "t_encoder_q.": "encoder.text.",
    "v_encoder_k.": "keys.module.image.",
    "t_encoder_k.": "keys.module.text.",
    "v_embed_layer.": "encoder.image_head.",
    "t_embed_layer.": "encoder.text_head.",
    "visual_embed_layer.": "encoder.image_head.",
    "textual_embed_layer.": "encoder.text_head.",
    "v_fc_q.": "projections.image.",
    "t_fc_q.": "projections.text.",
    "v_fc_k.": "key_projections.module.image.",
    "t_fc_k.": "key_projections.module.text.",
    "loss_evaluator.projection": "classifier.weight",
    "v_queue": "queue.image",
    "t_queue": "queue.text",
    "id_queue": "queue.person_id",
    "queue_ptr": "queue.pointer",
}


def our_name(method: CMMoCo, official: str) -> str:
    """Return the name that a parameter or buffer has in our method."""
    rest = official.removeprefix("embed_model.")
    part = next(part for part in PARTS if rest.startswith(part))
    name = PARTS[part] + rest.removeprefix(part)
    if ".text.embed." in name:
        learned = isinstance(method.encoder.text.vectors, LearnedWords)
        vectors = "vectors.embedding." if learned else "vectors.projection."
        name = name.replace("embed.", vectors)
    return name


def ours(method: CMMoCo, official: str) -> Tensor:
    """Return a parameter or buffer in the official shape: queues hold one key per column."""
    name = our_name(method, official)
    value = method.state_dict()[name]
    if name in ("queue.image", "queue.text"):
        return value.T
    return value[None] if name in ("queue.person_id", "queue.pointer") else value


def load(method: CMMoCo, case: Case, prefix: str) -> None:
    """Load the arrays below a prefix, and the word table, which official states lack."""
    state = method.state_dict()
    missing = set(state)
    for array in case:
        if array.startswith(prefix):
            official = array.removeprefix(prefix)
            value = case.tensor(array)
            target = ours(method, official)
            case.check(target.shape == value.shape, f"{official} has the official shape")
            target.copy_(value)
            missing.discard(our_name(method, official))
    for name in [name for name in missing if name.endswith(".table")]:
        state[name].copy_(case.tensor("vocab_table"))
        missing.discard(name)
    # key heads are shared in the official model; these copies are not read
    unread = {name for name in missing if name.startswith("keys.module.") and "_head." in name}
    case.check(missing == unread, "every part of the method is in the official state")


class Recorded(CMMoCo):
    """The method with its losses in a dictionary instead of a trainer's log."""

    def log(self, *args: object, **kwargs: object) -> None:
        pass

    def log_dict(self, terms: dict[str, Tensor], **kwargs: object) -> None:
        self.terms = {name.removeprefix("train/loss_"): term for name, term in terms.items()}


def cm_moco(case: Case, encoder: TwoStream, num_classes: int, optim: OptimBuilder) -> Recorded:
    """Return the method with the settings of a case, ready for its weights."""
    settings = {}
    alignment = {name: case.setting(name, value) for name, value in ALIGNMENT.items()}
    if "K" in case:
        settings = {"momentum": case.item("m"), "temperature": case.item("T")}
    return Recorded(
        encoder,
        DataSpec(num_samples=1, num_images=1, num_person_ids=num_classes),
        optim,
        alignment=partial(alignment_loss, **alignment),
        queue_size=case.item("K") if "K" in case else 0,
        label_smoothing=switched_smoothing(case),
        projection=mlp_head if "use_fc" in case and case.item("use_fc") else None,
        **settings,
    ).double()


def pairs(image: Tensor, tokens: Tensor, length: Tensor, person_id: Tensor) -> PairBatch:
    nobody = torch.zeros_like(person_id)
    return PairBatch(image, tokens, length, person_id, nobody, nobody, nobody, None, None)


class Stub(nn.Module):
    """A layer in the place of a stream."""

    def __init__(self, size_in: int, size_out: int) -> None:
        super().__init__()
        self.num_features = size_out
        self.fc = nn.Linear(size_in, size_out)

    def forward(self, x: Tensor, *_: object) -> Tensor:
        return self.fc(x).tanh()


@golden("cm_moco", "moco_head_steps")
def moco_head_steps(case: Case) -> None:
    sizes = {side: case[f"init_{side}_encoder_q.fc.weight"].shape[::-1] for side in "vt"}
    embedding_size, num_classes = case["init_loss_evaluator.projection"].shape
    encoder = TwoStream(
        Stub(*sizes["v"]),
        lambda words: Stub(*sizes["t"]),
        image_head=embed_layer,
        text_head=embed_layer,
        embedding_size=embedding_size,
    )
    method = cm_moco(case, encoder, num_classes, OptimBuilder(sgd, lr=case.item("lr")))
    load(method, case, "init_")
    optimizer = method.configure_optimizers()["optimizer"]

    per_step: dict[str, list[Tensor]] = {}
    for step, (image, text, person_id) in enumerate(
        zip(case.tensor("images"), case.tensor("texts"), case.tensor("ids"), strict=True)
    ):
        batch = pairs(image, text, torch.ones_like(person_id), person_id)
        negatives = method.queue.negatives_of(person_id).sum()
        outputs = method.training_step(batch, step)
        optimizer.zero_grad()
        outputs["loss"].backward()
        method.remember(outputs)
        heads = method.projections or {"image": encoder.image_head, "text": encoder.text_head}
        similarity = {
            "v_pos": nn.functional.normalize(heads["image"](encoder.image(image))),
            "t_pos": nn.functional.normalize(heads["text"](encoder.text(text))),
        }
        similarity["v_pos"] = (similarity["v_pos"] * outputs["text_key"]).sum(dim=1)
        similarity["t_pos"] = (similarity["t_pos"] * outputs["image_key"]).sum(dim=1)
        for name, parameter in method.named_parameters():
            for array in case.outputs:
                if array.startswith(f"out_grad_step{step}_"):
                    official = array.removeprefix(f"out_grad_step{step}_")
                    if our_name(method, official) == name:
                        case.close(array, parameter.grad, **GRADIENT)
        optimizer.step()
        for array in case.outputs:
            if array.startswith(f"out_step{step}_"):
                official = array.removeprefix(f"out_step{step}_")
                case.close(array, ours(method, official), **TRAJECTORY)
        queues = {name: ours(method, name).clone() for name in ("v_queue", "t_queue")}
        losses = {official: method.terms[name] for official, name in LOSSES.items()}
        for name, value in {**losses, **queues, **similarity}.items():
            per_step.setdefault(name, []).append(value.detach())
        for name in ("id_queue", "queue_ptr"):
            per_step.setdefault(name, []).append(ours(method, name).clone())
        per_step.setdefault("num_negatives", []).append(negatives)

    for name, values in per_step.items():
        case.close(f"out_{name}", torch.stack(values), **TRAJECTORY)


def vectors_of(case: Case) -> MakeVectors:
    """Return the maker of a tiny model's word vectors; the tables' rows are loaded later."""
    mode, wanted = case.item("embedding_mode"), case.item("embed_size")
    if mode == "embedding":
        text = "textual_model." if case.item("head") == "simple" else "embed_model.t_encoder_q."
        num_words, size = case[f"sd__{text}embed.weight"].shape
        case.check(size == wanted, "the word vectors have the recorded size")
        return partial(LearnedWords, num_words=num_words, size=size)
    rows = torch.tensor(case["vocab_table"])
    if mode == "table":
        case.check(rows.shape[1] == wanted, "the word vectors have the recorded size")
        return partial(WordTable, table=lambda words: rows)
    case.check(mode == "table+linear", "the word vectors are of a known kind")
    return partial(ProjectedWords, table=lambda words: rows, size=wanted)


def tiny(case: Case) -> None:
    """Compare the embeddings of a tiny model, its optimizer and three training steps."""
    num_words = len(case["vocab_table"]) if "vocab_table" in case else 1
    encoder = TwoStream(
        ClipResNet(
            case["layers"].tolist(),
            width=case.item("width"),
            output_dim=case.item("output_dim"),
            heads=case.item("heads"),
            image_size=tuple(case["input_resolution"].tolist()),
            last_stride=case.item("last_stride"),
        ),
        partial(BiGru, vectors=vectors_of(case), hidden_size=case.item("gru_hidden")),
        image_head=embed_layer,
        text_head=embed_layer,
        embedding_size=case.item("feature_size"),
        words=["word"] * num_words,
    )
    build = OptimBuilder(
        adam,
        lr=case.item("base_lr"),
        weight_decay=case.setting("weight_decay", 4e-5),
        rules=[
            GroupRule(
                contains=["bias"],
                lr_factor=case.setting("bias_lr_factor", 2),
                weight_decay=case.setting("weight_decay_bias", 0),
            )
        ],
    )
    case.check((case.item("head") == "moco") == ("K" in case), "a momentum head has queues")
    method = cm_moco(case, encoder, case.item("num_classes"), build)
    load(method, case, "sd__")
    official = {
        name.removeprefix("sd__"): case.tensor(name) for name in case if name.startswith("sd__")
    }
    case.check(official.keys() <= {*case["sd_keys"].tolist()}, "the state is the listed one")
    for name, value in import_cm_moco(official).items():
        case.check(torch.equal(encoder.state_dict()[name], value), f"{name} is imported")
    images, tokens, length = (case.tensor(name) for name in ("images", "tokens", "lengths"))

    method.eval()
    with torch.no_grad():
        case.close("out_visual_embed", encoder.embed_images(images), **TRAJECTORY)
        text = encoder.embed_texts(tokens, length, int(length.max()))
        case.close("out_textual_embed", text, **TRAJECTORY)

    method.train()
    optimizer = method.configure_optimizers()["optimizer"]
    settings = {
        id(parameter): (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    trained = {our_name(method, official) for official in case["opt_names"].tolist()}
    parameters = dict(method.named_parameters())
    case.check(
        {name for name, p in parameters.items() if p.requires_grad} == trained,
        "the same parameters are trained",
    )
    found = [
        settings[id(parameters[our_name(method, name)])] for name in case["opt_names"].tolist()
    ]
    case.close("out_opt_lr", torch.tensor(found, dtype=torch.float64)[:, 0], **LOSS)
    case.close("out_opt_wd", torch.tensor(found, dtype=torch.float64)[:, 1], **LOSS)

    losses: dict[str, list[Tensor]] = {}
    for step, person_id in enumerate(case.tensor("ids")):
        batch = pairs(images * (1 + 0.1 * step), tokens, length, person_id)
        outputs = method.training_step(batch, step)
        optimizer.zero_grad()
        outputs["loss"].backward()
        method.remember(outputs)
        optimizer.step()
        for name, term in method.terms.items():
            losses.setdefault(name, []).append(term)
    for official, name in LOSSES.items():
        if name in losses:
            case.close(f"out_train_{official}", torch.stack(losses[name]), **TRAJECTORY)
    for array in case.outputs:
        if array.startswith("out_after3_"):
            case.close(array, ours(method, array.removeprefix("out_after3_")), **TRAJECTORY)


@golden("cm_moco", "tiny_moco_model")
def tiny_moco_model(case: Case) -> None:
    tiny(case)


@golden("cm_moco", "tiny_simple_model")
def tiny_simple_model(case: Case) -> None:
    tiny(case)

"""The cross-modal module, a tiny model, its training and evaluation, and the full-size layout."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crosswalk.encoders.clip import ClipDualEncoder
from crosswalk.encoders.clip_embedding import ClipEmbedding, every_token
from crosswalk.encoders.masked_language_model import MaskedLanguageModel, guesses_of
from crosswalk.importers.irra import architecture_of, import_irra
from crosswalk.labels.masked_words import MaskedCaptions, WordMasking
from crosswalk.methods.irra import IRRA
from crosswalk.metrics.ranking import mean_average_precision, mean_inp, rank_k, rank_similarity
from crosswalk.optim import CosineDecay, OptimBuilder, WarmupSchedule
from crosswalk.types import DataSpec, ImageBatch, PairBatch, TextBatch
from crosswalk.weight_files import plain_names
from tests.golden.adapters.irra.schedules import by_name, optimizer_of, rules
from tests.golden.harness import FLOAT32, GRADIENT, LOSS, Case, golden

EMBEDDING_LOSSES = ("sdm", "itc", "cmpm", "id")
ACCURACIES = {"img_acc": "image_accuracy", "txt_acc": "text_accuracy", "mlm_acc": "mlm_accuracy"}


def our_name(official: str) -> str:
    """Return the name that a parameter has in our method."""
    if official.startswith("base_model."):
        return official.replace("base_model.", "encoder.clip.", 1)
    return official if official.startswith("classifier.") else f"mlm.{official}"


class Recorded(IRRA):
    """The method with given masked captions, and its log in a dictionary."""

    captions: MaskedCaptions

    def captions_of(self, batch: PairBatch) -> MaskedCaptions:
        return self.captions

    def log(self, name: str, value: Tensor, **_: object) -> None:
        self.logged[name] = value

    def log_dict(self, terms: dict[str, Tensor], **_: object) -> None:
        self.logged |= terms

    def step(self, batch: PairBatch) -> Tensor:
        self.logged: dict[str, Tensor] = {}
        return self.training_step(batch, 0)


def checkpoint(case: Case, name: str) -> dict[str, Tensor]:
    archive = Case(case.folder / f"{name}.npz")
    return {key: archive.tensor(key) for key in archive}


def clip_of(case: Case, state: dict[str, Tensor]) -> ClipDualEncoder:
    """Return an encoder of the sizes of a state dict and the settings of a case."""
    size = tuple(case["image_size_hw"].tolist())
    clip = architecture_of(state, image_size=size, stride=case.item("stride"))["clip"]
    case.check(clip["patch_size"] == case.item("patch_size"), "patches are those of the weights")
    return ClipDualEncoder(
        **clip | {name: case.item(name) for name in ("vision_heads", "text_heads")}
    )


def method_of(
    case: Case, state: dict[str, Tensor], losses: list[str], optim: OptimBuilder | None = None
) -> Recorded:
    """Return the method with the settings of a case and the weights of a state dict."""
    encoder = ClipEmbedding(clip_of(case, state))
    vocabulary_size = len(state["base_model.token_embedding.weight"])
    mlm = partial(
        MaskedLanguageModel,
        depth=case.item("cmt_depth"),
        heads=case.item("cross_heads"),
        weight=case.item("mlm_loss_weight"),
    )
    method = Recorded(
        encoder,
        DataSpec(1, 1, case.item("num_classes"), vocabulary_size=vocabulary_size),
        optim,
        losses=[name for name in losses if name in EMBEDDING_LOSSES],
        masking=WordMasking(mask_id=vocabulary_size - 3),
        mlm=mlm if "mlm" in losses else None,
        temperature=case.item("temperature"),
        id_weight=case.item("id_loss_weight"),
    )
    own = method.state_dict()
    weights = {
        f"encoder.{name}" if name.startswith("clip.") else name: row
        for name, row in import_irra(state).items()
    }
    used = {name: row for name, row in weights.items() if name in own}
    method.load_state_dict(used | {"clean": own["clean"]})
    return method.double()


def batch_of(images: Tensor, tokens: Tensor, person_id: Tensor) -> PairBatch:
    nobody = torch.zeros_like(person_id)
    return PairBatch(images.double(), tokens, nobody, person_id, nobody, nobody, nobody, None, None)


def shown(mode: str, tokens: Tensor, masked: Tensor, label: Tensor) -> MaskedCaptions:
    """Return the captions as the released code, or as the paper's figure, hands them over."""
    return MaskedCaptions(masked if mode == "official" else tokens, masked, label)


def parameters_of(case: Case, method: IRRA) -> dict[str, nn.Parameter]:
    """Return the method's parameters by official name, in the recorded order."""
    ours = dict(method.named_parameters())
    names = case["parameter_names"].tolist()
    case.check({our_name(name) for name in names} == ours.keys(), "the same parameters are trained")
    return {name: ours[our_name(name)] for name in names}


def gradient_norms(parameters: dict[str, nn.Parameter]) -> Tensor:
    return torch.stack(
        [torch.zeros(()) if p.grad is None else p.grad.norm() for p in parameters.values()]
    )


@golden("irra", "irr_module")
def irr_module(case: Case) -> None:
    text = case.tensor("text_tokens").double().requires_grad_()
    image = case.tensor("image_tokens").double().requires_grad_()
    names, label = case["parameter_names"].tolist(), case.tensor("mlm_labels")
    state = {name: case.tensor(f"state.{name}") for name in names}
    model = MaskedLanguageModel(
        text.shape[2],
        len(state["mlm_head.fc.bias"]),
        depth=case.item("depth"),
        heads=case.item("heads"),
    ).double()
    model.load_state_dict(state)
    seen: dict[str, Tensor] = {}
    blocks = list(model.cross_modal_transformer.resblocks)
    for layer, block in enumerate(blocks):
        if layer == 0:
            block.register_forward_pre_hook(
                lambda _, inputs: seen.update(out_cross_attention=inputs[0])
            )
        block.register_forward_hook(
            lambda _, __, output, layer=layer: seen.update({f"out_after_layer_{layer}": output})
        )

    fused = model.fused(text, image)
    loss = model(text, image, label).loss.mean()
    loss.backward()

    for name in case.outputs:
        if name == "out_cross_attention" or name.startswith("out_after_layer_"):
            case.close(name, seen[name], **LOSS)
    logits = model.mlm_head(fused)
    case.close("out_fused_tokens", fused, **LOSS)
    case.close("out_logits", logits, **LOSS)
    place = label != 0
    case.check(
        torch.allclose(
            guesses_of(logits[place], label[place], place.nonzero()[:, 0]).loss.mean(), loss
        ),
        "the head at labelled places gives the loss of all",
    )
    case.close("out_loss", loss, **LOSS)
    case.close("out_grad_text_tokens", text.grad, **GRADIENT)
    case.close("out_grad_image_tokens", image.grad, **GRADIENT)
    parameters = {name: model.get_parameter(name) for name in names}
    case.close("out_grad_norms", gradient_norms(parameters), **GRADIENT)
    for name, parameter in parameters.items():
        if f"out_grad.{name}" in case:
            case.close(f"out_grad.{name}", parameter.grad, **GRADIENT)


@golden("irra", "tiny_checkpoint")
def tiny_checkpoint(case: Case) -> None:
    state = {name: case.tensor(name) for name in case}
    imported = import_irra(state)
    patches = len(case["base_model.visual.positional_embedding"]) - 1
    side = case["base_model.visual.conv1.weight"].shape[-1]
    # weights do not tell how patches lie: one column
    sizes = architecture_of(state, image_size=(patches * side, side))
    one = {"vision_heads": 1, "text_heads": 1}
    models: dict[str, nn.Module] = {"clip": ClipDualEncoder(**sizes["clip"] | one)}
    if sizes["cross_modal"] is not None:
        depth, words = sizes["cross_modal"]["depth"], sizes["cross_modal"]["vocabulary_size"]
        models["mlm"] = MaskedLanguageModel(sizes["clip"]["embed_dim"], words, depth=depth)
    if sizes["classifier"] is not None:
        models["classifier"] = nn.Linear(sizes["clip"]["embed_dim"], sizes["classifier"])
    for part, model in models.items():
        prefix = f"{part}."
        model.load_state_dict(
            {n.removeprefix(prefix): row for n, row in imported.items() if n.startswith(prefix)}
        )
    case.check(len(imported) == len(state), "every tensor is used")
    case.check(sizes["left_out"] == [], "nothing is left out")
    total = sum(row.double().sum().item() for row in state.values())
    ours = sum(
        row.double().sum().item() for m in models.values() for row in m.state_dict().values()
    )
    case.check(math.isclose(total, ours, rel_tol=1e-9), "the values are those of the file")


@golden("irra", "tiny_model")
def tiny_model(case: Case) -> None:
    state = checkpoint(case, case.name.replace("tiny_model", "tiny_checkpoint"))
    tokens, masked = case.tensor("caption_ids"), case.tensor("mlm_ids")
    label, images = case.tensor("mlm_labels"), case.tensor("images")
    losses = str(case.setting("loss_names", "sdm+id+mlm")).split("+")
    for mode in ("official", "paper"):
        method = method_of(case, state, losses)
        method.captions = shown(mode, tokens, masked, label)
        total = method.step(batch_of(images, tokens, case.tensor("pids")))
        total.backward()
        parameters = parameters_of(case, method)
        for name in losses:
            case.close(f"out_{mode}_{name}_loss", method.logged[f"train/loss_{name}"], **FLOAT32)
        for theirs, ours in ACCURACIES.items():
            case.close(f"out_{mode}_{theirs}", method.logged[f"train/{ours}"], **FLOAT32)
        case.close(f"out_{mode}_total", total, **FLOAT32)
        case.close(f"out_{mode}_grad_norms", gradient_norms(parameters), **FLOAT32)
        for name, parameter in parameters.items():
            if f"out_{mode}_grad.{name}" in case:
                case.close(f"out_{mode}_grad.{name}", parameter.grad, **FLOAT32)

    method = method_of(case, state, losses)
    encoder, mlm = method.encoder, method.mlm
    with torch.no_grad():
        encoded = encoder.clip.encode_image(images.double())
        words = encoder.clip.encode_text(masked)
        image_tokens = every_token(encoder.clip.project_image, encoded)
        text_tokens = every_token(encoder.clip.project_text, words)
        case.close("out_official_image_tokens", image_tokens, **FLOAT32)
        case.close("out_official_text_tokens", text_tokens, **FLOAT32)
        if mlm is not None:
            logits = mlm.mlm_head(mlm.fused(text_tokens, image_tokens))
            case.close("out_official_mlm_logits", logits, **FLOAT32)
        plain = encoder.clip.encode_text(tokens)
        case.close("out_image_embedding", encoder.image_embedding(encoded), **FLOAT32)
        case.close("out_text_embedding", encoder.text_embedding(plain), **FLOAT32)
        case.close("out_text_embedding_masked", encoder.text_embedding(words), **FLOAT32)
    for name in ("image_embedding", "text_embedding", "losses_sdm_id_mlm"):
        case.documented(f"out_fp16_{name}", "half precision on a CPU: informative only")


def scores_of(similarity: Tensor, queries: Tensor, gallery: Tensor) -> list[float]:
    """Return Rank-1, Rank-5, Rank-10, mAP and mINP in percent."""
    ranking = rank_similarity(
        similarity, query_person_id=queries, gallery_person_id=gallery, topk=similarity.shape[1]
    )
    shares = [rank_k(ranking, rank) for rank in (1, 5, 10)]
    return [100 * each for each in (*shares, mean_average_precision(ranking), mean_inp(ranking))]


def embedded(method: IRRA, images: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Return unit vectors of images and captions."""
    nobody = torch.zeros(1, dtype=torch.int64)
    with torch.no_grad():
        image = method.embed(ImageBatch(images.double(), nobody, nobody, nobody, None))
        text = method.embed(TextBatch(tokens, nobody, nobody, nobody, nobody))
    return image["global"], text["global"]


@golden("irra", "tiny_train")
def tiny_train(case: Case) -> None:
    state = checkpoint(case, case.item("checkpoint"))
    losses, mode = case.item("loss_names").split("+"), case.item("caption_mode")
    epochs, steps = case.item("num_epoch"), case.item("steps_per_epoch")
    build = OptimBuilder(
        optimizer_of(case, case.item("optimizer")),
        lr=case.item("base_lr"),
        weight_decay=case.item("weight_decay"),
        rules=rules(case),
        schedule=WarmupSchedule(
            num_epochs=epochs,
            decay=CosineDecay(),
            warmup_epochs=case.item("warmup_epochs"),
            warmup_factor=case.item("warmup_factor"),
            warmup=case.setting("warmup_method", "linear"),
        ),
    )
    case.unused(
        *("num_classes", "cmt_depth", "cross_heads", "id_loss_weight", "mlm_loss_weight"),
        reason="of losses that not every case has",
    )
    method = method_of(case, state, losses, build)
    parameters = parameters_of(case, method)
    start = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    built = method.configure_optimizers()
    optimizer, scheduler = built["optimizer"], built["lr_scheduler"]["scheduler"]
    queries, gallery = (case.tensor(f"evaluation_{each}_pids") for each in ("query", "gallery"))

    found: dict[str, list[object]] = {}
    for number in range(epochs * steps):
        given = {
            name: case.tensor(f"batch{number}_{name}")
            for name in ("images", "caption_ids", "mlm_ids", "mlm_labels", "pids")
        }
        tokens = given["caption_ids"]
        method.captions = shown(mode, tokens, given["mlm_ids"], given["mlm_labels"])
        rate = by_name(optimizer, method, "lr")
        found.setdefault("lr", []).append([rate[our_name(name)] for name in parameters])
        optimizer.zero_grad()
        method.step(batch_of(given["images"], tokens, given["pids"])).backward()
        found.setdefault("grad_norms", []).append(gradient_norms(parameters).tolist())
        optimizer.step()
        found.setdefault("losses_itc_sdm_cmpm_id_mlm", []).append(
            [
                float(method.logged.get(f"train/loss_{name}", 0))
                for name in ("itc", "sdm", "cmpm", "id", "mlm")
            ]
        )
        if (number + 1) % steps == 0:
            scheduler.step()
            image, text = embedded(
                method, case.tensor("evaluation_images"), case.tensor("evaluation_captions")
            )
            found.setdefault("metrics", []).append(scores_of(text @ image.T, queries, gallery))

    for name, values in found.items():
        per = "epoch" if name == "metrics" else "step"
        tolerance = {"rtol": 1e-6, "atol": 1e-16} if name == "lr" else FLOAT32
        case.close(f"out_{name}_per_{per}", np.array(values), **tolerance)
    change = [(p.detach() - start[name]).norm() for name, p in parameters.items()]
    case.close("out_parameter_change_norm", torch.stack(change), **FLOAT32)
    for name, parameter in parameters.items():
        if f"out_after.{name}" in case:
            case.close(f"out_after.{name}", parameter, **FLOAT32)
    clip = method.encoder.clip
    with torch.no_grad():
        image = method.encoder.image_embedding(
            clip.encode_image(case.tensor("batch0_images").double())
        )
        text = method.encoder.text_embedding(clip.encode_text(case.tensor("batch0_caption_ids")))
    case.close("out_image_embedding_after", image, **FLOAT32)
    case.close("out_text_embedding_after", text, **FLOAT32)


@golden("irra", "evaluation")
def evaluation(case: Case) -> None:
    case.unused(
        *("temperature", "id_loss_weight", "mlm_loss_weight", "num_classes", "cmt_depth"),
        "cross_heads",
        reason="of the training",
    )
    state = checkpoint(case, case.item("checkpoint"))
    encoder = ClipEmbedding(clip_of(case, state))
    weights = import_irra(state)
    encoder.load_state_dict({n: row for n, row in weights.items() if n.startswith("clip.")})
    encoder = encoder.double()
    with torch.no_grad():
        images = encoder.clip.encode_image(case.tensor("gallery_images").double())
        image = encoder.image_embedding(images)
        text = encoder.text_embedding(encoder.clip.encode_text(case.tensor("query_captions")))
    similarity = F.normalize(text) @ F.normalize(image).T
    ids = case.tensor("query_pids"), case.tensor("gallery_pids")
    text_to_image = scores_of(similarity, *ids)

    case.close("out_text_features", text, **FLOAT32)
    case.close("out_image_features", image, **FLOAT32)
    case.close("out_similarity", similarity, **FLOAT32)
    case.close("out_t2i_r1_r5_r10_map_minp", np.array(text_to_image), **FLOAT32)
    image_to_text = scores_of(similarity.T, *ids[::-1])
    case.close("out_i2t_r1_r5_r10_map_minp", np.array(image_to_text), **FLOAT32)
    case.close("out_selection_value", text_to_image[0], **FLOAT32)


@golden("irra", "parameter_groups")
def parameter_groups(case: Case) -> None:
    names = [str(name) for name in case["out_names"]]
    shapes = dict(zip(names, case.json("out_shapes_json"), strict=True))
    state = {name: torch.zeros(()).expand(shape) for name, shape in shapes.items()}
    sizes = architecture_of(state)
    losses = case.item("loss_names").split("+")
    with torch.device("meta"):
        encoder = ClipEmbedding(ClipDualEncoder(**sizes["clip"]))
    torch.manual_seed(1)
    build = OptimBuilder(
        optimizer_of(case, "Adam"),
        lr=case.item("lr"),
        weight_decay=case.item("weight_decay"),
        rules=rules(case),
    )
    words = sizes["clip"]["vocabulary_size"]
    method = IRRA(
        encoder,
        DataSpec(1, 1, case.item("num_classes"), vocabulary_size=words),
        build,
        losses=[name for name in losses if name in EMBEDDING_LOSSES],
        masking=WordMasking(),
        mlm=partial(MaskedLanguageModel, depth=case.item("cmt_depth")) if "mlm" in losses else None,
    )
    ours = dict(method.named_parameters())
    found = {name: ours[our_name(name)] for name in names if our_name(name) in ours}

    case.equal("out_names", np.array(list(found)))
    case.check(len(found) == len(ours), "there are no other parameters")
    case.equal_json("out_shapes_json", [list(parameter.shape) for parameter in found.values()])
    case.equal("out_num_parameters", sum(p.numel() for p in found.values()))
    case.documented("out_dtypes", "weights are float32 here; the released code halves some")
    optimizer = build(method)["optimizer"]
    for name, setting in (("out_lr", "lr"), ("out_weight_decay", "weight_decay")):
        values = by_name(optimizer, method, setting)
        case.close(name, np.array([values[our_name(each)] for each in found]), rtol=1e-12, atol=0)
    new = [name for name in found if not name.startswith("base_model.")]
    case.equal("out_init_names", np.array(new))
    case.documented("out_init_mean_std_absmax", "compared within six standard errors, below")
    for name, recorded in zip(new, case["out_init_mean_std_absmax"], strict=True):
        is_drawn_alike(case, name, found[name].detach(), *recorded.tolist())


def is_drawn_alike(
    case: Case, name: str, row: Tensor, mean: float, std: float, largest: float
) -> None:
    """Compare the statistics of a parameter with those of another draw of it."""
    error = 6 * std * (2 / row.numel()) ** 0.5  # of the difference of two means
    close = partial(math.isclose, rel_tol=0)
    case.check(close(row.mean().item(), mean, abs_tol=error + 1e-9), f"mean of {name}")
    case.check(close(row.std().item(), std, abs_tol=error + 1e-9), f"deviation of {name}")
    extreme = 6 * 1.28 * std / (math.log(row.numel()) ** 0.5)  # of a normal distribution
    found = row.abs().max().item()
    case.check(close(found, largest, abs_tol=extreme + 1e-9), f"largest value of {name}")


@golden("irra", "checkpoint_load")
def checkpoint_load(case: Case) -> None:
    keys, sources = case["file_keys"].tolist(), case["out_source_of_each_model_key"]
    model_keys = case["model_keys"].tolist()
    # positions of three rows are no square grid, which would be resized
    file = {key: torch.full((3,), float(number)) for number, key in enumerate(keys)}
    imported = {
        f"encoder.{name}" if name.startswith("clip.") else name: keys[int(row[0])]
        for name, row in import_irra(plain_names(file)).items()
    }
    found = np.array([imported.get(our_name(key), "") for key in model_keys])

    if case.item("kind") != "clip_only":
        case.equal("out_source_of_each_model_key", found)
        return
    reason = "suffixes fill the cross-modal blocks with the text transformer's; names do not"
    case.documented("out_source_of_each_model_key", reason)
    of_clip = np.array([key.startswith("base_model.") for key in model_keys])
    case.check(bool((found == sources)[of_clip].all()), "CLIP is filled from its own names")
    case.check(not found[~of_clip].any(), "nothing else is filled")

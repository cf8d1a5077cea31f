"""RDE's encoder, token selection heads, position embedding, tokenizer and checkpoint."""

import math

import torch
from torch import Tensor

from crosswalk.data.text.tokenizers import ClipTokenizer
from crosswalk.encoders.batch_norm import BatchStatistics
from crosswalk.encoders.clip import ClipDualEncoder
from crosswalk.encoders.clip_weights import resize_position_embedding
from crosswalk.encoders.dual_embedding import DualEmbedding
from crosswalk.encoders.token_selection import (
    TokenMlp,
    TokenSelection,
    best_positions,
    image_token_scores,
    num_pooled,
    num_selected,
    text_token_scores,
)
from crosswalk.importers.rde import architecture_of, import_rde
from tests.golden.adapters.rde.losses import pair_loss
from tests.golden.harness import FLOAT32, GRADIENT, Case, golden

# The training cases: losses within 2e-3; others within 2e-3 of the largest value.
TRAINED = 2e-3


@golden("rde", "pos_embed")
def pos_embed(case: Case) -> None:
    grid = (case.item("height"), case.item("width"))
    case.close("out_pos_embed", resize_position_embedding(case.tensor("pos_embed"), grid))


@golden("rde", "tiny_pretrain_posembed")
def tiny_pretrain_posembed(case: Case) -> None:
    grid = (case.item("height"), case.item("width"))
    resized = resize_position_embedding(case.tensor("pos_embed"), grid)
    case.close("out_pos_embed", resized, **FLOAT32)


@golden("rde", "tokenizer")
def tokenizer(case: Case) -> None:
    captions = case.json("captions_json")
    ours = ClipTokenizer(case.item("text_length"))
    case.equal("out_ids", ours(captions))
    case.equal("out_ids_length16", ClipTokenizer(16)(captions))
    case.equal("out_untruncated_length", ours.lengths_untruncated(captions))
    ids = [ours.start_id, ours.end_id, ours.mask_id, ours.vocabulary_size]
    case.check(ids == [case.item(n) for n in ("sot", "eot", "mask", "vocab_size")], "same ids")


@golden("rde", "tokenizer_words")
def tokenizer_words(case: Case) -> None:
    ours = ClipTokenizer()
    case.equal_json("out_ids_json", [ours.encode(word) for word in case.json("words_json")])
    decoded = [ours.decode(ids) for ids in case.json("out_ids_json")]
    case.equal_json("out_decoded_json", decoded)


def selection_head(case: Case, residual: str) -> tuple[TokenSelection, dict[str, str]]:
    """Return the head with the case's weights, and official name -> ours."""
    dead = ("mlp.bns.1.", "linear.") if residual == "fc" else ("mlp.bns.1.",)
    never_called = [name for name in case if name.removeprefix("param_").startswith(dead)]
    case.unused(*never_called, reason="the official head makes these layers and never calls them")
    out_features, in_features = case[f"param_{residual}.weight"].shape
    names = {
        f"{theirs}.{part}": f"{ours}.{part}"
        for theirs, ours in [
            (residual, "residual"),
            ("mlp.layers.0", "hidden"),
            ("mlp.layers.1", "out"),
            ("mlp.bns.0", "norm"),
        ]
        for part in ("weight", "bias")
    }
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    names |= {f"mlp.bns.0.{part}": f"norm.{part}" for part in buffers}
    token_mlp = TokenMlp(in_features, out_features, statistics="train").to(torch.float64)
    token_mlp.load_state_dict(
        {ours: case.tensor(f"param_{theirs}") for theirs, ours in names.items()}
    )
    token_mlp.train(bool(case.item("training")))
    return TokenSelection(token_mlp), names


def compare_head(
    case: Case, head: TokenSelection, names: dict[str, str], features: Tensor, embedding: Tensor
) -> None:
    """Compare the embedding, all gradients and the buffers."""
    case.close("out_embedding", embedding)
    torch.autograd.backward((embedding * case.tensor("grad_output")).sum())
    gradient = features.grad
    assert gradient is not None
    if bool(case.item("training")) and "text" in case:
        # recorded as 0 at padding: which of the equal padding tokens fill up is unspecified
        gradient = gradient * (case.tensor("text") != 0)[:, :, None]
    case.close("out_grad_features", gradient, **GRADIENT)
    for theirs, ours in names.items():
        if f"out_grad_{theirs}" in case:
            parameter = head.token_mlp.get_parameter(ours)
            case.close(f"out_grad_{theirs}", parameter.grad, **GRADIENT)
    for statistic in ("running_mean", "running_var"):
        if f"out_{statistic}" in case:
            buffer = head.token_mlp.get_buffer(f"norm.{statistic}")
            case.close(f"out_{statistic}", buffer)


def gathered(features: Tensor, position: Tensor) -> Tensor:
    return features[torch.arange(len(features))[:, None], position]


@golden("rde", "tse_image")
def tse_image(case: Case) -> None:
    head, names = selection_head(case, "fc")
    features = case.tensor("features", requires_grad=True)
    count = num_selected(features.shape[1] - 1, case.item("ratio"))
    position = best_positions(image_token_scores(case.tensor("attention")[:, 0]), count)
    case.equal("out_selected_index", position)
    compare_head(case, head, names, features, head(gathered(features, position)))


@golden("rde", "tse_text")
def tse_text(case: Case) -> None:
    head, names = selection_head(case, "linear")
    features = case.tensor("features", requires_grad=True)
    text = case.tensor("text")
    count = num_selected(features.shape[1] - 2, case.item("ratio"))
    row = case.tensor("attention")[torch.arange(len(text)), text.argmax(dim=1)]
    position = best_positions(text_token_scores(row, text), count)
    valid = num_pooled(text, count)
    case.equal("out_valid_length", valid)
    beyond = torch.arange(count) >= valid[:, None]
    case.equal("out_selected_index_valid", position.masked_fill(beyond, -1))
    compare_head(case, head, names, features, head(gathered(features, position), valid))


def checkpoint_of(case: Case) -> dict[str, Tensor]:
    archive = case if case.function == "tiny_checkpoint" else case.sibling("tiny_checkpoint")
    return {name: archive.tensor(name) for name in archive}


def tiny_encoder(case: Case, model: Case, statistics: BatchStatistics = "frozen") -> DualEmbedding:
    """Return the encoder of ``tiny_checkpoint`` with the settings of ``tiny_model``."""
    state = checkpoint_of(case)
    sizes = architecture_of(
        state, image_size=tuple(model["image_size_hw"].tolist()), stride=model.item("stride")
    )
    heads = {name: model.item(name) for name in ("vision_heads", "text_heads")}
    clip = sizes["clip"] | heads
    case.check(clip["patch_size"] == model.item("patch_size"), "patches are those of the weights")
    encoder = DualEmbedding(
        ClipDualEncoder(**clip),
        select_ratio=model.item("select_ratio"),
        embedding_size=sizes["embedding_size"],
        statistics=statistics,
    )
    encoder.load_state_dict(import_rde(state))
    return encoder


@golden("rde", "tiny_checkpoint")
def tiny_checkpoint(case: Case) -> None:
    state = checkpoint_of(case)
    imported = import_rde(state)
    num_patches = len(case["base_model.visual.positional_embedding"]) - 1
    side = case["base_model.visual.conv1.weight"].shape[-1]
    # weights tell neither how patches lie nor how many heads there are: one column, one head
    sizes = architecture_of(state, image_size=(num_patches * side, side))
    encoder = DualEmbedding(
        ClipDualEncoder(**sizes["clip"] | {"vision_heads": 1, "text_heads": 1}),
        select_ratio=1.0,
        embedding_size=sizes["embedding_size"],
    )
    encoder.load_state_dict(imported)
    dead = [name for name in state if name.startswith("visul_emb_layer.linear") or "bns.1" in name]
    case.check(len(imported) + len(dead) == len(state), "every tensor is used or known to be dead")
    total = sum(tensor.double().sum().item() for name, tensor in state.items() if name not in dead)
    ours = sum(tensor.double().sum().item() for tensor in encoder.state_dict().values())
    case.check(math.isclose(total, ours, rel_tol=1e-9), "the values are those of the file")


@golden("rde", "tiny_model")
def tiny_model(case: Case) -> None:
    encoder = tiny_encoder(case, case).eval()
    images, ids = case.tensor("images"), case.tensor("caption_ids")
    with torch.no_grad():
        image, text = encoder.clip.encode_image(images), encoder.clip.encode_text(ids)
        everywhere = torch.arange(image.hidden.shape[1]).expand(len(images), -1)
        image_tokens = encoder.clip.project_image(image, everywhere)
        everywhere = torch.arange(ids.shape[1]).expand(len(ids), -1)
        text_tokens = encoder.clip.project_text(text, everywhere)
        image_views, text_views = encoder.embed_images(images), encoder.embed_texts(ids)
    case.close("out_image_tokens", image_tokens, **FLOAT32)
    case.close("out_image_attention_cls_row", image.attention, **FLOAT32)
    case.close("out_text_tokens", text_tokens, **FLOAT32)
    case.close("out_text_attention_eos_row", text.attention, **FLOAT32)
    case.unused("label_hat", reason="weights of the training cases' losses")
    loss = pair_loss(case.item("loss_type"), case)
    pid = case.tensor("pids")
    for short, view in [("bge", "global"), ("tse", "token_selection")]:
        for modality, views in [("image", image_views), ("text", text_views)]:
            recorded = case.tensor(f"out_{short}_{modality}")  # not of unit length
            case.close(
                f"out_{short}_{modality}",
                views[view] * recorded.norm(dim=1, keepdim=True),
                **FLOAT32,
            )
            case.documented(f"out_fp16_{short}_{modality}", "half precision on a CPU: informative")
        similarity = text_views[view] @ image_views[view].T
        case.close(f"out_diag_{short}", similarity.diagonal(), **FLOAT32)
        losses = loss.of_pairs(similarity, pid[:, None] == pid)
        case.close(f"out_per_sample_{short}", losses, **FLOAT32)


def parameters_of(
    encoder: DualEmbedding, state: dict[str, Tensor]
) -> dict[str, torch.nn.Parameter]:
    """Return official name -> our parameter, without the dead ones.

    Found by sending every entry's own number through the importer.
    """
    numbered = {
        name: torch.full_like(tensor, 0, dtype=torch.float32) + number
        for number, (name, tensor) in enumerate(state.items())
    }
    names = list(state)
    ours = {name: names[int(row.flatten()[0])] for name, row in import_rde(numbered).items()}
    return {ours[name]: parameter for name, parameter in encoder.named_parameters()}


def three_steps(case: Case, statistics: BatchStatistics) -> None:
    """Train as recorded; compare losses, gradients, parameters, embeddings and buffers."""
    case.unused("base_lr", reason="param_lr has the rate of each parameter")
    model = case.sibling("tiny_model")
    encoder = tiny_encoder(case, model, statistics).train()
    official = parameters_of(encoder, checkpoint_of(case))
    recorded = dict(
        zip(
            case["param_names"].tolist(),
            zip(case["param_lr"], case["param_weight_decay"], case["out_grad_norms"], strict=True),
            strict=True,
        )
    )
    adam = torch.optim.Adam(
        [
            {"params": [parameter], "lr": recorded[name][0], "weight_decay": recorded[name][1]}
            for name, parameter in official.items()
        ],
        betas=tuple(case["adam_betas"].tolist()),
        eps=case.item("adam_eps"),
    )
    images, ids, pid = (
        model.tensor("images"),
        case.tensor("train_caption_ids"),
        model.tensor("pids"),
    )
    clean = model.tensor("label_hat")
    loss = pair_loss(model.item("loss_type"), model)
    history = []
    for step in range(len(case["out_losses_bge_tse_per_step"])):
        image_views, text_views = encoder.embed_images(images), encoder.embed_texts(ids)
        losses = [
            loss.reduce(
                loss.of_pairs(text_views[view] @ image_views[view].T, pid[:, None] == pid), clean
            )
            for view in ("global", "token_selection")
        ]
        adam.zero_grad()
        torch.autograd.backward(losses)
        if step == 0:
            gradients = {name: p.grad for name, p in official.items() if p.grad is not None}
            compare_gradients(case, gradients, {name: row[2] for name, row in recorded.items()})
        adam.step()
        history.append([value.item() for value in losses])
    case.close("out_losses_bge_tse_per_step", history, rtol=TRAINED)

    encoder.eval()
    with torch.no_grad():
        image_views, text_views = encoder.embed_images(images), encoder.embed_texts(ids)
    after = {name: parameter.detach() for name, parameter in official.items()}
    for name in [name for name in case.outputs if name.startswith("out_after3_param_")]:
        close_to_largest(case, name, after[name.removeprefix("out_after3_param_")])
    for short, view in [("bge", "global"), ("tse", "token_selection")]:
        for modality, views in [("image", image_views), ("text", text_views)]:
            name = f"out_after3_{short}_{modality}"
            length = case.tensor(name).norm(dim=1, keepdim=True)
            close_to_largest(case, name, views[view] * length)
    for modality in ("image", "text"):
        norm = encoder.get_submodule(f"{modality}_selection.token_mlp.norm")
        for statistic in ("running_mean", "running_var"):
            close_to_largest(case, f"out_{statistic}_{modality}", norm.get_buffer(statistic))


def compare_gradients(
    case: Case, gradients: dict[str, Tensor], recorded_norm: dict[str, float]
) -> None:
    norms = [gradients[name].norm().item() if name in gradients else -1.0 for name in recorded_norm]
    close_to_largest(case, "out_grad_norms", torch.tensor(norms))
    for name in [name for name in case.outputs if name.startswith("out_grad_")]:
        if name != "out_grad_norms":
            close_to_largest(case, name, gradients[name.removeprefix("out_grad_")])


def close_to_largest(case: Case, name: str, actual: Tensor) -> None:
    case.close(name, actual, rtol=TRAINED, atol=TRAINED * float(abs(case[name]).max()))


@golden("rde", "tiny_train_evalmode")
def tiny_train_evalmode(case: Case) -> None:
    three_steps(case, "frozen")


@golden("rde", "tiny_train_trainmode")
def tiny_train_trainmode(case: Case) -> None:
    three_steps(case, "train")

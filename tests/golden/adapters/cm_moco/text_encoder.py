"""CM-MoCo's caption encoder on its three kinds of word vectors."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from crosswalk.encoders.text_recurrent import BiGru
from crosswalk.encoders.word_vectors import LearnedWords, ProjectedWords, WordTable
from tests.golden.harness import Case, golden

EXACT = {"rtol": 1e-9, "atol": 1e-12}
GRADIENT = {"rtol": 1e-7, "atol": 1e-11}


def vectors_of(case: Case) -> tuple[partial[nn.Module], str]:
    """Return how to make the case's word vectors, and the submodule that is trained in them."""
    if "vocab_table" not in case:
        num_words, size = case["param_embed.weight"].shape
        return partial(LearnedWords, num_words=num_words, size=size), "embedding"

    def table(words: object) -> torch.Tensor:
        return case.tensor("vocab_table")

    if "param_embed.weight" in case:
        size = len(case["param_embed.weight"])
        return partial(ProjectedWords, table=table, size=size), "projection"
    return partial(WordTable, table=table), ""


@golden("cm_moco", "gru_encoder")
def gru_encoder(case: Case) -> None:
    vectors, trained = vectors_of(case)
    num_words = len(case["vocab_table" if "vocab_table" in case else "param_embed.weight"])
    words = [f"word {number}" for number in range(num_words)]
    hidden_size = case["param_gru.weight_hh_l0"].shape[1]
    encoder = BiGru(words, vectors=vectors, hidden_size=hidden_size).double()
    if "vocab_table" in case:  # float32 in a model
        table = next(m for m in encoder.modules() if isinstance(m, WordTable))
        table.table = case.tensor("vocab_table")
    ours = {
        name: name.removeprefix("param_").replace("embed.", f"vectors.{trained}.")
        for name in case
        if name.startswith("param_")
    }
    parameters = dict(encoder.named_parameters())
    case.check(set(ours.values()) == parameters.keys(), "the encoder has the recorded parameters")
    with torch.no_grad():
        for name, our in ours.items():
            parameters[our].copy_(case.tensor(name))
    tokens, length = case.tensor("tokens"), case.tensor("lengths")
    longest = case.item("max_length")
    case.check(tokens.shape[1] == longest, "captions are padded to the recorded length")

    features = encoder(tokens, length, int(length.max()))
    (features * case.tensor("cotangent")).sum().backward()

    case.close("out_feat", features, **EXACT)
    for name, our in ours.items():
        case.close(name.replace("param_", "out_grad_"), parameters[our].grad, **GRADIENT)
    if "subset" in case:
        subset = case.tensor("subset")
        fewer = encoder(tokens[subset], length[subset], int(length[subset].max()))
        case.close("out_feat_subset", fewer, **EXACT)

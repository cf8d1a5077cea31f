"""What turns captions into token ids without crosswalk: files, and words about them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from crosswalk.data.pairs import Tokenizer
from crosswalk.data.text.tokenizers import ClipTokenizer
from crosswalk.data.text.word_tokenizer import END, WordTokenizer

VOCABULARY = "vocab.json"
MERGES = "merges.txt"


def write_token_files(tokenizer: Tokenizer, folder: Path) -> tuple[dict[str, Any], list[str]]:
    """Write the ids of all tokens and, for byte pairs, the merges; return facts and sentences.

    The files of CLIP's byte pairs have the format of Hugging Face's `CLIPTokenizer`.

    Args:
        tokenizer: Of the model; of one that is not crosswalk's nothing is written.
        folder: Where the files come to lie.
    """
    length = len(tokenizer(["a"])[0])
    facts: dict[str, Any] = {"context_length": length}
    if isinstance(tokenizer, ClipTokenizer):
        pairs = tokenizer._byte_pairs
        ids, merges = dict(pairs.encoder), sorted(pairs.bpe_ranks, key=pairs.bpe_ranks.__getitem__)
        text = "#version: 0.2\n" + "".join(f"{first} {second}\n" for first, second in merges)
        (folder / MERGES).write_text(text, encoding="utf-8")
        facts |= {"kind": "clip", "start": tokenizer.start_id, "end": tokenizer.end_id}
        said = [
            f"Ids are those of CLIP's byte pairs in lower case: {facts['start']}, the pieces, "
            f"{facts['end']}, and zeros up to {length} ids; of a longer caption the last id is "
            f"{facts['end']}. `{VOCABULARY}` and `{MERGES}` are the files that tokenizers of CLIP "
            "take."
        ]
    elif isinstance(tokenizer, WordTokenizer):
        first = int(tokenizer.padding == "own")
        ids = {word: number for number, word in enumerate(tokenizer.words) if number >= first}
        other = tokenizer._unknown_id
        if other is not None:  # the last one; a caption's own "UNK" is unknown too
            ids = {word: number for word, number in ids.items() if number != other}
        end = ids[END] if tokenizer.end_token else None
        facts |= {"kind": "words", "lower_case": tokenizer.lower_case, "unknown": other, "end": end}
        said = [
            f"Ids are those of words: a caption {'in lower case, ' * tokenizer.lower_case}without "
            "punctuation (that of ASCII is deleted, not replaced), cut at white space and looked "
            f"up in `{VOCABULARY}`",
            "other words are refused" if other is None else f"other words have the id {other}",
            *([] if end is None else [f"the id {end} is behind the last word"]),
            f"zeros follow up to {length} ids, a longer caption is cut"
            + ("." if end is None else f", and its last id is {end}."),
        ]
        said = ["; ".join(said)]
    else:
        return facts, [f"Ids are those of {type(tokenizer).__name__}, {length} of each caption."]
    content = json.dumps(ids, ensure_ascii=False, indent=0)
    (folder / VOCABULARY).write_text(content + "\n", encoding="utf-8")
    return facts, said

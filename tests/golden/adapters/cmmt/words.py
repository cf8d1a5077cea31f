"""Vocabulary of the captions, and their ids."""

from crosswalk.data.pipeline.transforms import token_length
from crosswalk.data.text.word_tokenizer import END, START, WordTokenizer, split_words
from tests.golden.harness import Case, golden


def marked(caption: str) -> str:
    return " ".join([START, *split_words(caption, lower_case=False), END])


@golden("cmmt", "vocab")
def vocab(case: Case) -> None:
    captions = case["captions"].tolist()
    unseen = case.item("unseen_caption")
    tokenizer = WordTokenizer(
        case.item("max_length"),
        lower_case=False,
        count_splits=["train"],
        min_count=case.item("min_word_count"),
        order="count",
        unknown="always",
        end_token=True,
        padding="first_word",
    )

    tokenizer.learn({"train": captions, "val": [unseen]})

    # The published files hold the start token; the model never sees it.
    def ids_of(caption: str) -> list[int]:
        return [tokenizer.id_of(START), *tokenizer.encode(caption)]

    tokens = tokenizer(captions)
    case.equal("out_tokens", [marked(caption) for caption in captions])
    case.equal("out_vocab_words", tokenizer.words[:-1])
    case.equal("out_unk_id", tokenizer.id_of("a word that cannot be"))
    case.equal("out_ids", [" ".join(map(str, ids_of(caption))) for caption in captions])
    case.equal("out_input_ids", tokens)
    case.equal("out_lengths", token_length(tokens))
    case.equal("out_unseen_tokens", marked(unseen))
    case.equal("out_unseen_ids", ids_of(unseen))

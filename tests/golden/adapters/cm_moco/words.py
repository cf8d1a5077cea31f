"""Vocabulary of the captions, and their ids."""

from crosswalk.data.pipeline.transforms import token_length
from crosswalk.data.text.word_tokenizer import WordTokenizer, pad, split_words
from tests.golden.harness import Case, golden


@golden("cm_moco", "vocab")
def vocab(case: Case) -> None:
    captions = case["captions"].tolist()
    longest = max(len(split_words(caption, lower_case=True)) for caption in captions)
    tokenizer = WordTokenizer(longest, min_count=case.item("count_threshold") + 1)

    tokenizer.learn({"train": captions})

    tokens = tokenizer(captions)
    case.equal("out_vocab", tokenizer.words[1:])
    case.equal("out_onehot", tokens)
    case.equal("out_lengths", token_length(tokens))


@golden("cm_moco", "caption_pad")
def caption_pad(case: Case) -> None:
    ids = case["tokens"].tolist()

    text = pad([ids], case.item("max_length"))

    case.equal("out_text", text)
    if len(ids) > case.item("max_length"):
        case.documented("out_length", "the original length, with which the GRU fails; ours is cut")
        case.equal("out_length", [len(ids)])
        case.check(token_length(text).item() <= case.item("max_length"), "our length fits")
    else:
        case.equal("out_length", token_length(text))

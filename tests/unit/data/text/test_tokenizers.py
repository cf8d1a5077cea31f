import subprocess
import sys
import time

import open_clip
import pytest
import torch

from crosswalk.data.text.tokenizers import ClipTokenizer

CAPTIONS = [
    "A man wearing a red T-shirt, black shorts & white shoes; he's carrying a backpack.",
    "The   woman\thas long, brown hair…  &amp;  a phone in her right hand (iPhone 12?)",
    "naïve café 北京 😀 she'll they've I'd",
    "",
    "word " * 200,
]


def test_ids_are_those_of_open_clip() -> None:
    expected = open_clip.tokenizer.SimpleTokenizer()(CAPTIONS, context_length=77)

    assert torch.equal(ClipTokenizer()(CAPTIONS), expected)


def test_a_long_caption_keeps_its_end_token() -> None:
    ids = ClipTokenizer(context_length=5)(["a man in a red coat", "a man"])

    # 320 a, 786 man, 530 in
    assert ids.tolist() == [[49406, 320, 786, 530, 49407], [49406, 320, 786, 49407, 0]]


def test_truncated_captions_are_counted() -> None:
    tokenizer = ClipTokenizer(context_length=5)

    assert tokenizer.lengths_untruncated(["a man in", "a man in red", ""]) == [5, 6, 2]
    assert tokenizer.num_truncated(["a man in", "a man in red", ""]) == 1


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("<|mask|>", [49405]),
        ("jekyll", [49405]),
        ("a<|endoftext|>man", [320, 49407, 786]),
        ("<|startoftext|>", [49406]),
    ],
)
def test_special_tokens_in_a_caption_become_their_ids(text: str, ids: list[int]) -> None:
    assert ClipTokenizer().encode(text) == ids


def test_special_strings_of_open_clip_are_plain_text() -> None:
    ids = ClipTokenizer().encode("<start_of_text>")

    assert 49406 not in ids
    assert ClipTokenizer().decode(ids) == "< start _ of _ text > "


def test_decoding_gives_the_words_back() -> None:
    tokenizer = ClipTokenizer()

    assert tokenizer.decode(tokenizer.encode("Naïve T-shirt 北京")) == "naïve t - shirt 北京 "
    assert tokenizer.decode([49406, 320, 49405, 49407]) == "<|startoftext|>a <|mask|><|endoftext|>"


def test_a_context_without_room_for_both_ends_is_refused() -> None:
    with pytest.raises(ValueError, match=r"data\.context_length=1"):
        ClipTokenizer(context_length=1)


def test_tens_of_thousands_of_captions_take_seconds() -> None:
    tokenizer = ClipTokenizer()
    captions = [f"{CAPTIONS[0]} {number}" for number in range(2000)]
    start = time.process_time()

    tokenizer(captions)

    assert time.process_time() - start < 1.8  # 68,126 in a minute; measured: 5 s


def test_the_tokenizer_does_not_import_the_models_of_its_library() -> None:
    code = (
        "import sys; from crosswalk.data.text.tokenizers import ClipTokenizer; ClipTokenizer();"
        "print([name for name in ('open_clip', 'timm', 'torchvision') if name in sys.modules])"
    )

    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert run.stdout.strip() == "[]"

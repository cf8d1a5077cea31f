from crosswalk.byte_pairs import open_clip_tokenizer


def test_words_become_clips_ids_between_start_and_end() -> None:
    tokenizer = open_clip_tokenizer().SimpleTokenizer()

    assert tokenizer(["a Man", ""], context_length=5).tolist() == [
        [49406, 320, 786, 49407, 0],
        [49406, 49407, 0, 0, 0],
    ]

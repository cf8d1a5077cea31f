"""Learned words in a sentence, and how like images and texts are."""

import pytest
import torch

from crosswalk.data.text.tokenizers import ClipTokenizer
from crosswalk.encoders.clip_text import ClipText
from crosswalk.encoders.prompts import LearnedPrompts, PersonTexts, likeness, sentence_ids


def text_encoder(context_length: int = 20) -> ClipText:
    torch.manual_seed(5)
    return ClipText(
        width=8,
        layers=2,
        heads=2,
        embed_dim=6,
        context_length=context_length,
        vocabulary_size=49408,
    ).double()


@pytest.mark.parametrize(("num_words", "word"), [(4, "X"), (1, "dog"), (3, "tall")])
def test_with_the_rows_of_words_for_context_a_prompt_is_that_sentence(
    num_words: int, word: str
) -> None:
    text = text_encoder()
    tokens = ClipTokenizer(20)([f"A photo of a {' '.join([word] * num_words)} person."])
    expected = text(tokens, torch.tensor([12]), longest=12)
    row = text.token_embedding.weight[tokens[0, 5]].detach().clone()
    prompts = LearnedPrompts(text, num_persons=3, num_words=num_words).double()

    with torch.no_grad():
        prompts.context[1] = row

    torch.testing.assert_close(prompts(torch.tensor([1])), expected)


def test_only_the_words_of_the_people_asked_for_get_a_gradient() -> None:
    prompts = LearnedPrompts(text_encoder(), num_persons=4).double()

    prompts(torch.tensor([2, 0])).square().sum().backward()

    trained = [name for name, row in prompts.named_parameters() if row.requires_grad]
    assert trained == ["context"]
    reached = prompts.context.grad.abs().sum(dim=(1, 2)) > 0
    assert reached.tolist() == [True, False, True, False]
    assert prompts.context.shape == (4, 4, 8)
    assert "text.token_embedding.weight" not in prompts.state_dict()


def test_nobody_asked_for_gives_no_rows_and_a_gradient_of_nothing() -> None:
    prompts = LearnedPrompts(text_encoder(), num_persons=4).double()

    rows = prompts(torch.zeros(0, dtype=torch.int64))
    rows.sum().backward()

    assert rows.shape == (0, 6)
    assert not prompts.context.grad.any()


def test_all_sentences_are_those_of_each_alone() -> None:
    prompts = LearnedPrompts(text_encoder(), num_persons=300).double()

    everybody = prompts.everybody()

    alone = torch.cat([prompts(torch.tensor([person])) for person in (0, 255, 256, 299)])
    torch.testing.assert_close(everybody[[0, 255, 256, 299]], alone)
    assert not everybody.requires_grad


@pytest.mark.parametrize("sentence", ["A photo of a person.", "{words} and {words}"])
def test_a_sentence_has_the_words_once(sentence: str) -> None:
    with pytest.raises(ValueError, match=r"method.prompts.sentence=.*should have {words} once"):
        sentence_ids(sentence)


def test_a_sentence_fits_into_the_text_encoder() -> None:
    LearnedPrompts(text_encoder(12), num_persons=1, num_words=4)

    with pytest.raises(ValueError, match=r"with 5 learned words .* has 13 tokens.* takes 12"):
        LearnedPrompts(text_encoder(12), num_persons=1, num_words=5)


def test_texts_change_by_being_written_alone() -> None:
    texts = PersonTexts(3, 2)
    rows = torch.arange(6.0).view(3, 2)

    texts.write(rows)

    assert torch.equal(texts.state_dict()["rows"], rows)
    assert not texts.rows.requires_grad


def test_likeness_with_a_single_person_has_no_others() -> None:
    seen = likeness(torch.tensor([[3.0, 4.0]]), torch.tensor([[1.0, 0.0]]), torch.tensor([0]))

    assert seen["own_text"].item() == pytest.approx(0.6)
    assert seen["other_texts"].item() == pytest.approx(0.0, abs=1e-6)
    assert seen["found_by_text"].item() == 1.0

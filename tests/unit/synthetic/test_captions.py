"""What captions say of the people in the pictures."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest

from crosswalk.synthetic.captions import (
    WRONG_SHARE,
    Caption,
    describe,
    tokenized,
)
from crosswalk.synthetic.generate import SIZES, images_each
from crosswalk.synthetic.looks import LOOKS
from crosswalk.synthetic.people import Person, attribute_values, person_of
from crosswalk.synthetic.pose import Shot
from crosswalk.synthetic.randomness import keyed_generator
from crosswalk.synthetic.shots import shots_of

CITY = LOOKS["city"]


def captions_of(first: int, counts: list[int]) -> Iterator[tuple[int, Person, Shot, Caption]]:
    """Yield two captions of every image of some people, as the generator writes them."""
    for person_id, count in enumerate(counts, start=first):
        person = person_of(CITY, seed=0, person_id=person_id)
        for shot in shots_of(CITY, person, seed=0, person_id=person_id, count=count):
            rng = keyed_generator(0, CITY.name, "captions", shot.key)
            for _ in range(2):
                yield person_id, person, shot, describe(person, shot, rng)


@pytest.fixture(scope="module")
def captions() -> list[tuple[int, Person, Shot, Caption]]:
    return list(captions_of(1, [3] * 250))


Captions = list[tuple[int, Person, Shot, Caption]]


def test_captions_have_ten_to_forty_words(captions: Captions) -> None:
    lengths = [len(tokenized(caption.text)) for *_, caption in captions]

    assert min(lengths) >= 10
    assert max(lengths) <= 40
    assert 20 < np.mean(lengths) < 28  # those of CUHK-PEDES have 23.5


def test_hardly_any_two_captions_are_the_same(captions: Captions) -> None:
    texts = [caption.text for *_, caption in captions]

    assert len(set(texts)) > 0.99 * len(texts)


def test_mentions_agree_with_the_person_but_for_a_few_in_a_hundred(captions: Captions) -> None:
    mentions = [(m, attribute_values(person)) for _, person, _, c in captions for m in c.mentions]
    wrong = sum(values[m.attribute] not in m.means for m, values in mentions)

    assert 0.4 * WRONG_SHARE < wrong / len(mentions) < 1.1 * WRONG_SHARE


def test_every_mention_is_in_the_text(captions: Captions) -> None:
    for *_, caption in captions:
        words = " ".join(tokenized(caption.text))
        for mention in caption.mentions:
            assert " ".join(tokenized(mention.word)) in words, caption


def test_most_captions_mention_several_attributes_and_none_mentions_all(captions: Captions) -> None:
    counts = [len(caption.mentions) for *_, caption in captions]

    assert np.quantile(counts, 0.05) >= 5
    assert 7 < np.mean(counts) < 11


def test_what_is_hidden_is_not_mentioned(captions: Captions) -> None:
    hidden = [c for _, _, shot, c in captions if shot.occluder == "low"]

    assert len(hidden) > 20
    assert not [m for c in hidden for m in c.mentions if m.attribute.startswith("shoes")]


def test_sentences_begin_with_a_capital_and_end_with_a_stop(captions: Captions) -> None:
    for *_, caption in captions:
        for sentence in caption.text.removesuffix(".").split(". "):
            assert sentence[0].isupper(), caption.text
        assert caption.text.endswith(".")
        assert "  " not in caption.text
        assert "{" not in caption.text


def test_articles_fit_the_words_after_them(captions: Captions) -> None:
    for *_, caption in captions:
        words = tokenized(caption.text)
        for article, word in pairwise(words):
            if article in ("a", "an"):
                assert (article == "an") == (word[0] in "aeiou"), caption.text


def test_no_word_of_clothing_is_said_twice_in_a_row(captions: Captions) -> None:
    for *_, caption in captions:
        words = tokenized(caption.text)
        assert all(a != b for a, b in pairwise(words)), caption.text


def test_there_are_many_forms_of_sentences(captions: Captions) -> None:
    openings = {" ".join(tokenized(caption.text)[:2]) for *_, caption in captions}

    assert len(openings) >= 40


def test_captions_nearly_but_not_always_single_out_the_person() -> None:
    """Rank people by how many mentions fit their true attributes: the ceiling of any method."""
    sizes = SIZES["toy"]
    first = 1 + sizes["train"].persons + sizes["val"].persons
    counts = images_each(sizes["test"].persons, sizes["test"].images)
    people = [
        attribute_values(person_of(CITY, seed=0, person_id=first + number))
        for number in range(sizes["test"].persons)
    ]

    found = []
    for person_id, _, _, caption in captions_of(first, counts):
        agreement = np.array(
            [sum(values[m.attribute] in m.means for m in caption.mentions) for values in people]
        )
        best = agreement == agreement.max()
        found.append(best[person_id - first] / best.sum())  # ties are broken by chance

    assert 0.75 < np.mean(found) < 0.98

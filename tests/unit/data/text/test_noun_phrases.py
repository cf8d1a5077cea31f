import json
import re
import runpy
from pathlib import Path

import pytest
import torch

from crosswalk.data.text import noun_phrases
from crosswalk.data.text.noun_phrases import (
    LEXICON,
    NounPhrases,
    lemma,
    phrases_by_rules,
    phrases_by_textblob,
    units_of,
)

GOLDEN = Path(__file__).parents[3] / "golden" / "data" / "cmmt"


def joined(phrases: list[tuple[str, ...]]) -> list[str]:
    return [" ".join(phrase) for phrase in phrases]


def test_the_packaged_word_lists_are_the_published_ones() -> None:
    published = json.loads((GOLDEN / "np_lexicon.json").read_text(encoding="utf-8"))

    assert json.loads(LEXICON.read_text(encoding="utf-8")) == published


@pytest.mark.parametrize(
    ("caption", "phrases"),
    [
        ("A man in a red coat", ["man", "red coat"]),
        ("", []),
        ("She is walking.", []),
        ("...", []),
        ("THE GIRL'S T-SHIRT", ["woman tshirt"]),  # the possessive goes, the phrase goes on
        ("a men\N{RIGHT SINGLE QUOTATION MARK}s bag", ["man bag"]),
        ("she doesn't wear a hat", ["hat"]),  # a verb without its apostrophe
        ("a bald head. black hair", ["bald head", "black hair"]),  # punctuation ends a phrase
        ("a bald head\nblack hair", ["bald head black hair"]),  # white space does not
        ("white/black shoes", ["white black shoe"]),  # nor do slash and hyphen
        ("a knee-length skirt", ["knee length skirt"]),
        ("a pair of dark colored jeans", ["dark jeans"]),  # pair, of; colored is skipped
        ("a back pack", ["backpack"]),
        ("a back-pack", ["backpack"]),
        ("a back, pack", ["back", "backpack"]),  # no compound; pack alone means backpack
        ("running shoes", ["sneaker"]),
        ("flip flops flip", ["flipflop flip"]),  # compounds are taken from the left
        ("7 men & 2 bodies", ["7 man", "2 body"]),
        ("naïve café", ["na", "ve caf"]),  # letters beyond a-z separate
    ],
)
def test_rules_find_runs_of_content_words(caption: str, phrases: list[str]) -> None:
    assert joined(phrases_by_rules(caption)) == phrases


def test_words_keep_their_difference_without_synonyms() -> None:
    caption = "A lady with navy slacks and a rucksack"

    assert joined(phrases_by_rules(caption)) == ["woman", "blue pants", "backpack"]
    assert joined(phrases_by_rules(caption, synonyms=False)) == ["lady", "navy slacks", "rucksack"]


@pytest.mark.parametrize(
    ("word", "singular"),
    [
        *(("scarves", "scarf"), ("women", "woman"), ("jean", "jeans"), ("shorts", "shorts")),
        *(("bodies", "body"), ("ties", "tie"), ("ies", "ies")),
        *(("dresses", "dress"), ("brushes", "brush"), ("watches", "watch"), ("boxes", "box")),
        *(
            ("shoes", "shoe"),
            ("buses", "buse"),
            ("bus", "bus"),
            ("iris", "iris"),
            ("dress", "dress"),
        ),
        *(("cap", "cap"), ("gas", "gas"), ("s", "s"), ("7s", "7s"), ("axes", "axe")),
    ],
)
def test_lemmas_follow_the_table_and_then_the_ending(word: str, singular: str) -> None:
    assert lemma(word) == singular


def test_units_are_words_pairs_or_phrases_each_once() -> None:
    phrases = [("dark", "blue", "jeans"), ("hair",), ("blue", "jeans"), ("hair",)]

    assert units_of(phrases, "word") == ["dark", "blue", "jeans", "hair"]
    assert units_of(phrases, "pair") == ["dark jeans", "blue jeans", "hair"]
    assert units_of(phrases, "phrase") == ["dark blue jeans", "hair", "blue jeans"]
    assert units_of([], "word") == []


def test_units_are_numbered_by_first_appearance() -> None:
    phrases = NounPhrases()
    phrases.learn(["a red coat", "", "a blue coat and a red hat"])

    numbers = phrases(["a blue coat and a red hat", "", "a red coat"])

    assert numbers.tolist() == [[3, 2, 1, 4], [0, 0, 0, 0], [1, 2, 0, 0]]
    assert numbers.dtype == torch.int64
    assert phrases.num_units == 4


def test_learning_again_forgets_the_first_captions() -> None:
    phrases = NounPhrases()
    phrases.learn(["a red coat"])
    phrases.learn(["a hat"])

    assert phrases(["a hat"]).tolist() == [[1]]
    assert phrases.num_units == 1


@pytest.mark.parametrize("captions", [[], [""], ["she is walking", "..."]])
def test_captions_without_phrases_have_no_columns(captions: list[str]) -> None:
    phrases = NounPhrases()
    phrases.learn(captions)

    assert phrases(captions).shape == (len(captions), 0)


def test_a_unit_that_was_not_learned_is_named() -> None:
    phrases = NounPhrases()
    phrases.learn(["a red coat"])

    with pytest.raises(ValueError, match=r"noun phrase 'hat' of 'a red hat' was not learned"):
        phrases(["a red hat"])


def test_the_version_follows_the_word_lists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = NounPhrases.version
    lists = json.loads(noun_phrases.LEXICON.read_text(encoding="utf-8"))
    lists["skip_words"].append("zebra")
    changed = tmp_path / "assets" / "noun_phrases.json"
    changed.parent.mkdir()
    changed.write_text(json.dumps(lists), encoding="utf-8")
    module = tmp_path / "data" / "text" / "noun_phrases.py"
    module.parent.mkdir(parents=True)
    module.write_text(Path(noun_phrases.__file__).read_text(encoding="utf-8"), encoding="utf-8")

    of_changed_lists = runpy.run_path(str(module))["NounPhrases"].version

    assert of_changed_lists != version
    assert runpy.run_path(noun_phrases.__file__)["NounPhrases"].version == version


@pytest.mark.parametrize(
    ("caption", "phrases"),
    [
        ("The woman is tall and she wears a red coat.", ["woman", "red coat"]),  # no "tall"
        ("A MAN WITH A BLACK T-SHIRT", ["man", "black tshirt"]),
        ("a girl with a navy back pack", ["woman", "blue backpack"]),
        ("white/black shoes", ["white black shoe"]),
        ("", []),
        ("She is walking.", []),
    ],
)
def test_the_tagger_knows_verbs_and_predicates(caption: str, phrases: list[str]) -> None:
    assert joined(phrases_by_textblob(caption)) == phrases


def test_both_backends_number_units_alike() -> None:
    captions = ["A man wears a red coat.", "A woman has a red bag."]
    rules, tagger = NounPhrases(), NounPhrases(backend="textblob")
    rules.learn(captions)
    tagger.learn(captions)

    assert rules(captions).tolist() == tagger(captions).tolist() == [[1, 2, 3], [4, 2, 5]]


def test_a_missing_tagger_is_named_with_its_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    noun_phrases._textblob_parser.cache_clear()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    with pytest.raises(ModuleNotFoundError, match=re.escape("of crosswalk>[phrases]")):
        NounPhrases(backend="textblob")


def test_the_tagger_needs_no_downloaded_corpora(monkeypatch: pytest.MonkeyPatch) -> None:
    nltk_data = pytest.importorskip("nltk.data")

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("NLTK was asked for data")

    monkeypatch.setattr(nltk_data, "find", refuse)
    monkeypatch.setattr(nltk_data, "load", refuse)

    assert joined(phrases_by_textblob("a man has a red bag")) == ["man", "red bag"]

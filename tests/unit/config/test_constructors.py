from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, Protocol

import pytest

from crosswalk.config.construct import construct, locate
from crosswalk.config.constructors import check_node


class Loss(Protocol):
    def __call__(self, value: float) -> float: ...


def example(
    number: int = 1,
    share: float = 0.5,
    name: str = "a",
    flag: bool = False,
    maybe: int | None = None,
    mode: Literal["val", "official"] = "val",
    size: tuple[int, int] = (1, 2),
    words: Sequence[str] = (),
    table: Mapping[str, int] | None = None,
    folder: str | Path = ".",
    loss: Loss | None = None,
    make: Callable[[int], int] | None = None,
    part: Fraction | None = None,
    rules: Sequence[Fraction] = (),
    anything: Any = None,  # noqa: ANN401
    elsewhere: Unknown = None,  # type: ignore[name-defined] # noqa: F821
) -> dict[str, Any]:
    return locals()


def takes_one(number: int) -> int:
    return number


EXAMPLE = f"{__name__}.example"
HALF = {"_target_": "fractions.Fraction", "numerator": 1, "denominator": 2}


def node(**arguments: object) -> dict[str, Any]:
    return {"_target_": EXAMPLE, **arguments}


@pytest.mark.parametrize(
    "arguments",
    [
        {"number": 3},
        {"share": 1},
        {"share": 1e-3},
        {"flag": True},
        {"maybe": None},
        {"maybe": 2},
        {"mode": "official"},
        {"size": [3, 4]},
        {"words": []},
        {"words": ["a", "b"]},
        {"table": {"a": 1}},
        {"folder": "x"},
        {"loss": {"_target_": EXAMPLE}},
        {"make": {"_target_": EXAMPLE, "_partial_": True}},
        {"part": HALF},
        {"anything": [{"a": None}]},
        {"elsewhere": 3},
    ],
)
def test_a_value_of_the_annotated_type_passes(arguments: dict[str, Any]) -> None:
    check_node(node(**arguments), "x")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"number": 1.5}, r"x\.number=1\.5 is of type float; .*example takes int"),
        ({"number": True}, r"x\.number=True is of type bool; .* takes int"),
        ({"number": None}, r"x\.number=null is no value; .* takes int"),
        ({"share": "hot"}, r"x\.share='hot' is of type str; .* takes float"),
        ({"share": True}, r"x\.share=True is of type bool"),
        ({"name": 3}, r"x\.name=3 is of type int; .* takes str"),
        ({"flag": "yes"}, r"x\.flag='yes' is of type str; .* takes true \| false"),
        ({"flag": 1}, r"x\.flag=1 is of type int; .* takes true \| false"),
        ({"maybe": "2"}, r"x\.maybe='2' .* takes int \| null"),
        ({"mode": "test"}, r"x\.mode='test' is no choice; .*example takes val, official\."),
        ({"mode": 1}, r"x\.mode=1 is no choice; .* takes val, official\."),
        ({"size": [1]}, r"x\.size=\[1\] is of type list; .* takes list of 2 x int"),
        ({"size": [1, "b"]}, r"x\.size=\[1, 'b'\]"),
        ({"words": "abc"}, r"x\.words='abc' .* takes list of str"),
        ({"words": [1]}, r"x\.words=\[1\]"),
        ({"table": {"a": "b"}}, r"x\.table="),
        ({"folder": 3}, r"x\.folder=3 .* takes str \| path"),
        ({"loss": "tal"}, r"x\.loss='tal'"),
        ({"make": "tal"}, r"x\.make='tal'"),
        ({"number": {"_target_": EXAMPLE}}, r"x\.number=.*example gives .*; .*example takes int"),
        (
            {"part": {"_target_": EXAMPLE}},
            r"x\.part=.* gives mapping of any value; .* takes Fraction",
        ),
        (
            {"part": {**HALF, "_partial_": True}},
            r"x\.part=.* gives a partial function; .* takes Fraction .* \| null",
        ),
        ({"make": HALF}, r"x\.make=fractions\.Fraction gives Fraction .*; .* takes a node with"),
        ({"anything": [{"_target_": "nowhere.Rule"}]}, r"x\.anything\.0\._target_=nowhere\.Rule"),
        ({"rules": [{"_target_": "nowhere.Rule"}]}, r"x\.rules\.0\._target_=nowhere\.Rule"),
        ({"nummber": 3}, r"x\.nummber is not an argument of .* Did you mean x\.number\?"),
        ({"anything": node(share="x")}, r"x\.anything\.share='x'"),
        ({"anything": [node(share="x")]}, r"x\.anything\.0\.share='x'"),
    ],
)
def test_a_wrong_value_is_named_with_its_key_and_the_expected_type(
    arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        check_node(node(**arguments), "x")


@pytest.mark.parametrize(
    ("target", "argument", "choices"),
    [
        ("data.images.ImageToImageData", "cache", "true, false, on, off"),
        ("data.images.ImageToImageData", "camstyle", "true, false, on, off, auto"),
        ("data.images.ImageToImageData", "protocol", "last, val, official"),
        ("data.images.ImageToImageData", "sweep", "training, clean"),
        ("data.images.ImageToImageData", "normalization", "given, dataset"),
        ("data.images.ImageToImageData", "interpolation", "bilinear, bicubic"),
        ("data.images.ImageToImageData", "eval_interpolation", "bilinear, bicubic, null"),
        ("data.pairs.TextToImageData", "protocol", "val, official"),
        ("data.pairs.TextToImageData", "sweep", "training, clean"),
        ("data.pipeline.image_transform.ImageTransform", "erase_law", "torchvision, uniform"),
        ("data.pipeline.plans.identity_plan", "scarce", "draw, repeat"),
        ("data.pipeline.transforms.PairTransform", "pixel_format", "rgb01, bgr255"),
        ("data.text.noun_phrases.NounPhrases", "backend", "rules, textblob"),
        ("data.text.noun_phrases.NounPhrases", "unit", "word, pair, phrase"),
        ("data.text.word_tokenizer.WordTokenizer", "order", "appearance, count"),
        ("data.text.word_tokenizer.WordTokenizer", "padding", "own, first_word"),
        ("data.text.word_tokenizer.WordTokenizer", "unknown", "always, if_dropped"),
        ("data.transfer.SourceTargetData", "protocol", "last, val, official"),
        ("data.transfer.SourceTargetData", "train_on", "both, source"),
        ("encoders.clip_resnet.clip_resnet", "last_stride", "1, 2"),
        ("encoders.dual_embedding.DualEmbedding", "statistics", "frozen, train"),
        ("encoders.image.ImageEncoder", "neck", "batch_norm, none"),
        ("encoders.resnet.resnet", "last_stride", "1, 2"),
        ("labels.mutual_refinement.refine_mutually", "search", "exhaustive, first"),
        ("losses.multilabel.multilabel_classification_loss", "class_reduction", "sum, mean, bal"),
        ("methods.cm_moco.CMMoCo", "key_head", "shared, momentum"),
        ("methods.cmmt.CMMT", "directions", "text_to_image, both"),
        ("methods.cmmt.CMMT", "recluster_from", "memory, encoder"),
        ("methods.cmmt.CMMT", "relation", "pairs, text_iou, identities"),
        ("methods.cmmt.CMMT", "text_slot", "image, caption"),
        ("methods.mmcl.MMCL", "test_feature", "pooled, neck"),
        ("methods.supervised.Supervised", "test_feature", "neck, pooled"),
        ("optim.OptimBuilder", "interval", "epoch, step"),
        ("optim.WarmupSchedule", "warmup", "linear, constant"),
    ],
)
def test_a_choice_that_does_not_exist_is_refused_by_the_annotation_alone(
    target: str, argument: str, choices: str
) -> None:
    node = {"_target_": f"crosswalk.{target}", "_partial_": True, argument: "none such"}

    with pytest.raises(ValueError, match=rf"x\.{argument}='none such' is no choice; .*{choices}"):
        check_node(node, "x")


@pytest.mark.parametrize("right", ["on", "off", True, False])
def test_a_switch_is_a_word_or_a_boolean(right: bool | str) -> None:
    data = "crosswalk.data.images.ImageToImageData"

    check_node({"_target_": data, "_partial_": True, "cache": right, "camstyle": right}, "x")


def test_an_argument_that_is_handed_over_cannot_be_configured() -> None:
    with pytest.raises(ValueError, match=r"x\.number is nothing to configure: .*Leave x\.number"):
        check_node({"_target_": f"{__name__}.takes_one", "number": 3}, "x", frozenset({"number"}))


def test_a_missing_argument_is_named_unless_it_is_given_or_waited_for() -> None:
    needy = {"_target_": f"{__name__}.takes_one"}

    check_node(needy, "x", frozenset({"number"}))
    check_node({**needy, "_partial_": True}, "x")
    with pytest.raises(ValueError, match=r"x\.number has no value"):
        check_node(needy, "x")


def test_a_target_that_does_not_exist_is_named() -> None:
    with pytest.raises(ValueError, match=r"method\.loss\._target_=crosswalk\.nothing\.At names"):
        locate("crosswalk.nothing.At", "method.loss")
    with pytest.raises(ValueError, match="names nothing"):
        locate("crosswalk.config.compose.nothing", "x")


def test_nested_nodes_become_objects_and_partials() -> None:
    built = construct(
        node(anything=[node(number=7)], make={**node(number=2), "_partial_": True}), {}
    )

    assert built["anything"][0]["number"] == 7
    assert built["make"](share=0.25)["number"] == 2
    assert built["make"](share=0.25)["share"] == 0.25

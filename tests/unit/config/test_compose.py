from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from crosswalk.config.build import build, instantiate
from crosswalk.config.check import check, check_early, check_types
from crosswalk.config.compose import compose, restore
from crosswalk.config.keys import CALLED_ELSEWHERE
from crosswalk.config.overrides import has_key
from crosswalk.config.plain import differences, nested, to_plain, to_yaml
from crosswalk.config.search import config_folder, default_method, group_values
from crosswalk.config.stored import read_yaml
from crosswalk.config.values import check_together
from crosswalk.data.text.word_tokenizer import WordTokenizer
from crosswalk.methods.base import Method, OptimFactory
from crosswalk.types import DataSpec, Needs, PairBatch


def plain(*overrides: str) -> dict[str, Any]:
    return to_plain(compose(overrides))


def test_the_default_is_rde_on_synthetic_pairs() -> None:
    config = plain()

    assert config["choices"]["method"] == default_method() == "rde"
    assert config["choices"]["data"] == "synthetic_pairs"
    assert config["choices"]["experiment"] == "rde/synthetic_pairs"
    assert config["choices"]["encoder"] == "clip_tiny"


@pytest.mark.parametrize("overrides", [["method=mmcl"], ["+method.own=[{a: 1}, [2]]"]])
def test_a_configuration_has_the_keys_that_are_in_it_and_no_others(overrides: list[str]) -> None:
    config = compose(overrides)

    known = [name for name, _ in nested(OmegaConf.to_container(config, resolve=False))]
    assert [key for key in known if not has_key(config, key)] == []
    wrong = {each for key in known for each in (f"{key}.", f".{key}", f"{key}.0", f"{key}x")}
    assert {key for key in wrong if has_key(config, key)} == wrong & {*known}


def test_method_and_data_together_select_the_published_run() -> None:
    config = plain("method=rde", "data=cuhk_pedes")

    assert config["choices"]["experiment"] == "rde/cuhk_pedes"
    assert config["choices"]["encoder"] == "clip_vit_b16"
    assert config["method"]["_target_"] == "crosswalk.methods.rde.RDE"
    assert config["trainer"]["max_epochs"] == 60
    assert config["data"]["batch_size"] == 64
    assert config["optim"]["lr"] == 1e-5
    assert config["optim"]["optimizer"]["eps"] == 1e-3
    assert config["method"]["loss"]["margin"] == 0.1
    assert config["method"]["loss"]["temperature"] == 0.015
    assert config["method"]["warmup_epochs"] == 0


def test_a_part_with_its_target_takes_the_place_of_the_one_before() -> None:
    target = "crosswalk.losses.triplet_alignment.triplet_alignment_loss"
    part = f"{{_target_: {target}, _partial_: true, margin: 0.1, temperature: 0.02}}"
    config = plain("method=cm_moco", f"method.alignment={part}")
    changed = plain("method=cm_moco", "method.alignment={alpha: 0.7}")

    assert config["method"]["alignment"] == {
        **{"_target_": target, "_partial_": True, "margin": 0.1, "temperature": 0.02}
    }
    assert changed["method"]["alignment"]["alpha"] == 0.7
    assert changed["method"]["alignment"]["beta"] == 0.4


def test_an_experiment_can_be_named() -> None:
    assert plain("experiment=rde/cuhk_pedes") == plain("method=rde", "data=cuhk_pedes")


def test_the_published_run_can_be_switched_off() -> None:
    config = plain("data=synthetic_pairs", "experiment=null")

    assert "experiment" not in config["choices"]
    assert config["choices"]["encoder"] == "clip_vit_b16"


def test_overrides_are_stronger_than_the_published_run() -> None:
    config = plain("data=cuhk_pedes", "trainer.max_epochs=3", "encoder=clip_tiny", "loss=info_nce")

    assert config["trainer"]["max_epochs"] == 3
    assert config["optim"]["schedule"]["num_epochs"] == 3
    assert config["choices"]["encoder"] == "clip_tiny"
    assert config["method"]["loss"]["_target_"].endswith("info_nce_of_pairs")


@pytest.mark.parametrize(
    ("data", "noise_rate", "max_iter", "tol", "reg_covar"),
    [
        ("cuhk_pedes", 0.0, 10, 1e-2, 5e-4),
        ("cuhk_pedes", 0.2, 10, 1e-2, 5e-4),
        ("cuhk_pedes", 0.4, 10, 1e-2, 5e-4),
        ("cuhk_pedes", 0.5, 100, 1e-4, 1e-6),
        ("icfg_pedes", 0.8, 100, 1e-4, 1e-6),
        ("rstp_reid", 0.0, 100, 1e-4, 1e-6),
    ],
)
def test_mixture_settings_follow_noise_rate_and_data_set(
    data: str, noise_rate: float, max_iter: int, tol: float, reg_covar: float
) -> None:
    division = plain(f"data={data}", f"data.noise_rate={noise_rate}")["method"]["division"]

    assert division["max_iter"] == max_iter
    assert division["tol"] == tol
    assert division["reg_covar"] == reg_covar


@pytest.mark.parametrize("override", ["division=off", "method.division=null"])
def test_the_division_can_be_switched_off(override: str) -> None:
    assert plain(override)["method"]["division"] is None


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("seed=7", "seed", 7),
        ("--seed=7", "seed", 7),
        ("data.root=/a/b c", "data.root", "/a/b c"),
        ("data.root=/a=b", "data.root", "/a=b"),
        ("data.root=it's", "data.root", "it's"),
        ("data.root=~/x", "data.root", str(Path("~/x").expanduser())),
        ("tags=[a,b]", "tags", ["a", "b"]),
        ("optim.lr=1e-4", "optim.lr", 1e-4),
        ("optim.rules.1.lr=0.5", "optim.rules.1.lr", 0.5),
        ("trainer.fast_dev_run=true", "trainer.fast_dev_run", True),
        ("+method.new=3", "method.new", 3),
        ("data.seed=${data.batch_size}", "data.seed", 64),
    ],
)
def test_overrides_set_values(override: str, key: str, value: object) -> None:
    found: Any = plain(override)
    for part in key.split("."):
        found = found[int(part)] if part.isdigit() else found[part]

    assert found == value


def test_a_key_can_be_removed() -> None:
    assert "source" not in plain("~source")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("methd=rde", r"methd is not a key of this configuration\. Did you mean method\?"),
        ("seeed=3", r"seeed .* Did you mean seed\?"),
        ("data.rot=/x", r"data\.rot .* Did you mean data\.root\?"),
        ("temperature=1", r"Did you mean method\.loss\.temperature\?"),
        ("tau=1", r"Did you mean method\.loss\.temperature\?"),
        ("loss=tal", r"loss=tal does not exist\. Did you mean triplet_alignment\?"),
        ("division=none", r"Did you mean off\?"),
        ("optim.zzzz=3", r"optim\.zzzz is not a key .*\. crosswalk\.optim\.OptimBuilder takes opt"),
        ("optim.zzzz.yyyy=3", r"zzzz\.yyyy is not a key .*\. crosswalk\.optim\.OptimBuilder takes"),
        ("zzzz=3", r"^zzzz is not a key of this .* `crosswalk config show` lists all\.$"),
        ("logger.zzzz=3", r"logger\.zzzz is not a key .* `crosswalk config show` lists all\.$"),
        ("data.synthetic.zzzz=3", r"adds a new one, if crosswalk\.data\..*Data takes it\.$"),
        ("~data.zzzz", r"data\.zzzz is not a key"),
        ("method=rdee", r"method=rdee does not exist\. Did you mean rde\? There are: .*rde"),
        ("data=cuhk", r"data=cuhk does not exist\. Did you mean cuhk_pedes\?"),
        ("experiment=rde/x", r"experiment=rde/x does not exist.* rde/cuhk_pedes"),
        ("trainer.max_epoch=3", r"Trainer has no argument max_epoch\. Did you mean .*max_epochs\?"),
        ("+trainer.max_epoch=3", r"Trainer has no argument max_epoch"),
        ("seed=1,2", r"several values"),
        ("data.root=[1", r"not of the form key=value"),
        ("just words", r"not of the form key=value"),
    ],
)
def test_a_mistake_is_refused_with_a_suggestion(override: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compose([override])


@pytest.mark.parametrize("method", ["rde", "irra", "clip_reid"])
def test_every_encoder_that_is_offered_is_taken(method: str) -> None:
    with pytest.raises(ValueError, match=f"With method={method} go: ") as refused:
        compose([f"method={method}", "encoder=nothing"])

    offered = re.findall(r"\w+", str(refused.value).partition(" go: ")[2])
    assert len(offered) > 1
    for encoder in offered:
        check_early(compose([f"method={method}", f"encoder={encoder}"]))


@pytest.mark.parametrize("override", ["method=[rde]", "method=[rde,mar]", "method={a: 1}"])
def test_a_group_takes_one_name(override: str) -> None:
    with pytest.raises(ValueError, match=r"method= takes the name of one file\. There are: .*rde"):
        compose([override])


def test_a_key_that_is_taken_and_not_there_is_offered() -> None:
    with pytest.raises(ValueError, match=r"\+optim\.interval=<value> adds a new one\.$"):
        compose(["optim.interval=epoch"])
    compose(["+optim.interval=epoch"])


def test_a_composed_configuration_is_closed() -> None:
    config = compose()

    with pytest.raises(Exception, match="not in struct"):
        config.data.nothing = 3


def test_every_group_value_is_listed() -> None:
    assert "rde/synthetic_pairs" in group_values("experiment")
    assert {"csv", "wandb"} <= set(group_values("logger"))


def test_a_stored_configuration_takes_overrides() -> None:
    stored = plain("seed=5", "data.noise_rate=0.2")

    config = to_plain(restore(stored, ["trainer.limit_test_batches=2", "data.root=/x"]))

    assert config["trainer"]["limit_test_batches"] == 2
    assert config["data"]["root"] == "/x"
    assert config["seed"] == 5
    assert config["method"] == stored["method"]


def test_an_evaluation_elsewhere_keeps_how_long_the_run_was() -> None:
    stored = plain("trainer=debug", "trainer.max_epochs=3", "trainer.accumulate_grad_batches=2")

    config = to_plain(restore(stored, ["trainer=ddp"]))

    assert config["trainer"]["devices"] == "auto"
    length = ("max_epochs", "max_steps", "limit_train_batches", "accumulate_grad_batches")
    assert [config["trainer"][key] for key in length] == [3, 4, 4, 2]
    assert "detect_anomaly" not in config["trainer"]


def test_a_stored_configuration_takes_other_data_and_keeps_the_model() -> None:
    stored = plain()

    config = to_plain(restore(stored, ["data=rstp_reid", "data.root=/x"]))

    assert config["data"]["reader"]["_target_"].endswith("read_rstp_reid")
    assert config["data"]["root"] == "/x"
    assert config["encoder"] == stored["encoder"]


@pytest.mark.parametrize("stored", [None, "cross_modal", "k_reciprocal"])
def test_a_stored_run_takes_a_re_ranking_and_goes_without_one(stored: str | None) -> None:
    run = plain(*([] if stored is None else [f"reranking={stored}"]))

    with_one = to_plain(restore(run, ["reranking.k1=9", "reranking=k_reciprocal"]))
    without = to_plain(restore(run, ["reranking=null"]))

    assert with_one["reranking"]["_target_"].endswith("k_reciprocal")
    assert with_one["reranking"]["k1"] == 9
    assert without["reranking"] is None


def test_a_re_ranking_is_checked_before_the_data_are_read() -> None:
    config = compose(["reranking=cross_modal", "reranking.weight=hot", "data.root=/nowhere"])

    with pytest.raises(ValueError, match=r"reranking\.weight='hot' is of type str"):
        build(check(config))


def test_a_misspelt_key_of_a_stored_configuration_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Did you mean data\.root\?"):
        restore(plain(), ["data.rooot=/x"])


def test_yaml_round_trip(tmp_path: Path) -> None:
    config = compose(["data.noise_rate=0.5"])
    (tmp_path / "config.yaml").write_text(to_yaml(config))

    assert read_yaml(tmp_path / "config.yaml") == to_plain(config)
    with pytest.raises(FileNotFoundError, match=r"none\.yaml"):
        read_yaml(tmp_path / "none.yaml")


def test_differences_name_every_changed_leaf() -> None:
    rows = differences(plain(), plain("data.noise_rate=0.5", "seed=2"))

    assert ("data.noise_rate", "0.0", "0.5") in rows
    assert ("seed", "1", "2") in rows
    assert ("method.division.max_iter", "10", "100") in rows
    assert not any(key.startswith("encoder") for key, _, _ in rows)


def test_an_unset_value_is_named() -> None:
    with pytest.raises(ValueError, match=r"data\.root"):
        plain("data.root=???")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "seed=???",
            r"method\.seed is taken from seed, which has no value yet\. Set it with seed=",
        ),
        (
            "~data.context_length",
            r"context_length is taken from data\.context_length, which this configuration does not",
        ),
    ],
)
def test_what_a_value_is_taken_from_is_named(override: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        to_yaml(compose([override]))


@pytest.mark.parametrize("value", ["50%", "null", "[1]", "high"])
def test_a_value_that_others_follow_is_refused_by_its_own_key(value: str) -> None:
    config = compose([f"data.noise_rate={value}"])

    assert "noise_rate" in to_yaml(config)
    with pytest.raises(ValueError, match=r"^data\.noise_rate=.* takes float >= 0 and <= 1"):
        check(config)


def test_a_variable_that_the_environment_lacks_is_named_with_its_key() -> None:
    with pytest.raises(ValueError, match=r"data\.root: .*'NOPE'.*data\.root=<value>"):
        plain("data.root=${oc.env:NOPE}")


def test_types_are_checked_with_the_dotted_key() -> None:
    with pytest.raises(ValueError, match=r"method\.loss\.temperature='hot' .* takes float"):
        check_types(
            compose(["method.loss.temperature=hot"]).method, given=("data", "optim", "encoder")
        )


def test_instantiate_hands_over_objects_untouched() -> None:
    marker = object()

    made = instantiate({"_target_": "types.SimpleNamespace", "size": [1, 2]}, given=marker)

    assert made.given is marker
    assert type(made.size) is list
    assert instantiate(None) is None


def test_the_config_folder_of_a_clone_is_at_its_top() -> None:
    assert config_folder() == Path(__file__).parents[3] / "configs"


def test_a_stored_run_takes_the_group_before_its_keys_and_keeps_the_size_of_the_model() -> None:
    stored = to_plain(compose(["method=rde"]))

    config = restore(stored, ["data.root=/x", "data=icfg_pedes", "protocol=official"])

    assert config.data.root == "/x"
    assert list(config.data.image_size) == list(stored["data"]["image_size"])
    assert config.data.protocol == "official"


def of_a_model_with_words() -> dict[str, Any]:
    """Return a stored configuration, of a model that was trained on other pixels and ids."""
    stored = plain("method=rde")
    stored["data"] |= {
        "image_size": [24, 8],
        "interpolation": "bicubic",
        "context_length": 9,
        "tokenizer": {"_target_": f"{WordTokenizer.__module__}.WordTokenizer", "min_count": 2},
    }
    stored["data"]["transform"] |= {"mean": [0.5] * 3, "pixel_format": "bgr255", "padding": 77}
    return stored


def test_other_data_are_read_as_the_model_was_trained() -> None:
    stored = of_a_model_with_words()

    data = to_plain(restore(stored, ["data=own_pairs", "data.root=/x"]))["data"]

    fresh = plain("data=own_pairs")["data"]
    kept = ("image_size", "interpolation", "context_length", "tokenizer")
    assert {key: data[key] for key in kept} == {key: stored["data"][key] for key in kept}
    changed = {"mean": [0.5] * 3, "pixel_format": "bgr255"}
    assert data["transform"] == {**fresh["transform"], **changed}  # the padding is not the model's
    rest = {key: value for key, value in data.items() if key not in (*kept, "transform")}
    assert rest == {**{key: fresh[key] for key in rest}, "root": "/x"}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.image_size=[384,128]", r"data\.image_size belongs to the model.*with \[24, 8\]"),
        ("data.interpolation=bilinear", r"data\.interpolation .*, with bicubic\. Leave it out"),
        ("data.tokenizer.min_count=3", r"data\.tokenizer\.min_count .*, with 2"),
        ("+data.tokenizer.order=count", r"data\.tokenizer\.order belongs .* trained\. Leave"),
        ("data.transform.mean=[0,0,0]", r"data\.transform\.mean .*, with \[0\.5, 0\.5, 0\.5\]"),
        ("data.transform={pixel_format: rgb01}", r"data\.transform\.pixel_format .*bgr255"),
        ("~data.context_length", r"data\.context_length .*, with 9"),
    ],
)
def test_what_belongs_to_the_model_takes_no_override(override: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        restore(of_a_model_with_words(), [override])


def test_other_data_take_no_override_of_what_belongs_to_the_model() -> None:
    with pytest.raises(ValueError, match=r"data\.image_size belongs to the model.*\[24, 8\]"):
        restore(of_a_model_with_words(), ["data=own_pairs", "data.image_size=[384,128]"])


def test_an_override_that_says_what_the_model_has_is_fine() -> None:
    stored = of_a_model_with_words()
    same = ["data.image_size=[24,8]", "data.transform.padding=5", "data.tokenizer.min_count=2"]

    config = to_plain(restore(stored, same))

    stored["data"]["transform"]["padding"] = 5
    assert config == stored


def test_what_an_earlier_run_did_not_store_can_be_given() -> None:
    stored = plain()
    del stored["data"]["interpolation"]

    assert restore(stored, ["+data.interpolation=bicubic"]).data.interpolation == "bicubic"


def test_a_protocol_of_the_data_of_a_stored_run_is_not_overruled() -> None:
    config = to_plain(restore(plain(), ["data.protocol=official"]))

    with pytest.raises(ValueError, match="write protocol=official"):
        check_together(config, whole_batch=True)


@pytest.mark.parametrize("overrides", [[], ["data=own_pairs"]])
def test_a_stored_vocabulary_is_that_of_the_tokenizer(tmp_path: Path, overrides: list[str]) -> None:
    file = tmp_path / "vocabulary.json"

    config = to_plain(restore(of_a_model_with_words(), overrides, vocabulary=file))

    assert config["data"]["tokenizer"]["vocabulary"] == str(file)
    assert config["data"]["tokenizer"]["min_count"] == 2


def test_data_without_captions_take_no_vocabulary(tmp_path: Path) -> None:
    stored = plain("method=mmcl")

    config = to_plain(restore(stored, vocabulary=tmp_path / "vocabulary.json"))

    assert config == {**stored, "data": {**config["data"]}}
    assert "tokenizer" not in config["data"]


class Words(torch.nn.Module):
    """An encoder that keeps the words it is given."""

    def __init__(self, words: Sequence[str], *, size: int = 1) -> None:
        super().__init__()
        self.words, self.size = words, size


class PerhapsWords(torch.nn.Module):
    """An encoder that can do without words."""

    def __init__(self, words: Sequence[str] | None = None) -> None:
        super().__init__()
        self.words = words


class KeepsItsEncoder(Method[PairBatch]):
    """A method that is its encoder."""

    needs = Needs(batches=(PairBatch,))

    def __init__(self, data: DataSpec, optim: OptimFactory, encoder: torch.nn.Module) -> None:
        super().__init__(optim)
        self.encoder = encoder


def with_encoder(root: Path, encoder: type, words: bool, **arguments: object) -> dict[str, Any]:
    """Return the configuration of a run that hands ``encoder`` its words, if there are any."""
    config = plain("data=own_pairs", f"data.root={root}", "experiment=null", "protocol=official")
    config["method"] = {"_target_": f"{__name__}.KeepsItsEncoder"}
    config["encoder"] = {"_target_": f"{__name__}.{encoder.__name__}", **arguments}
    if words:
        target = f"{WordTokenizer.__module__}.WordTokenizer"
        config["data"]["tokenizer"] = {"_target_": target, "_partial_": True, "min_count": 1}
        config["data"]["transform"]["text_augmentation"] = False
    return config


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    for name in ("1.jpg", "2.jpg"):
        Image.new("RGB", (8, 16)).save(tmp_path / name)
    (tmp_path / "pairs.csv").write_text(
        "image,caption,person_id,split\n1.jpg,A man.,1,train\n2.jpg,In red.,2,test\n"
    )
    return tmp_path / "pairs.csv"


@pytest.mark.parametrize("encoder", [Words, PerhapsWords])
def test_an_encoder_is_given_the_word_of_each_token_id(pairs: Path, encoder: type) -> None:
    run = build(check(with_encoder(pairs, encoder, words=True)))

    assert run.method.encoder.words == ("", "a", "man", "in", "red")


def test_an_encoder_may_do_without_words(pairs: Path) -> None:
    assert build(check(with_encoder(pairs, PerhapsWords, words=False))).method.encoder.words is None


def test_an_encoder_that_needs_words_is_refused_without(pairs: Path) -> None:
    message = (
        r"encoder=.*Words is made for .* data\.tokenizer=ClipTokenizer has none.*WordTokenizer"
    )
    with pytest.raises(ValueError, match=message):
        build(check(with_encoder(pairs, Words, words=False)))


def test_the_other_arguments_of_an_encoder_with_words_are_checked(pairs: Path) -> None:
    with pytest.raises(ValueError, match=r"encoder\.size='big' .* takes int"):
        build(check(with_encoder(pairs, Words, words=True, size="big")))


def test_a_part_of_ones_own_is_taken_where_a_value_refers_to_it() -> None:
    config = compose(["+width.hidden=3", "method.loss.margin=${width.hidden}"])

    assert to_plain(config)["method"]["loss"]["margin"] == 3


def test_whether_plans_see_identities_is_for_the_method_to_say() -> None:
    config = compose(["method=mmcl", "data=market1501", "+data.identities=true"])

    with pytest.raises(ValueError, match=r"data\.identities is nothing to configure"):
        check(config)


def run_of(folder: Path, *overrides: str) -> Path:
    """Return the folder of a run with this configuration."""
    folder.mkdir()
    (folder / "config.yaml").write_text(to_yaml(plain(*overrides)))
    (folder / "best.ckpt").touch()
    return folder


@pytest.mark.parametrize("name", ["", "best.ckpt"])
def test_a_checkpoint_of_a_run_brings_its_encoder_and_sizes(tmp_path: Path, name: str) -> None:
    run = run_of(
        tmp_path / "run",
        "method=mmcl",
        "data=market1501",
        "encoder=timm",
        "encoder.backbone.name=vit_tiny_patch16_224",
        "data.image_size=[224,224]",
        "data.root=/x",
    )

    config = compose(["method=mmcl", "data=synthetic_images", f"checkpoint={run / name}"])

    assert config.encoder.backbone.name == "vit_tiny_patch16_224"
    assert list(config.data.image_size) == [224, 224]
    assert config.choices.encoder == "timm"
    assert config.choices.data == "synthetic_images"


def test_a_checkpoint_of_a_method_of_another_kind_is_named(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", "method=rde")
    config = compose(["method=mmcl", "data=synthetic_images", f"checkpoint={run}"])

    with pytest.raises(ValueError, match="cannot start from checkpoint=") as refused:
        check(config)

    kinds = "its encoder is a DualEmbedding, and the method takes an ImageEncoder."
    assert f"{run}, of encoder=clip_tiny: {kinds}" in str(refused.value)
    assert "Name a checkpoint of one of encoder=resnet50" in str(refused.value)


def test_what_the_user_chooses_beside_a_checkpoint_stays(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", "method=mmcl", "data=market1501", "data.root=/x")
    words = ["method=mmcl", "data=synthetic_images", f"checkpoint={run}"]

    chosen = compose([*words, "encoder=resnet_tiny"])
    sized = compose([*words, "data.image_size=[96,48]", "encoder.backbone.name=resnet18"])

    assert chosen.encoder.backbone.name == "tiny"
    assert list(sized.data.image_size) == [96, 48]
    assert sized.encoder.backbone.name == "resnet18"


def test_an_encoder_that_takes_the_weights_stays_as_it_is(tmp_path: Path) -> None:
    run = run_of(
        tmp_path / "run",
        "method=mmcl",
        "data=market1501",
        "data.root=/x",
        "data.image_size=[128,64]",
        "encoder.backbone.last_stride=2",
    )

    config = compose(["method=mmcl", "data=market1501", f"checkpoint={run}"])

    assert config == compose(
        ["method=mmcl", "data=market1501", f"checkpoint={run}", "encoder=resnet50"]
    )


def test_an_encoder_of_foreign_code_is_not_brought(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", "method=mmcl", "data=market1501", "data.root=/x")
    text = (
        (run / "config.yaml").read_text().replace("crosswalk.encoders.resnet.resnet", "os.system")
    )
    (run / "config.yaml").write_text(text)

    with pytest.raises(ValueError, match=r"config\.yaml: encoder\.backbone\._target_='os\.system'"):
        compose(["method=mmcl", f"checkpoint={run}"])


@pytest.mark.parametrize("name", CALLED_ELSEWHERE)
def test_what_other_programs_call_a_key_leads_to_it(name: str) -> None:
    key = CALLED_ELSEWHERE[name]

    with pytest.raises(ValueError, match=rf"{name} is not a key .* Did you mean {key}\?"):
        compose([f"{name}=1"])


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("optim.learning_rate=1e-3", "optim.lr"),
        ("trainer.epochs=3", "trainer.max_epochs"),
        ("trainer.gpus=2", "trainer.devices"),
        ("data.Workers=2", "data.num_workers"),
        ("img-size=[1,2]", "data.image_size"),
        ("data=CUHK-PEDES", "cuhk_pedes"),
        ("data=Market-1501", "market1501"),
        ("method=RDE", "rde"),
    ],
)
def test_a_key_or_a_choice_in_other_words_leads_to_ours(typed: str, meant: str) -> None:
    with pytest.raises(ValueError, match=rf" Did you mean {meant}\?"):
        compose([typed])

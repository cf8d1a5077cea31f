"""Types, choices and ranges of every key, and that they are said before anything is imported."""

from __future__ import annotations

import itertools
import os
import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from crosswalk.config.check import check, check_early, compose_training
from crosswalk.config.compose import compose
from crosswalk.config.construct import locate
from crosswalk.config.constructors import fits, signature_of
from crosswalk.config.keys import TOP, compared, path_in
from crosswalk.config.plain import nested, to_plain
from crosswalk.config.search import config_folder, group_values
from crosswalk.config.sources import read_batches, read_signature
from crosswalk.config.trainer_arguments import ARGUMENTS

TARGETS = sorted(
    {
        target
        for folder in (config_folder(), config_folder().parent / "experiments")
        for path in folder.rglob("*.yaml")
        for target in re.findall(r"_target_: *([\w.]+)", path.read_text(encoding="utf-8"))
    }
    | {f"crosswalk.optim.{name}" for name in ("adamw", "ExponentialDecay", "PolynomialDecay")}
)
NOT_OURS = {
    "torch.nn.Linear": "its sizes are handed over",
    "torch.nn.Identity": "takes anything",
    "lightning.pytorch.strategies.DDPStrategy": "Lightning checks it",
}
WITHOUT_RANGE = {"erase_fill": "normalised colours have either sign"}
NEGATIVE = {
    **WITHOUT_RANGE,
    "alpha": "a cosine",
    "beta": "a cosine",
    "threshold": "a cosine, for MMCL's labels",
    "devices": "all GPUs, as Lightning says it",
    "num_sanity_val_steps": "all, as Lightning says it",
    "max_steps": "no limit, as Lightning says it",
}


def numeric(annotation: Any) -> bool:  # noqa: ANN401
    """Return whether a number can be an argument with this annotation, alone or in a list."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal or "Callable" in str(origin):
        return False
    return annotation in (int, float) or any(map(numeric, inner))


def arguments() -> Iterator[tuple[str, Any]]:
    """Yield every numeric argument that a configuration can reach, with its annotation."""
    for target in TARGETS:
        takes = signature_of(target, "")
        if target in NOT_OURS or takes is None:
            continue
        for name, annotation in takes.annotations.items():
            if name in takes.parameters and numeric(annotation):
                yield f"{target}.{name}", annotation
    for name, annotation in [*TOP.items(), *ARGUMENTS.items()]:
        if numeric(annotation):
            yield name, annotation


def lists_of(value: float, annotation: Any) -> list[Any]:  # noqa: ANN401
    """Return a value, and lists of it, of which one has the right shape if the value is right."""
    return [value, *([value] * length for length in (1, 2, 3))]


@pytest.mark.parametrize(
    "value", [-1, float("nan"), float("inf"), float("-inf"), 10**12, -(10**12)]
)
def test_no_number_of_a_configuration_takes_what_means_nothing(value: float) -> None:
    taken = {
        key
        for key, annotation in arguments()
        if any(fits(each, annotation) for each in lists_of(value, annotation))
    }

    names = {key: key.rpartition(".")[2] for key in taken}
    if value == -1:
        assert {key for key, name in names.items() if name not in NEGATIVE} == set()
    elif value == 10**12:  # weights and rates have no upper end, whole numbers have
        assert {
            key for key, each in arguments() if key in taken and not takes_a_float(each)
        } == set()
    else:
        assert {key for key, name in names.items() if name not in WITHOUT_RANGE} == set()


def takes_a_float(annotation: Any) -> bool:  # noqa: ANN401
    return annotation is float or any(map(takes_a_float, typing.get_args(annotation)))


def test_most_numbers_were_looked_at() -> None:
    found = dict(arguments())

    assert len(found) > 150
    assert "crosswalk.optim.OptimBuilder.lr" in found
    assert "crosswalk.data.pairs.TextToImageData.image_size" in found


@pytest.mark.parametrize("target", [name for name in TARGETS if name.startswith("crosswalk.")])
def test_a_signature_is_read_from_the_source_as_it_is_imported(target: str) -> None:
    read, imported = read_signature(target), signature_of(target, "")

    assert imported is not None
    if read is None:  # made by a constructor that is written elsewhere
        assert imported.annotations == {} or not imported.parameters
        return
    assert list(read.parameters) == list(imported.parameters)
    for name, parameter in imported.parameters.items():
        empty = parameter.empty
        assert (read.parameters[name].default is empty) == (parameter.default is empty)
        known = read.annotations.get(name, Any)
        assert known is Any or known == imported.annotations[name]


@pytest.mark.parametrize("experiment", group_values("experiment"))
def test_every_published_run_is_right(experiment: str) -> None:
    config = compose([f"experiment={experiment}", "data.root=/nowhere"])

    check_early(config)
    check(config)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed=-1", r"seed=-1 is out of range; a run takes int >= 0 and <= 4294967295\."),
        ("seed=abc", r"seed='abc' is of type str; a run takes int >= 0"),
        ("seed=null", r"seed=null is no value"),
        ("output_dir=null", r"output_dir=null is no value; a run takes str"),
        ("output_dir=", r"output_dir='' is not allowed; .* at least one letter"),
        ("stage=foo", r"stage='foo' is a single value, and a run has a part there"),
        (f"name={'x' * 300}", r"name='x+… is not allowed; .* at most 150 of them"),
        ("name=a/b", r"name='a/b' is not allowed; a run takes str of letters, digits and"),
        ("tags=abc", r"tags='abc' is of type str; .*: write tags=\[abc\]\."),
        (f"tags=[{'x' * 65}]", r"tags=\['x+'\] is out of range; .* of 1 to 64 characters"),
        ("logger.wandb.project=a/b", r"logger\.wandb\.project='a/b' is not allowed; .* without /"),
        ("resume=yes", r"resume='yes' is not allowed; .* true \| false \| str of .* mean true\?"),
        ("trainer.devices=0", r"devices=0 is out of range; .* numbers such as 0,1\.$"),
        ("data.image_size=224", r"of type int; .* write data\.image_size=\[224,224\]"),
        ("trainer.precision=fp16", r"no choice; .* Did you mean 16-mixed\?"),
        ("compile=1", r"compile=1 is of type int; a run takes true \| false"),
        ("bn_group_size=0", r"bn_group_size=0 is out of range"),
        ("checkpoint_every_n_steps=-1", r"checkpoint_every_n_steps=-1 is out of range"),
        ("protocol=foo", r"protocol='foo' is no choice; a run takes val, official, last\."),
        ("data.num_workers=-1", r"data\.num_workers=-1 is out of range; .* int >= 0 and <= 1024"),
        ("data.transform.padding=-3", r"data\.transform\.padding=-3 is out of range"),
        ("data.image_size=[100000,100000]", r"data\.image_size=\[100000, 100000\] is out of range"),
        ("data.image_size=[9]", r"data\.image_size=\[9\] is out of range; .* of 2 values"),
        ("data.eval_batch_size=0", r"data\.eval_batch_size=0 is out of range"),
        ("data.batch_size=1e3", r"data\.batch_size=1000\.0 is of type float; .*batch_size=1000\."),
        ("data.noise_rate=1.5", r"data\.noise_rate=1\.5 is out of range; .* >= 0 and <= 1\."),
        ("method.loss.temperature=0", r"method\.loss\.temperature=0 is out of range; .* > 0"),
        ("optim.lr=-1", r"optim\.lr=-1 is out of range; crosswalk\.optim\.OptimBuilder takes"),
        ("optim.lr=nan", r"optim\.lr=nan is no finite number"),
        ("optim.optimizer.betas=[0.9,1.0]", r"optim\.optimizer\.betas=\[0\.9, 1\.0\] is out of"),
        ("optim.schedule.warmup_epochs=-1", r"optim\.schedule\.warmup_epochs=-1 is out of range"),
        ("trainer.devices=0", r"trainer\.devices=0 is out of range"),
        ("trainer.devices=[]", r"trainer\.devices=\[\] is out of range"),
        ("trainer.num_nodes=0", r"trainer\.num_nodes=0 is out of range"),
        ("trainer.strategy=fsdp", r"trainer\.strategy='fsdp' is of type str; .* ddp_spawn"),
        ("trainer.precision=12", r"trainer\.precision=12 is no choice"),
        ("trainer.accelerator=tpu", r"trainer\.accelerator='tpu' is no choice"),
        ("trainer.gradient_clip_val=nan", r"trainer\.gradient_clip_val=nan is no finite number"),
        ("trainer.gradient_clip_val=-1", r"trainer\.gradient_clip_val=-1 is out of range"),
        ("trainer.accumulate_grad_batches=0", r"trainer\.accumulate_grad_batches=0 is out of"),
        ("trainer.check_val_every_n_epoch=0", r"trainer\.check_val_every_n_epoch=0 is out of"),
        ("trainer.limit_train_batches=0", r"trainer\.limit_train_batches=0 is out of range"),
        ("trainer.max_time=abc", r"trainer\.max_time='abc' is not allowed; .*days:hours"),
        ("trainer.max_epochs=-1", r"trainer\.max_epochs=-1: .*max_steps=<number> ends it earlier"),
        ("trainer.max_epochs=null", r"trainer\.max_epochs=null: .* so a run has a number of them"),
        ("trainer.max_epochs=-2", r"trainer\.max_epochs=-2 is out of range"),
        ("trainer.use_distributed_sampler=true", r"use_distributed_sampler=True is no choice"),
        ("trainer.overfit_batches=1", r"trainer\.overfit_batches=1 cannot be set: .*limit_train"),
        ("trainer.logger=false", r"trainer\.logger=False cannot be set: .*logger=csv"),
        ("trainer.enable_checkpointing=false", r"cannot be set: .*checkpoint_every_n_steps"),
        ("trainer.barebones=true", r"trainer\.barebones=True cannot be set"),
        ("trainer.fast_dev_run=true", r"fast_dev_run=True cannot be set: .*trainer=debug"),
        ("trainer.limit_val_batches=0", r"limit_val_batches=0 cannot be set"),
        ("trainer.limit_test_batches=2", r"limit_test_batches=2 cannot be set"),
        ("trainer.default_root_dir=x", r"default_root_dir=x cannot be set: .*output_dir"),
        ("trainer.callbacks=[]", r"trainer\.callbacks=\[\] cannot be set"),
        (
            "logger.wandb=3",
            r"logger\.wandb=3 does not say what .* Choose one of logger=csv, logger",
        ),
        ("+logger.csv.x=3", r"logger\.csv: nothing in a run reads it\. Choose one of logger=csv, "),
        ("logger={_target_: x}", r"logger\._target_: nothing in a run reads it"),
        ("diagnostics={_target_: x}", r"diagnostics=.* is no list\. The file of the method says"),
        ("diagnostics=[3]", r"diagnostics\.0=3 does not say what is to be built: .* no _target_"),
        ("diagnostics=[{a: 1}]", r"diagnostics\.0=\{'a': 1\} does not say what is to be built"),
        ("+reranking.k1=3", r"reranking=\{'k1': 3\} does not say .* Choose one of reranking="),
        ("~method._target_", r"method=.* does not say what .* Choose one of method=clip_reid"),
        ("~optim._target_", r"optim=.* does not say what is to be built"),
        ("method.loss._target_=null", r"method\.loss\._target_=null is no dotted path of a class"),
        ("data.reader._target_=3", r"data\.reader\._target_=3 is no dotted path of a class"),
        ("optim.lr={_target_: null}", r"optim\.lr\._target_=null is no dotted path of a class"),
        (
            "data.reader._partial_=x",
            r"data\.reader\._partial_='x' is of .* true \| false",
        ),
        ("+data.reader._recursive_=1", r"_recursive_: nothing reads _recursive_; a node has"),
        ("trainer.devices={_target_: x}", r"trainer\.devices=x is a node; a run takes auto"),
    ],
)
def test_a_value_that_means_nothing_is_named_with_what_is_allowed(
    override: str, message: str
) -> None:
    config = compose([override])

    with pytest.raises(ValueError, match=message):
        check_early(config)
    with pytest.raises(ValueError, match=message):
        check(config)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("~method", r"~method: a run needs method=\. There are: .*rde"),
        ("method=null", r"method=null: a run needs method="),
        ("~optim", r"~optim: a run needs optim=\. There are: .*sgd_step"),
        ("~trainer", r"~trainer: a run needs trainer="),
        ("+foo.bar=1", r"\+foo\.bar=1: nothing in a run reads foo\..*config show"),
        ("+logger=3", r"logger=3 does not exist\. There are: csv, wandb\."),
        ("+encoder=0", r"encoder=0 does not exist\. With method=rde go: clip_"),
        ("+encoder=3", r"encoder=3 does not exist\. With method=rde go: clip_"),
        ("loss=tripet", r"Did you mean triplet_alignment\? With method=rde go: info_nce, sim"),
        ("method.loss=[3]", r"method\.loss is a part\. Its keys are set one by one"),
        ("data=synthetic", r"data=synthetic does not exist\. Did you mean synthetic_pairs\?"),
        ("encoder.name=vit", r"encoder\.name is not a key of this configuration\. (?!Did)"),
        ("val=false", r"val is not a key of this configuration\. (?!Did)"),
        ("+dat.root=x", r"nothing in a run reads dat\. Did you mean data\.root\?"),
        ("+loss.margin=1", r"nothing in a run reads loss\. Did you mean method\.loss\.margin\?"),
        ("+experiment.foo=1", r"nothing in a run reads experiment\. `crosswalk config show`"),
        ("+transform.flip=1", r"nothing in a run reads transform\. `crosswalk config show`"),
        ("~seed", r"~seed: a run needs seed\. Set it: seed=<value>"),
        ("~compile", r"~compile: a run needs compile"),
        ("choices.method=mar", r"choices\.method only says .*method=<file>"),
        ("encoder=vit_tiny", r"Did you mean clip_tiny\? With method=rde go: clip_tiny, clip"),
        ("optim.lr=1e-3,1e-4", r"has several values.*crosswalk sweep <file>"),
        ("~data.image_size.0", r"part of a list"),
    ],
)
def test_what_cannot_be_composed_is_refused(override: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compose([override])


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("name=20261128", "name", "20261128"),
        ("name=1e3", "name", "1e3"),
        ("name=true", "name", "true"),
        ("name=null", "name", None),
        ("output_dir=2024", "output_dir", "2024"),
        ("checkpoint=1", "checkpoint", "1"),
        ("resume=true", "resume", True),
        ("resume=2024", "resume", "2024"),
        ("tags=[2026,b, 007]", "tags", ["2026", "b", "007"]),
        ("data.root=2024", "data.root", "2024"),
        ("data.noise_rate=1", "data.noise_rate", 1),
        ("logger.wandb.project=2026", "logger.wandb.project", "2026"),
    ],
)
def test_a_text_stays_the_text_that_was_typed(override: str, key: str, value: object) -> None:
    config: Any = compose([override])
    for name in key.split("."):
        config = config[name]

    assert config == value


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["method=rde", "encoder=resnet_tiny"], "encoder=resnet_tiny does not go with method=rde"),
        (["method=rde", "encoder=timm"], "encoder=timm does not go with method=rde"),
        (["method=mmcl", "text=clip_frozen"], "text=clip_frozen does not go with method=mmcl, wh"),
        (["method=rde", "labels=own"], "labels=own does not go with method=rde, which has none"),
        (["method=rde", "transform=mmcl"], "transform=mmcl does not go with method=rde"),
        (["method=mmcl", "division=off"], "division=off does not go with method=mmcl"),
        (["method=rde", "classifier=linear"], "classifier=linear does not go with method=rde"),
        (["method=mar", "loss=multilabel"], "loss=multilabel does not go with method=mar"),
        (["method=rde", "optim=sgd_step"], "own is optim=adam_warmup_cosine"),
        (["method=cmmt", "encoder=clip_tiny"], "encoder=clip_tiny does not go with method=cmmt"),
        (["data=market1501"], "data=market1501 gives images .*, or method=mmcl, or method=supervi"),
        (["method=mar", "data=market1501"], "Choose one of data=dukemtmc_to_market1501"),
        (["method=mmcl", "data=cuhk_pedes"], "data=cuhk_pedes gives image-caption pairs; method=m"),
        (["method=mmcl", "encoder=timm"], r"Set it with encoder\.backbone\.name=<value>"),
    ],
)
def test_choices_that_do_not_go_together_are_named_as_they_were_typed(
    overrides: list[str], message: str
) -> None:
    config = compose(overrides)

    for look in (check_early, check):
        with pytest.raises(ValueError, match=message):
            look(config)


def test_a_choice_that_has_nothing_to_do_with_it_is_not_named() -> None:
    config = compose(["method=rde", "logger=csv", "loss=memory_cross_entropy"])

    with pytest.raises(ValueError, match="takes PairLoss") as refused:
        check(config)

    assert " Perhaps loss=memory_cross_entropy does not go" in str(refused.value)
    assert "logger" not in str(refused.value)


@pytest.mark.parametrize(
    ("method", "loss"),
    [("rde", "multilabel"), ("mmcl", "triplet_alignment"), ("mmcl", "info_nce")],
)
def test_a_loss_of_another_method_is_named_as_it_was_typed(method: str, loss: str) -> None:
    with pytest.raises(ValueError, match=f"loss={loss} does not go with method={method}, whose o"):
        check(compose([f"method={method}", f"loss={loss}"]))


@pytest.mark.parametrize("target", [name for name in TARGETS if name.startswith("crosswalk.")])
def test_batches_are_read_from_the_source_as_they_are_imported(target: str) -> None:
    made = locate(target, "")
    declared = getattr(made, "batch_types", getattr(getattr(made, "needs", None), "batches", None))

    assert read_batches(target) == (declared and tuple(each.__name__ for each in declared))


def test_a_stage_is_looked_at_before_it_is_trained() -> None:
    overrides = ["method=mar", "data=synthetic_transfer"]
    check(compose([*overrides, "stage.overrides.trainer.max_epochs=2"]))

    for key, message in [("optim.lr=-1", "out of range"), ("trainer.max_epoch=1", "max_epochs?")]:
        with pytest.raises(ValueError, match=rf"below stage\.overrides\): .*{re.escape(message)}"):
            check(compose([*overrides, f"stage.overrides.{key}"]))


TRANSFER = ("method=mar", "data=synthetic_transfer")


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        ([*TRANSFER, "+data.target.identities=true"], "data.target.identities"),
        ([*TRANSFER, "+data.target.seed=3"], "data.target.seed"),
        ([*TRANSFER, "+data.source.seed=3"], "data.source.seed"),
        ([*TRANSFER, "+data.target.protocol=val"], "data.target.protocol"),
        (["method=rde", "+data.plan.seed=3"], "data.plan.seed"),
        (["method=rde", "+data.plan.batch_size=3"], "data.plan.batch_size"),
        (["method=rde", "+data.tokenizer.context_length=3"], "data.tokenizer.context_length"),
        (["method=cmmt", "+method.memory.num_slots=3"], "method.memory.num_slots"),
        (["method=rde", "+optim.optimizer.groups=[]"], "optim.optimizer.groups"),
    ],
)
def test_what_the_frame_gives_is_not_overridden_in_silence(overrides: list[str], key: str) -> None:
    with pytest.raises(ValueError, match=rf"{re.escape(key)} is nothing to configure"):
        check(compose(overrides))


def test_a_home_of_nobody_is_named() -> None:
    with pytest.raises(ValueError, match="there is no user nobody-here on this machine"):
        compose(["data.root=~nobody-here/x"])


def test_paths_are_held_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights.pth").touch()

    config = check(
        compose(["data.root=sets", "checkpoint=a.ckpt", "encoder.clip.pretrained=weights.pth"])
    ).config

    assert config["data"]["root"] == str(tmp_path / "sets")
    assert config["checkpoint"] == str(tmp_path / "a.ckpt")
    assert config["encoder"]["clip"]["pretrained"] == str(tmp_path / "weights.pth")
    config["stage"] = {"overrides": {"data": {"root": "sets"}}}
    config["data"]["tokenizer"]["vocabulary"] = "words.json"
    leaves = compared(config)
    assert leaves["stage.overrides.data.root"] == str(tmp_path / "sets")
    assert leaves["data.tokenizer.vocabulary"] == str(tmp_path / "words.json")
    assert check(compose(["data.root=null"])).config["data"]["root"] is None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data.reader.split_file", "splits.json"),
        ("data.reader.root", "part"),
        ("data.phrases.vocabulary", "english"),
        ("encoder.text.vocabulary", "bert-base-uncased"),
        ("encoder.image.config_file", "base.yaml"),
    ],
)
def test_what_code_of_ones_own_takes_is_left_as_it_was_typed(key: str, value: str) -> None:
    assert path_in(key, value) is None


def test_the_file_of_a_word_table_is_a_path() -> None:
    assert path_in("encoder.text.vectors.table.file", "rows.npy") == Path("rows.npy").absolute()


@pytest.mark.parametrize(
    "value",
    [
        *("openai", "resnet50.tv_in1k", "tiny_clip.safetensors", "hf-hub:timm/resnet18.a1_in1k"),
        *("google/vit-base-patch16", True),
    ],
)
def test_names_of_published_weights_are_no_paths(value: str | bool) -> None:
    assert path_in("encoder.backbone.pretrained", value) is None


@pytest.mark.parametrize(
    "value", ["a.pth", "./a", "~/a", "runs/a/b", "a.safetensors", "/a", "../a"]
)
def test_weights_in_a_file_are_a_path_although_it_is_not_there(value: str) -> None:
    path = path_in("encoder.backbone.pretrained", value)

    assert path is not None
    assert path == Path(os.path.abspath(Path(value).expanduser()))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stage.overrides=3", r"stage\.overrides=3 is of type int; a run takes mapping"),
        ("stage.choices.data=[1]", r"stage\.choices=.* is of type dict; a run takes mapping"),
        ("stage=3", r"stage=3 is a single value"),
        ("+stage.loads.encoder=x", r"stage\.loads: nothing in a run reads it"),
        ("~stage.load", r"stage\.load=null is no value"),
        ("~stage.choices", r"stage\.choices=null is no value"),
        (
            "stage.overrides.data=3",
            r"stage \(its keys are below stage\.overrides\): data=3 d",
        ),
    ],
)
def test_a_stage_that_is_none_is_refused_before_it_is_trained(override: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check(compose(["method=mar", override]))


@pytest.mark.parametrize("method", group_values("method"))
def test_no_value_of_any_key_ends_in_a_traceback(method: str) -> None:
    """Keys of a method get odd values in turn; what is refused is named, the rest is taken."""
    values = ("null", "[]", "{}", "x", "-1", "1e30", "true", "[[1]]", "{a: 1}", "nan", "''")
    nodes = ("{_target_: null}", "{_target_: os.getcwd}", "{_target_: a.b}", "{_partial_: 3}")
    odd, signs = itertools.cycle((*values, *nodes)), itertools.cycle(("", "", "+"))
    keys = [key for key, _ in nested(to_plain(compose([f"method={method}"])))]
    chosen = keys[:: 1 + len(keys) // 30]
    unnamed, refused = [], 0
    for key in chosen:
        override = f"{next(signs)}{key}={next(odd)}"
        try:
            check(compose_training([f"method={method}", override]))
        except (ValueError, OSError) as error:
            refused += 1
            if key.partition(".")[0] not in str(error):
                unnamed.append((override, str(error)))

    assert unnamed == []
    assert refused > len(chosen) // 3

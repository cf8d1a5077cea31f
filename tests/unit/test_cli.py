from __future__ import annotations

import argparse
import errno
import importlib
import io
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import types
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from crosswalk import cli
from crosswalk.cli import COMMANDS, main, parse
from crosswalk.commands.at_least import AtLeast
from crosswalk.config.compose import compose
from crosswalk.config.plain import to_plain
from crosswalk.config.search import config_folder, group_values
from crosswalk.data.text.noun_phrases import _textblob_parser
from crosswalk.run.results import MEASURES, print_results
from crosswalk.run.run_folder import RunFolder

TABLE = Path(__file__).parents[2] / "experiments" / "rde" / "table2.yaml"
BEGUN = "Training rde on synthetic_pairs …\n"
"""Said before the slow imports of the default run."""


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "crosswalk", *words], capture_output=True, text=True, check=False
    )


def stand_in(monkeypatch: pytest.MonkeyPatch, name: str, **functions: Callable[..., Any]) -> None:
    module = types.ModuleType(name)
    for key, function in functions.items():
        setattr(module, key, function)
    monkeypatch.setitem(sys.modules, name, module)


def test_help_config_and_mistakes_import_nothing_heavy(tmp_path: Path) -> None:
    RunFolder(tmp_path / "run").save_config(to_plain(compose([])))
    (tmp_path / "pairs.csv").write_text("image,text,person_id,split\n1.jpg,a man,1,test\n")
    others = [
        f"data=own_pairs data.root={tmp_path / 'pairs.csv'}",
        *(f"data={name} data.root={tmp_path}" for name in ("cuhk_pedes", "own_pairs")),
    ]
    lines = [
        *("", "--help", "--version", *(f"{name} --help" for name in COMMANDS)),
        "config diff data=cuhk_pedes data=rstp_reid",
        *("train methd=rde", "train rde", "train trainer.max_epoch=3"),
        *("train trainer.devices=0 seed=-1", "train method=mmcl data.batch_size=much"),
        *("train data=cuhk_pedes data.root=/nowhere", "train data=cuhk_pedes"),
        *("train method=mmcl data=market1501", "train data=market1501"),
        *("train method=mmcl encoder=timm", "train trainer.devices=3"),
        "train trainer=ddp data=cuhk_pedes data.root=/nowhere",
        *(f"{name} nowhere" for name in ("evaluate", "calibrate", "report", "audit", "card")),
        *(f"{name} nowhere" for name in ("ablate", "sweep")),
        *("compare nowhere elsewhere", "export-weights nowhere x.safetensors"),
        *("embed nowhere x --out x.npz", "export nowhere --out x", "serve nowhere"),
        *("search nowhere x", "index nowhere x --out x"),
        *(f"train data.synthetic.{each}" for each in ("size=huge", "seed=a", "domain=mars")),
        "train method=mmcl data.synthetic.layout=mars",
        "train method=mar data.target.synthetic.size=huge",
        *("train resume=true name=unknown", f"train checkpoint={tmp_path}"),
        *(f"train {other}" for other in others),
        *(f"evaluate {tmp_path / 'run'} {other}" for other in others),
        *(f"evaluate tiny:rde {other}" for other in others),
        *("sweep rde", "sweep rde data.noize=3", "sweep mmcl --local data.batch_size=much"),
    ]
    looks_at_images = "data check nowhere"
    code = (
        "import sys\nfrom crosswalk.cli import main\n"
        "heavy = {'torch', 'lightning', 'open_clip', 'timm', 'wandb', 'numpy', 'numba'}\n"
        f"for line in {[*lines, looks_at_images]!r}:\n"
        "    try:\n        status = main(line.split())\n"
        "    except SystemExit as ended:\n        status = ended.code\n"
        "    print('HEAVY', line, status, sorted(heavy & set(sys.modules)))"
    )

    output = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "WANDB_MODE": "offline"},
    )

    found = [line for line in output.stdout.splitlines() if line.startswith("HEAVY")]
    fails = re.compile(r"(train|evaluate|sweep) (?!--help)|.*nowhere")
    told = [f"HEAVY {line} {2 if fails.match(line) else 0} []" for line in lines]
    assert found == [*told, f"HEAVY {looks_at_images} 2 []"]
    assert "Traceback" not in output.stderr


def test_a_batch_that_does_not_hold_whole_persons_is_refused_before_torch_is_imported(
    tmp_path: Path,
) -> None:
    table = TABLE.parents[1] / "cm_moco" / "components_synthetic.yaml"
    nowhere = "method=supervised data=market1501 data.root=/nowhere"
    commands = (
        *(f"train {nowhere}", f"config show {nowhere}"),
        *("sweep supervised --local --dry-run", f"ablate {table} --dry-run"),
    )
    lines = [f"{command} data.batch_size=7" for command in commands]
    code = (
        "import sys\nfrom crosswalk.cli import main\n"
        f"for line in {lines!r}:\n"
        "    print('STATUS', main(line.split()), 'torch' in sys.modules)"
    )

    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )

    told = [line for line in output.stdout.splitlines() if line.startswith("STATUS")]
    assert told == ["STATUS 2 False"] * len(lines)
    words = "data.batch_size=7 is not a multiple of data.plan.samples_per_person=4: a batch holds"
    assert output.stderr.count(words) == len(lines)


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("train rde", "method=rde"),
        ("train mmcl market1501", "method=mmcl data=market1501"),
        ("train cuhk_pedes", "data=cuhk_pedes"),
        ("train resnet50", "encoder=resnet50"),
        ("train own", "resume=own (go on with it) or checkpoint=own (start from it)"),
        ("train best.ckpt", "checkpoint=best.ckpt"),
        ("train pictures", "data.root=pictures"),
        ("evaluate own market1501", "data=market1501"),
        ("sweep rde cuhk_pedes", "data=cuhk_pedes"),
        ("ablate table.yaml synthetic_pairs", "--data synthetic_pairs"),
        ("ablate table.yaml --dataa synthetic_pairs", "--data"),
        ("ablate table.yaml --dataa=synthetic_pairs", "--data"),
        ("sweep rde --trial 3", "--trials"),
        ("index tiny:rde pictures --uot x", "--out"),  # before what it lacks then
        ("data check pictures --datast cuhk_pedes", "--dataset"),
        ("evaluate own --trsut", "--trust"),
        ("report own --debugg", "--debug"),
    ],
)
def test_a_word_alone_is_answered_with_the_override_that_is_meant(
    words: str,
    meant: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    RunFolder(tmp_path / "own").save_config({})
    (tmp_path / "pictures").mkdir()
    (tmp_path / "best.ckpt").touch()
    monkeypatch.chdir(tmp_path)

    with pytest.raises(SystemExit):
        main(words.split())

    assert f"Did you mean {meant}?" in capsys.readouterr().err


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_a_terminal_that_lacks_a_sign_gets_another(
    monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", stream)

    main(["--version"])
    measures = {f"test/{name}": 0.5 for name in MEASURES}
    print_results(
        {"last": {"epoch": 1, **measures}}, counts="last epoch", directions=["text_to_image"]
    )
    print("a red coat 中 → caf\udce9.jpg", flush=True)

    shown = stream.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]
    assert "text -> image" in shown
    assert shown.splitlines()[-1] == "a red coat \\u4e2d -> caf\\udce9.jpg"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_whose_examples_parse(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*name.split(), "--help"])

    text = capsys.readouterr().out.replace("\\\n", " ")
    examples = [line.strip() for line in text.splitlines() if line.startswith("  crosswalk ")]
    assert ended.value.code == 0
    assert examples
    for example in examples:
        options = parse(shlex.split(example)[1:])
        assert not [word for word in options.overrides if word.startswith("-")]


def test_the_help_of_train_lists_methods_and_data_sets_without_slow_imports() -> None:
    words = [sys.executable, "-X", "importtime", "-m", "crosswalk", "train", "--help"]
    ended = subprocess.run(words, capture_output=True, text=True, check=True)

    listed = " ".join(ended.stdout.split())
    assert f"Methods: {', '.join(group_values('method'))}." in listed
    assert f"Data sets: {', '.join(group_values('data'))}." in listed
    assert f"in the files of {config_folder()}." in listed
    assert not re.search(r"\| +(torch|lightning|hydra|omegaconf)$", ended.stderr, re.MULTILINE)


@pytest.mark.parametrize("name", COMMANDS)
def test_an_option_that_counts_refuses_what_counts_nothing_before_the_slow_imports(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = argparse.ArgumentParser()
    importlib.import_module(f"crosswalk.commands.{re.sub(r'[ -]', '_', name)}").configure(parser)

    for action in parser._actions:
        assert action.type is not int, f"{name} {action.dest} takes any number: AtLeast(1)"
        if isinstance(action.type, AtLeast):
            option = action.option_strings[0]
            with pytest.raises(SystemExit) as ended:
                parser.parse_args([f"{option}={action.type.least - 1}"])
            said = capsys.readouterr().err
            assert ended.value.code == 2
            assert f"argument {option}: '{action.type.least - 1}' is no whole number from" in said


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_without_a_command_all_are_listed(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 0

    text = capsys.readouterr().out
    assert all(f"\n  {name} " in text for name in COMMANDS)


@pytest.mark.parametrize("words", [["config"], ["config", "--help"]])
def test_commands_of_one_kind_are_listed(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 0

    text = capsys.readouterr().out
    assert "\n  config show " in text
    assert "\n  config diff " in text
    assert "\n  train " not in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian", "method=rde"], "there is no command 'trian'. Did you mean train?"),
        (["config", "shw"], "there is no command 'config shw'. Did you mean config show?"),
        (["import", "rde"], "there is no command 'import'. Did you mean import-weights?"),
        (["method=rde"], "there is no command 'method=rde'. `crosswalk --help` lists them."),
    ],
)
def test_a_misspelt_command_is_told_the_nearest(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "option", "value"),
    [
        (["sweep", "rde", "--seed", "3"], "seed", 3),
        (["sweep", "rde", "--seed=3"], "seed", 3),
        (["sweep", "--trials=5", "rde"], "trials", 5),
        (["sweep", "rde", "--devices=0,1"], "devices", ["0", "1"]),
        (["sweep", "rde", "--name=x"], "name", "x"),
        (["sweep", "rde", "--name", "lr=1"], "name", "lr=1"),
        (["ablate", "t.yaml", "--row=margin=0.1"], "row", ["margin=0.1"]),
        (["ablate", "t.yaml", "--row", "margin=0.1", "--row", "b"], "row", ["margin=0.1", "b"]),
        (["ablate", "--slurm", "partition=gpu", "t.yaml"], "slurm", ["partition=gpu"]),
        (["ablate", "t.yaml", "--dry-run", "--data=own"], "data", "own"),
    ],
)
def test_an_option_is_none_of_the_overrides_in_either_spelling(
    words: list[str], option: str, value: object
) -> None:
    options = parse([*words, "seed=4", "--optim.lr=0.1"])

    assert getattr(options, option) == value
    assert options.overrides == ["seed=4", "optim.lr=0.1"]


@pytest.mark.parametrize("spelling", ["before", "after", "with ="])
def test_configurations_of_a_folder_that_is_named_are_found(
    spelling: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("CROSSWALK_CONFIG_PATH", "")  # restored after the test
    (tmp_path / "trainer").mkdir()
    (tmp_path / "trainer" / "mine.yaml").write_text("defaults: [cpu]\nmax_steps: 7\n")
    named = (
        [f"--config-dir={tmp_path}"] if spelling == "with =" else ["--config-dir", str(tmp_path)]
    )
    words = ["config", "show", "trainer=mine"]

    status = main([*named, *words] if spelling == "before" else [*words, *named])

    assert status == 0
    assert "max_steps: 7\n" in capsys.readouterr().out


def test_an_option_that_a_command_lacks_is_an_override_only_with_its_value(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert parse(["train", "--seed=3"]).overrides == ["seed=3"]
    with pytest.raises(SystemExit):
        parse(["train", "--seed", "3"])
    assert "not understood: --seed 3; overrides are written" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["evaluate", "sweep", "ablate"])
def test_a_file_whose_name_looks_like_an_override_is_a_file(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("lr=1", "seed=3"):
        (tmp_path / name).touch()

    options = parse([command, "lr=1", "seed=3"])

    assert "lr=1" in {str(value) for value in vars(options).values()}
    assert options.overrides == ["seed=3"]


def test_train_hands_over_the_composed_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def train(config: Any) -> None:  # noqa: ANN401
        seen.append(config)

    stand_in(monkeypatch, "crosswalk.run.train", train=train)
    new = ("+new=0.5", "method.loss.margin=${new}")

    status = main(["train", "method=rde", "--seed=4", "--data.noise_rate=0.5", *new])

    assert status == 0
    assert seen[0].seed == 4
    assert seen[0].data.noise_rate == 0.5
    assert seen[0].new == seen[0].method.loss.margin == 0.5


@pytest.mark.parametrize("first", [True, False])
def test_the_first_process_reports_on_what_it_trained(
    first: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = types.SimpleNamespace(path="runs/it")
    trained = types.SimpleNamespace(folder=folder, data="data")
    stand_in(monkeypatch, "crosswalk.run.train", train=lambda config: trained if first else None)
    report = {"write_report": lambda folder, data: f"{folder.path}/report.html of {data}"}
    stand_in(monkeypatch, "crosswalk.lab.report.report", **report)
    monkeypatch.setattr(sys, "argv", ["env/crosswalk", "train"])
    monkeypatch.setenv("PATH", "")

    assert main(["train"]) == 0

    search = "env/crosswalk index runs/it photos/ --out photos.gallery"
    said = ["Report: runs/it/report.html of data", f"To search pictures of yours with it: {search}"]
    assert capsys.readouterr().out.splitlines() == (said if first else [])
    monkeypatch.setenv("CROSSWALK_STAGE", "stage")
    assert main(["train"]) == 0
    assert capsys.readouterr().out.splitlines() == (said[:1] if first else [])


def test_a_report_that_fails_does_not_fail_the_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*arguments: object) -> None:
        raise KeyError("odd")

    trained = types.SimpleNamespace(folder=types.SimpleNamespace(path="runs/it"), data=None)
    stand_in(monkeypatch, "crosswalk.run.train", train=lambda config: trained)
    stand_in(monkeypatch, "crosswalk.lab.report.report", write_report=fail)

    assert main(["train"]) == 0
    said = capsys.readouterr()
    assert "Report" not in said.out
    assert "no report was written (KeyError: 'odd')" in said.err
    assert "`crosswalk report runs/it` tries again" in said.err


def test_evaluate_hands_over_folder_and_overrides(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[Any] = []

    def evaluate(folder: Path, overrides: Sequence[str]) -> None:
        seen.append((folder, overrides))

    stand_in(monkeypatch, "crosswalk.run.train", evaluate=evaluate)

    RunFolder(tmp_path).save_config(to_plain(compose()))
    (tmp_path / "pairs.csv").write_text("image,caption,person_id,split\n1.jpg,a man,1,test\n")
    overrides = ["data=own_pairs", f"data.root={tmp_path / 'pairs.csv'}"]

    assert main(["evaluate", str(tmp_path), *overrides]) == 0
    assert seen == [(tmp_path, overrides)]


@pytest.mark.parametrize("name", ["own", "own-2026", "rde-own_piars-20261130-074449"])
def test_the_run_that_is_meant_is_named(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = "own-2026-1" if name.startswith("own") else "rde-own_pairs-20261130-074449"
    RunFolder(tmp_path / "runs" / run).save_config({})
    monkeypatch.chdir(tmp_path)

    for command in ("evaluate", "report", "card"):
        assert main([command, f"runs/{name}"]) == 2
        assert f"Did you mean runs/{run}?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("override", "trained"),
    [
        ("method=mmcl", ", with method=rde"),
        ("encoder=timm", ", with encoder=clip_tiny"),
        ("experiment=rde/pretrain_tiny", ", with experiment=rde/synthetic_pairs"),
        ("stage=mar", ""),
    ],
)
def test_evaluate_keeps_the_parts_of_the_model(
    override: str, trained: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    RunFolder(tmp_path).save_config(to_plain(compose()))

    assert main(["evaluate", str(tmp_path), override]) == 2

    key = override.partition("=")[0]
    said = f"{key} belongs to the model, which is evaluated as it was trained{trained}. Leave it"
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("optim.lr=3", "optim.lr would have no effect: an evaluation does not read it. Leave it"),
        (
            "bs=8",
            "bs would have no effect: an evaluation does not read it. Did you mean data.eval_",
        ),
        ("optim=adam_warmup_step", "optim would have no effect"),
        ("trainer.max_epochs=3", "trainer.max_epochs would have no effect"),
        ("trainer={max_epochs: 3}", "trainer.max_epochs would have no effect"),
        ("trainer.gradient_clip_val=1", "trainer.gradient_clip_val would have no effect"),
        ("method.loss.margin=3", "method.loss.margin would have no effect"),
        ("encoder.clip.pretrained=openai", "The weights are those of the model"),
        *((f"{key}=3", f"{key} would have no effect") for key in ("seed", "name", "tags", "+new")),
        ("split=val", "Val and test are both evaluated"),
        ("+split=val", "Val and test are both evaluated"),
        ("output_dir=there", "The results go to evaluations/ in the folder of the run"),
        ("dta=own_pairs", "Did you mean data?"),
        ("trainer.device=1", "Did you mean trainer.devices?"),
    ],
)
def test_evaluate_refuses_what_it_does_not_read(
    override: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    RunFolder(tmp_path).save_config(to_plain(compose()))

    assert main(["evaluate", str(tmp_path), override]) == 2

    assert said.replace("+", "") in capsys.readouterr().err


@pytest.mark.parametrize("model", ["run", "tiny:rde"])
@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("data.batchsize=3", "of the training alone. Did you mean data.eval_batch_size?"),
        ("data.noise_rat=0.5", "data.noise_rate is of the training alone. Leave it out."),
        ("data.eval_batchsize=3", "Did you mean data.eval_batch_size?"),
    ],
)
def test_evaluate_suggests_nothing_that_it_does_not_read(
    model: str, override: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    RunFolder(tmp_path).save_config(to_plain(compose()))
    words = [model, "data=synthetic_pairs"] if model != "run" else [str(tmp_path)]

    assert main(["evaluate", *words, override]) == 2

    assert said in capsys.readouterr().err


@pytest.mark.parametrize("model", ["run", "tiny:rde"])
@pytest.mark.parametrize(
    "override",
    [
        *("data.noise_rate=0.5", "data.noise_seed=2", "data.plan=null", "data.batch_size=32"),
        *("data.sweep=clean", "data.transform.text_augmentation=false", "data={batch_size: 3}"),
        *("data.plan.samples_per_person=4", "data.camstyle=on", "data.source.camstyle=on"),
        *("data.target.batch_size=3", "data.target.transform.flip_probability=1"),
    ],
)
def test_evaluate_refuses_what_the_data_have_for_the_training_alone(
    model: str, override: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    RunFolder(tmp_path / "run").save_config(to_plain(compose()))
    words = [str(tmp_path / "run")] if model == "run" else [model, "data=synthetic_pairs"]

    assert main(["evaluate", *words, override]) == 2

    said = capsys.readouterr().err
    assert " would have no effect: it is of the training alone, and an evaluation does not" in said


def test_evaluate_says_that_best_and_last_are_both_evaluated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    RunFolder(tmp_path).save_config(to_plain(compose()))

    assert main(["evaluate", str(tmp_path), "checkpoint=last"]) == 2

    assert "best and last are both evaluated" in capsys.readouterr().err


def test_a_checkpoint_in_its_run_is_told_what_evaluates_it_on_the_data_of_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunFolder(tmp_path / "my run")
    run.save_config(to_plain(compose()))
    run.best_checkpoint.write_bytes(b"weights")

    assert main(["evaluate", str(run.best_checkpoint)]) == 2

    said = capsys.readouterr().err
    assert f"{run.best_checkpoint} alone needs data=<data set> data.root=<folder>" in said
    assert f"`crosswalk evaluate '{run.path}'` evaluates the checkpoints of its run" in said


@pytest.mark.parametrize(
    "override",
    [
        *("method.test_feature=neck", "trainer=cpu", "trainer.precision=bf16-mixed", "logger=csv"),
        *("reranking=k_reciprocal", "protocol=val", "data.eval_batch_size=4", "trainer.devices=2"),
    ],
)
def test_evaluate_takes_what_it_reads(
    override: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr("crosswalk.run.train.evaluate", lambda *given: asked.append(given))
    RunFolder(tmp_path).save_config(to_plain(compose(["method=mmcl"])))

    assert main(["evaluate", str(tmp_path), override]) == 0

    assert asked == [(tmp_path, [override])]


def test_a_method_of_ones_own_may_read_any_of_its_keys_in_an_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = to_plain(compose(["method=mmcl"]))
    config["method"]["_target_"] = "mine.Method"
    RunFolder(tmp_path).save_config(config)
    monkeypatch.setattr("crosswalk.run.train.evaluate", lambda *given: None)

    assert main(["evaluate", "--trust", str(tmp_path), "method.loss.ratio=0.5"]) == 0


def test_evaluate_may_name_the_method_of_the_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stand_in(monkeypatch, "crosswalk.run.train", evaluate=lambda folder, overrides: None)
    RunFolder(tmp_path).save_config(to_plain(compose()))

    assert main(["evaluate", str(tmp_path), "method=rde"]) == 0


def test_compare_asks_for_what_it_needs_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["compare", "runs/a"])

    assert capsys.readouterr().err.endswith("the following arguments are required: RUN_B\n")


def test_evaluate_of_nothing_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "runs/none"]) == 2
    assert "runs/none does not exist. Name a run folder" in capsys.readouterr().err


def test_data_commands_hand_over_their_options(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def record(*values: object) -> int:
        seen.append(values)
        return 1

    stand_in(monkeypatch, "crosswalk.doctor.pairs", run_check=record)
    stand_in(monkeypatch, "crosswalk.synthetic.generate", run_synthesize=record)

    assert main(["data", "check", "/d", "--dataset", "cuhk_pedes", "--json", "r.json"]) == 1
    assert main(["data", "synthesize", "out", "--kind", "pairs", "--size", "small"]) == 1
    images = ["--kind", "images", "--layout", "msmt17", "--size", "tiny", "--seed", "7"]
    assert main(["data", "synthesize", "out", *images]) == 1
    assert seen == [
        ("/d", "cuhk_pedes", "r.json"),
        ("out", "pairs", "small", 0, None),
        ("out", "images", "tiny", 7, "msmt17"),
    ]


def test_config_show_prints_resolved_yaml(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "show", "data.noise_rate=0.5"]) == 0

    text = capsys.readouterr().out
    assert "noise_rate: 0.5\n" in text
    assert "max_iter: 100\n" in text
    assert "${" not in text


def test_config_diff_compares_with_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "diff", "data.noise_seed=2"]) == 0
    assert capsys.readouterr().out == "data.noise_seed: 1 -> 2\n"
    assert main(["config", "diff", "method=rde"]) == 0
    assert capsys.readouterr() == ("", "note: no key differs.\n")


@pytest.mark.parametrize(
    ("sides", "said"),
    [
        (["optim.lr=fast"], "optim.lr='fast' is of type str"),
        (["runs/a", "runs/b"], "runs/a is no run folder"),
        (["rde"], "Overrides are key=value, several of them in quotes."),
    ],
)
def test_config_diff_refuses_what_is_no_side(
    sides: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["config", "diff", *sides]) == 2
    assert said in capsys.readouterr().err


def test_a_sentence_without_quotes_is_told_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["search", "photos.gallery", "a", "man", "in", "red"])
    assert "not understood: man in red; several words stand in quotes" in capsys.readouterr().err


def test_config_diff_reads_run_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, rate in (("a", 0.1), ("b", 0.2)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text(f"optim: {{lr: {rate}}}\nseed: 1\n")

    assert main(["config", "diff", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    assert capsys.readouterr().out == "optim.lr: 0.1 -> 0.2\n"


def test_config_diff_looks_nothing_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SECRET", "told to nobody")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text(f"data: {{root: '${{oc.env:SECRET}}/{name}'}}")

    assert main(["config", "diff", str(tmp_path / "a"), str(tmp_path / "b")]) == 0

    assert capsys.readouterr().out == "data.root: ${oc.env:SECRET}/a -> ${oc.env:SECRET}/b\n"


def test_a_mistake_is_one_line_and_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "show", "methd=rde"]) == 2

    error = capsys.readouterr().err
    assert error.startswith("crosswalk: methd is not a key")
    assert error.count("\n") == 1


@pytest.mark.parametrize("how", ["--debug", "CROSSWALK_DEBUG"])
def test_debug_shows_where_a_mistake_was_found(
    how: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if how.startswith("--"):
        words = ["config", "show", "methd=rde", "--debug"]
    else:
        monkeypatch.setenv(how, "1")
        words = ["config", "show", "methd=rde"]

    assert main(words) == 2
    assert "Traceback" in capsys.readouterr().err


def test_a_value_error_of_a_library_keeps_its_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def train(config: object) -> int:
        raise ValueError("deep inside a library")

    stand_in(monkeypatch, "crosswalk.run.train", train=train)

    assert main(["train"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_missing_extra_is_one_line_and_a_broken_import_keeps_its_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in(monkeypatch, "crosswalk.run.train", train=lambda config: _textblob_parser())
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    _textblob_parser.cache_clear()

    assert main(["train"]) == 2
    said = capsys.readouterr().err.removeprefix(BEGUN)
    assert said.startswith("crosswalk: backend=textblob of the noun phrases need")

    monkeypatch.setitem(sys.modules, "crosswalk.run.train", None)
    assert main(["train"]) == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        *("train data=own_pairs data.root={}", "train checkpoint={}", "evaluate {}", "report {}"),
        *("data check {}", "sweep {}", "ablate {}", "embed {} x --out x.npz"),
    ],
)
def test_a_name_that_is_too_long_for_the_system_is_one_line(
    words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "x" * 300

    status = main(words.format(name).split())

    said = capsys.readouterr().err
    assert status == 2
    assert said.startswith("crosswalk: ")
    assert name in said
    assert said.endswith("File name too long\n")
    assert said.count("\n") == 1


@pytest.mark.parametrize("number", [errno.ELOOP, errno.EISDIR, errno.ENAMETOOLONG, errno.EROFS])
def test_a_path_that_the_system_refuses_is_one_line(
    number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def train(config: object) -> None:
        raise OSError(number, os.strerror(number), "pairs.csv")

    stand_in(monkeypatch, "crosswalk.run.train", train=train)

    assert main(["train"]) == 2
    assert capsys.readouterr().err == f"{BEGUN}crosswalk: pairs.csv: {os.strerror(number)}\n"


def test_what_a_run_says_of_its_state_is_one_line_and_status_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    RunFolder(tmp_path).save_config({})
    evaluation = RunFolder(tmp_path / "evaluations" / "toy-last-01234567")

    def train(config: object) -> None:
        with evaluation.being_evaluated():
            pass

    stand_in(monkeypatch, "crosswalk.run.train", train=train)

    with evaluation.being_evaluated():
        assert main(["train"]) == 1

    said = capsys.readouterr().err.removeprefix(BEGUN)
    assert said.startswith(f"crosswalk: another process evaluates into {evaluation.path}. Wait")
    assert said.count("\n") == 1


def test_a_word_that_is_no_override_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["train", "rde"])

    assert ended.value.code == 2
    assert "not understood: rde; overrides are written key=value" in capsys.readouterr().err


def test_interrupting_ends_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def train(config: object) -> int:
        raise KeyboardInterrupt

    stand_in(monkeypatch, "crosswalk.run.train", train=train)

    assert main(["train"]) == 130


def test_a_closed_pipe_is_no_error() -> None:
    shell = f"{sys.executable} -m crosswalk config show | head -n 1; exit ${{PIPESTATUS[0]}}"

    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=False)

    assert done.stderr == ""
    assert done.returncode == 0


def test_config_show_prints_and_refuses_what_training_would(
    capsys: pytest.CaptureFixture[str],
) -> None:
    status = main(["config", "show", "method=rde", "encoder.select_ratio=much"])

    output = capsys.readouterr()
    assert status == 2
    assert "select_ratio: much" in output.out
    assert "encoder.select_ratio='much'" in output.err


def test_config_show_names_what_is_still_to_be_set(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "show", "method=rde", "data.root=???"]) == 0
    assert "still to be set: data.root" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["sweep", "rde", "--seed=-1"],
        ["sweep", "rde", "--seed", "-1"],
        ["data", "synthesize", "x", "--seed", "-1"],
    ],
)
def test_an_option_that_counts_takes_no_negative_number(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(words)

    assert ended.value.code == 2
    assert "'-1' is no whole number from 0 on" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "override"),
    [
        ("train", "data.root=nowhere"),
        ("train", "checkpoint=nowhere.ckpt"),
        ("train", "data.noise_index=nowhere.npy"),
        ("train", "encoder.clip.pretrained=nowhere.pt"),
        ("train method=mmcl", "encoder.backbone.pretrained=./weights/nowhere"),
        ("train method=cmmt", "data.tokenizer.vocabulary=nowhere.json"),
        ("train method=mar data=dukemtmc_to_market1501", "data.source.root=nowhere"),
    ],
)
def test_a_path_that_does_not_exist_is_named_before_torch(
    words: str, override: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words.split(), override]) == 2
    assert f"{override} does not exist" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "given"),
    [
        ("train output_dir=there/runs", "output_dir=there/runs"),
        (f"ablate {TABLE} --data synthetic_pairs --output-dir there", "--output-dir there"),
        ("sweep rde --local --output-dir there", "--output-dir there"),
    ],
)
def test_a_file_in_the_place_of_the_folder_of_runs_is_named_before_torch(
    words: str,
    given: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").write_text("a file")

    assert main(words.split()) == 2

    told = f"{given}: {tmp_path / 'there'} is no folder that may be written to"
    assert told in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_a_text_of_a_run_is_no_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    RunFolder(tmp_path).save_config(to_plain(compose(["method=rde"])))
    (tmp_path / "results.json").write_text("{}")

    assert main(["train", "method=rde", f"checkpoint={tmp_path}/results.json"]) == 2

    told = capsys.readouterr().err
    assert f"checkpoint={tmp_path}/results.json is a text, and holds no weights" in told
    assert f"checkpoint={tmp_path} takes those of its run" in told


@pytest.mark.parametrize("words", [["data.root=nowhere"], []])
def test_an_evaluation_names_data_that_do_not_exist(
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = to_plain(compose(["method=mmcl", "data=own_images", f"data.root={tmp_path}/gone"]))
    RunFolder(tmp_path).save_config(config)
    monkeypatch.setattr("crosswalk.run.train.evaluate", None)  # it is not asked

    assert main(["evaluate", str(tmp_path), *words]) == 2

    named = words[0] if words else f"data.root={tmp_path}/gone"
    assert f"{named} does not exist" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "method", "gone"),
    [
        ([], "cmmt", "data.tokenizer.vocabulary"),
        (["trainer.devices=1"], "cmmt", "data.tokenizer.vocabulary"),
        ([], "rde", "data.noise_index"),
    ],
)
def test_an_evaluation_needs_no_file_of_the_training_alone(
    words: list[str], method: str, gone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = ["data=own_pairs", f"data.root={tmp_path}", f"{gone}={tmp_path}/gone"]
    (tmp_path / "pairs.csv").write_text("image,caption,person_id,split\n1.jpg,a man,1,test\n")
    RunFolder(tmp_path).save_config(to_plain(compose([f"method={method}", *overrides])))
    if method == "cmmt":
        RunFolder(tmp_path).vocabulary_file.write_text("{}")
    asked = []
    monkeypatch.setattr("crosswalk.run.train.evaluate", lambda *given: asked.append(given))

    assert main(["evaluate", str(tmp_path), *words]) == 0

    assert asked == [(tmp_path, words)]


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (["-m", "method=rde", "optim.lr=1e-3,1e-4"], "`crosswalk sweep <file>`"),
        (["method=rde", "--multirun"], "`crosswalk sweep <file>`"),
        (["method=rde", "--cfg", "job"], "`crosswalk config show method=<method>`"),
    ],
)
def test_options_of_hydra_have_their_place(
    capsys: pytest.CaptureFixture[str], words: list[str], advice: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["train", *words])
    assert advice in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("command", ["evaluate", "embed", "audit", "data check", "compare"])
def test_a_signal_ends_a_command_with_one_line(
    command: str,
    number: signal.Signals,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]

    def stopped(options: object) -> int:
        child = os.fork()  # as a loader's worker, which the same Ctrl-C reaches
        if child == 0:
            os.kill(os.getpid(), signal.SIGINT)
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        try:
            os.kill(os.getpid(), number)
            time.sleep(60)
        except SystemExit as error:
            raise RuntimeError("a worker is gone") from error
        return 0

    stand_in(
        monkeypatch,
        f"crosswalk.commands.{command.replace(' ', '_')}",
        configure=lambda parser: None,
        run=stopped,
    )

    assert main(command.split()) == 128 + number

    assert capsys.readouterr().err == f"crosswalk: interrupted by {number.name}\n"
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == handlers


@pytest.mark.parametrize(
    "words",
    ["compare a b --out file/page.html", "audit a --out file/x.csv", "report a --out file/x"],
)
def test_a_page_that_cannot_be_written_is_refused_before_the_work(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in "ab":
        RunFolder(Path(name)).save_config({})
    Path("file").touch()

    assert main(words.split()) == 2

    assert f"{tmp_path / 'file'} is no folder that may be written to" in capsys.readouterr().err


def test_what_the_package_warns_of_reads_like_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    main(["--version"])

    ours, other = str(Path(cli.__file__).parent / "methods" / "mmcl.py"), "elsewhere.py"

    assert warnings.formatwarning("Raise it.", UserWarning, ours, 1) == "note: Raise it.\n"
    assert warnings.formatwarning("Raise it.", UserWarning, other, 1) == (
        "elsewhere.py:1: UserWarning: Raise it.\n"
    )

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from crosswalk.cli import main
from crosswalk.config.check import check
from crosswalk.config.compose import compose, diagnostics_of, restore
from crosswalk.config.overrides import parse_overrides
from crosswalk.config.plain import to_plain
from crosswalk.config.search import PATH_VARIABLE, group_values
from crosswalk.config.stage import stage_overrides
from crosswalk.config.stored import check_overrides, check_stored, read_yaml, trusting
from crosswalk.lab.compare.audit import run_audit
from crosswalk.lab.report.report import run_report

FOREIGN = [
    "os.system",
    "builtins.eval",
    "subprocess.Popen",
    "crosswalk.files.os.system",  # what a module of ours imports
    "crosswalk.files.write_text",  # a function of ours that no configuration names
    "crosswalk.run.train.train",
    "crosswalk.cli.main",
    "crosswalk.__main__.main",
    "crosswalk.config.build.construct",
    "crosswalk.methods.rde.RDE.load_from_checkpoint",
    "crosswalk.encoders.resnet.nn.Module",
    "crosswalk.diagnostics.base.Path",
    "torch.load",
    "torch.hub.load",
    "torch.nn.modules.module.importlib.import_module",
    "torch.optim.sys.exit",
    "lightning.pytorch.Trainer",
    "lightning.pytorch.strategies.os.system",
    "timm.create_model",
    "timm.layers.config.os.system",
    "open_clip.hf_model.HFTextEncoder",
    "numpy.load",
    "",
    ".",
    "os",
    17,
    ["os.system"],
    None,
]
KNOWN = [
    "torch.nn.Identity",
    "torch.nn.ReLU",
    "torch.optim.lr_scheduler.StepLR",
    "lightning.pytorch.strategies.DDPStrategy",
    "timm.layers.DropPath",
    "crosswalk.memory.cluster_memory.ClusterMemory",
    "crosswalk.encoders.token_selection.average_pool",
    "crosswalk.data.pipeline.plans.shuffled_plan",
]


@pytest.mark.parametrize("target", FOREIGN, ids=str)
def test_other_code_is_refused_wherever_it_stands(target: object) -> None:
    node = {"_target_": target, "command": "true"}
    places: dict[str, dict[str, Any]] = {
        "optim._target_": {"optim": node},
        "data.reader._target_": {"data": {"reader": node}},
        "optim.rules.1._target_": {"optim": {"rules": [{}, node]}},
        "trainer.strategy._target_": {"trainer": {"strategy": node}},
        "loss._target_": {"loss": {"_partial_": True, "_args_": [1], **node}},
        "stage.overrides.optim._target_": {"stage": {"overrides": {"optim._target_": target}}},
    }

    for key, config in places.items():
        with pytest.raises(ValueError, match=re.escape(f"it.yaml: {key}={target!r}")) as refused:
            check_stored(config, "it.yaml")
        assert "--trust" in str(refused.value)


@pytest.mark.parametrize("target", KNOWN)
def test_what_configurations_are_made_of_is_known(target: str) -> None:
    check_stored({"part": [{"_target_": target}]}, "it.yaml")


@pytest.mark.parametrize("run", group_values("experiment"))
def test_every_published_run_may_be_opened(run: str) -> None:
    method = run.split("/")[0]

    config = compose([f"method={method}", f"experiment={run}", "++data.root=/x"])

    check_stored(to_plain(config), "it.yaml")


def test_the_user_may_trust_all_or_some() -> None:
    foreign = {"optim": {"_target_": "os.getcwd"}}

    with trusting():
        check_stored(foreign, "it.yaml")
    with trusting(["os.getcwd"]):
        check_stored(foreign, "it.yaml")
    with trusting(["os.getpid"]), pytest.raises(ValueError, match=r"os\.getcwd"):
        check_stored(foreign, "it.yaml")
    with pytest.raises(ValueError, match=r"os\.getcwd"):
        check_stored(foreign, "it.yaml")


def test_only_folders_that_somebody_named_make_a_target_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "configs" / "loss"
    mine.mkdir(parents=True)
    (mine / "mine.yaml").write_text("loss: {_target_: mypackage.losses.hinge}\n")
    stored = {"loss": {"_target_": "mypackage.losses.hinge"}}
    monkeypatch.chdir(tmp_path)

    with pytest.raises(ValueError, match=r"mypackage\.losses"):
        check_stored(stored, "it.yaml")  # beside the run it may have come with the run
    monkeypatch.setenv(PATH_VARIABLE, "configs")
    check_stored(stored, "it.yaml")


def test_a_stored_configuration_looks_nothing_up() -> None:
    with pytest.raises(ValueError, match=r"it\.yaml: data\.root='\$\{oc\.env:HOME\}'"):
        check_stored({"data": {"root": "${oc.env:HOME}"}}, "it.yaml")


@pytest.mark.parametrize(
    "override",
    [
        "optim._target_=os.system",
        "+loss={_target_: os.system}",
        "data.readers=[{_target_: os.system}]",
        "++stage.overrides.optim._target_=os.system",
        "optim=${oc.decode:'{_target_: os.system}'}",
        "data.root=${oc.env:HOME}",
    ],
)
def test_a_table_or_a_sweep_file_names_no_other_code(override: str) -> None:
    with pytest.raises(ValueError, match=r"table\.yaml: "):
        check_overrides(parse_overrides([override]), "table.yaml")


def test_a_table_may_name_what_is_known_and_refer_to_its_own_values() -> None:
    lines = ["~loss", "data.seed=${seed}", "+a={_target_: torch.nn.Identity}"]

    check_overrides(parse_overrides(lines), "table.yaml")


def test_the_choices_of_a_stage_are_files_of_groups() -> None:
    stage = {"choices": {"+loss": "{_target_: os.system}"}, "overrides": {}}

    with pytest.raises(ValueError, match=r"stage\.choices: \+loss"):
        stage_overrides({"stage": stage})


def bomb(levels: int) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    for level in range(1, levels):
        lines.append(f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]")
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (bomb(9), "aliases make more than"),
        ("a: &a [*a]", "holds itself"),
        ("a: *b", "no value"),
        ("[" * 100_000, "nested deeper than 40"),
        ("a: " + "{b: " * 50 + "1" + "}" * 50, "nested deeper than 40"),
        ("x: " + "y" * 1_100_000, "1100003 bytes"),
        ("seed: !!python/object/apply:os.system ['true']", "os.system"),
        ("seed: !other 1", "!other"),
        ("seed: [1", "not valid YAML"),
        ("seed: 1\n\tname: x", "not valid YAML"),
        ("seed: 2026-13-45", "not valid YAML"),
        ("\x00", "not valid YAML"),
    ],
    ids=lambda text: text[:20],
)
def test_a_yaml_file_that_is_no_plain_one_is_refused_by_name(
    tmp_path: Path, text: str, why: str
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)

    with pytest.raises(ValueError, match=re.escape(str(path))) as refused:
        read_yaml(path)
    assert why in str(refused.value)


def test_aliases_of_a_usual_size_are_read(tmp_path: Path) -> None:
    shared = [256, 128]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"a": shared, "b": {"c": shared}}))

    assert read_yaml(tmp_path / "config.yaml") == {"a": [256, 128], "b": {"c": [256, 128]}}


@pytest.mark.parametrize(
    "kind", ["!!pairs [x: {}]", "!!omap [x: {}]", "!!set {x, y}", "!!binary eA=="]
)
def test_a_yaml_file_holds_no_other_containers_than_a_configuration(
    tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "config.yaml"
    node = "{_target_: os.system, command: 'true'}"
    path.write_text(f"trainer: {{anything: {kind.replace('{}', node)}}}")

    with pytest.raises(ValueError, match=r"config\.yaml is not valid YAML: .* is a "):
        read_yaml(path)


@pytest.mark.parametrize("kind", [list, tuple])
def test_other_code_is_refused_in_every_kind_of_sequence(kind: type) -> None:
    with pytest.raises(ValueError, match=r"a\.0\.1\._target_='os\.system'"):
        check_stored({"a": kind([("x", {"_target_": "os.system"})])}, "it.yaml")
    with pytest.raises(ValueError, match="interpolation"):
        check_stored({"a": kind([("x", "${seed}")])}, "it.yaml")


@pytest.mark.parametrize("key", ["profiler._target_@x", "profiler/_target_", "a=1,b", "a[b]", "~a"])
def test_the_keys_of_a_stage_are_nothing_but_keys(key: str) -> None:
    overrides = {"trainer": {key: "os.system"}}
    stage = {"choices": {"method": "supervised"}, "overrides": overrides}
    flat = {f"stage.overrides.trainer.{key}": "os.system"}

    for stored in ({"stage": stage}, flat):
        with pytest.raises(ValueError, match=r"it\.yaml: stage\.overrides\.trainer\."):
            check_stored(stored, "it.yaml")
    with pytest.raises(ValueError, match=r"stage\.overrides: trainer\."):
        stage_overrides({"stage": stage})


@pytest.mark.parametrize(
    "begin", ["+stage={choices: {method: supervised}, overrides: ", "stage.overrides="]
)
def test_a_table_gives_a_stage_nothing_but_keys(begin: str) -> None:
    line = begin + "{trainer.profiler._target_@x: os.system}" + "}" * begin.startswith("+")

    with pytest.raises(ValueError, match=r"table\.yaml: stage\.overrides\.trainer\.profiler"):
        check_overrides(parse_overrides([line]), "table.yaml")


@pytest.mark.parametrize("key", ["image_size", "context_length"])
def test_the_sizes_that_a_checkpoint_brings_name_no_other_code(tmp_path: Path, key: str) -> None:
    stored = to_plain(compose(["method=rde", "encoder=resnet50"]))
    stored["data"][key] = {"_target_": "os.system", "command": "true"}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(stored))

    with pytest.raises(ValueError, match=rf"config\.yaml: data\.{key}\._target_='os\.system'"):
        compose(["method=rde", f"checkpoint={tmp_path}"])


@pytest.fixture
def foreign_configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``configs/`` of the working folder with a method that brings other code along."""
    folder = tmp_path / "configs" / "method"
    folder.mkdir(parents=True)
    brought = "{_target_: os.getcwd}"
    (folder / "theirs.yaml").write_text(
        "# @package _global_\ndefaults: [rde, _self_]\n"
        f"diagnostics: [{brought}]\ntrainer: {{profiler: {brought}}}\n"
        f"data: {{reader: {brought}}}\n"
    )
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.mark.usefixtures("foreign_configs")
def test_a_method_beside_the_run_brings_no_other_code() -> None:
    plain = to_plain(compose(["method=supervised"]))
    stage = {"choices": {"method": "theirs"}, "overrides": {}, "load": {}}
    with_stage = {**plain, "stage": stage}
    chosen = {"choices": {"method": "theirs"}}

    with pytest.raises(ValueError, match=r"diagnostics\.0\._target_='os\.getcwd'"):
        diagnostics_of(chosen)
    with pytest.raises(ValueError, match=r"stage.*it\.yaml: .*_target_='os\.getcwd'"):
        check(with_stage, stored=Path("it.yaml"))
    with pytest.raises(ValueError, match=r"data\.reader\._target_='os\.getcwd'"):
        restore({**plain, **chosen}, ["data=synthetic_pairs"])
    restore(plain, ["data=synthetic_pairs"])
    with trusting():
        assert diagnostics_of(chosen) == [{"_target_": "os.getcwd"}]


@pytest.mark.parametrize("command", [run_report, run_audit])
def test_a_file_to_write_is_not_held_against_data_of_other_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Callable[[Path, Path], int]
) -> None:
    monkeypatch.setattr("crosswalk.lab.compare.audit.division_of", lambda *_: None)
    data = {"root": str(tmp_path), "reader": {"_target_": "os.mkdir", "path": "made"}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"data": data, "method": {}}))

    with pytest.raises(ValueError, match=r"data\.reader\._target_='os\.mkdir'"):
        command(tmp_path, tmp_path / "page.csv")


@pytest.mark.parametrize(
    "part", ["optim", "data.reader", "data.transform", "reranking", "trainer.strategy"]
)
@pytest.mark.parametrize("command", ["evaluate {}", "report {}", "compare {} {} --checkpoint=last"])
def test_no_command_runs_what_a_run_folder_names(
    command: str, part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = to_plain(compose(["method=mmcl", "data=synthetic_images"]))
    *parents, last = part.split(".")
    node = config
    for name in parents:
        node = node[name]
    node[last] = {"_target_": "os.mkdir", "path": str(tmp_path / "made")}
    runs = [tmp_path / "one", tmp_path / "other"]
    for run in runs:
        run.mkdir()
        (run / "config.yaml").write_text(yaml.safe_dump(config))

    status = main(command.format(*runs).split())

    assert status == 2
    assert f"config.yaml: {part}._target_='os.mkdir' is none of" in capsys.readouterr().err
    assert not (tmp_path / "made").exists()


@pytest.mark.usefixtures("foreign_configs")
def test_a_table_and_a_sweep_bring_no_other_code_from_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    base = (
        "title: t\nsource: {paper: none, table: 1, verified: false}\nmetrics: [map]\nseeds: [1]\n"
    )
    table, sweep = tmp_path / "table.yaml", tmp_path / "sweep.yaml"
    rows = "rows: [{name: a, overrides: [], published: null}]\n"
    parameters = (
        "parameters: {optim.lr: {values: [0.1, 0.2]}}\nmetric: {name: val/rank1, goal: maximize}\n"
    )

    def said(method: str, *words: str) -> str:
        table.write_text(f"{base}base: [method={method}, data=synthetic_pairs]\n{rows}")
        sweep.write_text(
            f"method: grid\n{parameters}command: [crosswalk, train, method={method}, '${{args}}']\n"
        )
        for command in (["ablate", str(table)], ["sweep", str(sweep), "--local"]):
            main([*command, "--dry-run", "--output-dir", "out", *words])
        return capsys.readouterr().err

    refused = said("theirs")
    for path in (table, sweep):
        assert re.search(rf"{path}: .*_target_='os\.getcwd' is none of the", refused)
    assert "is none of the" not in said("supervised", "data=synthetic_images", "method=theirs")
    assert "is none of the" not in said("theirs", "--trust")
    monkeypatch.setenv(PATH_VARIABLE, "configs")
    assert "is none of the" not in said("theirs")

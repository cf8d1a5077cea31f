"""The keys of a configuration, and which of them say nothing about a run's numbers."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml

from crosswalk.files import load_yaml
from crosswalk.ranges import Count, Matching, Seed, WholeNumber

Name = Annotated[
    str, Matching(r"[\w.+=-]{1,150}", "letters, digits and . _ + = - only, at most 150 of them")
]
Words = Annotated[str, Matching(r"(?s).*\S.*", "at least one letter")]
Resumed = Annotated[
    str, Matching(r"(?s)(?!(?i:yes|no|on|off|y|n)$).*\S.*", "restart, or a run's folder")
]
Tag = Annotated[str, Matching(r"(?s).{1,64}", "1 to 64 characters")]  # W&B refuses longer ones
TOP: dict[str, Any] = {
    "seed": Seed,
    "output_dir": Words,
    "name": Name | None,
    "resume": bool | Resumed,
    "checkpoint": Words | None,
    "stage": Mapping[str, Any] | None,
    "checkpoint_every_n_steps": WholeNumber,
    "compile": bool,
    "bn_group_size": Count | None,
    "protocol": Literal["val", "official", "last"],
    "tags": Sequence[Tag],
    "diagnostics": Sequence[Any] | None,
    "source": str | None,
}
"""What the keys that belong to no group may be."""

NEEDED = ("method", "data", "optim", "trainer")
"""Groups that a run cannot be without."""

ENCODERS = ("encoder",)
"""Groups that are handed to the method by name."""

PARTS = (*NEEDED, *ENCODERS, "reranking", "logger")
"""Groups whose files have a part of their own name; those of others are within one of these."""

WITHOUT_EFFECT = (
    *("name", "output_dir", "resume"),  # where a run lies, and how it begins
    *("logger", "choices.logger", "tags"),  # who hears of it
    *("diagnostics", "trainer.enable_progress_bar", "trainer.log_every_n_steps"),  # who looks
    *("data.num_workers", "data.cache"),  # how fast it is
    "data.allow_outside",  # whom one trusts
)
"""Keys, or parts with all that is in them, that may differ between two runs of equal numbers."""

ROOTS = ("data.root", "data.source.root", "data.target.root")
"""Keys of folders of data; a run that goes on may have others, since the fingerprint tells whether
the data are the same."""

PATHS = re.compile(
    r"checkpoint|data\.((source|target)\.)?root|data\.(tokenizer\.vocabulary|noise_index)|"
    r"encoder\.(.+\.)?table\.file"
)
"""Keys of files and folders: a run holds them absolute, for commands in another folder.

What code of one's own takes under other keys may be from elsewhere, or no path at all."""

LIKE_A_FILE = re.compile(
    r"([.~]{0,2}/|\w:\\).*|[^:]*(/[^:]*/.*|\.(pth?|ckpt|safetensors|bin|npz|tar|pkl))"
)
"""Values of ``*.pretrained`` that are no tags of timm or open_clip, nor ``<owner>/<name>``."""

ASSETS = Path(__file__).parents[1] / "assets"
"""Weights that come with the package, named by their file names."""

MISSING = "(missing)"


def _by_word(called: Mapping[str, str]) -> dict[str, str]:
    """Return what each word means, of the words that things are called by."""
    return {word: meant for meant, words in called.items() for word in words.split()}


CALLED_ELSEWHERE = _by_word(
    {
        "optim.lr": "learning_rate lr base_lr init_lr initial_lr",
        "optim.weight_decay": "wd weight_decay",
        "trainer.max_epochs": "epochs epoch num_epochs n_epochs nb_epochs num_epoch total_epochs",
        "trainer.max_steps": "steps iters iterations max_iters max_iter num_iters num_steps",
        "trainer.devices": "gpus gpu num_gpus ngpus n_gpus gpu_ids gpu_id device_ids nproc",
        "trainer.accelerator": "device cuda use_gpu",
        "trainer.num_nodes": "nodes nnodes",
        "trainer.precision": "amp fp16 bf16 mixed_precision use_amp half",
        "trainer.gradient_clip_val": "grad_clip clip_grad clip_norm max_grad_norm grad_norm",
        "trainer.accumulate_grad_batches": "accumulate accumulation accum_steps grad_accum "
        "accumulation_steps gradient_accumulation_steps",
        "trainer.check_val_every_n_epoch": "eval_every val_every eval_period eval_interval "
        "val_interval eval_freq eval_step test_every",
        "trainer.log_every_n_steps": "log_every log_interval log_period print_freq log_freq",
        "data.batch_size": "bs batch batchsize train_batch_size ims_per_batch per_gpu_batch_size",
        "data.eval_batch_size": "test_batch_size val_batch_size eval_batch eval_bs test_bs",
        "data.num_workers": "workers n_workers num_worker nworkers",
        "data.root": "root_dir data_root data_dir datadir data_path dataset_root dataset_path path "
        "dir dataset_dir datasets_dir",
        "data.image_size": "img_size imgsize image_shape input_size size size_train resize height "
        "width",
        "data.context_length": "max_length max_len text_length caption_length seq_length",
        "data.noise_rate": "noise noise_ratio noisy_rate noise_level",
        "data.noise_index": "noise_file noise_index_file",
        "data": "dataset dataset_name data_name datasets",
        "method": "model model_name algorithm approach",
        "encoder": "backbone arch architecture network net visual_encoder",
        "optim": "optimiser optimizer_name optimizer scheduler lr_scheduler",
        "loss": "loss_name criterion loss_names",
        "logger": "wandb use_wandb tracker",
        "checkpoint": "ckpt weights weight pretrain load load_from ckpt_path checkpoint_path "
        "load_checkpoint init_from finetune model_path",
        "resume": "resume_from continue resume_path resume_from_checkpoint auto_resume",
        "output_dir": "output out out_dir outdir save_dir save_path log_dir work_dir exp_dir",
        "name": "exp_name run_name experiment_name exp run expname",
        "seed": "random_seed manual_seed rng_seed",
        "protocol": "selection model_selection",
        "compile": "torch_compile",
    }
)
"""What other programs of the field call a key, by its last part."""

CALLED_VALUES = _by_word(
    {
        "16-mixed": "amp fp16 float16 half mixed",
        "bf16-mixed": "bfloat16 bf16_mixed",
        "32-true": "fp32 float32 full",
        "64-true": "fp64 float64 double",
        "gpu": "cuda:0 gpus nvidia",
        "true": "yes on y",
        "false": "no off n none",
    }
)
"""What other programs call a value that is one of several choices."""

CALLED_FILES = _by_word(
    {
        "off": "none false no null disabled",
        "triplet_alignment": "tal",
        "similarity_distribution": "sdm",
        "info_nce": "itc infonce clip",
    }
)
"""What papers and other programs call a file of a group."""

SAME_NAMES = {"tau": "temperature", "temp": "temperature"}
"""Signs that papers write for a key, by its last part."""


def with_absolute_paths(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration whose `PATHS`, and weights that are files, are absolute.

    Example:
        >>> config = with_absolute_paths({"data": {"root": "sets", "seed": 1}, "checkpoint": None})
        >>> config["data"]["root"] == os.path.abspath("sets"), config["checkpoint"]
        (True, None)
    """

    def absolute(value: Any, key: str) -> Any:  # noqa: ANN401
        if isinstance(value, Mapping):
            inner = f"{key}." if key else ""
            return {name: absolute(each, f"{inner}{name}") for name, each in value.items()}
        if isinstance(value, list):
            return [absolute(each, key) for each in value]
        path = path_in(key, value)
        return value if path is None else str(path)

    whole: dict[str, Any] = absolute(config, "")
    return whole


def path_in(key: str, value: object) -> Path | None:
    """Return the file or folder that a value names, absolute; None for other values.

    Example:
        >>> path_in("encoder.clip.pretrained", "openai") is path_in("seed", "1") is None
        True
        >>> path_in("stage.overrides.data.root", "/sets").as_posix()
        '/sets'
    """
    if not isinstance(value, str) or not value:
        return None
    key = key.removeprefix("stage.overrides.")
    if not (key.endswith(".pretrained") or PATHS.fullmatch(key)):
        return None
    with contextlib.suppress(RuntimeError):  # ~ of a user that there is not
        path = Path(os.path.abspath(Path(value).expanduser()))
        if PATHS.fullmatch(key):
            return path
        if key.endswith(".pretrained") and (
            path.is_file() or (LIKE_A_FILE.fullmatch(value) and not (ASSETS / value).is_file())
        ):
            return path
    return None


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the config's leaves by dotted key.

    Example:
        >>> flatten({"seed": 1, "method": {"margin": 0.1}})
        {'seed': 1, 'method.margin': 0.1}
    """
    leaves: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            leaves |= flatten(value, f"{prefix}{key}.")
        else:
            leaves[f"{prefix}{key}"] = value
    return leaves


@cache  # asked for every key of every run of a table, again and again
def has_effect(key: str) -> bool:
    """Return whether a run's numbers may depend on a dotted key.

    Example:
        >>> [key for key in ("seed", "tags", "logger.wandb.project") if has_effect(key)]
        ['seed']
    """
    return not any(key == name or key.startswith(f"{name}.") for name in WITHOUT_EFFECT)


def compared(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the leaves that a run's numbers may depend on, by dotted key; paths are absolute.

    Example:
        >>> compared({"seed": 1, "name": "it", "method": {"margin": 0.1}})
        {'seed': 1, 'method.margin': 0.1}
    """
    leaves = flatten(with_absolute_paths(config))
    return {key: value for key, value in leaves.items() if has_effect(key)}


def differing_keys(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, str]:
    """Return "theirs → ours" of each key with an effect in which two configs differ.

    Example:
        >>> differing_keys({"seed": 2, "resume": True}, {"seed": 1, "resume": False})
        {'seed': '1 → 2'}
    """
    left, right = compared(_as_saved(ours)), compared(_as_saved(theirs))
    return {
        key: f"{right.get(key, MISSING)} → {left.get(key, MISSING)}"
        for key in sorted(left.keys() | right.keys())
        if left.get(key, MISSING) != right.get(key, MISSING)
    }


def idle_keys(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Return the keys without an effect in which two configs differ.

    Example:
        >>> idle_keys({"seed": 2, "data": {"num_workers": 2}}, {"seed": 1, "tags": []})
        ['data.num_workers', 'tags']
    """
    left, right = flatten(_as_saved(ours)), flatten(_as_saved(theirs))
    differing = (
        key for key in left.keys() | right.keys() if left.get(key) != right.get(key, MISSING)
    )
    return sorted(key for key in differing if not has_effect(key))


def _as_saved(config: Mapping[str, Any]) -> dict[str, Any]:
    try:  # with libyaml ten times as fast
        text = yaml.dump(dict(config), Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper))
    except UnicodeEncodeError:  # a path that is not UTF-8
        text = yaml.safe_dump(dict(config))
    saved: dict[str, Any] = load_yaml(text)
    return saved

"""The stage before a run: a training whose weights the run starts from.

``stage.choices`` (files of groups) and ``stage.overrides`` (values) compose the earlier run. It is
a run like any other, in ``<output_dir>/stages/<method>-<data>-<digest of its configuration>``: made
once, by a process of its own, and used again by every run that asks for the same configuration.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crosswalk.config.keys import compared, flatten
from crosswalk.config.stage import as_word, stage_command, stage_config
from crosswalk.config.stored import check_stored
from crosswalk.files import lock
from crosswalk.run.code_digest import code_digest
from crosswalk.run.run_folder import CHILD_VARIABLE, FIRST_VARIABLE, STAGE_VARIABLE, RunFolder

if TYPE_CHECKING:
    from torch import nn

OF_HARDWARE = ("trainer.accelerator", "trainer.devices", "data.eval_batch_size")
"""Keys that do not make it another stage: its weights are the same to rounding."""

OF_A_LAUNCH = ("TORCHELASTIC_", "SLURM_", "PL_", CHILD_VARIABLE, FIRST_VARIABLE)
OF_A_PROCESS = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
ADDRESS = ("MASTER_ADDR", "MASTER_PORT")


def stage_folder(config: Mapping[str, Any]) -> RunFolder:
    """Return where the stage of a run is, or will be.

    The name holds a digest of the stage's configuration and of the code that trains it; what only
    says where and how fast it runs is left out.

    Args:
        config: The plain configuration of the run.
    """
    stage = stage_config(config)
    kept = {key: value for key, value in compared(stage).items() if key not in OF_HARDWARE}
    digest = hashlib.sha256(json.dumps([code_digest(stage), kept], sort_keys=True).encode())
    choices = stage["choices"]
    name = f"{choices['method']}-{choices['data']}-{digest.hexdigest()[:12]}"
    return RunFolder(Path(config["output_dir"]) / "stages" / name)


def finished_stage(config: Mapping[str, Any]) -> RunFolder:
    """Return the finished stage of a run; train it first if there is none.

    Of several processes one trains, the others wait. A stage that was killed goes on where it was.

    Args:
        config: The plain configuration of the run.

    Raises:
        RuntimeError: If the stage failed.
    """
    folder = stage_folder(config)
    with lock(folder.path.with_name(f".{folder.name}.lock")):
        if not folder.is_finished:
            _train(config, folder)
    return folder


def _train(config: Mapping[str, Any], folder: RunFolder) -> None:
    if folder.path.exists() and folder.resume_checkpoint is None:
        shutil.rmtree(folder.path)  # it was stopped before its first checkpoint
    name = folder.name.rsplit("-", 1)[1]
    command = [
        *(sys.executable, "-m", "crosswalk", "train", *stage_command(config)),
        *(f"output_dir={folder.path.parent}", f"name={name}"),
    ]
    if folder.path.exists():
        # a run only continues with the very configuration that it began with
        began = flatten(folder.config())
        check_stored(began, folder.config_file)
        command += [f"{key}={as_word(began[key])}" for key in OF_HARDWARE if key in began]
        command.append("resume=true")
    print(
        f"This run starts from weights of another training, which is done first and kept in "
        f"{folder.path}.",
        file=sys.stderr,
        flush=True,
    )
    # a table of the stage is no result of this run: everything goes where progress goes
    environment = {**_own_environment(os.environ), STAGE_VARIABLE: folder.name}
    process = subprocess.Popen(command, env=environment, stdout=sys.stderr)
    try:
        status = process.wait()
    except BaseException:
        process.send_signal(signal.SIGTERM)
        process.wait()
        raise
    if status:
        raise RuntimeError(
            f"the stage in {folder.path} ended with status {status}; its own message is above. "
            f"Repeat it alone with: {' '.join(['crosswalk', *command[3:]])}"
        )


def _own_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without what makes this process one of several."""
    return {
        name: value
        for name, value in environment.items()
        if not name.startswith(OF_A_LAUNCH) and name not in (*OF_A_PROCESS, *ADDRESS)
    }


def load_stage(method: nn.Module, folder: RunFolder, parts: Mapping[str, str]) -> None:
    """Copy parts of a stage's last weights into ``method``.

    Args:
        method: The method that starts.
        folder: The finished stage.
        parts: Name of a part in the stage, and of the part here that takes its weights: ``{
            encoder.backbone: encoder.backbone, classifier: agents}``.

    Raises:
        ValueError: If a part does not exist on one of the sides, or names or shapes differ.
    """
    # late: the boards of tables and sweeps look at stages without torch
    from crosswalk.run.weights import saying_what_differs
    from crosswalk.weight_files import tensors_in

    stage = tensors_in(folder.last_checkpoint)
    for theirs, ours in parts.items():
        prefix = f"{theirs}."
        weights = {
            name.removeprefix(prefix): tensor
            for name, tensor in stage.items()
            if name.startswith(prefix)
        }
        if not weights:
            raise ValueError(
                f"stage.load.{theirs}: the stage in {folder.path} has no part {theirs!r}. It has "
                f"{sorted({name.split('.')[0] for name in stage})}."
            )
        try:
            part = method.get_submodule(ours)
        except AttributeError as error:
            raise ValueError(
                f"stage.load.{theirs}={ours}: the weights of {folder.path} do not fit, the method "
                f"has no part {ours}."
            ) from error
        begin = f"stage.load.{theirs}={ours}: the weights of {folder.path} do not fit"
        advice = "Give stage.choices and stage.overrides the encoder of the run."
        with saying_what_differs(begin, part, weights.copy, advice=advice):
            part.load_state_dict(weights)

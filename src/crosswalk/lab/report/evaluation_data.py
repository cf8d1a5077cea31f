"""The data a run was evaluated on, made again from its folder."""

from __future__ import annotations

from typing import Any

from crosswalk.run.run_folder import RunFolder


def evaluation_data(run_folder: RunFolder) -> Any:  # noqa: ANN401
    """Return the data module of a run: its images and captions by sample index.

    Annotations are read, images are not opened. A relative ``data.root`` is meant from the
    current folder, as it was when the run started.

    Args:
        run_folder: The run.

    Raises:
        FileNotFoundError: If the folder holds no run, or the data are not where they were.
        ValueError: If this version cannot read the run's configuration, or the data have changed.
    """
    from crosswalk.config.build import instantiate
    from crosswalk.config.compose import restore

    stored = run_folder.runnable_config(["choices", "data"])
    config = restore(stored, vocabulary=run_folder.kept_vocabulary)
    data = instantiate(config["data"])
    before = (run_folder.record().get("data") or {}).get("fingerprint")
    if before is not None and not data.is_fingerprint(before):
        raise ValueError(
            f"the data of {run_folder.path} have changed since it ran (data.root="
            f"{config['data'].get('root')}): what is shown would not be what the run saw. Put back "
            "the data it was run on, or run it again."
        )
    return data

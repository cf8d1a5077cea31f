"""The data a run was evaluated on, made again from its folder."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from typing import Any

from crosswalk.config.build import instantiate
from crosswalk.config.compose import restore
from crosswalk.config.construct import construct
from crosswalk.config.constructors import check_node
from crosswalk.config.plain import to_plain
from crosswalk.config.sources import read_signature
from crosswalk.data.contents import ImageContents, PairContents, TransferContents
from crosswalk.run.run_folder import RunFolder

CONTENTS = {
    "crosswalk.data.pairs.TextToImageData": PairContents,
    "crosswalk.data.images.ImageToImageData": ImageContents,
    "crosswalk.data.transfer.SourceTargetData": TransferContents,
}
"""What holds the records of a data module, with some of its arguments, but makes no batches."""


def evaluation_data(run_folder: RunFolder) -> Any:  # noqa: ANN401
    """Return the images and captions of a run's data by sample index.

    Annotations are read. Images are opened, by the data module itself, where broken ones are left
    out (``data.allow_missing``), and by data modules of others. A relative ``data.root`` is meant
    from the current folder, as it was when the run started.

    Args:
        run_folder: The run.

    Raises:
        FileNotFoundError: If the folder holds no run, or the data are not where they were.
        ValueError: If this version cannot read the run's configuration, or the data have changed.
    """
    stored = run_folder.runnable_config(["choices", "data"])
    config = restore(stored, vocabulary=run_folder.kept_vocabulary)
    node = to_plain(config["data"])
    if node["_target_"] in CONTENTS and not node.get("allow_missing", False):
        check_node(node, "data", frozenset({"identities"}), read_signature)
        data = _contents(node)
    else:
        data = instantiate(config["data"])
    before = (run_folder.record().get("data") or {}).get("fingerprint")
    if before is not None and not data.is_fingerprint(before):
        raise ValueError(
            f"the data of {run_folder.path} have changed since it ran (data.root="
            f"{config['data'].get('root')}): what is shown would not be what the run saw. Put back "
            "the data it was run on, or run it again."
        )
    return data


def _contents(node: Mapping[str, Any]) -> Any:  # noqa: ANN401
    """Return what the data module of a node would hold, or a function that makes it."""
    kind = CONTENTS[node["_target_"]]
    arguments = {
        name: _contents(value)
        if isinstance(value, Mapping) and value.get("_target_") in CONTENTS
        else construct(value, {})
        for name, value in node.items()
        if name in inspect.signature(kind).parameters
    }
    made = functools.partial(kind, **arguments)
    return made if node.get("_partial_", False) else made()

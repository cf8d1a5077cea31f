"""Files and folders that a configuration names and that are not there."""

from __future__ import annotations

import pytest

from crosswalk.config.compose import compose, to_plain
from crosswalk.config.paths import check_paths


@pytest.mark.parametrize(
    ("overrides", "kind"),
    [
        (["data=own_pairs"], "pairs"),
        (["method=mmcl", "data=own_images"], "images"),
        (["method=mar", "data=msmt17_to_market1501"], "transfer"),
    ],
)
def test_a_folder_that_is_missing_is_asked_for_at_once(overrides: list[str], kind: str) -> None:
    with pytest.raises(FileNotFoundError, match=rf"data\.root is missing.*data=synthetic_{kind}"):
        check_paths(to_plain(compose(overrides)))


def test_only_data_of_this_package_are_asked_for_a_root() -> None:
    node = to_plain(compose(["data=own_pairs"]))["data"]
    own = {"_target_": "own_package.data.OwnData", "reader": node["reader"]}

    check_paths({"data": own})
    check_paths({"data": {**own, "inner": {**node, "root": "."}}})
    for data in (node, {**own, "inner": node}):
        with pytest.raises(FileNotFoundError, match=r"^data\.root is missing"):
            check_paths({"data": data})

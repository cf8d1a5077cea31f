"""What was run: the whole configuration, and where it is not the default of its method."""

from __future__ import annotations

from typing import Any

import yaml
from markupsafe import Markup

from crosswalk.config.keys import has_effect
from crosswalk.pages import Section, table_tag
from crosswalk.run.run_folder import RunFolder


def configuration_section(folder: RunFolder) -> Section:
    """Return what differs from ``crosswalk train method=... data=...``, and everything, folded."""
    config = folder.config()
    whole = Markup(
        "<details><summary>The whole configuration</summary><pre>{}</pre></details>"
    ).format(yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
    return Section("configuration", "Configuration", _differences(config) + whole)


def _differences(config: dict[str, Any]) -> Markup:
    from crosswalk.config.compose import compose
    from crosswalk.config.plain import differences, to_plain

    choices = config["choices"]
    words = [f"method={choices['method']}", f"data={choices['data']}"]
    command = f"crosswalk train {' '.join(words)}"
    try:
        default = to_plain(compose(words))
    except ValueError as error:  # of a version that had other files
        return Markup("<p>No default to compare with: {}</p>").format(error)
    found = differences(default, config)
    switched_off = tuple(f"{key}." for key, _, now in found if now == "null")
    rows = [
        # broken at dots alone
        (Markup("<code>{}</code>").format(Markup(".<wbr>").join(key.split("."))), before, now)
        for key, before, now in found
        if has_effect(key) and not key.startswith(switched_off)
    ]
    if not rows:
        return Markup("<p>Everything is as in <code>{}</code>.</p>").format(command)
    return table_tag(["key", "default", "this run"], rows, caption=f"Differs from {command}")

"""Where the numbers of a run come from: command, code, data, machine, versions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from crosswalk.config.keys import flatten
from crosswalk.pages import Section, table_tag
from crosswalk.run.run_folder import RunFolder


def provenance_section(folder: RunFolder) -> Section:
    """Return what the run record says, as tables; versions and hardware are folded."""
    record = folder.record()
    if not record:
        missing = f"{folder.record_file.name} is missing: nobody knows how this run was made."
        return Section("provenance", "Provenance", Markup("<p>{}</p>").format(missing))
    facts = {
        "command": Markup("<code>{}</code>").format(record.get("command")),
        "commit": _commit(record),
        "code digest": record.get("code"),
        **(record.get("seeds") or {}),
        **flatten({"stage": record["stage"]} if record.get("stage") else {}),
        "W&B run": folder.wandb_id(),
    }
    folded = [
        _folded("Data", record.get("data")),
        _folded("Versions", record.get("versions")),
        _folded("Hardware", record.get("hardware")),
    ]
    body = [_facts(facts), _sessions(record), *folded]
    return Section("provenance", "Provenance", Markup("\n").join(body))


def _commit(record: Mapping[str, Any]) -> str | None:
    commit = record.get("commit")
    if commit is None:
        return None
    return f"{commit}, with uncommitted changes" if record.get("dirty") else str(commit)


def _facts(facts: Mapping[str, object]) -> Markup:
    rows = [
        (name, value if isinstance(value, Markup) else str(value))
        for name, value in facts.items()
        if value is not None
    ]
    return table_tag(["", ""], rows)


def _sessions(record: Mapping[str, Any]) -> Markup:
    rows = [
        (
            number,
            session.get("started") or "",
            session.get("ended") or "",
            session.get("status") or "running, or killed",
        )
        for number, session in enumerate(record.get("sessions", []), 1)
    ]
    return table_tag(["session", "started", "ended", "status"], rows)


def _folded(title: str, entries: Mapping[str, Any] | None) -> Markup:
    if not entries:
        return Markup("")
    facts = {
        name: ", ".join(map(str, value)) if isinstance(value, list) else value
        for name, value in flatten(entries).items()
    }
    return Markup("<details><summary>{}</summary>{}</details>").format(title, _facts(facts))

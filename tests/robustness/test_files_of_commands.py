"""Tables, sweeps and configurations in files that are damaged."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.robustness.damage import YAML, Damage, damage
from tests.robustness.refusals import message_of

ROOT = Path(__file__).parents[2]
FILES: Mapping[str, tuple[Path, list[str]]] = {
    "ablate": (ROOT / "experiments/rde/table2.yaml", ["--data=synthetic_pairs", "--dry-run"]),
    "sweep": (ROOT / "configs/sweep/rde.yaml", ["--local", "--trials=1"]),
}


@pytest.mark.parametrize("command", FILES)
@pytest.mark.parametrize("change", YAML.values(), ids=YAML)
def test_a_damaged_file_of_a_table_or_sweep_is_named(
    command: str,
    change: Damage,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    source, options = FILES[command]
    file = tmp_path / "it.yaml"
    file.write_bytes(source.read_bytes())
    damage(file, change)

    message = message_of([command, str(file), *options], capsys, untouched=[tmp_path])

    assert "it.yaml" in message

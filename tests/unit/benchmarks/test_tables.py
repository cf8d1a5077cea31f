"""Tables of benchmarks, from the file that they write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from docs.tools.benchmark_tables import rewrite

ROW: dict[str, Any] = {
    "script": "ranking",
    "name": "ranking alone",
    "against": "loops",
    "unit": "s",
    "baseline": 2.5,
    "ours": 0.25,
    "ratio": 10.0,
    "at_least": 25,
    "at_most": None,
    "met": False,
    "note": "",
}
BOUND = {**ROW, "name": "start", "against": "", "unit": "CPU s", "baseline": None, "ours": 0.05}
RESULTS = {
    "begun": "2026-01-02T03:04+00:00",
    "commit": "0123456789",
    "changed": False,
    "machine": {
        "processor": "A processor",
        "cores": 2,
        "memory_gb": 23.5,
        "versions": {"python": "3.12.1", "torch": "2.15.0"},
    },
    "scripts": {
        "ranking": {"load_before": 0.1, "arguments": []},
        "serve": {"load_before": 1.25, "arguments": []},
    },
    "rows": [
        ROW,
        {**BOUND, "ratio": None, "at_least": None, "at_most": 0.5, "met": True, "note": "two runs"},
    ],
    "seconds": 600,
    "finished": True,
    "quick": False,
}


def test_the_table_is_made_of_the_rows(tmp_path: Path) -> None:
    (tmp_path / "bench.json").write_text(json.dumps(RESULTS))

    begin, end = "<!-- benchmarks: bench.json -->", "<!-- /benchmarks -->"
    text = rewrite(f"Before\n{begin}\nold\n{end}\nafter\n", tmp_path)

    assert (
        text
        == f"""Before
{begin}
*One run of 2026-01-02, 10 minutes, on A processor, 2 cores, 23.5 GB; Python 3.12.1, torch 2.15.0; \
commit 0123456. Processes that wanted a core before the scripts began (load): 0.1 to 1.2.*

`ranking.py`

| what | against | other way | ours | ratio | aim | |
|---|---|---:|---:|---:|---|---|
| ranking alone | loops | 2.50 s | 0.25 s | 10.0x | at least 25x: missed |  |
| start |  |  | 0.05 CPU s |  | at most 0.5 CPU s: met | two runs |
{end}
after
"""
    )
    assert rewrite(text, tmp_path) == text


def test_what_was_measured_again_is_of_its_own_commit(tmp_path: Path) -> None:
    scripts = {**RESULTS["scripts"], "serve": {"load_before": 0.5, "commit": "abcdef0123"}}
    (tmp_path / "bench.json").write_text(json.dumps({**RESULTS, "scripts": scripts}))

    text = rewrite("<!-- benchmarks: bench.json -->\n<!-- /benchmarks -->\n", tmp_path)

    assert "(load): 0.1 to 0.5. `serve.py` was run again at commit abcdef0.*" in text


def test_growth_is_shown_size_by_size(tmp_path: Path) -> None:
    note = "the last by the power 2.00"
    grown = [
        {**BOUND, "name": name, "items": size, "ours": cost, "note": note if size > 9e5 else ""}
        for name, cost in (("search", 0.2), ("memory", 30.0))
        for size in (10_000, 20_000, 1_000_000)
    ]
    results = {
        **RESULTS,
        "rows": [ROW, *grown],
        "scripts": {"growth": {"load_before": 1, "exit": 0}},
    }
    (tmp_path / "growth.json").write_text(json.dumps(results))

    text = rewrite("<!-- growth: growth.json -->\n<!-- /growth -->\n", tmp_path)

    assert text.splitlines()[3:-1] == [
        "| | 10,000 | 20,000 | 1,000,000 | |",
        "|---|---:|---:|---:|---|",
        f"| search | 0.2 CPU s | 0.2 CPU s | 0.2 CPU s | {note} |",
        f"| memory | 30.0 CPU s | 30.0 CPU s | 30.0 CPU s | {note} |",
    ]
    assert "search" not in rewrite(
        "<!-- benchmarks: growth.json -->\n<!-- /benchmarks -->\n", tmp_path
    )


def test_an_open_mark_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="do not pair"):
        rewrite("<!-- benchmarks: bench.json -->\n", tmp_path)


def test_traffic_is_computed_for_more_processes_than_were_measured(tmp_path: Path) -> None:
    always = {"collectives": 5.0, "gradients": 80_000, "reduced": 20_000, "other": 0}
    held = {"weights": 2e6, "trainable": 1e6, "optimizer": 2e6, "buffers": 5e6}
    results = {
        "machine": RESULTS["machine"],
        "per_step": {
            "mmcl": {
                "1": {"cpu": 0.1},
                # 80 kB of the batch and 20 kB of each process: 60 and 40
                "2": {**always, "gathered": 60_000, "sent": 160_000, "cpu": 0.06},
                "4": {**always, "gathered": 40_000, "sent": 270_000, "cpu": 0.05},
            }
        },
        "published": {"mmcl": held},
    }
    (tmp_path / "processes.json").write_text(json.dumps(results))

    text = rewrite("<!-- benchmarks: processes.json -->\n<!-- /benchmarks -->", tmp_path)

    # of 8: 2 * 7 / 8 * 100 + 7 * (80 / 8 + 20) = 385; of 64: 196.875 + 63 * (1.25 + 20)
    measured = "| 5 | 80.0 | 20.0 | 60.0 | 40.0 | 160 | 270 | *385* | *1,536* | 100 | 60.0 | 50.0 |"
    published = "| 2.00 | 1.00 | 2.00 | 5.00 | 10.0 | *1.75* | *1.97* |"
    assert f"| mmcl {measured}" in text
    assert f"| mmcl {published}" in text


def test_steps_of_published_recipes_have_a_line_each(tmp_path: Path) -> None:
    two = {"seconds": 6.0, "cpu": 5.5, "ratio": 1.667, "cpu_ratio": 1.8, "collectives": 11.0}
    results = {
        **{"machine": RESULTS["machine"], "commit": "0123456789", "changed": False},
        "full_size": {"rde": {"1": {"seconds": 10.0, "cpu": 9.9}, "2": {**two, "bytes": 609e6}}},
    }
    (tmp_path / "full.json").write_text(json.dumps(results))

    text = rewrite("<!-- benchmarks: full.json -->\n<!-- /benchmarks -->", tmp_path)

    assert "commit 0123456.*" in text
    assert "| rde | 10.0 | 6.00 | 1.67x | 9.90 | 5.50 | 1.80x | 11 | 609 |" in text

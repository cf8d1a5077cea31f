from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crosswalk.cli import main
from crosswalk.lab.compare import command as compare_command
from crosswalk.lab.compare import runs as compare_runs
from crosswalk.run.run_folder import RunFolder
from tests.unit.lab.hand_made_runs import (
    CAPTIONS,
    FIRST,
    SECOND,
    HandMadeData,
    caption_queries,
    image_queries,
    write_run,
)
from tests.unit.narrow import WIDTHS, figures, plain, terminal

TEXT, IMAGE = "text_to_image", "image_to_text"
QUERIES = {TEXT: caption_queries(**SECOND), IMAGE: image_queries()}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    return folder


@pytest.fixture
def read_data(images: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Data by name of the run; HandMadeData for all others."""
    data: dict[str, Any] = {}
    common = HandMadeData(images)

    def evaluation_data(run: RunFolder) -> Any:  # noqa: ANN401
        found = data.get(run.name, common)
        if isinstance(found, Exception):
            raise found
        return found

    for module in (compare_command, compare_runs):
        monkeypatch.setattr(module, "evaluation_data", evaluation_data)
    return data


Compare = Callable[..., dict[str, Any]]


@pytest.fixture
def compare(
    read_data: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Compare:
    def run(first: object, second: object, *options: str) -> dict[str, Any]:
        out = tmp_path / "pages" / "compare.html"
        status = main(["compare", str(first), str(second), "--out", str(out), *options])
        printed = capsys.readouterr()
        if status:
            return {"status": status, "message": printed.err}
        return {
            "status": status,
            "text": printed.out,
            "page": out.read_text(),
            **json.loads(out.with_suffix(".json").read_text()),
        }

    return run


@pytest.fixture
def a(tmp_path: Path) -> Path:
    return write_run(tmp_path / "a")


@pytest.fixture
def b(tmp_path: Path) -> Path:
    return write_run(tmp_path / "b", QUERIES, config={"method": {"margin": 0.2}}, seed=2)


def section(page: str, anchor: str) -> str:
    found = re.search(f'<section id="{anchor}">(.*?)</section>', page, re.DOTALL)
    assert found is not None
    return found.group(1)


def test_the_numbers_are_those_calculated_by_hand(compare: Compare, a: Path, b: Path) -> None:
    found = compare(a, b)["directions"][TEXT]

    rank1, precision = found["measures"]["rank1"], found["measures"]["map"]
    assert [rank1[key] for key in ("A", "B", "difference")] == pytest.approx([0.4, 0.6, 0.2])
    assert [rank1[key] for key in ("better", "worse", "equal", "queries")] == [2, 1, 2, 5]
    assert [precision[key] for key in ("A", "B", "difference")] == pytest.approx([0.65, 0.75, 0.1])
    assert [query["sample_index"] for query in found["better"]] == [2, 1]
    assert [query["sample_index"] for query in found["worse"]] == [3, 0]
    assert found["better"][0]["average_precision"] == {"A": 0.25, "B": 1.0}
    assert found["better"][0]["rank_of_first_hit"] == {"A": 3, "B": 1}


def test_queries_are_broken_down_by_matches_words_and_camera(
    compare: Compare, a: Path, b: Path
) -> None:
    groups = compare(a, b)["directions"][TEXT]["breakdowns"]

    differences = {
        title: {name: round(group["map"]["difference"], 4) for name, group in members.items()}
        for title, members in groups.items()
    }
    assert differences == {
        "number of matches in the gallery": {"1 match": -0.25, "2 matches": 0.3333},
        "length of the caption": {
            "1 word": 0.75,
            "3 words": -0.375,  # captions 0 and 3
            "4 words": 0.0,
            "7 words": 0.5,
        },
        "camera of the described image": {"camera 1": -0.0625, "camera 2": 0.75},
    }
    assert groups["length of the caption"]["3 words"]["queries"] == 2
    assert groups["length of the caption"]["3 words"]["small"]


def test_images_as_queries_are_broken_down_by_their_own_camera(
    compare: Compare, a: Path, b: Path
) -> None:
    groups = compare(a, b)["directions"][IMAGE]["breakdowns"]

    assert {
        title: {name: group["queries"] for name, group in members.items()}
        for title, members in groups.items()
    } == {
        "number of matches in the gallery": {"2 matches": 1, "3 matches": 2},
        "camera": {"camera 1": 2, "camera 2": 1},
    }


def test_a_run_with_the_results_of_another_has_no_differences(
    compare: Compare, a: Path, tmp_path: Path
) -> None:
    found = compare(a, shutil.copytree(a, tmp_path / "same"))

    assert found["configuration"] == {}
    for direction in (TEXT, IMAGE):
        for measure in found["directions"][direction]["measures"].values():
            assert measure["difference"] == 0
            assert measure["interval"] == [0, 0]
            assert measure["better"] == measure["worse"] == 0
        assert found["directions"][direction]["better"] == []
        assert found["directions"][direction]["worse"] == []
    assert "The configurations are the same." in found["text"]
    assert "R@1: A and B are equal on each of these 5 queries." in found["text"]
    assert "None." in section(found["page"], "better")


@pytest.mark.parametrize(
    "sides", ["{a} {a}", "{b} {a},{a}", "{a},{a} {b}", "{a},{b} {b},{a}", "{b} {a} {b}"]
)
def test_a_run_is_not_compared_with_itself_nor_counted_twice(
    a: Path, b: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], sides: str
) -> None:
    words = sides.format(a=a, b=b).split()

    assert main(["compare", *words, "--out", str(tmp_path / "x.html")]) == 2

    said = capsys.readouterr().err
    assert said.startswith("crosswalk: ")
    assert "is named twice: it differs from itself in nothing" in said
    assert not (tmp_path / "x.html").exists()


def test_configurations_seeds_and_code_stand_side_by_side(
    compare: Compare, a: Path, b: Path
) -> None:
    found = compare(a, b)

    assert found["configuration"] == {"method.margin": "(missing) → 0.2", "seed": "1 → 2"}
    assert [found[side][0]["seed"] for side in "AB"] == ["1", "2"]
    assert found["A"][0]["code"] == "abcdef"
    assert found["A"][0]["epoch"] == 5
    for shown in (found["text"], section(found["page"], "runs")):
        assert "method.margin" in shown
        assert "(missing) → 0.2" in shown
        assert "abcdef" in shown


def test_the_terminal_gets_plain_tables_of_at_most_100_columns(
    compare: Compare, a: Path, b: Path
) -> None:
    text = compare(a, b)["text"]

    assert "\x1b" not in text
    tables = [line for line in text.splitlines() if line.startswith(("┃", "│", "┏"))]
    assert tables
    assert max(map(len, tables)) <= 100
    assert re.search(r"│ R@1 +│ +40\.00 │ +60\.00 │ \+20\.00 │ +\[.*\] │ +2 │ +1 │ +2 │", text)
    assert re.search(r"│ 1 match \(few\) +│ +2 │ +-50\.00 ", text)
    assert re.search(r"│ +2 │ +7 │ 25\.0 → 100\.0 │ +3 → 1 │ red ", text)


def test_the_page_shows_both_lists_of_a_query_with_frames(
    compare: Compare, a: Path, b: Path
) -> None:
    page = compare(a, b)["page"]

    better = section(page, "better")
    assert better.index("Query 2: AP 25.0 % → 100.0 %") < better.index("Query 1: AP 50.0")
    # two queries of person 7, two sides: images 0 and 1 show that person, image 2 does not
    assert better.count('<img class="right"') == 8
    assert better.count('<img class="wrong"') == 4
    assert better.count("a tall man in a red coat") == 4  # of each query, and whole in its title
    worse = section(page, "worse")
    assert worse.count('<img class="right"') == 2 * (1 + 2)  # persons 8 and 7
    assert "http" not in page.replace("http://www.w3.org", "")


def test_a_page_is_the_same_when_it_is_made_again(compare: Compare, a: Path, b: Path) -> None:
    first, second = compare(a, b), compare(a, b)

    again = ", in the place of an earlier one"
    assert again not in first["text"]
    assert second["text"].count(again) == 1
    assert second | {"text": second["text"].replace(again, "")} == first


def test_captions_are_no_markup(
    compare: Compare, read_data: dict[str, Any], images: Path, a: Path, b: Path
) -> None:
    captions = (("<b>bold</b> coat", "[red]coat[/red]"), *CAPTIONS[1:])
    read_data["a"] = HandMadeData(images, captions)

    found = compare(a, b)

    assert "<b>bold</b> coat" not in found["page"]
    assert "&lt;b&gt;bold&lt;/b&gt; coat" in found["page"]
    assert "<b>bold</b> coat" in found["text"]
    assert "[red]coat[/red]" in found["text"]


def test_without_the_data_everything_else_stands(
    compare: Compare, read_data: dict[str, Any], a: Path, b: Path
) -> None:
    read_data |= dict.fromkeys("ab", FileNotFoundError("the folder of the images is gone"))

    found = compare(a, b)

    for anchor in ("groups", "better", "worse"):
        assert "the folder of the images is gone" in section(found["page"], anchor)
    assert "Query 2: AP 25.0 % → 100.0 %" in section(found["page"], "better")
    assert list(found["directions"][TEXT]["breakdowns"]) == ["number of matches in the gallery"]
    assert found["data_problem"] == "the folder of the images is gone"
    assert "note: the folder of the images is gone" in found["text"]
    assert found["directions"][TEXT]["measures"]["rank1"]["difference"] == pytest.approx(0.2)


def test_the_data_of_either_run_will_do(
    compare: Compare, read_data: dict[str, Any], a: Path, b: Path
) -> None:
    read_data["a"] = FileNotFoundError("gone")

    assert compare(a, b)["data_problem"] is None


def test_the_page_names_an_image_that_is_gone(
    compare: Compare, images: Path, read_data: dict[str, Any], a: Path, b: Path
) -> None:
    (images / "b.png").unlink()

    page = compare(a, b)["page"]

    assert f"not where they were, {images / 'b.png'}" in section(page, "better")
    assert section(page, "better").count('<img class="right"') == 4


def test_sides_of_several_runs_are_averaged(compare: Compare, a: Path, tmp_path: Path) -> None:
    again = write_run(tmp_path / "again", seed=3)
    b = write_run(tmp_path / "b", QUERIES, seed=4)

    found = compare(f"{a},{again}", f"{a},{b}")

    # side B is the mean of both results
    assert found["directions"][TEXT]["measures"]["map"]["difference"] == pytest.approx(0.05)
    assert found["directions"][TEXT]["runs"]["B"][1]["map"] == pytest.approx(0.75)
    assert "R@1 run by run: A 40.00, 40.00; B 40.00, 60.00." in found["text"]
    assert [len(found[side]) for side in "AB"] == [2, 2]
    assert found["notes"] == []


def test_runs_of_a_side_that_differ_in_more_than_seeds_are_noted(
    compare: Compare, a: Path, b: Path
) -> None:
    assert compare(f"{a},{b}", a)["notes"] == [
        "The runs of side A differ in more than their seed: method.margin."
    ]


def test_single_views_are_compared_where_both_sides_have_them(
    compare: Compare, tmp_path: Path
) -> None:
    a = write_run(tmp_path / "a", QUERIES | {"view/global": caption_queries(**FIRST)})
    b = write_run(
        tmp_path / "b",
        QUERIES
        | {"view/global": caption_queries(**SECOND), "view/tokens": caption_queries(**FIRST)},
    )

    found = compare(a, b)

    assert found["views"]["view/global"]["map"]["difference"] == pytest.approx(0.1)
    assert list(found["views"]) == ["view/global"]
    assert found["notes"] == ["The view tokens is on one side only."]
    assert "view global alone" in section(found["page"], "differences")


def test_queries_without_a_match_are_counted_beside_the_table(
    compare: Compare, tmp_path: Path
) -> None:
    queries = caption_queries([1, 0, 1, 2, 1], [1, np.nan, 1, 1, 1], num_matches=[2, 0, 2, 1, 1])
    a = write_run(tmp_path / "a", {TEXT: queries, IMAGE: image_queries()})

    same = shutil.copytree(a, tmp_path / "same")

    assert "1 query without a match counts nowhere." in compare(a, same)["text"]


def test_an_unfinished_run_is_noted(compare: Compare, a: Path, tmp_path: Path) -> None:
    b = write_run(tmp_path / "b", QUERIES, status="interrupted")
    c = write_run(tmp_path / "c", QUERIES, status="running")  # nobody holds its lock

    assert compare(a, b)["notes"] == [
        f"{b} has not finished (interrupted): its results may still change."
    ]
    (note,) = compare(a, c)["notes"]
    assert (
        "it was killed, its machine stopped, or it still runs on another one; resume=true behind "
        "the run's command goes on"
    ) in note


def test_data_that_differ_elsewhere_than_in_the_split_are_noted(
    compare: Compare, read_data: dict[str, Any], tmp_path: Path, a: Path
) -> None:
    b = write_run(tmp_path / "b", QUERIES, fingerprint="4567")
    (tmp_path / "elsewhere").mkdir()
    read_data["b"] = HandMadeData(tmp_path / "elsewhere")

    assert compare(a, b)["notes"] == [
        "The data sets of the runs differ (fingerprints 0123 and 4567), but not in their test "
        "split."
    ]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (("a blue bag", "no bag"), "their test images, captions or persons differ"),
        (("a blue bag", "no bag"), "{b} data=own` evaluates the second"),
        (FileNotFoundError("no such folder"), "is the same cannot be seen: no such folder"),
    ],
)
def test_other_test_data_are_refused(
    compare: Compare,
    read_data: dict[str, Any],
    images: Path,
    tmp_path: Path,
    a: Path,
    data: Any,  # noqa: ANN401
    message: str,
) -> None:
    b = write_run(tmp_path / "b", QUERIES, fingerprint="4567")
    read_data["b"] = (
        data if isinstance(data, Exception) else HandMadeData(images, (*CAPTIONS[:2], data))
    )

    found = compare(a, b)

    assert found["status"] == 2
    assert message.format(b=b) in found["message"]
    assert "(fingerprint 0123)" in found["message"]
    assert "(4567)" in found["message"]


def other(**changes: Any) -> dict[str, Any]:  # noqa: ANN401
    return {TEXT: caption_queries(**{**SECOND, **changes}), IMAGE: image_queries()}


@pytest.mark.parametrize(
    ("queries", "message"),
    [
        (other(person_id=[7, 7, 8, 8, 8]), "the person of query 2 is 7"),
        (other(num_matches=[2, 2, 2, 1, 3]), "the number of matches of query 4 is 1"),
        (other(num_matches=[2, 2, 2, 1, 3]), "data.camera_rule"),
        (
            {
                TEXT: QUERIES[TEXT]._replace(sample_index=np.array([0, 1, 2, 3, 5])),
                IMAGE: image_queries(),
            },
            "the sample of query 4 is 4",
        ),
        ({TEXT: image_queries(), IMAGE: image_queries()}, "has 5 queries (text_to_image)"),
        ({TEXT: QUERIES[TEXT]}, "looks for image to text, text to image"),
        ({"image_to_image": image_queries()}, "for image to image. Only"),
    ],
)
def test_other_queries_are_refused(
    compare: Compare, a: Path, tmp_path: Path, queries: dict[str, Any], message: str
) -> None:
    b = write_run(tmp_path / "b", queries)

    found = compare(a, b)

    assert found["status"] == 2
    assert message in found["message"]
    assert str(a) in found["message"]
    assert str(b) in found["message"]


def test_a_run_without_a_record_of_its_data_is_refused(compare: Compare, a: Path, b: Path) -> None:
    (b / "run.json").unlink()

    found = compare(a, b)

    assert found["status"] == 2
    assert f"{b / 'run.json'} does not say which data the run had" in found["message"]


def test_a_folder_without_a_run_is_refused(compare: Compare, a: Path, tmp_path: Path) -> None:
    found = compare(a, tmp_path / "nothing")

    assert found["status"] == 2
    assert f"{tmp_path / 'nothing'} is no run folder" in found["message"]
    assert compare(a, ",")["status"] == 2


def test_missing_results_are_named_with_the_command_that_makes_them(
    compare: Compare, a: Path, b: Path
) -> None:
    shutil.copy(b / "queries" / "test-best.npz", b / "queries" / "test-last.npz")
    (b / "queries" / "test-best.npz").unlink()

    found = compare(a, b)

    assert found["status"] == 2
    assert f"{b / 'queries' / 'test-best.npz'} is missing" in found["message"]
    assert "--checkpoint may be last" in found["message"]
    assert f"`crosswalk evaluate {b}`" in found["message"]


def test_what_all_runs_have_is_compared_and_the_verdict_comes_first(
    compare: Compare, a: Path, b: Path
) -> None:
    for run in (a, b):
        shutil.copy(run / "queries" / "test-best.npz", run / "queries" / "test-last.npz")
    (a / "queries" / "test-best.npz").unlink()  # protocol=last

    found = compare(a, b)

    assert found["checkpoint"] == "last"
    lines = found["text"].splitlines()
    assert lines[0] == "A is a, B is b: text → image on test, last."
    assert [line.split(",")[0] for line in lines[1:3]] == [
        *("R@1: 40.00 → 60.00", "mAP: 65.00 → 75.00"),
    ]
    assert lines[1].endswith(": not told apart by these queries.")
    assert lines[0] in found["page"]


@pytest.mark.usefixtures("read_data")
def test_further_runs_are_compared_with_the_first_one(
    a: Path, b: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, same = tmp_path / "pages" / "compare.html", shutil.copytree(a, tmp_path / "same")

    status = main(["compare", str(a), str(b), str(same), f"{a},{b}", "--out", str(out)])

    assert status == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines if line.startswith("A is a, B is")] == [
        *("A is a, B is b", "A is a, B is same", "A is a, B is a + b"),
    ]
    pages = sorted(path.name for path in out.parent.glob("*.html"))
    assert pages == ["compare-3.html", "compare-4.html", "compare.html"]
    assert json.loads((out.parent / "compare-3.json").read_text())["configuration"] == {}


def test_a_run_that_chose_no_epoch_says_so(compare: Compare, a: Path, tmp_path: Path) -> None:
    b = write_run(tmp_path / "b", QUERIES, config={"protocol": "last"})
    (b / "queries" / "test-best.npz").unlink()

    assert "chose no best epoch (protocol=last)" in compare(a, b)["message"]


def test_queries_that_nobody_can_answer_are_refused(compare: Compare, tmp_path: Path) -> None:
    nobody = caption_queries([0] * 5, [np.nan] * 5, num_matches=[0] * 5)
    a = write_run(tmp_path / "a", {TEXT: nobody, IMAGE: image_queries()})

    same = shutil.copytree(a, tmp_path / "same")

    assert "has a match in the gallery (text_to_image)" in compare(a, same)["message"]


def test_the_page_must_be_an_html_file(
    a: Path, b: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", str(a), str(b), "--out", str(tmp_path / "x.json")]) == 2
    assert "should end in .html" in capsys.readouterr().err


def test_runs_are_left_as_they_were(compare: Compare, a: Path, b: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in sorted(a.rglob("*"))}

    compare(a, b)

    assert {path: path.stat().st_mtime_ns for path in sorted(a.rglob("*"))} == before


@pytest.mark.parametrize("width", WIDTHS)
def test_a_narrow_terminal_keeps_every_number(
    compare: Compare, a: Path, b: Path, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    terminal(monkeypatch, 200)
    wide = compare(a, b)["text"]

    terminal(monkeypatch, width)
    narrow = compare(a, b)["text"]

    head = "95 % interval"  # of a table, or of each of its rows where they stand below each other
    assert figures(narrow.replace(head, "")) == figures(wide.replace(head, ""))
    assert "queries" in narrow  # no letter of it is on a line of its own
    for line in plain(narrow).splitlines():
        assert len(line) <= width or str(a.parent) in line  # where the page lies

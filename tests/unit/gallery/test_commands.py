"""`crosswalk index` and `crosswalk search`, as they are typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import crosswalk
from crosswalk.cli import main
from tests.unit.gallery.test_gallery import draw


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for seed in range(3):
        draw(tmp_path / f"photos/{seed}.png", seed)
    (tmp_path / "photos" / "broken.jpg").write_bytes(b"no picture")
    Path("photos/list.csv").write_text("path,camera\n0.png,1\n1.png,2\n2.png,2\n")
    return tmp_path / "photos"


def test_pictures_are_indexed_and_found_by_the_commands(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["index", "tiny:rde", "photos", "--out", "g"]) == 0
    told = capsys.readouterr().out
    assert "In g: 3 pictures (3 new, 1 left out)." in told
    assert f"left out: {photos / 'broken.jpg'}" in told

    judged = [
        "--thresholds",
        str(Path(crosswalk.__file__).with_name("assets") / "models/rde/thresholds.json"),
    ]
    assert main(["index", "tiny:rde", "photos/list.csv", "--out", "g", *judged]) == 0
    told = capsys.readouterr().out
    assert "In g: 3 pictures (3 with other values)." in told
    assert f"Searches are judged by the thresholds in {judged[1]}." in told

    words = ["search", "g", "--image", "photos/1.png", "--where", "camera == 2", "--html", "p.html"]
    assert main([*words, "--json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    hits = [json.loads(line) for line in lines[:-1]]
    assert [Path(hit["path"]).name for hit in hits] == ["1.png", "2.png"]
    assert hits[0]["score"] == pytest.approx(1, abs=1e-5)
    assert hits[0]["columns"]["camera"] == 2
    assert lines[-1] == "Page: p.html"
    page = Path("p.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 3
    assert "What looks most like it among 3 pictures" in page

    assert main(["search", "g", "a woman in a red coat", "-k", "2", "--group", "--rerank"]) == 0
    table = capsys.readouterr().out
    assert "score" in table
    assert ".png" in table

    assert main(["index", "tiny:rde", "photos/1.png", "--out", "g", "--remove"]) == 0
    assert "1 picture was taken out of g." in capsys.readouterr().out


def files() -> list[Path]:
    """Return all files but those that SQLite has while it is open."""
    return sorted(path for path in Path().rglob("*") if not path.name.endswith(("-shm", "-wal")))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["search", "g"], "search by a SENTENCE or by --image FILE, one of them"),
        (["search", "g", "x", "--image", "photos/1.png"], "--image FILE, not both"),
        (["search", "g", " "], "the sentence is empty"),
        (["search", "g", "photos/1.png"], "is a file. Search by a picture with --image photos"),
        (
            ["search", "g", "--image", "nowhere.png"],
            "--image nowhere.png does not exist. Name a picture",
        ),
        (["search", "g", "x", "--where", "shop = 1"], "asks for shop"),
        (["search", "g", "x", "-k", "20000"], "-k 20000 is more than 10,000"),
        (["search", "g", "x" * 300, "--where", "shop = 1"], "asks for shop"),
        (["index", "tiny:rde", "phtos", "--out", "g", "--remove"], "g holds no pictures of phtos"),
        (["search", "g", "x", "--group", "7"], "--group 7.0 should be a cosine"),
        (["search", "photos", "x"], "photos is no gallery: it has no gallery.json"),
        (["search", "g", "x", "--model", "runs/nowhere"], "runs/nowhere does not exist"),
        (["index", "tiny:rde", "photos", "--out", "photos/g"], "lies inside the data set's folder"),
        (["index", "tiny:rde", "photos", "--out", "photos"], "is a folder of something else"),
        (["index", "tiny:rde", "photos", "--out", "photos/1.png"], "is a file. Name a new folder"),
        (["index", "tiny:mmcl", "photos", "--out", "g"], "embeds differently"),
        (["index", "tiny:rde", "photos/1.png", "--out", "g"], "is neither a folder of images"),
        (["index", "tiny:rde", "x", "--out", "g", "--prune", "--remove"], "not allowed with"),
        (["index", "tiny:rde", "photos", "--out", "g", "--store", "qdrant://a:1/b"], "is kept in"),
    ],
)
def test_mistakes_are_answered_in_their_words(
    photos: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert main(["index", "tiny:rde", "photos", "--out", "g"]) == 0
    before = files()
    capsys.readouterr()

    try:
        status = main(words)
    except SystemExit as ended:
        status = int(ended.code or 0)

    told = capsys.readouterr()
    assert status == 2
    assert said in told.err
    assert files() == before

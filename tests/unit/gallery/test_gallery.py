"""A gallery of pictures on real, tiny models: built, brought up to date, searched."""

from __future__ import annotations

import json
import math
import shutil
import socket
import sqlite3
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import crosswalk
from crosswalk import Gallery
from crosswalk.cli import main
from crosswalk.gallery import update
from crosswalk.gallery.description import FILE, updating
from crosswalk.gallery.find import print_hits
from crosswalk.gallery.gallery import DISTANCE_WEIGHT, K1, K2, Hit
from crosswalk.gallery.servers import check_known, remember
from crosswalk.metrics.open_set import Measured, OpenSet, Rate
from crosswalk.metrics.reranking import k_reciprocal
from crosswalk.use.model import Model
from crosswalk.use.thresholds import Thresholds, read_thresholds


@pytest.fixture(scope="module")
def model() -> Model:
    return crosswalk.load("tiny:mmcl")


@pytest.fixture(scope="module")
def of_sentences() -> Model:
    return crosswalk.load("tiny:rde")


def draw(path: Path, seed: int, **options: object) -> Path:
    """Write a picture of a few coloured stripes."""
    colours = np.random.default_rng(seed).integers(0, 256, (4, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(colours.repeat(24, 0)[:, None].repeat(40, 1)).save(path, **options)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for seed in range(6):
        draw(tmp_path / f"photos/{seed % 2}/{seed}.png", seed)
    return tmp_path / "photos"


@pytest.fixture
def built(tmp_path: Path, photos: Path, model: Model) -> Iterator[Gallery]:
    with Gallery.build(tmp_path / "g", model, photos) as gallery:
        yield gallery


def test_a_picture_finds_itself_and_the_scores_are_those_of_the_model(
    built: Gallery, photos: Path, model: Model
) -> None:
    files = sorted(photos.rglob("*.png"))
    expected = (model.embed_images(files[:1]) @ model.embed_images(files).T)[0]

    hits = built.search(files[0], k=9)

    assert len(built) == len(hits) == 6
    assert hits[0].path == files[0]
    assert [files.index(hit.path) for hit in hits] == expected.argsort(descending=True).tolist()
    np.testing.assert_allclose(
        [hit.score for hit in hits], sorted(expected, reverse=True), atol=1e-6
    )
    assert [hit.path for hit in built.similar(hits[0].id, 2)] == [hit.path for hit in hits[1:3]]
    assert built.search(Image.open(files[0]), k=1)[0].path == files[0]
    assert built.search(model.embed_images(files[:1])[0].numpy(), k=1)[0].path == files[0]


def test_an_update_embeds_what_is_new_or_changed_alone(
    tmp_path: Path, photos: Path, model: Model
) -> None:
    gallery = tmp_path / "g"
    Gallery.build(gallery, model, photos).close()
    draw(photos / "0/0.png", 100)
    draw(photos / "new/6.png", 6)
    shutil.copy(photos / "1/1.png", photos / "copy.png")
    (photos / "0/2.png").unlink()
    (photos / "1/3.png").write_bytes(b"no picture")

    with Gallery.build(gallery, model, photos, prune=True) as built:
        changes = built.changes
        found = {
            hit.path.relative_to(photos).as_posix() for hit in built.search(photos / "0/0.png")
        }
        scores = {hit.path.name: hit.score for hit in built.search(photos / "1/1.png", 2)}

    assert changes is not None
    assert (changes.new, changes.changed, changes.unchanged, changes.removed) == (2, 1, 3, 2)
    assert changes.embedded == 2
    assert list(changes.broken) == [str(photos / "1/3.png")]
    assert found == {"0/0.png", "0/4.png", "1/1.png", "1/5.png", "new/6.png", "copy.png"}
    assert scores == pytest.approx({"1.png": 1, "copy.png": 1}, abs=1e-6)


def test_a_copy_of_what_changes_meanwhile_is_embedded_itself(
    tmp_path: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(update, "AT_ONCE", 1)
    photos = tmp_path / "photos"
    before = draw(photos / "a.png", 0).read_bytes()
    Gallery.build(tmp_path / "g", model, photos).close()
    draw(photos / "a.png", 1)
    (photos / "b.png").write_bytes(before)

    with Gallery.build(tmp_path / "g", model, photos) as built:
        hits = built.search(photos / "b.png")

    assert [hit.path.name for hit in hits] == ["b.png", "a.png"]
    assert hits[0].score == pytest.approx(1, abs=1e-6)
    assert hits[1].score < 1 - 1e-3


def test_a_table_says_camera_time_and_more(tmp_path: Path, photos: Path, model: Model) -> None:
    table = tmp_path / "photos" / "list.csv"
    rows = ["image,camera_id,time,id,my place,caption"]
    rows += [f"{n % 2}/{n}.png,{n},2026-11-0{n + 1} 18:30,cart {n},gate,x" for n in range(5)]
    table.write_text("\n".join([*rows, "1/5.png,,,,,"]))

    with Gallery.build(tmp_path / "g", model, table) as built:
        hits = built.search(
            photos / "0/0.png", where="camera in (1, 2, 5) and time >= '2026-11-03'"
        )
        texts = built.search(photos / "0/0.png", where="own_id = 'cart 3' and my_place == 'gate'")
        cameras, times = built.values("camera"), built.values("time")

    assert [hit.path.name for hit in hits] == ["2.png"]
    assert (hits[0].camera, hits[0].own_id) == (2, "cart 2")
    assert hits[0].time == datetime(2026, 11, 3, 18, 30)
    assert hits[0].columns["my_place"] == "gate"
    assert "caption" not in hits[0].columns
    assert [hit.path.name for hit in texts] == ["3.png"]
    assert cameras == [0, 1, 2, 3, 4]
    assert times[0] == datetime(2026, 11, 1, 18, 30)


def test_what_a_table_said_is_kept_by_an_update_from_the_folder(
    tmp_path: Path, photos: Path, model: Model
) -> None:
    (photos / "list.csv").write_text("path,camera\n0/0.png,7\n")
    Gallery.build(tmp_path / "g", model, photos / "list.csv").close()

    with Gallery.build(tmp_path / "g", model, photos) as built:
        hits = built.search(photos / "0/0.png", where="camera == 7")

    assert built.changes is not None
    assert (built.changes.new, built.changes.unchanged) == (5, 1)
    assert [hit.path.name for hit in hits] == ["0.png"]


def test_names_of_files_say_camera_and_person_if_all_do(tmp_path: Path, model: Model) -> None:
    for seed, name in enumerate(("0002_c1s1_1.png", "0007_c3s1_1.png", "-1_c3s2_2.png")):
        draw(tmp_path / "photos" / name, seed)

    with Gallery.build(tmp_path / "g", model, tmp_path / "photos") as built:
        hits = built.search(draw(tmp_path / "query.png", 1), where="camera == 3")

    assert [(hit.camera, hit.columns.get("person_id")) for hit in hits] == [(3, 7), (3, None)]

    draw(tmp_path / "photos/holiday.png", 9)
    with Gallery.build(tmp_path / "other", model, tmp_path / "photos") as built:
        assert set(built.columns) == {"path", "sha256", "time"}


def test_exif_data_say_when_a_picture_was_taken(tmp_path: Path, model: Model) -> None:
    exif = Image.Exif()
    exif[0x0132] = "2026:11:29 07:08:09"
    draw(tmp_path / "photos/a.jpg", 0, exif=exif)
    exif[0x0132] = "0000:00:00 00:00:00"
    draw(tmp_path / "photos/b.jpg", 0, exif=exif)

    with Gallery.build(tmp_path / "g", model, tmp_path / "photos") as built:
        hits = built.search(tmp_path / "photos/a.jpg", where="time == '2026-11-29'")

    assert [(hit.path.name, hit.time) for hit in hits] == [
        ("a.jpg", datetime(2026, 11, 29, 7, 8, 9))
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("path,camera\n0/0.png,1\n0/0.png,2\n", "line 3: .*0.png is listed with other values in"),
        ("path,time\n0/0.png,yesterday\n", "line 2: `time` is 'yesterday', and it holds times"),
        ("path,a b,a-b\n0/0.png,1,2\n", "line 1: the column `a-b` is called a_b here"),
        ("path,sha256\n0/0.png,1\n", "line 1: the column `sha256` is called sha256 here"),
        ("path\n../../x.png\n", "lies outside the folder of the file"),
    ],
)
def test_a_wrong_table_is_refused_and_nothing_is_made(
    tmp_path: Path, photos: Path, model: Model, text: str, said: str
) -> None:
    (photos / "list.csv").write_text(text)

    with pytest.raises(ValueError, match=said):
        Gallery.build(tmp_path / "g", model, photos / "list.csv")

    assert not (tmp_path / "g").exists()


def test_cells_of_another_kind_than_the_gallery_has_are_refused(
    tmp_path: Path, photos: Path, model: Model
) -> None:
    (photos / "list.csv").write_text("path,camera\n0/0.png,1\n")
    Gallery.build(tmp_path / "g", model, photos / "list.csv").close()
    (photos / "list.csv").write_text("path,camera\n0/0.png,front\n")

    with pytest.raises(ValueError, match="line 2: `camera` is 'front', and it holds numbers"):
        Gallery.build(tmp_path / "g", model, photos / "list.csv")


def test_near_duplicates_are_one_hit_with_their_number(
    tmp_path: Path, photos: Path, model: Model
) -> None:
    for copy in range(3):
        Image.open(photos / "0/0.png").resize((42, 98)).save(photos / f"copy{copy}.png")
    plain = {path: model.embed_images([path])[0] for path in sorted(photos.rglob("*.png"))}
    least = 0.999

    with Gallery.build(tmp_path / "g", model, photos) as built:
        hits = built.search(photos / "0/0.png", 9, group=least)

    assert sum(hit.count for hit in hits) == 9
    for hit in hits:
        alike = sum(float(plain[hit.path] @ other) >= least for other in plain.values())
        assert hit.count == alike
    assert len(hits) <= 6


def test_reranking_is_that_of_the_metrics(tmp_path: Path, photos: Path, model: Model) -> None:
    for seed in range(10, 40):
        draw(photos / f"{seed}.png", seed)
    files = sorted(photos.rglob("*.png"))
    query, rows = model.embed_images([files[3]]), model.embed_images(files)
    again = k_reciprocal(query, rows, k1=K1, k2=K2, distance_weight=DISTANCE_WEIGHT)
    scores = again.slope[0] * (query @ rows.T)[0].numpy() + again.bonus.toarray()[0]

    with Gallery.build(tmp_path / "g", model, photos) as built:
        hits = built.search(files[3], 5, rerank=True)
        plain = {hit.path: hit.score for hit in built.search(files[3], 36)}

    assert [hit.path for hit in hits] == [files[place] for place in np.argsort(-scores)[:5]]
    assert [hit.score for hit in hits] == [plain[hit.path] for hit in hits]


def test_a_sentence_is_looked_for_by_a_model_that_reads_them(
    tmp_path: Path, photos: Path, of_sentences: Model
) -> None:
    files = sorted(photos.rglob("*.png"))
    sentence = "a woman in a red coat"
    expected = (of_sentences.embed_texts(sentence) @ of_sentences.embed_images(files).T)[0]

    with Gallery.build(tmp_path / "g", of_sentences, photos) as built:
        found = [hit.path for hit in built.search(sentence)]
    with Gallery(tmp_path / "g") as opened:  # loads its model by itself
        again = [hit.path for hit in opened.search(sentence)]

    assert found == again == [files[place] for place in expected.argsort(descending=True)]


def test_a_gallery_of_pictures_alone_reads_no_sentences(built: Gallery) -> None:
    with pytest.raises(ValueError, match="a model of images alone: search by a picture"):
        built.search("a woman in a red coat")


def test_another_model_is_refused(tmp_path: Path, built: Gallery, photos: Path) -> None:
    other = crosswalk.load("tiny:mmcl")
    next(other.method.parameters()).add_(1e-3)

    with pytest.raises(ValueError, match=r"was built with tiny:mmcl .*embeds differently"):
        Gallery.build(tmp_path / "g", other, photos)
    with pytest.raises(ValueError, match="embeds differently"):
        Gallery(tmp_path / "g", model=other)


@pytest.mark.parametrize("place", ["photos", "photos/0/0.png"])
def test_something_else_is_never_turned_into_a_gallery(
    tmp_path: Path, photos: Path, model: Model, place: str
) -> None:
    with pytest.raises(ValueError, match=r"is a folder of something else|is a file\. Name a new"):
        Gallery.build(tmp_path / place, model, photos)


@pytest.mark.parametrize(
    "damage",
    [
        {"format": 2},
        {"dim": "12"},
        {"dim": 0},
        {"dim": 10**9},
        {"columns": {}},
        {"columns": {"path": "text", "sha256": "text", "x; drop": "text"}},
        {"columns": {"path": "text", "sha256": "text", "x": "blob"}},
        {"columns": 3},
        {"store": "http://elsewhere"},
        {"model": None},
        {"reads_captions": "yes"},
        {"fingerprint": 1},
    ],
)
def test_a_damaged_description_is_named(tmp_path: Path, built: Gallery, damage: object) -> None:
    assert isinstance(damage, dict)
    file = tmp_path / "g" / FILE
    file.write_text(json.dumps(json.loads(file.read_text()) | damage))

    with pytest.raises(ValueError, match=rf"{FILE} is damaged \(.*crosswalk index MODEL FOLDER"):
        Gallery(tmp_path / "g")


@pytest.mark.parametrize("content", ["", "{", "[]", "[" * 100_000, '{"format": 1}', "\ud800"])
def test_a_file_that_is_no_description_is_named(
    tmp_path: Path, built: Gallery, content: str
) -> None:
    (tmp_path / "g" / FILE).write_bytes(content.encode(errors="surrogatepass"))

    with pytest.raises(ValueError, match=FILE):
        Gallery(tmp_path / "g")


@pytest.mark.parametrize(
    ("query", "said"),
    [
        (np.zeros(3, np.float32), "compares finite ones of"),
        (Path("nowhere.jpg"), "nowhere.jpg is missing"),
        (torch.zeros(3, 4, 4), "is no image"),
    ],
)
def test_what_is_no_query_is_refused(built: Gallery, query: object, said: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        built.search(query)  # type: ignore[arg-type]


@pytest.mark.parametrize("k", [0, 10**6])
def test_a_number_of_hits_that_makes_no_sense_is_refused(built: Gallery, k: int) -> None:
    with pytest.raises(ValueError, match=rf"k={k}: give a number from 1"):
        built.search(Path("x.jpg"), k)


def test_pictures_are_taken_out_by_folder_file_or_table(
    tmp_path: Path, photos: Path, built: Gallery
) -> None:
    gallery = tmp_path / "g"
    (photos / "list.csv").write_text("path,camera\n1/1.png,1\n1/none.png,2\n")

    removed = [
        Gallery.remove(gallery, photos / "0"),
        Gallery.remove(gallery, photos / "list.csv"),
        Gallery.remove(gallery, photos / "1/3.png"),
        Gallery.remove(gallery, photos / "nowhere"),
    ]

    assert removed == [3, 1, 1, 0]
    assert [hit.path.name for hit in built.search(photos / "0/0.png")] == ["5.png"]


def thresholds(model: Model, *, threshold: float) -> Thresholds:
    """Return thresholds of pictures, by which scores tell."""
    one = Measured(threshold, threshold, threshold)
    rates = {0.01: Rate(one, one, one)}
    numbers = (20.0, -20 * threshold)
    found = OpenSet(900, 1000, 6, rates, one, *numbers, quantiles={}, tells=True)
    return Thresholds("m", model.fingerprint, "d", "test", {"image_to_image": found})


@pytest.mark.parametrize(("threshold", "said"), [(0.5, ""), (1.5, "probably not in this gallery")])
def test_a_search_says_whether_the_person_is_probably_there(
    tmp_path: Path, photos: Path, model: Model, threshold: float, said: str
) -> None:
    thresholds(model, threshold=threshold).write(tmp_path / "t.json")

    with Gallery.build(tmp_path / "g", model, photos, thresholds=tmp_path / "t.json") as built:
        hits = built.search(photos / "0/0.png", 2)
        note = built.note(hits, "picture")
        others = built.note([], "picture"), built.note(hits, "sentence")
    with Gallery(tmp_path / "g", model=model) as opened:
        again = opened.note(hits, "picture")

    assert note.startswith(said)
    assert bool(note) == bool(said)
    assert again == note
    assert others == ("", "")
    assert hits[0].probability == pytest.approx(1 / (1 + math.exp(-20 * (1 - threshold))), abs=1e-4)


def test_thresholds_of_another_model_are_refused(
    tmp_path: Path, photos: Path, model: Model
) -> None:
    thresholds(model, threshold=0.5)._replace(fingerprint="0" * 16).write(tmp_path / "t.json")

    with pytest.raises(ValueError, match=r"t.json was measured on m .*scores of tiny:mmcl .* are"):
        Gallery.build(tmp_path / "g", model, photos, thresholds=tmp_path / "t.json")


def test_a_gallery_with_labels_measures_what_its_scores_tell(
    tmp_path: Path, model: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ["path,who,camera"]
    for person in range(40):
        for camera in (1, 2, 2):
            path = draw(tmp_path / f"photos/{len(lines)}.png", person)
            pixels = np.asarray(Image.open(path)).astype(int) + len(lines) % 3
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
            lines.append(f"{path.name},person {person},{camera}")
    draw(tmp_path / "photos/nobody.png", 99)
    table = tmp_path / "photos/list.csv"
    table.write_text("\n".join([*lines, "nobody.png,,"]))
    with Gallery.build(tmp_path / "g", model, table) as built:
        vectors = built._store.scan(vectors=True).vectors
        rows = built._store.scan().meta
    assert vectors is not None
    scores = vectors["main"] @ vectors["main"].T
    best, without = [], []
    for place, (who, camera) in enumerate(zip(rows["who"], rows["camera"], strict=True)):
        others = np.array([each not in (who, None) for each in rows["who"]])
        ok = others | np.array(
            [
                each == who and at != camera
                for each, at in zip(rows["who"], rows["camera"], strict=True)
            ]
        )
        if who is not None:
            best.append(scores[place][ok].max())
            without.append(scores[place][others].max())

    assert main(["calibrate", str(tmp_path / "g"), "--label", "who"]) == 0

    told = read_thresholds(tmp_path / "g/thresholds.json")
    found = told.directions["image_to_image"]
    assert (told.data, told.split) == ("synthetic_images and g", "test and who")
    assert (found.queries, found.absent) == (120, 120)
    expected = np.quantile(without, 0.99, method="higher")
    assert found.rates[0.01].threshold.value == pytest.approx(expected, abs=0.01)
    assert found.rates[0.01].tpr.value == pytest.approx(
        np.mean(np.array(best) >= found.rates[0.01].threshold.value), abs=1e-9
    )
    assert "Quartiles of the first scores" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "which column says who is on a picture? --label"),
        (["--label", "name"], "has no column name; it has time"),
        (["--label", "time"], "cannot be measured by time: no picture has a value there"),
        (["--label", "x", "data=own_pairs"], "is a gallery: give --label alone"),
    ],
)
def test_a_gallery_without_labels_is_not_measured(
    built: Gallery, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert main(["calibrate", str(built.path), *words]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("name", ["hf:somebody/beacon", "timm:resnet10t"])
def test_a_model_that_somebody_wrote_down_is_fetched_from_nowhere(
    tmp_path: Path, built: Gallery, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    file = tmp_path / "g" / FILE
    file.write_text(json.dumps(json.loads(file.read_text()) | {"model": name}))
    reached: list[object] = []

    def connect(*where: object, **_: object) -> None:
        reached.append(where)
        raise OSError("no network")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", connect)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "empty"))

    with Gallery(tmp_path / "g") as opened, pytest.raises(FileNotFoundError):
        opened.search(draw(tmp_path / "q.png", 0))

    assert not reached


def test_a_second_update_is_refused_and_changes_nothing(
    tmp_path: Path, photos: Path, built: Gallery, model: Model
) -> None:
    before = (tmp_path / "g" / FILE).read_bytes()
    (photos / "list.csv").write_text("path,shop\n0/0.png,a\n")

    with updating(tmp_path / "g"), pytest.raises(RuntimeError, match="is being updated by another"):
        Gallery.build(tmp_path / "g", model, photos / "list.csv")

    assert (tmp_path / "g" / FILE).read_bytes() == before


def test_a_gallery_whose_first_update_was_killed_early_is_made(
    tmp_path: Path, photos: Path, model: Model
) -> None:
    Gallery.build(tmp_path / "g", model, photos).close()
    (tmp_path / "g" / FILE).unlink()

    with Gallery.build(tmp_path / "g", model, photos) as built:
        assert len(built) == 6


def test_what_is_away_for_the_moment_stays_until_it_is_pruned(
    tmp_path: Path, photos: Path, model: Model
) -> None:
    table = photos / "list.csv"
    table.write_text("path\n0/0.png\n1/1.png\n1/3.png\n")
    Gallery.build(tmp_path / "g", model, table).close()
    shutil.move(photos / "1", tmp_path / "away")

    with Gallery.build(tmp_path / "g", model, table) as built:
        kept, changes = len(built), built.changes
    with Gallery.build(tmp_path / "g", model, table, prune=True) as built:
        left = len(built)

    assert changes is not None
    assert (kept, changes.removed, len(changes.broken), left) == (3, 0, 2, 1)


@pytest.mark.parametrize(
    "cells", [("1_21", "12_1"), ("007", "7"), ("1e3", "1000"), ("12345678901234567", "8")]
)
def test_names_made_of_digits_stay_names(
    tmp_path: Path, photos: Path, model: Model, cells: tuple[str, str]
) -> None:
    lines = [f"{place}/{place}.png,{cell}" for place, cell in enumerate(cells)]
    (photos / "list.csv").write_text("\n".join(["path,track", *lines]))

    with Gallery.build(tmp_path / "g", model, photos / "list.csv") as built:
        hits = built.search(photos / "0/0.png", where=f"track == '{cells[0]}'")

    assert built.columns["track"] == "text"
    assert [hit.columns["track"] for hit in hits] == [cells[0]]


def test_a_column_has_no_kind_before_it_has_a_value(
    tmp_path: Path, photos: Path, model: Model
) -> None:
    (photos / "list.csv").write_text("path,place\n0/0.png,\n")
    Gallery.build(tmp_path / "g", model, photos / "list.csv").close()
    (photos / "list.csv").write_text("path,place\n0/0.png,gate\n")

    with Gallery.build(tmp_path / "g", model, photos / "list.csv") as built:
        assert built.values("place") == ["gate"]


def test_a_table_knows_the_time_better_than_exif_data(tmp_path: Path, model: Model) -> None:
    exif = Image.Exif()
    exif[0x0132] = "2020:01:01 00:00:00"
    draw(tmp_path / "photos/a.jpg", 0, exif=exif)
    (tmp_path / "photos/list.csv").write_text("path,time\na.jpg,2026-05-05\n")
    changes = []

    for source in ("photos/list.csv", "photos", "photos/list.csv"):
        with Gallery.build(tmp_path / "g", model, tmp_path / source) as built:
            assert built.values("time") == [datetime(2026, 5, 5)]
            changes.append(str(built.changes))

    assert changes == ["1 new", "1 unchanged", "1 unchanged"]


def test_more_like_this_leaves_out_the_picture_alone_where_near_duplicates_are_one(
    tmp_path: Path, photos: Path, model: Model
) -> None:
    shutil.copy(photos / "0/0.png", photos / "copy.png")

    with Gallery.build(tmp_path / "g", model, photos) as built:
        first = built.search(photos / "0/0.png", 1)[0]
        plain = [hit.path for hit in built.similar(first.id, 3)]
        grouped = [hit.path for hit in built.similar(first.id, 3, group=0.9999)]

    assert plain == grouped
    assert {first.path, plain[0]} == {photos / "0/0.png", photos / "copy.png"}


def test_a_row_that_goes_during_a_search_is_not_found(
    built: Gallery, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    get, removed = built._store.get, []

    def going(ids: Any, **more: Any) -> Any:  # noqa: ANN401
        if not removed:
            removed.append(Gallery.remove(built.path, photos / "0/0.png"))
        return get(ids, **more)

    monkeypatch.setattr(built._store, "get", going)

    hits = built.search(built.model.embed_images(photos / "0/0.png")[0].numpy())

    assert removed == [1]
    assert len(hits) == 5


@pytest.mark.parametrize("damage", ["UPDATE rows SET c1 = NULL", "UPDATE rows SET c0 = 1 << 61"])
def test_a_row_that_nobody_can_have_written_is_named(
    built: Gallery, photos: Path, damage: str
) -> None:
    query = built.model.embed_images(photos / "0/0.png")[0].numpy()
    with sqlite3.connect(built.path / "rows.sqlite") as connection:
        connection.execute(damage)
    assert list(built.columns) == ["time", "path", "sha256"]

    with (
        Gallery(built.path) as opened,
        pytest.raises(ValueError, match=r"the row .* has no|cannot"),
    ):
        opened.search(query)


def test_a_link_in_the_folder_is_not_written_through(
    tmp_path: Path, built: Gallery, photos: Path, model: Model
) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"x" * 800)
    (built.path / "main-0.f32").unlink()
    (built.path / "main-0.f32").symlink_to(victim)

    with pytest.raises(ValueError, match=r"main-0.f32 cannot be used: it is a link"):
        Gallery.build(built.path, model, photos)

    assert victim.read_bytes() == b"x" * 800


def test_a_server_that_somebody_wrote_down_is_not_asked(
    tmp_path: Path, built: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CROSSWALK_CACHE", str(tmp_path / "cache"))
    file = built.path / FILE
    file.write_text(json.dumps(json.loads(file.read_text()) | {"store": "qdrant://evil:6333/x"}))

    with pytest.raises(ValueError, match="kept on the server evil:6333, which you have not named"):
        Gallery(built.path)

    remember("qdrant://evil:6333/y")
    check_known("qdrant://evil:6333/x", built.path)
    with pytest.raises(ValueError, match="evil:6334"):
        check_known("qdrants://evil:6334/x", built.path)


def test_control_characters_do_not_reach_the_terminal(
    built: Gallery, capsys: pytest.CaptureFixture[str]
) -> None:
    print_hits([Hit(1, Path("\x1b]0;a\x07.png"), 0.5)])

    told = capsys.readouterr().out
    assert "\x1b" not in told
    assert r"\x1b]0;a\x07.png" in told


def test_thresholds_of_another_model_in_the_folder_are_named(built: Gallery, model: Model) -> None:
    thresholds(model, threshold=0.5)._replace(fingerprint="1" * 16).write(
        built.path / "thresholds.json"
    )

    with pytest.raises(ValueError, match=r"thresholds.json was measured on another model \(m\)"):
        Gallery(built.path)


def test_columns_that_python_could_not_name_can_be_asked_for(
    tmp_path: Path, photos: Path, model: Model
) -> None:
    (photos / "list.csv").write_text("path,class,Timestamp\n0/0.png,a,1793000000\n1/1.png,b,\n")

    with Gallery.build(tmp_path / "g", model, photos / "list.csv") as built:
        hits = built.search(photos / "0/0.png", where="class_ == 'a' and time >= '2026-10-26'")

    assert [hit.path.name for hit in hits] == ["0.png"]
    assert hits[0].time == datetime(2026, 10, 26, 7, 33, 20)

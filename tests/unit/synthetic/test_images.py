"""Image sets on disk: same bytes for same settings, readable, complete or absent."""

import hashlib
import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crosswalk.cli import main
from crosswalk.config.check import check_early
from crosswalk.config.compose import compose
from crosswalk.config.construct import construct
from crosswalk.config.plain import to_plain
from crosswalk.data.readers.dukemtmc import read_dukemtmc
from crosswalk.data.readers.market1501 import read_market1501
from crosswalk.data.readers.msmt17 import read_msmt17, read_msmt17_whole
from crosswalk.data.readers.records import ImageSplits, count_deviations
from crosswalk.synthetic import images
from crosswalk.synthetic.images import IMAGE_LAYOUTS, synthesize_images
from crosswalk.synthetic.looks import look_named
from crosswalk.synthetic.people import person_of
from crosswalk.synthetic.set_folder import recorded_counts
from crosswalk.synthetic.sightings import Crowd, SetSize

READERS = {"market1501": read_market1501, "dukemtmc": read_dukemtmc, "msmt17": read_msmt17}


def make(folder: Path, layout: str, *, seed: int = 5, num_workers: int = 1) -> Path:
    return synthesize_images(
        folder, layout=layout, size="tiny", seed=seed, num_workers=num_workers, progress=False
    )


def digests(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("images")
    return {layout: make(folder / layout, layout) for layout in IMAGE_LAYOUTS}


@pytest.mark.parametrize("layout", ["market1501", "msmt17"])
def test_three_workers_write_the_same_bytes_as_one(
    roots: dict[str, Path], tmp_path: Path, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "_IMAGES_PER_TASK", 7)

    assert digests(make(tmp_path / "three", layout, num_workers=3)) == digests(roots[layout])


@pytest.mark.parametrize("layout", IMAGE_LAYOUTS)
def test_the_reader_of_the_real_data_set_reads_it(roots: dict[str, Path], layout: str) -> None:
    splits: ImageSplits = READERS[layout](roots[layout])

    assert {name: len(splits.split(name)) for name in ("train", "query", "gallery")} == {
        "train": 60,
        "query": 8,
        "gallery": 19 if layout == "market1501" else 20,
    }
    assert splits.published == recorded_counts(roots[layout] / IMAGE_LAYOUTS[layout].folder)
    assert count_deviations(splits) == []
    assert sum(splits.junk.values()) == (1 if layout == "market1501" else 0)
    assert all(record.image_path.is_file() for _, record in splits)


def test_the_reader_of_mars_source_reads_all_but_val(roots: dict[str, Path]) -> None:
    splits = read_msmt17_whole(roots["msmt17"])

    assert len(splits.train) == 60 - 6 + 8 + 20
    assert len({record.person_id for record in splits.train}) == 12 + 4


@pytest.mark.parametrize("layout", IMAGE_LAYOUTS)
def test_every_query_is_answered_by_another_camera(roots: dict[str, Path], layout: str) -> None:
    splits: ImageSplits = READERS[layout](roots[layout])

    for query in splits.query:
        assert any(
            record.person_id == query.person_id and record.camera_id != query.camera_id
            for record in splits.gallery
        )


def test_no_image_is_in_two_sets(roots: dict[str, Path], tmp_path: Path) -> None:
    other_seed = make(tmp_path / "other", "market1501", seed=6)

    pictures = [
        digest
        for root in (*roots.values(), other_seed)
        for path, digest in digests(root).items()
        if path.endswith(".jpg")
    ]
    assert len(pictures) == len(set(pictures)) == 88 + 88 + 88 + 88


def test_nobody_is_in_two_sets() -> None:
    people = [
        person_of(look_named(files.look), seed=seed, person_id=number)
        for files in IMAGE_LAYOUTS.values()
        for seed in (0, 1)
        for number in range(1, 300)
    ]

    assert len({repr(person) for person in people}) == len(people)


def test_the_record_says_what_the_set_was_made_with(roots: dict[str, Path]) -> None:
    record = json.loads(
        (roots["market1501"] / "Market-1501-v15.09.15/expected_counts.json").read_text()
    )

    assert record == {
        "dataset": "synthetic-images",
        "layout": "market1501",
        "seed": 5,
        "size": "tiny",
        "generator_version": images.IMAGE_GENERATOR_VERSION,
        "junk": 1,
        "splits": {
            "train": {"person_ids": 12, "images": 60},
            "query": {"person_ids": 4, "images": 8},
            "gallery": {"person_ids": 5, "images": 19},
        },
    }


def test_a_complete_set_of_the_same_settings_is_reused(roots: dict[str, Path]) -> None:
    before = {path: path.stat().st_mtime_ns for path in roots["dukemtmc"].rglob("*")}

    assert make(roots["dukemtmc"], "dukemtmc") == roots["dukemtmc"]

    assert {path: path.stat().st_mtime_ns for path in roots["dukemtmc"].rglob("*")} == before


def test_another_set_in_the_same_folder_is_refused(roots: dict[str, Path]) -> None:
    with pytest.raises(FileExistsError, match="with seed 5, not 6"):
        make(roots["msmt17"], "msmt17", seed=6)
    with pytest.raises(FileExistsError, match="no synthetic data set"):
        make(roots["msmt17"], "dukemtmc")


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, OSError])
def test_an_interruption_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interruption: type[BaseException]
) -> None:
    calls = 0
    frame_of = images.frame_of

    def interrupted(*args: object, **options: object) -> bytes:
        nonlocal calls
        calls += 1
        if calls > 30:
            raise interruption("stopped")
        return frame_of(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(images, "frame_of", interrupted)

    with pytest.raises(interruption):
        make(tmp_path / "set", "market1501")

    assert calls > 30
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"layout": "cuhk_pedes"}, "layout is 'cuhk_pedes'.*market1501, dukemtmc, msmt17"),
        ({"size": "huge"}, "size is 'huge'.*tiny, toy, small, full"),
        ({"seed": -1}, "seed is -1"),
        ({"num_workers": 0, "size": "tiny"}, "num_workers is 0"),
    ],
)
def test_wrong_settings_are_refused_by_name(
    tmp_path: Path, wrong: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        synthesize_images(tmp_path / "set", progress=False, **wrong)  # type: ignore[arg-type]

    assert list(tmp_path.iterdir()) == []


def test_the_command_says_what_it_wrote_and_how_a_small_network_is_trained_on_it(
    roots: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = ["--kind=images", "--size=tiny", "--seed=5"]
    assert main(["data", "synthesize", str(roots["market1501"]), *tiny]) == 0
    assert main(["data", "synthesize", str(roots["msmt17"]), *tiny, "--layout=msmt17"]) == 0

    said = capsys.readouterr().out
    assert "  train: 12 identities, 60 images\n" in said
    assert "gallery: 5 identities, 19 images\n" in said
    for line, root in zip(
        [line.partition(": ")[2] for line in said.splitlines() if "crosswalk train" in line],
        (roots["market1501"], roots["msmt17"]),
        strict=True,
    ):
        check_early(compose(shlex.split(line)[2:]))
        config = to_plain(compose(shlex.split(line)[2:]))
        assert config["data"]["root"] == str(root)
        assert config["choices"]["encoder"] == "resnet_tiny"  # no weights are fetched
        assert config["stage"] is None
        assert len(construct(config["data"]["reader"], {})(root).train) == 60


def stripes(path: Path) -> np.ndarray:
    """Return mean colours of twelve stripes, which know clothes but nothing of cameras."""
    with Image.open(path) as image:
        small = np.asarray(image.convert("RGB").resize((8, 12), Image.Resampling.BOX), float)
    return small[:, 2:6].mean(axis=1).ravel()


def test_people_are_found_by_their_colours_before_the_same_camera_but_seldom_before_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = SetSize(Crowd(2, 4, 8), Crowd(40, 120, 480))
    monkeypatch.setitem(IMAGE_LAYOUTS["market1501"].sizes, "tiny", size)  # type: ignore[arg-type]
    splits = read_market1501(make(tmp_path / "set", "market1501"))
    queries, gallery = (
        np.array([stripes(record.image_path) for record in records])
        for records in (splits.query, splits.gallery)
    )
    distance = np.linalg.norm(queries[:, None] - gallery, axis=2)
    found: dict[str, list[bool]] = {"same": [], "other": []}
    for row, query in zip(distance, splits.query, strict=True):
        own = np.array([record.person_id == query.person_id for record in splits.gallery])
        here = np.array([record.camera_id == query.camera_id for record in splits.gallery])
        found["same"].append(own[row.argmin()])
        found["other"].append(own[np.where(own & here, np.inf, row).argmin()])

    # chance is below 0.03
    assert 0.06 < np.mean(found["other"]) < 0.45
    assert np.mean(found["same"]) > 0.5

"""The files of a synthetic data set: same bytes for same settings, complete or absent."""

import hashlib
import io
import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crosswalk.cli import main
from crosswalk.config.check import check_early
from crosswalk.config.compose import compose
from crosswalk.data.readers.cuhk_pedes import read_cuhk_pedes
from crosswalk.encoders.clip_weights import local_file
from crosswalk.synthetic import generate
from crosswalk.synthetic.captions import tokenized
from crosswalk.synthetic.generate import (
    SIZES,
    SplitSize,
    images_each,
    run_synthesize,
    synthesize_pairs,
)

TINY = {
    "train": SplitSize(20, 64, (3,)),
    "val": SplitSize(6, 19),
    "test": SplitSize(9, 28, (2,)),
}


@pytest.fixture(autouse=True)
def tiny_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(generate.SIZES, "tiny", TINY)


def make(folder: Path, *, seed: int = 5, num_workers: int = 1, domain: str = "city") -> Path:
    return synthesize_pairs(
        folder, size="tiny", seed=seed, domain=domain, num_workers=num_workers, progress=False
    )


def digests(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(generate.SIZES, "tiny", TINY)
        return make(tmp_path_factory.mktemp("synthetic") / "set")


def index_of(root: Path) -> list[dict[str, object]]:
    index: list[dict[str, object]] = json.loads((root / "CUHK-PEDES/reid_raw.json").read_text())
    return index


def test_two_workers_write_the_same_bytes_as_one(root: Path, tmp_path: Path) -> None:
    assert digests(make(tmp_path / "two", num_workers=2)) == digests(root)


@pytest.mark.parametrize("other", [{"seed": 6}, {"domain": "campus"}])
def test_other_settings_make_other_images_and_captions(
    root: Path, tmp_path: Path, other: dict[str, object]
) -> None:
    first = index_of(root)
    second = index_of(make(tmp_path / "other", **other))  # type: ignore[arg-type]

    same_captions = {c for e in first for c in e["captions"]} & {  # type: ignore[attr-defined]
        c
        for e in second
        for c in e["captions"]  # type: ignore[attr-defined]
    }
    assert len(same_captions) <= 2
    assert not set(digests(root).values()) & set(digests(tmp_path / "other").values())


def test_counts_are_those_of_the_size(root: Path) -> None:
    index = index_of(root)
    expected = json.loads((root / "CUHK-PEDES/expected_counts.json").read_text())

    assert expected["dataset"] == "synthetic-pairs"
    assert (expected["seed"], expected["size"]) == (5, "tiny")
    assert expected["splits"] == {
        "train": {"person_ids": 20, "images": 64, "captions": 131},
        "val": {"person_ids": 6, "images": 19, "captions": 38},
        "test": {"person_ids": 9, "images": 28, "captions": 58},
    }
    for split, counts in expected["splits"].items():
        own = [entry for entry in index if entry["split"] == split]
        assert len({entry["id"] for entry in own}) == counts["person_ids"]
        assert len(own) == counts["images"]


def test_the_full_size_has_the_counts_of_cuhk_pedes() -> None:
    totals = {
        split: (size.persons, size.images, 2 * size.images + sum(size.extra_captions))
        for split, size in SIZES["full"].items()
    }

    assert totals == {
        "train": (11_003, 34_054, 68_126),
        "val": (1_000, 3_078, 6_158),
        "test": (1_000, 3_074, 6_156),
    }
    for size in SIZES["full"].values():
        counts = images_each(size.persons, size.images)
        assert sum(counts) == size.images
        assert len(counts) == size.persons
        assert min(counts) >= 1


def test_toy_has_three_hundred_train_and_a_hundred_test_identities_or_more() -> None:
    assert SIZES["toy"]["train"].persons == 300
    assert SIZES["toy"]["test"].persons >= 100


def test_ids_start_at_one_and_no_split_shares_any(root: Path) -> None:
    ids = {
        split: sorted({entry["id"] for entry in index_of(root) if entry["split"] == split})
        for split in TINY
    }

    assert ids["train"] == list(range(1, 21))
    assert ids["val"] == list(range(21, 27))
    assert ids["test"] == list(range(27, 36))


def test_the_reader_of_the_real_data_set_reads_it(root: Path) -> None:
    splits = read_cuhk_pedes(root)

    assert [len(splits.train), len(splits.val), len(splits.test)] == [64, 19, 28]
    assert sum(len(record.captions) for record in splits.train) == 131
    assert splits.notices == ()
    assert splits.published is not None
    assert splits.published["train"]["captions"] == 131
    assert all(record.image_path.is_file() for record in splits.train)


def test_images_are_jpegs_of_the_sizes_of_pedestrian_crops(root: Path) -> None:
    sizes = set()
    for entry in index_of(root):
        path = root / "CUHK-PEDES/imgs" / str(entry["file_path"])
        with Image.open(path) as image:
            assert image.format == "JPEG"
            image.load()
            sizes.add(image.size)

    assert len(sizes) > 50
    assert all(60 <= width <= 160 and 160 <= height <= 400 for width, height in sizes)


def test_images_lie_in_several_source_folders(root: Path) -> None:
    sources = {str(entry["file_path"]).split("/")[0] for entry in index_of(root)}

    assert len(sources) >= 4
    assert sources <= {
        "cam_a", "cam_b", "CUHK01", "CUHK03", "Market", "test_query", "train_query"
    }  # fmt: skip


def test_tokens_are_the_words_of_the_captions(root: Path) -> None:
    for entry in index_of(root):
        captions, tokens = entry["captions"], entry["processed_tokens"]
        assert isinstance(captions, list)
        assert tokens == [tokenized(caption) for caption in captions]
        assert all(10 <= len(words) <= 40 for words in tokens)


def test_a_complete_set_of_the_same_settings_is_reused(root: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}

    assert make(root) == root

    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_other_settings_in_the_same_folder_are_refused(root: Path) -> None:
    with pytest.raises(FileExistsError, match="with seed 5, not 6"):
        make(root, seed=6)


def test_a_folder_with_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")

    with pytest.raises(FileExistsError, match="no synthetic data set"):
        make(tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    assert len(index_of(make(tmp_path / "empty"))) == 64 + 19 + 28


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, OSError])
def test_an_interruption_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interruption: type[BaseException]
) -> None:
    calls = 0
    take_picture = generate.take_picture

    def interrupted(*args: object, **options: object) -> bytes:
        nonlocal calls
        calls += 1
        if calls > 30:
            raise interruption("stopped")
        return take_picture(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(generate, "take_picture", interrupted)

    with pytest.raises(interruption):
        make(tmp_path / "set")

    assert calls > 30
    assert list(tmp_path.iterdir()) == []


def test_only_pairs_and_images_can_be_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'pairs'.*'images'"):
        run_synthesize(tmp_path / "set", "videos", "tiny", 0)


@pytest.mark.parametrize("domain", ["moon", "summer"])
def test_pairs_come_from_the_looks_that_have_source_folders(tmp_path: Path, domain: str) -> None:
    with pytest.raises(ValueError, match=f"domain is '{domain}'.*city, campus"):
        make(tmp_path / "set", domain=domain)


def test_the_command_says_what_it_wrote(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "synthesize", str(root), "--size=tiny", "--seed=5"]) == 0

    said = capsys.readouterr().out
    assert "train: 20 identities, 64 images, 131 captions" in said
    config = compose(shlex.split(said.partition("Train on them: ")[2])[2:])
    check_early(config)
    assert config.data.root == str(root)
    assert config.choices.encoder == "clip_tiny"
    assert local_file(config.encoder.clip.pretrained) is not None


def test_two_images_of_one_person_differ_as_much_as_two_persons_do_in_places(root: Path) -> None:
    by_person: dict[object, list[np.ndarray]] = {}
    for entry in index_of(root):
        data = (root / "CUHK-PEDES/imgs" / str(entry["file_path"])).read_bytes()
        small = Image.open(io.BytesIO(data)).resize((32, 96), Image.Resampling.BILINEAR)
        by_person.setdefault(entry["id"], []).append(np.asarray(small, dtype=np.float64))

    differences = [
        np.abs(images[i] - images[j]).mean()
        for images in by_person.values()
        for i in range(len(images))
        for j in range(i)
    ]

    # grey levels per channel: other direction, place and light; a copy with grain is below 5
    assert np.median(differences) > 25
    assert min(differences) > 8


def test_pairs_are_those_that_the_committed_weights_were_trained_on(tmp_path: Path) -> None:
    """Raise GENERATOR_VERSION and train the weights again if this has to change."""
    size = {"train": SplitSize(24, 61), "val": SplitSize(8, 20), "test": SplitSize(12, 31)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(generate.SIZES, "tiny", size)
        inner = make(tmp_path / "set", seed=3) / "CUHK-PEDES"

    digest = hashlib.sha256((inner / "reid_raw.json").read_bytes()).hexdigest()
    assert digest == "66cee1fd38a524223c10404aab04e836f59a10fc01b80213a5dcf46c216f587d"
    means = {
        "train_query/p1_s8.jpg": (136.44, 133.46, 141.31),
        "train_query/p17_s136.jpg": (155.35, 127.97, 137.45),
        "CUHK03/0032_1_04.jpg": (107.45, 117.41, 111.18),
    }
    for name, mean in means.items():
        with Image.open(inner / "imgs" / name) as image:
            # within what decoders of JPEG differ by
            assert np.asarray(image, float).mean((0, 1)) == pytest.approx(mean, abs=0.1)

"""The tiny models that are part of the package, and the lines of the documents that use one."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import crosswalk
from crosswalk.cli import main, parse
from crosswalk.config.model_names import SHIPPED
from crosswalk.metrics.open_set import verdict
from crosswalk.use.calibrate import thresholds_of
from crosswalk.use.source import source_of
from tests.end_to_end.small_runs import METHODS

DOCS = Path(__file__).parents[2] / "docs"
MODELS = (DOCS / "models.md").read_text(encoding="utf-8")
FIRST_RUN = (DOCS / "first_run.md").read_text(encoding="utf-8")


def pictures(folder: Path) -> None:
    """Write two pictures of noise under the names of the documents."""
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (2, 96, 40, 3), dtype=np.uint8)
    for name, pixels in zip(("1.jpg", "2.png"), noise, strict=True):
        Image.fromarray(pixels).save(folder / name)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_a_model_with_a_card(method: str) -> None:
    model = crosswalk.load(f"tiny:{method}")

    rows = model.embed_images([np.full((96, 40, 3), level, np.uint8) for level in (0, 255)])

    assert rows.shape == (2, model.embedding_size)
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(2))
    if model.tokenizer is not None:
        texts = model.embed_texts(["a woman in a red coat", "a man in blue jeans"])
        assert texts.shape == rows.shape
        assert (texts[0] @ texts[1]).item() < 0.999
    card = (SHIPPED / method / "README.md").read_text()
    assert re.search(r"to image \| \d\d\.\d \(", card)
    assert re.search(rf"crosswalk train method={method}( name=tiny logger=csv)?\n", card)
    thresholds = thresholds_of(source_of(f"tiny:{method}"))
    assert thresholds is not None
    assert thresholds.fingerprint == model.fingerprint
    for direction, found in thresholds.directions.items():
        assert f"- {direction.replace('_', ' ')}: {verdict(found)}\n" in card


def test_no_other_models_are_shipped_and_they_are_small() -> None:
    files = sorted(SHIPPED.rglob("*"))

    assert {path.name for path in SHIPPED.iterdir()} == set(METHODS)
    assert sum(path.stat().st_size for path in files) < 25e6  # two of them know all words of CLIP


def test_the_python_of_the_page_of_models_gives_what_a_model_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = next(
        block
        for block in re.findall(r"^```python\n(.*?)^```$", MODELS, re.M | re.S)
        if "tiny:rde" in block
    )
    pictures(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    names: dict[str, torch.Tensor] = {}

    exec(lines, names)

    expected = names["model"].embed_images([tmp_path / "photos/1.jpg", tmp_path / "photos/2.png"])
    assert torch.equal(names["images"], expected)
    assert torch.equal(names["scores"], names["texts"] @ expected.T)


def test_the_embeddings_of_the_page_of_models_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    line = re.search(r"^crosswalk (embed runs/<name> .*?) +#", MODELS, re.MULTILINE)
    assert line is not None

    assert main(line[1].replace("runs/<name>", "tiny:rde").split()) == 0

    assert "In features.npz: 2 images, 192 numbers each." in capsys.readouterr().out


def test_a_model_that_is_not_shipped_is_answered_with_those_that_are() -> None:
    with pytest.raises(FileNotFoundError, match="tiny:dre is no model of this package, which has"):
        source_of("tiny:dre")
    assert source_of("tiny:rde").name == "tiny:rde"


def test_the_lines_of_the_first_run_find_people_among_generated_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```$", FIRST_RUN, re.M | re.S)
    block = next(block for block in blocks if "crosswalk data synthesize people" in block)
    make, index, *searches, serve = map(
        shlex.split, block.replace("runs/<name>", "tiny:rde").splitlines()
    )
    monkeypatch.chdir(tmp_path)

    assert main([*make[1:], "--size", "tiny"]) == 0  # the page's size has the same folders
    assert main(index[1:]) == 0
    assert re.search(r"In people.gallery: (\d+) pictures \(\1 new\)", capsys.readouterr().out)
    for words in searches:
        folder = next((Path(word).parent for word in words if word.startswith("people/")), None)
        query = str(next(folder.iterdir())) if folder else ""
        words = [query if word.startswith("people/") else word for word in words[1:]]
        assert main(words) == 0
        assert "bounding_box_test" in capsys.readouterr().out
    assert Path("found.html").stat().st_size > 10_000
    assert parse(serve[1:]).gallery == Path("people.gallery")

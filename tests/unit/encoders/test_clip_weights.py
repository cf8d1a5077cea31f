from pathlib import Path

import pytest
import torch
from open_clip import pretrained as registry
from safetensors.torch import save_file
from torch import Tensor
from torch.testing import assert_close

from crosswalk.encoders.clip import ClipDualEncoder
from crosswalk.encoders.clip_weights import (
    fit_weights,
    interpolate_positions,
    pretrained_file,
    read_weights,
    resize_position_embedding,
)

SQUARE = {
    "image_size": (24, 24),
    "patch_size": 8,
    "vision_width": 8,
    "vision_layers": 1,
    "vision_heads": 1,
    "text_width": 8,
    "text_layers": 1,
    "text_heads": 1,
    "embed_dim": 4,
    "context_length": 7,
    "vocabulary_size": 20,
}


def bilinear(grid: Tensor, rows: int, columns: int) -> Tensor:
    """Interpolate one ``[h, w]`` channel by hand: pixel centres, edges repeated."""
    height, width = grid.shape
    out = torch.empty(rows, columns, dtype=grid.dtype)
    for row in range(rows):
        for column in range(columns):
            y = min(max((row + 0.5) * height / rows - 0.5, 0), height - 1)
            x = min(max((column + 0.5) * width / columns - 0.5, 0), width - 1)
            top, left = int(y), int(x)
            bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
            upper = grid[top, left] * (1 - (x - left)) + grid[top, right] * (x - left)
            lower = grid[bottom, left] * (1 - (x - left)) + grid[bottom, right] * (x - left)
            out[row, column] = upper * (1 - (y - top)) + lower * (y - top)
    return out


@pytest.mark.parametrize("rows", [1, 3, 7])
@pytest.mark.parametrize("columns", [2, 5])
def test_position_embeddings_are_interpolated_bilinearly(rows: int, columns: int) -> None:
    embedding = torch.randn(10, 2, dtype=torch.float64)

    resized = resize_position_embedding(embedding, (rows, columns))

    assert_close(resized[0], embedding[0])
    for channel in range(2):
        expected = bilinear(embedding[1:, channel].view(3, 3), rows, columns)
        assert_close(resized[1:, channel], expected.flatten())


@pytest.mark.parametrize("given", [(1, 6), (2, 3), (3, 2)])
def test_positions_of_any_grid_are_interpolated(given: tuple[int, int]) -> None:
    embedding = torch.randn(7, 2, dtype=torch.float64)

    resized = interpolate_positions(embedding, given, (5, 2))

    assert_close(resized[0], embedding[0])
    for channel in range(2):
        expected = bilinear(embedding[1:, channel].view(given), 5, 2)
        assert_close(resized[1:, channel], expected.flatten())


def test_positions_that_are_no_square_grid_cannot_be_resized() -> None:
    with pytest.raises(ValueError, match="no square grid"):
        resize_position_embedding(torch.zeros(7, 2), (5, 5))


@pytest.fixture
def weights() -> dict[str, Tensor]:
    torch.manual_seed(2)
    return ClipDualEncoder(**SQUARE).state_dict() | {"logit_scale": torch.tensor(4.6)}


@pytest.mark.parametrize("kind", ["state dict", "training checkpoint", "safetensors", "half"])
def test_weights_are_read_from_every_kind_of_file(
    tmp_path: Path, weights: dict[str, Tensor], kind: str
) -> None:
    path = tmp_path / ("weights.safetensors" if kind == "safetensors" else "weights.pt")
    if kind == "safetensors":
        save_file(weights, path)
    elif kind == "training checkpoint":
        prefixed = {f"module.{name}": row for name, row in weights.items()}
        torch.save({"epoch": 3, "state_dict": prefixed}, path)
    else:
        rows = {name: row.half() if kind == "half" else row for name, row in weights.items()}
        torch.save(rows, path)

    clip = ClipDualEncoder(**SQUARE, pretrained=str(path))

    tolerance = 1e-3 if kind == "half" else 0.0
    for name, row in clip.state_dict().items():
        assert row.dtype == torch.float32
        assert_close(row, weights[name], rtol=tolerance, atol=tolerance)


class Archive(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.visual = torch.nn.Linear(2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.visual(x)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # writing such an archive
def test_weights_are_read_from_a_compiled_archive(tmp_path: Path) -> None:
    model = Archive()
    torch.jit.script(model).save(str(tmp_path / "archive.pt"))

    state = read_weights(tmp_path / "archive.pt")

    assert state.keys() == {"visual.weight", "visual.bias"}
    assert_close(state["visual.weight"], model.visual.weight.detach())


def test_weights_fit_another_image_size_and_shorter_captions(
    tmp_path: Path, weights: dict[str, Tensor]
) -> None:
    torch.save(weights, tmp_path / "weights.pt")
    sizes = SQUARE | {"image_size": (32, 16), "context_length": 5}

    clip = ClipDualEncoder(**sizes, pretrained=str(tmp_path / "weights.pt"))

    resized = resize_position_embedding(weights["visual.positional_embedding"], (4, 2))
    assert_close(clip.visual.positional_embedding.detach(), resized)
    assert_close(clip.positional_embedding.detach(), weights["positional_embedding"][:5])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text_layers": 2}, r"missing in the file: transformer\.resblocks\.1.* and 7 more"),
        ({"vision_width": 16, "vision_layers": 0 + 1}, "shapes that differ"),
        ({"context_length": 9}, r"positional_embedding \[7, 8\] instead of \[9, 8\]"),
    ],
)
def test_weights_of_another_architecture_are_refused(
    tmp_path: Path, weights: dict[str, Tensor], change: dict[str, int], message: str
) -> None:
    wanted = ClipDualEncoder(**SQUARE | change).state_dict()

    with pytest.raises(ValueError, match=message):
        fit_weights(weights, wanted, (3, 3), origin="weights.pt")


def test_a_file_of_the_package_is_found_by_its_name() -> None:
    assert pretrained_file("ViT-B-32", "tiny_clip.safetensors") == "tiny_clip.safetensors"


def test_a_missing_file_that_is_no_tag_either_is_answered_with_the_tags() -> None:
    with pytest.raises(FileNotFoundError, match=r"neither a file nor a tag of ViT-B-32.*openai"):
        pretrained_file("ViT-B-32", "openia")


def test_a_failed_download_says_to_pass_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(entry: dict[str, str]) -> str:
        raise OSError("no route to host")

    monkeypatch.setattr(registry, "download_pretrained", no_network)

    with pytest.raises(FileNotFoundError, match=r"no route to host.*encoder\.clip\.pretrained="):
        pretrained_file("ViT-B-32-quickgelu", "openai")


def test_a_file_without_tensors_is_no_weight_file(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "epoch.pt")

    with pytest.raises(ValueError, match="no state_dict but epoch"):
        read_weights(tmp_path / "epoch.pt")

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from crosswalk.methods.base import Method
from crosswalk.methods.mar import MAR
from crosswalk.run.run_folder import RunFolder
from crosswalk.run.weights import (
    halved,
    load_encoder,
    load_start,
    run_export,
    save_encoder,
    save_weights,
)


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.clip = nn.Linear(2, 2)
        self.head = nn.Linear(2, 1)


class ToyMethod(Method[None]):
    def __init__(self) -> None:
        super().__init__(optim=lambda module: None)
        self.encoder = Encoder()


@pytest.fixture
def run(tmp_path: Path) -> tuple[Path, ToyMethod]:
    method = ToyMethod()
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("best", "last"):
        torch.save({"state_dict": method.state_dict()}, folder / f"{name}.ckpt")
    return folder, method


def test_the_encoder_of_a_run_is_exported_and_loaded_again(
    run: tuple[Path, ToyMethod], tmp_path: Path
) -> None:
    folder, method = run
    run_export(folder, tmp_path / "w.safetensors")

    other = ToyMethod()
    load_encoder(other, tmp_path / "w.safetensors")

    assert torch.equal(other.encoder.head.weight, method.encoder.head.weight)
    assert torch.equal(other.encoder.clip.bias, method.encoder.clip.bias)


def test_a_part_is_exported_without_its_prefix_and_rounded(
    run: tuple[Path, ToyMethod], tmp_path: Path
) -> None:
    folder, method = run

    run_export(folder, tmp_path / "clip.safetensors", "last", part="clip", half=True)

    weights = load_file(tmp_path / "clip.safetensors")
    assert sorted(weights) == ["bias", "weight"]
    assert torch.equal(weights["weight"], method.encoder.clip.weight.half())


@pytest.mark.parametrize("number", [7e4, -1e6, 1e-9, float("nan"), float("inf")])
def test_what_float16_does_not_hold_stays_as_it_is(number: float) -> None:
    plain = torch.tensor([[1.0, -0.3]])
    odd = {"filter": torch.full((2, 1, 3, 3), number), "running_var": torch.tensor([1.0, number])}

    found = halved({"plain": plain, "count": torch.tensor(3), **odd})

    assert found["plain"].dtype == torch.float16
    torch.testing.assert_close(found["plain"].float(), plain, atol=2e-4, rtol=0)
    for name, row in {"count": torch.tensor(3), **odd}.items():
        assert found[name].dtype == row.dtype
        torch.testing.assert_close(found[name], row, atol=0, rtol=0, equal_nan=True)


def test_a_checkpoint_of_a_run_is_loaded_as_it_is(run: tuple[Path, ToyMethod]) -> None:
    folder, method = run

    other = ToyMethod()
    load_encoder(other, folder / "best.ckpt")

    assert torch.equal(other.encoder.clip.weight, method.encoder.clip.weight)


def test_weights_of_another_model_are_refused_by_name(
    run: tuple[Path, ToyMethod], tmp_path: Path
) -> None:
    folder, _ = run
    run_export(folder, tmp_path / "clip.safetensors", part="clip")

    with pytest.raises(ValueError, match=r"clip.safetensors does not fit the configured encoder"):
        load_encoder(ToyMethod(), tmp_path / "clip.safetensors")
    with pytest.raises(FileNotFoundError, match=r"checkpoint=.*none\.ckpt does not exist"):
        load_encoder(ToyMethod(), tmp_path / "none.ckpt")
    (tmp_path / "rde-pairs-none.ckpt").mkdir()
    with pytest.raises(
        FileNotFoundError, match=r"none\.ckpt does not exist\. Did you mean .*/rde-p"
    ):
        load_encoder(ToyMethod(), tmp_path / "none.ckpt")
    with pytest.raises(ValueError, match="has no part 'text'"):
        run_export(folder, tmp_path / "text.safetensors", part="text")


class WithAgents(ToyMethod):
    starts_with = MAR.starts_with


def with_agents(persons: int) -> ToyMethod:
    method = WithAgents()
    method.agents = nn.Linear(2, persons, bias=False)
    return method


@pytest.mark.parametrize("name", ["agents.weight", "classifier.weight"])
def test_a_run_starts_with_the_agents_of_a_checkpoint(tmp_path: Path, name: str) -> None:
    state = {**ToyMethod().state_dict(), name: torch.full((3, 2), 7.0)}
    torch.save({"state_dict": state}, tmp_path / "last.ckpt")
    method = with_agents(3)

    load_start(method, tmp_path / "last.ckpt")

    assert method.agents.weight.tolist() == [[7.0, 7.0]] * 3
    assert torch.equal(method.encoder.head.weight, state["encoder.head.weight"])


def test_a_run_starts_with_the_agents_of_an_imported_file(tmp_path: Path) -> None:
    weights = {**Encoder().state_dict(), "agents.weight": torch.full((3, 2), 7.0)}
    path = tmp_path / "mar.safetensors"
    save_weights(path, weights, method="mar", origin="x", architecture={})
    method, without = with_agents(3), ToyMethod()

    load_start(method, path)
    load_start(without, path)

    assert method.agents.weight.tolist() == [[7.0, 7.0]] * 3
    assert torch.equal(without.encoder.head.weight, weights["head.weight"])


def test_what_another_method_may_start_with_is_exported_with_the_encoder(tmp_path: Path) -> None:
    state = {**ToyMethod().state_dict(), "classifier.weight": torch.full((3, 2), 7.0)}
    torch.save({"state_dict": state}, tmp_path / "last.ckpt")
    run_export(tmp_path, tmp_path / "source.safetensors", "last")
    method, without = with_agents(3), ToyMethod()

    load_start(method, tmp_path / "source.safetensors")
    load_start(without, tmp_path / "source.safetensors")

    assert method.agents.weight.tolist() == [[7.0, 7.0]] * 3
    assert torch.equal(without.encoder.head.weight, state["encoder.head.weight"])


@pytest.mark.parametrize(
    ("agents", "message"),
    [(None, "has no agents, and the data need 4"), (torch.zeros(3, 2), "has 3 agents, and .* 4")],
)
def test_a_run_does_not_start_with_random_agents(
    tmp_path: Path, agents: Tensor | None, message: str
) -> None:
    state = ToyMethod().state_dict()
    if agents is not None:
        state["agents.weight"] = agents
    torch.save({"state_dict": state}, tmp_path / "last.ckpt")

    with pytest.raises(ValueError, match=message):
        load_start(with_agents(4), tmp_path / "last.ckpt")


def test_an_encoder_is_saved_as_it_is_and_loaded_again(tmp_path: Path) -> None:
    method, other = ToyMethod(), ToyMethod()

    save_encoder(tmp_path / "start.safetensors", method, origin="a stage")
    load_encoder(other, tmp_path / "start.safetensors")

    assert torch.equal(other.encoder.clip.weight, method.encoder.clip.weight)
    assert torch.equal(other.encoder.head.bias, method.encoder.head.bias)


@pytest.mark.parametrize("name", ["", "best.ckpt"])
def test_weights_that_do_not_fit_name_the_encoder_of_their_run(
    run: tuple[Path, ToyMethod], name: str
) -> None:
    folder, _ = run
    RunFolder(folder).save_config(
        {"choices": {"encoder": "timm"}, "data": {"image_size": [64, 32]}, "encoder": {}}
    )
    other = ToyMethod()
    other.encoder.head = nn.Linear(2, 3)

    with pytest.raises(ValueError, match=r"encoder=timm data\.image_size=\[64,32\]"):
        load_encoder(other, folder / name)


class Richer(Encoder):
    may_start_anew = ("head",)


class WithParts(ToyMethod):
    may_start_with = ("classifier", "mlm", "unmade")

    def __init__(self, persons: int) -> None:
        super().__init__()
        self.encoder = Richer()
        self.classifier = nn.Linear(2, persons)
        self.mlm = nn.Linear(2, 3)
        self.unmade = None


def test_parts_that_a_file_has_not_or_in_another_size_start_anew(tmp_path: Path) -> None:
    saved, method = WithParts(persons=4), WithParts(persons=5)
    head, classifier = method.encoder.head.weight.clone(), method.classifier.weight.clone()
    weights = {
        name.removeprefix("encoder."): row
        for name, row in saved.state_dict().items()
        if not name.startswith("encoder.head.")
    }
    save_weights(tmp_path / "w.safetensors", weights, method="", origin="x", architecture={})

    anew = load_start(method, tmp_path / "w.safetensors")

    assert anew == ["head", "classifier"]
    assert torch.equal(method.encoder.clip.weight, saved.encoder.clip.weight)
    assert torch.equal(method.mlm.weight, saved.mlm.weight)
    assert torch.equal(method.encoder.head.weight, head)
    assert torch.equal(method.classifier.weight, classifier)

"""`crosswalk serve`: what is refused before anything slow is imported, and how it is called."""

from __future__ import annotations

import re
import socket
from argparse import Namespace
from importlib.util import find_spec
from pathlib import Path

import pytest

from crosswalk.cli import parse
from crosswalk.gallery import serving
from crosswalk.gallery.description import Description
from crosswalk.gallery.serving import access_of, address_of, check

TOKEN = "a-token-of-many-signs"


@pytest.fixture
def gallery(tmp_path: Path) -> Path:
    columns = {"path": "text", "sha256": "text"}
    path = tmp_path / "photos.gallery"
    path.mkdir()
    Description(path, "tiny:rde", "0" * 16, 64, True, columns, None).write()  # type: ignore[arg-type]
    return path


def options_of(gallery: Path, *words: str) -> Namespace:
    return parse(["serve", str(gallery), "--port=0", *words])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--host=0.0.0.0"], "--host 0.0.0.0: others could look at the pictures. Say who may by"),
        (["--host=::"], "--host ::: others could look"),
        (["--host=0.0.0.0", "--token=short"], "the token should be at least 16 letters, digits"),
        (["--token=with spaces in it, long"], "the token should be at least 16"),
        (["--host=no.such.host.invalid"], "is no address of this machine"),
        (["--host="], "is no address of this machine"),
        (["--model=runs/nowhere"], "runs/nowhere does not exist"),
    ],
)
def test_a_mistake_is_answered_with_what_to_do(gallery: Path, words: list[str], said: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=re.escape(said)):
        check(options_of(gallery, *words))


def test_a_token_that_a_message_proposes_is_taken(gallery: Path) -> None:
    with pytest.raises(ValueError, match="others could look") as refused:
        check(options_of(gallery, "--host=0.0.0.0"))
    proposed = re.search(r"such as (\S+);", str(refused.value))
    assert proposed is not None

    with check(options_of(gallery, "--host=0.0.0.0", "--token", proposed[1])) as listening:
        assert listening.getsockname()[0] == "0.0.0.0"


def test_the_token_may_come_from_the_environment(
    gallery: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(serving.TOKEN, TOKEN)
    options = options_of(gallery, "--host=0.0.0.0", "--name=Gallery.example")

    with check(options) as listening:
        access = access_of(options, listening)
        address = address_of(options, listening)

    assert access.token == TOKEN
    assert access.any_address
    assert access.names >= {"gallery.example", "localhost", socket.gethostname().lower()}
    assert TOKEN not in address


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.0.0.5"])
def test_only_this_machine_is_let_in_without_a_token(gallery: Path, host: str) -> None:
    options = options_of(gallery, f"--host={host}")

    with check(options) as listening:
        access = access_of(options, listening)
        port = listening.getsockname()[1]
        address = address_of(options, listening)

    assert (access.token, access.any_address) == (None, False)
    assert access.names == {"127.0.0.1", "localhost", "::1", host}
    assert address.endswith(f":{port}/")


def test_a_place_that_is_taken_is_named(gallery: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        with pytest.raises(ValueError, match=rf"--port {port} cannot be listened to: Address"):
            check(options_of(gallery, f"--port={port}"))


def test_libraries_that_are_missing_are_named(
    gallery: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without(name: str) -> object:
        return None if name in ("uvicorn", "python_multipart") else find_spec(name)

    monkeypatch.setattr(serving, "find_spec", without)

    with pytest.raises(ValueError, match=r"the page needs uvicorn, python-multipart: pip install"):
        check(options_of(gallery))


@pytest.mark.parametrize("port", ["65536", "-1", "many"])
def test_a_port_is_a_number_that_there_is(
    gallery: Path, port: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        options_of(gallery, f"--port={port}")

    assert f"invalid port value: '{port}'" in capsys.readouterr().err

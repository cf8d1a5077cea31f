"""How often published weights are asked for where their host cannot be reached."""

from __future__ import annotations

import socket

import pytest
from huggingface_hub import constants

from crosswalk.network import one_attempt


@pytest.mark.parametrize("answers", [True, False])
def test_the_hub_is_asked_only_where_its_host_answers(
    answers: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it does not the cache alone is looked into: the hub would try for minutes."""
    monkeypatch.setattr("crosswalk.network.getproxies", dict)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if answers:
            server.listen()
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setattr(constants, "ENDPOINT", address)

        with one_attempt():
            is_offline = constants.HF_HUB_OFFLINE

    assert is_offline == (not answers)
    assert constants.HF_HUB_OFFLINE is False

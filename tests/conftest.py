"""No test reaches a network: connections go to this machine or fail."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import hypothesis
import pytest

from tests.support.postgres import WHY_NOT, Server, running

# Machines are shared and slow at times: a property holds or it does not, however long it takes to see. The gate tries
# the same examples every time; HYPOTHESIS_PROFILE=explore tries new ones.
hypothesis.settings.register_profile("gate", deadline=None, derandomize=True)
hypothesis.settings.register_profile("explore", deadline=None)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "gate"))

_LOCAL = {"127.0.0.1", "::1", "localhost", "0.0.0.0"}


@pytest.fixture(autouse=True)
def _stay_here(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[None]:
    if request.node.get_closest_marker("network"):
        yield
        return
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> None:
        if isinstance(address, tuple) and address[0] not in _LOCAL:
            raise OSError(f"a test tried to reach {address[0]}")
        connect(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", guarded)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TEACHER_KEY", "test-key-000000")
    yield


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    """A real PostgreSQL server of the tests' own; without one installed, tests that need it are skipped."""
    if WHY_NOT:
        pytest.skip(WHY_NOT)
    with running() as server:
        yield server

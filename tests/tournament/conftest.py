"""A running double of the tournament, and a client for it whose waits cost no time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from eravane.tournament.client import Client
from eravane.tournament.credentials import Credentials
from eravane.tournament.transport import Patience
from tests.tournament.double import Double

PUBLIC_ID = "PUBLICID0PLANTED"
SECRET_KEY = "SECRETKEY0PLANTED0DO0NOT0WRITE"


@dataclass
class FakeTime:
    """A clock that moves when somebody sleeps."""

    now: float = 0.0
    sleeps: list[float] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.now += seconds

    def clock(self) -> float:
        return self.now


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch) -> Iterator[Double]:
    with Double(public_id=PUBLIC_ID, secret_key=SECRET_KEY) as running:
        monkeypatch.setattr("numerapi.base_api.API_TOURNAMENT_URL", running.url)
        yield running


@pytest.fixture
def fake_time() -> FakeTime:
    return FakeTime()


@pytest.fixture
def patience(fake_time: FakeTime) -> Patience:
    return Patience(read_s=0.3, sleep=fake_time.sleep, clock=fake_time.clock)


@pytest.fixture
def client(double: Double, patience: Patience) -> Client:
    return Client(Credentials(PUBLIC_ID, SECRET_KEY), patience)

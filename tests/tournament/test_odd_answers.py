"""Answers of the API damaged by chance: each ends in a sentence or costs nothing, none in a raw exception."""

from __future__ import annotations

import copy
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from eravane.core.errors import EravaneError
from eravane.tournament.client import Client
from eravane.tournament.credentials import Credentials
from eravane.tournament.diagnose import diagnose
from eravane.tournament.fetch import fetch
from eravane.tournament.overview import rules
from eravane.tournament.scores import scores
from eravane.tournament.submit import submit
from eravane.tournament.transport import ApiError, Patience, Transport, check_address
from eravane.tournament.upload import upload
from tests.tournament import made
from tests.tournament.double import Double
from tests.tournament.made import PUBLIC_ID, SECRET_KEY, FakeTime

DEEP = b'{"data": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
ODD: tuple[Any, ...] = (
    *(None, True, 0, -1, 10**25, 1.5, float("nan"), float("inf"), "", "x", "-1", "9" * 5000, "\ud800", "\x1b[2J"),
    *("2026-13-45T99:00:00Z", "0001-01-01T00:00:00+23:59", "../../x", "http://[::1", [], [None], [[]], {}, {"a": 1}),
)
COMMANDS: dict[str, Callable[[Client, Path, Path], Any]] = {
    "fetch": lambda client, run, data: fetch(run.parent / "fetched", client=client),
    "submit": lambda client, run, data: submit(run, ["alpha"], client=client),
    "scores": lambda client, run, data: scores("alpha", client=client).as_dict(),
    "rules": lambda client, run, data: rules(client=client),
    "diagnose": lambda client, run, data: diagnose(run, "alpha", data=data, wait_minutes=0.1, client=client),
    "upload": lambda client, run, data: upload(run / "model.pkl", "alpha", python="3.12", assign=True, client=client),
}


class Harm:
    """Replaces one part of the n-th answer by something odd, or leaves it out."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng, self.left, self.done = rng, int(rng.integers(8)), ""

    def __call__(self, answer: dict[str, Any]) -> Any:
        self.left -= 1
        if self.left >= 0 or self.done:
            return answer
        answer = copy.deepcopy(answer)
        place: Any = answer
        path = []
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            path.append(key := keys[int(self.rng.integers(len(keys)))])
            inner = place[key]
            if isinstance(inner, dict | list) and inner and self.rng.integers(4):
                place = inner
                continue
            if self.rng.integers(6) == 0:
                del place[key]
                self.done = f"{path} left out"
            else:
                place[key] = ODD[int(self.rng.integers(len(ODD)))]
                self.done = f"{path} = {place[key]!r:.40}"
            return answer


def ready(double: Double) -> None:
    """A tournament that every command finds something in."""
    double.datasets = {**made.dataset(), "v5.3/live.parquet": made.parquet(made.LIVE)}
    double.live_ids = list(made.LIVE.index)
    double.open_round(1346)
    model = double.add_model("alpha")
    double.submissions, double.pickles, double.assigned, double.storage = [], [], {}, {}
    double.validation = ["pending", "validated"]
    double.scores = [
        {"modelId": model, "displayName": name, "roundNumber": 1345, "day": 31, "value": 0.02, "resolved": True}
        for name in ("corr60", "mmc60")
    ]
    paid = {"isPayout": True, "clipThreshold": 0.05, "payoutFactor": "0.25", "totalScoreDays": 60}
    both = [{**paid, "displayName": "corr60", "defaultMultiplier": 2.0}, {**paid, "displayName": "mmc60"}]
    both[1]["defaultMultiplier"] = 7.0
    double.rounds = [{"number": 1345, "status": "RESOLVING", "roundScoreConfigs": both}]
    eras = [{"era": str(era), "validationCorr": 0.01 * era, "validationMmc": 0.0} for era in range(7, 10)]
    double.diagnostics, double.diagnostics_wait = {"message": "fine", "perEraDiagnostics": eras}, 1


def draw(seed: int, double: Double, world: tuple[Path, Path, pd.DataFrame], folder: Path) -> str:
    """One command with one damaged answer; what was damaged and what came of it, checked."""
    rng = np.random.default_rng(seed)
    name = list(COMMANDS)[seed % len(COMMANDS)]
    ready(double)
    folder.mkdir()
    run = made.write_run(folder / "run", made.predictions())
    for part in ("predictions.parquet", "manifest.json"):
        shutil.copy(world[0] / part, run / part)
    (run / "model.pkl").write_bytes(pickle.dumps({"model": 1}))
    time = FakeTime()
    client = Client(Credentials(PUBLIC_ID, SECRET_KEY), Patience(read_s=1.0, sleep=time.sleep, clock=time.clock))
    double.harm = harm = Harm(rng)
    outcome = "carried out"
    try:
        COMMANDS[name](client, run, world[1])
    except EravaneError as error:
        outcome = str(error)
        assert outcome.strip(), (name, harm.done)
        assert SECRET_KEY not in outcome
    except Exception as error:
        raise AssertionError(f"seed {seed}: {name} with {harm.done}: {type(error).__name__}") from error
    finally:
        double.harm = lambda answer: answer
        shutil.rmtree(folder)
    return f"{name} with {harm.done}: {outcome}"


@pytest.mark.parametrize("block", range(6))
def test_a_damaged_answer_is_a_sentence(
    block: int, double: Double, world: tuple[Path, Path, pd.DataFrame], tmp_path: Path
) -> None:
    for seed in range(10 * block, 10 * block + 10):
        draw(seed, double, world, tmp_path / str(seed))


@pytest.mark.full
@pytest.mark.parametrize("block", range(44))
def test_none_of_many_damaged_answers_is_more(
    block: int, double: Double, world: tuple[Path, Path, pd.DataFrame], tmp_path: Path
) -> None:
    for seed in range(60 + 10 * block, 70 + 10 * block):
        draw(seed, double, world, tmp_path / str(seed))


def test_every_command_passes_while_nothing_is_damaged(
    double: Double, world: tuple[Path, Path, pd.DataFrame], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Harm, "__call__", lambda self, answer: answer)
    for seed, name in enumerate(COMMANDS):
        assert draw(seed, double, world, tmp_path / name) == f"{name} with : carried out"


def test_an_answer_that_is_nested_without_end_is_no_json(
    double: Double, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Transport, "body", lambda self, response: DEEP)
    with pytest.raises(ApiError, match="the answer is no JSON"):
        client.datasets()


@pytest.mark.parametrize("text", ["http://[::1", "https://[x]/", "https://", "http://127.0.0.1:99999", "https://h:0/"])
def test_an_address_that_is_none(text: str) -> None:
    with pytest.raises(ApiError, match="address"):
        check_address(text)

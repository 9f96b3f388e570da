"""The tournament's commands against the double: exit codes, one line of error, and nothing recorded by mistake."""

from __future__ import annotations

import json
import pickle
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from eravane.cli import main
from eravane.tournament.transport import Patience
from tests.tournament import made
from tests.tournament.double import Double
from tests.tournament.made import PUBLIC_ID, SECRET_KEY

pytestmark = pytest.mark.usefixtures("tournament")

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def eravane(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], patience: Patience, tmp_path: Path
) -> Iterator[Command]:
    """Runs a command line in this process; returns exit code, output and errors."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    monkeypatch.setattr("eravane.tournament.client.Patience", lambda: patience)
    monkeypatch.setenv("NUMERAI_PUBLIC_ID", PUBLIC_ID)
    monkeypatch.setenv("NUMERAI_SECRET_KEY", SECRET_KEY)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["eravane", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        output = capfd.readouterr()
        return int(left.value.code or 0), output.out, output.err

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_a_submission_is_reported_and_repeated(eravane: Command, double: Double, run: Path) -> None:
    code, output, _ = eravane("submit", run, "--model", "alpha", "--model", "beta", "--dry-run")
    assert (code, double.submissions) == (0, [])
    code, output, _ = eravane("submit", run, "--model", "alpha", "--model", "beta")
    assert code == 0
    assert output.count("sent, round 1330, 120 predictions") == 2
    code, output, _ = eravane("submit", run, "--model", "alpha", "--json")
    assert (code, json.loads(output)[0]["status"]) == (0, "found")
    assert len(double.submissions) == 2


@pytest.mark.parametrize(("operation", "kind"), [("account", 401), ("PUT", 500), ("rounds", "malformed")])
def test_a_failure_is_one_line_and_exit_code_1(
    eravane: Command, double: Double, run: Path, operation: str, kind: int | str
) -> None:
    double.fail(operation, kind, times=10_000)
    code, output, errors = eravane("submit", run, "--model", "alpha")
    assert (code, output) == (1, "")
    last = errors.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert "Traceback" not in errors
    assert SECRET_KEY not in errors
    assert made.receipt_files(run) == []


def test_data_is_fetched(eravane: Command, double: Double, tmp_path: Path) -> None:
    code, output, _ = eravane("fetch", tmp_path / "data")
    assert code == 0
    assert "v5.3 in" in output
    assert (tmp_path / "data" / "train.parquet").read_bytes() == double.datasets["v5.3/train.parquet"]
    code, _, errors = eravane("fetch", tmp_path / "other", "--version", "v9.9")
    assert (code, "no dataset 'v9.9'" in errors) == (1, True)


def test_scores_and_uploads_answer(eravane: Command, double: Double, tmp_path: Path) -> None:
    code, output, _ = eravane("scores", "--model", "alpha")
    assert (code, "live scores of alpha" in output) == (0, True)
    (tmp_path / "model.pkl").write_bytes(pickle.dumps([1]))
    code, output, _ = eravane("upload", tmp_path / "model.pkl", "--model", "alpha", "--python", "3.12")
    assert code == 0
    assert "upload pickle-1 to alpha: created, v5.3 in Python 3.12; the slot does not predict with it before" in output
    double.validation = ["validated"]
    arguments = ("upload", tmp_path / "model.pkl", "--model", "alpha", "--python", "3.12", "--assign", "--json")
    code, output, _ = eravane(*arguments)
    assert (code, json.loads(output)["status"]) == (0, "assigned")
    code, _, errors = eravane("export", tmp_path, "--out", tmp_path / "out.pkl")
    assert (code, "is not a run folder" in errors) == (1, True)

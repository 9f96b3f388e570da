"""The command line as a user meets it: help, exit codes, messages, an interruption of a real process."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from rich.console import Console

from eravane.cli.progress import ConsoleProgress, gain_sentence, print_table
from eravane.core.events import Progress
from eravane.pipeline.week import WeekReport
from tests.support import programs
from tests.support.programs import Program

COMMANDS = [
    *("demo", "synth", "ingest", "plan", "run", "step", "report", "compare", "doctor"),
    *("fetch", "submit", "diagnose", "scores", "export", "upload"),
]
EAGER = "import sys; from eravane.cli import main; sys.argv[0] = 'eravane'; main()"


def _eravane(*arguments: object, code: str = EAGER) -> CompletedProcess[str]:
    return programs.run(["-c", code, *arguments], environment=os.environ | {"NO_COLOR": "1", "COLUMNS": "120"})


def test_help_lists_every_command_with_a_sentence() -> None:
    found = _eravane("--help")
    assert found.returncode == 0
    assert [name for name in COMMANDS if not re.search(rf"{name} +[A-Z]", found.stdout)] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_complete_help(command: str) -> None:
    found = _eravane(command, "--help")
    assert found.returncode == 0
    options = [line for line in found.stdout.splitlines() if re.search(r"--[a-z]", line.split("<")[0])]
    assert len(options) >= 1
    # Every line that starts an option has prose beside its names, its type and its bounds.
    apart = re.compile(r"--[a-z-]+|<.*?>+|\[.*?\]|\b[A-Z]+\b|\b(range)\b")
    assert [line for line in options if not re.search(r"[a-z]{2,}", apart.sub("", line))] == []


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["run"], 2, "Missing argument"),
        (["runn"], 2, "No such command"),
        (["run", "nowhere", "--out", "{}/run"], 1, "nowhere/features.json is missing"),
        (["run", "nowhere", "--out", "{}/run", "--config", "none.toml"], 2, "there is no configuration"),
        (["run", "nowhere", "--out", "{}/run", "--device", "tpu"], 2, "auto, cpu or cuda"),
        (["synth", "{}/made", "--preset", "huge"], 2, "one of tiny, small, v5.3"),
        (["synth", "{}/made", "--preset", "tiny", "--regimes", "secret"], 2, "secret"),
        (["ingest", "nowhere", "{}/store"], 1, "is missing"),
        (["ingest", "nowhere", "{}/store", "--eras", "5-9"], 2, "FROM:TO"),
        (["report", "{}"], 1, "eravane run --out"),
        (["compare", "{}", "{}"], 1, "eravane run --out"),
        (["step", "{}", "--data", "nowhere"], 1, "not a run folder"),
        (["export", "{}"], 1, "run folder"),
        (["submit", "{}", "--model", "m"], 1, ""),
    ],
)
def test_wrong_input_gets_one_readable_message(arguments: list[str], code: int, message: str, tmp_path: Path) -> None:
    found = _eravane(*(argument.replace("{}", str(tmp_path)) for argument in arguments))
    assert found.returncode == code, found.stderr
    assert message in " ".join(found.stderr.split())
    assert "Traceback" not in found.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "line",
    ["run nowhere --out run", "step run --data data", "export run", "report run", "compare run run", "plan nowhere"],
)
def test_what_is_not_there_is_refused_before_pytorch_loads(line: str, tmp_path: Path) -> None:
    program = EAGER.replace("main()", "\ntry: main()\nfinally: sys.stdout.write(str('torch' in sys.modules))")
    found = subprocess.run([sys.executable, "-c", program, *line.split()], capture_output=True, text=True, cwd=tmp_path)
    assert (found.returncode, found.stdout) == (1, "False"), found.stderr


def test_debug_shows_the_traceback() -> None:
    assert "Traceback" in _eravane("--debug", "report", "nowhere").stderr


def test_version() -> None:
    from eravane import __version__

    assert _eravane("--version").stdout.strip() == __version__


def test_doctor_speaks_json_and_fails_where_something_must_be_fixed() -> None:
    found = _eravane("doctor", "--json")
    checks = json.loads(found.stdout)
    assert {"name", "status", "found", "advice"} <= set(checks[0])
    assert found.returncode == int(any(check["status"] == "fail" for check in checks))
    # Libraries were imported above, each in a process of its own, which takes seconds.
    trusting = EAGER.replace("main()", "import eravane.planning.machine as m; m.failing_imports = lambda _: (); main()")
    unreachable = _eravane("doctor", "--scheduler", "nonsense", code=trusting)
    assert unreachable.returncode == 1
    assert "tcp://host:8786" in unreachable.stdout


@pytest.mark.parametrize("terminal", [False, True])
def test_a_weekly_step_prints_one_line_and_shows_progress_on_a_terminal_alone(
    terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from eravane.cli import runs

    (tmp_path / "run.toml").touch()

    def week(run: Path, _data: Path, *, cache: Path, progress: Progress, adopt: bool) -> WeekReport:
        progress.start("loop", 1)
        progress.note("a fact")
        progress.advance("era 82")
        return WeekReport(str(run), True, (82,), 83, {}, {}, None, 1.0, ())

    monkeypatch.setattr("eravane.pipeline.week.step", week)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    runs.step(tmp_path, Path("data"))
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 1
    assert json.loads(printed.out)["eras"] == [82]
    assert ("a fact" in printed.err) == terminal
    assert bool(printed.err) == terminal


@pytest.mark.parametrize("width", [72, 110])
def test_time_left_is_never_cut_by_a_long_detail(width: int) -> None:
    screen = io.StringIO()
    with ConsoleProgress(Console(file=screen, width=width, force_terminal=True)) as shown:
        shown.start("first models", 400)
        for _ in range(3):
            shown.advance("medium.intelligence.target.0 to era 832: 16 M rows x features x trees per second")
    last = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue()).rstrip().splitlines()[-1].split("\r")[-1]
    assert re.search(r" 3/400 +(\d|-):(\d\d|--):(\d\d|--) medium\.", last), last
    assert len(last) <= width


def test_tables_in_a_pipe_are_plain_lines() -> None:
    """Neither frames nor a width: a long name is neither wrapped nor cut."""
    piped = io.StringIO()
    rows = [("ensemble", "0.0500"), ("a benchmark with a long [bold]name[/bold] " * 4, "0.1")]
    print_table(Console(file=piped, width=80), "CORR per era", ("series", "mean"), rows)
    title, *lines = piped.getvalue().splitlines()
    assert title == "CORR per era"
    assert [line.split("  ")[0].strip() for line in lines] == ["series", "ensemble", rows[1][0].strip()]
    assert [line.split()[-1] for line in lines] == ["mean", "0.0500", "0.1"]
    assert len({len(line) for line in lines}) == 1
    shown = io.StringIO()
    print_table(Console(file=shown, width=80, force_terminal=True), "CORR per era", ("series", "mean"), rows[:1])
    assert "┃" in shown.getvalue()


def test_a_gain_over_few_eras_is_not_called_sure() -> None:
    metrics = {"gain_over_equal_weight": {"mean": 0.0177, "hac_t": 6.26, "n_eras": 10}}
    assert gain_sentence(metrics, 10) == "gain over equal weight: 0.0177 per era, HAC t 6.26, 10 eras"
    assert "6.26" not in gain_sentence(metrics, 24)
    assert "too early to judge, which takes 24" in gain_sentence(metrics, 24)


def test_progress_in_a_pipe_is_one_plain_line_per_step() -> None:
    """However long, and with brackets that a terminal library would take for its own."""
    piped = io.StringIO()
    with ConsoleProgress(Console(file=piped, width=80)) as shown:
        shown.start("zoo", 1)
        shown.advance("all.[bold]wisdom[/bold].target.0 " + "to era 32 " * 12)
        shown.start("ingest", 1)
        shown.advance()
        shown.note("a fact " * 20)
    zoo, ingest, fact, end = piped.getvalue().split("\n")
    assert zoo.startswith("zoo 1/1 ")
    assert "all.[bold]wisdom[/bold].target.0 to era 32" in zoo
    assert re.fullmatch(r"ingest 1/1 [\d.]+ s", ingest)
    assert (fact.strip(), end) == (("a fact " * 20).strip(), "")


def test_demo_then_report_and_an_interruption(tmp_path: Path) -> None:
    """Ctrl-C ends a run within seconds; --resume finishes it."""
    done = _eravane("demo", "--preset", "tiny", "--out", tmp_path / "demo")
    assert done.returncode == 0, done.stderr
    assert "ensemble" in done.stdout
    assert str(tmp_path / "demo" / "run" / "report.html") in done.stdout
    run, data, cache = tmp_path / "run", tmp_path / "demo" / "data", tmp_path / "cache"
    config = tmp_path / "demo" / "run" / "run.toml"
    arguments = ["run", data, "--out", run, "--config", config, "--cache", cache]
    program = Program(["-c", EAGER, *arguments])
    deadline = time.monotonic() + 240
    while not list(run.glob("checkpoints/0*")) and time.monotonic() < deadline and program.poll() is None:
        time.sleep(0.05)
    pressed = time.monotonic()
    program.interrupt()
    ended = program.finish(timeout=120)
    assert ended.returncode == 130, ended.stderr
    assert "--resume" in ended.stderr
    assert time.monotonic() - pressed < 100  # a second or two on an idle machine
    done = _eravane(*arguments, "--resume", "--json")
    assert done.returncode == 0
    answer = json.loads(done.stdout)
    assert (answer["run"], answer["report"]) == (str(run), str(run / "report.html"))
    assert answer["metrics"] == json.loads((run / "metrics.json").read_text())
    assert answer["warnings"] == json.loads((run / "manifest.json").read_text())["warnings"] != []
    assert re.search(r"^loop \d+/\d+ ", done.stderr, re.MULTILINE)
    for name in ("predictions.parquet", "metrics.json", "live_predictions.csv"):
        assert (run / name).read_bytes() == (tmp_path / "demo" / "run" / name).read_bytes()

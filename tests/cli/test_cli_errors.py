"""Wrong input to every command: one readable message, the right exit code, never a traceback."""

from __future__ import annotations

import importlib
import io
import json
import logging
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from eravane import api, cli
from eravane.cli.app import app, make_console
from eravane.cli.progress import ConsoleProgress, print_table
from eravane.core.config import RunConfig, to_toml
from eravane.core.errors import DataError
from eravane.synth import SynthConfig, synthesise


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No credentials, no network, a cache of its own, and the process's signals as they were."""
    for name in ("NUMERAI_PUBLIC_ID", "NUMERAI_SECRET_KEY", "ERAVANE_TOURNAMENT"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("ERAVANE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthesise(
        tmp_path_factory.mktemp("cli") / "data",
        SynthConfig(main_target="target_ender_20", eras=48, rows=30, features=12, groups=3),
    )


@pytest.fixture
def data(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "data"))


def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: object) -> tuple[int, str]:
    """Exit code and everything printed on the error channel."""
    monkeypatch.setattr(sys, "argv", ["eravane", *map(str, arguments)])
    try:
        cli.main()
        code: object = 0
    except SystemExit as stop:
        code = stop.code
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err + printed.out
    return int(str(code or 0)), printed.err


NOWHERE = [
    ("run nowhere --out new", 1, "nowhere"),
    ("ingest nowhere store", 1, "nowhere"),
    ("step nowhere --data nowhere", 1, "nowhere"),
    ("report nowhere", 1, "nowhere"),
    ("compare nowhere nowhere", 1, "nowhere"),
    ("export nowhere", 1, "nowhere"),
    ("plan nowhere", 1, "nowhere is no folder"),
    ("fetch file", 1, "file is no folder"),
    ("fetch new --version 5.3", 1, "is no dataset version"),
    ("fetch new --version", 2, "requires an argument"),
    ("submit nowhere --model m --dry-run", 1, "nowhere"),
    ("diagnose nowhere --model m", 1, "NUMERAI_PUBLIC_ID"),
    ("upload nowhere.pkl --model m", 1, "nowhere"),
    ("scores --model m --run nowhere", 1, ""),
    ("demo --preset huge", 2, "tiny, small"),
    ("demo --device tpu --preset tiny", 2, "auto, cpu or cuda"),
    ("synth made --eras few", 2, "Invalid value"),
    ("synth file --preset tiny", 1, "file"),
    ("run file --out new", 1, "file is a file; give the folder"),
    ("run . --out new --config .", 2, ". cannot be read as a configuration"),
    ("synth made --features-json nowhere.json --preset tiny", 1, "nowhere.json"),
    ("doctor --nonsense", 2, "nonsense"),
    ("nonsense", 2, "nonsense"),
]


def test_every_command_is_fed_wrong_input() -> None:
    importlib.import_module("eravane.cli.runs")
    importlib.import_module("eravane.cli.tournament")
    names = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    assert names - {line.split()[0] for line, _, _ in NOWHERE} <= {"rules"}  # which takes no input


@pytest.mark.parametrize(("line", "code", "says"), NOWHERE, ids=lambda value: str(value)[:40])
def test_what_is_not_there(
    line: str,
    code: int,
    says: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "file").write_text("in the way")
    found, printed = call(capsys, monkeypatch, *line.split())
    assert found == code, printed
    assert says in printed
    if code == 1:
        assert printed.startswith("error: ")
        assert len(printed.strip().splitlines()) == 1, printed


def _run_folder(folder: Path) -> Path:
    """What a run folder begins with."""
    folder.mkdir()
    (folder / "run.toml").write_text(to_toml(RunConfig()))
    data = {"path": "data", "store": "store", "fingerprint": "0"}
    manifest = {"status": "complete", "target": "target", "periods": {}, "lags": {}, "data": data}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


RUN_FOR_DATA = ["ingest {data} run", "ingest run store", "run run --out new", "step run --data run", "plan run"]


@pytest.mark.parametrize("line", RUN_FOR_DATA)
def test_a_run_folder_given_for_data_is_never_to_be_deleted(
    line: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both have a manifest.json; a store's that is damaged is to be deleted."""
    _run_folder(tmp_path / "run")
    found, printed = call(capsys, monkeypatch, *line.format(data=data).split())
    assert found == 1, printed
    assert "run is a run folder; give a dataset's folder" in printed
    assert "delete" not in printed
    assert (tmp_path / "run" / "manifest.json").is_file()


def test_too_little_memory_is_called_that(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def synth(*_: object, **__: object) -> None:
        np.empty(2**62, dtype=np.int8)

    monkeypatch.setattr(api, "synth", synth)
    found, printed = call(capsys, monkeypatch, "synth", "made")
    assert found == 1
    assert printed.startswith("error: out of memory (Unable to allocate")
    assert "eravane plan" in printed


@pytest.mark.parametrize("value", ["100000000000000000000", "-1", "1e308", "nan", "9" * 5000])
def test_absurd_numbers_among_options_are_refused_before_any_work(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, value: str
) -> None:
    options = (
        ("synth", "made", "--eras"),
        ("synth", "made", "--rows"),
        ("synth", "made", "--seed"),
        ("demo", "--out", "made", "--seed"),
        ("ingest", "data", "store", "--every"),
        ("ingest", "data", "store", "--eras"),
        ("run", "run.toml", "--workers"),
        ("plan", "run.toml", "--cores"),
        ("diagnose", "run", "--model", "m", "--wait-minutes"),
        ("submit", "run", "--model", "m", "--wait", "--wait-hours"),
        ("upload", "model.pkl", "--model", "m", "--wait-minutes"),
    )
    monkeypatch.chdir(tmp_path)
    for option in options:
        found, printed = call(capsys, monkeypatch, *option, value)
        assert found in (1, 2), (option, printed)
        assert "unexpected" not in printed, (option, printed)
    assert not list(tmp_path.iterdir())


def test_a_name_that_is_no_utf_8_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found, printed = call(capsys, monkeypatch, "plan", "caf\udce9")
    assert found == 2
    assert printed.startswith("error: the name 'caf\\udce9' is not UTF-8")
    assert len(printed.strip().splitlines()) == 1
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    found, printed = call(capsys, monkeypatch, "doctor")
    assert (found, printed.strip()) == (2, "error: the working directory is gone; change to one that is there")


def test_a_terminal_without_a_size_prints_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "0")
    assert make_console().width == 80


def test_what_others_wrote_cannot_steer_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        logging.getLogger("eravane").warning("seen \x1b[2J")
        raise DataError("id '\x1b]0;owned\x07\r\u202e' and " + "9" * 1_000_000 + " of live.parquet")

    monkeypatch.setattr("eravane.planning.doctor.doctor", refused)
    monkeypatch.setattr(logging.root, "handlers", [])
    found, printed = call(capsys, monkeypatch, "doctor")
    assert found == 1
    assert not {"\x1b", "\x07", "\r", "\u202e"} & set(printed)
    assert "seen \\x1b[2J" in printed
    assert "error: id '\\x1b]0;owned\\x07\\r\\u202e' and 999" in printed
    assert printed.endswith(" of live.parquet\n")
    assert len(printed) < 3000


def test_brackets_in_names_are_no_markup_on_a_terminal() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, color_system=None, width=120)
    with ConsoleProgress(console) as shown:
        shown.start("a[/b].parquet", 2)
        shown.reach(1, "small.[/x].target")
        shown.advance("[bold]")
    print_table(console, "scores of [/m]", ("[/c]", "n"), [("[red]one", "[/r]")])
    text = console.file.getvalue()  # type: ignore[attr-defined]
    for name in ("a[/b].parquet", "[bold]", "scores of [/m]", "[/c]", "[red]one", "[/r]"):
        assert name in text


def test_what_nobody_expected_is_one_line_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise KeyError("nobody\nthought of it")

    monkeypatch.setattr("eravane.planning.doctor.doctor", broken)
    found, printed = call(capsys, monkeypatch, "doctor")
    assert found == 1
    assert printed.startswith("error: unexpected, KeyError")
    assert "--debug" in printed
    assert len(printed.strip().splitlines()) == 1
    monkeypatch.setattr(sys, "argv", ["eravane", "--debug", "doctor"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 1
    assert "Traceback" in (traceback := capsys.readouterr().err)
    assert "KeyError" in traceback


HURT = [
    ("step run --data data", "run.toml", "garbage", "run.toml is damaged"),
    ("step run --data data", "manifest.json", "{", "manifest.json cannot be read"),
    ("step run --data data", "manifest.json", "[1]", "manifest.json is damaged: it holds no table"),
    ("step run --data data", "manifest.json", '{"status": "complete"}', "manifest.json is damaged: it has no 'target'"),
    ("step run --data data", "run.toml", "[zoo]\ntreees = 3", "did you mean 'zoo.trees'"),
    ("export run", "manifest.json", "{}", "manifest.json is damaged: it has no 'status'"),
    ("compare run run", "scores.parquet", "garbage", "scores.parquet is damaged"),
    ("compare run run", "metrics.json", "{}", "scores.parquet is not there"),
    ("submit run --model m --dry-run", "live_predictions.csv", "", "is no CSV of id, prediction"),
]


@pytest.mark.parametrize(("line", "file", "content", "says"), HURT, ids=lambda value: value[:24])
def test_a_run_folder_that_was_hurt(
    line: str,
    file: str,
    content: str,
    says: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (_run_folder(tmp_path / "run") / file).write_text(content)
    found, printed = call(capsys, monkeypatch, *line.split())
    assert found in (1, 2)
    assert printed.startswith("error: "), printed
    assert says.lower() in printed.lower()
    assert len(printed.strip().splitlines()) == 1, printed


def _not_parquet(data: Path) -> None:
    (data / "validation.parquet").write_bytes(b"PAR1 not really PAR1")


def _no_rows(data: Path) -> None:
    table = pq.read_table(data / "train.parquet")
    pq.write_table(table.slice(0, 0), data / "train.parquet")
    pq.write_table(table.slice(0, 0), data / "validation.parquet")


def _no_features_json(data: Path) -> None:
    (data / "features.json").write_text("{ not json")


def _strange_features(data: Path) -> None:
    (data / "features.json").write_text(json.dumps({"feature_sets": {"small": ["nobody"], "medium": [], "all": []}}))


def _text_feature(data: Path) -> None:
    table = pq.read_table(data / "train.parquet")
    place = next(place for place, name in enumerate(table.column_names) if name.startswith("feature"))
    words = pa.array(["many"] * len(table))
    pq.write_table(table.set_column(place, table.column_names[place], words), data / "train.parquet")


def _era_x(data: Path) -> None:
    table = pq.read_table(data / "train.parquet")
    place = table.column_names.index("era")
    pq.write_table(table.set_column(place, "era", pa.array(["X"] * len(table))), data / "train.parquet")


def _no_target(data: Path) -> None:
    for name in ("train.parquet", "validation.parquet"):
        table = pq.read_table(data / name)
        pq.write_table(table.drop_columns([one for one in table.column_names if one.startswith("target")]), data / name)


DAMAGES: list[Callable[[Path], None]] = [
    _not_parquet,
    _no_rows,
    _no_features_json,
    _strange_features,
    _text_feature,
    _era_x,
    _no_target,
]


@pytest.mark.full
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__.removeprefix("_"))
@pytest.mark.parametrize("command", ["run data --out new", "ingest data store"])
def test_damaged_data(
    damage: Callable[[Path], None],
    command: str,
    data: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    damage(data)
    found, printed = call(capsys, monkeypatch, *command.split())
    if command.startswith("ingest") and damage is _no_target and found == 0:
        return  # a store without labels can be predicted from
    assert found in (1, 2), printed
    assert printed.startswith("error: "), printed
    assert "data" in printed


BAD_CONFIGS = [
    ("[zoo]\ntrees = 'many'", "zoo.trees is a int"),
    ("[zoo]\ntree = 3", "did you mean 'zoo.trees'"),
    ("zoo = 3", "zoo is a table"),
    ("[gate]\nreward = 'gian'", "did you mean 'gain'"),
    ("[zoo\n", "is not TOML"),
    ("[data]\ntarget = 'nobody'", "data.target 'nobody' is not in the data"),
    ("[data]\nfeature_sets = ['huge']", "feature set 'huge'"),
    ("[time]\nloop_start = 4000", "time.loop_start"),
    ("[zoo.params]\ntree_method = 'exact'", "tree_method"),
    ("[zoo.params]\nmax_depth = 'deep'", "max_depth"),
    ("[zoo.params]\neta = -1.0", "value -1 for Parameter learning_rate"),
    ("[zoo.params]\nobjective = 'rank:ndcg'", "label must be either 0 or positive integer"),
    ("[zoo.params]\nbooster = 'gblinear'", "Not implemented for `QuantileDMatrix`"),
    ("[zoo.params]\nsubsample = 0.0", "no base model has a score in an out-of-fold era"),
    ("[data]\nfirst_era = 60", "0060"),
    ("[zoo.params]\nobjective = 'reg:nothing'", "reg:nothing"),
    ("[gate]\ninputs = ['entrails']", "entrails"),
    ("[compute]\nmemory = 'plenty'", "plenty"),
    ("[compute]\nscheduler = 'tcp://127.0.0.1:1'", "127.0.0.1:1"),
]


@pytest.mark.full
@pytest.mark.parametrize(("text", "says"), BAD_CONFIGS, ids=lambda value: value[:30])
def test_bad_configurations(
    text: str,
    says: str,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    small = "[time]\nloop_eras = 12\n[zoo]\ntrees = 2\nfold_eras = 6\nfolds = 2\nminimum_eras = 2\n"
    sections = text.split("]")[0] + "]" if text.startswith("[") else ""
    if sections == "[zoo.params]" or sections in ("[gate]", "[compute]"):
        text = small + text
    (tmp_path / "bad.toml").write_text(text)
    found, printed = call(capsys, monkeypatch, "run", "data", "--out", "new", "--config", "bad.toml")
    assert found in (1, 2), printed
    assert printed.startswith("error: "), printed
    assert says in printed
    assert len(printed.strip().splitlines()) == 1, printed
    if "subsample" not in text and "scheduler" not in text:
        found, planned = call(capsys, monkeypatch, "plan", "data", "--config", "bad.toml")
        assert found in (1, 2), planned
        assert planned.startswith("error: "), planned


def test_parameters_that_xgboost_does_not_know_are_noted_and_a_target_twice_is_one(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    time_ = "[time]\nloop_eras = 12\n[zoo]\ntrees = 2\nfold_eras = 6\nfolds = 2\nminimum_eras = 2\n"
    targets = 'targets = ["target_ender_20", "target_ender_20"]\n'
    (tmp_path / "odd.toml").write_text(f"{time_}{targets}[zoo.params]\nmax_dept = 3\n")
    assert call(capsys, monkeypatch, "run", "data", "--out", "new", "--config", "odd.toml")[0] == 0
    notes = json.loads((tmp_path / "new" / "manifest.json").read_text())["notes"]
    assert "zoo.params.max_dept is not known to XGBoost, and has no effect" in notes
    models = pq.read_table(tmp_path / "new" / "zoo.parquet")["model_id"].to_pylist()
    assert len(models) == len(set(models))


def test_folders_that_cannot_be_written(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    for line in ("run data --out file/run", "ingest data file/store", "synth file/made --preset tiny"):
        found, printed = call(capsys, monkeypatch, *line.split())
        assert found == 1, printed
        assert printed.startswith("error: "), printed
        assert "file" in printed


@pytest.mark.parametrize("line", ["plan data", "ingest data store", "report run", "--debug step run --data data"])
def test_too_few_addresses_are_refused_before_a_library_aborts(line: str, tmp_path: Path) -> None:
    """With so few, std::bad_alloc ended the process; with a few more, threads or libraries were lacking."""
    program = "import sys; from eravane.cli import main; sys.argv[0] = 'eravane'; main()"
    command = shlex.join([sys.executable, "-c", program, *line.split()])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    done = subprocess.run(
        ["sh", "-c", f"ulimit -v 600000 && exec {command}"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert "ulimit -v allows 614.4 MB of addresses" in done.stderr
    assert "`ulimit -v unlimited`" in done.stderr
    if "--debug" not in line:
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1, done.stderr

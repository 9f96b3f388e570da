"""An exported model predicts what its run predicted, in an interpreter that has neither eravane nor torch."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from inspect import signature
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pandas as pd
import pytest
import xgboost as xgb

from eravane.core.config import PrepareConfig, RunConfig, load_config, parse_config, to_toml
from eravane.core.errors import EravaneError, RunError
from eravane.gate import portable
from eravane.learners.registry import Trees
from eravane.pipeline.batch import run
from eravane.pipeline.export import CHECK, compare, export, portable_blocks
from tests.support import bare
from tests.support.micro import MICRO

# What the tournament's container had when `eravane.pipeline.export` was written, beside the Python that runs the tests.
CONTAINER = ("cloudpickle==3.1.*", "numpy==2.1.*", "pandas==2.3.*", "xgboost-cpu==3.0.2", "pyarrow")
HOSTED_PYTHON = "ERAVANE_HOSTED_PYTHON"


def proof(changes: dict[str, Any]) -> Any:
    """Changes that only the long proofs try."""
    return pytest.param(changes, marks=pytest.mark.full)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory, micro_run: Path) -> Path:
    """What the finished run left there, for runs of other gates and preparations."""
    return Path(shutil.copytree(micro_run.parent / "cache", tmp_path_factory.mktemp("cache") / "cache"))


@pytest.fixture(scope="module")
def done(micro_run: Path) -> Path:
    return micro_run


@pytest.fixture(scope="module")
def model(done: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(done, tmp_path_factory.mktemp("exported") / "model.pkl").path


@pytest.fixture(scope="module")
def interpreter() -> Iterator[bare.Interpreter]:
    with bare.interpreter() as started:
        yield started


@pytest.fixture
def forked(interpreter: bare.Interpreter, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checks run in a fork of an interpreter without eravane, which has imported pandas and XGBoost."""
    monkeypatch.setattr("eravane.pipeline.export.subprocess", interpreter)


def test_the_model_predicts_what_the_run_predicted(done: Path, tmp_path: Path) -> None:
    exported = export(done, tmp_path / "model.pkl", check=True)
    assert exported.difference is not None
    assert exported.difference < 1e-12
    assert exported.models == 5
    assert exported.size == exported.path.stat().st_size
    weights = json.loads((done / "live.json").read_text())["weights"]
    assert len({round(weight, 6) for weight in weights.values()}) > 2, "a gate at equal weight would prove little"


@pytest.mark.parametrize(
    "changes",
    [
        {"gate": {"experts": ["ridges", "regimes"], "inputs": ["scores", "structure"], "max_active": 2}},
        {"gate": {"reward": "dynamos", "inputs": ["marginals", "agreement"]}},
        {"gate": {"warmup": 1000}},
        {"prepare": {"missing_eras": "impute", "indicators": True, "constant": 1.0}},
        {"postprocess": {"neutralize": "small", "proportion": 0.7}},
        {"prepare": {"outliers": "std", "k": 1.1}},
        proof({"prepare": {"outliers": "mad", "k": 1.0, "missing_eras": "impute", "impute": "none"}}),
        proof({"prepare": {"outliers": "winsorize", "missing_eras": "impute"}}),
    ],
)
@pytest.mark.usefixtures("forked")
def test_every_gate_and_preparation_is_repeated(
    changes: dict[str, Any], micro_data: Path, cache: Path, tmp_path: Path
) -> None:
    config = parse_config({**MICRO, **{name: {**MICRO.get(name, {}), **part} for name, part in changes.items()}})
    finished = run(micro_data, config, tmp_path / "run", cache=cache).path
    difference = export(finished, tmp_path / "model.pkl", check=True).difference
    assert difference is not None
    assert difference < 1e-12


@pytest.fixture(scope="module")
def float_data(micro_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same dataset with features on a scale, outliers, missing cells, and a feature that is missing live."""
    data = tmp_path_factory.mktemp("floats") / "data"
    shutil.copytree(micro_data, data)
    for number, name in enumerate(("train", "validation", "live")):
        frame, random = pd.read_parquet(data / f"{name}.parquet"), np.random.default_rng(number)
        features = [column for column in frame if column.startswith("feature")]
        values = frame[features].to_numpy() / 4 + random.normal(0, 0.1, (len(frame), len(features)))
        values *= np.where(random.random(values.shape) < 0.01, 50, 1)
        values[random.random(values.shape) < 0.05] = np.nan
        if name == "live":
            values[:, 3] = np.nan
        frame.assign(**dict(zip(features, values.T.astype(np.float32), strict=True))).to_parquet(
            data / f"{name}.parquet"
        )
    return data


@pytest.mark.parametrize(
    "changes",
    [
        {},
        proof({"prepare": {"impute": "none", "outliers": "none"}}),
        {"prepare": {"impute": "mean", "outliers": "std", "k": 1.5, "indicators": True}},
        proof({"prepare": {"impute": "mode", "outliers": "mad", "k": 3.0}, "postprocess": {"neutralize": "small"}}),
        proof({"prepare": {"impute": "constant", "constant": 0.25}}),
    ],
)
@pytest.mark.usefixtures("forked")
def test_float_features_are_repeated(changes: dict[str, Any], float_data: Path, cache: Path, tmp_path: Path) -> None:
    finished = run(float_data, parse_config({**MICRO, **changes}), tmp_path / "run", cache=cache).path
    exported = export(finished, tmp_path / "model.pkl", check=True)
    assert exported.difference is not None
    assert exported.difference < 1e-12
    live = pd.read_parquet(float_data / "live.parquet")
    feature = next(name for name in live if name.startswith("feature"))
    with pytest.raises(ValueError, match="infinite values"):
        pd.read_pickle(exported.path)(live.assign(**{feature: np.inf}))


@pytest.fixture(scope="module")
def container(pytestconfig: pytest.Config) -> str:
    """A Python with the container's libraries: $ERAVANE_HOSTED_PYTHON, else an environment made once and kept."""
    named = os.environ.get(HOSTED_PYTHON)
    if named:
        return named
    folder = pytestconfig.cache.mkdir(f"container-{sys.version_info.major}.{sys.version_info.minor}")
    done = folder / "requirements.txt"
    if not done.is_file() or done.read_text() != "\n".join(CONTAINER):
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder / "venv"], check=True)
        install = [folder / "venv" / "bin" / "python", "-m", "pip", "install", "--quiet", *CONTAINER]
        found = subprocess.run(install, capture_output=True, text=True)
        if found.returncode:
            reason = found.stderr.strip().splitlines()[-1:] or ["no message"]
            pytest.skip(f"no package index gives the container's libraries, and {HOSTED_PYTHON} is unset: {reason[0]}")
        done.write_text("\n".join(CONTAINER))
    return str(folder / "venv" / "bin" / "python")


@pytest.fixture(scope="module", params=["levels", "floats"])
def hosted_run(
    request: pytest.FixtureRequest, done: Path, float_data: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A finished run on integer levels, and one on float features."""
    if request.param == "levels":
        return done
    return run(float_data, parse_config(MICRO), tmp_path_factory.mktemp("floats") / "run", cache=cache).path


@pytest.mark.full
@pytest.mark.timeout(900)
def test_the_model_predicts_the_same_in_the_tournaments_container(
    container: str, hosted_run: Path, tmp_path: Path
) -> None:
    """Under the real xgboost 3.0.2, which reads newer models without an error and with another base score."""
    versions = "import numpy, pandas, xgboost; print(numpy.__version__, pandas.__version__, xgboost.__version__)"
    printed = subprocess.run([container, "-I", "-c", versions], capture_output=True, text=True, check=True).stdout
    assert re.fullmatch(r"2\.1\.\d+ 2\.3\.\d+ 3\.0\.2\n", printed)
    absent = subprocess.run([container, "-I", "-c", "import eravane"], capture_output=True, text=True)
    assert "No module named 'eravane'" in absent.stderr
    assert compare(export(hosted_run, tmp_path / "model.pkl").path, hosted_run, container) < 1e-12


class _Scanner(pickle.Unpickler):
    """Lists every name that unpickling looks up."""

    def __init__(self, content: bytes) -> None:
        super().__init__(io.BytesIO(content))
        self.found: set[str] = set()

    def find_class(self, module: str, name: str) -> Any:
        self.found.add(f"{module}.{name}")
        return super().find_class(module, name)


def _imported(content: bytes) -> set[str]:
    scanner = _Scanner(content)
    scanner.load()
    return scanner.found


def test_a_scanner_finds_nothing_worse_than_in_a_function_that_is_pickled(model: Path) -> None:
    """No eval, no exec, no import of ours: what cloudpickle needs for functions, and what arrays need."""

    def plain(frame: pd.DataFrame) -> pd.DataFrame:
        return frame * np.float64(2)

    found = _imported(model.read_bytes())
    assert not {name for name in found if name.split(".")[-1] in ("eval", "exec", "compile", "system", "popen")}
    assert not {name for name in found if name.startswith("eravane")}
    allowed = {name.split(".")[0] for name in _imported(cloudpickle.dumps(plain, protocol=4))}
    found.discard("builtins.slice")  # slices of constants are constants from Python 3.14 on
    assert {name.split(".")[0] for name in found} <= allowed | {"numpy", "statistics", "types"}


def test_a_model_names_no_path_of_the_machine_that_wrote_it(model: Path) -> None:
    content = model.read_bytes()
    for place in (portable.__file__, sys.prefix, str(Path.home()), str(Path.cwd()), str(model.parent)):
        assert place.encode() not in content
    assert not re.findall(rb"[\w/-]{6,}\.py\b", content)
    assert b"<eravane>" in content
    assert Path(portable.__file__).is_file(), "the module itself keeps its path"


@pytest.mark.usefixtures("forked")
def test_a_model_for_another_python_is_refused_by_name(
    model: Path, done: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eravane.pipeline.export.MINOR", "3.99")
    with pytest.raises(RunError, match=r"made with Python 3\.99, and .* is of another minor version"):
        compare(model, done)


def test_the_check_hides_eravane() -> None:
    hiding = CHECK.split("import inspect")[0]
    for name in ("eravane", "eravane_kernels", "torch"):
        failed = subprocess.run([sys.executable, "-c", f"{hiding}\nimport {name}"], capture_output=True, text=True)
        assert f"{name} must not be needed" in failed.stderr


def test_the_function_is_what_numerai_calls(done: Path, model: Path, micro_data: Path) -> None:
    function = pd.read_pickle(model)
    live = pd.read_parquet(micro_data / "live.parquet")
    found = function(live)
    assert len(signature(function).parameters) == 1
    assert type(found) is pd.DataFrame
    assert list(found.columns) == ["prediction"]
    assert found.index.equals(live.index)
    assert found["prediction"].between(0, 1, inclusive="neither").all()
    newest = json.loads((done / "manifest.json").read_text())["periods"]
    assert "Python 3." in function.__doc__
    assert f"frozen up to era {newest['live_era'] - 6}" in function.__doc__


def test_the_function_refuses_what_it_was_not_made_for(model: Path, micro_data: Path) -> None:
    function = pd.read_pickle(model)
    live = pd.read_parquet(micro_data / "live.parquet")
    feature = next(name for name in live if name.startswith("feature"))
    with pytest.raises(ValueError, match="lack 1 columns"):
        function(live.drop(columns=feature))
    with pytest.raises(ValueError, match="no levels 0 to 4"):
        function(live.assign(**{feature: 0.5}))
    with pytest.raises(ValueError, match="or rows"):
        function(live.iloc[:0])


def test_lagged_scores_that_age_are_noted(
    model: Path, micro_data: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    function = pd.read_pickle(model)
    live = pd.read_parquet(micro_data / "live.parquet")
    function(live)
    assert not len(recwarn)
    later = time.time() + 60 * 86400
    monkeypatch.setattr("time.time", lambda: later)
    with pytest.warns(UserWarning, match=r"lagged scores are frozen up to era .* 60 days ago: export the run again"):
        function(live)


@pytest.mark.parametrize("base_score", [0.0, 0.5, 0.37])
def test_base_score_is_written_as_a_scalar(base_score: float) -> None:
    random = np.random.default_rng(0)
    values, label = random.integers(0, 5, (500, 6)).astype(np.int8), random.random(500)
    matrix = xgb.QuantileDMatrix(values, label)
    booster = xgb.train({"base_score": base_score, "max_depth": 3}, matrix, 10)
    (block,) = portable_blocks(Trees((bytes(booster.save_raw("ubj")),), tuple("abcdef")))
    content = json.loads(zlib.decompress(block))
    assert content["learner"]["learner_model_param"]["base_score"] == repr(base_score)
    again = xgb.Booster()
    again.load_model(bytearray(zlib.decompress(block)))
    np.testing.assert_array_equal(again.inplace_predict(values), booster.inplace_predict(values))


@pytest.mark.usefixtures("forked")
def test_a_difference_is_found(done: Path, model: Path, tmp_path: Path) -> None:
    for name in ("run.toml", "manifest.json", "live_predictions.csv"):
        (tmp_path / name).write_bytes((done / name).read_bytes())
    predictions = pd.read_csv(tmp_path / "live_predictions.csv")
    predictions.loc[3, "prediction"] += 2e-6
    predictions.to_csv(tmp_path / "live_predictions.csv", index=False)
    with pytest.raises(RunError, match=r"differs from .* by up to 2e-06"):
        compare(model, tmp_path)
    predictions.iloc[1:].to_csv(tmp_path / "live_predictions.csv", index=False)
    with pytest.raises(RunError, match="predicts other rows"):
        compare(model, tmp_path)
    (tmp_path / "broken.pkl").write_bytes(b"nothing")
    with pytest.raises(RunError, match=r"broken.pkl fails without eravane"):
        compare(tmp_path / "broken.pkl", tmp_path)


@pytest.mark.parametrize(
    ("python", "words"),
    [("nope", "nope cannot be started"), ("/bin/true", "was it a Python"), ("/bin/ls", "fails without eravane")],
)
def test_what_is_no_interpreter(python: str, words: str, done: Path, model: Path) -> None:
    with pytest.raises(RunError, match=words):
        compare(model, done, python)


@pytest.mark.usefixtures("forked")
def test_predictions_of_the_run_that_are_damaged(done: Path, model: Path, tmp_path: Path) -> None:
    for name in ("run.toml", "manifest.json"):
        (tmp_path / name).write_bytes((done / name).read_bytes())
    with pytest.raises(RunError, match="there are no predictions"):
        compare(model, tmp_path)
    content = (done / "live_predictions.csv").read_bytes()
    (tmp_path / "live_predictions.csv").write_bytes(content.replace(b",", b";"))
    with pytest.raises(EravaneError, match="no CSV of id, prediction"):
        compare(model, tmp_path)
    lines = content.decode().splitlines()
    lines[1] = f"{lines[1].split(',')[0]},nan"
    (tmp_path / "live_predictions.csv").write_text("\n".join(lines))
    with pytest.raises(RunError, match="by up to nan"):
        compare(model, tmp_path)


@pytest.mark.parametrize(
    "prepare",
    [
        {"outliers": "std", "bounds": "window"},
        {"missing_eras": "impute", "bounds": "window"},
        {"missing_eras": "impute", "impute": "knn"},
    ],
)
def test_a_preparation_that_cannot_be_repeated_is_refused(
    done: Path, tmp_path: Path, micro_config: RunConfig, prepare: dict[str, Any]
) -> None:
    for name in ("manifest.json", "checkpoints", "models"):
        (tmp_path / name).symlink_to(done / name)
    resolved = dataclasses.replace(load_config(done / "run.toml"), prepare=PrepareConfig(**prepare))
    (tmp_path / "run.toml").write_text(to_toml(resolved))
    name = list(prepare)[1]
    with pytest.raises(RunError, match=rf"cannot repeat prepare.{name} = '{prepare[name]}'"):
        export(tmp_path, tmp_path / "model.pkl")


@pytest.fixture(scope="module")
def benchmarked(micro_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset with two benchmark models, whose live predictions lack a row."""
    data = tmp_path_factory.mktemp("benchmarked") / "data"
    shutil.copytree(micro_data, data)
    random = np.random.default_rng(0)
    for name in ("train", "validation", "live"):
        frame = pd.read_parquet(data / f"{name}.parquet")
        noisy = {f"v5_{n}": frame["target"].fillna(0.5) + random.normal(0, 0.5, len(frame)) for n in ("one", "two")}
        made = pd.DataFrame({"era": frame["era"], **noisy}, index=frame.index).astype(dict.fromkeys(noisy, np.float32))
        (made.iloc[1:] if name == "live" else made).to_parquet(data / f"{name}_benchmark_models.parquet")
    return data


@pytest.mark.usefixtures("forked")
def test_benchmark_models_that_are_members_are_asked_for(benchmarked: Path, cache: Path, tmp_path: Path) -> None:
    config = parse_config({**MICRO, "zoo": {**MICRO["zoo"], "benchmarks": ["v5_one", "v5_two"], "residual": 0.5}})
    finished = run(benchmarked, config, tmp_path / "run", cache=cache).path
    weights = json.loads((finished / "live.json").read_text())["weights"]
    names = pd.read_parquet(finished / "zoo.parquet")["model_id"]
    plain = [name for name in names if "-less50" not in name and not name.startswith("given.")]
    assert sorted(name.replace("-less50", "") for name in names if "-less50" in name) == sorted(plain)
    assert max(weight for name, weight in weights.items() if name.startswith("given.")) > 0.1
    exported = export(finished, tmp_path / "model.pkl", check=True)
    assert exported.difference is not None
    assert exported.difference < 1e-12
    function = pd.read_pickle(exported.path)
    assert list(signature(function).parameters) == ["live_features", "live_benchmark_models"]
    live = pd.read_parquet(benchmarked / "live.parquet")
    with pytest.raises(ValueError, match="lack v5_one"):
        function(live, pd.DataFrame(index=live.index))


def test_a_member_of_ones_own_is_refused(micro_data: Path, cache: Path, tmp_path: Path) -> None:
    frame = pd.concat([pd.read_parquet(micro_data / f"{name}.parquet") for name in ("train", "validation", "live")])
    noise = np.random.default_rng(0).normal(size=len(frame))
    frame[["era"]].assign(prediction=frame["target"].fillna(0.5) + 0.5 * noise).to_parquet(tmp_path / "mine.parquet")
    config = parse_config({**MICRO, "zoo": {**MICRO["zoo"], "members": {"mine": str(tmp_path / "mine.parquet")}}})
    finished = run(micro_data, config, tmp_path / "run", cache=cache).path
    with pytest.raises(
        RunError, match=r"cannot read the member 'mine'; it gets zoo\.benchmarks alone: export a run without"
    ):
        export(finished, tmp_path / "model.pkl")


def test_another_learner_is_refused(done: Path, tmp_path: Path) -> None:
    for name in ("manifest.json", "checkpoints", "models"):
        (tmp_path / name).symlink_to(done / name)
    lightgbm = {**MICRO, "zoo": {**MICRO["zoo"], "learner": "lightgbm", "params": {}}}
    (tmp_path / "run.toml").write_text(to_toml(parse_config(lightgbm)))
    with pytest.raises(RunError, match=r"hosted models predict with XGBoost; .* are from lightgbm"):
        export(tmp_path, tmp_path / "model.pkl")


def test_an_unfinished_run_is_refused(done: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"must end in .pkl"):
        export(done, tmp_path / "model.bin")
    (tmp_path / "run.toml").write_bytes((done / "run.toml").read_bytes())
    with pytest.raises(RunError, match="has no checkpoint"):
        export(tmp_path, tmp_path / "model.pkl")
    (tmp_path / "checkpoints").symlink_to(done / "checkpoints")
    (tmp_path / "manifest.json").symlink_to(done / "manifest.json")
    with pytest.raises(RunError, match=r"index.json is missing or damaged"):
        export(tmp_path, tmp_path / "model.pkl")


def test_a_state_of_another_build_is_refused(done: Path, tmp_path: Path) -> None:
    older = tmp_path / "older"
    shutil.copytree(done, older)
    for manifest in (older / "checkpoints").glob("*/manifest.json"):
        facts = json.loads(manifest.read_text())
        manifest.write_text(json.dumps(facts | {"identity": {**facts["identity"], "config": "0123456789ab"}}))
    with pytest.raises(RunError, match=r"belongs to another run: config was 0123456789ab, is \w+; continue with "):
        export(older, tmp_path / "model.pkl")

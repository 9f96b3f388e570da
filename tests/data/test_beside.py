"""Files beside the dataset, damaged by chance: each costs what needs it and no more; none ends in a raw exception."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from eravane.core.config import parse_config
from eravane.core.errors import EravaneError
from eravane.data.catalog import FeatureCatalog, listed_features
from eravane.data.ingest import ingest
from eravane.data.store.store import EraStore
from eravane.gate.facts import OutsideFacts
from eravane.learners.frames import frame_of, plain, read_columns
from eravane.report import load_run
from eravane.tournament.diagnose import complete_eras
from eravane.tournament.predictions import parse_predictions, validate_live_predictions
from eravane.tournament.references import era_scores
from eravane.zoo.outside import load_members, load_references
from tests.data import chance
from tests.support.made_store import FEATURES, Dataset

META, BENCHMARK = "numerai_meta_model", "v53_lgbm_ender20"
FILES = (
    *("meta_model", "train_benchmark_models", "validation_benchmark_models", "live_benchmark_models"),
    *("train", "validation", "mine", "facts"),
)
ODD: tuple[Any, ...] = (None, True, 0, -1.5, "", "feature_01", [], [1], [None], {}, {"all": 1}, float("nan"), "\ud800")
CELLS = ("", "nan", "inf", "1e400", "0,5", "0_1", "1", "x", "\u0661", "-0", "0x1p-2", '"', '"a\nb"', "0.5;0.5", "\x00")


def make(folder: Path) -> None:
    """A dataset with every file that may lie beside it, and a run on it."""
    data, run = folder / "data", folder / "run"
    run.mkdir()
    random = np.random.default_rng(3)
    dataset = Dataset.make(train=6, last=10, unlabelled=1)
    rows, live = dataset.history, dataset.live
    dataset.write(data)
    sets = {"all": list(FEATURES), "small": [FEATURES[0]], "fncv3_features": list(FEATURES[:3])}
    (data / "features.json").write_text(json.dumps({"feature_sets": sets, "targets": ["target"]}))
    both = pd.concat([rows, live])
    both = both.assign(**{name: random.random(len(both)) for name in (META, BENCHMARK, "prediction")})
    history, newest = both.iloc[: len(rows)], both.iloc[len(rows) :]
    history[["era", META]].to_parquet(data / "meta_model.parquet")
    history[history["era"] <= "0006"][["era", BENCHMARK]].to_parquet(data / "train_benchmark_models.parquet")
    history[history["era"] > "0006"][["era", BENCHMARK]].to_parquet(data / "validation_benchmark_models.parquet")
    newest[["era", BENCHMARK]].to_parquet(data / "live_benchmark_models.parquet")
    both[["prediction"]].to_parquet(data / "mine.parquet")
    pd.DataFrame({"era": range(1, 11), "vix": random.random(10)}).to_parquet(data / "facts.parquet")
    predicted = history[history["era"] >= "0004"].reset_index()
    predicted[["id", "era", "prediction"]].to_parquet(run / "predictions.parquet", index=False)
    newest.reset_index()[["id", "prediction"]].to_csv(data / "live.csv", index=False)
    ingest(data, folder / "store")
    noted = {"data": {"path": str(data), "store": str(folder / "store")}, "target": "target"}
    (run / "manifest.json").write_text(json.dumps(noted))


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("beside")
    make(folder)
    return folder


def _harm_json(path: Path, rng: np.random.Generator) -> None:
    content = json.loads(path.read_text())
    place: Any = content
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = keys[int(rng.integers(len(keys)))]
        if isinstance(place[key], dict | list) and place[key] and rng.integers(2):
            place = place[key]
            continue
        place[key] = ODD[int(rng.integers(len(ODD)))]
        break
    encoding = ("utf-8", "utf-8-sig", "utf-16", "latin-1")[int(rng.integers(4))]
    path.write_bytes(json.dumps(content).encode(encoding))


def _harm_csv(path: Path, rng: np.random.Generator) -> None:
    lines = path.read_text().splitlines()
    row = int(rng.integers(len(lines)))
    cells = lines[row].split(",")
    cells[int(rng.integers(2))] = CELLS[int(rng.integers(len(CELLS)))]
    lines[row] = (",", ";", "\t", ",,")[int(rng.integers(4))].join(cells) if rng.integers(2) else ",".join(cells)
    encoding = ("utf-8", "utf-8-sig", "utf-16", "utf-8")[int(rng.integers(4))]
    path.write_bytes(("\n", "\r\n", "\r")[int(rng.integers(3))].join(lines).encode(encoding))


def _harm(folder: Path, rng: np.random.Generator) -> str:
    """Write one file of the folder anew, most often damaged; its name."""
    name = (*FILES, *FILES, "features.json", "live.csv", "predictions")[int(rng.integers(2 * len(FILES) + 3))]
    if name in ("features.json", "live.csv"):
        path = folder / "data" / name
        (_harm_json if name == "features.json" else _harm_csv)(path, rng)
    else:
        path = folder / ("run" if name == "predictions" else "data") / f"{name}.parquet"
        table = pa.Table.from_pandas(pd.read_parquet(path))
        path.unlink()
        for _ in range(int(rng.integers(3))):
            table = chance.damaged(table, rng)
            if not table.num_rows or len(set(table.column_names)) != table.num_columns:
                break
        chance.written(table, path, rng)
    if rng.integers(4) == 0:
        chance.spoiled(path, rng)
    return name


def _uses(folder: Path, store: EraStore) -> dict[str, Callable[[], Any]]:
    data, run = folder / "data", folder / "run"
    zoo = {"members": {"mine": str(data / "mine.parquet")}, "benchmarks": [BENCHMARK]}
    config = parse_config({"data": {"target": "target"}, "zoo": zoo, "selection": {"criterion": "mmc"}})
    against = parse_config({"data": {"target": "target"}, "selection": {"criterion": "bmc", "benchmark": BENCHMARK}})
    live_ids = store.live().ids.to_pylist()  # type: ignore[union-attr]

    def predictions() -> None:
        validate_live_predictions(parse_predictions((data / "live.csv").read_bytes(), "live.csv"), live_ids)

    return {
        "scores": lambda: era_scores(run, data),
        "complete eras": lambda: complete_eras(run, data),
        "members": lambda: load_members(config, data, store),
        "mmc": lambda: load_references(config, data, store),
        "bmc": lambda: load_references(against, data, store),
        "facts": lambda: OutsideFacts.read(data / "facts.parquet", 1),
        "features": lambda: (
            listed_features(data / "features.json"),
            FeatureCatalog.load(data / "features.json", sets=("all",)),
        ),
        "frame": lambda: frame_of(plain([data / "train.parquet", data / "validation.parquet"], ["target"])),
        "labels": lambda: read_columns([data / "train.parquet", data / "validation.parquet"], ["target"]),
        "report": lambda: load_run(run),
        "csv": predictions,
    }


# What a file is needed for: everything else comes out as if it were sound.
NEEDED = {
    "meta_model": {"scores", "mmc"},
    "train_benchmark_models": {"scores", "members", "bmc"},
    "validation_benchmark_models": {"scores", "members", "bmc"},
    "live_benchmark_models": {"members"},
    "mine": {"members"},
    "facts": {"facts"},
    "features.json": {"scores", "features"},
    "live.csv": {"csv"},
    "train": {"scores", "frame", "labels"},
    "validation": {"scores", "complete eras", "frame", "labels"},
    "predictions": {"scores", "complete eras", "report"},
}
# Scores that a damaged file must not take with it.
UNTOUCHED = {
    "meta_model": ("CORR", "FNC", f"BMC {BENCHMARK}"),
    "train_benchmark_models": ("CORR", "FNC", "MMC", "CWMM"),
    "validation_benchmark_models": ("CORR", "FNC", "MMC", "CWMM"),
    "features.json": ("CORR", "MMC", "CWMM", f"BMC {BENCHMARK}"),
}


@cache
def _sound_scores(sound: Path) -> pd.DataFrame:
    return era_scores(sound / "run", sound / "data")


def draw(seed: int, sound: Path, folder: Path) -> str:
    """Use everything beside one damaged file; the name of the file and what it cost."""
    rng = np.random.default_rng(seed)
    shutil.copytree(sound, folder, ignore=shutil.ignore_patterns("store"), copy_function=os.link)
    for path in [*(folder / "data").iterdir(), *(folder / "run").iterdir()]:
        content = path.read_bytes()  # a link of its own: writing must not reach the sound one
        path.unlink()
        path.write_bytes(content)
    store = EraStore.open(sound / "store")
    name = _harm(folder, rng)
    failed = {}
    for what, use in _uses(folder, store).items():
        try:
            found = use()
        except EravaneError as error:
            failed[what] = str(error)
        else:
            if what == "scores" and name in UNTOUCHED:
                before = _sound_scores(sound)
                for metric in UNTOUCHED[name]:
                    pd.testing.assert_series_equal(found[metric], before[metric])
    assert set(failed) <= NEEDED[name], (name, failed)
    assert "scores" not in failed or name in ("train", "validation", "predictions"), failed
    assert all(len(sentence) > 20 for sentence in failed.values())
    return f"{name}: {'; '.join(failed.values())}"


@pytest.mark.parametrize("block", range(4))
def test_a_damaged_file_costs_what_needs_it_and_no_more(block: int, beside: Path, tmp_path: Path) -> None:
    for seed in range(10 * block, 10 * block + 10):
        draw(seed, beside, tmp_path / str(seed))


@pytest.mark.full
@pytest.mark.parametrize("block", range(46))
def test_none_of_many_damaged_files_costs_more(block: int, beside: Path, tmp_path: Path) -> None:
    for seed in range(40 + 10 * block, 50 + 10 * block):
        draw(seed, beside, tmp_path / str(seed))


def test_chance_damages_every_kind_of_file(beside: Path, tmp_path: Path) -> None:
    outcomes = [draw(1000 + seed, beside, tmp_path / str(seed)) for seed in range(25)]
    assert len({outcome.split(":")[0] for outcome in outcomes}) >= 7
    assert sum(len(outcome.split(": ", 1)[1]) > 20 for outcome in outcomes) >= 5

"""What a run shows about itself, against pandas and numerai-tools on the files of a real run."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numerai_tools.scoring import correlation_contribution
from safetensors.numpy import load_file
from scipy.stats import norm, rankdata

from eravane.core.config import RunConfig
from eravane.data.catalog import FeatureCatalog
from eravane.data.features import Features
from eravane.pipeline.batch import run
from eravane.pipeline.insights import EXPOSURE_ERAS, regime_map, write_insights
from eravane.report import write_report
from eravane.runstate.runfolder import RunFolder
from eravane_kernels import cpu

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def made(
    micro_data: Path, micro_config: RunConfig, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path, list[str]]:
    """A run on data that have a meta model, its insights, and what they warn of."""
    folder = tmp_path_factory.mktemp("insights")
    data = folder / "data"
    shutil.copytree(micro_data, data)
    frame = _data(data)
    rng = np.random.default_rng(0)
    meta = pd.DataFrame({"id": frame["id"], "era": frame["era"], "numerai_meta_model": rng.uniform(size=len(frame))})
    pq.write_table(pa.Table.from_pandas(meta[meta["era"] > "0036"], preserve_index=False), data / "meta_model.parquet")
    paid = replace(micro_config, aim="payout")
    run(data, paid, folder / "run", cache=folder / "cache")
    return folder / "run", data, _written(folder / "run", data, micro_config)


def _data(data: Path) -> pd.DataFrame:
    files = [pq.read_table(data / name) for name in ("train.parquet", "validation.parquet")]
    return pd.concat([table.to_pandas(ignore_metadata=True) for table in files])


def _written(path: Path, data: Path, config: RunConfig) -> list[str]:
    folder = RunFolder.open(path)
    store = Path(folder.read_json("manifest.json")["data"]["store"])
    catalog = FeatureCatalog.load(data / "features.json", sets=config.data.feature_sets)
    return write_insights(folder, Features.open(store, config.prepare), catalog, data, config.data.target, cpu)


def _table(path: Path, name: str) -> pd.DataFrame:
    return pq.read_table(path / f"{name}.parquet").to_pandas()


def test_missing_features_are_those_that_say_nothing(made: tuple[Path, Path, list[str]]) -> None:
    path, data, warnings = made
    frame = _data(data)
    features = [name for name in frame.columns if name.startswith("feature")]
    expected = frame.groupby("era")[features].agg(lambda column: bool((column == 2).all())).sum(axis=1)
    found = _table(path, "missing").set_index("era")["n_missing"]
    assert found.to_dict() == expected.to_dict()
    assert found.iloc[0] > 0  # made data lack features in early eras
    assert any("out-of-fold eras, less than a year" in warning for warning in warnings)


def test_exposure_is_the_mean_and_the_largest_correlation_with_a_cells_features(
    made: tuple[Path, Path, list[str]],
) -> None:
    path, data, _ = made
    merged = _table(path, "predictions").merge(_data(data).drop(columns="era"), on="id")
    sets = json.loads((data / "features.json").read_text())["feature_sets"]
    found = _table(path, "exposure").set_index(["feature_set", "group"])
    assert merged["era"].nunique() <= EXPOSURE_ERAS
    group = next(name for _, name in found.index if name != "all")
    for cell, columns in ((("small", "all"), sets["small"]), (("all", group), sets[group])):
        by_era = merged.groupby("era").apply(lambda era, names=columns: era[names].corrwith(era["prediction"]).abs())
        assert found.loc[cell, "mean"] == pytest.approx(np.nanmean(by_era.to_numpy()), abs=1e-6)
        assert found.loc[cell, "max"] == pytest.approx(by_era.max(axis=1).mean(), abs=1e-6)


def test_payout_scores_are_numerais_contribution(made: tuple[Path, Path, list[str]]) -> None:
    path, data, _ = made
    merged = _table(path, "predictions").merge(_data(data).drop(columns="era"), on="id")
    merged = merged.merge(_table(path, "base_predictions").drop(columns="era"), on="id")
    merged = merged.merge(pq.read_table(data / "meta_model.parquet").to_pandas().drop(columns="era"), on="id")
    merged = merged[merged["target"].notna()]
    models = [name for name in _table(path, "weights").columns if name not in ("era", "n_active")]
    found = _table(path, "references").set_index("era")
    assert found.index.tolist() == sorted(merged["era"].unique())
    for era, rows in merged.groupby("era"):
        gauss = norm.ppf((rankdata(rows[models], axis=0) - 0.5) / len(rows))
        mixes = pd.DataFrame({"e": rows["prediction"], "q": gauss.mean(axis=1)}, index=rows.index)
        expected = correlation_contribution(mixes, rows["numerai_meta_model"], rows["target"])
        assert found.loc[era, "ensemble_mmc"] == pytest.approx(expected["e"], abs=1e-9)
        assert found.loc[era, "equal_weight_mmc"] == pytest.approx(expected["q"], abs=1e-6)


def test_a_meta_model_that_is_gone_costs_its_scores_and_is_named(
    made: tuple[Path, Path, list[str]], micro_config: RunConfig, tmp_path: Path
) -> None:
    path, data, before = made
    shutil.copytree(path, tmp_path / "run")
    shutil.copytree(data, tmp_path / "data")
    (tmp_path / "data" / "meta_model.parquet").unlink()
    found = _written(tmp_path / "run", tmp_path / "data", micro_config)
    gone = f"no scores against the meta model: {tmp_path / 'data' / 'meta_model.parquet'} is missing; name a file"
    assert next(text for text in found if text not in before).startswith(gone)
    assert set(before) < set(found)
    assert not (tmp_path / "run" / "references.parquet").exists(), "older scores are not of these predictions"
    assert "references.parquet is not there" in write_report(tmp_path / "run").read_text()
    assert "references.parquet is not there" not in write_report(path).read_text()


def test_what_the_gate_says_is_in_the_log_and_in_the_manifest(made: tuple[Path, Path, list[str]]) -> None:
    path, _, _ = made
    lines = [json.loads(line) for line in (path / "events.jsonl").read_text().splitlines()]
    gate = [line["gate"] for line in lines if line["event"] == "era"]
    noted = [note for learnt in gate for note in learnt["notes"]]
    assert [note for note in noted if "marginal statistics vary over eras" in note]
    assert all(sum(learnt["hedge"].values()) == pytest.approx(1.0, abs=1e-3) for learnt in gate)
    notes = " ".join(json.loads((path / "manifest.json").read_text())["notes"])
    assert all(note in notes for note in noted)


def test_a_gate_that_is_paid_learns_numerais_contribution(made: tuple[Path, Path, list[str]]) -> None:
    path, data, _ = made
    merged = _table(path, "base_predictions").merge(_data(data), on=["id", "era"])
    meta = pq.read_table(data / "meta_model.parquet").to_pandas().drop(columns="era")
    merged = merged.merge(meta, on="id", how="left")
    models = [name for name in _table(path, "weights").columns if name not in ("era", "n_active")]
    learnt = 0
    for file in sorted((path / "checkpoints" / "resolved").glob("[0-9]*.safetensors")):
        arrays, rows = load_file(file), merged[merged["era"] == file.stem]
        if int(file.stem) <= 36:
            assert "contribution" not in arrays
        elif len(rows):
            expected = correlation_contribution(rows[models], rows["numerai_meta_model"], rows["target"])
            np.testing.assert_allclose(arrays["contribution"], expected[models], atol=1e-6)
            learnt += 1
    assert learnt > 0


def test_regimes_that_pay_different_models_lie_apart() -> None:
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 2, size=80)
    scores = rng.normal(scale=0.01, size=(80, 5)) + np.where(truth[:, None] == 1, [0.05, 0, 0, 0, -0.05], 0.0)
    table = regime_map([f"{era:04d}" for era in range(80)], scores, 2).to_pandas()
    agrees = (table["prototype"].to_numpy() == truth).mean()
    assert max(agrees, 1 - agrees) > 0.95
    means = table.groupby("prototype")["x"].mean()
    spread = table.groupby("prototype")["x"].std().max()
    assert abs(means[0] - means[1]) > 2 * spread


def test_the_documentation_names_every_file_of_a_run_and_every_column(made: tuple[Path, Path, list[str]]) -> None:
    """Held against a run that has a meta model, so that every optional file is there."""
    path, _, _ = made
    page = (ROOT / "docs" / "run-folder.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1:3] for line in page.splitlines() if line.startswith("| `")]
    listed = {name.strip("/"): columns for names, columns in rows for name in re.findall(r"`([^`]+)`", names)}
    found = {entry.name for entry in path.iterdir()}
    assert found - listed.keys() == set()
    assert listed.keys() - found == {"submissions", "live_scores", "payout.json"}
    models = set(_table(path, "zoo")["model_id"])
    for name in sorted(found):
        if name.endswith(".parquet"):
            for column in set(pq.read_schema(path / name).names) - models:
                assert f"`{column}`" in listed[name], f"{name}: {column}"
        elif name in ("manifest.json", "metrics.json"):
            assert [key for key in json.loads((path / name).read_text()) if f"`{key}`" not in listed[name]] == []
    assert "docs/run-folder.md" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_report_shows_them(made: tuple[Path, Path, list[str]]) -> None:
    path, _, _ = made
    page = write_report(path).read_text()
    for title in ("Regimes", "Feature exposure", "Missing features over time", "Payout mix"):
        assert title in page

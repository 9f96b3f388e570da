"""The files of a made dataset: names, types and bytes as Numerai's, labels missing where they must be."""

from __future__ import annotations

import json
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numerai_tools.scoring import numerai_corr

from eravane.core.errors import ConfigError, DataError
from eravane.synth import PRESETS, SynthConfig, iter_eras, synthesise

TINY = PRESETS["tiny"]
FILES = (
    "features.json",
    "train.parquet",
    "validation.parquet",
    "live.parquet",
    "truth.parquet",
    "train_benchmark_models.parquet",
    "validation_benchmark_models.parquet",
    "live_benchmark_models.parquet",
    "meta_model.parquet",
)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthesise(tmp_path_factory.mktemp("synth") / "tiny", TINY)


@pytest.fixture(scope="module")
def frames(tiny: Path) -> dict[str, pd.DataFrame]:
    return {name: pd.read_parquet(tiny / f"{name}.parquet") for name in ("train", "validation", "live", "truth")}


def test_the_folder_holds_numerais_files(tiny: Path):
    assert sorted(p.name for p in tiny.iterdir()) == sorted(FILES)
    assert list(tiny.parent.iterdir()) == [tiny]


@pytest.mark.parametrize("name", ["train", "validation", "live"])
def test_schema_is_numerais(tiny: Path, name: str):
    file = pq.ParquetFile(tiny / f"{name}.parquet")
    features = [f"feature_{i:04d}" for i in range(1, 61)]
    targets = ["target", *(f"target_{n}_{h}" for n in ("cyrusd", "ender", "jasper") for h in (20, 60))]
    expected = [("era", "BYTE_ARRAY", "String"), ("data_type", "BYTE_ARRAY", "String")]
    expected += [(f, "INT32", "Int(bitWidth=8, isSigned=true)") for f in features]
    expected += [(t, "FLOAT", "None") for t in targets] + [("id", "BYTE_ARRAY", "String")]
    found = [file.schema.column(i) for i in range(len(file.schema))]
    assert [(c.name, c.physical_type, str(c.logical_type)) for c in found] == expected
    assert all(c.max_definition_level == 1 for c in found), "pandas writes every column as optional"
    arrow = file.schema_arrow
    assert [str(arrow.field(n).type) for n in ("era", "feature_0001", "target", "id")] == [
        "string", "int8", "float", "string",
    ]  # fmt: skip
    assert json.loads(arrow.metadata[b"pandas"])["index_columns"] == ["id"]


@pytest.mark.parametrize("name", ["train", "validation", "live"])
def test_pandas_reads_and_rewrites_it_unchanged(tmp_path: Path, tiny: Path, frames, name: str):
    frame = frames[name]
    assert frame.index.name == "id"
    assert frame.index.is_unique
    assert frame.index.str.fullmatch("n[0-9a-f]{15}").all()
    frame.to_parquet(tmp_path / "again.parquet")
    assert pq.ParquetFile(tmp_path / "again.parquet").schema.equals(pq.ParquetFile(tiny / f"{name}.parquet").schema)


def test_eras_and_data_types(frames):
    train, validation, live = (frames[n] for n in ("train", "validation", "live"))
    assert train["era"].unique().tolist() == [f"{e:04d}" for e in range(1, 39)]
    assert validation["era"].unique().tolist() == [f"{e:04d}" for e in range(39, 81)]
    assert set(train["data_type"]) == {"train"}
    kind = validation.groupby("era")["data_type"].agg(["min", "max"])
    assert (kind.loc["0039":"0067"] == "validation").all(axis=None)
    assert (kind.loc["0068":"0080"] == "test").all(axis=None)
    assert set(live["era"]) == {"X"}
    assert set(live["data_type"]) == {"live"}
    assert pd.concat([train, validation, live]).index.is_unique


def test_labels_are_missing_for_5_and_13_eras(frames):
    frame = pd.concat([frames["train"], frames["validation"]])
    targets = [c for c in frame if c.startswith("target")]
    assert len(targets) == 7
    for target in targets:
        by_era = frame[target].isna().groupby(frame["era"]).agg(["all", "any"])
        assert (by_era["all"] == by_era["any"]).all()
        assert by_era["any"].sum() == (5 if target.endswith("_20") else 13)
        assert by_era["any"].loc[: "0075" if target.endswith("_20") else "0067"].sum() == 0
    assert frames["live"][targets].isna().all(axis=None)
    # The newest usable 20-day label is 6 eras before the live era 81, the 60-day one 14.


def test_missing_labels_are_nulls_not_nan(tiny: Path):
    live = pq.read_table(tiny / "live.parquet", columns=["target", "target_ender_60"])
    assert [c.null_count for c in live.columns] == [live.num_rows] * 2


def test_target_is_an_exact_copy_and_last_in_the_list(tiny: Path, frames):
    pd.testing.assert_series_equal(
        frames["validation"]["target"], frames["validation"]["target_ender_60"], check_names=False
    )
    listed = json.loads((tiny / "features.json").read_text())["targets"]
    assert listed[-1] == "target"
    assert set(listed) == {c for c in frames["train"] if c.startswith("target")}


def test_sets_and_groups(tiny: Path, frames):
    sets = json.loads((tiny / "features.json").read_text())["feature_sets"]
    assert sets["all"] == [c for c in frames["train"] if c.startswith("feature_")]
    assert all(names == sorted(names) and set(names) <= set(sets["all"]) for names in sets.values())
    assert {"small", "medium", "all", "fncv3_features", "intelligence", "faith"} <= set(sets)
    small, medium = set(sets["small"]), set(sets["medium"])
    assert small & medium
    assert not small <= medium
    assert len(small) < len(medium) < 60
    groups = {g: set(n) for g, n in sets.items() if g not in ("small", "medium", "all", "fncv3_features")}
    assert len(groups) == 12
    memberships = [sum(f in names for names in groups.values()) for f in sets["all"]]
    assert set(memberships) == {1, 2}
    assert memberships.count(2) == round(0.15 * 60)
    assert any(not small & names for names in groups.values()), "some set x group cell is empty, as in the real file"


def test_files_hold_what_iter_eras_yields(frames):
    frame = pd.concat([frames["train"], frames["validation"]])
    by_era = dict(list(frame.groupby("era")))
    features = [c for c in frame if c.startswith("feature_")]
    for made in iter_eras(TINY):
        rows = by_era[f"{made.era:04d}"]
        np.testing.assert_array_equal(rows[features].to_numpy().T, made.features_FN)
        if made.era <= 67:
            np.testing.assert_array_equal(rows[list(TINY.targets)].to_numpy().T, made.targets_TN)
        truth = frames["truth"].iloc[made.era - 1]
        assert (truth["era"], truth["regime"]) == (f"{made.era:04d}", made.regime)
        np.testing.assert_array_equal(truth.filter(like="expected_").to_numpy(float), made.expected_G)
        np.testing.assert_array_equal(truth.filter(like="realised_20_").to_numpy(float), made.realised_20_G)
        np.testing.assert_array_equal(truth.filter(like="realised_60_").to_numpy(float), made.realised_60_G)
    assert len(frames["truth"]) == 80


def test_a_ridge_model_learns_from_the_train_file(frames):
    train, validation = frames["train"], frames["validation"].dropna()
    features = [c for c in train if c.startswith("feature_")]
    x_NF = train[features].to_numpy(np.float64) - 2
    weights_F = np.linalg.solve(x_NF.T @ x_NF + 500 * np.eye(60), x_NF.T @ (train["target"].to_numpy() - 0.5))
    prediction = (validation[features] - 2) @ weights_F
    scores = [
        numerai_corr(prediction.loc[rows.index].to_frame("p"), rows["target"])["p"]
        for _, rows in validation.groupby("era")
    ]
    assert np.mean(scores) > 0.05


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path, tiny: Path):
    again = synthesise(tmp_path / "again", TINY)
    assert {f: (again / f).read_bytes() for f in FILES} == {f: (tiny / f).read_bytes() for f in FILES}
    other = synthesise(tmp_path / "other", replace(TINY, seed=1))
    assert (other / "train.parquet").read_bytes() != (tiny / "train.parquet").read_bytes()


def test_row_groups_are_whole_eras_and_do_not_change_the_data(tmp_path: Path, tiny: Path):
    fine = synthesise(tmp_path / "fine", replace(TINY, row_group_eras=3))
    assert pq.ParquetFile(fine / "train.parquet").num_row_groups == 13
    assert pq.ParquetFile(tiny / "train.parquet").num_row_groups == 4
    for name in FILES[1:]:
        assert pq.read_table(fine / name).equals(pq.read_table(tiny / name))


def test_float_features_of_the_marginal_world(tmp_path: Path):
    out = synthesise(tmp_path / "out", replace(TINY, eras=30, regimes="marginal"))
    schema = pq.read_schema(out / "train.parquet")
    assert schema.field("feature_0001").type == pa.float32()
    assert json.loads(schema.metadata[b"pandas"])["columns"][2]["numpy_type"] == "float32"


def test_progress_counts_every_era(tmp_path: Path):
    calls: list[tuple[int, int]] = []
    synthesise(tmp_path / "out", replace(TINY, eras=30), lambda done, total: calls.append((done, total)))
    assert calls == [(era, 31) for era in range(1, 32)]


def test_a_failure_leaves_nothing_behind(tmp_path: Path):
    def stop(done: int, total: int) -> None:
        if done == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        synthesise(tmp_path / "out", TINY, stop)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_use_is_refused_and_kept(tmp_path: Path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="not an empty folder"):
        synthesise(tmp_path, TINY)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("content", ["{", "[]", '{"feature_sets": {"all": ["a"]}, "targets": []}'])
def test_a_bad_features_json_is_named(tmp_path: Path, content: str):
    path = tmp_path / "features.json"
    path.write_text(content)
    with pytest.raises(DataError, match=r"features\.json"):
        synthesise(tmp_path / "out", replace(TINY, features_json=path))
    assert not (tmp_path / "out").exists()


def test_a_main_target_that_is_not_listed_is_named(tmp_path: Path):
    path = tmp_path / "features.json"
    path.write_text('{"feature_sets": {"all": ["a"], "rain": ["a"]}, "targets": ["target_sam_20", "target"]}')
    with pytest.raises(ConfigError, match="target_ender_60"):
        synthesise(tmp_path / "out", replace(TINY, features_json=path))


def test_real_names_sets_groups_and_targets(tmp_path: Path, real_features_json: Path):
    config = replace(PRESETS["v5.3"], eras=30, rows=40, features_json=real_features_json)
    out = synthesise(tmp_path / "out", config)
    given, written = (json.loads(p.read_text()) for p in (real_features_json, out / "features.json"))
    assert written == given
    names = pq.read_schema(out / "train.parquet").names
    assert [n for n in names if n.startswith("feature_")] == given["feature_sets"]["all"]
    assert len(names) == 3_555 + 41 + 3
    assert len([c for c in pq.read_schema(out / "truth.parquet").names if c.startswith("expected_")]) == 13
    train = pd.read_parquet(out / "train.parquet", columns=["target", "target_ender_60"])
    pd.testing.assert_series_equal(train["target"], train["target_ender_60"], check_names=False)


def test_v53_has_constant_features_and_half_are_missing_in_early_eras(tmp_path: Path) -> None:
    config = replace(PRESETS["v5.3"], eras=40, rows=30, targets=("target_ender_20", "target_ender_60"))
    blank_EF = np.array([(made.features_FN == 2).all(axis=1) for made in iter_eras(config)])
    assert blank_EF.all(axis=0).sum() == 30
    assert 0.5 < blank_EF.any(axis=0).mean() < 0.6
    # Those that are missing for a while are missing from the start, and all are there after three tenths.
    assert not (blank_EF[1:] & ~blank_EF[:-1]).any()
    assert blank_EF[12:].any(axis=0).sum() == 30


def test_benchmarks_start_late_and_the_meta_model_covers_the_newest_eras(tiny: Path, frames) -> None:
    history = pd.concat([frames["train"], frames["validation"]])
    parts = [pd.read_parquet(tiny / f"{name}_benchmark_models.parquet") for name in ("train", "validation")]
    benchmarks, meta = pd.concat(parts), pd.read_parquet(tiny / "meta_model.parquet")
    assert list(benchmarks.columns) == ["era", "v53_lgbm_ender20", "v53_lgbm_ender60"]
    assert sorted(benchmarks["era"].unique()) == [f"{era:04d}" for era in range(11, 81)]
    assert sorted(meta["era"].unique()) == [f"{era:04d}" for era in range(41, 81)]
    assert list(meta.columns) == ["era", "data_type", "numerai_meta_model"]
    live = pd.read_parquet(tiny / "live_benchmark_models.parquet")
    assert live.index.equals(frames["live"].index)
    assert set(live["era"]) == {"X"}
    for outside, columns in ((benchmarks, benchmarks.columns[1:]), (meta, ["numerai_meta_model"])):
        assert set(outside.index) <= set(history.index)
        assert outside[columns].stack().between(0, 1, inclusive="neither").all()
        joined = outside.join(history[["target"]]).dropna()
        scores = [numerai_corr(rows[columns], rows["target"]) for _, rows in joined.groupby("era")]
        assert (pd.DataFrame(scores).mean() > 0.02).all()  # they are worth something
        assert (pd.DataFrame(scores).mean() < 0.3).all()  # and hold no labels


def peak_memory(out: Path, eras: int) -> int:
    config = SynthConfig(eras=eras, rows=300, features=60, row_group_eras=4, row_spread=0.0)
    tracemalloc.start()
    try:
        synthesise(out, config)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_eras(tmp_path: Path):
    peak_memory(tmp_path / "warm", 30)
    short, long = peak_memory(tmp_path / "short", 40), peak_memory(tmp_path / "long", 140)
    # A further era may leave its row of truth behind, but not its cross-section of 300 x 60 bytes.
    assert long - short < 100 * 3_000

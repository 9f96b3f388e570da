"""Members and references from outside, brought into the store's order: against pandas."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from eravane.core.config import RunConfig
from eravane.core.errors import ConfigError, DataError
from eravane.loop.sources import EraSource
from eravane.zoo.outside import coverage, load_members, load_references, member_specs, paid_by
from eravane.zoo.selection import proxy_relation
from tests.support.zoo_case import Case, configured, make_case


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return make_case(tmp_path_factory.mktemp("outside"))


@pytest.fixture(scope="module")
def frame(case: Case) -> pd.DataFrame:
    """Ids and eras of history and live rows, with predictions."""
    parts = [
        pd.read_parquet(case.data / f"{name}.parquet", columns=["era"]) for name in ("train", "validation", "live")
    ]
    whole = pd.concat(parts)
    return whole.assign(prediction=np.random.default_rng(0).random(len(whole)))


def _own(path: Path) -> RunConfig:
    return configured(zoo={"members": {"mine": str(path)}})


@pytest.mark.parametrize("as_index", [True, False])
def test_a_file_is_joined_by_id_whatever_its_order(
    as_index: bool, case: Case, frame: pd.DataFrame, tmp_path: Path
) -> None:
    shuffled = frame.sample(frac=1, random_state=1)
    (shuffled if as_index else shuffled.reset_index(names="id")).to_parquet(tmp_path / "mine.parquet")
    (member,) = load_members(_own(tmp_path / "mine.parquet"), case.data, case.store)
    ids = case.store.ids(case.store.index.first, case.store.index.last).to_pylist()
    np.testing.assert_array_equal(member.values_N, frame["prediction"].reindex(ids).astype(np.float32))
    live = case.store.live()
    np.testing.assert_array_equal(member.live_N, frame["prediction"].reindex(live.ids.to_pylist()).astype(np.float32))
    assert coverage([member], case.store, 1) == []
    features = case.features().with_outside({member.name: member})
    (spec,) = member_specs([member], "target_ender_20")
    assert spec.model_id == "given.mine.ender_20.0"
    rows = case.store.index.rows_of(30)
    assert spec.columns == ()
    np.testing.assert_array_equal(features.member(spec.group, 30, 30), member.values_N[rows])
    np.testing.assert_array_equal(EraSource(features, 30).member(spec.group), member.values_N[rows])
    np.testing.assert_array_equal(features.live_member(spec.group), member.live_N)
    assert features.era(30, case.store.columns[:2]).values.dtype == np.int8


def test_missing_rows_get_the_median_of_their_era_and_missing_eras_say_nothing(
    case: Case, frame: pd.DataFrame, tmp_path: Path
) -> None:
    era = pd.to_numeric(frame["era"], errors="coerce")
    kept = frame[(era > 20) & (np.arange(len(frame)) % 3 != 0)]
    kept.to_parquet(tmp_path / "mine.parquet")
    (member,) = load_members(_own(tmp_path / "mine.parquet"), case.data, case.store)
    ids = pd.Index(case.store.ids(1, 56).to_pylist())
    expected = kept["prediction"].astype(np.float32).reindex(ids)
    eras = case.store.index.per_row()
    medians = expected.groupby(eras).transform("median")
    filled = expected.fillna(medians).fillna(0.5)
    np.testing.assert_allclose(member.values_N, filled, atol=1e-7)
    assert member.eras == tuple(range(21, 57))
    notes = coverage([member], case.store, 11)
    assert notes == [
        "member mine has no prediction in 10 of 46 eras from 11 on",
        "member mine has no live predictions: its live rows are all equal",
    ]


def test_the_datasets_benchmarks_join_and_are_the_reference_of_bmc(
    case: Case, frame: pd.DataFrame, tmp_path: Path
) -> None:
    columns = frame.rename(columns={"prediction": "v5_blend"}).assign(v5_other=0.25)
    live = columns["era"].str.isalpha()
    half = np.arange(len(frame)) < len(frame) // 3
    columns[half & ~live].to_parquet(tmp_path / "train_benchmark_models.parquet")
    columns[~half & ~live].to_parquet(tmp_path / "validation_benchmark_models.parquet")
    columns[live].to_parquet(tmp_path / "live_benchmark_models.parquet")
    config = configured(zoo={"benchmarks": ["v5_blend"]}, selection={"criterion": "bmc", "benchmark": "v5_blend"})
    (member,) = load_members(config, tmp_path, case.store)
    ids = case.store.ids(1, 56).to_pylist()
    np.testing.assert_array_equal(member.values_N, frame["prediction"].reindex(ids).astype(np.float32))
    references = load_references(config, tmp_path, case.store)
    np.testing.assert_array_equal(references["bmc"], frame["prediction"].reindex(ids))
    assert load_references(configured(), tmp_path, case.store) == {}


def test_what_is_not_there_is_named(case: Case, frame: pd.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"zoo\.members\.mine: there is no file"):
        load_members(_own(tmp_path / "none.parquet"), case.data, case.store)
    frame.assign(second=0.5).to_parquet(tmp_path / "two.parquet")
    with pytest.raises(ConfigError, match=r"has 2 prediction columns \(prediction, second\)"):
        load_members(_own(tmp_path / "two.parquet"), case.data, case.store)
    frame.set_axis([f"x{n}" for n in range(len(frame))]).to_parquet(tmp_path / "foreign.parquet")
    with pytest.raises(ConfigError, match="its ids are other ones"):
        load_members(_own(tmp_path / "foreign.parquet"), case.data, case.store)
    frame.assign(prediction=0.5).to_parquet(tmp_path / "constant.parquet")
    with pytest.raises(ConfigError, match="member 'mine' is constant in every era"):
        load_members(_own(tmp_path / "constant.parquet"), case.data, case.store)
    frame.reset_index(drop=True).to_parquet(tmp_path / "bare.parquet")
    with pytest.raises(DataError, match="has no column 'id'"):
        load_members(_own(tmp_path / "bare.parquet"), case.data, case.store)
    with pytest.raises(ConfigError, match="no file has a column 'v5_blend'"):
        load_members(configured(zoo={"benchmarks": ["v5_blend"]}), tmp_path, case.store)
    for criterion, column in (("mmc", "numerai_meta_model"), ("payout", "numerai_meta_model"), ("bmc", "blend")):
        config = configured(selection={"criterion": criterion, "benchmark": "blend"})
        with pytest.raises(ConfigError, match=rf'"{criterion}" needs the column \'{column}\''):
            load_references(config, tmp_path, case.store)
    with pytest.raises(ConfigError, match=r'aim = "payout" needs meta_model\.parquet or the benchmark models in'):
        paid_by(replace(configured(), aim="payout"), tmp_path, case.store)


def test_the_meta_model_is_a_column_where_the_gate_is_paid_by_it(
    case: Case, frame: pd.DataFrame, tmp_path: Path
) -> None:
    meta = frame[frame["era"] > "0030"].rename(columns={"prediction": "numerai_meta_model"})
    meta.to_parquet(tmp_path / "meta_model.parquet")
    assert paid_by(configured(), tmp_path, case.store) is None
    features = case.features().with_outside({}, paid_by(replace(configured(), aim="payout"), tmp_path, case.store))
    assert case.features().meta_model(29, 33) is None
    ids = case.store.ids(29, 33).to_pylist()
    expected = meta["numerai_meta_model"].reindex(ids).astype(np.float32)
    np.testing.assert_array_equal(features.meta_model(29, 33), expected)
    assert np.isnan(features.meta_model(29, 30)).all()


def test_bmc_stands_in_for_mmc_in_eras_without_the_meta_model(case: Case, frame: pd.DataFrame, tmp_path: Path) -> None:
    config = replace(configured(), aim="payout")
    assert config.ranking.criterion == "payout"
    meta = frame[frame["era"] > "0030"].rename(columns={"prediction": "numerai_meta_model"})
    meta.to_parquet(tmp_path / "meta_model.parquet")
    bench = frame.rename(columns={"prediction": "v53_any"}).assign(v53_any=lambda rows: 1 - rows["v53_any"])
    bench.to_parquet(tmp_path / "validation_benchmark_models.parquet")
    features = case.features().with_outside({}, paid_by(config, tmp_path, case.store))
    for first, last, source, column in ((29, 30, bench, "v53_any"), (31, 33, meta, "numerai_meta_model")):
        ids = case.store.ids(first, last).to_pylist()
        expected = source[column].reindex(ids).astype(np.float32)
        np.testing.assert_array_equal(features.meta_model(first, last), expected)
    assert set(load_references(config, tmp_path, case.store)) == {"mmc", "bmc"}


def test_the_relation_of_bmc_and_mmc_is_measured_on_shared_eras() -> None:
    rng = np.random.default_rng(0)
    bmc = rng.standard_normal((3, 40))
    mmc = 0.5 * bmc
    mmc[:, :10] = np.nan
    found = proxy_relation({"mmc": mmc, "bmc": bmc})
    assert "on 30 shared eras MMC = 0.50 BMC, correlation 1.00" in found
    assert proxy_relation({"mmc": mmc}) == ""
    assert proxy_relation({"mmc": np.full((3, 40), np.nan), "bmc": bmc}) == ""

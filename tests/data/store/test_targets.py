"""Horizons from the labels themselves: twins, damaged twins, patterns of empty eras, contradictions, scales."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eravane.calendar.horizon import Horizon
from eravane.core.config import parse_config
from eravane.core.errors import ChangedDataError, ConfigError, DataError
from eravane.data.ingest import ingest
from eravane.data.store.store import EraStore
from eravane.data.store.targets import (
    LabelBlock,
    TargetFacts,
    horizon_of,
    require_same_twin,
    require_scale,
    survey,
    target_horizons,
)
from eravane.planning.doctor import examine_targets
from eravane.planning.shape import read_targets
from tests.support.made_store import Dataset

ERAS, ROWS = 40, 50
NAMES = ("target", "target_a_20", "target_a_60", "target_b_60")


def labels(seed: int = 0, twin: int = 2, empty: tuple[int, ...] = (13, 5, 13, 13)) -> np.ndarray:
    """Labels [T, N]; `target` repeats the column `twin`, and the newest eras of each column are empty."""
    random = np.random.default_rng(seed)
    values_TN = random.choice([0, 0.25, 0.5, 0.75, 1.0], (len(NAMES), ERAS * ROWS)).astype(np.float32)
    if twin:
        values_TN[0] = values_TN[twin]
    for values_N, eras in zip(values_TN, empty, strict=True):
        values_N[(ERAS - eras) * ROWS :] = np.nan
    return values_TN


def surveyed(values_TN: np.ndarray, pieces: int = 3) -> dict[str, TargetFacts]:
    """Facts of the columns, read in several blocks."""
    era_N = np.repeat(np.arange(1, ERAS + 1), ROWS)
    cuts = np.array_split(np.arange(era_N.size), pieces)
    blocks = [
        LabelBlock(values_TN[:, cut], era_N[cut], lambda row, first=int(cut[0]): f"n{first + row}") for cut in cuts
    ]
    return survey(NAMES, range(1, ERAS + 1), blocks)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), twin=st.sampled_from([1, 2, 3]), pieces=st.integers(1, 9), empty=st.integers(0, 20))
def test_a_twin_is_found_by_value_however_the_data_are_cut(seed: int, twin: int, pieces: int, empty: int) -> None:
    facts = surveyed(labels(seed, twin, (max(empty, 13), 5, 13, 13)), pieces)
    assert facts["target"].twins == (NAMES[twin],)
    found = horizon_of("target", facts)
    assert (found.how, found.twin, found.span) == ("twin", NAMES[twin], Horizon.named(NAMES[twin]))
    assert found.notes == ()
    assert TargetFacts.from_dict(asdict(facts["target"])) == facts["target"]


def test_the_sentence_of_todays_data() -> None:
    found = horizon_of("target", surveyed(labels()))
    assert found.sentence(14, 17) == "target = target_a_60, 60 days: lags 14 and 17, purge 16"


def test_extent_and_scale_are_counted() -> None:
    facts = surveyed(labels())["target_a_20"]
    assert (facts.labelled, facts.newest, facts.empty_eras, facts.low, facts.high) == (1750, 35, 5, 0.0, 1.0)


def test_two_twins_of_unlike_horizon_are_asked_about() -> None:
    values_TN = labels(empty=(13, 13, 13, 13))
    values_TN[1] = values_TN[2]
    facts = surveyed(values_TN)
    assert facts["target"].twins == ("target_a_20", "target_a_60")
    with pytest.raises(ConfigError, match=r"equals target_a_20 and target_a_60 .* differ in their horizons"):
        horizon_of("target", facts)
    assert horizon_of("target", facts, 12).span == Horizon(12)
    # The suffix of the first contradicts its values, too.
    assert "named after 20 days, but equals 'target_a_60'" in horizon_of("target_a_20", facts).notes[0]


def test_two_twins_of_one_horizon_are_named() -> None:
    values_TN = labels()
    values_TN[3] = values_TN[2]
    found = horizon_of("target", surveyed(values_TN))
    assert found.span == Horizon(12)
    assert found.notes == ("'target' equals target_a_60 and target_b_60, all of 60 days",)


@pytest.mark.parametrize("lost", [False, True])
def test_a_twin_that_differs_in_one_cell_is_named_with_row_and_values(lost: bool) -> None:
    values_TN = labels()
    row = 3 * ROWS + 7
    values_TN[0, row], values_TN[2, row] = 0.25, np.nan if lost else 0.75
    facts = surveyed(values_TN)
    assert facts["target"].twins == ()
    found = horizon_of("target", facts)
    assert (found.how, found.span) == ("empty eras", Horizon(12))
    other = "no label" if lost else "0.75"
    assert found.notes == (
        f"'target' differs from 'target_a_60' in 1 of its rows, first in era 0004, id 'n{row}': 0.25 against {other}",
    )
    assert TargetFacts.from_dict(asdict(facts["target"])) == facts["target"]


@pytest.mark.parametrize(
    ("empty", "eras"), [((13, 5, 13, 13), 12), ((5, 5, 13, 13), 4), ((15, 7, 15, 15), 12), ((6, 6, 14, 14), 4)]
)
def test_without_a_twin_the_newest_eras_decide(empty: tuple[int, ...], eras: int) -> None:
    found = horizon_of("target", surveyed(labels(twin=0, empty=empty)))
    assert (found.how, found.span.eras) == ("empty eras", eras)


@pytest.mark.parametrize("empty", [(9, 5, 13, 13), (0, 0, 0, 0), (13, 13, 13, 13), (5, 0, 13, 13)])
def test_a_pattern_that_fits_no_horizon_is_asked_about(empty: tuple[int, ...]) -> None:
    facts = surveyed(labels(twin=0, empty=empty))
    with pytest.raises(ConfigError, match=r"set data\.horizon_eras"):
        horizon_of("target", facts)
    assert horizon_of("target", facts, 9).span == Horizon(9)


def test_a_configuration_below_the_data_is_refused() -> None:
    with pytest.raises(ConfigError, match="horizon_eras is 4, but target 'target' equals target_a_60"):
        horizon_of("target", surveyed(labels()), 4)
    assert horizon_of("target", surveyed(labels()), 20).span == Horizon(20)


def test_a_suffix_that_the_file_contradicts_is_reported() -> None:
    facts = surveyed(labels(twin=0, empty=(5, 13, 5, 13)))
    assert "named after 20 days, but its newest 13 eras have no label" in horizon_of("target_a_20", facts).notes[0]
    assert "lack 13" in horizon_of("target_a_60", facts).notes[0]
    assert horizon_of("target_b_60", facts).notes == ()


def test_off_the_scale_is_refused_with_the_range() -> None:
    values_TN = labels()
    values_TN[1] *= 100
    facts = surveyed(values_TN)
    config = parse_config({"data": {"target": "target"}, "zoo": {"targets": ["target_a_20"]}})
    with pytest.raises(DataError, match="'target_a_20' lies between 0 and 100"):
        target_horizons(config, facts)
    require_scale("target", facts["target"])
    assert list(target_horizons(parse_config({}), facts)) == ["target"]


@pytest.mark.parametrize("kind", [np.int8, np.int64, bool])
def test_integer_targets(tmp_path: Path, kind: type) -> None:
    """Integers of 0 and 1 are labels, in any width; 0 to 4 are off the scale, and the refusal holds the range."""
    made = Dataset.make(last=40, unlabelled=0)
    for frame in (made.train, made.validation):
        frame["target"] = (frame["target"] > 0.5).astype(kind)
    facts = ingest(made.write(tmp_path / "data"), tmp_path / "store").facts["target"]
    assert (facts.low, facts.high, facts.labelled) == (0.0, 1.0, len(made.history))
    require_scale("target", facts)
    if kind is not bool:
        made.train["target"] *= 4
        wide = ingest(made.write(tmp_path / "wide"), tmp_path / "other").facts
        with pytest.raises(DataError, match=r"'target' lies between 0 and 4; targets lie between 0 and 1 .* rescale"):
            target_horizons(parse_config({"data": {"horizon_eras": 12}}), wide)


def test_half_empty_and_absent_targets() -> None:
    values_TN = labels()
    values_TN[0, ::2] = np.nan  # half of the rows of every era
    assert horizon_of("target", surveyed(values_TN)).twin == "target_a_60"
    values_TN[0] = np.nan
    with pytest.raises(DataError, match="missing in every row"):
        horizon_of("target", surveyed(values_TN))
    with pytest.raises(ConfigError, match="not in the data; it has target, target_a_20"):
        horizon_of("target_c_20", surveyed(values_TN))


def test_a_twin_that_changes_between_files_stops() -> None:
    was, now, none = (surveyed(labels(twin=twin))["target"] for twin in (1, 2, 0))
    require_same_twin("target", was, was)
    require_same_twin("target", none, now)
    damaged_TN = labels(twin=1)
    damaged_TN[0, 5] = 1.0 - damaged_TN[1, 5] or 0.25
    require_same_twin("target", was, surveyed(damaged_TN)["target"])
    with pytest.raises(ChangedDataError, match="equalled 'target_a_20' and now equals 'target_a_60'"):
        require_same_twin("target", was, now)
    with pytest.raises(ChangedDataError, match="now equals no other target"):
        require_same_twin("target", was, none)


def test_a_store_keeps_what_its_targets_tell(tmp_path: Path) -> None:
    made = Dataset.make(last=40)
    for frame in (made.train, made.validation):
        frame["target"] = frame["target_ender_60"]
    store = ingest(made.write(tmp_path / "data"), tmp_path / "store")
    assert store.manifest.facts["target"].twins == ("target_ender_60",)
    assert EraStore.open(tmp_path / "store").facts == store.manifest.facts
    assert read_targets(tmp_path / "data").facts == store.manifest.facts
    # A store that an older version made has no such record; it is read from the labels.
    assert EraStore(store.path, replace(store.manifest, facts={})).facts == store.manifest.facts
    assert any("target = target_ender_60, 60 days" in check.found for check in examine_targets(tmp_path / "store"))


def test_a_weekly_file_with_another_twin_is_refused(tmp_path: Path) -> None:
    made = Dataset.make(last=40)
    for frame in (made.train, made.validation):
        frame["target"] = frame["target_ender_20"]
    ingest(made.write(tmp_path / "data"), tmp_path / "store")
    before = EraStore.open(tmp_path / "store").manifest.fingerprint()
    for frame in (made.train, made.validation):
        frame["target"] = frame["target_ender_60"]
    with pytest.raises(ChangedDataError, match="equalled 'target_ender_20' and now equals 'target_ender_60'"):
        ingest(made.write(tmp_path / "data"), tmp_path / "store")
    assert EraStore.open(tmp_path / "store").manifest.fingerprint() == before


def test_doctor_names_what_is_wrong_with_targets(tmp_path: Path) -> None:
    made = Dataset.make(last=40)
    made.validation["target_ender_20"] *= 100
    found = examine_targets(made.write(tmp_path / "data"))
    assert any(check.status == "fail" and "lies between 0 and 100" in check.found for check in found)
    assert any(check.status == "warn" and "how long the labels of 'target' are" in check.found for check in found)

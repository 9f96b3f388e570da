"""Selection rules on scores made by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from eravane.core.config import SelectionConfig
from eravane.core.errors import ConfigError
from eravane.learners.registry import load_booster, predict
from eravane.learners.xgboost import fit, quantile_matrix, resolve_params
from eravane.scoring.payout import rule_in_force
from eravane.zoo.selection import Outcome, Verdict, select, sharpe_error
from eravane.zoo.specs import ModelSpec
from eravane_kernels import cpu

ERAS = 40


def _judge(
    means: Sequence[float], *, cells: str = "", similar: dict[tuple[int, int], float] | None = None, **limits: float
) -> list[Verdict]:
    cells = cells or "abcdefgh"[: len(means)]
    wave = np.tile([0.01, -0.01], ERAS // 2)
    specs = [ModelSpec("small", cell, "target", number, ("x",)) for number, cell in enumerate(cells)]
    similarity = np.eye(len(means))
    for (i, j), value in (similar or {}).items():
        similarity[i, j] = similarity[j, i] = value
    config = SelectionConfig(**{"per_cell": 2, "most": 10, "minimum_corr": 0.0, "duplicate": 0.9, "least": 1, **limits})
    return select(specs, np.array([mean + wave for mean in means]), similarity, config, hac_lag=8)


def _kept(verdicts: Sequence[Verdict]) -> list[int]:
    return [number for number, verdict in enumerate(verdicts) if verdict.selected]


def test_the_best_by_mean_are_kept_and_each_verdict_has_a_reason() -> None:
    verdicts = _judge([0.01, 0.03, -0.01, 0.02], most=2)
    assert _kept(verdicts) == [1, 3]
    assert [verdict.reason for verdict in verdicts] == [
        "dropped: 2 better models in all",
        "kept: number 1 by mean CORR",
        "dropped: mean CORR -0.0100 is not above 0",
        "kept: number 2 by mean CORR",
    ]
    assert verdicts[1].summary.corr_mean == pytest.approx(0.03)


def test_a_cell_takes_so_many_and_a_twin_gives_way() -> None:
    assert _kept(_judge([0.01, 0.03, 0.02, 0.015], cells="aaab")) == [1, 2, 3]
    verdicts = _judge([0.01, 0.03, 0.02], similar={(1, 2): 0.95})
    assert _kept(verdicts) == [0, 1]
    assert "0.950 with the better small.b.target.1" in verdicts[2].reason


def test_sharpe_breaks_ties_of_the_mean() -> None:
    specs = [ModelSpec("small", cell, "target", 0, ("x",)) for cell in "ab"]
    # Powers of two, so that both means are the same number.
    calm = 2.0**-6 + np.tile([2.0**-9, -(2.0**-9)], ERAS // 2)
    wild = 2.0**-6 + np.tile([2.0**-4, -(2.0**-4)], ERAS // 2)
    config = SelectionConfig(most=1, least=1)
    assert _kept(select(specs, np.stack([wild, calm]), np.eye(2), config, 8)) == [1]


def test_the_least_come_back_from_below_the_minimum_but_no_twins() -> None:
    verdicts = _judge([-0.03, -0.01, -0.02, -0.04], least=2, similar={(1, 2): 0.99})
    assert _kept(verdicts) == [0, 1]
    assert "although mean CORR" in verdicts[0].reason
    assert [verdict.outcome for verdict in verdicts] == [
        Outcome.RESCUED,
        Outcome.RESCUED,
        Outcome.DROPPED,
        Outcome.DROPPED,
    ]


@given(
    st.lists(st.floats(-0.05, 0.05), min_size=1, max_size=8),
    st.integers(1, 4),
    st.integers(1, 4),
    st.floats(-0.02, 0.02),
)
def test_the_outcome_and_the_reason_agree(means: list[float], most: int, least: int, minimum: float) -> None:
    for verdict in _judge(means, most=most, least=least, minimum_corr=minimum):
        assert verdict.selected == verdict.reason.startswith("kept")
        assert (verdict.outcome is Outcome.RESCUED) == ("although" in verdict.reason)
        assert (verdict.outcome is Outcome.RESCUED) == (verdict.selected and verdict.summary.corr_mean <= minimum)


def test_a_model_without_scores_is_never_kept() -> None:
    verdicts = _judge([np.nan, 0.01], least=2)
    assert _kept(verdicts) == [1]
    assert "no out-of-fold score" in verdicts[0].reason


def _specs(cells: str, given: str = "") -> list[ModelSpec]:
    return [ModelSpec("given" if cell in given else "small", cell, "target", 0, ("x",)) for cell in cells]


def test_the_payout_mix_ranks_where_the_reference_exists() -> None:
    rng = np.random.default_rng(1)
    scores, mmc = rng.normal(0.01, 0.02, (4, ERAS)), rng.normal(0.0, 0.01, (4, ERAS))
    mmc[:, : ERAS // 2] = np.nan
    for criterion, values in (("mmc", mmc), ("payout", 0.5 * scores + 2.0 * mmc)):
        config = SelectionConfig(criterion=criterion, minimum_corr=-1, most=1)
        payout = rule_in_force(corr=0.5, mmc=2.0)
        verdicts = select(_specs("abcd"), scores, np.eye(4), config, 8, {"mmc": mmc}, payout)
        expected = np.nanmean(values, axis=1)
        np.testing.assert_allclose([verdict.criterion.mean for verdict in verdicts], expected, atol=1e-15)
        assert _kept(verdicts) == [int(np.argmax(expected))]
        assert verdicts[0].summary.corr_mean == pytest.approx(scores[0].mean())


def test_a_reference_without_common_eras_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"covers none of the out-of-fold eras"):
        select(
            _specs("a"),
            np.ones((1, 3)),
            np.eye(1),
            SelectionConfig(criterion="bmc"),
            8,
            {"bmc": np.full((1, 3), np.nan)},
        )


def test_members_are_kept_and_set_the_floor() -> None:
    means = np.array([0.02, 0.009, 0.012, 0.004])
    scores = means[:, None] + np.tile([0.01, -0.01], ERAS // 2)
    config = SelectionConfig(floor=0.5, most=1, least=1, per_cell=1)
    verdicts = select(_specs("abcm", given="a"), scores, np.eye(4), config, 8)
    assert _kept(verdicts) == [0, 2]  # the member takes no place
    assert "a member from outside" in verdicts[0].reason
    assert verdicts[1].reason == "dropped: mean CORR 0.0090 is not above the floor 0.0100 of the members from outside"
    weak = select(_specs("abcm", given="m"), scores, np.eye(4), config, 8)
    assert _kept(weak) == [0, 3]


def test_a_constant_target_leaves_no_score() -> None:
    """Trees on one label say one thing; such predictions have no CORR."""
    params, _ = resolve_params({}, "cpu")
    values = np.random.default_rng(0).integers(0, 5, (3, 200)).astype(np.int8)
    table = pa.table({str(n): pa.array(row) for n, row in enumerate(values)})
    block = fit(quantile_matrix(table, params), np.full(200, 0.25, np.float32), None, trees=5, params=params, seed=1)
    prediction = predict([load_booster(block)], values)
    assert len(set(prediction.tolist())) == 1
    label = np.tile([0, 0.25, 0.5, 1], 50).astype(np.float32)
    score = cpu.numerai_corr(prediction[None], label, np.array([0, 200]))
    assert np.isnan(score).all()
    assert _kept(_judge([np.nan, 0.01], least=2)) == [1]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), eras=st.integers(5, 60))
def test_the_error_of_the_sharpe_ratio_is_that_of_independent_eras(seed: int, eras: int) -> None:
    """At lag 0 the delta method is sqrt((1 - S skew + S^2 (kurtosis - 1) / 4) / n) (Mertens 2002)."""
    x = np.random.default_rng(seed).gamma(2.0, 1.0, eras)
    ratio = x.mean() / x.std()
    variance = 1 - ratio * stats.skew(x) + ratio**2 * (stats.kurtosis(x, fisher=False) - 1) / 4
    assert sharpe_error(x, 0) == pytest.approx(np.sqrt(variance / eras), rel=1e-9)
    assert np.isnan(sharpe_error(np.full(4, 0.1), 8))

"""The meta-learner from outside: what it may know, what it survives, and that it goes on byte for byte."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls

from eravane.core.config import GateConfig
from eravane.core.errors import ConfigError, RunError
from eravane.gate.experts import STABLE, correlation, shrunk
from eravane.gate.gate import MetaLearner
from eravane.gate.portable_weights import STEADY
from eravane.gate.records import REST_AFTER
from tests.gate.cases import LAG, drive, outcomes, pool, through_disk

SMALL = GateConfig(warmup=12, seeds=1, steps=6, refit_every=10, rehearsal=10)


def test_weights_are_a_distribution_over_open_models():
    gates, weights, _ = drive(MetaLearner(SMALL, pool(), lag=LAG, seed=0), outcomes(), range(20, 46))
    assert np.isfinite(weights).all()
    assert (weights >= 0).all()
    np.testing.assert_allclose(weights.sum(1), 1.0, atol=1e-12)
    assert (weights[~gates] == 0).all()
    assert gates.any(1).all()
    assert weights.std(0).max() > 0.01


def test_a_learner_restored_every_era_goes_on_byte_for_byte():
    straight = drive(MetaLearner(SMALL, pool(), lag=LAG, seed=0), outcomes(), range(20, 46))
    broken = drive(MetaLearner(SMALL, pool(), lag=LAG, seed=0), outcomes(), range(20, 46), every=through_disk)
    assert np.array_equal(straight[0], broken[0])
    assert np.array_equal(straight[1], broken[1])


def test_the_horizon_reaches_the_regimes_and_the_disk():
    config, history = replace(SMALL, experts=("regimes",)), outcomes()
    plain, longer, stored = (
        drive(MetaLearner(config, pool(), lag=LAG, seed=0, horizon=horizon), history, range(40, 45), every=every)[1]
        for horizon, every in ((4, None), (8, None), (8, through_disk))
    )
    assert not np.array_equal(plain, longer)
    assert np.array_equal(longer, stored)


def test_the_seed_decides_every_bit():
    first, second, other = (
        drive(MetaLearner(SMALL, pool(), lag=LAG, seed=seed), outcomes(), range(30, 40))[1] for seed in (0, 0, 1)
    )
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)


@settings(max_examples=4, deadline=None)
@given(st.integers(25, 44))
def test_what_is_not_yet_known_changes_nothing(cut):
    """Outcomes that are not usable at the cut, and facts of later eras, leave earlier decisions bit-identical."""
    rng = np.random.default_rng(cut)
    plain = outcomes()
    changed = [
        replace(
            outcome,
            scores_M=rng.standard_normal(6) if outcome.era > cut - LAG else outcome.scores_M,
            c_M=rng.standard_normal(6) if outcome.era > cut - LAG else outcome.c_M,
            facts=replace(outcome.facts, model_MS=rng.standard_normal((6, 2))) if outcome.era > cut else outcome.facts,
        )
        for outcome in plain
    ]
    eras = range(22, cut + 1)
    first = drive(MetaLearner(SMALL, pool(), lag=LAG, seed=0), plain, eras)
    second = drive(MetaLearner(SMALL, pool(), lag=LAG, seed=0), changed, eras)
    assert np.array_equal(first[0], second[0])
    assert np.array_equal(first[1], second[1])
    experts = [learner.expert_weights(cut) for _, _, learner in (first, second)]
    assert list(experts[0]) == [
        "equal_weight",
        *("screened", "best_single", "ridge", "ridge_64", "ridge_all", "regimes", "network"),
    ]
    assert all(np.array_equal(experts[0][name], experts[1][name]) for name in experts[0])


def test_a_shorter_lag_makes_that_property_fail():
    rng = np.random.default_rng(0)
    plain = outcomes()
    changed = [replace(o, c_M=rng.standard_normal(6)) if o.era > 40 - LAG else o for o in plain]
    eras = range(22, 41)
    first = drive(MetaLearner(SMALL, pool(), lag=1, seed=0), plain, eras, lag=1)
    second = drive(MetaLearner(SMALL, pool(), lag=1, seed=0), changed, eras, lag=1)
    assert not np.array_equal(first[1], second[1])


@pytest.mark.parametrize("call", ["learn", "decide", "weigh", "comparators"])
def test_an_outcome_that_is_too_new_is_an_error(call):
    history = outcomes(eras=10)
    learner = MetaLearner(SMALL, pool(), lag=LAG, seed=0)
    for outcome in history:
        learner.observe(outcome)
    now = history[-1]
    arguments = {
        "learn": (15,),
        "decide": (15, now.facts),
        "weigh": (15, now.facts, np.ones(6, dtype=bool), now.C_MM, now.dispersion_M),
        "comparators": (15, now.dispersion_M),
    }
    with pytest.raises(RunError, match="era 10 was observed, but era 15 may use labels up to 9"):
        getattr(learner, call)(*arguments[call])


def test_eras_come_once_and_in_order():
    history = outcomes(eras=30)
    learner = MetaLearner(SMALL, pool(), lag=LAG, seed=0)
    learner.observe(history[3])
    for late in (history[3], history[1]):
        with pytest.raises(RunError, match="ascending"):
            learner.observe(late)


def test_warm_up_is_equal_weight_and_noted():
    history = outcomes()
    learner = MetaLearner(SMALL, pool(), lag=LAG, seed=0)
    for outcome in history[:5]:
        learner.observe(outcome)
    report = learner.learn(11)
    now = history[10]
    open_M = learner.decide(11, now.facts)
    weights_M = learner.weigh(11, now.facts, open_M, now.C_MM, now.dispersion_M)
    assert open_M.all()
    np.testing.assert_allclose(weights_M, 1 / 6)
    assert report.trained == "none"
    assert report.notes == ("5 resolved eras, warm-up needs 12: equal weight until then",)
    assert learner.learn(11).notes == ()


def test_constant_models_and_missing_statistics_get_finite_weights():
    history = outcomes()
    for position in range(0, 50, 3):
        o = history[position]
        c_M, scores_M, C_MM = o.c_M.copy(), o.scores_M.copy(), o.C_MM.copy()
        c_M[1], scores_M[1], C_MM[1], C_MM[:, 1] = 0.0, np.nan, 0.0, 0.0
        facts = replace(
            o.facts,
            model_MS=np.full((6, 2), np.nan),
            context_D=np.array([np.nan, np.nan]),
            marginal_KF=np.full((7, 18), np.nan, dtype=np.float32),
        )
        history[position] = replace(o, c_M=c_M, scores_M=scores_M, C_MM=C_MM, facts=facts, dispersion_M=np.zeros(6))
    _, weights, learner = drive(MetaLearner(SMALL, pool(), lag=LAG, seed=0), history, range(18, 46))
    assert np.isfinite(weights).all()
    np.testing.assert_allclose(weights.sum(1), 1.0, atol=1e-12)
    constant = [era - 18 for era in range(18, 46) if (era - 1) % 3 == 0]
    assert (weights[constant, 1] == 0).all()
    assert all(np.isfinite(w).all() for w in learner.comparators(46, np.zeros(6)).values())


def test_a_pool_of_two_is_weighed():
    gates, weights, _ = drive(MetaLearner(SMALL, pool(2), lag=LAG, seed=0), outcomes(models=2), range(20, 46))
    assert gates.any(1).all()
    assert np.isfinite(weights).all()
    np.testing.assert_allclose(weights.sum(1), 1.0, atol=1e-12)
    assert weights[-1, 0] > weights[-1, 1]


def test_a_cell_that_appears_and_one_that_disappears_are_survived():
    history = outcomes()
    for position, o in enumerate(history):
        absent_M = np.array([(m == 4 and position < 25) or (m == 1 and position >= 30) for m in range(6)])
        C_MM = np.where(absent_M | absent_M[:, None], 0.0, o.C_MM)
        dispersion_M = np.where(absent_M, np.nan, o.dispersion_M)
        history[position] = replace(
            o, c_M=np.where(absent_M, np.nan, o.c_M), scores_M=o.scores_M, C_MM=C_MM, dispersion_M=dispersion_M
        )
    _, weights, learner = drive(MetaLearner(SMALL, pool(), lag=LAG, seed=0), history, range(20, 48))
    assert np.isfinite(weights).all()
    np.testing.assert_allclose(weights.sum(1), 1.0, atol=1e-12)
    assert (weights[11:, 1] == 0).all()
    assert (weights[7:, 4] > 0).any()
    assert all(np.isfinite(row_M).all() for row_M in learner.expert_weights(47).values())


def test_facts_that_are_constant_missing_or_came_late_change_no_sum():
    history = outcomes()
    for position, o in enumerate(history):
        late = float(position) if position >= 20 else np.nan
        facts = replace(
            o.facts,
            context_D=np.append(o.facts.context_D, [7.0, np.nan, late]),
            context_names=(*o.facts.context_names, "constant", "nothing", "late"),
        )
        history[position] = replace(o, facts=facts)
    _, weights, _ = drive(MetaLearner(SMALL, pool(), lag=LAG, seed=0), history, range(20, 46))
    assert np.isfinite(weights).all()
    np.testing.assert_allclose(weights.sum(1), 1.0, atol=1e-12)


def test_max_active_caps_the_open_gates():
    for cap in (1, 2, 4):
        config = replace(SMALL, max_active=cap)
        gates, _, _ = drive(MetaLearner(config, pool(), lag=LAG, seed=0), outcomes(), range(20, 40))
        assert gates.sum(1).max() <= cap
        assert gates.any(1).all()


@pytest.mark.parametrize("left_out", ["scores", "structure", "marginals", "agreement"])
def test_every_input_block_can_be_switched_off(left_out):
    inputs = tuple(name for name in SMALL.inputs if name != left_out)
    config = replace(SMALL, inputs=inputs)
    history = outcomes()
    _, plain, _ = drive(MetaLearner(config, pool(), lag=LAG, seed=0), history, range(30, 36))
    if left_out == "agreement":
        changed = [replace(o, dispersion_M=o.dispersion_M[::-1].copy()) for o in history]
        _, other, _ = drive(MetaLearner(config, pool(), lag=LAG, seed=0), changed, range(30, 36))
        assert np.array_equal(plain, other)
    assert np.isfinite(plain).all()


@pytest.mark.parametrize("experts", [("ridges",), ("regimes", "network"), ("screened", "best_single"), ()])
def test_experts_can_be_switched_off(experts):
    config, history = replace(SMALL, experts=experts), outcomes()
    _, weights, learner = drive(
        MetaLearner(config, pool(), lag=LAG, seed=0), history, range(20, 36), every=through_disk
    )
    names = [n for e in experts for n in (("ridge", "ridge_64", "ridge_all") if e == "ridges" else (e,))]
    assert list(learner.expert_weights(35)) == ["equal_weight", *names]
    np.testing.assert_allclose(weights.sum(1), 1.0, atol=1e-12)
    compared = learner.comparators(35, history[34].dispersion_M)
    for name in set(names) & set(compared):
        assert np.array_equal(learner.expert_weights(35)[name], compared[name])


@pytest.mark.parametrize("wrong", [{"inputs": ("scores", "colour")}, {"experts": ("ridges", "colour")}])
def test_an_unknown_input_or_expert_is_an_error(wrong):
    with pytest.raises(ConfigError, match="colour"):
        MetaLearner(GateConfig(**wrong), pool(), lag=LAG, seed=0)


def test_a_pool_of_another_size_is_refused():
    learner = MetaLearner(SMALL, pool(), lag=LAG, seed=0)
    with pytest.raises(RunError, match="the pool of a run does not change"):
        learner.observe(outcomes(models=4)[0])


def test_a_model_closed_for_long_rests():
    config = replace(SMALL, max_active=2)
    learner = MetaLearner(config, pool(), lag=LAG, seed=0)
    gates, _, learner = drive(learner, outcomes(), range(20, 40))
    expected = ~gates[-REST_AFTER:].any(0)
    assert expected.any()
    assert (learner.resting_M == expected).all()


def test_deciding_twice_for_one_era_counts_once():
    config = replace(SMALL, max_active=1)
    history = outcomes()
    _, _, learner = drive(MetaLearner(config, pool(), lag=LAG, seed=0), history, range(20, 19 + REST_AFTER))
    learner.decide(18 + REST_AFTER, history[17 + REST_AFTER].facts)
    assert not learner.resting_M.any()


def test_comparators_use_the_past_alone():
    history = outcomes()
    _, _, learner = drive(MetaLearner(SMALL, pool(), lag=LAG, seed=0), history, range(30, 31))
    weights = learner.comparators(30, history[29].dispersion_M)
    past = np.mean([o.scores_M for o in history if o.era <= 30 - LAG], axis=0)
    assert weights["best_single"].argmax() == past.argmax()
    assert weights["best_single"].max() == 1.0
    spread = history[29].dispersion_M
    np.testing.assert_allclose(weights["raw_average"], spread / spread.sum())
    np.testing.assert_allclose(weights["equal_weight"], 1 / 6)
    np.testing.assert_allclose(weights["screened"], 1 / 6)
    C_MM = 0.3 + 0.7 * np.eye(6)
    c_EM = np.stack([o.c_M for o in history[:24]])
    rest_EM = c_EM - c_EM.mean(axis=0)
    noise = np.mean([rest_M @ np.linalg.solve(C_MM + STABLE * np.eye(6), rest_M) / 6 for rest_M in rest_EM])
    for name, half_life in (("ridge", 16.0), ("ridge_64", 64.0), ("ridge_all", np.inf)):
        share = 0.5 ** (np.arange(24)[::-1] / half_life)
        share = share / share.sum()
        expected_M = shrunk(share @ c_EM, C_MM, noise * (share**2).sum())
        root_MM = np.linalg.cholesky(C_MM + STEADY * np.eye(6))
        raw, _ = nnls(root_MM.T, np.linalg.solve(root_MM, expected_M))
        np.testing.assert_allclose(weights[name], raw / raw.sum(), atol=1e-7)


def test_what_the_gate_and_each_expert_earned_is_the_sum_of_their_gains():
    history = outcomes()
    learner = MetaLearner(SMALL, pool(), lag=LAG, seed=0)
    _, weights, learner = drive(learner, history, range(20, 46))
    report = learner.learn(46)
    assert set(report.earned) == {"gate", *learner.experts}
    assert report.earned["equal_weight"] == 0.0
    early = drive(MetaLearner(SMALL, pool(), lag=LAG, seed=0), history, range(20, 26))[2].learn(26).earned
    settled = range(20, 40)
    equal = np.full(6, 1 / 6)
    gains = [
        correlation(weights[era - 20], (o := history[era - 1]).c_M, o.C_MM) - correlation(equal, o.c_M, o.C_MM)
        for era in settled
    ]
    assert report.earned["gate"] - early["gate"] == pytest.approx(sum(gains), abs=1e-12)


def test_a_model_that_is_worse_than_the_pool_is_named():
    history = outcomes(eras=90)
    worse = np.array([0.0, 0.0, 0.0, 0.0, 0.0, -0.09])
    history = [replace(o, c_M=o.c_M + worse, scores_M=o.scores_M + worse) for o in history]
    learner = MetaLearner(replace(SMALL, experts=("screened",)), pool(), lag=LAG, seed=0)
    for outcome in history:
        learner.observe(outcome)
    notes = " ".join(learner.learn(96).notes)
    assert "model m5 leaves the pool that equal weight starts from: what it adds is -" in notes
    assert "(error 0." in notes
    learner.weigh(96, history[-1].facts, np.ones(6, dtype=bool), history[-1].C_MM, np.ones(6))
    assert learner.expert_weights(96)["screened"][5] == 0


def test_payout_trains_on_the_mix_with_contribution():
    plain = outcomes()
    reversed_ = [replace(o, contribution_M=-o.c_M) for o in plain]
    first, second = (
        drive(MetaLearner(SMALL, pool(), lag=LAG, seed=0, aim="payout"), history, range(30, 33))[2]
        for history in (plain, reversed_)
    )
    now = plain[32]
    open_M = np.ones(6, dtype=bool)
    weights = [x.weigh(33, now.facts, open_M, now.C_MM, now.dispersion_M) for x in (first, second)]
    assert weights[0][:3].sum() > 0.6
    assert weights[1][3:].sum() > 0.6


def test_a_state_of_an_earlier_release_goes_on_from_its_resolved_eras():
    history = outcomes()
    learner = drive(MetaLearner(SMALL, pool(), lag=LAG, seed=0), history, range(20, 40))[2]
    arrays, values = learner.state()
    kept = {name: value for name, value in arrays.items() if name.startswith("history.") or name == "closed"}
    kept["hedge.losses"] = np.zeros(4)
    del values["aim"]
    values["config"] = {**values["config"], "experts": ["ridge", "change_points"], "replay": 16}
    back = MetaLearner.restore(kept, json.loads(json.dumps(values)))
    _, weights, _ = drive(back, history, range(40, 46))
    np.testing.assert_allclose(weights.sum(1), 1.0, atol=1e-12)
    assert weights.std(1).max() > 0.01

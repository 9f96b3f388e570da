"""Facts of an era against pandas, and the fitted input map: what is dropped, what is kept, what is finite."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from eravane.core.config import GateConfig
from eravane.core.errors import RunError
from eravane.gate.context import STRUCTURE, ContextBuilder
from eravane.gate.inputs import MARGINAL_INPUTS, InputMap, agreement_inputs, lagged_inputs
from eravane.gate.outcomes import EraOutcome, GateModel, History
from eravane.gate.records import Records
from eravane_kernels import spec

MODELS = [GateModel("a", "small", "x"), GateModel("b", "all", "y"), GateModel("c", "all", "x")]
CELLS = {
    ("small", "x"): np.array([0, 1, 2]),
    ("all", "y"): np.array([3, 4, 5, 6]),
    ("all", "x"): np.array([0, 1, 2, 7]),
}


def builder(**changes):
    return ContextBuilder(MODELS, CELLS, spec, GateConfig(**changes))


def float_era(seed, rows=500, shift=0.0):
    rng = np.random.default_rng(seed)
    x_CN = (rng.standard_normal((8, rows)) + 0.7 * rng.standard_normal(rows)).astype(np.float32)
    x_CN[3:7] += np.float32(shift)
    return x_CN


def level_era(seed, rows=500):
    x_CN = float_era(seed, rows)
    return (np.argsort(np.argsort(x_CN, axis=1), axis=1) * 5 // rows).astype(np.int8)


def test_structure_and_marginals_equal_pandas():
    x_CN = float_era(0)
    facts = builder().facts(x_CN, 1)
    frame = pd.DataFrame(x_CN.T.astype(np.float64))
    for m, model in enumerate(MODELS):
        corr = frame[CELLS[model.feature_set, model.group]].corr().to_numpy()
        pairs = corr[np.triu_indices(len(corr), 1)]
        eigen = np.sort(np.linalg.eigvalsh(corr))[::-1] / len(corr)
        expected = [pairs.mean(), np.abs(pairs).mean(), (pairs**2).mean(), *eigen[:2]]
        np.testing.assert_allclose(facts.model_MS[m, :5], expected, rtol=1e-5)
    assert facts.model_names == STRUCTURE
    expected = [frame.mean(), frame.std(ddof=0), *(frame.quantile(q) for q in (0.05, 0.25, 0.5, 0.75, 0.95))]
    np.testing.assert_allclose(facts.marginal_KF, np.stack(expected), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(facts.context_D, [np.log(500), 0.0])


def test_between_is_the_mean_correlation_with_the_other_cells():
    facts = builder().facts(float_era(1), 1)
    frame = pd.DataFrame(float_era(1).T.astype(np.float64))
    frame = (frame - frame.mean()) / frame.std(ddof=0)
    means = pd.DataFrame({key: frame[columns].mean(axis=1) for key, columns in CELLS.items()})
    corr = means.corr().abs().to_numpy()
    expected = (corr.sum(1) - 1) / 2
    column = STRUCTURE.index("between")
    np.testing.assert_allclose(facts.model_MS[:, column], expected, rtol=1e-5)


def test_missing_features_are_counted_and_have_no_marginals():
    x_CN = level_era(2)
    x_CN[[0, 4]] = 2
    facts = builder().facts(x_CN, 1)
    assert facts.model_MS[:, STRUCTURE.index("missing")] == pytest.approx([1 / 3, 1 / 4, 1 / 4])
    assert facts.context_D[1] == pytest.approx(2 / 8)
    assert np.isnan(facts.marginal_KF[:, [0, 4]]).all()
    assert np.isfinite(facts.marginal_KF[:, 1]).all()


def test_an_era_without_any_value_still_has_facts():
    facts = builder().facts(np.full((8, 30), np.nan, dtype=np.float32), 1)
    assert facts.context_D[1] == 1.0
    assert np.isnan(facts.marginal_KF).all()


def test_blocks_that_are_off_are_not_measured():
    facts = builder(inputs=("scores",)).facts(level_era(0), 1)
    assert facts.model_MS.shape == (3, 0)
    assert facts.marginal_KF.shape == (0, 8)


def test_wide_cells_are_represented_by_spaced_columns():
    rng = np.random.default_rng(0)
    x_CN = rng.standard_normal((400, 50)).astype(np.float32)
    wide = ContextBuilder([GateModel("w", "s", "g")], {("s", "g"): np.arange(400)}, spec, GateConfig())
    expected = np.corrcoef(x_CN[np.linspace(0, 399, 128).astype(int)])
    np.testing.assert_allclose(wide.facts(x_CN, 1).model_MS[0, 0], expected[np.triu_indices(128, 1)].mean(), rtol=1e-5)


def test_unknown_cells_and_empty_eras_are_errors():
    with pytest.raises(RunError, match="no columns for the cells"):
        ContextBuilder([GateModel("a", "none", "x")], CELLS, spec, GateConfig())
    with pytest.raises(RunError, match="era 7 has no rows"):
        builder().facts(np.zeros((8, 0), dtype=np.int8), 7)


def history_of(eras):
    history, records = History(3), Records(3, "corr", 4)
    rng = np.random.default_rng(0)
    for number, facts in enumerate(eras, start=1):
        c_M = 0.02 * rng.standard_normal(3)
        history.append(EraOutcome(number, c_M, c_M, np.eye(3), facts, np.ones(3)))
        records.add(history, number - 1)
    return history, records


def fitted(eras, **changes):
    history, records = history_of(eras)
    config = replace(GateConfig(), **changes)
    return InputMap.fit(history, records, len(history), 2, config), history, records


def test_marginals_of_equal_bins_do_not_vary_and_are_dropped():
    levels, *_ = fitted([builder().facts(level_era(seed, rows=500 + seed), 1) for seed in range(12)])
    assert levels.kept_KF.size == 7 * 8
    assert levels.kept_KF.sum() == 0
    floats, *_ = fitted([builder().facts(float_era(seed), 1) for seed in range(12)])
    assert floats.kept_KF.all()


def test_a_shifted_group_stands_out_in_its_own_models_inputs():
    shifts = [0.5 * (seed % 3 == 0) for seed in range(30)]
    eras = [builder().facts(float_era(seed, shift=shift), 1) for seed, shift in enumerate(shifts)]
    input_map, *_ = fitted(eras)
    own = np.stack([input_map.normalise(facts)[0] for facts in eras])
    mean_column = len(STRUCTURE) + MARGINAL_INPUTS.index("marginal_mean")
    corr = np.array([np.corrcoef(own[:, m, mean_column], shifts)[0, 1] for m in range(3)])
    assert corr[1] > 0.95
    assert np.abs(corr[[0, 2]]).max() < 0.6


def test_own_statistics_are_measured_from_the_models_mean_in_a_common_unit():
    eras = [builder().facts(float_era(seed), 1) for seed in range(20)]
    input_map, *_ = fitted(eras)
    raw = np.stack([facts.model_MS[:, 0] for facts in eras])
    own = np.stack([input_map.normalise(facts)[0][:, 0] for facts in eras])
    scale = np.sqrt(np.mean(raw.std(0) ** 2))
    np.testing.assert_allclose(own, np.clip((raw - raw.mean(0)) / scale, -4, 4), atol=1e-9)


@pytest.mark.parametrize("off", ["structure", "marginals"])
def test_a_block_that_is_off_is_zero_whatever_the_facts_hold(off):
    eras = [builder().facts(float_era(seed), 1) for seed in range(12)]
    inputs = tuple(name for name in GateConfig().inputs if name != off)
    own, _ = fitted(eras, inputs=inputs)[0].normalise(eras[0])
    part = slice(0, len(STRUCTURE)) if off == "structure" else slice(len(STRUCTURE), None)
    assert (own[:, part] == 0).all()
    assert (own != 0).any()


def test_components_are_the_leading_principal_directions():
    eras = [builder().facts(float_era(seed), 1) for seed in range(15)]
    input_map, *_ = fitted(eras)
    z = np.stack([((f.marginal_KF - input_map.marginal_center_KF) / input_map.marginal_scale_KF).ravel() for f in eras])
    z = np.clip(z, -4, 4)
    scores = z @ input_map.components_PV.T
    np.testing.assert_allclose((scores**2).mean(0), 1.0, rtol=1e-6)
    _, _, directions = np.linalg.svd(z, full_matrices=False)
    cosine = np.abs((directions[:3] * input_map.components_PV).sum(1)) / np.linalg.norm(input_map.components_PV, axis=1)
    np.testing.assert_allclose(cosine, 1.0, atol=1e-6)


def test_everything_unknown_gives_zeros():
    eras = [builder().facts(float_era(seed), 1) for seed in range(12)]
    input_map, _, records = fitted(eras)
    blank = replace(
        eras[0],
        model_MS=np.full((3, 7), np.nan),
        context_D=np.full(2, np.nan),
        marginal_KF=np.full((7, 8), np.nan, dtype=np.float32),
    )
    own, context = input_map.normalise(blank)
    assert (own == 0).all()
    np.testing.assert_allclose(context, 0.0)
    x_MF, _ = input_map.inputs(records, 12, blank, np.ones(3, dtype=bool), np.full((3, 3), np.nan), np.full(3, np.nan))
    assert np.isfinite(x_MF).all()


def test_lagged_and_agreement_inputs_follow_the_models():
    """Permuting the models permutes the inputs."""
    eras = [builder().facts(float_era(seed), 1) for seed in range(12)]
    history, records = history_of(eras)
    order = [2, 0, 1]
    moved, other = History(3), Records(3, "corr", 4)
    for i in range(12):
        c_M = history.row("c", i)[order]
        moved.append(EraOutcome(i + 1, c_M, c_M, np.eye(3), eras[i], np.ones(3)))
        other.add(moved, i)
    np.testing.assert_allclose(lagged_inputs(other, 12), lagged_inputs(records, 12)[order], atol=1e-12)
    rng = np.random.default_rng(0)
    C_MM = np.corrcoef(rng.standard_normal((3, 20)))
    spread_M, open_M = rng.random(3) + 0.5, np.array([True, True, False])
    plain = agreement_inputs(records, 12, open_M, C_MM, spread_M)
    after = agreement_inputs(other, 12, open_M[order], C_MM[np.ix_(order, order)], spread_M[order])
    np.testing.assert_allclose(after, plain[order], atol=1e-12)
    assert (plain[2] == 0).all()

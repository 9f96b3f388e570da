"""Updates of base models against XGBoost's own continuation and its own leaf refresh."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import xgboost as xgb
from packaging.version import Version

from eravane.backend.cpu import CpuBackend
from eravane.calendar.clock import KnownAt
from eravane.calendar.timeline import Timeline, plan_timeline
from eravane.core.config import PrepareConfig, RunConfig, parse_config
from eravane.core.errors import ConfigError
from eravane.core.seeds import derive_seed
from eravane.data.features import Features
from eravane.data.ingest import ingest
from eravane.learners.outside import OUTSIDE
from eravane.learners.protocol import TrainingInterruptedError
from eravane.learners.registry import load_booster
from eravane.learners.xgboost import XGBoost, fit, quantile_matrix, resolve_params
from eravane.loop import refresh as module
from eravane.loop.edition import update_constants
from eravane.loop.margins import Margins, full_margin
from eravane.loop.refresh import check_refreshable, refresh
from eravane.loop.updates import Model, RefreshTask, Updater
from eravane.synth import SynthConfig, synthesise
from eravane.zoo.specs import ModelSpec
from eravane.zoo.trainer import Zoo, start_models
from eravane_kernels import cpu
from tests.support.made_store import Dataset

ROWS, COLUMNS, PER_ERA = 2400, 8, 300
PARAMS, _ = resolve_params({"colsample_bytree": 1.0, "max_depth": 3}, "cpu")


@pytest.fixture(scope="module", params=["int8", "float32"])
def values(request: pytest.FixtureRequest) -> np.ndarray:
    rng = np.random.default_rng(1)
    if request.param == "int8":
        return rng.integers(0, 5, (COLUMNS, ROWS)).astype(np.int8)
    return rng.normal(size=(COLUMNS, ROWS)).astype(np.float32)


def _label(values: np.ndarray, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=COLUMNS)
    return (0.5 + 0.05 * weight @ values + 0.1 * rng.normal(size=values.shape[1])).astype(np.float32)


def _table(values: np.ndarray) -> pa.Table:
    return pa.table({f"f{n}": pa.array(row) for n, row in enumerate(values)})


def _trees(booster: xgb.Booster) -> pd.DataFrame:
    return booster.trees_to_dataframe().drop(columns=["Cover", "ID", "Yes", "No", "Missing"])


def _renewed(
    blocks: Sequence[bytes],
    values: np.ndarray,
    label_N: np.ndarray,
    weight_N: np.ndarray | None = None,
    *,
    params: Mapping[str, object] = PARAMS,
    keep: float,
    stop: Any = None,
) -> tuple[bytes, ...]:
    how = {"params": params, "keep": keep, "kernels": cpu, "stop": stop}
    return refresh([blocks], values, label_N[None], weight_N, **how)[0]


def test_appended_blocks_are_the_trees_of_naive_continuation(values: np.ndarray) -> None:
    """After 100 updates the cached margins are the full prediction, and every tree is the one XGBoost would grow."""
    matrix, label = quantile_matrix(_table(values), PARAMS), _label(values, 2)
    first = fit(matrix, label, None, trees=5, params=PARAMS, seed=1)
    naive, blocks = load_booster(first).booster, [first]
    plain = xgb.QuantileDMatrix(_table(values), label, ref=matrix, max_bin=PARAMS["max_bin"])
    parts = {era: values[:, era * PER_ERA : (era + 1) * PER_ERA] for era in range(ROWS // PER_ERA)}
    margins = Margins({}).over(sorted(parts), [load_booster(first)], parts.__getitem__)
    for update in range(100):
        block = fit(matrix, label, None, trees=2, params=PARAMS, seed=100 + update, margin_N=margins.joined())
        margins, blocks = margins.plus(load_booster(block), parts.__getitem__), [*blocks, block]
        naive = xgb.train({**PARAMS, "seed": 100 + update}, plain, 2, xgb_model=naive)
    expected = naive.inplace_predict(values.T)
    np.testing.assert_allclose(margins.joined(), expected, atol=1e-5)
    np.testing.assert_allclose(full_margin([load_booster(b) for b in blocks], values), expected, atol=1e-5)
    grown = pd.concat([_trees(load_booster(block)) for block in blocks], ignore_index=True).drop(columns="Tree")
    pd.testing.assert_frame_equal(grown, _trees(naive).drop(columns="Tree"), check_exact=False, atol=1e-6)


def test_dropping_a_block_is_a_subtraction(values: np.ndarray) -> None:
    matrix, label = quantile_matrix(_table(values), PARAMS), _label(values, 3)
    first = fit(matrix, label, None, trees=5, params=PARAMS, seed=1)
    margins = Margins({}).over([0], [load_booster(first)], lambda era: values)
    blocks = []
    for update in range(3):
        block = fit(matrix, label, None, trees=4, params=PARAMS, seed=update, margin_N=margins.joined())
        margins, blocks = margins.plus(load_booster(block), lambda era: values), [*blocks, block]
    left = margins.minus(load_booster(blocks[0]), lambda era: values)
    expected = full_margin([load_booster(block) for block in (first, *blocks[1:])], values)
    np.testing.assert_allclose(left.joined(), expected, atol=1e-6)
    assert np.abs(left.joined() - margins.joined()).max() > 1e-3


def test_margins_of_known_eras_are_not_computed_again(values: np.ndarray) -> None:
    block = fit(quantile_matrix(_table(values), PARAMS), _label(values, 4), None, trees=3, params=PARAMS, seed=1)
    asked: list[int] = []

    def values_of(era: int) -> np.ndarray:
        asked.append(era)
        return values[:, era * 10 : era * 10 + 10]

    margins = (
        Margins({}).over([1, 2, 3], [load_booster(block)], values_of).over([2, 3, 4], [load_booster(block)], values_of)
    )
    assert asked == [1, 2, 3, 4]
    assert sorted(margins.by_era) == [2, 3, 4]
    np.testing.assert_array_equal(margins.by_era[4], load_booster(block).inplace_predict(values[:, 40:50].T))


@pytest.mark.parametrize(
    "changed", [{"booster": "dart"}, {"rate_drop": 0.1}, {"one_drop": 1}, {"alpha": 1.0}, {"objective": "reg:logistic"}]
)
def test_leaves_of_weighed_trees_and_other_losses_are_refused(changed: dict[str, object]) -> None:
    params = {"objective": "reg:squarederror"}
    check_refreshable({**params, "booster": "gbtree", "rate_drop": 0})
    with pytest.raises(ConfigError, match=rf"loop\.update with leaves .*zoo\.params\.{next(iter(changed))}"):
        check_refreshable({**params, **changed})


def _by_xgboost(
    blocks: Sequence[bytes], values: np.ndarray, label_N: np.ndarray, weight_N: np.ndarray, keep: float
) -> tuple[bytes, ...]:
    """The formula on the leaves that XGBoost finds, written by XGBoost."""
    known, margin, renewed = ~np.isnan(label_N), np.full(label_N.size, 0.5), []
    weight, target = np.where(known, weight_N.astype(float), 0.0), np.where(known, label_N.astype(float), 0.5)
    for block in blocks:
        booster = load_booster(block).booster
        leaf_NT = booster.predict(xgb.DMatrix(values.T), pred_leaf=True, validate_features=False).astype(int)
        model = json.loads(bytes(booster.save_raw("json")))
        trees = model["learner"]["gradient_booster"]["model"]["trees"]
        for leaf_N, tree in zip(leaf_NT.T, trees, strict=True):
            old = np.array(tree["split_conditions"])
            gradient = np.bincount(leaf_N, weight * (margin - target), minlength=old.size)
            mass = np.bincount(leaf_N, weight, minlength=old.size)
            best = -PARAMS["eta"] * gradient / (mass + 1.0 + (mass == 0))
            value = np.where(mass > 0, keep * old + (1 - keep) * best, old).astype(np.float32).astype(float)
            tree["split_conditions"] = value.tolist()
            margin += value[leaf_N]
        changed = xgb.Booster(model_file=bytearray(json.dumps(model).encode()))
        renewed.append(bytes(changed.save_raw("ubj")))
    return tuple(renewed)


def test_renewed_models_are_those_of_the_leaves_that_xgboost_finds(values: np.ndarray) -> None:
    """To the byte, for models of one and of two blocks at once, one of them without a label, on rows of a window.

    The leaves are those that predict a row: bins of the window would misplace one of a hundred rows of floats.
    """
    rng = np.random.default_rng(3)
    matrix, label = quantile_matrix(_table(values), PARAMS), _label(values, 5)
    first = fit(matrix, label, None, trees=60, params=PARAMS, seed=1)
    margin = load_booster(first).inplace_predict(values.T)
    second = fit(matrix, label, None, trees=6, params=PARAMS, seed=2, margin_N=margin)
    window, weight = values[:, 700:1500].copy(), rng.random(800).astype(np.float32)
    if window.dtype == np.float32:
        window += rng.normal(0, 0.01, window.shape).astype(np.float32)
    new = np.stack([_label(window, seed) for seed in (6, 7, 8)])
    new[0, rng.random(800) < 0.2], new[1] = np.nan, np.nan
    found = refresh([[first, second], [first], [second]], window, new, weight, params=PARAMS, keep=0.7, kernels=cpu)
    assert found[0] == _by_xgboost([first, second], window, new[0], weight, 0.7)
    assert found[1] == (first,)
    assert found[2] == _by_xgboost([second], window, new[2], weight, 0.7)


@pytest.mark.skipif(
    Version(xgb.__version__) >= Version("3.4"), reason="XGBoost 3.4 has another value for the first bin"
)
@pytest.mark.parametrize("dtype", ["int8", "float32"])
def test_runs_of_the_first_edition_look_for_leaves_among_bins(dtype: str, tmp_path: Path) -> None:
    store = ingest(Dataset.make(floats=dtype == "float32").write(tmp_path / "data"), tmp_path / "store")
    features, prepare = Features.open(store.path, PrepareConfig()), PrepareConfig()
    learner = XGBoost(resolve_params({"max_depth": 6}, "cpu")[0])
    spec = ModelSpec("all", "g", "target", 0, store.columns)
    matrix = learner.matrix(features.table(store.columns, 1, 6))
    trees = load_booster(learner.fit(matrix, features.labels("target", 1, 6), None, trees=30, seed=1)).booster
    task = RefreshTask(
        store=store.path, prepare=prepare, specs=(spec,), models=(), first=7, last=9, hidden={}, half_life=0.0,
        learner=learner, seeds=(0,), keep=0.5,
    )  # fmt: skip
    table = features.table(store.columns, 7, 9)
    leaf_NT = [
        trees.predict(xgb.DMatrix(rows.values(features, CpuBackend()).T), pred_leaf=True, validate_features=False)
        for rows in (task, dataclasses.replace(task, binned=True))
    ]
    exact_NT = trees.predict(xgb.DMatrix(table), pred_leaf=True, validate_features=False)
    np.testing.assert_array_equal(leaf_NT[0], exact_NT)
    np.testing.assert_array_equal(leaf_NT[1], trees.predict(quantile_matrix(table, learner.params), pred_leaf=True))
    assert (leaf_NT[0] != leaf_NT[1]).any() == (dtype == "float32")


def test_the_edition_of_a_run_decides_how_leaves_are_looked_for() -> None:
    assert update_constants(parse_config({"edition": 1}).loop)["binned"]
    assert not update_constants(parse_config({}).loop)


@pytest.mark.parametrize("weighted", [False, True])
def test_refreshed_leaves_are_those_of_the_updater(values: np.ndarray, weighted: bool) -> None:
    """With nothing kept, the leaves are what XGBoost's refresh updater computes on a plain DMatrix."""
    old, new = _label(values, 5), _label(values, 6)
    weight = np.random.default_rng(7).random(ROWS).astype(np.float32) if weighted else None
    matrix = quantile_matrix(_table(values), PARAMS)
    first = fit(matrix, old, None, trees=12, params=PARAMS, seed=1)
    second = fit(
        matrix, old, None, trees=6, params=PARAMS, seed=2, margin_N=load_booster(first).inplace_predict(values.T)
    )
    names = [f"f{n}" for n in range(COLUMNS)]
    # A plain DMatrix sketches its own cuts, so that the trees come from the quantile matrix; only leaves are compared.
    plain = xgb.QuantileDMatrix(_table(values), old, ref=matrix, max_bin=PARAMS["max_bin"])
    whole = xgb.train({**PARAMS, "seed": 2}, plain, 6, xgb_model=load_booster(first).booster)
    updater = {**PARAMS, "process_type": "update", "updater": "refresh", "refresh_leaf": True}
    updater.pop("tree_method")
    rows = xgb.DMatrix(values.T, new, weight=weight, feature_names=names)
    expected = xgb.train(updater, rows, 18, xgb_model=whole)
    blocks = _renewed([first, second], values, new, weight, keep=0.0)
    found = full_margin([load_booster(block) for block in blocks], values)
    np.testing.assert_allclose(found, expected.inplace_predict(values.T), atol=2e-6)


def test_kept_leaves_are_a_blend_and_untouched_ones_stay(values: np.ndarray) -> None:
    matrix = quantile_matrix(_table(values), PARAMS)
    block = fit(matrix, _label(values, 8), None, trees=1, params=PARAMS, seed=1)
    new, leaf = _label(values, 9), load_booster(block).predict(matrix, pred_leaf=True).ravel()
    new[leaf == leaf[0]] = np.nan
    whole, none, half = (_renewed([block], values, new, keep=keep)[0] for keep in (0.0, 1.0, 0.5))
    assert _renewed([block], values, np.full_like(new, np.nan), keep=0.0) == (block,)
    before = load_booster(block).inplace_predict(values.T)
    np.testing.assert_array_equal(load_booster(none).inplace_predict(values.T), before)
    after, mixed = (load_booster(b).inplace_predict(values.T) for b in (whole, half))
    np.testing.assert_allclose(mixed, (before + after) / 2, atol=1e-6)
    touched = np.isin(leaf, leaf[~np.isnan(new)])
    assert (~touched).any()
    np.testing.assert_array_equal(after[~touched], before[~touched])
    assert np.abs(after[touched] - before[touched]).max() > 1e-3


ERAS, LOOP_START = 60, 40
SETTINGS = {
    "data": {"feature_sets": ["all"], "horizon_eras": 4},
    "time": {"loop_start": LOOP_START},
    "zoo": {"learner": "xgboost", "trees": 4, "fold_eras": 10, "minimum_eras": 2, "params": {"max_depth": 2}},
    "loop": {
        "half_life": 0.0,
        "every": 6,
        "append_trees": 2,
        "leaves_every": 2,
    },
    "compute": {"device": "cpu", "workers": 1},
}


@dataclasses.dataclass(frozen=True)
class Bench:
    store: Path
    features: Features
    timeline: Timeline
    config: RunConfig
    specs: tuple[ModelSpec, ...]

    def updater(self, known_at: Mapping[int, int] | None = None, **loop: object) -> Updater:
        config = dataclasses.replace(self.config, loop=dataclasses.replace(self.config.loop, **loop))  # type: ignore[arg-type]
        known = KnownAt({"target": dict(known_at or {})})
        few = {"append_eras": 12, "most_blocks": 3, "leaves_half_life": 4.0}
        return Updater(self.store, config, self.timeline, self.zoo, known, **few)  # type: ignore[arg-type]

    @property
    def zoo(self) -> Zoo:
        return Zoo(self.store, self.config, self.timeline, xgboost_device="cpu", cache=None)

    def start(self) -> dict[str, Model]:
        return {name: Model(trees) for name, trees in start_models(self.zoo, self.specs, LOOP_START).items()}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    out = tmp_path_factory.mktemp("bench")
    data = synthesise(
        out / "data",
        SynthConfig(main_target="target_ender_20", eras=ERAS, rows=60, features=10, groups=2, seed=2, snr=0.5),
    )
    store, config = ingest(data, out / "store"), parse_config(SETTINGS)
    timeline = plan_timeline(config, store.index, ERAS - 5)
    specs = tuple(ModelSpec("all", f"g{n}", "target", n, store.columns[n : n + 6]) for n in range(2))
    return Bench(out / "store", Features.open(out / "store", config.prepare), timeline, config, specs)


def test_updates_are_due_on_schedule(bench: Bench) -> None:
    def due(update: str) -> list[tuple[int, str]]:
        updater = bench.updater(update=update)
        return [(era, kind) for era in range(LOOP_START, LOOP_START + 13) if (kind := updater.due(era))]

    assert due("none") == []
    assert due("refit") == [(46, "refit"), (52, "refit")]
    assert due("append") == [(46, "append"), (52, "append")]
    assert due("leaves") == [(era, "leaves") for era in range(42, 53, 2)]
    assert due("refit+leaves") == [
        (42, "leaves"), (44, "leaves"), (46, "refit"), (48, "leaves"), (50, "leaves"), (52, "refit"),
    ]  # fmt: skip


def test_an_append_is_a_block_on_the_window_that_trees_may_see(bench: Bench) -> None:
    start, era, lag = bench.start(), 52, 9
    found = bench.updater(update="append").update(bench.specs, start, era)
    for spec in bench.specs:
        first, last = era - lag - 11, era - lag
        values = np.concatenate([bench.features.era(e, spec.columns).values for e in range(first, last + 1)], axis=1)
        label = bench.features.labels("target", first, last)
        margin = load_booster(start[spec.model_id].trees.blocks[0]).inplace_predict(values.T)
        matrix = xgb.QuantileDMatrix(values.T, label, base_margin=margin)
        seed = derive_seed(0, spec.model_id, "append", era)
        expected = xgb.train({**bench.zoo.learner.params, "base_score": 0.0, "seed": seed}, matrix, 2)
        model = found[spec.model_id]
        assert len(model.trees.blocks) == 2
        total = load_booster(bytes(expected.save_raw("ubj"))).margin(values, margin)
        np.testing.assert_allclose(model.margins.joined(), total, atol=1e-6)


@pytest.mark.parametrize("window", [0, 5, 100])
def test_eras_before_a_window_leave_out_the_purge_and_what_may_have_seen_them(window: int, bench: Bench) -> None:
    bench = dataclasses.replace(
        bench, config=dataclasses.replace(bench.config, zoo=dataclasses.replace(bench.config.zoo, window=window))
    )
    updater, spec = bench.updater(update="refit"), bench.specs[0]
    newest = 52 - 9 - window - 8  # the tree lag, the window, the purge
    wanted = {0: [], 5: [*range(newest - 19, newest + 1)], 100: [*range(1 - 8 - 400, 1 - 8)]}[window]
    assert [*updater.eras_before(spec, 52)] == wanted
    assert not updater.eras_before(dataclasses.replace(spec, residual=0.5), 52)
    assert not updater.eras_before(dataclasses.replace(spec, feature_set=OUTSIDE), 52)


@pytest.mark.parametrize("half_life", [0.0, 5.0])
def test_a_refit_weighs_its_eras(half_life: float, bench: Bench) -> None:
    first = bench.timeline.first_era
    found = bench.updater(update="refit", half_life=half_life).update(bench.specs, bench.start(), 46)
    for spec in bench.specs:
        eras = np.repeat(np.arange(first, 38), [len(bench.features.ids(era, era)) for era in range(first, 38)])
        values = np.concatenate([bench.features.era(e, spec.columns).values for e in range(first, 38)], axis=1)
        weight = 0.5 ** ((37 - eras) / half_life) if half_life else np.ones(eras.size)
        matrix = xgb.QuantileDMatrix(values.T, bench.features.labels("target", first, 37), weight=weight)
        expected = xgb.train({**bench.zoo.learner.params, "seed": derive_seed(0, spec.model_id, 37)}, matrix, 4)
        np.testing.assert_allclose(
            found[spec.model_id].trees.boosters()[0].inplace_predict(values.T),
            expected.inplace_predict(values.T),
            atol=1e-6,
        )


def test_appended_blocks_beyond_the_cap_are_dropped_and_margins_follow(bench: Bench) -> None:
    updater, models = bench.updater(update="append"), bench.start()
    for era in range(46, 90, 6):
        models = updater.update(bench.specs, models, min(era, 64))
    for spec in bench.specs:
        model = models[spec.model_id]
        assert model.trees.rounds == 4 + 3 * 2
        boosters = model.trees.boosters()
        for era, margin in model.margins.by_era.items():
            expected = full_margin(boosters, bench.features.era(era, spec.columns).values)
            np.testing.assert_allclose(margin, expected, atol=1e-5)


def test_leaves_follow_the_newest_eras_alone(bench: Bench) -> None:
    start, era = bench.start(), 50
    found = bench.updater(update="leaves").update(bench.specs, start, era)
    for spec in bench.specs:
        values = bench.features.values(spec.columns, 40, 41)  # two new eras, nine back
        label, blocks = bench.features.labels("target", 40, 41), start[spec.model_id].trees.blocks
        expected = _renewed(blocks, values, label, params=bench.zoo.learner.params, keep=2**-0.5)
        assert found[spec.model_id].trees.blocks == expected
        assert found[spec.model_id].trees.blocks != blocks


def test_only_the_models_that_are_awake_change(bench: Bench) -> None:
    for update, era in (("refit", 46), ("append", 46), ("leaves", 46)):
        start = bench.start()
        found = bench.updater(update=update).update(bench.specs[:1], start, era)
        assert found[bench.specs[0].model_id] != start[bench.specs[0].model_id]
        assert found[bench.specs[1].model_id] is start[bench.specs[1].model_id]


@pytest.mark.parametrize(("update", "era"), [("refit", 52), ("append", 52), ("leaves", 52)])
def test_a_label_that_came_late_is_not_seen_before(update: str, era: int, bench: Bench, tmp_path: Path) -> None:
    """A late label that is hidden is the same as a label that is not in the file at all."""
    late, start = 43, bench.start()
    hidden = bench.updater(update=update, known_at={late: era + 1}).update(bench.specs, start, era)
    seen = bench.updater(update=update, known_at={late: era}).update(bench.specs, start, era)
    absent = Features.labels

    def without(self: Features, target: str, first: int, last: int, **options: object) -> np.ndarray:
        label = absent(self, target, first, last, **options)  # type: ignore[arg-type]
        return np.where(self.era_of_rows(first, last) == late, np.float32(np.nan), label)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Features, "labels", without)
        expected = bench.updater(update=update).update(bench.specs, start, era)
    for spec in bench.specs:
        name = spec.model_id
        assert hidden[name].trees == expected[name].trees
        assert hidden[name].trees != seen[name].trees


def test_updates_repeat_to_the_byte(bench: Bench) -> None:
    for update in ("refit", "append", "leaves"):
        first, second = (bench.updater(update=update).update(bench.specs, bench.start(), 52) for _ in range(2))
        for name, model in first.items():
            assert model.trees == second[name].trees
            assert model.margins.to_bytes() == second[name].margins.to_bytes()


@pytest.mark.parametrize("params", [{"objective": "reg:absoluteerror"}, {"alpha": 1.0}, {"max_delta_step": 0.7}])
def test_what_leaves_cannot_follow_is_refused(params: dict[str, object], bench: Bench) -> None:
    config = parse_config(
        {**SETTINGS, "zoo": {**SETTINGS["zoo"], "params": params}, "loop": {"update": "refit+leaves"}}  # type: ignore[dict-item]
    )
    zoo = Zoo(bench.store, config, bench.timeline, xgboost_device="cpu", cache=None)
    with pytest.raises(ConfigError, match=next(iter(params))):
        Updater(bench.store, config, bench.timeline, zoo)


def test_margins_survive_the_disk() -> None:
    margins = Margins({11: np.array([0.5, 0.25], np.float32), 9: np.array([1.0], np.float32)})
    again = Margins.from_bytes(margins.to_bytes())
    assert json.dumps({era: values.tolist() for era, values in sorted(again.by_era.items())}) == (
        '{"9": [1.0], "11": [0.5, 0.25]}'
    )
    assert again.joined().tolist() == [1.0, 0.5, 0.25]


def test_other_learners_are_refitted_alone(bench: Bench) -> None:
    pytest.importorskip("lightgbm", reason="needs LightGBM")
    settings = {**SETTINGS, "zoo": {**SETTINGS["zoo"], "learner": "lightgbm", "params": {}}}  # type: ignore[dict-item]
    config = parse_config(settings)
    zoo = Zoo(bench.store, config, bench.timeline, xgboost_device="cpu", cache=None)
    updater = Updater(bench.store, config, bench.timeline, zoo)
    assert config.loop.update == "refit+leaves"
    assert [updater.due(era) for era in range(LOOP_START + 1, LOOP_START + 7)] == ["", "", "", "", "", "refit"]
    for update in ("append", "leaves"):
        changed = dataclasses.replace(config, loop=dataclasses.replace(config.loop, update=update))
        with pytest.raises(ConfigError, match="needs zoo"):
            Updater(bench.store, changed, bench.timeline, zoo)


class _StopAfter:
    """Ends training after it was asked a number of times."""

    def __init__(self, times: int) -> None:
        self.left = times

    def is_set(self) -> bool:
        self.left -= 1
        return self.left < 0


@pytest.mark.parametrize("times", [0, 2])
def test_re_estimating_leaves_ends_between_trees(
    values: np.ndarray, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    matrix, label = quantile_matrix(_table(values), PARAMS), _label(values, 2)
    block = fit(matrix, label, None, trees=5, params=PARAMS, seed=1)
    whole = _renewed([block], values, label, keep=0.5)
    monkeypatch.setattr(module, "TREES_AT_ONCE", 2)
    stop = _StopAfter(times)
    with pytest.raises(TrainingInterruptedError, match="interrupted"):
        _renewed([block], values, label, keep=0.5, stop=stop)
    assert stop.left == -1
    assert _renewed([block], values, label, keep=0.5, stop=_StopAfter(3)) == whole

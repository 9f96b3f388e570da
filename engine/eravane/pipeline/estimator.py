"""The method as a scikit-learn estimator: a zoo on column groups, selected, gated and weighted era by era."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils import Tags, check_array, check_random_state, column_or_1d
from sklearn.utils.validation import check_is_fitted, validate_data

from eravane.calendar.clock import Clock
from eravane.calendar.eras import EraFrame, era_numbers
from eravane.calendar.folds import Fold
from eravane.calendar.horizon import Horizon
from eravane.calendar.splitters import WalkForwardSplit
from eravane.core.arrays import Bools, Float32s, Floats, Named, Values
from eravane.core.config import GateConfig, RunConfig, parse_config
from eravane.core.errors import LayoutError, RunError
from eravane.core.memory import cores
from eravane.core.seeds import derive_seed
from eravane.data.catalog import WHOLE_SET
from eravane.data.panel import Panel, column_groups, plain_table
from eravane.gate.context import ContextBuilder
from eravane.gate.gate import MetaLearner
from eravane.learners.choice import resolve_learner
from eravane.learners.protocol import INTERCEPT
from eravane.learners.registry import Trees, make_learner, predict
from eravane.loop.decision import decide
from eravane.loop.loop import Pending, outcome_of
from eravane.loop.pool import gate_pool
from eravane.scoring.by_era import corr_by_era
from eravane.scoring.ensemble import combine, gaussianize, one_era, to_prediction
from eravane.scoring.metrics import summarise
from eravane.zoo.executor import run_tasks
from eravane.zoo.fleet import TaskControl
from eravane.zoo.oof import correlation
from eravane.zoo.selection import Verdict, select
from eravane.zoo.specs import ModelSpec
from eravane.zoo.training import era_weights
from eravane_kernels import cpu

COLUMNS = "columns"  # the feature set in the names of base models
OutOfFoldEra = tuple[int, NDArray[np.float32], NDArray[np.float32]]
"""An era, its base predictions [M, N] and its labels [N]."""


class EraGatedRegressor(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Boosted trees on groups of columns, of which a meta-learner decides per era which run and with what weight.

    `fit(X, y, eras=...)` trains every base model in purged walk-forward folds, selects by out-of-fold CORR, trains the
    gate on the out-of-fold history and then fits the selected models on all rows. `predict(X, eras=...)` gives ranks
    in (0, 1) within each era. Without eras in `fit` every model is kept at equal weight; without eras in `predict` the
    result is the models' mean under the fixed `weights_`, in the units of y and unranked.

    The gate decides every predicted era with what was known at the end of `fit`: leave at least the purge between the
    rows that are fitted and those that are predicted (`WalkForwardSplit` does).

    Args:
        groups: name -> column names or positions, or into how many contiguous blocks the columns are cut; a model on
            all columns is always there.
        target: target column that y holds; its suffix (_20, _60) gives the lags.
        horizon_eras: eras that a label spans (4 for 20 days, 12 for 60); `fit` with eras asks for it where the name
            does not give it.
        trees, params, seeds, half_life: as in [zoo] of a configuration.
        folds, fold_eras, minimum_eras: as in [zoo]; fold_eras 0 cuts the eras into equal parts of at most 156.
        selection, gate: keys of the sections [selection] and [gate] that differ from their defaults.
        n_jobs: models trained at once, None means 1, -1 all cores, -2 all but one.
        random_state: seed, or a source of one.

    Attributes:
        models_: model id -> trees of the selected models.
        weights_: float64 [M], the fixed weights: equal over the selected models, the prior of the gate.
        verdicts_: out-of-fold scores of every base model, kept or not and why; empty without eras.
        feature_names_in_, n_features_in_: as in every scikit-learn estimator.
    """

    def __init__(
        self,
        groups: Mapping[str, Sequence[str | int]] | int = 4,
        *,
        target: str = "target",
        horizon_eras: int = 0,
        trees: int = 200,
        params: Mapping[str, object] | None = None,
        seeds: int = 1,
        half_life: float = 0.0,
        folds: int = 4,
        fold_eras: int = 0,
        minimum_eras: int = 20,
        selection: Mapping[str, object] | None = None,
        gate: Mapping[str, object] | None = None,
        n_jobs: int | None = None,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.groups, self.target, self.horizon_eras = groups, target, horizon_eras
        self.trees, self.params, self.seeds, self.half_life = trees, params, seeds, half_life
        self.folds, self.fold_eras, self.minimum_eras = folds, fold_eras, minimum_eras
        self.selection, self.gate = selection, gate
        self.n_jobs, self.random_state = n_jobs, random_state

    def fit(self, X: Any, y: Any, eras: Any = None) -> EraGatedRegressor:
        """Fit base models, and with eras selection and gate.

        Args:
            X: rows x columns: pandas, polars, Arrow or NumPy; NaN is a missing value.
            y: target per row; NaN where the label is not known.
            eras: era of every row, integers or labels such as "0001"; rows may come in any order.

        Raises:
            ConfigError: a parameter is out of bounds, the labels' horizon is not known, or the eras are too few for one
                fold.
            DataError: eras that are no eras.
            ValueError: X and y are no numbers, or differ in length; n_jobs is 0.
        """
        x_NC = validate_data(self, plain_table(X), ensure_all_finite="allow-nan")
        y_N = _labels(y, x_NC.shape[0])
        config = self._config()
        era_N = np.zeros(len(y_N), dtype=np.int64) if eras is None else era_numbers(eras, len(y_N))
        panel = Panel.of(x_NC, self._columns(), era_N)
        # Trees start from a fixed intercept, so labels are centred on it; CORR does not see the shift.
        self._center = float(np.nanmean(y_N))
        label_N = (y_N[panel.order_N] - self._center + INTERCEPT).astype(np.float32)
        grower = Grower(panel.frame, label_N, config, self._workers())
        specs = self._specs(config)
        self.verdicts_: tuple[Verdict, ...] = ()
        self._gate_state: tuple[Named, dict[str, Any]] | None = None
        if eras is not None:
            specs = self._learn_gate(grower, specs, config)
        blocks = grower.final(specs)
        self._selected = tuple(specs)
        self.models_ = {spec.model_id: Trees((blocks[spec.model_id],), spec.columns) for spec in specs}
        self.weights_ = np.full(len(specs), 1.0 / len(specs))
        return self

    def predict(self, X: Any, eras: Any = None) -> Floats:
        """Predict.

        Args:
            X: rows x columns, as in `fit`.
            eras: era of every row, "X" for live rows; every era should be there as a whole, since its rows are ranked
                among themselves.

        Returns:
            float64 [N]: with eras ranks in (0, 1) within each era, without them values in the units of y.

        Raises:
            NotFittedError: `fit` was not called.
            DataError: eras that are no eras.
        """
        check_is_fitted(self)
        x_NC = validate_data(self, plain_table(X), ensure_all_finite="allow-nan", reset=False)
        if eras is None:
            frame = Panel.of(x_NC, self._columns(), np.zeros(x_NC.shape[0], dtype=np.int64)).frame
            raw_MN = _evaluate(frame, self._selected, self.models_, np.ones(len(self._selected), dtype=bool))
            return np.asarray(self.weights_ @ raw_MN.astype(np.float64) - INTERCEPT + self._center)
        panel = Panel.of(x_NC, self._columns(), era_numbers(eras, x_NC.shape[0], live=True))
        try:
            gate = None if self._gate_state is None else MetaLearner.restore(*self._gate_state)
        except LayoutError as error:
            raise RunError(f"the estimator was pickled by another eravane: this one {error}; fit it again") from None
        parts = [self._predict_era(panel.frame.era(era), gate) for era in panel.frame.index]
        return panel.back(np.concatenate(parts))

    def score(self, X: Any, y: Any, sample_weight: Any = None, eras: Any = None) -> float:
        """Mean CORR over eras; without eras the coefficient of determination of the unranked prediction.

        Raises:
            ValueError: row weights together with eras.
        """
        if eras is None:
            return float(super().score(X, y, sample_weight))
        if sample_weight is not None:
            raise ValueError("CORR by era takes no sample_weight; leave out eras or the weights")
        return summarise(corr_by_era(_labels(y, None), self.predict(X, eras), eras)).corr_mean

    def __sklearn_tags__(self) -> Tags:
        """Missing values are welcome."""
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    def _config(self) -> RunConfig:
        zoo = {
            "trees": self.trees,
            "params": dict(self.params or {}),
            "seeds": self.seeds,
            "half_life": float(self.half_life),
            "folds": self.folds,
            "minimum_eras": self.minimum_eras,
        }
        sections = {"zoo": zoo, "selection": dict(self.selection or {}), "gate": dict(self.gate or {})}
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        return parse_config({"seed": seed, **sections}, "EraGatedRegressor")

    def _workers(self) -> int:
        if self.n_jobs == 0:
            raise ValueError(
                "n_jobs is how many models are trained at once, or below 0 how many cores are left; given 0"
            )
        count = 1 if self.n_jobs is None else self.n_jobs
        return count if count > 0 else max(1, cores() + 1 + count)

    def _columns(self) -> tuple[str, ...]:
        names = getattr(self, "feature_names_in_", None)
        return tuple(f"x{place}" for place in range(self.n_features_in_)) if names is None else tuple(map(str, names))

    def _specs(self, config: RunConfig) -> list[ModelSpec]:
        columns = self._columns()
        cells = {WHOLE_SET: columns, **column_groups(self.groups, columns)}
        return [
            ModelSpec(COLUMNS, group, self.target, seed, members)
            for group, members in cells.items()
            for seed in range(config.zoo.seeds)
        ]

    def _learn_gate(self, grower: Grower, specs: list[ModelSpec], config: RunConfig) -> list[ModelSpec]:
        """Select by out-of-fold scores, train the gate on the history, and store its state; returns the selected."""
        clock = Clock.of(Horizon.required(self.target, self.horizon_eras, "give horizon_eras"))
        splitter = WalkForwardSplit(
            self.folds, chunk=self.fold_eras, purge=clock.purge, minimum=config.zoo.minimum_eras
        )
        history = grower.out_of_fold(specs, splitter.folds(grower.known_eras()))
        scores_ME = np.stack([cpu.numerai_corr(base_MN, y_N, one_era(y_N.size))[:, 0] for _, base_MN, y_N in history]).T
        similarity_MM = np.mean(
            [
                correlation(cpu.gram(gaussianize(base_MN, cpu), one_era(base_MN.shape[1]))[0])
                for _, base_MN, _ in history
            ],
            axis=0,
        )
        self.verdicts_ = tuple(select(specs, scores_ME, similarity_MM, config.selection, clock.hac_lag))
        chosen = [m for m, verdict in enumerate(self.verdicts_) if verdict.selected]
        kept = [specs[m] for m in chosen]
        seed = derive_seed(config.seed, "gate")
        pool, _ = gate_pool(kept, grower.frame.columns)
        gate = MetaLearner(config.gate, pool, lag=clock.score_lag, horizon=clock.span.eras, seed=seed)
        context = _context(kept, grower.frame.columns, config.gate)
        for era, base_MN, y_N in history:
            facts = context.facts(grower.frame.era(era).values, era)
            gate.observe(outcome_of(Pending(era, base_MN[chosen], facts), y_N, cpu))
        self._decision_era = history[-1][0] + clock.score_lag
        gate.learn(self._decision_era)
        self._gate_state, self._gate_config = gate.state(), config.gate
        return kept

    def _predict_era(self, frame: EraFrame, gate: MetaLearner | None) -> Floats:
        specs, everyone = self._selected, np.ones(len(self._selected), dtype=bool)
        if gate is None:
            raw_MN = _evaluate(frame, specs, self.models_, everyone)
            return to_prediction(combine(gaussianize(raw_MN, cpu), self.weights_, cpu), cpu)
        facts = _context(specs, frame.columns, self._gate_config).facts(frame.values, frame.index.first)

        def evaluate(which_M: Bools) -> Float32s:
            return _evaluate(frame, specs, self.models_, which_M)

        return to_prediction(decide(gate, self._decision_era, facts, evaluate, cpu).mixed_N, cpu)


@dataclass(frozen=True)
class _Task:
    """One model to grow on rows of the frame, and the rows it predicts."""

    spec: ModelSpec
    train: slice
    newest: int
    predict: slice


class Grower:
    """Grows base models on rows in memory.

    Args:
        frame: all rows, in era order.
        label_N: float32 [N], centred on the trees' intercept, NaN where unknown.
        config: [zoo] and seed.
        workers: models at once (0: one per core).
    """

    def __init__(self, frame: EraFrame, label_N: NDArray[np.float32], config: RunConfig, workers: int) -> None:
        self.frame, self._label_N, self._workers = frame, label_N, workers
        self._config, _ = resolve_learner(config, str(frame.values.dtype))
        self._learner, _ = make_learner(self._config.zoo, "cpu")
        self._era_N = frame.index.per_row()

    def known_eras(self) -> NDArray[np.int64]:
        """Era of every row that has a label."""
        return self._era_N[~np.isnan(self._label_N)]

    def out_of_fold(self, specs: Sequence[ModelSpec], folds: Sequence[Fold]) -> list[OutOfFoldEra]:
        """Out-of-fold predictions of every era that has labels, oldest first."""
        span = self.frame.index.span
        tasks = [
            _Task(
                spec,
                span(fold.train_first, fold.train_last),
                fold.train_last,
                span(fold.predict_first, fold.predict_last),
            )
            for fold in folds
            for spec in specs
        ]
        places = {spec.model_id: m for m, spec in enumerate(specs)}
        base_MN = np.full((len(specs), self.frame.index.rows), np.nan, dtype=np.float32)
        for task, (_, predicted_N) in run_tasks(self._grow, tasks, workers=self._workers):
            base_MN[places[task.spec.model_id], task.predict] = predicted_N
        history: list[OutOfFoldEra] = []
        for era in self.frame.index.select(folds[0].predict_first, folds[-1].predict_last):
            rows = self.frame.index.rows_of(era)
            if not np.isnan(self._label_N[rows]).all():
                history.append((era, base_MN[:, rows], self._label_N[rows]))
        return history

    def final(self, specs: Sequence[ModelSpec]) -> dict[str, bytes]:
        """Boosters fitted on all rows that have labels."""
        index = self.frame.index
        tasks = [_Task(spec, slice(0, index.rows), index.last, slice(0, 0)) for spec in specs]
        return {task.spec.model_id: block for task, (block, _) in run_tasks(self._grow, tasks, workers=self._workers)}

    def _grow(self, task: _Task, control: TaskControl) -> tuple[bytes, NDArray[np.float32]]:
        zoo, spec, rows = self._config.zoo, task.spec, task.train
        values_CN = self.frame.values[self.frame.positions(spec.columns)]
        # XGBoost refuses some characters in names; columns are identified by position.
        table = pa.table({f"f{place}": pa.array(values_N[rows]) for place, values_N in enumerate(values_CN)})
        block = self._learner.fit(
            self._learner.matrix(table),
            self._label_N[rows],
            era_weights(self._era_N[rows], task.newest, zoo.half_life),
            trees=zoo.trees,
            seed=derive_seed(self._config.seed, spec.model_id, task.newest),
            stop=control,
        )
        if task.predict.start == task.predict.stop:
            return block, np.zeros(0, dtype=np.float32)
        boosters = Trees((block,), spec.columns).boosters()
        return block, predict(boosters, cast(Values, np.ascontiguousarray(values_CN[:, task.predict])))


def _evaluate(
    frame: EraFrame, specs: Sequence[ModelSpec], models: Mapping[str, Trees], which_M: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Raw predictions [M, N] of some models, NaN for the others."""
    base_MN = np.full((len(specs), frame.index.rows), np.nan, dtype=np.float32)
    for m, spec in enumerate(specs):
        if which_M[m]:
            base_MN[m] = predict(models[spec.model_id].boosters(), frame.values[frame.positions(spec.columns)])
    return base_MN


def _labels(y: object, rows: int | None) -> Floats:
    """Targets as float64 [N], NaN where unknown.

    Raises:
        ValueError: y is missing, has another length than X, or holds no finite number.
    """
    if y is None:
        raise ValueError("EraGatedRegressor requires y to be passed, but the target y is None")
    y_N: Floats = check_array(
        column_or_1d(y, warn=True), ensure_2d=False, ensure_all_finite="allow-nan", dtype=np.float64, input_name="y"
    )
    if rows is not None and len(y_N) != rows:
        raise ValueError(f"Found input variables with inconsistent numbers of samples: {[rows, len(y_N)]}")
    if np.isnan(y_N).all():
        raise ValueError("every label in y is missing; there is nothing to learn from")
    return y_N


def _context(specs: Sequence[ModelSpec], columns: Sequence[str], config: GateConfig) -> ContextBuilder:
    return ContextBuilder(*gate_pool(specs, columns), cpu, config)

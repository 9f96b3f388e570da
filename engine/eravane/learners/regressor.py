"""The level grower as a scikit-learn estimator that stands in for XGBRegressor and LGBMRegressor."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xgboost as xgb
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted, validate_data

from eravane.core.arrays import Floats
from eravane.core.errors import ConfigError, DataError
from eravane.learners.earlier import Earlier
from eravane.learners.fitting import Fitted, fit_levels
from eravane.learners.frames import Frame, frame_of, is_files, is_table, plain, read_columns
from eravane.learners.histogram import fit_histogram
from eravane.learners.labels import labels_of, weights_of
from eravane.learners.levelinput import NotLevelsError
from eravane.learners.settings import NotGrownError, check, settings_of


class KindError(DataError, TypeError):
    """Rows of a kind that is not taken, such as sparse ones; scikit-learn expects a TypeError."""


class LevelsRegressor(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """XGBoost's trees on features of few levels, in a fraction of XGBoost's and LightGBM's time.

    Stands in for `xgboost.XGBRegressor` and `lightgbm.LGBMRegressor`: parameters have XGBoost's names and defaults,
    LightGBM's names are understood, and `get_booster()` is an `xgboost.Booster`. Trees are those of XGBoost's `hist`;
    which columns and rows they draw differs.

    A column of at most five distinct values is a column of levels; others, and parameters that the level grower lacks,
    are left to XGBoost's `hist` with one warning, or with `strict` refused.

    Args:
        n_estimators: trees (of each target).
        max_depth: levels of a tree, 1 to 12; None: 6, or as many as `num_leaves` needs.
        learning_rate, colsample_bytree, subsample, min_child_weight, reg_lambda, reg_alpha, gamma: as XGBoost's.
        objective: "reg:squarederror", "binary:logistic", "reg:logistic", or a function of labels and predictions that
            returns gradients and Hessians; others are left to XGBoost.
        random_state: seed of the columns and rows that are drawn; None is 0.
        n_jobs: threads; None or -1: one per core. No result depends on it.
        early_stopping_rounds: growing ends when the last metric of the last set was not better for so many rounds.
        eval_metric: name, function or a list of these: rmse, mse, mae, logloss, error, auc.
        callbacks: XGBoost's, which see a booster and may change the learning rate, or LightGBM's.
        missing: value that is missing beside NaN; None refuses NaN.
        base_score: intercept; None: the labels' mean.
        num_leaves, min_child_samples: LightGBM's: leaves alone give a depth, samples a least `min_child_weight`.
        device: "cpu", or "cuda" for a GPU.
        strict: refuse what the level grower cannot grow, instead of leaving it to XGBoost.
        kwargs: any other name that XGBoost or LightGBM has for these, and further parameters of XGBoost.

    Attributes:
        grower_: "levels", or "hist" where XGBoost grew the trees.
        best_iteration, best_score: the round that early stopping found, and its score.
        n_features_in_, feature_names_in_: as in scikit-learn.
    """

    def __init__(
        self,
        *,
        n_estimators: int = 100,
        max_depth: int | None = None,
        learning_rate: float = 0.3,
        colsample_bytree: float = 1.0,
        subsample: float = 1.0,
        min_child_weight: float = 1.0,
        reg_lambda: float = 1.0,
        reg_alpha: float = 0.0,
        gamma: float = 0.0,
        objective: Any = "reg:squarederror",
        random_state: Any = None,
        n_jobs: int | None = None,
        early_stopping_rounds: int | None = None,
        eval_metric: Any = None,
        callbacks: Any = None,
        missing: float | None = np.nan,
        base_score: float | None = None,
        num_leaves: int | None = None,
        min_child_samples: int | None = None,
        device: str = "cpu",
        strict: bool = False,
        **kwargs: Any,
    ) -> None:
        self.n_estimators, self.max_depth, self.learning_rate = n_estimators, max_depth, learning_rate
        self.colsample_bytree, self.subsample, self.min_child_weight = colsample_bytree, subsample, min_child_weight
        self.reg_lambda, self.reg_alpha, self.gamma = reg_lambda, reg_alpha, gamma
        self.objective, self.random_state, self.n_jobs = objective, random_state, n_jobs
        self.early_stopping_rounds, self.eval_metric, self.callbacks = early_stopping_rounds, eval_metric, callbacks
        self.missing, self.base_score = missing, base_score
        self.num_leaves, self.min_child_samples = num_leaves, min_child_samples
        self.device, self.strict = device, strict
        if kwargs:
            self.kwargs = kwargs

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Every parameter, those beyond the named ones too."""
        return {**super().get_params(deep), **getattr(self, "kwargs", {})}

    def set_params(self, **params: Any) -> LevelsRegressor:
        """Set parameters by name; names that are none of the named ones are kept with `kwargs`."""
        named = self._get_param_names()
        for name, value in params.items():
            if name in named:
                setattr(self, name, value)
            else:
                self.kwargs = {**getattr(self, "kwargs", {}), name: value}
        return self

    _fitted: Fitted
    _fitted_names: tuple[str, ...]

    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        eval_set: Sequence[tuple[Any, Any]] | None = None,
        sample_weight_eval_set: Sequence[Any] | None = None,
        eval_metric: Any = None,
        callbacks: Any = None,
        xgb_model: Any = None,
        verbose: bool | int = False,
    ) -> LevelsRegressor:
        """Grow the trees.

        Args:
            X: pandas, polars or Arrow table, NumPy array in either order, a window of an `EraStore`, or the path of a
                parquet file (or a list of paths), of which the columns that begin with "feature" are read.
            y: labels [N], or [N, K] for K targets that grow together; NaN rows are left out. Of files: names of
                columns.
            sample_weight: [N], 0 or more.
            eval_set: a pair of rows and labels, or a list of pairs, that are evaluated after every round.
            sample_weight_eval_set: their weights.
            eval_metric, callbacks: in place of those of the constructor.
            xgb_model: a booster, a fitted estimator or a file of a model, whose trees come before the new ones.
            verbose: True shows progress on a terminal, and elsewhere prints the metrics of every round; a number prints
                those of every so many rounds.

        Raises:
            DataError: X or y holds something that cannot be learned from; the column or row is named.
            ConfigError: a parameter is of the wrong type or outside its bounds.
            NotLevelsError: with `strict`, a column has more than five distinct values.
            NotGrownError: with `strict`, a parameter is one that the level grower lacks.
        """
        params = check(self.get_params(deep=False))
        params |= {
            name: value for name, value in (("eval_metric", eval_metric), ("callbacks", callbacks)) if value is not None
        }
        if not isinstance(verbose, bool | np.bool_ | int | np.integer):
            raise ConfigError(f"verbose: expected True, False or a number of rounds, given {verbose!r}")
        earlier = None if xgb_model is None else Earlier(xgb_model)
        self.__dict__.pop("_fitted", None)  # what fails leaves nothing that belongs to other columns
        frame, labels = self._read(X, y, reset=True)
        weight_N = weights_of(sample_weight, frame.rows, "sample_weight")
        sets = self._read_sets(eval_set, sample_weight_eval_set, labels.shape[1:])
        if earlier is not None:
            earlier.check(frame, 1 if labels.ndim == 1 else labels.shape[1])
        try:
            settings = settings_of(params)
            fitted = fit_levels(frame, labels, weight_N, sets, params, settings, earlier, verbose)
        except (NotLevelsError, NotGrownError) as error:
            if self.strict:
                raise
            warnings.warn(f"{error}: XGBoost's hist grows these trees instead; strict=True refuses", stacklevel=2)
            fitted = fit_histogram(frame, labels, weight_N, sets, params, earlier, verbose)
        self._fitted, self.grower_ = fitted, fitted.grower
        return self

    def predict(self, X: Any, *, output_margin: bool = False, iteration_range: tuple[int, int] | None = None) -> Floats:
        """Predict rows.

        Args:
            X: as in `fit`.
            output_margin: sums of the trees instead of probabilities, where the objective is logistic.
            iteration_range: first round, and the one after the last (None: up to the best one of early stopping).

        Returns:
            float64 [N], or [N, K] of several targets; values are XGBoost's float32.

        Raises:
            NotFittedError: `fit` was not called.
            ConfigError: the model has no such rounds.
        """
        check_is_fitted(self)
        frame, _ = self._read(X, None, reset=False)
        found: Floats = self._fitted.predict(frame, output_margin, iteration_range).astype(np.float64)
        return found

    def apply(self, X: Any, iteration_range: tuple[int, int] | None = None) -> NDArray[np.int32]:
        """The leaf in which each row ends in every tree, int32 [N, T]."""
        check_is_fitted(self)
        frame, _ = self._read(X, None, reset=False)
        begin, end = self._fitted.rounds(iteration_range)
        leaf_NT = self._fitted.booster.predict(self._fitted.matrix(frame), pred_leaf=True, iteration_range=(0, end))
        return np.asarray(leaf_NT).reshape(frame.rows, -1)[:, begin * self._fitted.targets :].astype(np.int32)

    def get_booster(self) -> xgb.Booster:
        """The model as XGBoost's own: for SHAP, export, or going on with XGBoost."""
        check_is_fitted(self)
        return self._fitted.booster

    def save_model(self, fname: str | Path) -> None:
        """Write the model as XGBoost does: JSON or UBJ by the ending of the name."""
        self.get_booster().save_model(fname)

    def load_model(self, fname: str | Path) -> None:
        """Take the trees of a model that XGBoost or `save_model` wrote; XGBoost predicts them.

        Raises:
            ConfigError: it is no model of XGBoost.
        """
        booster = Earlier(fname).booster
        self._fitted, self.grower_ = Fitted.of(booster, self.missing, self.n_jobs), "hist"
        self._fitted_names, self.n_features_in_ = tuple(booster.feature_names or ()), int(booster.num_features())
        if self._fitted_names:
            self.feature_names_in_ = np.array(self._fitted_names, dtype=object)

    def evals_result(self) -> Mapping[str, Mapping[str, list[float]]]:
        """Metrics of every round: set -> metric -> values.

        Raises:
            ConfigError: there was no `eval_set`.
        """
        check_is_fitted(self)
        if not self._fitted.history:
            raise ConfigError("there are no results: fit with eval_set")
        return self._fitted.history

    @property
    def evals_result_(self) -> Mapping[str, Mapping[str, list[float]]]:
        """As LightGBM names it."""
        return self.evals_result()

    @property
    def feature_importances_(self) -> NDArray[np.float32]:
        """Share of each feature, float32 [C], in what `importance_type` says: the mean gain of splits, as XGBoost's."""
        kind = check(self.get_params(deep=False))["importance_type"]
        score = self.get_booster().get_score(importance_type=kind)
        names = self.get_booster().feature_names or [f"f{place}" for place in range(self.n_features_in_)]
        found_C = np.array([score.get(name, 0.0) for name in names], dtype=np.float32)
        total = found_C.sum()
        return found_C / total if total > 0 else found_C

    @property
    def best_iteration(self) -> int:
        """The best round by the last metric of the last set of `eval_set`, from 0.

        Raises:
            AttributeError: there was no early stopping.
        """
        check_is_fitted(self)
        if self._fitted.best is None:
            raise AttributeError("best_iteration is known after fitting with early_stopping_rounds and eval_set")
        return self._fitted.best

    best_iteration_ = best_iteration

    @property
    def best_score(self) -> float:
        """The metric of that round."""
        self.best_iteration  # noqa: B018
        return self._fitted.score

    def __sklearn_tags__(self) -> Tags:
        """Missing values are welcome, and several targets."""
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = self.missing is not None
        tags.target_tags.multi_output = True
        tags.target_tags.single_output = True
        return tags

    def __sklearn_is_fitted__(self) -> bool:
        """Whether `fit` was called."""
        return hasattr(self, "_fitted")

    def _read(self, X: Any, y: Any, *, reset: bool, what: str = "X") -> tuple[Frame, NDArray[np.float32]]:
        """Rows, checked against those of fitting, and labels float32 [N] or [N, K]."""
        named = [y] if isinstance(y, str) else list(y) if _names(y) else []
        if named and not is_files(X):
            raise DataError(f"y: {named[0]!r} names a column of a parquet file, {what} is a {type(X).__name__}")
        table = plain(X, named, () if reset else self._fitted_names)
        if named:
            labels = read_columns(X, named)
            y = labels[:, 0] if isinstance(y, str) else labels
        frame = self._frame(table, reset, what)
        if frame.rows == 0:
            raise DataError(
                f"Found array with 0 sample(s) (shape=(0, {frame.width})) in {what}; at least 1 is required"
            )
        if frame.width == 0:
            raise DataError(f"{what}: 0 feature(s) (shape=({frame.rows}, 0)) while a minimum of 1 is required.")
        if reset:
            self._fitted_names = frame.names
        if y is None and not reset and what == "X":
            return frame, np.empty(0, dtype=np.float32)
        return frame, labels_of(y, frame.rows, type(self).__name__, "y" if what == "X" else f"y of {what}")

    def _frame(self, table: Any, reset: bool, what: str) -> Frame:
        """A table or array as a frame, its columns checked by scikit-learn's rules."""
        frame = frame_of(table) if is_table(table) else None
        finite = False if reset else "allow-nan"  # what is infinite in training is found, and named, by column
        try:
            if frame is not None:
                validate_data(self, table, reset=reset, skip_check_array=True)
            else:
                frame = frame_of(validate_data(self, table, dtype="numeric", ensure_all_finite=finite, reset=reset))
        except (TypeError, ValueError) as error:
            if frame is not None and not reset and sorted(frame.names) == sorted(self._fitted_names):
                raise _other_columns(frame.names, self._fitted_names, what) from error
            raise (KindError if isinstance(error, TypeError) else DataError)(f"{what}: {error}") from error
        if not reset and frame.names and self._fitted_names and frame.names != self._fitted_names:
            raise _other_columns(frame.names, self._fitted_names, what)
        return frame

    def _read_sets(
        self, eval_set: Any, weights: Any, targets: tuple[int, ...]
    ) -> list[tuple[str, Frame, NDArray[np.float32], NDArray[np.float32] | None]]:
        if eval_set is None:
            return []
        pair = isinstance(eval_set, tuple) and len(eval_set) == 2 and not all(map(_pair, eval_set))
        eval_set = [eval_set] if pair else eval_set
        if not isinstance(eval_set, list | tuple) or not all(map(_pair, eval_set)):
            raise ConfigError(f"eval_set: expected a list of pairs of rows and labels, given {type(eval_set).__name__}")
        if weights is not None and (not isinstance(weights, list | tuple) or len(weights) != len(eval_set)):
            given = len(weights) if isinstance(weights, list | tuple) else type(weights).__name__
            raise ConfigError(f"sample_weight_eval_set: expected a list of {len(eval_set)} entries, given {given}")
        found = []
        for place, (rows, labels) in enumerate(eval_set):
            name, weight = f"eval_set[{place}]", None if weights is None else weights[place]
            frame, label = self._read(rows, labels, reset=False, what=name)
            if label.shape[1:] != targets:
                given, known = (shape[0] if shape else 1 for shape in (label.shape[1:], targets))
                raise DataError(f"{name}: its labels have {given} targets, those of training {known}")
            found.append((f"validation_{place}", frame, label, weights_of(weight, frame.rows, f"sample_weight_{name}")))
        return found


def _pair(entry: Any) -> bool:
    return isinstance(entry, list | tuple) and len(entry) == 2


def _names(y: Any) -> bool:
    return isinstance(y, list | tuple) and bool(y) and all(isinstance(entry, str) for entry in y)


def _other_columns(given: Sequence[str], known: Sequence[str], what: str) -> DataError:
    for place, (one, other) in enumerate(zip(given, known, strict=False)):
        if one != other:
            order = "; columns are in the same order as in training" if set(given) == set(known) else ""
            return DataError(f"{what}: column {place} is {one!r}, in training it was {other!r}{order}")
    return DataError(f"{what} has {len(given)} columns, training had {len(known)}")

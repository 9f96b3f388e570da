"""The level grower as a scikit-learn estimator that stands in for XGBRegressor and LGBMRegressor."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
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
from eravane.learners.arguments import Argument, are_names, as_many, is_pair, one_of, only_auto, other_columns, paired
from eravane.learners.earlier import Earlier
from eravane.learners.fitting import Fitted, Labelled, fit_levels
from eravane.learners.frames import Frame, frame_of, is_files, is_table, plain, read_columns
from eravane.learners.histogram import fit_histogram
from eravane.learners.labels import labels_of, margins_of, weights_of
from eravane.learners.levelinput import NotLevelsError
from eravane.learners.settings import NotGrownError, check, settings_of, without_misspelt


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
        objective: object = "reg:squarederror",
        random_state: object = None,
        n_jobs: int | None = None,
        early_stopping_rounds: int | None = None,
        eval_metric: object = None,
        callbacks: object = None,
        missing: float | None = np.nan,
        base_score: float | None = None,
        num_leaves: int | None = None,
        min_child_samples: int | None = None,
        device: str = "cpu",
        strict: bool = False,
        **kwargs: object,
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

    def set_params(self, **params: object) -> LevelsRegressor:
        """Set parameters by name; other names are kept with `kwargs`."""
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
        X: object,
        y: object,
        sample_weight: object = None,
        *,
        eval_set: Sequence[tuple[object, object]] | None = None,
        sample_weight_eval_set: Sequence[object] | None = None,
        base_margin: object = None,
        base_margin_eval_set: Sequence[object] | None = None,
        eval_metric: object = None,
        eval_names: Sequence[str] | None = None,
        early_stopping_rounds: int | None = None,
        callbacks: object = None,
        xgb_model: object = None,
        feature_weights: object = None,
        verbose: bool | int | None = False,
        init_score: object = None,
        eval_sample_weight: Sequence[object] | None = None,
        eval_init_score: Sequence[object] | None = None,
        eval_X: object = None,
        eval_y: object = None,
        init_model: object = None,
        feature_name: object = "auto",
        categorical_feature: object = "auto",
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
            base_margin, base_margin_eval_set: what the trees of each row are added to, in place of the intercept.
            eval_metric, early_stopping_rounds, callbacks: in place of those of the constructor.
            eval_names: names of the sets in `evals_result`; "validation_0" and so on otherwise.
            xgb_model: a booster, a fitted estimator or a file of a model, whose trees come before the new ones.
            feature_weights: [C], how often columns are drawn; trees are left to XGBoost.
            verbose: True shows progress on a terminal, and elsewhere prints the metrics of every round; a number prints
                those of every so many rounds.
            init_score, eval_sample_weight, eval_init_score, init_model: LightGBM's names of `base_margin`,
                `sample_weight_eval_set`, `base_margin_eval_set` and `xgb_model`.
            eval_X, eval_y: rows and labels of a set, or tuples of these, in place of `eval_set`.
            feature_name, categorical_feature: "auto" alone; columns of data frames have names, and levels an order.

        Raises:
            DataError: X or y holds something that cannot be learned from; the column or row is named.
            ConfigError: a parameter is of the wrong type or outside its bounds.
            NotLevelsError: with `strict`, a column has more than five distinct values.
            NotGrownError: with `strict`, a parameter is one that the level grower lacks.
        """
        base = one_of(base_margin=base_margin, init_score=init_score)
        margins = one_of(base_margin_eval_set=base_margin_eval_set, eval_init_score=eval_init_score)
        weights = one_of(sample_weight_eval_set=sample_weight_eval_set, eval_sample_weight=eval_sample_weight)
        start, model = one_of(xgb_model=xgb_model, init_model=init_model)
        only_auto(feature_name=feature_name, categorical_feature=categorical_feature)
        overrides = {"eval_metric": eval_metric, "callbacks": callbacks, "feature_weights": feature_weights}
        overrides["early_stopping_rounds"] = early_stopping_rounds
        given = {name: value for name, value in overrides.items() if value is not None}
        params = without_misspelt(check({**self.get_params(deep=False), **given}))
        verbose = False if verbose is None else verbose
        if not isinstance(verbose, bool | np.bool_ | int | np.integer):
            raise ConfigError(f"verbose: expected True, False or a number of rounds, given {verbose!r}")
        earlier = None if model is None else Earlier(model, start)
        self.__dict__.pop("_fitted", None)  # what fails leaves nothing that belongs to other columns
        frame, labels = self._read(X, y, reset=True)
        if feature_weights is not None:
            params["feature_weights"] = weights_of(feature_weights, frame.width, "feature_weights")
        train = Labelled(
            "y", frame, labels, weights_of(sample_weight, frame.rows, "sample_weight"),
            margins_of(base[1], labels.shape, base[0]),
        )  # fmt: skip
        apart = None if eval_X is None and eval_y is None else paired(eval_X, eval_y)
        _, pairs = one_of(eval_set=eval_set, eval_X=apart)
        sets = self._read_sets(pairs, weights, margins, eval_names, labels.shape[1:])
        if earlier is not None:
            earlier.check(frame, 1 if labels.ndim == 1 else labels.shape[1])
        try:
            fitted = fit_levels(train, sets, params, settings_of(params), earlier, verbose)
        except (NotLevelsError, NotGrownError) as error:
            if self.strict:
                raise
            warnings.warn(f"{error}: XGBoost's hist grows these trees instead; strict=True refuses", stacklevel=2)
            fitted = fit_histogram(train, sets, params, earlier, verbose)
        self._fitted, self.grower_ = fitted, fitted.grower
        return self

    def predict(
        self,
        X: object,
        *,
        output_margin: bool = False,
        iteration_range: tuple[int, int] | None = None,
        base_margin: object = None,
        validate_features: bool = True,
        raw_score: bool = False,
        start_iteration: int = 0,
        num_iteration: int | None = None,
        pred_leaf: bool = False,
        pred_contrib: bool = False,
    ) -> Floats:
        """Predict rows.

        Args:
            X: as in `fit`.
            output_margin: sums of the trees instead of probabilities, where the objective is logistic.
            iteration_range: first round, and the one after the last (None: up to the best one of early stopping).
            base_margin: what the trees are added to, as in `fit`.
            validate_features: compare the names of columns with those of training; else their order counts.
            raw_score: LightGBM's name of `output_margin`.
            start_iteration, num_iteration: LightGBM's way to give `iteration_range`; 0 or less are all.
            pred_leaf: return what `apply` does.
            pred_contrib: return SHAP values of the features and, last, the intercept: [N, C + 1], or [N, K, C + 1].

        Returns:
            float64 [N], or [N, K] of several targets; values are XGBoost's float32.

        Raises:
            NotFittedError: `fit` was not called.
            ConfigError: the model has no such rounds.
            DataError: `base_margin` has not one number per row and target.
        """
        check_is_fitted(self)
        if start_iteration or num_iteration is not None:
            if iteration_range is not None:
                raise ConfigError("iteration_range: give it, or start_iteration and num_iteration")
            iteration_range = self._fitted.from_iterations(start_iteration, num_iteration)
        if pred_leaf:
            return self.apply(X, iteration_range).astype(np.float64)
        frame, _ = self._read(X, None, reset=False, names=bool(validate_features))
        if pred_contrib:
            rounds = self._fitted.rounds(iteration_range)
            matrix = self._fitted.matrix(frame)
            shares = self._fitted.booster.predict(
                matrix, pred_contribs=True, iteration_range=rounds, validate_features=bool(validate_features)
            )
            return np.asarray(shares, dtype=np.float64)
        shape = (frame.rows,) if self._fitted.targets == 1 else (frame.rows, self._fitted.targets)
        base, margin = margins_of(base_margin, shape, "base_margin"), bool(output_margin or raw_score)
        found: Floats = self._fitted.predict(frame, margin, iteration_range, base).astype(np.float64)
        return found

    def apply(self, X: object, iteration_range: tuple[int, int] | None = None) -> NDArray[np.int32]:
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
        """The same under LightGBM's name."""
        return self.evals_result()

    @property
    def feature_importances_(self) -> NDArray[np.float32]:
        """Share of each feature, float32 [C], of the quantity that `importance_type` names, as XGBoost computes it."""
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

    def _read(
        self, X: Any, y: Any, *, reset: bool, what: str = "X", names: bool = True
    ) -> tuple[Frame, NDArray[np.float32]]:
        """Rows, checked against those of fitting (their names where asked for), and labels float32 [N] or [N, K]."""
        named = [y] if isinstance(y, str) else list(y) if are_names(y) else []
        if named and not is_files(X):
            raise DataError(f"y: {named[0]!r} names a column of a parquet file, {what} is a {type(X).__name__}")
        table = plain(X, named, () if reset else self._fitted_names)
        if named:
            labels = read_columns(X, named)
            y = labels[:, 0] if isinstance(y, str) else labels
        frame = self._frame(table, reset, what) if names else self._by_place(table)
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

    def _frame(self, table: object, reset: bool, what: str) -> Frame:
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
                raise other_columns(frame.names, self._fitted_names, what) from error
            raise (KindError if isinstance(error, TypeError) else DataError)(f"{what}: {error}") from error
        if not reset and frame.names and self._fitted_names and frame.names != self._fitted_names:
            raise other_columns(frame.names, self._fitted_names, what)
        return frame

    def _by_place(self, table: object) -> Frame:
        """A table or array as a frame under the names of training."""
        frame = frame_of(table if is_table(table) else np.asarray(table))
        if frame.width != self.n_features_in_:
            raise DataError(
                f"X has {frame.width} features, but {type(self).__name__} is expecting {self.n_features_in_}"
            )
        if not is_table(table) or not self._fitted_names:
            return frame
        return replace(frame, names=self._fitted_names)

    def _read_sets(
        self, eval_set: object, weights: Argument, margins: Argument, names: object, targets: tuple[int, ...]
    ) -> list[Labelled]:
        if eval_set is None:
            return []
        pair = isinstance(eval_set, tuple) and len(eval_set) == 2 and not all(map(is_pair, eval_set))
        eval_set = [eval_set] if pair else eval_set
        if not isinstance(eval_set, list | tuple) or not all(map(is_pair, eval_set)):
            raise ConfigError(f"eval_set: expected a list of pairs of rows and labels, given {type(eval_set).__name__}")
        given = weights, margins, ("eval_names", names)
        weight_S, margin_S, name_S = (as_many(values, len(eval_set), name) for name, values in given)
        found = list[Labelled]()
        for place, (rows, labels) in enumerate(eval_set):
            what = f"eval_set[{place}]"
            frame, label = self._read(rows, labels, reset=False, what=what)
            if label.shape[1:] != targets:
                own, known = (shape[0] if shape else 1 for shape in (label.shape[1:], targets))
                raise DataError(f"{what}: its labels have {own} targets, those of training {known}")
            name = f"validation_{place}" if name_S[place] is None else name_S[place]
            if not isinstance(name, str) or name in {one.name for one in found}:
                raise ConfigError(f"eval_names: expected names that differ, given {names!r}")
            weight = weights_of(weight_S[place], frame.rows, f"{weights[0]} of {what}")
            margin = margins_of(margin_S[place], label.shape, f"{margins[0]} of {what}")
            found.append(Labelled(name, frame, label, weight, margin))
        return found

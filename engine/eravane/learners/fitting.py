"""Fits of the stand-alone estimators: trees grown on levels, and predictions of a fitted model."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import xgboost as xgb

from eravane.core.arrays import Float32s
from eravane.core.errors import ConfigError, DataError
from eravane.core.memory import cores
from eravane.learners.earlier import Earlier, starting_at
from eravane.learners.forest import Nodes, keys_of
from eravane.learners.frames import Frame, blocks
from eravane.learners.levelinput import Coding, LevelTable, as_levels, learn_levels
from eravane.learners.levels import Growth
from eravane.learners.levels_model import Heading, written
from eravane.learners.objectives import Objective, measures
from eravane.learners.rounds import ByGradients, EvalSet, Stopping, run_rounds
from eravane.learners.settings import NotGrownError, Settings
from eravane.learners.ubj import JoinedTrees, load
from eravane_kernels.cpu import walk
from eravane_kernels.cpu.boosting import Boosting
from eravane_kernels.cpu.levelcolumns import LevelColumns
from eravane_kernels.growth import Tree

ROWS_PER_THREAD = 8_192
TREES_AT_ONCE = 256
KEPT_BYTES = 2**28
"""Unfolded trees are kept between predictions up to this size."""


@dataclass(frozen=True, eq=False)
class Labelled:
    """Rows with their labels.

    Attributes:
        name: of the set.
        frame: the rows.
        labels: float32 [N] or [N, K].
        weights: float32 [N]; None for equal ones.
        margins: what trees are added to, of the labels' shape; None for the intercept.
    """

    name: str
    frame: Frame
    labels: Float32s
    weights: Float32s | None = None
    margins: Float32s | None = None


@dataclass(eq=False)
class Fitted:
    """Result of fitting.

    Attributes:
        block: the model as UBJ.
        grower: "levels" or "hist".
        objective: what it predicts.
        targets: K.
        intercepts: margin of every target before the first tree.
        missing: the value that is missing beside NaN.
        coding: of the features; None where rows are predicted by XGBoost.
        history: set -> metric -> a value per round.
        threads: for predictions.
        best, score: of early stopping.
    """

    block: bytes
    grower: str
    objective: Objective | None
    targets: int
    intercepts: Sequence[np.float32]
    missing: float
    coding: Coding | None
    history: Mapping[str, Mapping[str, list[float]]]
    threads: int
    best: int | None
    score: float
    _unfolded: dict[tuple[int, int], Any] = field(default_factory=dict)

    @classmethod
    def of(cls, booster: xgb.Booster, missing: float | None, jobs: int | None) -> Fitted:
        """A booster that XGBoost predicts from."""
        block, best = bytes(booster.save_raw("ubj")), best_of(booster.attributes())
        missing = np.nan if missing is None else float(missing)
        targets = int(load(block)["learner"]["learner_model_param"]["num_target"])
        return cls(block, "hist", None, targets, (), missing, None, {}, max(0, int(jobs or 0)), *best)

    def __getstate__(self) -> dict[str, Any]:
        return {**{name: value for name, value in self.__dict__.items() if name != "booster"}, "_unfolded": {}}

    @cached_property
    def booster(self) -> xgb.Booster:
        """The model as XGBoost loads it."""
        found = xgb.Booster(model_file=bytearray(self.block))
        if self.threads:
            found.set_param("nthread", self.threads)
        return found

    def rounds(self, iteration_range: Any) -> tuple[int, int]:
        """First round and the one after the last; 0 means all.

        Raises:
            ConfigError: the model has no such rounds.
        """
        if iteration_range is not None:
            try:
                begin, end = (operator.index(edge) for edge in iteration_range)
            except (TypeError, ValueError) as error:
                raise ConfigError(f"iteration_range: expected two rounds, given {iteration_range!r}") from error
            known = self.booster.num_boosted_rounds()
            if end and not 0 <= begin <= end <= known:
                raise ConfigError(
                    f"iteration_range: expected two rounds in order within 0..{known}, given {begin, end}"
                )
            if end:
                return begin, end
        return 0, 0 if self.best is None else self.best + 1

    def from_iterations(self, start: Any, count: Any) -> tuple[int, int] | None:
        """Rounds from LightGBM's first round and their number; None for those that are predicted by default.

        Raises:
            ConfigError: they are no numbers of rounds.
        """
        try:
            first, many = max(0, operator.index(start)), 0 if count is None else operator.index(count)
        except TypeError as error:
            raise ConfigError(
                f"start_iteration, num_iteration: expected numbers, given {start!r}, {count!r}"
            ) from error
        known = int(self.booster.num_boosted_rounds())
        if first >= known:
            raise ConfigError(f"start_iteration: expected a round within 0..{known - 1}, given {first}")
        if count is None and first == 0:
            return None
        return first, known if many <= 0 else min(known, first + many)

    def matrix(self, frame: Frame) -> xgb.DMatrix:
        """Rows as XGBoost takes them."""
        if self.coding is None:
            return xgb.DMatrix(frame.data, missing=self.missing, enable_categorical=True)
        x_NC = np.concatenate([block_NC for _, block_NC in blocks(frame, max(1, frame.rows))])
        types = list(frame.types) or None
        return xgb.DMatrix(x_NC, missing=self.missing, feature_names=list(frame.names) or None, feature_types=types)

    def predict(
        self, frame: Frame, margin: bool, iteration_range: tuple[int, int] | None, base: Float32s | None = None
    ) -> Float32s:
        """Predictions float32 [N] or [N, K]; trees are added to `base` where it is given."""
        begin, end = self.rounds(iteration_range)
        if self.coding is None or self.objective is None:
            matrix = self.matrix(frame)
            if base is not None:
                matrix.set_base_margin(base)
            found = self.booster.predict(matrix, output_margin=margin, iteration_range=(begin, end))
            return np.asarray(found, dtype=np.float32)
        total_BN = starting_at(None, frame, self.intercepts, base)
        columns = as_levels(frame, self.coding)
        for model in range(self.targets):
            for used_U, key_TK, leaf_TL in self._trees(model, begin, end):
                self._walk(columns, used_U, key_TK, leaf_TL, total_BN[model])
        total = total_BN[0] if self.targets == 1 else total_BN.T
        return np.ascontiguousarray(total if margin else self.objective.predicted(total))

    def _walk(self, columns: LevelColumns, used_U: Any, key_TK: Any, leaf_TL: Any, total_N: Float32s) -> None:
        address_SU = np.ascontiguousarray(columns.address_SC[:, used_U])
        pieces, start = [], 0
        step = max(ROWS_PER_THREAD, -(-columns.rows // max(1, self.threads)))
        for segment, rows in enumerate(columns.row_S.tolist()):
            for first in range(0, rows, step):
                many = min(step, rows - first)
                piece = address_SU[segment : segment + 1] + first, np.array([many]), total_N[start + first :][:many]
                pieces.append(piece)
            start += rows

        def one(piece: Any) -> None:
            address_1U, row_1, total_n = piece
            assert walk.walk(address_1U, row_1, key_TK, leaf_TL, total_n), "codes are levels"

        if self.threads > 1 and len(pieces) > 1:
            with ThreadPoolExecutor(self.threads) as pool:
                list(pool.map(one, pieces))
        else:
            for piece in pieces:
                one(piece)

    def _trees(self, model: int, begin: int, end: int) -> Iterator[tuple[Any, Any, Any]]:
        """The trees of a model as complete ones, some at a time."""
        key = model, begin * 2**32 + end
        if key in self._unfolded:
            yield from self._unfolded[key]
            return
        trees = load(self.block, joined=True)["learner"]["gradient_booster"]["model"]["trees"]
        trees = trees.picked(slice(model, None, self.targets))
        kept: list[Any] = []
        size, last = 0, end or len(trees.counts)
        for first in range(begin, last, TREES_AT_ONCE):
            part = self._complete(trees.picked(slice(first, min(first + TREES_AT_ONCE, last))))
            size += 2 * part[2].nbytes
            kept = [*kept, part] if size <= KEPT_BYTES else []
            yield part
        if size <= KEPT_BYTES:
            self._unfolded = {**self._unfolded, key: kept} if len(self._unfolded) < 2 * self.targets else {key: kept}

    def _complete(self, trees: JoinedTrees) -> tuple[Any, Any, Any]:
        assert self.coding is not None
        column_TK, condition_TK, left_TK, leaf_TL = Nodes.of(trees).unfolded()
        value_CL = self.coding.value_CL
        below_TK = np.zeros(column_TK.shape, dtype=np.int8)
        for level in range(value_CL.shape[1]):
            below_TK += value_CL[column_TK, level] < condition_TK
        used_U, key_TK = keys_of(column_TK, below_TK, ~left_TK)
        return used_U, key_TK, leaf_TL


def fit_levels(
    train: Labelled,
    sets: Sequence[Labelled],
    params: Mapping[str, Any],
    settings: Settings,
    earlier: Earlier | None,
    verbose: bool | int,
) -> Fitted:
    """Grow trees on levels.

    Args:
        train: rows of training.
        sets: that are evaluated.
        params, settings: of the estimator.
        earlier: a model whose trees come first.
        verbose: as in `run_rounds`.

    Raises:
        NotLevelsError: a column has too many distinct values.
        NotGrownError: a metric is XGBoost's alone.
        DataError, ConfigError: rows, labels or parameters are wrong.
    """
    frame, weight_N = train.frame, train.weights
    objective, missing = settings.objective, params.get("missing", np.nan)
    wanted = measures(params.get("eval_metric"), objective.metric)
    if wanted is None:
        raise NotGrownError(f"eval_metric={params['eval_metric']!r} is not one of the level grower's")
    if settings.patience and not sets:
        raise ConfigError("early_stopping_rounds: must have at least 1 set in eval_set to stop by")
    table = learn_levels(frame, np.nan if missing is None else float(missing))
    if missing is None and table.columns.missing:
        raise missing_value(frame)
    label_BN = np.require(np.atleast_2d(train.labels.T), np.float32, ["C", "W"])
    check_labels(label_BN, objective)
    if earlier is not None:
        earlier.check_growing(objective)
    bases = intercepts(params, objective, label_BN, weight_N)
    start = [objective.margin(base) for base in bases]
    threads = min(_threads(settings.threads), max(1, frame.rows // ROWS_PER_THREAD))
    before = 0 if earlier is None else earlier.rounds
    margin_BN = starting_at(earlier, frame, start, train.margins)
    growth = _growth(params, settings, table, label_BN, weight_N, margin_BN, threads, before)
    eval_sets = [
        EvalSet(
            one.name, as_levels(one.frame, table.coding), one.labels, one.weights,
            starting_at(earlier, one.frame, start, one.margins),
        )
        for one in sets
    ]  # fmt: skip
    fitted_base = params.get("base_score") is None and earlier is None
    heading = Heading(
        frame.width, bases, table.names, table.types, objective.name, fitted_base, cut_CB=table.coding.cut_CB
    )

    def block_of(grown: Sequence[Sequence[Tree]], attributes: Mapping[str, str]) -> bytes:
        block = written([tree for trees in grown for tree in trees], replace(heading, attributes=attributes))
        return block if earlier is None else earlier.followed_by(block)

    grown, attributes = run_rounds(
        growth, settings.rounds, eval_sets, objective, wanted, Stopping(settings.patience),
        learned=table.columns.missing, callbacks=params.get("callbacks"), before=before, verbose=verbose,
        model_of=lambda trees: xgb.Booster(model_file=bytearray(block_of(trees, {}))),
    )  # fmt: skip
    history = {one.name: one.history for one in eval_sets}
    coding = table.coding if earlier is None else None
    return Fitted(
        block_of(grown, attributes), "levels", objective, len(label_BN), start, table.coding.missing, coding, history,
        _threads(settings.threads), *best_of(attributes),
    )  # fmt: skip


def best_of(attributes: Mapping[str, str]) -> tuple[int | None, float]:
    """The best round and its score by a booster's attributes; None and NaN where nothing looked for it."""
    best = attributes.get("best_iteration")
    return None if best is None else int(best), float(attributes.get("best_score", "nan"))


def check_labels(label_BN: Float32s, objective: Objective | None) -> None:
    """Warns of rows without a label, and refuses labels that are no probabilities where they must be.

    Raises:
        DataError: naming the row.
    """
    absent = np.isnan(label_BN)
    if absent.any():
        counts = ", ".join(f"{int(count):,}" for count in absent.sum(axis=1))
        warnings.warn(f"{counts} of {label_BN.shape[1]:,} rows have no label in y and are left out", stacklevel=4)
    if objective is not None and objective.probabilities:
        wrong = (label_BN < 0) | (label_BN > 1)
        if wrong.any():
            model, row = np.argwhere(wrong)[0]
            raise DataError(f"y: {objective.name} takes labels within 0..1, given {label_BN[model, row]} at row {row}")


def missing_value(frame: Frame) -> DataError:
    """The error for the first missing value of a frame."""
    for column in frame.columns():
        first = 0
        for part in column.parts:
            absent_N = np.isnan(part.floats())
            if absent_N.any():
                row = first + int(absent_N.argmax())
                return DataError(f"Input X contains NaN: column {column.label}, row {row}; missing=None refuses it")
            first += len(absent_N)
    raise AssertionError("a value is missing")


def intercepts(
    params: Mapping[str, object], objective: Objective, label_BN: Float32s, weight_N: Float32s | None
) -> list[np.float32]:
    """Predictions before the first tree, one per target.

    Raises:
        ConfigError: `base_score` is no finite number, or no probability where it must be one.
    """
    given = params.get("base_score")
    if given is None:
        return [objective.intercept(label_N, weight_N) for label_N in label_BN]
    try:
        bases = np.broadcast_to(np.asarray(given, dtype=np.float32), len(label_BN))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"base_score: expected a number, given {given!r}") from error
    sound = np.isfinite(bases).all() and (not objective.probabilities or ((bases > 0) & (bases < 1)).all())
    if not sound:
        raise ConfigError(f"base_score: expected a finite number, with {objective.name} within (0, 1), given {given!r}")
    return [np.float32(base) for base in bases]


def _growth(
    params: Mapping[str, object],
    settings: Settings,
    table: LevelTable,
    label_BN: Float32s,
    weight_N: Float32s | None,
    margin_BN: Float32s,
    threads: int,
    turn: int,
) -> Growth:
    """Models about to grow; `turn` rounds came before, whose draws are not repeated."""
    columns = table.columns
    rules = replace(settings.rules, learn_missing=columns.missing)
    chosen = max(1, int(settings.chosen_share * columns.width))
    draws: dict[str, Any] = {"seed": settings.seed, "chosen": chosen, "share": settings.row_share}
    if params.get("device") in ("cuda", "gpu"):
        from eravane.learners.levels_device import uploaded

        if settings.objective.gradients is not None:
            raise NotGrownError(f"objective={params['objective']!r} is not one of the level grower's on a GPU")
        return uploaded(columns, rules, label_BN, weight_N, margin_BN, **{**draws, "seed": settings.seed + turn})
    draws |= {"threads": threads, "turn": turn}
    if settings.objective.gradients is None:
        return Boosting(columns, rules, label_BN, weight_N, margin_BN, **draws)
    return ByGradients(columns, rules, settings.objective, label_BN, weight_N, margin_BN, **draws)


def _threads(n_jobs: int) -> int:
    """Threads that `n_jobs` stands for."""
    return n_jobs if n_jobs > 0 else cores()

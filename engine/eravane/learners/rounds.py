"""Rounds of boosting with evaluation sets, early stopping, callbacks and progress."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xgboost as xgb
from numpy.typing import NDArray

from eravane.core.arrays import Float32s
from eravane.core.errors import ConfigError
from eravane.learners.callbacks import Callbacks, SoFar
from eravane.learners.levels import Growth, next_rounds
from eravane.learners.objectives import BLOCK, Measure, Objective
from eravane_kernels.cpu import walk
from eravane_kernels.cpu.draws import WHOLE, draw_columns, draw_rows
from eravane_kernels.cpu.growth import Grower
from eravane_kernels.cpu.levelcolumns import LevelColumns
from eravane_kernels.growth import OutgrownError, Rules, Tree

Scores = dict[str, dict[str, list[float]]]
"""Set -> metric -> a value per round."""


class ByGradients:
    """Boosts models whose gradients are computed here, round by round, on the draws that squared error would get.

    Args:
        columns, rules: as for `eravane_kernels.cpu.boosting.Boosting`.
        objective: gives gradients and Hessians.
        label_BN: float32 [B, N]; NaN rows count as absent.
        weight_N: float32 [N], or None for equal weights.
        margin_BN: float32 [B, N], output of earlier trees; changed in place.
        seed, chosen, share, threads: of the draws, columns of a tree, share of the rows, threads of the processor.
        turn: number of the first round.
    """

    def __init__(
        self,
        columns: LevelColumns,
        rules: Rules,
        objective: Objective,
        label_BN: Float32s,
        weight_N: Float32s | None,
        margin_BN: Float32s,
        *,
        seed: int,
        chosen: int,
        share: float,
        threads: int,
        turn: int = 0,
    ) -> None:
        assert objective.gradients is not None
        self._gradients, self._label_BN, self._margin_BN = objective.gradients, label_BN, margin_BN
        self._weight_1N = None if weight_N is None else weight_N[None]
        self._columns, self._seed, self._chosen, self._turn = columns, seed, chosen, turn
        self._parts = round(share * WHOLE)
        self._rule_6_of: Rules = rules
        self._grower = Grower(columns, rules, chosen, threads)

    def learn_at(self, eta: float) -> None:
        """See `Growth`."""
        self._grower.learn_at(eta)

    def grow(self, rounds: int) -> list[list[Tree]]:
        """See `Growth`; one round at a time."""
        del rounds
        gradient_BN, hessian_BN = self._gradients(self._margin_BN, self._label_BN, self._weight_1N)
        gradient_BN, hessian_BN = (np.require(part, np.float32, ["C", "W"]) for part in (gradient_BN, hessian_BN))
        drawn_N = np.ones(self._columns.rows, dtype=np.bool_)
        if self._parts != WHOLE:
            draw_rows(self._seed, self._turn, self._parts, drawn_N)
        for first in range(0, len(drawn_N), BLOCK):
            rows = np.s_[:, first : first + BLOCK]
            absent_BN = np.isnan(self._label_BN[rows]) | ~drawn_N[first : first + BLOCK]
            gradient_BN[rows][absent_BN], hessian_BN[rows][absent_BN] = 0.0, 0.0
        del drawn_N
        column_K = np.empty(self._chosen, dtype=np.int64)
        draw_columns(self._seed, self._turn, self._columns.width, column_K)
        self._turn += 1
        return [self._grower.grow_many(gradient_BN, hessian_BN, column_K, self._margin_BN, spent=True)]


@dataclass(eq=False)
class EvalSet:
    """Rows that are evaluated while trees grow.

    Attributes:
        name: of the set.
        columns: their levels, coded as those of training.
        labels: [N] or [N, K].
        weights: [N], or None.
        margin_BN: output so far; changed in place.
        history: metric -> a value per round.
    """

    name: str
    columns: LevelColumns
    labels: Float32s
    weights: Float32s | None
    margin_BN: Float32s
    history: dict[str, list[float]] = field(default_factory=dict)

    def add(self, trees: Sequence[Tree], learned: bool) -> None:
        """Adds the trees of a round, one per model."""
        for margin_N, tree in zip(self.margin_BN, trees, strict=True):
            used_U, key_1K, leaf_1L = unfold(tree, learned)
            address_SU = np.ascontiguousarray(self.columns.address_SC[:, used_U])
            walk.walk(address_SU, self.columns.row_S, key_1K, leaf_1L, margin_N)

    def measure(self, objective: Objective, wanted: Sequence[Measure]) -> dict[str, bool]:
        """Appends the metrics of this round; returns for each whether more of it is better."""
        rising = dict[str, bool]()
        predicted = objective.predicted(self.margin_BN[0] if self.labels.ndim == 1 else self.margin_BN.T)
        for measure in wanted:
            value, rising[measure.name] = measure.of(self.labels, predicted, self.weights)
            self.history.setdefault(measure.name, []).append(value)
        return rising


def unfold(tree: Tree, learned: bool) -> tuple[NDArray[np.int64], NDArray[np.int32], Float32s]:
    """A tree as a complete one: the columns that it splits on, keys and leaves for `walk.walk`.

    Args:
        tree: of the level grower.
        learned: whether -1 is missing and goes where the split learned; else it is the lowest level.
    """
    itself_K, leaf_K = np.arange(len(tree.left_K)), tree.left_K < 0
    left_K, right_K = (np.where(leaf_K, itself_K, child_K) for child_K in (tree.left_K, tree.right_K))
    here_P, parts = np.zeros(1, dtype=np.int64), list[tuple[NDArray[Any], ...]]()
    while not leaf_K[here_P].all() or not parts:
        column_P = np.where(leaf_K[here_P], -1, tree.column_K[here_P])
        parts.append((column_P, tree.below_K[here_P], ~tree.missing_left_K[here_P]))
        here_P = np.stack([left_K[here_P], right_K[here_P]], axis=1).reshape(-1)
    column_K, below_K, side_K = (np.concatenate(part) for part in zip(*parts, strict=True))
    used_U, place_K = np.unique(np.maximum(column_K, 0), return_inverse=True)
    place_K = np.where(column_K < 0, -1, place_K)
    key_1K = walk.keys(place_K[None], below_K[None], side_K[None] if learned else None)
    return used_U.astype(np.int64), key_1K, tree.weight_K[here_P][None]


@dataclass
class Stopping:
    """Early stopping: the last metric of the last set has not improved for a number of rounds.

    Attributes:
        patience: rounds (0: never stops).
        best: round with the best value, those of an earlier model before it.
        score: that value.
    """

    patience: int
    best: int = -1
    score: float = float("nan")

    def ends(self, turn: int, value: float, higher: bool) -> bool:
        """Takes the value of a round; returns whether training ends."""
        better = value > self.score if higher else value < self.score
        if self.best < 0 or better or (math.isnan(self.score) and not math.isnan(value)):
            self.best, self.score = turn, value
        return bool(self.patience) and turn - self.best >= self.patience


def run_rounds(
    growth: Growth,
    rounds: int,
    eval_sets: Sequence[EvalSet],
    objective: Objective,
    wanted: Sequence[Measure],
    stopping: Stopping,
    *,
    learned: bool,
    callbacks: object = None,
    model_of: Callable[[list[list[Tree]]], xgb.Booster],
    before: int = 0,
    verbose: bool | int = False,
) -> tuple[list[list[Tree]], dict[str, str]]:
    """Grow trees: [rounds][B], fewer where training stopped early; and the attributes of their model.

    Args:
        growth: grows them.
        rounds: how many.
        eval_sets: sets that are evaluated after every round, the last one decides on stopping.
        objective, wanted: what is predicted and measured.
        stopping: keeps the best round.
        learned: whether splits learned where missing values go.
        callbacks: XGBoost's or LightGBM's, asked before and after every round.
        model_of: the booster of the trees so far, for callbacks.
        before: rounds of an earlier model.
        verbose: shows progress on a terminal, and elsewhere the metrics of every `verbose`-th round.

    Raises:
        ConfigError: outputs have grown beyond what a float32 holds; a callback is not one of either library.
    """
    grown: list[list[Tree]] = []
    history = {one.name: one.history for one in eval_sets}
    model = SoFar(grown, model_of, growth.learn_at, before)
    asked = Callbacks(callbacks, rounds, model, history)
    asked.begin()
    with _shown(rounds, verbose) as show:
        many, ended = 1, asked.before(0)
        while len(grown) < rounds and not ended:
            began = time.perf_counter()
            try:
                found = growth.grow(1 if asked else min(many, rounds - len(grown)))
            except OutgrownError as error:
                raise ConfigError(f"learning_rate: outputs grew beyond float32 in round {len(grown)}") from error
            many = next_rounds(many, len(found), time.perf_counter() - began)
            for trees in found:
                grown.append(trees)
                ended = _evaluate(trees, eval_sets, objective, wanted, stopping, model, learned)
                show(len(grown), history)
                ended |= asked.after(len(grown) - 1)
                if ended:
                    break
            if not ended and len(grown) < rounds:
                ended = asked.before(len(grown))
    if stopping.patience:
        model.set_attr(best_iteration=stopping.best, best_score=stopping.score)
    kept = asked.end()
    return grown if kept is None else grown[:kept], model.kept


def _evaluate(
    trees: Sequence[Tree],
    eval_sets: Sequence[EvalSet],
    objective: Objective,
    wanted: Sequence[Measure],
    stopping: Stopping,
    model: SoFar,
    learned: bool,
) -> bool:
    """Evaluates a round; returns whether training ends."""
    for one in eval_sets:
        one.add(trees, learned)
        model.rising |= one.measure(objective, wanted)
    if not eval_sets:
        return False
    last = wanted[-1].name
    return stopping.ends(model.num_boosted_rounds() - 1, eval_sets[-1].history[last][-1], model.rising[last])


@contextmanager
def _shown(rounds: int, verbose: bool | int) -> Iterator[Callable[[int, Scores], None]]:
    """A progress bar on a terminal, lines elsewhere, or nothing."""
    if not verbose:
        yield lambda _turn, _history: None
    elif sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = [TextColumn("trees"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
        columns.append(TextColumn("{task.description}"))
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task("", total=rounds)
            yield lambda turn, history: bar.update(task, completed=turn, description=_as_text(history))
    else:
        period = 1 if verbose is True else int(verbose)

        def line(turn: int, history: Scores) -> None:
            if history and ((turn - 1) % period == 0 or turn == rounds):
                print(f"[{turn - 1}]\t{_as_text(history)}", flush=True)

        yield line


def _as_text(history: Scores) -> str:
    found = [(f"{name}-{metric}", values[-1]) for name, of in history.items() for metric, values in of.items()]
    return "\t".join(f"{name}:{value:.5f}" for name, value in found)

"""Selection rules on scores made by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from eravane.config import SelectionConfig
from eravane.zoo.selection import Verdict, select
from eravane.zoo.specs import ModelSpec

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


def test_a_model_without_scores_is_never_kept() -> None:
    verdicts = _judge([np.nan, 0.01], least=2)
    assert _kept(verdicts) == [1]
    assert "no out-of-fold score" in verdicts[0].reason

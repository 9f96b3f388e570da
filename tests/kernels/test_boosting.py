"""Trees that grow together, and rounds of boosting, against trees grown one by one."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eravane_kernels.cpu import draws as cpu_draws
from eravane_kernels.cpu.boosting import Boosting
from eravane_kernels.cpu.growth import Grower
from eravane_kernels.cpu.levelcolumns import LevelColumns
from eravane_kernels.cuda import draws as cuda_draws
from eravane_kernels.growth import Rules, Tree
from eravane_kernels.spec import draws
from eravane_kernels.spec import growth as spec

ROWS = (1, 2, 17, 700, 3000)


@dataclass(frozen=True)
class Batch:
    """Models that grow on the same columns."""

    x_CN: np.ndarray
    goal_BN: np.ndarray
    weight_BN: np.ndarray | None
    rules: Rules
    threads: int
    seed: int

    @property
    def columns(self) -> LevelColumns:
        """The columns in two segments, where there are rows for two."""
        rows = self.x_CN.shape[1]
        parts = np.split(self.x_CN, [rows // 3] if rows > 2 else [], axis=1)
        return LevelColumns.of([np.ascontiguousarray(part) for part in parts])


def same(ours: Sequence[Tree], wanted: Sequence[Tree]) -> None:
    """Trees are equal to the bit."""
    assert len(ours) == len(wanted)
    for tree, other in zip(ours, wanted, strict=True):
        for field in dataclasses.fields(Tree):
            np.testing.assert_array_equal(getattr(tree, field.name), getattr(other, field.name), err_msg=field.name)


@st.composite
def batches(draw: st.DrawFn, weighed: bool = True) -> Batch:
    """Random levels, missing ones among them, and goals of which some rows are unknown."""
    seed = draw(st.integers(0, 2**31))
    rng, rows, width = np.random.default_rng(seed), draw(st.sampled_from(ROWS)), draw(st.integers(1, 20))
    x_CN = rng.integers(0, draw(st.sampled_from([1, 2, 5])), (width, rows)).astype(np.int8)
    x_CN[rng.random(x_CN.shape) < draw(st.sampled_from([0.0, 0.0, 0.2]))] = -1
    models = draw(st.integers(1, 5))
    goal_BN = rng.normal(size=(models, rows)) + rng.normal(size=(models, 1)) * x_CN[0]
    kinds = draw(st.lists(st.sampled_from(["ones", "absent", "any"]), min_size=models, max_size=models))
    of_kind = {
        "ones": lambda: np.ones(rows),
        "absent": lambda: rng.random(rows) < 0.7,
        "any": lambda: np.where(rng.random(rows) < 0.1, 0, rng.random(rows)),
    }
    weight_BN = np.stack([of_kind[kind]() for kind in kinds]).astype(np.float32)
    rules = Rules(
        max_depth=draw(st.integers(1, 7)),
        eta=draw(st.sampled_from([0.3, 1.0])),
        reg_lambda=draw(st.sampled_from([1.0, 0.0])),
        gamma=draw(st.sampled_from([0.0, 0.5])),
        min_child_weight=draw(st.sampled_from([1.0, 0.0, 9.0])),
        learn_missing=draw(st.booleans()),
        gain_from_weight=draw(st.booleans()),
    )
    none = not weighed or draw(st.booleans())
    threads = draw(st.integers(1, 3))
    return Batch(x_CN, goal_BN.astype(np.float32), None if none else weight_BN, rules, threads, seed)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(batches())
def test_trees_that_grow_together_are_those_that_grow_alone(batch: Batch) -> None:
    """Two rounds on the same memory, with columns that differ between rounds."""
    rng, width, models = np.random.default_rng(batch.seed), len(batch.x_CN), len(batch.goal_BN)
    together = Grower(batch.columns, batch.rules, width, batch.threads)
    alone = Grower(batch.columns, batch.rules, width)
    weight_BN = np.ones_like(batch.goal_BN) if batch.weight_BN is None else batch.weight_BN
    margin_BN, wanted_BN = np.zeros((2, *batch.goal_BN.shape), dtype=np.float32)
    for _ in range(2):
        columns_K = np.sort(rng.choice(width, rng.integers(1, width + 1), replace=False))
        gradient_BN = (margin_BN - batch.goal_BN) * weight_BN
        wanted = [
            alone.grow(
                gradient_BN[model].copy(),
                None if batch.weight_BN is None else batch.weight_BN[model],
                columns_K,
                wanted_BN[model],
            )
            for model in range(models)
        ]
        by_spec, output_BN = spec.grow_many(batch.x_CN, gradient_BN, batch.weight_BN, columns_K, batch.rules)
        before_BN = margin_BN.copy()
        trees = together.grow_many(gradient_BN, batch.weight_BN, columns_K, margin_BN)
        same(trees, wanted)
        same(trees, by_spec)
        np.testing.assert_array_equal(margin_BN, wanted_BN)
        np.testing.assert_array_equal(margin_BN, before_BN + output_BN)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(batches(), st.sampled_from([1.0, 0.6, 0.05]), st.lists(st.integers(1, 3), min_size=1, max_size=3))
def test_boosting_is_that_of_the_specification_to_the_bit(batch: Batch, share: float, calls: list[int]) -> None:
    """In calls of any number of rounds, whatever other models there are."""
    width, weight_N = len(batch.x_CN), None if batch.weight_BN is None else batch.weight_BN[0]
    rng = np.random.default_rng(batch.seed)
    goal_BN = np.where(rng.random(batch.goal_BN.shape) < 0.2, np.float32(np.nan), batch.goal_BN)
    how: dict[str, Any] = {"seed": batch.seed, "chosen": max(1, width // 2), "share": share}
    margin_BN = rng.normal(size=goal_BN.shape).astype(np.float32)
    wanted_BN = margin_BN.copy()
    boosting = Boosting(batch.columns, batch.rules, goal_BN, weight_N, margin_BN, threads=batch.threads, **how)
    rounds = [trees for call in calls for trees in boosting.grow(call)]
    assert len(rounds) == sum(calls)
    for model, (goal_N, wanted_N) in enumerate(zip(goal_BN, wanted_BN, strict=True)):
        wanted = spec.boost(batch.x_CN, goal_N, weight_N, wanted_N, batch.rules, rounds=sum(calls), **how)
        same([trees[model] for trees in rounds], wanted)
    np.testing.assert_array_equal(margin_BN, wanted_BN)


@pytest.mark.parametrize("share", [1.0, 0.5])
@pytest.mark.parametrize("weighed", [False, True])
def test_many_shards_and_threads_change_no_bit(weighed: bool, share: float) -> None:
    """More rows than a shard holds; of the rows a part is unknown, in each model another."""
    rng = np.random.default_rng(8)
    x_CN, rows = rng.integers(0, 5, (24, 120_001)).astype(np.int8), 120_001
    goal_BN = (x_CN[:3] * 0.1 + rng.normal(size=(3, rows))).astype(np.float32)
    goal_BN[rng.random(goal_BN.shape) < 0.1] = np.nan
    weight_N = rng.random(rows).astype(np.float32) if weighed else None
    found = []
    for threads, models in ((1, [0]), (1, [1]), (1, [2]), (3, [0, 1, 2]), (2, [2, 0])):
        margin_BN = np.zeros((len(models), rows), dtype=np.float32)
        boosting = Boosting(
            LevelColumns.of([x_CN]), Rules(max_depth=6), goal_BN[models], weight_N, margin_BN, seed=5, chosen=20,
            share=share, threads=threads,
        )  # fmt: skip
        found.append((boosting.grow(3), margin_BN))
    (alone_0, margin_0), (alone_1, margin_1), (alone_2, margin_2), (all_3, margin_3), (two, margin_two) = found
    assert len(all_3) == 3
    for turn in range(3):
        assert len(alone_0[turn][0].left_K) > 60
        same(all_3[turn], [alone_0[turn][0], alone_1[turn][0], alone_2[turn][0]])
        same(two[turn], [alone_2[turn][0], alone_0[turn][0]])
    np.testing.assert_array_equal(margin_3, np.concatenate([margin_0, margin_1, margin_2]))
    np.testing.assert_array_equal(margin_two, np.concatenate([margin_2, margin_0]))


def test_rows_that_are_not_drawn_get_their_leaf_too() -> None:
    rng = np.random.default_rng(3)
    x_CN = rng.integers(0, 5, (6, 5_000)).astype(np.int8)
    goal_BN = (x_CN[:1] * 0.5 + rng.normal(size=(1, 5_000))).astype(np.float32)
    margin_BN = np.zeros_like(goal_BN)
    how = {"seed": 2, "chosen": 6, "share": 0.3}
    ((tree,),) = Boosting(LevelColumns.of([x_CN]), Rules(max_depth=3), goal_BN, None, margin_BN, **how).grow(1)  # type: ignore[arg-type]
    assert 0.25 < tree.hessian_K[0] / 5_000 < 0.35
    node_N = np.zeros(5_000, dtype=np.int64)
    while (inner_N := tree.left_K[node_N] >= 0).any():
        left_N = x_CN[tree.column_K[node_N], np.arange(5_000)] < tree.below_K[node_N]
        node_N = np.where(inner_N, np.where(left_N, tree.left_K[node_N], tree.right_K[node_N]), node_N)
    assert len(np.unique(node_N)) == 8
    np.testing.assert_array_equal(margin_BN[0], tree.weight_K[node_N])


@pytest.mark.parametrize(
    ("seed", "turn", "width", "chosen"), [(0, 0, 1, 1), (7, 3, 20, 20), (2**62 + 5, 900, 500, 50), (1, 1, 9, 4)]
)
def test_columns_are_drawn_as_specified(seed: int, turn: int, width: int, chosen: int) -> None:
    column_K = np.empty(chosen, dtype=np.int64)
    cpu_draws.draw_columns(seed, turn, width, column_K)
    np.testing.assert_array_equal(column_K, draws.draw_columns(seed, turn, width, chosen))
    assert len(np.unique(column_K)) == chosen
    assert (np.diff(column_K) > 0).all()
    assert 0 <= column_K[0] <= column_K[-1] < width


def test_columns_are_drawn_evenly() -> None:
    """Each column and each pair of neighbours as often as chance has it, within five standard errors."""
    drawn_RC = np.zeros((20_000, 12), dtype=bool)
    column_K = np.empty(3, dtype=np.int64)
    for turn, drawn_C in enumerate(drawn_RC):
        cpu_draws.draw_columns(11, turn, 12, column_K)
        drawn_C[column_K] = True
    single, pair = 3 / 12, 3 / 12 * 2 / 11
    error = np.sqrt(single * (1 - single) / len(drawn_RC))
    assert abs(drawn_RC.mean(axis=0) - single).max() < 5 * error
    both_C = (drawn_RC & np.roll(drawn_RC, 1, axis=1)).mean(axis=0)
    assert abs(both_C - pair).max() < 5 * np.sqrt(pair * (1 - pair) / len(drawn_RC))
    again_C = (drawn_RC[1:] & drawn_RC[:-1]).mean(axis=0)
    assert abs(again_C - single**2).max() < 5 * single / np.sqrt(len(drawn_RC))


def test_rows_are_drawn_as_specified_and_evenly() -> None:
    drawn_N = np.empty(200_000, dtype=bool)
    cpu_draws.draw_rows(4, 2, round(0.3 * cpu_draws.WHOLE), drawn_N)
    np.testing.assert_array_equal(drawn_N[:500], draws.draw_rows(4, 2, 500, 0.3))
    assert abs(drawn_N.mean() - 0.3) < 5 * np.sqrt(0.21 / 200_000)
    assert abs(np.corrcoef(drawn_N[1:], drawn_N[:-1])[0, 1]) < 5 / np.sqrt(200_000)
    other_N = np.empty_like(drawn_N)
    cpu_draws.draw_rows(4, 3, round(0.3 * cpu_draws.WHOLE), other_N)
    assert abs(np.corrcoef(drawn_N, other_N)[0, 1]) < 5 / np.sqrt(200_000)


def test_splitmix_gives_its_known_words() -> None:
    """The first words of Java's and Vigna's SplitMix64 from seed 1234567."""
    wanted = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]
    assert [draws.word(1234567, place) for place in range(5)] == wanted


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"goal_BN": np.zeros((2, 3))}, "goal_BN: expected dtype float32"),
        ({"goal_BN": np.full((2, 3), np.inf, np.float32)}, "goal_BN: expected finite values or NaN"),
        ({"margin_BN": np.full((2, 3), np.nan, np.float32)}, "margin_BN: expected finite values"),
        ({"margin_BN": np.zeros((2, 4), np.float32)}, r"margin_BN: expected shape \(2, 3\)"),
        ({"margin_BN": np.zeros((3, 2), np.float32).T}, "margin_BN: expected contiguous memory"),
        ({"weight_N": np.array([1, np.nan, 1], np.float32)}, "weight_N: expected finite weights"),
        ({"weight_N": np.array([1, -1, 1], np.float32)}, "weight_N: expected finite weights of 0 or more"),
        ({"chosen": 3}, r"chosen: expected 1\.\.2, given 3"),
    ],
)
def test_what_cannot_be_boosted_is_refused(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {
        "goal_BN": np.zeros((2, 3), np.float32), "weight_N": None, "margin_BN": np.zeros((2, 3), np.float32),
        "seed": 1, "chosen": 2,
    }  # fmt: skip
    with pytest.raises(ValueError, match=message):
        Boosting(LevelColumns.of([np.zeros((2, 3), np.int8)]), Rules(), **{**arguments, **change})


def test_outputs_that_grow_without_bound_are_refused() -> None:
    goal_BN = np.array([[-3e38, 3e38, 3e38]], dtype=np.float32)
    boosting = Boosting(
        LevelColumns.of([np.zeros((2, 3), np.int8)]), Rules(), goal_BN, None, -goal_BN, seed=1, chosen=1, threads=2
    )
    with pytest.raises(ValueError, match="gradients are infinite"):
        boosting.grow(2)


@given(seed=st.integers(0, 2**63 - 1), turn=st.integers(0, 10**6), width=st.integers(1, 300), share=st.floats(0, 1))
@settings(deadline=None, max_examples=60)
def test_draws_for_the_device_are_those_of_the_specification(seed: int, turn: int, width: int, share: float) -> None:
    chosen = max(1, round(share * width))
    drawn_K = cuda_draws.draw_columns(seed, turn, width, chosen)
    np.testing.assert_array_equal(drawn_K, draws.draw_columns(seed, turn, width, chosen))
    assert drawn_K.dtype == np.int64
    assert cuda_draws.stream_of(seed, turn, 1) == int(cpu_draws.stream_of(seed, turn, 1))


def test_the_device_s_half_needs_no_compiler_on_the_host() -> None:
    """NumPy's newest release is ahead of Numba's; a GPU then still grows trees."""
    script = (
        "import sys; sys.modules['numba'] = None; import eravane_kernels.cuda.boosting, eravane_kernels.cuda as c;"
        "assert 'eravane_kernels.cpu' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)

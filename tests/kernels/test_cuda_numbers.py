"""Kernels at the ends of what numbers hold, at every byte and place of a column."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eravane_kernels import cuda, spec, tables
from eravane_kernels.cpu.boosting import Boosting as OnHost
from eravane_kernels.cpu.levelcolumns import LevelColumns
from eravane_kernels.cuda import launch
from eravane_kernels.cuda.boosting import Boosting
from eravane_kernels.cuda.growth import Columns
from eravane_kernels.cuda.inputs import LONGEST_RUN
from eravane_kernels.growth import OutgrownError, Rules
from eravane_kernels.spec.growth import boost
from tests.support.emulator.cases import Layout, offsets, same_tree
from tests.support.emulator.devices import ANY_DEVICE, on

LARGEST, LEAST_NORMAL = float(np.finfo(np.float32).max), 2.0**-126
NUMBERS = np.array(
    [0.0, -0.0, 2.0**-149, -(2.0**-149), LEAST_NORMAL - 2.0**-149, LEAST_NORMAL, -LEAST_NORMAL, 1.0, -1.0,
     np.nextafter(np.float32(1), np.float32(2)), np.nextafter(np.float32(1), np.float32(0)), LARGEST, -LARGEST,
     np.nextafter(np.float32(LARGEST), np.float32(0)), 16777216.0, -3.5],
    dtype=np.float32,
)  # fmt: skip
# As float32: some round to a neighbour, to nothing, or beyond the largest number.
BOUNDS = (
    -np.inf,
    -1e300,
    -LARGEST,
    -1 - 2.0**-26,
    -1e-45,
    -1e-60,
    -0.0,
    0.0,
    2.0**-150,
    2.0**-150 * 1.01,
    1 + 2.0**-24,
)
BOUNDS = (*BOUNDS, 1 + 1.01 * 2.0**-24, LEAST_NORMAL * (1 - 2.0**-26), LARGEST * (1 + 2.0**-26), 1e300, np.inf, np.nan)
# Eras that begin and end at every place between two multiples of 16 bytes, some shorter than a vector.
ERAS = offsets((0, 1, 2, 3, 5, 31, 33, 0, 130, 7, 64, 1))
ANY_LAYOUT = [Layout(before, between) for before, between in ((0, 0), (1, 2), (2, 3), (3, 1))]
FINITE = st.one_of(
    st.sampled_from(NUMBERS.tolist()),
    st.integers(0, 2**32 - 1).map(lambda bits: float(np.array(bits, np.uint32).view(np.float32))).filter(np.isfinite),
)


def bits(values: np.ndarray) -> np.ndarray:
    """Float32 by their bits, so that zeros and NaN differ by theirs."""
    return np.ascontiguousarray(values).view(np.uint32)


def numbers_of(random: np.random.Generator, columns: int) -> np.ndarray:
    """Any of NUMBERS, a fifth missing by NaN of several bits."""
    x_CN = random.choice(NUMBERS, (columns, int(ERAS[-1])))
    x_CN[random.random(x_CN.shape) < 0.1] = np.nan
    bits(x_CN)[random.random(x_CN.shape) < 0.1] = 0xFFC12345
    return x_CN


def pairs(random: np.random.Generator, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Every pair of BOUNDS in turn, the lower one first."""
    every = [(low, high) for low in BOUNDS for high in BOUNDS if not low > high]
    chosen = np.array(every)[random.permutation(np.resize(np.arange(len(every)), shape[0] * shape[1]))]
    return chosen[:, 0].reshape(shape).copy(), chosen[:, 1].reshape(shape).copy()


@pytest.mark.parametrize("layout", ANY_LAYOUT, ids=str)
@pytest.mark.parametrize("device", ANY_DEVICE)
def test_clipped_values_keep_every_bit(device: Any, layout: Layout) -> None:
    random = np.random.default_rng(layout.before)
    x_CN = numbers_of(random, 24)
    low_EC, high_EC = pairs(random, (len(ERAS) - 1, 24))
    with np.errstate(over="ignore"):
        wanted = spec.clip(x_CN, ERAS, low_EC, high_EC)
    with on(device) as runtime:
        found = runtime.host(cuda.clip(layout.view(x_CN), ERAS, low_EC, high_EC))
    np.testing.assert_array_equal(bits(found), bits(wanted))


@pytest.mark.parametrize("layout", ANY_LAYOUT, ids=str)
@pytest.mark.parametrize("device", ANY_DEVICE)
def test_filled_values_keep_every_bit(device: Any, layout: Layout) -> None:
    random = np.random.default_rng(layout.before)
    x_CN, value_EC = numbers_of(random, 9), random.choice(BOUNDS, (len(ERAS) - 1, 9))
    with np.errstate(over="ignore"):
        wanted = spec.fill(x_CN, ERAS, value_EC)
    with on(device) as runtime:
        found = runtime.host(cuda.fill(layout.view(x_CN), ERAS, value_EC))
    np.testing.assert_array_equal(found, wanted)
    there = ~np.isnan(wanted)
    np.testing.assert_array_equal(bits(found[there]), bits(wanted[there]))


@pytest.mark.parametrize("row", [0, 12, 13, 28, 29, 108, 109, 121])
@pytest.mark.parametrize("device", ANY_DEVICE)
def test_every_byte_that_is_no_level_is_seen_beside_any_others(
    device: Any, row: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One in a column: in the head, in the first and last vectors, at either end of a word, in the tail."""
    values = np.arange(-128, 128)
    marked: list[np.ndarray] = []
    monkeypatch.setattr(launch.Runs, "reject", lambda _, bad_EC, *__: marked.append(runtime.host(bad_EC)))
    x_CN = np.random.default_rng(row).integers(-1, 5, (256, 122)).astype(np.int8)
    x_CN[:, row] = values
    table_ECL = np.zeros((1, 256, 6), np.int8)
    with on(device) as runtime:
        cuda.apply_table(Layout(3, 6).view(x_CN), offsets((122,)), table_ECL)
        cuda.level_counts(Layout(3, 6).view(x_CN), offsets((122,)))
    for bad_EC in marked:
        np.testing.assert_array_equal(bad_EC[0] != 0, (values < -1) | (values > 4))
    assert len(marked) == 2


CELLS = [(0, 3), (1, 1), (1, 255), (2, 128), (257, 1), (3, 700)]


@pytest.mark.parametrize("shape", CELLS, ids=str)
@pytest.mark.parametrize("device", ANY_DEVICE)
def test_tables_of_any_bounds_and_fills(device: Any, shape: tuple[int, int]) -> None:
    random = np.random.default_rng(shape[1])
    whole = np.array([*np.arange(-1.5, 6.0, 0.5), np.nan, -np.inf, np.inf, 1e300, 0.5 - 2.0**-54, 2.5 + 2.0**-51, -0.0])
    one_EC, other_EC = random.choice(whole, shape), random.choice(whole, shape)
    low_EC, high_EC = np.where(one_EC > other_EC, other_EC, one_EC), np.where(one_EC > other_EC, one_EC, other_EC)
    then_ECL = random.integers(-128, 128, (*shape, 6)).astype(np.int8)
    with on(device) as runtime:
        filled, clipped = cuda.fill_table(one_EC), cuda.clip_table(low_EC, high_EC)
        joined = runtime.host(cuda.compose_tables(filled, then_ECL))
        filled, clipped = runtime.host(filled), runtime.host(clipped)
    np.testing.assert_array_equal(filled, tables.fill_table(one_EC))
    np.testing.assert_array_equal(clipped, tables.clip_table(low_EC, high_EC))
    np.testing.assert_array_equal(joined, tables.compose_tables(filled, then_ECL))


@pytest.mark.parametrize("entry", [-128, -2, 5, 6, 7, 127])
@pytest.mark.parametrize("slot", [0, 3, 5])
@pytest.mark.parametrize("device", ANY_DEVICE)
def test_an_entry_that_is_no_level_is_named_as_on_the_host(device: Any, slot: int, entry: int) -> None:
    first_ECL = np.random.default_rng(0).integers(-1, 5, (3, 100, 6)).astype(np.int8)
    first_ECL[2, 99, slot] = entry
    with pytest.raises(ValueError, match=f"given {entry} at") as wanted:
        tables.compose_tables(first_ECL, first_ECL)
    with on(device), pytest.raises(ValueError) as found:
        cuda.compose_tables(first_ECL, first_ECL)
    assert str(found.value) == str(wanted.value)


@given(values=st.lists(FINITE | st.just(np.nan), max_size=40), data=st.data())
@settings(max_examples=60, deadline=None)
@pytest.mark.parametrize("device", ANY_DEVICE)
def test_order_statistics_of_any_numbers(device: Any, values: list[float], data: st.DataObject) -> None:
    """Also of numbers that differ in the last bits alone, which share all digits of a key but one."""
    near = data.draw(st.lists(st.integers(0, 5), max_size=20))
    base = np.array(data.draw(st.sampled_from(NUMBERS[2:].tolist())), np.float32).view(np.uint32)
    close = (base & np.uint32(0xFFFFFF00)) + np.array(near, np.uint32)
    x_1N = np.concatenate([np.array(values, np.float32), close.astype(np.uint32).view(np.float32)])[None]
    eras = offsets((x_1N.size // 3, x_1N.size - x_1N.size // 3))
    shares = (0.0, 5e-324, 1 / 3, 0.5, 1 - 2.0**-53, 1.0, data.draw(st.floats(0, 1)))
    wanted = spec.float_stats(x_1N, eras, shares).quantiles_QEC
    bounds = spec.clip_bounds(x_1N, eras, "mad", window=1)
    with on(device) as runtime:
        found = runtime.host(cuda.float_stats(x_1N, eras, shares).quantiles_QEC)
        there = [runtime.host(bound) for bound in cuda.clip_bounds(x_1N, eras, "mad", window=1)]
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(there, bounds)


@given(data=st.data())
@settings(max_examples=40, deadline=None)
@pytest.mark.parametrize("device", ANY_DEVICE)
def test_gradients_of_any_numbers_give_the_trees_of_the_specification(device: Any, data: st.DataObject) -> None:
    """Of squared error, from outputs, goals and weights of any size; the CPU's, too. Gains and outputs may overflow."""
    rows = data.draw(st.integers(1, 40))
    numbers = st.lists(FINITE, min_size=rows, max_size=rows).map(lambda drawn: np.array(drawn, np.float32))
    goal_1N, margin_1N = data.draw(numbers)[None], data.draw(numbers)[None]
    goal_1N[0, data.draw(st.lists(st.integers(0, rows - 1), max_size=4))] = np.nan
    weight_N = data.draw(st.none() | numbers.map(np.abs))
    x_CN = np.random.default_rng(rows).integers(-1, 5, (3, rows)).astype(np.int8)
    rules, how = Rules(max_depth=2, eta=0.3, learn_missing=True), {"seed": 3, "chosen": 2, "share": 1.0}
    output_N, on_host_1N = margin_1N[0].copy(), margin_1N.copy()
    here = OnHost(LevelColumns.of([x_CN]), rules, goal_1N, weight_N, on_host_1N, **how)
    with np.errstate(all="ignore"):
        try:
            wanted = boost(x_CN, goal_1N[0], weight_N, output_N, rules, rounds=2, **how)
        except ValueError:
            with pytest.raises(OutgrownError):
                here.grow(2)
            wanted = []
    with on(device) as runtime:
        boosting = Boosting(Columns.of(x_CN), rules, goal_1N, weight_N, margin_1N, **how)
        if not wanted:
            with pytest.raises(ValueError, match="expected finite ones"):
                boosting.grow(2)
            return
        trees, found_N = boosting.grow(2), runtime.host(boosting.margin_BN)[0]
    for one, twin, other in zip(trees, here.grow(2), wanted, strict=True):
        same_tree(one[0], other)
        same_tree(twin[0], other)
    np.testing.assert_array_equal(bits(found_N), bits(output_N))
    np.testing.assert_array_equal(bits(on_host_1N[0]), bits(output_N))


@pytest.mark.parametrize("device", ANY_DEVICE)
def test_sums_of_leaves_beyond_float32_stay_there(device: Any) -> None:
    """Infinite from then on, whatever is added; not what a double goes on with."""
    leaf_T = np.array([LARGEST, LARGEST, -LARGEST, -1.0, 2.0**-149, -LARGEST], np.float32)
    node_K4 = np.zeros((6, 4), np.int32)
    node_K4[:, 0], node_K4[:, 1] = spec.LEAF, leaf_T.view(np.int32)
    x_CN = np.zeros((1, 40), np.int8)
    start_N = np.resize(np.array([0.0, -0.0, -LARGEST, LARGEST, np.inf, -np.inf, np.nan], np.float32), 40)
    with np.errstate(over="ignore"):
        wanted_N = spec.add_trees(x_CN, node_K4, np.arange(6, dtype=np.int32), start_N.copy())
    old_K, tree_T2 = leaf_T.astype(np.float64) * 2, np.stack([np.arange(6), np.arange(1, 7)], axis=1).astype(np.int32)
    rows = np.full((1, 40), np.nan, np.float32), np.ones(40, np.float32), start_N[None].astype(np.float64)
    renewed = (x_CN, node_K4, old_K, tree_T2, np.array([0, 6]), *rows, 0.1, 1.0, 0.5)
    with np.errstate(all="ignore"), on(device) as runtime:
        leaves = spec.renew_leaves(*renewed)
        found_N = runtime.host(cuda.add_trees(x_CN, node_K4, np.arange(6, dtype=np.int32), start_N.copy()))
        there = [runtime.host(part) for part in cuda.renew_leaves(*renewed)]
    np.testing.assert_array_equal(found_N, wanted_N)
    for one, other in zip(there, leaves, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("window", [0, 2])
def test_a_run_too_long_to_count_is_refused_pooled_eras_too(window: int) -> None:
    each = LONGEST_RUN // (window + 1) + 1
    rows = each * (window + 1)
    with on(0) as runtime:
        column = runtime.xp.zeros(1, np.float32)
        endless = np.lib.stride_tricks.as_strided(column, (0, rows), (0, 4), subok=True)
        with pytest.raises(ValueError, match=f"at most {LONGEST_RUN} rows, given one of {rows}"):
            cuda.clip_bounds(endless, offsets((each,) * (window + 1)), "std", window=window)

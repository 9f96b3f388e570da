"""The grower of cu/grow.cu against its specification, on the emulator and on a GPU."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eravane_kernels.cpu import growth as cpu
from eravane_kernels.cuda import boosting as boosting_module
from eravane_kernels.cuda import growth as cuda
from eravane_kernels.cuda.boosting import Boosting
from eravane_kernels.cuda.runtime import active, upload, use
from eravane_kernels.growth import Rules, units
from eravane_kernels.spec import growth as spec
from tests.support.emulator.cases import Layout, same_tree
from tests.support.emulator.devices import ANY_DEVICE, DEVICES, on

KINDS = {
    "plain": ({}, 0.0, "none"),
    "missing": ({}, 0.1, "none"),
    "learned": ({"learn_missing": True, "reg_alpha": 0.5}, 0.1, "absent"),
    "weighed": ({"min_child_weight": 3.3, "reg_lambda": 0.5, "eta": 0.02}, 0.05, "any"),
    "free": ({"min_child_weight": 0.0, "reg_lambda": 0.0, "learn_missing": True}, 0.3, "any"),
    "whole": ({"min_child_weight": 2.0}, 0.0, "any"),
    "strict": ({"gamma": 2.0}, 0.0, "absent"),
}


def made(kind: str, rows: int, width: int, depth: int, share: float = 0.8) -> tuple:
    rng, (changes, missing, weights) = np.random.default_rng(rows + width), KINDS[kind]
    x_CN = rng.integers(0, 5, (width, rows)).astype(np.int8)
    x_CN[rng.random(x_CN.shape) < missing] = -1
    x_CN[-1] = 3
    gradient_N = (0.3 * (x_CN[0] - 2) * (x_CN[width // 2] - 2) + rng.normal(size=rows)).astype(np.float32)
    hessian_N = None
    if weights != "none":
        hessian_N = rng.random(rows).astype(np.float32)
        hessian_N = (hessian_N > 0.3).astype(np.float32) if weights == "absent" else hessian_N
        gradient_N *= hessian_N
    columns_K = np.flatnonzero(rng.random(width) < share).astype(np.int64)
    columns_K = columns_K if len(columns_K) else np.zeros(1, dtype=np.int64)
    return x_CN, gradient_N, hessian_N, columns_K, Rules(max_depth=depth, **changes)


def equal(given: tuple, wanted: tuple) -> None:
    same_tree(given[0], wanted[0])
    np.testing.assert_array_equal(active().host(given[1]), wanted[1])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("device", DEVICES)
def test_equals_the_specification(kind: str, device: object) -> None:
    """Rows of two chunks and several stages, the last of both incomplete."""
    arguments = made(kind, 4_700, 7, 4)
    with on(device):
        equal(cuda.grow_tree(*arguments), spec.grow_tree(*arguments))


@pytest.mark.parametrize(
    ("rows", "width", "depth"),
    [(1, 1, 1), (3, 2, 5), (33, 12, 3), (509, 40, 2), (4_097, 3, 2), (700, 2, 8), (600, 150, 3), (5, 33, 12)],
)
@pytest.mark.parametrize("kind", ["plain", "free", "whole"])
@pytest.mark.parametrize("device", ANY_DEVICE)
def test_any_shape(kind: str, rows: int, width: int, depth: int, device: object) -> None:
    """Records of half a sector, of one and of several; lanes that share columns; levels beyond a block's threads."""
    arguments = made(kind, rows, width, depth)
    with on(device):
        equal(cuda.grow_tree(*arguments), spec.grow_tree(*arguments))


@pytest.mark.parametrize("kind", ["plain", "learned", "weighed"])
@pytest.mark.parametrize("device", ANY_DEVICE)
def test_many_chunks_of_wide_records_give_the_trees_of_the_cpu(kind: str, device: object) -> None:
    arguments = made(kind, 9_001, 140, 5, share=0.9)
    with on(device):
        equal(cuda.grow_tree(*arguments), cpu.grow_tree(*arguments))


@given(st.data())
@settings(max_examples=100, deadline=None)
@pytest.mark.parametrize("device", ANY_DEVICE)
def test_any_parameters_give_the_trees_of_the_cpu(device: object, data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**31)))
    rows, width = data.draw(st.integers(1, 1_500)), data.draw(st.integers(1, 70))
    x_CN = rng.integers(0, data.draw(st.sampled_from([1, 2, 5])), (width, rows)).astype(np.int8)
    x_CN[rng.random(x_CN.shape) < data.draw(st.sampled_from([0.0, 0.2]))] = -1
    models = data.draw(st.integers(1, 3))
    gradient_BN = (rng.normal(size=(models, rows)) * data.draw(st.sampled_from([1e-3, 1.0, 50.0]))).astype(np.float32)
    hessian_BN = data.draw(st.sampled_from([None, rng.random(gradient_BN.shape), rng.random(gradient_BN.shape) < 0.5]))
    hessian_BN = None if hessian_BN is None else hessian_BN.astype(np.float32)
    columns_K = np.sort(rng.choice(width, data.draw(st.integers(1, width)), replace=False))
    rules = Rules(
        max_depth=data.draw(st.integers(1, 7)),
        reg_lambda=data.draw(st.sampled_from([0.0, 1.0, 7.5])),
        reg_alpha=data.draw(st.sampled_from([0.0, 0.3])),
        gamma=data.draw(st.sampled_from([0.0, 1.0])),
        min_child_weight=data.draw(st.sampled_from([0.0, 1.0, 20.0])),
        learn_missing=data.draw(st.booleans()),
        gain_from_weight=data.draw(st.booleans()),
    )
    with on(device):
        outputs_BN = upload(np.zeros_like(gradient_BN))
        grower = cuda.Grower(cuda.Columns.of(x_CN), rules, len(columns_K), models)
        ours = grower.grow_many(gradient_BN, hessian_BN, columns_K, outputs_BN)
        given_BN = active().host(outputs_BN)
    for number, tree in enumerate(ours):
        own_N = None if hessian_BN is None else hessian_BN[number]
        wanted, output_N = cpu.grow_tree(x_CN, gradient_BN[number], own_N, columns_K, rules)
        same_tree(tree, wanted)
        np.testing.assert_array_equal(given_BN[number], output_N)


@pytest.mark.parametrize("before", [0, 1, 6, 15])
@pytest.mark.parametrize("between", [0, 1, 4, 13])
@pytest.mark.parametrize("device", ANY_DEVICE)
def test_columns_may_lie_anywhere(before: int, between: int, device: object) -> None:
    """Each column begins at another place between two multiples of 16, and ends at another."""
    x_CN, *others = made("missing", 1_003, 9, 3, share=1.0)
    with on(device):
        equal(cuda.grow_tree(Layout(before, between).view(x_CN), *others), spec.grow_tree(x_CN, *others))


@pytest.mark.parametrize("width", [1, 32, 33, 64, 65, 130])
@pytest.mark.parametrize("rows", [1, 15, 16, 17, 511, 513, 1_100])
@pytest.mark.parametrize("device", ANY_DEVICE)
def test_records_hold_the_columns(width: int, rows: int, device: object) -> None:
    x_CN = np.random.default_rng(width).integers(-1, 5, (2 * width, rows)).astype(np.int8)
    columns_K, stride = np.arange(0, 2 * width, 2), cuda.stride_of(width)
    wanted_NK = np.zeros((rows, 2 * stride), dtype=np.uint8)
    wanted_NK[:, :width] = x_CN[columns_K].T & 7
    with on(device):
        grower = cuda.Grower(cuda.Columns.of(Layout(3, 2).view(x_CN)), Rules(), width)
        grower.grow(np.ones(rows, dtype=np.float32), None, columns_K, upload(np.zeros(rows, dtype=np.float32)))
        record_NS = active().host(grower.record).reshape(rows, stride)
    np.testing.assert_array_equal(record_NS & 15, wanted_NK[:, ::2])
    np.testing.assert_array_equal(record_NS >> 4, wanted_NK[:, 1::2])


@pytest.mark.parametrize("kind", ["plain", "learned", "weighed"])
@pytest.mark.parametrize("device", DEVICES)
def test_trees_grown_together_are_those_grown_alone(kind: str, device: object) -> None:
    """One of them ends at its root, and one has Hessians of 0 and 1 where others have any."""
    x_CN, gradient_N, hessian_N, columns_K, rules = made(kind, 4_300, 6, 4)
    rng = np.random.default_rng(1)
    gradient_BN = np.stack([gradient_N, -2 * gradient_N, np.zeros_like(gradient_N), rng.permutation(gradient_N)])
    hessian_BN, margin_BN = None, rng.normal(size=gradient_BN.shape).astype(np.float32)
    if hessian_N is not None:
        hessian_BN = np.stack([hessian_N, hessian_N > 0.5, hessian_N, np.ones_like(hessian_N)]).astype(np.float32)
    with on(device):
        grower, device_BN = cuda.Grower(cuda.Columns.of(x_CN), rules, len(columns_K), together=5), upload(margin_BN)
        trees = grower.grow_many(gradient_BN, hessian_BN, columns_K, device_BN)
        given_BN = active().host(device_BN)
    assert len(trees) == len(gradient_BN)
    for number, tree in enumerate(trees):
        own_N = None if hessian_BN is None else hessian_BN[number]
        wanted, output_N = spec.grow_tree(x_CN, gradient_BN[number], own_N, columns_K, rules)
        same_tree(tree, wanted)
        np.testing.assert_array_equal(given_BN[number], margin_BN[number] + output_N)


@pytest.mark.parametrize("device", ANY_DEVICE)
def test_a_grower_keeps_nothing_of_the_last_tree(device: object) -> None:
    """Other columns, fewer of them, the same again; Hessians of one kind, then of another."""
    x_CN, gradient_N, hessian_N, _, rules = made("free", 900, 9, 4)
    counts_N = (hessian_N > 0.5).astype(np.float32)
    turns = [(np.arange(9), None), (np.array([2, 5]), hessian_N), (np.array([2, 5]), None), (np.arange(9), counts_N)]
    with on(device):
        grower = cuda.Grower(cuda.Columns.of(x_CN), rules, 9)
        for columns_K, own_N in turns:
            margin_N = upload(np.zeros(900, dtype=np.float32))
            tree = grower.grow(gradient_N, own_N, columns_K, margin_N)
            equal((tree, margin_N), spec.grow_tree(x_CN, gradient_N, own_N, columns_K, rules))


@pytest.mark.parametrize("weights", ["none", "absent", "any"])
@pytest.mark.parametrize("share", [1.0, 0.6])
@pytest.mark.parametrize("device", DEVICES)
def test_boosting_reads_nothing_back_and_grows_the_trees_of_the_specification(
    weights: str, share: float, device: object
) -> None:
    """Unknown goals, among them all of a model's but a few."""
    x_CN, gradient_N, hessian_N, _, _ = made(
        {"none": "plain", "absent": "strict", "any": "weighed"}[weights], 1_200, 8, 3
    )
    rng, rules = np.random.default_rng(3), Rules(max_depth=3, eta=0.3)
    goal_BN = np.stack([gradient_N, np.roll(gradient_N, 7), gradient_N])
    goal_BN[1, rng.random(1_200) < 0.2] = np.nan
    goal_BN[2, 9:] = np.nan
    margin_BN = np.full_like(goal_BN, 0.5)
    how = {"seed": 5, "chosen": 4, "share": share}
    fetched: list[np.ndarray] = []
    with on(device) as runtime:

        def counted(array: object) -> np.ndarray:
            fetched.append(runtime.host(array))
            return fetched[-1]

        boosting = Boosting(cuda.Columns.of(x_CN), rules, goal_BN, hessian_N, margin_BN, **how)
        with use(dataclasses.replace(runtime, host=counted)):
            trees = [*boosting.grow(3), *boosting.grow(2)]
        given_BN = runtime.host(boosting.margin_BN)
    assert len(fetched) == 6, "the trees of a call, their number of nodes, and whether all went well"
    for number, goal_N in enumerate(goal_BN):
        output_N = margin_BN[number].copy()
        wanted = spec.boost(x_CN, goal_N, hessian_N, output_N, rules, rounds=5, **how)
        for one, other in zip(trees, wanted, strict=True):
            same_tree(one[number], other)
        np.testing.assert_array_equal(given_BN[number], output_N)


@pytest.mark.parametrize("chosen", [4, 8])
@pytest.mark.parametrize("device", ANY_DEVICE)
def test_rounds_are_one_graph_that_is_launched_again(chosen: int, device: object) -> None:
    """The first round is launched kernel by kernel, all others by what was recorded once, in two calls, too."""
    x_CN, gradient_N, _, _, rules = made("missing", 700, 8, 3)
    goal_2N, margin_2N = np.stack([gradient_N, -gradient_N]), np.zeros((2, 700), np.float32)
    recorded = []
    with on(device) as runtime:

        def record(work: Any) -> Any:
            recorded.append(runtime.record(work))
            return recorded[-1]

        with use(dataclasses.replace(runtime, record=record)):
            boosting = Boosting(
                cuda.Columns.of(x_CN), rules, goal_2N, None, margin_2N, seed=2, chosen=chosen, share=0.7
            )
            trees = [*boosting.grow(4), *boosting.grow(3)]
        outputs_2N = runtime.host(boosting.margin_BN)
    assert len(recorded) == 1
    for number, goal_N in enumerate(goal_2N):
        output_N = margin_2N[number].copy()
        how = {"seed": 2, "chosen": chosen, "share": 0.7, "rounds": 7}
        for one, other in zip(trees, spec.boost(x_CN, goal_N, None, output_N, rules, **how), strict=True):
            same_tree(one[number], other)
        np.testing.assert_array_equal(outputs_2N[number], output_N)


@pytest.mark.parametrize("rows", [1, 31, 32, 33, 300, 257])
@pytest.mark.parametrize("device", ANY_DEVICE)
def test_columns_take_four_bits_a_cell(rows: int, device: object) -> None:
    x_CN = np.random.default_rng(rows).integers(-1, 5, (5, rows)).astype(np.int8)
    with on(device):
        columns = cuda.Columns.of(Layout(3, 5).view(x_CN))
        half_CB = active().host(columns.half_CB)
        plain = cuda.Columns.of(np.abs(x_CN))
    assert columns.missing == (x_CN == -1).any()
    assert not plain.missing
    assert half_CB.shape[1] % 128 == 0
    code_CN = np.stack([half_CB & 15, half_CB >> 4], axis=2).reshape(5, -1)
    np.testing.assert_array_equal(code_CN[:, :rows], x_CN & 7)
    assert not code_CN[:, rows:].any()


@pytest.mark.parametrize("value", [5, 6, 7, 8, 100, -2, -128])
@pytest.mark.parametrize("device", ANY_DEVICE)
def test_a_value_that_is_no_level_is_named(value: int, device: object) -> None:
    x_CN = np.ones((3, 99), dtype=np.int8)
    x_CN[2, 70] = value
    with on(device), pytest.raises(ValueError, match=rf"given {value} at column 2, row 70\b"):
        cuda.Columns.of(x_CN)


@pytest.mark.parametrize("device", ANY_DEVICE)
def test_trees_that_do_not_fit_are_left_for_the_next_call(device: object, monkeypatch: pytest.MonkeyPatch) -> None:
    x_CN, goal_N, _, _, rules = made("missing", 300, 6, 2)
    monkeypatch.setattr(boosting_module, "KEPT_BYTES", 3 * (2 * 4 * 2 * 7 * 8 + 16))
    margin_2N, goal_2N = np.zeros((2, 300), np.float32), np.stack([goal_N, -goal_N])
    with on(device):
        boosting = Boosting(cuda.Columns.of(x_CN), rules, goal_2N, None, margin_2N, seed=1, chosen=3)
        trees = [*boosting.grow(5), *boosting.grow(5)]
    assert len(trees) == 6
    wanted = spec.boost(x_CN, goal_N, None, margin_2N[0], rules, seed=1, chosen=3, share=1.0, rounds=6)
    for one, other in zip(trees, wanted, strict=True):
        same_tree(one[0], other)


@pytest.mark.parametrize("scale", [1e-38, 1e-45, 1e37])
@pytest.mark.parametrize("device", ANY_DEVICE)
def test_gradients_of_any_size(scale: float, device: object) -> None:
    """Also those that float32 holds with fewer bits."""
    x_CN, gradient_N, _, columns_K, _ = made("plain", 800, 5, 3)
    gradient_N = np.rint(4 * gradient_N).astype(np.float32) * np.float32(scale)
    with on(device):
        grower = cuda.Grower(cuda.Columns.of(x_CN), Rules(max_depth=1), len(columns_K))
        grower.grow(gradient_N, None, columns_K, upload(np.zeros(800, dtype=np.float32)))
        quanta_N = active().host(grower.quanta_2[0]).view(np.int32)
    power = units(gradient_N, None).gradient
    np.testing.assert_array_equal(quanta_N, 2 * np.rint(gradient_N.astype(np.float64) * 2.0**power) + 1)


WRONG = {
    "infinite gradient": ("gradient_N", np.inf, "gradient_N: expected finite values, given inf at .*row 7"),
    "gradient NaN": ("gradient_N", np.nan, "gradient_N: expected finite values, given nan at .*row 7"),
    "negative Hessian": ("hessian_N", -1.0, "hessian_N: expected 0 or more, given -1.0 at row 7"),
    "infinite Hessian": ("hessian_N", np.inf, "hessian_N: expected finite values, given inf at .*row 7"),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("device", ANY_DEVICE)
def test_wrong_values_are_named_and_change_nothing(wrong: str, device: object) -> None:
    x_CN, gradient_N, hessian_N, columns_K, rules = made("weighed", 40, 4, 2)
    name, value, message = WRONG[wrong]
    arrays = {"gradient_N": gradient_N.copy(), "hessian_N": hessian_N.copy()}
    arrays[name][7] = value
    with on(device):
        grower, margin_N = cuda.Grower(cuda.Columns.of(x_CN), rules, 4), upload(np.ones(40, dtype=np.float32))
        with pytest.raises(ValueError, match=message):
            grower.grow(arrays["gradient_N"], arrays["hessian_N"], columns_K, margin_N)
        assert (active().host(margin_N) == 1).all()
        tree = grower.grow(gradient_N, hessian_N, columns_K, margin_N)
    same_tree(tree, spec.grow_tree(x_CN, gradient_N, hessian_N, columns_K, rules)[0])


@pytest.mark.parametrize("device", ANY_DEVICE)
def test_outputs_that_overflow_are_an_error_when_trees_are_fetched(device: object) -> None:
    x_CN, goal_N, _, _, _ = made("plain", 50, 4, 2)
    goal_1N, margin_1N = 1e38 * goal_N[None], np.full((1, 50), -3e38, "f4")
    with on(device):
        rules = Rules(eta=2.0)
        boosting = Boosting(cuda.Columns.of(x_CN), rules, goal_1N, None, margin_1N, seed=0, chosen=3)
        with pytest.raises(ValueError, match="of 0 or more"):
            boosting.grow(4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"goal_BN": np.full((1, 40), np.inf, "f4")}, "goal_BN: expected .*, given inf"),
        ({"margin_BN": np.full((1, 40), np.nan, "f4")}, "margin_BN: expected finite values, given nan"),
        ({"margin_BN": np.zeros((2, 40), "f4")}, r"margin_BN: expected shape \(1, 40\)"),
        ({"weight_N": np.full(40, -1.0, "f4")}, "weight_N: expected finite weights of 0 or more"),
        ({"weight_N": np.full(40, np.inf, "f4")}, "weight_N: expected finite weights of 0 or more"),
        ({"chosen": 5}, "chosen: expected 1..4, given 5"),
    ],
)
def test_what_cannot_be_boosted_is_named(change: dict[str, Any], message: str) -> None:
    zeros_1N = np.zeros((1, 40), "f4")
    arguments = {"goal_BN": zeros_1N, "weight_N": None, "margin_BN": zeros_1N, "seed": 0, "chosen": 2, **change}
    with on(2), pytest.raises(ValueError, match=message):
        Boosting(cuda.Columns.of(made("plain", 40, 4, 2)[0]), Rules(), **arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gradient_BN": np.zeros((3, 40), "f4")}, "gradient_BN: expected 1..2 trees, given 3"),
        ({"gradient_BN": np.zeros((2, 41), "f4")}, r"gradient_BN: expected shape \(2, 40\)"),
        ({"hessian_BN": np.zeros((1, 40), "f4")}, r"hessian_BN: expected shape \(2, 40\)"),
        ({"columns_K": np.array([0, 4])}, "expected ascending positions within 0..3"),
        ({"columns_K": np.array([1, 1])}, "expected ascending positions within 0..3"),
    ],
)
def test_wrong_arguments_are_named(change: dict[str, np.ndarray], message: str) -> None:
    x_CN, _, _, _, rules = made("plain", 40, 4, 2)
    arguments = {"gradient_BN": np.zeros((2, 40), "f4"), "hessian_BN": None, "columns_K": np.arange(2), **change}
    with on(2):
        margin_BN = upload(np.zeros((len(arguments["gradient_BN"]), 40), "f4"))
        with pytest.raises(ValueError, match=message):
            cuda.Grower(cuda.Columns.of(x_CN), rules, 2, together=2).grow_many(margin_BN=margin_BN, **arguments)


def test_more_columns_than_announced_are_refused() -> None:
    x_CN, gradient_N, _, _, rules = made("plain", 40, 50, 2)
    with on(2), pytest.raises(ValueError, match="no more columns than announced, given 50"):
        cuda.Grower(cuda.Columns.of(x_CN), rules, 20).grow(gradient_N, None, np.arange(50), upload(np.zeros(40, "f4")))


def test_memory_is_as_stated() -> None:
    rng = np.random.default_rng(0)
    x_CN = rng.integers(0, 5, (70, 20_000)).astype(np.int8)
    with on(2):
        grower = cuda.Grower(cuda.Columns.of(x_CN), Rules(max_depth=4), 70, together=2, kept=3)
        ones_BN = upload(np.ones((2, 20_000), "f4"))
        grower.grow_many(ones_BN * 0.3, ones_BN * 0.7, np.arange(70), ones_BN)
        held = [*vars(grower).values()]
        arrays = [part for whole in held for part in (whole if isinstance(whole, list) else [whole])]
        taken = sum(part.nbytes for part in arrays if isinstance(part, active().xp.ndarray))
    planned = cuda.bytes_needed(20_000, 70, 4, 2, 3, weighed=True)
    assert planned == pytest.approx(taken, rel=0.01)

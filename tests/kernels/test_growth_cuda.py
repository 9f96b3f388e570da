"""The grower of cu/grow.cu against its specification, on the emulator and on a GPU."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from eravane_kernels.cuda import growth as cuda
from eravane_kernels.cuda.boosting import Boosting
from eravane_kernels.cuda.runtime import active, upload, use
from eravane_kernels.growth import Rules, Tree
from eravane_kernels.spec import growth as spec

from .emulator.cases import Layout
from .emulator.devices import ANY_DEVICE, DEVICES, on

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


def same_tree(given: Tree, wanted: Tree) -> None:
    for field in dataclasses.fields(Tree):
        np.testing.assert_array_equal(getattr(given, field.name), getattr(wanted, field.name), err_msg=field.name)


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
        grower = cuda.Grower(Layout(3, 2).view(x_CN), Rules(), width)
        grower.grow(np.ones(rows, dtype=np.float32), None, columns_K, upload(np.zeros(rows, dtype=np.float32)))
        record_NS = active().host(grower._record).reshape(rows, stride)
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
        grower, device_BN = cuda.Grower(x_CN, rules, len(columns_K), together=5), upload(margin_BN)
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
        grower = cuda.Grower(x_CN, rules, 9)
        for columns_K, own_N in turns:
            margin_N = upload(np.zeros(900, dtype=np.float32))
            tree = grower.grow(gradient_N, own_N, columns_K, margin_N)
            equal((tree, margin_N), spec.grow_tree(x_CN, gradient_N, own_N, columns_K, rules))


@dataclasses.dataclass
class Boosted:
    """Squared error boosted by the specification, as `Boosting` boosts it."""

    x_CN: np.ndarray
    goal_N: np.ndarray
    hessian_N: np.ndarray | None
    rules: Rules

    def trees(self, margin_N: np.ndarray, turns: list[tuple]) -> tuple[list[Tree], np.ndarray]:
        grown = []
        for columns_K, drawn_N in turns:
            counted_N = self.hessian_N
            if drawn_N is not None:
                counted_N = drawn_N.astype(np.float32) * (1 if counted_N is None else counted_N)
            gradient_N = margin_N - self.goal_N
            gradient_N = gradient_N if counted_N is None else gradient_N * counted_N
            tree, output_N = spec.grow_tree(self.x_CN, gradient_N, counted_N, columns_K, self.rules)
            grown.append(tree)
            margin_N = margin_N + output_N
        return grown, margin_N


@pytest.mark.parametrize("weights", ["none", "absent", "any"])
@pytest.mark.parametrize("sampled", [False, True])
@pytest.mark.parametrize("device", DEVICES)
def test_boosting_reads_nothing_back_and_grows_the_trees_of_the_specification(
    weights: str, sampled: bool, device: object
) -> None:
    def refuse(_array: object) -> None:
        raise AssertionError("an array is read back")

    kind = {"none": "plain", "absent": "strict", "any": "weighed"}[weights]
    x_CN, gradient_N, hessian_N, _, _ = made(kind, 1_200, 8, 3)
    rng, rules = np.random.default_rng(3), Rules(max_depth=3, eta=0.3)
    goal_BN = np.stack([gradient_N, np.roll(gradient_N, 7)])
    hessian_BN = None if hessian_N is None else np.stack([hessian_N, hessian_N[::-1]])
    turns = [(np.sort(rng.choice(8, 4, replace=False)), rng.random(1_200) < 0.6 if sampled else None) for _ in range(5)]
    margin_BN = np.full_like(goal_BN, 0.5)
    with on(device) as runtime:
        boosting = Boosting(cuda.Grower(x_CN, rules, 4, 2, kept=9), goal_BN, hessian_BN, margin_BN)
        with use(dataclasses.replace(runtime, host=refuse)):
            for columns_K, drawn_N in turns:
                boosting.step(columns_K, drawn_N)
        trees, given_BN = boosting.trees(), active().host(boosting.margin_BN)
        few = Boosting(cuda.Grower(x_CN, rules, 4, 2, kept=2), goal_BN, hessian_BN, margin_BN)
        for columns_K, drawn_N in turns:
            few.step(columns_K, drawn_N)
        for one, other in zip([*trees[0], *trees[1]], [*few.trees()[0], *few.trees()[1]], strict=True):
            same_tree(one, other)
    for number, goal_N in enumerate(goal_BN):
        own_N = None if hessian_BN is None else hessian_BN[number]
        wanted, output_N = Boosted(x_CN, goal_N, own_N, rules).trees(margin_BN[number], turns)
        for one, other in zip(trees[number], wanted, strict=True):
            same_tree(one, other)
        np.testing.assert_array_equal(given_BN[number], output_N)


@pytest.mark.parametrize("scale", [1e-38, 1e-45, 1e37])
@pytest.mark.parametrize("device", ANY_DEVICE)
def test_gradients_of_any_size(scale: float, device: object) -> None:
    """Times a power of two they are integers of 29 bits; subnormal ones are not lost."""
    x_CN, gradient_N, _, columns_K, _ = made("plain", 800, 5, 3)
    gradient_N = np.rint(4 * gradient_N).astype(np.float32)
    rules = Rules(max_depth=1, reg_lambda=0.0, min_child_weight=0.0)
    with on(device):
        grower, margin_N = cuda.Grower(x_CN, rules, len(columns_K)), upload(np.zeros(800, dtype=np.float32))
        grower.grow(gradient_N * np.float32(scale), None, columns_K, margin_N)
        quanta_N = active().host(grower._quanta_2[0]).view(np.int32) >> 1
        root = active().host(grower._tree_TBM7)[0, 0, 0]
    wanted_N = gradient_N * np.float32(scale)
    power = np.rint(np.log2(np.abs(quanta_N).max() / np.abs(wanted_N.astype(np.float64)).max()))
    np.testing.assert_array_equal(quanta_N, np.rint(wanted_N.astype(np.float64) * 2.0**power))
    assert 2**28 <= np.abs(quanta_N).max() <= 2**29
    assert root[5:6].view(np.float64) == 800


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
        grower, margin_N = cuda.Grower(x_CN, rules, 4), upload(np.ones(40, dtype=np.float32))
        with pytest.raises(ValueError, match=message):
            grower.grow(arrays["gradient_N"], arrays["hessian_N"], columns_K, margin_N)
        assert (active().host(margin_N) == 1).all()
        tree = grower.grow(gradient_N, hessian_N, columns_K, margin_N)
    same_tree(tree, spec.grow_tree(x_CN, gradient_N, hessian_N, columns_K, rules)[0])


@pytest.mark.parametrize("device", ANY_DEVICE)
def test_outputs_that_overflow_are_an_error_when_trees_are_fetched(device: object) -> None:
    x_CN, goal_N, _, columns_K, rules = made("plain", 50, 4, 2)
    with on(device):
        boosting = Boosting(
            cuda.Grower(x_CN, rules, 4, kept=4), 1e38 * goal_N[None], None, np.full((1, 50), -3e38, "f4")
        )
        for _ in range(3):
            boosting.step(columns_K)
        with pytest.raises(ValueError, match="gradients of tree 0: expected finite ones"):
            boosting.trees()


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
            cuda.Grower(x_CN, rules, 2, together=2).grow_many(margin_BN=margin_BN, **arguments)


def test_more_columns_than_were_said_are_refused() -> None:
    x_CN, gradient_N, _, _, rules = made("plain", 40, 50, 2)
    with on(2), pytest.raises(ValueError, match="no more columns than was said, given 50"):
        cuda.Grower(x_CN, rules, 20).grow(gradient_N, None, np.arange(50), upload(np.zeros(40, "f4")))


def test_memory_is_what_was_said() -> None:
    rng = np.random.default_rng(0)
    x_CN = rng.integers(0, 5, (70, 20_000)).astype(np.int8)
    with on(2):
        grower = cuda.Grower(x_CN, Rules(max_depth=4), 70, together=2, kept=3)
        ones_BN = upload(np.ones((2, 20_000), "f4"))
        grower.grow_many(ones_BN * 0.3, ones_BN * 0.7, np.arange(70), ones_BN)
        held = [*vars(grower).values()]
        arrays = [part for whole in held for part in (whole if isinstance(whole, list) else [whole])]
        taken = sum(
            part.nbytes for part in arrays if isinstance(part, active().xp.ndarray) and part.shape != x_CN.shape
        )
    said = cuda.bytes_needed(20_000, 70, 4, 2, 3, weighed=True)
    assert said == pytest.approx(taken, rel=0.01)

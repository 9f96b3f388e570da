"""Bugs planted in the real kernels are caught: what shows that the net holds."""

from __future__ import annotations

import re

import pytest

from eravane_kernels.cuda.runtime import SOURCES
from tests.support.emulator import EmulatorError, compiler_missing
from tests.support.emulator.cases import CASES, EDGES, FEW, Layout, assert_matches
from tests.support.emulator.devices import on
from tests.support.emulator.sanitize import run

pytestmark = pytest.mark.skipif(bool(compiler_missing()), reason=compiler_missing())

SORT_BARRIER = (
    "keys[place(first + i * least)] = held[i];\n    }\n    __syncthreads();",
    "keys[place(first + i * least)] = held[i];\n    }",
)
RACES = {
    "between the passes of a sort": ("rank_double", SORT_BARRIER),
    "between two runs of a block": (
        "rank_float",
        ("Keys<T>::of(values[row])));\n        __syncthreads();", "Keys<T>::of(values[row])));"),
    ),
    "between the warps' parts and their sum": (
        "float_stats",
        ("partial[threadIdx.x / WARP] = value;\n    __syncthreads();", "partial[threadIdx.x / WARP] = value;"),
    ),
    "between a stage's readers and the copy that takes its place": (
        "level_counts",
        ("if (reached_) {\n                __syncwarp();", "if (reached_) {"),
    ),
    "between zeroing and counting": (
        "deviations",
        ("bins[bin] = 0;\n    __syncthreads();", "bins[bin] = 0;"),
    ),
    "between the records of a stage and their sums": (
        "growth",
        ("tile, word);\n            __syncthreads();", "tile, word);"),
    ),
    "between the leaves that warps reach and their sum": (
        "forest_levels",
        ("__uint_as_float(here[i].y);\n            __syncthreads();", "__uint_as_float(here[i].y);"),
    ),
    "between a sum and the leaves that take its place": (
        "forest_floats",
        ("tree += ROUND, half ^= 1", "tree += ROUND"),
    ),
    "between what a tile's rows weigh and their sums": (
        "leaves_levels",
        (
            "widen(label_N[row])) : 0.0;\n                }\n                __syncthreads();",
            "widen(label_N[row])) : 0.0; }",
        ),
    ),
    "between renewed leaves and the margins that they are added to": (
        "leaves_floats",
        ("own_sum[1] = 0.0;\n            }\n            __syncthreads();", "own_sum[1] = 0.0; }"),
    ),
}
OUT_OF_BOUNDS = {
    "past the end of an array": ("apply_table", ("i < part.vectors", "i <= part.vectors")),
    "one value past a run": ("rank_float", ("slot < rows ?", "slot <= rows ?")),
    "past dynamic shared memory": ("rank_float", ("slot + (slot >> 5)", "slot + (slot >> 4)")),
    "past static shared memory": (
        "float_stats",
        ("partial[threadIdx.x / WARP] = value", "partial[threadIdx.x / WARP + 1] = value"),
    ),
    "a vector past the end of a column": ("growth", ("place - past + 2 * WIDE_BYTES <= rows", "place < rows")),
    "a row past the last one of a tile": (
        "leaves_levels",
        ("first + slot < rows) listed", "first + slot <= rows) listed"),
    ),
    "past a table": ("corr_double", ("return first + 1 + end;", "return first + 1 + end + 2 * rows;")),
}
WRONG_RESULTS = {
    "a stage that is read before it has come": (
        "level_counts",
        ("await(stages_.arrived", "if (number < 0) await(stages_.arrived"),
    ),
    "an era's end that is not masked": (
        "era_stats",
        ("masked(stream.vector(whole), 0, last % VECTOR_BYTES)", "stream.vector(whole)"),
    ),
    "shared memory read before it is written": ("deviations", ("bins[bin] = 0;", ";")),
    "an output that stays unwritten": ("apply_table", ("if (lane < part.tail) to[tail]", "if (lane > 99) to[tail]")),
    "padding that sorts among the keys": (
        "rank_float",
        ("Keys<T>::of(values[slot]) : Keys<T>::NONE", "Keys<T>::of(values[slot]) : 0"),
    ),
    "a byte counter that overflows": ("level_counts", ("VECTORS_PER_FLUSH = 63", "VECTORS_PER_FLUSH = 80")),
    "a vector cut at the wrong byte": ("growth", ("if (past & 4) {", "if (past & 2) {")),
    "sums that the last level left": ("growth", ("upcoming[number * each + i] = 0;", ";")),
    "a missing value on the other side": ("forest_floats", ("? split.x & 1 :", "? !(split.x & 1) :")),
    "a value at the threshold that goes left": (
        "forest_levels",
        ("< Keys<float>::of(__uint_as_float(threshold))", "<= Keys<float>::of(__uint_as_float(threshold))"),
    ),
    "the last trees of a round": (
        "forest_levels",
        ("i < ROUND && tree + i < trees", "i < ROUND && tree + ROUND <= trees"),
    ),
    "sums that a tile begins anew": (
        "leaves_levels",
        ("double gradients = own_sum[0], masses = own_sum[1];", "double gradients = 0.0, masses = 0.0;"),
    ),
    "sums that the last tree left": ("leaves_levels", ("own_sum[0] = own_sum[1] = 0.0;", ";")),
    "rows of a leaf in another order": (
        "leaves_floats",
        ("<< 32 | row;\n                here", "<< 32 | (row ^ 1);\n here"),
    ),
    "a row without a label that is counted": ("leaves_floats", ("!is_nan(label_N[row])", "true")),
    "the leaves of another model": ("leaves_levels", ("label + model * rows", "label")),
    "a bit of another row": ("place_floats", (">> (row & 7)", ">> (row & 3)")),
    "a gradient whose sign is lost": ("growth", ("if (byte == BYTES - 1)\n", "if (byte == BYTES)\n")),
    "a barrier missing, in another order": ("rank_double", SORT_BARRIER),
}
REFUSED = {
    "a warp mask without some of its lanes": (
        "level_counts",
        ("ALL_LANES = 0xffffffffu", "ALL_LANES = 0x0000ffffu"),
        "not in the warp mask",
    ),
    "a warp operation that some lanes skip": (
        "float_stats",
        ("value = operation(value, __shfl_xor", "if (threadIdx.x % WARP < 20) value = operation(value, __shfl_xor"),
        "not all threads reach",
    ),
    "a barrier that some threads skip": (
        "rank_float",
        ("    sort<THREADS>(keys, slots);\n}", "    if (threadIdx.x < 64) sort<THREADS>(keys, slots);\n}"),
        "not all threads reach|different __syncthreads",
    ),
}


def quick(cases):
    """The first case always, the others in the full run."""
    return [pytest.param(name, marks=[pytest.mark.full] if number else []) for number, name in enumerate(cases)]


def test_every_bug_can_be_planted():
    """Also those of the full run."""
    for bugs in (RACES, OUT_OF_BOUNDS, WRONG_RESULTS, REFUSED):
        for _, edit, *_ in bugs.values():
            assert_applies(edit)


@pytest.mark.parametrize("what", quick(RACES))
def test_thread_sanitizer_reports_a_missing_barrier(what):
    case, edit = RACES[what]
    assert_applies(edit)
    done = run("thread", case, edit=edit)
    assert done.returncode != 0
    assert "ThreadSanitizer: data race" in done.stderr
    # clang's runtime asks llvm-symbolizer for names, and says so where it is not installed.
    assert ".cu" in done.stderr or "external symbolizer" in done.stderr, "the report names the kernel's file"


@pytest.mark.parametrize("what", quick(OUT_OF_BOUNDS))
def test_address_sanitizer_reports_an_access_out_of_bounds(what):
    case, edit = OUT_OF_BOUNDS[what]
    assert_applies(edit)
    done = run("address", case, edit=edit)
    assert done.returncode != 0
    assert "AddressSanitizer: " in done.stderr
    # What lies past an array may be memory that somebody else has freed, or (clang) an address that is none.
    assert re.search("buffer-overflow|use-after-free|SEGV", done.stderr)


@pytest.mark.parametrize("what", quick(WRONG_RESULTS))
def test_the_specification_disagrees(what):
    case, edit = WRONG_RESULTS[what]
    assert_applies(edit)
    # Which of the two sees it first depends on the order of threads.
    with on(1, edit=edit), pytest.raises((AssertionError, ValueError, EmulatorError)):
        assert_matches(CASES[case], (*EDGES, 40_000) if case == "level_counts" else EDGES, Layout())


@pytest.mark.parametrize("what", quick(REFUSED))
def test_the_emulator_refuses(what):
    case, edit, message = REFUSED[what]
    assert_applies(edit)
    with on(0, edit=edit), pytest.raises(EmulatorError, match=message):
        assert_matches(CASES[case], FEW, Layout())


def assert_applies(edit):
    """The bug is really planted: the sources still hold what it replaces."""
    assert any(edit[0] in path.read_text() for path in SOURCES.iterdir()), edit[0]

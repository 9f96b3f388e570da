"""Every kernel against the specification, on the emulator and on a GPU."""

from __future__ import annotations

import numpy as np
import pytest

from eravane_kernels import cuda, spec
from eravane_kernels.cuda.growth import Columns
from eravane_kernels.cuda.runtime import active
from tests.support.emulator.cases import CASES, EDGES, LONG, Layout, assert_matches, offsets, outcome
from tests.support.emulator.devices import ANY_DEVICE, DEVICES, on

SORTING = ("float_stats", "rank_float", "rank_double", "gaussianize", "corr_float", "corr_double")
LAYOUTS = [Layout(before, between) for before, between in ((0, 0), (1, 0), (7, 9), (15, 1), (3, 16))]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("device", DEVICES)
def test_equals_the_specification(name, device):
    with on(device):
        assert_matches(CASES[name], EDGES, Layout(3, 5))


@pytest.mark.full
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("seed", range(3))
def test_equals_the_specification_on_long_eras(name, device, seed):
    with on(device):
        assert_matches(CASES[name], LONG, Layout(seed, 1), seed)


@pytest.mark.full
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("device", ANY_DEVICE)
def test_alignment_changes_nothing(name, layout, device):
    with on(device):
        assert_matches(CASES[name], (*EDGES, 700, 17), layout, seed=5)


@pytest.mark.parametrize("name", SORTING)
@pytest.mark.parametrize("device", [2])
def test_sorts_in_global_memory_where_shared_memory_is_small(name, device):
    with on(device, shared_bytes=1 << 11):
        assert_matches(CASES[name], (300, 0, 2, 700), Layout())


@pytest.mark.full
@pytest.mark.gpu
@pytest.mark.parametrize("name", SORTING)
def test_sorts_in_global_memory_on_a_gpu(name):
    with on("gpu"):
        assert_matches(CASES[name], (100_000, 3), Layout())


@pytest.mark.parametrize("name", CASES)
def test_results_are_the_same_bits_in_every_order_layout_and_company(name):
    """Eras around an era, alignment, the turns of threads: none of it moves a bit of the era's result."""
    with on(0):
        alone = outcome(CASES[name], (0, 0, 300), Layout())
        again = outcome(CASES[name], (0, 0, 300), Layout(5, 7))
    with on(3):
        shuffled = outcome(CASES[name], (0, 0, 300), Layout(1, 2))
    for (part, given, _), (_, moved, _), (_, turned, _) in zip(alone, again, shuffled, strict=True):
        assert given.tobytes() == np.ascontiguousarray(moved).tobytes(), part
        assert given.tobytes() == np.ascontiguousarray(turned).tobytes(), part


@pytest.mark.gpu
@pytest.mark.parametrize("name", CASES)
def test_a_gpu_gives_the_bits_of_the_emulator(name):
    with on(0):
        emulated = outcome(CASES[name], (*EDGES, 5_000), Layout(2, 3))
    with on("gpu"):
        given = outcome(CASES[name], (*EDGES, 5_000), Layout(2, 3))
    for (part, here, _), (_, there, _) in zip(emulated, given, strict=True):
        assert np.ascontiguousarray(here).tobytes() == np.ascontiguousarray(there).tobytes(), part


@pytest.mark.parametrize("device", ANY_DEVICE)
def test_no_other_era_moves_a_bit(device):
    random = np.random.default_rng(1)
    x_CN, y_N = random.normal(size=(3, 900)).astype(np.float32), random.normal(size=900)
    others_CN = random.normal(size=x_CN.shape).astype(np.float32)
    others_CN[:, 400:700] = x_CN[:, 400:700]
    with on(device) as runtime:
        for function in (_moments, lambda p_MN, eras: cuda.numerai_corr(p_MN, y_N, eras)):
            one = runtime.host(function(x_CN, offsets((100, 300, 300, 200))))
            two = runtime.host(function(others_CN, offsets((399, 1, 300, 1, 199))))
            assert one[..., 2].tobytes() == two[..., 2].tobytes()


def _moments(x_CN, eras):
    stats = cuda.float_stats(x_CN, eras)
    return active().xp.stack([stats.mean_EC.T, stats.std_EC.T, *(part.T for part in stats.quantiles_QEC)])


@pytest.mark.parametrize("device", ANY_DEVICE)
def test_offsets_beyond_31_bits(device):
    """Columns 2^24 bytes apart: the last lies 2^31 bytes and more after the first; untouched pages cost no memory."""
    width, apart = 150, 1 << 24
    with on(device) as runtime:
        buffer = runtime.xp.zeros(width * apart, dtype=np.int8).reshape(width, apart)
        buffer[:, 5:45] = runtime.xp.asarray(np.arange(width * 40).reshape(width, 40).astype(np.int8) % 5)
        values = runtime.host(buffer[:, 5:45])
        counts = runtime.host(cuda.level_counts(buffer[:, 5:45], offsets((0, 33, 7))))
    np.testing.assert_array_equal(counts, spec.level_counts(values, offsets((0, 33, 7))))


@pytest.mark.full
def test_more_than_2_31_cells():
    """One column seen 2,100 times, with no stride between columns."""
    values = np.random.default_rng(0).integers(-1, 5, 1 << 20).astype(np.int8)
    eras = offsets((5, (1 << 20) - 5))
    with on(0) as runtime:
        column = runtime.xp.asarray(values)
        many = np.lib.stride_tricks.as_strided(column, (2100, 1 << 20), (0, 1), subok=True)
        assert many.size > 2**31
        counts = runtime.host(cuda.level_counts(many, eras))
    expected = spec.level_counts(values[None], eras)
    np.testing.assert_array_equal(counts, np.broadcast_to(expected, counts.shape))


@pytest.mark.gpu
def test_results_beyond_2_31_cells_on_a_gpu():
    """Columns that lie whole on the device, the last beyond 2^31 bytes: counted, described, replaced, halved."""
    width, eras = 70_000, offsets((30_001, 999))
    values = np.random.default_rng(0).integers(-1, 5, int(eras[-1])).astype(np.int8)
    table_2L = np.random.default_rng(1).integers(-1, 5, (2, 6)).astype(np.int8)
    counts = spec.level_counts(values[None], eras)
    with on("gpu") as runtime:
        xp, host = runtime.xp, runtime.host
        x_CN = xp.empty((width, len(values)), dtype=np.int8)
        x_CN[...] = xp.asarray(values)
        assert x_CN.size > 2**31
        np.testing.assert_array_equal(host(cuda.level_counts(x_CN, eras)), np.broadcast_to(counts, (2, width, 6)))
        stats, wanted = cuda.era_stats(x_CN, eras), spec.level_stats(counts)
        assert bool((stats.mode_EC == xp.asarray(wanted.mode_EC)).all())
        assert bool((stats.quantiles_QEC == xp.asarray(wanted.quantiles_QEC)).all())
        table_ECL = xp.ascontiguousarray(xp.broadcast_to(xp.asarray(table_2L[:, None]), (2, width, 6)))
        made = spec.apply_table(values[None], eras, table_2L[:, None])[0]
        replaced_CN = cuda.apply_table(x_CN, eras, table_ECL)
        for first in range(0, width, 10_000):
            assert bool((replaced_CN[first : first + 10_000] == xp.asarray(made)).all())
        del replaced_CN
        half_CB = Columns.of(x_CN).half_CB
        assert bool((half_CB == half_CB[:1]).all())
        assert half_CB.size > 2**30


@pytest.mark.parametrize("rows", [(), (0,), (0, 0), (4,)], ids=str)
@pytest.mark.parametrize("columns", [0, 1])
@pytest.mark.parametrize("device", ANY_DEVICE)
def test_empty_and_single(rows, columns, device):
    eras = offsets(rows)
    total = int(eras[-1])
    x_CN, p_MN = np.ones((columns, total), np.float32), np.arange(columns * total).reshape(columns, total) * 1.0
    y_N = np.arange(total) * 0.25
    with on(device) as runtime:
        host = runtime.host
        for name in ("level_counts", "missing_indicators"):
            arguments = (x_CN.astype(np.int8),) if name == "missing_indicators" else (x_CN.astype(np.int8), eras)
            np.testing.assert_array_equal(host(getattr(cuda, name)(*arguments)), getattr(spec, name)(*arguments))
        np.testing.assert_array_equal(host(cuda.float_stats(x_CN, eras).mode_EC), spec.float_stats(x_CN, eras).mode_EC)
        np.testing.assert_array_equal(host(cuda.rank(p_MN, eras)), spec.rank(p_MN, eras))
        given, expected = host(cuda.numerai_corr(p_MN, y_N, eras)), spec.numerai_corr(p_MN, y_N, eras)
        np.testing.assert_allclose(given, expected, rtol=0, atol=1e-12)

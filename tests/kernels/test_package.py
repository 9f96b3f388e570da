"""What the package promises as a whole: light imports, one set of signatures, results that do not move."""

from __future__ import annotations

import subprocess
import sys
import threading
from functools import partial

import numpy as np
import pytest

from eravane_kernels import cpu, spec


@pytest.mark.parametrize("module", ["eravane_kernels", "eravane_kernels.spec"])
def test_imports_stay_light(module):
    program = f"import sys, {module}; sys.exit('numba' in sys.modules or 'cupy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_results_do_not_depend_on_threads(rng):
    x_CN = rng.integers(-1, 5, (30, 4000)).astype(np.int8)
    p_MN = rng.normal(size=(8, 4000))
    offsets = np.array([0, 1500, 4000], dtype=np.int64)
    calls = [
        partial(cpu.level_counts, x_CN, offsets),
        partial(cpu.rank, p_MN, offsets),
        partial(cpu.gram, p_MN, offsets),
    ]
    wanted = [call() for call in calls]
    results: list[list[np.ndarray]] = [[] for _ in range(4)]
    threads = [threading.Thread(target=lambda r=r: r.extend(call() for call in calls)) for r in results]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        for given, alone in zip(result, wanted, strict=True):
            np.testing.assert_array_equal(given, alone)


def test_inputs_are_left_as_they_were(rng):
    x_CN = rng.normal(size=(4, 300)).astype(np.float32)
    x_CN[rng.random(x_CN.shape) < 0.2] = np.nan
    p_MN, y_N = rng.normal(size=(3, 300)), rng.integers(0, 5, 300) / 4.0
    f_FN = rng.integers(0, 5, (5, 300)).astype(np.int8)
    offsets = np.array([0, 100, 300], dtype=np.int64)
    given = (x_CN, p_MN, y_N, f_FN, offsets)
    before = [array.copy() for array in given]
    for ops in (spec, cpu):
        ops.clip(x_CN, offsets, *ops.clip_bounds(x_CN, offsets))
        ops.fill(x_CN, offsets, ops.fill_values(x_CN, offsets, "median"))
        ops.knn_impute(x_CN, offsets)
        ops.neutralize(p_MN, f_FN, offsets)
        ops.feature_neutral_corr(p_MN, f_FN, y_N, offsets)
        ops.contribution(p_MN, y_N, y_N, offsets)
    for array, old in zip(given, before, strict=True):
        np.testing.assert_array_equal(array, old)


def test_read_only_arrays_are_taken(rng):
    x_CN = rng.integers(0, 5, (4, 300)).astype(np.int8)
    offsets = np.array([0, 100, 300], dtype=np.int64)
    writable = cpu.era_stats(x_CN, offsets)
    for array in (x_CN, offsets):
        array.flags.writeable = False
    np.testing.assert_array_equal(cpu.era_stats(x_CN, offsets).mean_EC, writable.mean_EC)
    np.testing.assert_array_equal(cpu.apply_table(x_CN, offsets, cpu.fill_table(np.ones((2, 4)))), x_CN)

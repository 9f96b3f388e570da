"""The CUDA half as a whole: same interface as the specification, same errors, nothing of CuPy before it is needed."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from eravane_kernels import cuda, spec
from eravane_kernels.cuda import cross_section
from eravane_kernels.cuda.runtime import SOURCES, source
from tests.support.emulator.cases import offsets
from tests.support.emulator.devices import ANY_DEVICE, on

ERAS = offsets((4, 0, 300))
PACKAGE = Path(cuda.__file__).parent


def test_importing_the_kernels_imports_no_gpu_library():
    script = (
        "import sys, eravane_kernels.cuda\n"
        "assert not {'cupy', 'cupyx', 'cuda', 'torch'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_every_function_that_is_asked_of_cupy_exists_there():
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    for path in PACKAGE.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            dotted = isinstance(node, ast.Attribute) and re.fullmatch(r"(?:.*\.)?xp((?:\.\w+)+)", ast.unparse(node))
            if dotted:
                found = cupy
                for part in dotted.group(1).split(".")[1:]:
                    assert hasattr(found, part), ast.unparse(node)
                    found = getattr(found, part)


@pytest.mark.parametrize("name", sorted(path.stem for path in SOURCES.glob("*.cu")))
def test_sources_are_whole(name):
    text = source(name)
    assert "#include" not in text
    assert text.startswith(f'#line 1 "{name}.cu"')


LEVELS = np.ones((3, 304), np.int8)
FLOATS = np.ones((3, 304), np.float32)
BAD_CALLS = {
    "a level out of range": (
        "level_counts",
        (np.where(np.arange(912).reshape(3, 304) == 700, 5, LEVELS).astype(np.int8), ERAS),
    ),
    "a level below missing": (
        "level_counts",
        (np.where(np.arange(912).reshape(3, 304) == 304, -2, LEVELS).astype(np.int8), ERAS),
    ),
    "an infinity among floats": (
        "float_stats",
        (np.where(FLOATS.cumsum(1) == 9, np.inf, FLOATS).astype(np.float32), ERAS),
    ),
    "an infinity to clip": (
        "clip",
        (
            np.where(FLOATS.cumsum(1) == 304, -np.inf, FLOATS).astype(np.float32),
            ERAS,
            np.zeros((3, 3)),
            np.ones((3, 3)),
        ),
    ),
    "a prediction that is NaN": ("rank", (np.where(FLOATS.cumsum(1) == 5, np.nan, FLOATS), ERAS)),
    "another dtype": ("level_counts", (FLOATS, ERAS)),
    "rows side by side": ("level_counts", (np.asfortranarray(LEVELS), ERAS)),
    "offsets that fall": ("rank", (FLOATS, np.array([0, 9, 4, 304]))),
    "offsets that overrun": ("rank", (FLOATS, np.array([0, 305]))),
    "offsets of 32 bits": ("rank", (FLOATS, ERAS.astype(np.int32))),
    "a table for other eras": ("apply_table", (LEVELS, ERAS, np.zeros((2, 3, 6), np.int8))),
    "bounds that cross": ("clip", (FLOATS, ERAS, np.ones((3, 3)), np.zeros((3, 3)))),
    "a quantile beyond 1": ("float_stats", (FLOATS, ERAS, (0.5, 1.5))),
    "labels of another length": ("numerai_corr", (FLOATS, np.zeros(7), ERAS)),
    "an infinite label": ("numerai_corr", (FLOATS, np.full(304, np.inf), ERAS)),
    "a feature that is missing": ("exposure", (FLOATS, -LEVELS, ERAS)),
}


@pytest.mark.parametrize("what", BAD_CALLS)
@pytest.mark.parametrize("device", ANY_DEVICE)
def test_bad_input_is_refused_in_the_specification_s_words(what, device):
    function, arguments = BAD_CALLS[what]
    with pytest.raises(ValueError) as expected:
        getattr(spec, function)(*arguments)
    with on(device), pytest.raises(ValueError) as given:
        getattr(cuda, function)(*arguments)
    assert str(given.value) == str(expected.value)


@pytest.mark.parametrize("device", ANY_DEVICE)
def test_device_arrays_are_checked_as_host_arrays_are(device):
    with on(device) as runtime:
        with pytest.raises(ValueError, match="contiguous columns"):
            cuda.level_counts(runtime.xp.asarray(LEVELS)[:, ::2], offsets((152,)))
        with pytest.raises(ValueError, match="int8"):
            cuda.level_counts(runtime.xp.asarray(FLOATS), ERAS)
        with pytest.raises(ValueError, match="int64"):
            cuda.level_counts(LEVELS, runtime.xp.asarray(ERAS.astype(np.int32)))
        with pytest.raises(ValueError, match=r"x_CN: expected a .* or NumPy array, given list"):
            cuda.level_counts([[1, 2]], ERAS)


@pytest.mark.parametrize("device", ANY_DEVICE)
def test_everything_may_lie_on_the_device_and_stays_there(device):
    random = np.random.default_rng(3)
    x_CN, p_MN = random.integers(-1, 5, (3, 304)).astype(np.int8), random.normal(size=(2, 304))
    y_N = random.choice([0.0, 0.5, 1.0, np.nan], 304)
    with on(device) as runtime:
        there = runtime.xp.asarray
        low_EC, high_EC = cuda.clip_bounds(there(x_CN), there(ERAS), "std", k=1.0)
        table_ECL = cuda.compose_tables(cuda.clip_table(low_EC, high_EC), cuda.fill_table(low_EC))
        results = [
            cuda.apply_table(there(x_CN), there(ERAS), table_ECL),
            cuda.contribution(there(p_MN), there(p_MN[1]), there(y_N), there(ERAS)),
            cuda.feature_neutral_corr(there(p_MN), there(np.abs(x_CN[:2])), there(y_N), there(ERAS)),
            cuda.missing_eras(cuda.level_counts(there(x_CN), ERAS)),
        ]
        assert all(isinstance(result, runtime.xp.ndarray) for result in results)
        given = [runtime.host(result) for result in results]
    low_EC, high_EC = spec.clip_bounds(x_CN, ERAS, "std", k=1.0)
    table_ECL = spec.compose_tables(spec.clip_table(low_EC, high_EC), spec.fill_table(low_EC))
    np.testing.assert_array_equal(given[0], spec.apply_table(x_CN, ERAS, table_ECL))
    np.testing.assert_allclose(given[1], spec.contribution(p_MN, p_MN[1], y_N, ERAS), rtol=0, atol=1e-13)
    np.testing.assert_allclose(
        given[2], spec.feature_neutral_corr(p_MN, np.abs(x_CN[:2]), y_N, ERAS), rtol=0, atol=1e-12
    )
    np.testing.assert_array_equal(given[3], spec.missing_eras(spec.level_counts(x_CN, ERAS)))


def test_powers_of_labels_are_made_once_for_the_same_bytes_and_eras(monkeypatch):
    made, random = [], np.random.default_rng(0)
    real = cross_section.powered_label
    monkeypatch.setattr(cross_section, "powered_label", lambda label: made.append(len(label)) or real(label))
    p_MN, y_N = random.normal(size=(2, 304)), random.choice([0.0, 0.25, 0.5, 0.75, 1.0, np.nan], 304)
    changed_N, parts = y_N.copy(), offsets((200, 104))
    changed_N[7] = 0.75 if y_N[7] == 1.0 else 1.0
    asked = [(y_N, ERAS, 2), (y_N.copy(), ERAS, 0), (changed_N, ERAS, 2), (y_N, parts, 2), (y_N.astype("f4"), parts, 2)]
    asked += [(y_N, ERAS, 0), (y_N[::-1].copy(), ERAS, 2), (changed_N, ERAS, 2)]  # four are kept, by least recent use
    with on(0) as runtime:
        cross_section.forget_labels()
        for label_N, eras, eras_made in asked:
            made.clear()
            found = runtime.host(cuda.numerai_corr(p_MN, label_N, eras))
            assert len(made) == eras_made
            np.testing.assert_allclose(found, spec.numerai_corr(p_MN, label_N, eras), rtol=0, atol=1e-12)
        made.clear()
        cross_section.forget_labels()
        cuda.numerai_corr(p_MN, changed_N, ERAS)
    assert len(made) == 2


def test_room_that_one_thread_asked_for_is_not_taken_back_by_another():
    """The setting is the kernel's, not a launch's: a smaller era in between would fail the launch of a larger one."""
    random = np.random.default_rng(0)
    with on(0) as runtime:
        for rows in (9_000, 5_000):
            cuda.rank(random.normal(size=(1, rows)), offsets((rows,)))
        allowed = runtime.kernel("rank", "rank_double").max_dynamic_shared_size_bytes
        assert allowed >= 8 * (1 << 14)  # keys of 9,000 rows take as many places
        assert allowed <= runtime.shared_bytes

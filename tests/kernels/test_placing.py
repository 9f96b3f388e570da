"""Columns of a file become a matrix of a store: as Arrow and NumPy convert them, bit for bit, and their faults."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hn

from eravane_kernels import cuda, spec
from eravane_kernels.spec.placing import BEYOND, REFUSED
from tests.support.emulator.devices import DEVICES, on

KINDS = {"int8": np.int8, "float32": np.float32, "float64": np.float64}


@st.composite
def cases(draw):
    rows, width = draw(st.integers(1, 70)), draw(st.integers(1, 19))
    kind = draw(st.sampled_from(list(KINDS)))
    words = draw(hn.arrays(f"u{np.dtype(kind).itemsize}", (width, rows)))  # every bit pattern, NaN of all kinds
    held = draw(hn.arrays(np.bool_, (width, rows)))
    kept = draw(hn.arrays(np.bool_, rows))
    place_N = np.full(rows, -1, dtype=np.int32)
    place_N[kept] = draw(st.permutations(range(int(kept.sum()))))
    return words.view(kind), held, place_N, draw(st.integers(0, rows))


def by_arrow(value_N, held_N):
    """What PyArrow and NumPy make of a column, as the ingest on the CPU does."""
    column = pa.array(value_N, mask=~held_N)
    if value_N.dtype == np.int8:
        return value_N, REFUSED * (not held_N.all()) + BEYOND * bool((held_N & ~np.isin(value_N, range(5))).any())
    found_N = pc.cast(column, pa.float32(), safe=False).to_numpy(zero_copy_only=False)
    return found_N, REFUSED * bool(np.isinf(found_N).any())


@pytest.mark.parametrize("device", ["spec", *DEVICES])
@given(case=cases())
@settings(max_examples=40, deadline=None)
def test_columns_arrive_as_arrow_converts_them(device, case):
    value_CN, held_CN, place_N, cut = case
    wanted = [by_arrow(*pair) for pair in zip(value_CN, held_CN, strict=True)]
    rows = int((place_N >= 0).sum())

    def placed(module, host):
        """In two parts, as a reader brings them."""
        matrix, faults = None, []
        for part in (slice(0, cut), slice(cut, None)):
            bits = [np.packbits(row[part], bitorder="little") for row in held_CN]
            bits = [mask if not row[part].all() else None for mask, row in zip(bits, held_CN, strict=True)]
            columns = [np.ascontiguousarray(row[part]) for row in value_CN]
            matrix, fault_C = module.place_columns(columns, bits, place_N[part].copy(), rows, matrix)
            faults.append(host(fault_C))
        return host(matrix), np.bitwise_or(*faults)

    if device == "spec":
        found_CR, fault_C = placed(spec, np.asarray)
    else:
        with on(device) as runtime:
            found_CR, fault_C = placed(cuda, runtime.host)
    assert fault_C.tolist() == [fault for _, fault in wanted]
    for found_R, (wanted_N, _) in zip(found_CR, wanted, strict=True):
        kept_N = place_N >= 0
        assert found_R[place_N[kept_N]].tobytes() == wanted_N[kept_N].tobytes()


COLUMN, PLACES = np.zeros(9, np.int8), np.arange(9, dtype=np.int32)
BAD = {
    "no columns": ([], [], PLACES, 9, None),
    "masks of other columns": ([COLUMN], [], PLACES, 9, None),
    "another dtype": ([COLUMN.astype(np.int16)], [None], PLACES, 9, None),
    "two dtypes": ([COLUMN, COLUMN.astype(np.float32)], [None, None], PLACES, 9, None),
    "a column of another length": ([COLUMN, COLUMN[:8]], [None, None], PLACES, 9, None),
    "values apart": ([np.zeros(18, np.int8)[::2]], [None], PLACES, 9, None),
    "a row beyond the matrix": ([COLUMN], [None], PLACES, 8, None),
    "places of 64 bits": ([COLUMN], [None], PLACES.astype(np.int64), 9, None),
    "too few bits": ([COLUMN], [np.zeros(1, np.uint8)], PLACES, 9, None),
    "a matrix of another dtype": ([COLUMN], [None], PLACES, 9, np.zeros((1, 9), np.float32)),
    "a matrix of another shape": ([COLUMN], [None], PLACES, 9, np.zeros((2, 9), np.int8)),
}


@pytest.mark.parametrize("what", BAD)
def test_arguments_that_do_not_fit_are_refused_alike(what):
    with pytest.raises(ValueError) as expected:
        spec.place_columns(*BAD[what])
    with on(0), pytest.raises(ValueError) as given_:
        cuda.place_columns(*BAD[what])
    assert str(given_.value) == str(expected.value)

"""Damage on disk is found, and its place is named."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eravane.core.errors import StoreError
from eravane.data.ingest import ingest
from eravane.data.store.digest import digest_runs, first_level_fault, hash_ids
from eravane.data.store.store import EraStore
from tests.support.made_store import Dataset


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("verify")
    return ingest(Dataset.make().write(folder / "data"), folder / "store").path


def flip(file: Path, position: int, bit: int = 0) -> None:
    content = bytearray(file.read_bytes())
    content[position] ^= 1 << bit
    file.write_bytes(content)


def test_a_sound_store_passes(path: Path) -> None:
    EraStore.open(path).verify()


def test_a_flipped_bit_of_a_feature_is_named_by_file_column_and_era(path: Path) -> None:
    store = EraStore.open(path)
    layout = store.segments[1].features.layout
    row = store.segments[1].index.rows_of(11).start + 5
    flip(path / layout.file, layout.start + 7 * layout.stride + row)
    with pytest.raises(StoreError, match=r"00001\.features\.arrow.*feature_07.*era 0011"):
        EraStore.open(path).verify()
    flip(path / layout.file, layout.start + 7 * layout.stride + row)
    EraStore.open(path).verify()


def test_a_flipped_bit_of_a_label_is_named(path: Path) -> None:
    layout = EraStore.open(path).segments[0].labels.layout
    flip(path / layout.file, layout.start + layout.stride + 4 * 3)
    with pytest.raises(StoreError, match=r"00000\.labels-0\.arrow.*target_ender_20.*era 0001"):
        EraStore.open(path).verify()
    flip(path / layout.file, layout.start + layout.stride + 4 * 3)


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_no_flipped_bit_goes_unnoticed(path: Path, data: st.DataObject) -> None:
    """Any bit of any file of the store, but for the copy of features.json."""
    files = sorted(file for file in path.rglob("*") if file.is_file() and file.name != "features.json")
    file = data.draw(st.sampled_from(files))
    position = data.draw(st.integers(0, file.stat().st_size - 1))
    bit = data.draw(st.integers(0, 7))
    flip(file, position, bit)
    try:
        with pytest.raises(StoreError):
            EraStore.open(path).verify()
    finally:
        flip(file, position, bit)


def test_live_rows_are_verified(path: Path) -> None:
    store = EraStore.open(path)
    assert store.manifest.live is not None
    layout = store.manifest.live.features
    flip(path / layout.file, layout.start + 3)
    with pytest.raises(StoreError, match=r"live.*feature_00.*era 0015"):
        EraStore.open(path).verify()
    flip(path / layout.file, layout.start + 3)


def digest_of(run: bytes) -> int:
    """The digest in whole numbers of Python, as the module describes it."""
    prime, most = 0x9E3779B97F4A7C15, (1 << 64) - 1
    lanes, whole = [1, 2, 3, 4], len(run) - len(run) % 32
    for at in range(0, whole, 8):
        x = (lanes[at // 8 % 4] ^ int.from_bytes(run[at : at + 8], "little")) * prime & most
        lanes[at // 8 % 4] = x ^ x >> 29
    found = lanes[0]
    for byte in run[whole:]:
        found = (found ^ byte) * prime & most
        found ^= found >> 29
    for lane in (*lanes[1:], len(run)):
        found = (found ^ lane) * prime & most
        found ^= found >> 32
    return found


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 5), st.lists(st.integers(0, 100), min_size=1, max_size=4), st.integers(0, 10_000))
def test_digests_are_those_of_whole_numbers_for_any_number_of_columns(columns, rows, seed):
    offsets = np.cumsum([0, *rows])
    values = np.random.default_rng(seed).integers(-128, 128, (columns, int(offsets[-1]) + 3)).astype(np.int8)
    found = digest_runs(values[:, : offsets[-1]], offsets)
    expected = [[digest_of(run[first:last].tobytes()) for run in values] for first, last in pairwise(offsets.tolist())]
    assert found.tolist() == expected


@settings(max_examples=50, deadline=None)
@given(
    rows=st.integers(1, 200),
    shift=st.integers(0, 9),
    dtype=st.sampled_from(["int8", "float32"]),
    seed=st.integers(0, 99),
)
def test_digests_depend_on_content_alone(rows: int, shift: int, dtype: str, seed: int) -> None:
    random = np.random.default_rng(seed)
    values = random.integers(-5, 100, (4, rows)).astype(dtype)
    offsets = np.array([0, rows // 3, rows // 3, rows])
    wide = np.zeros((4, rows + 17), dtype=dtype)
    lying = wide[:, shift : shift + rows]
    lying[...] = values
    digests = digest_runs(values, offsets)
    np.testing.assert_array_equal(digests, digest_runs(lying, offsets))
    np.testing.assert_array_equal(digests, digest_runs(values[::-1], offsets)[:, ::-1])
    last = digest_runs(np.ascontiguousarray(values[:, rows // 3 :]), np.array([0, rows - rows // 3]))
    np.testing.assert_array_equal(digests[2:], last)
    changed = values.copy()
    changed[2, random.integers(rows)] += 1
    assert (digests != digest_runs(changed, offsets)).sum() == 1


def test_digests_tell_lengths_and_order_apart() -> None:
    zeros = np.zeros((1, 70), dtype=np.int8)
    grown = [int(digest_runs(zeros[:, :count], np.array([0, count]))[0, 0]) for count in range(70)]
    assert len(set(grown)) == 70
    seen = set()
    for place in range(70):
        one = zeros.copy()
        one[0, place] = 1
        seen.add(int(digest_runs(one, np.array([0, 70]))[0, 0]))
    assert len(seen) == 70


@given(st.lists(st.text(max_size=40), max_size=30))
@settings(max_examples=50, deadline=None)
def test_equal_ids_have_equal_hashes(texts: list[str]) -> None:
    for kind in (pa.string(), pa.large_string()):
        hashes = hash_ids(pa.array(texts, type=kind))
        assert len(set(hashes.tolist())) == len(set(texts))
        np.testing.assert_array_equal(hashes[1:], hash_ids(pa.array(texts, type=kind)[1:]))


def test_levels_off_the_scale_are_found_by_column_then_row() -> None:
    levels = np.random.default_rng(0).integers(0, 5, (6, 90)).astype(np.int8)
    assert first_level_fault(levels) is None
    levels[4, 3], levels[2, 80], levels[2, 70] = 9, -1, 5
    assert first_level_fault(levels) == (2, 70)

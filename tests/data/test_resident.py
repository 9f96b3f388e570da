"""Features that stay on a device: what is sent, how often, and that it is what the files hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eravane.backend.cpu import CpuBackend
from eravane.core.config import PrepareConfig
from eravane.core.errors import OutOfDeviceMemoryError
from eravane.data import resident as module
from eravane.data.features import Features
from eravane.data.ingest import ingest
from eravane.data.resident import Residence, Resident, residence
from eravane.data.store import placement
from eravane.data.store.store import EraStore
from tests.support.made_store import FEATURES, Dataset

MODES = (Residence("whole", len(FEATURES), 0), Residence("columns", 5, 0), Residence("eras"))


class Device(CpuBackend):
    """The CPU's arrays as a device that everything must be sent to."""

    name = "device"


@pytest.fixture(scope="module", params=[False, True], ids=["int8", "float32"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> EraStore:
    folder = tmp_path_factory.mktemp("resident")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(placement, "SEGMENT_ROWS", 100)
        return ingest(Dataset.make(floats=request.param).write(folder / "data"), folder / "store")


@given(data=st.data(), kept=st.sampled_from(MODES))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_window_is_what_the_files_hold(store: EraStore, data: st.DataObject, kept: Residence) -> None:
    held = Resident(store, Device(), kept)
    for _ in range(data.draw(st.integers(1, 6))):
        columns = data.draw(st.lists(st.sampled_from(FEATURES), min_size=1, max_size=7, unique=True))
        first = data.draw(st.integers(1, 14))
        last = data.draw(st.integers(first, 14))
        wanted = store.window(first, last, columns).frame().values
        np.testing.assert_array_equal(held.window(columns, first, last), wanted)
        parts = list(held.eras(columns, first, last))
        assert [era for era, _ in parts] == list(range(first, last + 1))
        np.testing.assert_array_equal(np.concatenate([values for _, values in parts], axis=1), wanted)


def test_columns_that_stay_are_sent_once(store: EraStore) -> None:
    held = Resident(store, Device(), MODES[0])
    for era in range(1, 15):
        held.window(FEATURES[3:9], 1, era)
        held.window(FEATURES[2:5][::-1], era, era)
        held.window(FEATURES, era, era)
    assert held.uploads == dict.fromkeys(FEATURES, 1)
    assert held.sent_bytes == len(FEATURES) * store.index.rows * np.dtype(store.dtype).itemsize


def test_columns_used_longest_ago_make_room(store: EraStore) -> None:
    held = Resident(store, Device(), MODES[1])
    held.window(FEATURES[:3], 1, 4)
    held.window(FEATURES[3:5], 1, 4)
    kept = held.window(FEATURES[:2], 2, 3)
    before = kept.copy()
    held.window(FEATURES[5:8], 1, 4)  # in the places of 2, 3 and 4
    held.window(FEATURES[:2], 1, 4)
    assert held.uploads == dict.fromkeys(FEATURES[:8], 1)
    held.window(FEATURES[2:3], 1, 1)
    assert held.uploads[FEATURES[2]] == 2
    np.testing.assert_array_equal(kept, before)  # what was handed out is not overwritten


@pytest.mark.parametrize("error", [OutOfDeviceMemoryError("full"), OSError("gone")], ids=["memory", "disk"])
def test_columns_are_right_after_sending_has_failed(
    store: EraStore, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """What made room is gone then, and its place is no other column's."""
    held = Resident(store, Device(), MODES[1])
    held.window(FEATURES[:5], 1, 14)
    held.window(FEATURES[1:5], 1, 14)  # so that the first is the one that makes room
    with monkeypatch.context() as patch:
        patch.setattr(Device, "fill", lambda *_: (_ for _ in ()).throw(error))
        with pytest.raises(type(error)):
            held.window(FEATURES[5:6], 1, 14)
    for columns in (FEATURES[6:7], FEATURES[1:5], FEATURES[5:6], FEATURES[:2], FEATURES[4:9]):
        wanted = store.window(1, 14, columns).frame().values
        np.testing.assert_array_equal(held.window(columns, 1, 14), wanted, err_msg=str(columns))


def test_what_stays_is_decided_by_the_memory_that_training_leaves(store: EraStore) -> None:
    column = -(-store.index.rows * np.dtype(store.dtype).itemsize // 128) * 128
    for room, mode, slots in (
        (12 * column, "whole", 12),
        (12 * column - 1, "columns", 11),
        (4 * column, "columns", 4),
        (4 * column - 1, "eras", 0),
    ):
        kept = residence(store, "cuda", room + 500, 12, 4, training=500)
        assert (kept.mode, kept.slots) == (mode, slots)
        assert kept.bytes <= room
    assert residence(store, "cpu", 0, 12, 4).mode == "mapped"
    assert "12 columns stay" in str(residence(store, "cuda", 13 * column, 12, 4))
    assert "streamed" in str(residence(store, "cuda", 0, 12, 4))


def test_a_device_too_small_for_one_cell_says_so(store: EraStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Device, "room", lambda _: 100)
    with pytest.raises(OutOfDeviceMemoryError, match=r"4 columns x .* rows needs .* take fewer eras or columns"):
        Resident(store, Device(), MODES[2]).window(FEATURES[:4], 1, 14)


@pytest.mark.parametrize(("columns", "mode"), [(12, "whole"), (5, "columns"), (0, "eras")])
def test_workers_on_gpus_of_different_size_keep_what_their_own_holds(
    store: EraStore, monkeypatch: pytest.MonkeyPatch, columns: int, mode: str
) -> None:
    """A worker of a cluster has no plan: half of its own GPU is for features, whatever the others have."""
    column = -(-store.index.rows * np.dtype(store.dtype).itemsize // 128) * 128
    monkeypatch.setattr(Device, "room", lambda _: 2 * columns * column)
    device = Device()
    try:
        held = module.resident(store, device)
        assert (held.kept.mode, held.kept.slots) == (mode, columns)
        assert module.resident(store, device) is held
        monkeypatch.setattr(Device, "room", lambda _: 1 << 40)
        wanted = store.window(2, 9, FEATURES[1:5]).frame().values
        np.testing.assert_array_equal(held.window(FEATURES[1:5], 2, 9), wanted)
        assert held.resident_bytes == columns * store.index.rows * np.dtype(store.dtype).itemsize
    finally:
        module.forget(store, device.name)


PREPARED = [
    PrepareConfig(),
    PrepareConfig(impute="median", outliers="winsorize", indicators=True, missing_eras="impute"),
    PrepareConfig(impute="mean", outliers="std", bounds="window", window=3, missing_eras="impute"),
]


@pytest.mark.parametrize("config", PREPARED, ids=["as stored", "era", "window"])
@pytest.mark.parametrize("kept", MODES, ids=lambda kept: kept.mode)
def test_prepared_features_are_the_same_wherever_they_lie(
    store: EraStore, config: PrepareConfig, kept: Residence
) -> None:
    device, columns = Device(), FEATURES[2:6]
    module.resident(store, device, kept)
    try:
        there, here = Features.open(store.path, config, device), Features.open(store.path, config)
        for first, last, every in ((1, 9, 1), (2, 14, 3)):
            ours, theirs = (found.table(columns, first, last, every=every) for found in (there, here))
            assert ours.to_pandas().equals(theirs.to_pandas())
        for one, other in zip(there.each(3, 8, columns), here.each(3, 8, columns), strict=True):
            np.testing.assert_array_equal(one.values, other.values)
            assert one.columns == other.columns
            assert one.ids == other.ids
        np.testing.assert_array_equal(there.raw(5), here.raw(5))
        if kept.mode == "whole":
            held = module.resident(store, device)
            assert set(held.uploads.values()) == {1}
    finally:
        module.forget(store, "device")


def test_a_store_that_has_changed_is_sent_anew(tmp_path: Path) -> None:
    made = Dataset.make()
    data = made.write(tmp_path / "data")
    device = Device()
    old = ingest(data, tmp_path / "store", last_era=9)
    one = module.resident(old, device, Residence("whole", 12, 0))
    assert module.resident(EraStore.open(tmp_path / "store"), device) is one
    new = ingest(data, tmp_path / "store")
    other: Any = module.resident(new, device)
    module.forget(new, "device")
    assert other is not one
    np.testing.assert_array_equal(other.window(FEATURES, 1, 14), new.window(1, 14).frame().values)

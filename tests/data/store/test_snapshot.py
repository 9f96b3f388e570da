"""Readers keep what they opened while writers rewrite the store; snapshots go when nobody reads them."""

from __future__ import annotations

import json
import os
import shutil
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eravane.core.errors import StoreError
from eravane.data.ingest import ingest
from eravane.data.store import snapshot
from eravane.data.store.snapshot import delete_unused, held, open_as_of, snapshot_of
from eravane.data.store.store import SNAPSHOTS, EraStore
from tests.support.download import FIRST_WEEK, Download

SOURCE = Path(__file__).parents[2] / "runstate" / "formats" / "0.1.0" / "source"
TARGET = "target_ender_20"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return Download(SOURCE).write(tmp_path / "data", FIRST_WEEK)


@pytest.fixture
def store(data: Path, tmp_path: Path) -> EraStore:
    return ingest(data, tmp_path / "store")


def _next(data: Path, store: EraStore, week: int) -> EraStore:
    return ingest(Download(SOURCE).write(data, week), store.home)


def _labels(store: EraStore) -> bytes:
    """Read by files that are opened now."""
    return EraStore(store.path, store.manifest).target(TARGET, store.index.first, store.index.last).tobytes()


def test_a_reader_keeps_what_it_opened_through_any_number_of_ingests(data: Path, store: EraStore) -> None:
    before = _labels(store)
    with held(store) as kept:
        for week in range(FIRST_WEEK + 1, FIRST_WEEK + 4):
            newer = _next(data, store, week)
            assert newer.fingerprint != kept.fingerprint
            assert kept.home == store.path
            kept.verify()
            assert _labels(kept) == before == _labels(EraStore.open(kept.path))
        with pytest.raises((FileNotFoundError, StoreError)):
            _labels(store)  # the case can fail: without the snapshot the files are gone
    assert not (store.path / SNAPSHOTS).exists()


def test_two_readers_share_a_snapshot_and_the_last_one_closes_it(data: Path, store: EraStore) -> None:
    with held(store) as first:
        with held(EraStore.open(store.path)) as second:
            assert first.path == second.path
            _next(data, store, FIRST_WEEK + 1)
        _next(data, store, FIRST_WEEK + 2)
        first.verify()
    assert not (store.path / SNAPSHOTS).exists()


def test_an_unfinished_run_keeps_its_snapshot_after_its_death(data: Path, store: EraStore, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    manifest = {"status": "running", "data": {"fingerprint": store.fingerprint}}
    with held(store, run) as kept:
        (run / "manifest.json").write_text(json.dumps(manifest))
    _next(data, store, FIRST_WEEK + 1)
    assert snapshot_of(store.path, kept.fingerprint) == kept.path
    assert open_as_of(store.path, store.fingerprint).fingerprint == store.fingerprint
    (run / "manifest.json").write_text(json.dumps({**manifest, "status": "complete"}))
    delete_unused(store.path)
    assert snapshot_of(store.path, kept.fingerprint) is None


def test_a_deleted_run_keeps_nothing(store: EraStore, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    with held(store, run):
        (run / "manifest.json").write_text(
            json.dumps({"status": "running", "data": {"fingerprint": store.fingerprint}})
        )
    assert snapshot_of(store.path, store.fingerprint) is not None
    shutil.rmtree(run)
    delete_unused(store.path)
    assert not (store.path / SNAPSHOTS).exists()


def test_a_store_that_is_made_anew_leaves_readers_their_own(data: Path, store: EraStore) -> None:
    before = _labels(store)
    with held(store) as kept:
        again = ingest(data, store.path, rebuild=True)
        assert again.fingerprint == store.fingerprint
        assert _labels(kept) == before
        kept.verify()


def test_where_links_are_refused_the_store_itself_is_read(store: EraStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(snapshot.os, "link", refuse)
    with held(store) as kept:
        assert kept is store
    assert not (store.path / SNAPSHOTS).exists()


def test_opening_while_a_writer_swaps_never_calls_the_store_damaged(data: Path, store: EraStore) -> None:
    """Ingests go on in one thread while others open, snapshot and read: every reader sees one whole content."""
    failures: list[BaseException] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            try:
                with held(EraStore.open(store.path)) as kept:
                    kept.verify()
                    assert np.isfinite(kept.target(TARGET, 1, 20)).any()
            except BaseException as error:
                failures.append(error)
                return

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    try:
        for week in range(FIRST_WEEK + 1, FIRST_WEEK + 9):
            _next(data, store, week)
    finally:
        done.set()
        for reader in readers:
            reader.join()
    assert failures == []


class Swapped:
    """A snapshot that is deleted, and made anew by another reader, between the opening of its lock and its holding."""

    def __init__(self, store: EraStore, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.other = ExitStack()
        self._store, self._place, self._flock = store, place, snapshot.fcntl.flock
        self.done = False
        monkeypatch.setattr(snapshot.fcntl, "flock", self._hold)

    def _hold(self, descriptor: int, operation: int) -> None:
        if not self.done:
            self.done = True
            shutil.rmtree(self._place)
            self.other.enter_context(held(self._store))
        self._flock(descriptor, operation)


def test_a_reader_does_not_take_the_lock_of_a_deleted_snapshot_for_that_of_its_successor(
    store: EraStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with held(store) as first:
        swapped = Swapped(store, first.path, monkeypatch)
        with held(store) as mine:
            assert swapped.done
            swapped.other.close()
            mine.verify()


def test_what_deletes_does_not_take_the_lock_of_a_deleted_snapshot_for_that_of_its_successor(
    store: EraStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with held(store) as first:
        place = first.path
        shutil.copytree(place, tmp_path / "unused")
    place.parent.mkdir()
    (tmp_path / "unused").rename(place)
    swapped = Swapped(store, place, monkeypatch)
    delete_unused(store.path)
    assert swapped.done
    with swapped.other:
        EraStore.open(place).verify()
    assert not place.exists()


def test_a_folder_of_snapshots_that_another_reader_deletes_meanwhile_ends_nothing(
    store: EraStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = Path.is_dir
    monkeypatch.setattr(Path, "is_dir", lambda path, **how: path.name == SNAPSHOTS or looked(path, **how))
    delete_unused(store.path)
    with held(store) as kept:
        assert kept.path != store.path
    assert SNAPSHOTS not in os.listdir(store.path)


def test_a_folder_of_snapshots_that_goes_while_it_is_made_is_made_again(
    store: EraStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`mkdir` finds the folder there, looks whether it is one, and another reader has deleted it."""
    made, raised = Path.mkdir, list[Path]()

    def mkdir(path: Path, *given: Any, **how: Any) -> None:
        if path.parent.name == SNAPSHOTS and not raised:
            raised.append(path)
            raise FileExistsError(17, "File exists", str(path.parent))
        made(path, *given, **how)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    with held(store) as kept:
        assert kept.path != store.path
    assert raised


def test_a_damaged_store_is_still_called_so(store: EraStore) -> None:
    file = next(path for path in (store.path / "segments").glob("*.labels-0.arrow"))
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(StoreError, match=r"labels-0\.arrow has \d+ bytes instead of \d+; the store is damaged"):
        EraStore.open(store.path)

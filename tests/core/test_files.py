"""Files that appear whole under any number of writers, and locks that wait."""

from __future__ import annotations

import errno
import fcntl
import multiprocessing
import os
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from eravane.core import files
from eravane.core.errors import StoreError
from eravane.core.files import delete_stale_parts, exclusive, replacing, write_atomically

PROCESSES = multiprocessing.get_context("spawn")


def _write_often(path: Path, letter: bytes, failures: object) -> None:
    for _ in range(150):
        try:
            write_atomically(path, letter * 20_000)
        except OSError as error:
            failures.put(repr(error))  # type: ignore[attr-defined]


def test_several_processes_write_one_file_and_no_reader_sees_a_mixture(tmp_path: Path) -> None:
    path, failures = tmp_path / "report.html", PROCESSES.Queue()
    write_atomically(path, b"z" * 20_000)
    writers = [PROCESSES.Process(target=_write_often, args=(path, bytes([65 + k]), failures)) for k in range(3)]
    for writer in writers:
        writer.start()
    reads = 0
    while any(writer.is_alive() for writer in writers):
        content = path.read_bytes()
        assert len(content) == 20_000
        assert len(set(content)) == 1
        reads += 1
    for writer in writers:
        writer.join()
    assert reads > 0
    assert failures.empty()
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.html"]


def test_an_error_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"before")
    with pytest.raises(TypeError), replacing(path) as file:
        file.write("half")  # type: ignore[arg-type]
    assert path.read_bytes() == b"before"
    assert len(list(tmp_path.iterdir())) == 1


def test_only_old_leftovers_are_deleted(tmp_path: Path) -> None:
    old, new = tmp_path / "a.json.123.part", tmp_path / "b.json.456.part"
    for path in (old, new):
        path.touch()
    os.utime(old, (time.time() - 2 * files.STALE,) * 2)
    delete_stale_parts(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == [new.name]


def test_a_held_folder_is_refused_or_waited_for(tmp_path: Path) -> None:
    notes: list[str] = []
    entered = threading.Event()

    def wait() -> None:
        with exclusive(tmp_path, notes.append):
            entered.set()

    waiting = threading.Thread(target=wait)
    with exclusive(tmp_path):
        with pytest.raises(StoreError, match="another process is writing"), exclusive(tmp_path):
            pass
        waiting.start()
        time.sleep(0.5)
        assert not entered.is_set()
    waiting.join(timeout=60)  # it asks once a second, and a loaded machine is slow to let it
    assert entered.is_set()
    assert notes == [f"waiting for another process that writes to {tmp_path}"]


@pytest.mark.parametrize("anew", [True, False])
def test_a_folder_that_is_deleted_while_one_waits_is_held_where_it_was_made_anew(anew: bool, tmp_path: Path) -> None:
    folder, holder = tmp_path / "folder", ExitStack()
    folder.mkdir()
    holder.enter_context(exclusive(folder))

    def deleted(_: str) -> None:
        folder.rmdir()
        if anew:
            folder.mkdir()
        holder.close()

    with ExitStack() as stack:
        if not anew:
            stack.enter_context(pytest.raises(FileNotFoundError))
        with exclusive(folder, deleted), pytest.raises(StoreError, match="another process"), exclusive(folder):
            pass


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks_is_used_with_a_warning(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with exclusive(tmp_path):
        pass
    assert "without locks" in caplog.text


def test_an_error_of_a_file_that_cannot_be_replaced_names_the_file_itself(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"No such file") as caught:
        write_atomically(tmp_path / "gone" / "report.html", b"")
    assert caught.value.filename == str(tmp_path / "gone" / "report.html")

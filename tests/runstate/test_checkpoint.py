"""Checkpoints, journal and booster files: whole, checked, and refused when they belong elsewhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from eravane.core.errors import RunError
from eravane.gate.outcomes import EraFacts, EraOutcome, History
from eravane.learners.registry import Trees
from eravane.loop.boosters import ModelFolder
from eravane.loop.margins import Margins
from eravane.loop.updates import Model
from eravane.runstate.checkpoint import Checkpoints
from eravane.runstate.eradisk import EraFiles
from eravane.runstate.journal import EraRecord, Journal
from eravane.runstate.resolved import ResolvedEras

IDENTITY = {"config": ("abc",), "data": ("def",)}


def test_the_last_two_are_kept_and_the_newest_is_loaded(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, IDENTITY)
    assert checkpoints.load() is None
    for step in range(5):
        checkpoints.save(step, {"gate": bytes([step])}, {"era": step})
    assert checkpoints.steps() == [3, 4]
    assert checkpoints.load() == (4, {"gate": b"\x04"}, {"era": 4}, [])


@pytest.mark.parametrize("damage", ["flip", "cut", "manifest", "gone"])
def test_a_damaged_newest_falls_back_and_says_so(tmp_path: Path, damage: str) -> None:
    checkpoints = Checkpoints(tmp_path, IDENTITY)
    for step in (1, 2):
        checkpoints.save(step, {"gate": b"state"}, {})
    newest = tmp_path / "000002"
    if damage == "flip":
        (newest / "gate").write_bytes(b"stbte")
    elif damage == "cut":
        (newest / "gate").write_bytes(b"sta")
    elif damage == "manifest":
        (newest / "manifest.json").write_text('{"identity":')
    else:
        (newest / "gate").unlink()
    loaded = checkpoints.load()
    assert loaded is not None
    assert loaded[0] == 1
    assert "000002 is damaged" in loaded[3][0]


def test_a_checkpoint_of_another_run_is_refused_with_what_differs(tmp_path: Path) -> None:
    Checkpoints(tmp_path, IDENTITY).save(1, {}, {})
    with pytest.raises(RunError, match="data was def, is xyz"):
        Checkpoints(tmp_path, {**IDENTITY, "data": ("xyz",)}).load()


def test_half_written_folders_are_not_seen(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, IDENTITY)
    checkpoints.save(1, {"a": b"1"}, {})
    (tmp_path / ".000002.77").mkdir()
    (tmp_path / ".000002.77" / "a").write_bytes(b"2")
    assert checkpoints.steps() == [1]


def _record(era: int) -> EraRecord:
    rng = np.random.default_rng(era)
    return EraRecord(
        era,
        rng.normal(size=(3, 7)).astype(np.float32),
        rng.random(7),
        np.array([0.5, 0.5, 0.0]),
        np.array([True, True, False]),
        {"equal_weight": np.full(3, 1 / 3)},
    )


def test_the_journal_returns_what_was_written(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "eras")
    assert journal.eras() == []
    for era in (1000, 999, 12):
        journal.write(_record(era))
    assert [record.era for record in journal] == [12, 999, 1000]
    found, expected = journal.read(999), _record(999)
    np.testing.assert_array_equal(found.base_MN, expected.base_MN)
    np.testing.assert_array_equal(found.comparators["equal_weight"], expected.comparators["equal_weight"])
    assert found.open_M.dtype == bool
    journal.forget_after(900)
    assert journal.eras() == [12]
    (tmp_path / "eras" / "0012.safetensors").write_bytes(b"cut")
    with pytest.raises(RunError, match="cannot be read"):
        journal.read(12)


def _model(*blocks: bytes, columns: tuple[str, ...] = ("a", "b"), margins: Margins | None = None) -> Model:
    return Model(Trees(blocks, columns), margins or Margins({}))


def test_boosters_and_margins_are_stored_once_and_checked(tmp_path: Path) -> None:
    folder = ModelFolder(tmp_path)
    columns = {"m": ("a", "b"), "n": ("c",)}
    margins = Margins({12: np.arange(3, dtype=np.float32), 7: np.ones(2, dtype=np.float32)})
    models = {"m": _model(b"one", b"two", margins=margins), "n": _model(b"one", columns=("c",))}
    names = folder.put(models)
    assert len(list((tmp_path / "models").glob("*.ubj"))) == 2
    found = ModelFolder(tmp_path).get(names, columns)
    assert found["m"].trees == models["m"].trees
    assert {era: values.tolist() for era, values in found["m"].margins.by_era.items()} == {12: [0, 1, 2], 7: [1, 1]}
    assert found["n"].margins.by_era == {}
    folder.write_index(names, columns)
    folder.keep_only([{"n": names["n"]}])
    assert list((tmp_path / "checkpoints" / "margins").iterdir()) == []
    with pytest.raises(RunError, match="cannot be read"):
        folder.get(names, columns)
    (tmp_path / "models" / f"{names['n'].blocks[0]}.ubj").write_bytes(b"other")
    with pytest.raises(RunError, match="damaged"):
        folder.get({"n": names["n"]}, columns)


def test_a_bit_that_flips_in_an_era_file_is_seen(tmp_path: Path) -> None:
    files = EraFiles(tmp_path / "eras")
    files.put(7, {"values": np.arange(100.0)})
    path = tmp_path / "eras" / "0007.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(RunError, match="does not match its checksum"):
        files.get(7, lambda layout: layout.take("values", "f8", 100))


def test_resolved_eras_come_back_as_a_history(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    cells = (np.array([0, 2]), np.array([1]))
    names = {"model": ["a"], "context": ["b", "c"]}
    expected, resolved = History(2), ResolvedEras(tmp_path)
    for era in (3, 4, 9):
        facts = EraFacts(rng.random((2, 1)), rng.random(2), ("a",), ("b", "c"), np.zeros((0, 3), np.float32), cells)
        outcome = EraOutcome(era, rng.random(2), rng.random(2), rng.random((2, 2)), facts, rng.random(2))
        resolved.write(outcome)
        if era < 9:
            expected.append(outcome)
    found = resolved.history(4, 2, names)
    assert found.eras == [3, 4]
    for name, values in expected.arrays().items():
        np.testing.assert_array_equal(found.arrays()[name], values)
    resolved.forget_after(4)
    assert len(list(tmp_path.iterdir())) == 2

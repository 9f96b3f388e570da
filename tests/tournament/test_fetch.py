"""Fetching against the double with real numerapi: what arrives is whole, current, of one version, or nothing."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from eravane.core.errors import DataError
from eravane.tournament.client import Client
from eravane.tournament.dataset import Dataset
from eravane.tournament.fetch import Fetched, fetch
from eravane.tournament.transport import ApiError
from tests.tournament import made
from tests.tournament.double import Double
from tests.tournament.made import FakeTime

TRAIN = "v5.3/train.parquet"
VALIDATION = "v5.3/validation.parquet"


@pytest.fixture(autouse=True)
def offered(double: Double) -> None:
    double.datasets = made.dataset()
    double.open_round(1330)


def big(seed: int) -> bytes:
    """A train file of more than one chunk, of the same size for every seed."""
    frame = made.rows(1, 6, 2000, seed=seed)
    wide = {f"feature_w{place:03d}": np.random.default_rng(place + seed).random(len(frame)) for place in range(20)}
    return made.parquet(pd.concat([frame, pd.DataFrame(wide, index=frame.index)], axis=1), 8000)


def assert_equal(out: Path, double: Double) -> None:
    """Every file in the folder is byte for byte what the tournament has, and nothing else is there."""
    names = {name.split("/")[1] for name in double.datasets if name.startswith("v5.3/")}
    assert {file.name for file in out.iterdir()} == names | {"dataset.json"}
    for name in names:
        assert (out / name).read_bytes() == double.datasets[f"v5.3/{name}"]


def test_a_dataset_arrives_whole_with_its_record(double: Double, client: Client, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    result = fetch(tmp_path / "data", client=client, progress=lambda *facts: seen.append(facts))
    assert_equal(tmp_path / "data", double)
    assert set(result.fetched) == {"features.json", "train.parquet", "validation.parquet", "live.parquet"}
    assert result.newer is None
    record = Dataset.read(tmp_path / "data")
    assert record == result.dataset
    assert record is not None
    train = record.files["train.parquet"]
    assert (train.content.rows, train.content.first_era, train.content.last_era) == (240, 1, 6)
    assert train.sha256 == hashlib.sha256(double.datasets[TRAIN]).hexdigest()
    assert record.files["live.parquet"].round == 1330
    size = len(double.datasets[TRAIN])
    assert ("train.parquet", size, size) in seen


def test_a_second_fetch_moves_nothing_but_what_changed(double: Double, client: Client, tmp_path: Path) -> None:
    fetch(tmp_path, client=client)
    assert fetch(tmp_path, client=client).fetched == ()
    double.datasets[VALIDATION] = made.parquet(made.rows(7, 11))
    result = fetch(tmp_path, client=client)
    assert result.fetched == ("validation.parquet",)
    assert result.dataset.files["validation.parquet"].content.last_era == 11
    assert_equal(tmp_path, double)


def test_a_stale_file_of_equal_size_is_replaced(double: Double, client: Client, tmp_path: Path) -> None:
    fetch(tmp_path, client=client)
    content = double.datasets["v5.3/live.parquet"]
    double.datasets["v5.3/live.parquet"] = made.parquet(made.live(seed=8))
    assert len(content) == len(double.datasets["v5.3/live.parquet"])
    assert fetch(tmp_path, client=client).fetched == ("live.parquet",)
    assert_equal(tmp_path, double)


def test_a_local_file_that_was_altered_is_fetched_again(double: Double, client: Client, tmp_path: Path) -> None:
    fetch(tmp_path, client=client)
    altered = bytearray((tmp_path / "train.parquet").read_bytes())
    altered[100] ^= 1
    (tmp_path / "train.parquet").write_bytes(altered)
    assert fetch(tmp_path, client=client).fetched == ("train.parquet",)
    assert_equal(tmp_path, double)


@pytest.mark.parametrize("kind", [429, 500, "unheard", "slow"])
def test_a_server_in_trouble_is_asked_again(double: Double, client: Client, tmp_path: Path, kind: int | str) -> None:
    double.slow_s = 0.6
    double.fail(f"GET {TRAIN}", kind, times=2)
    fetch(tmp_path, client=client)
    assert_equal(tmp_path, double)


def test_a_cut_download_goes_on_where_it_broke(double: Double, client: Client, tmp_path: Path) -> None:
    double.datasets[TRAIN] = big(0)
    double.fail(f"GET {TRAIN}", "cut", times=3)
    fetch(tmp_path, client=client)
    assert_equal(tmp_path, double)
    asked = [asked.headers for asked in double.asked if asked.operation == f"GET {TRAIN}"]
    ranges = [headers.get("Range") for headers in asked]
    assert ["If-Range" in headers for headers in asked] == [False, True, True, True]
    starts = [int(text.removeprefix("bytes=").removesuffix("-")) for text in ranges[1:] if text]
    assert ranges[0] is None
    assert len(starts) == 3
    assert starts == sorted(starts)
    assert starts[0] > 0


def test_a_download_cut_for_good_goes_on_in_the_next_run(double: Double, client: Client, tmp_path: Path) -> None:
    double.datasets[TRAIN] = big(0)
    double.fail(f"GET {TRAIN}", "cut")
    double.fail("dataset", 500, skip=4, times=10_000)
    with pytest.raises(ApiError, match="dataset failed: HTTP 500"):
        fetch(tmp_path, client=client)
    assert not (tmp_path / "train.parquet").exists()
    assert (tmp_path / ".train.parquet.part").stat().st_size > 0
    double.faults.clear()
    double.asked.clear()
    assert fetch(tmp_path, client=client).fetched == ("train.parquet",)
    assert_equal(tmp_path, double)
    assert "Range" in next(asked.headers for asked in double.asked if asked.operation == f"GET {TRAIN}")


@pytest.mark.parametrize("kind", ["ignore range", "splice", None])
def test_a_file_that_changes_during_a_resume_is_never_spliced(
    double: Double, client: Client, tmp_path: Path, kind: str | None
) -> None:
    before, later = big(0), big(1)
    double.datasets[TRAIN] = before

    def change() -> None:
        double.datasets[TRAIN] = later

    assert len(before) == len(later)
    double.fail(f"GET {TRAIN}", "cut", after=change)
    if kind is not None:
        double.fail(f"GET {TRAIN}", kind)
    fetch(tmp_path, client=client)
    assert_equal(tmp_path, double)


@pytest.mark.parametrize("kind", ["ignore range", "long"])
def test_an_unchanged_file_survives_a_server_that_resumes_badly(
    double: Double, client: Client, tmp_path: Path, kind: str
) -> None:
    double.datasets[TRAIN] = big(0)
    double.fail(f"GET {TRAIN}", "cut")
    double.fail(f"GET {TRAIN}", kind)
    fetch(tmp_path, client=client)
    assert_equal(tmp_path, double)


def test_a_server_that_always_resumes_badly_is_given_up(
    double: Double, client: Client, tmp_path: Path, fake_time: FakeTime
) -> None:
    double.datasets[TRAIN] = big(0)
    for _ in range(200):
        double.fail(f"GET {TRAIN}", "cut")
        double.fail(f"GET {TRAIN}", "splice")
    for fault in double.faults[1::2]:
        fault.kind = "long"
    with pytest.raises(ApiError, match=rf"fetching {TRAIN} failed"):
        fetch(tmp_path, client=client)
    assert fake_time.now <= 2 * client.patience.deadline_s
    assert not (tmp_path / "train.parquet").exists()


def test_without_an_entity_tag_nothing_is_resumed_and_nothing_kept(
    double: Double, client: Client, tmp_path: Path
) -> None:
    double.datasets[TRAIN] = big(0)
    double.fail(f"GET {TRAIN}", "no etag", times=10)
    fetch(tmp_path, client=client)
    double.asked.clear()
    assert fetch(tmp_path, client=client).fetched == ("train.parquet",)
    headers = next(asked.headers for asked in double.asked if asked.operation == f"GET {TRAIN}")
    assert "Range" not in headers
    assert "If-None-Match" not in headers


def test_a_complete_part_of_a_killed_run_is_taken_up(double: Double, client: Client, tmp_path: Path) -> None:
    fetch(tmp_path, client=client)
    content = double.datasets[TRAIN]
    (tmp_path / "train.parquet").rename(tmp_path / ".train.parquet.part")
    note = {"etag": f'"{hashlib.md5(content).hexdigest()}"', "size": len(content)}
    (tmp_path / ".train.parquet.part.json").write_text(json.dumps(note))
    double.asked.clear()
    assert fetch(tmp_path, client=client).fetched == ("train.parquet",)
    assert_equal(tmp_path, double)
    assert [a.headers.get("If-None-Match") for a in double.asked if a.operation == f"GET {TRAIN}"] == [note["etag"]]


def flipped(content: bytes) -> bytes:
    """The file with a page of its first row group overwritten."""
    return content[:60] + bytes(byte ^ 0xFF for byte in content[60:400]) + content[400:]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (TRAIN, made.parquet(made.rows(1, 6))[:-200], "train.parquet arrived damaged .* truncated"),
        (TRAIN, flipped(made.parquet(made.rows(1, 6))), "train.parquet arrived damaged .* cannot be read"),
        (TRAIN, b"<html>", "train.parquet arrived damaged .* no parquet"),
        (TRAIN, made.parquet(made.rows(1, 6).drop(columns="feature_d")), "1 of the features .* 'feature_d'"),
        (TRAIN, made.parquet(pd.concat([made.rows(1, 2), made.rows(4, 6)])), "eras between 2 and 4 are missing"),
        (TRAIN, made.parquet(made.rows(1, 6).drop(columns="era")), "no column 'era'"),
        ("v5.3/live.parquet", made.parquet(made.rows(1, 1)), "live rows have era 'X'"),
        ("v5.3/features.json", b"{}", "features.json arrived damaged .* 'feature_sets'"),
        ("v5.3/features.json", b'{"feature_sets": {"small": []}}', "features.json arrived damaged .* 'all'"),
    ],
)
def test_a_damaged_file_never_takes_its_name(
    double: Double, client: Client, tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    double.datasets[name] = content
    with pytest.raises(DataError, match=message):
        fetch(tmp_path, client=client)
    assert not (tmp_path / name.split("/")[1]).exists()
    assert not [file for file in tmp_path.iterdir() if ".part" in file.name]
    double.datasets[name] = made.dataset()[name]
    fetch(tmp_path, client=client)
    assert_equal(tmp_path, double)


def test_a_damaged_update_leaves_the_old_file_in_place(double: Double, client: Client, tmp_path: Path) -> None:
    fetch(tmp_path, client=client)
    before = (tmp_path / "validation.parquet").read_bytes()
    double.datasets[VALIDATION] = made.parquet(made.rows(7, 9))
    with pytest.raises(DataError, match="it ends with era 9, but an earlier download reached era 10"):
        fetch(tmp_path, client=client)
    assert (tmp_path / "validation.parquet").read_bytes() == before


def test_train_and_validation_must_fit_together(double: Double, client: Client, tmp_path: Path) -> None:
    double.datasets[VALIDATION] = made.parquet(made.rows(8, 10))
    with pytest.raises(DataError, match=r"train.parquet ends with era 6, validation.parquet begins with era 8"):
        fetch(tmp_path, client=client)


def test_a_newer_version_is_offered_and_never_mixed(double: Double, client: Client, tmp_path: Path) -> None:
    double.datasets |= made.dataset("v5.10") | made.dataset("v5.2")
    assert fetch(tmp_path / "data", client=client).newer == "v5.10"
    assert_equal(tmp_path / "data", double)
    with pytest.raises(DataError, match=r"holds v5.3; versions are never mixed"):
        fetch(tmp_path / "data", "v5.10", client=client)
    assert fetch(tmp_path / "other", "v5.10", client=client).newer is None
    with pytest.raises(DataError, match=r"no dataset 'v6.0'; it has v5.2, v5.3, v5.10"):
        fetch(tmp_path / "third", "v6.0", client=client)


def test_files_can_be_chosen(double: Double, client: Client, tmp_path: Path) -> None:
    double.datasets["v5.3/live_benchmark_models.parquet"] = made.parquet(made.live()[["era"]].assign(v53=0.5))
    double.datasets["v5.3/live_example_preds.csv"] = b"id,prediction\n"
    double.datasets["v5.3/live_example_preds.parquet"] = made.parquet(made.live()[[]].assign(prediction=0.5))
    chosen = [name.split("/")[1] for name in double.datasets if "live_" in name]
    result = fetch(tmp_path, files=chosen, client=client)
    assert set(result.fetched) == {"features.json", *chosen}
    with pytest.raises(DataError, match=r"no file 'absent.parquet'; it has features.json, live.parquet"):
        fetch(tmp_path, files=["absent.parquet"], client=client)


def test_a_file_that_fetch_did_not_write_is_not_overwritten(client: Client, tmp_path: Path) -> None:
    (tmp_path / "train.parquet").write_bytes(b"mine")
    with pytest.raises(DataError, match=r"has a train.parquet that `eravane fetch` did not write"):
        fetch(tmp_path, client=client)
    assert (tmp_path / "train.parquet").read_bytes() == b"mine"


@pytest.mark.parametrize(
    "name", ["v5.3/../../x", "/etc/passwd", "v5.3/..", "v5.3/a\\b", "v5.3/", "v5.3/.hidden", "v5.3/a b"]
)
def test_a_listed_name_that_leads_elsewhere_is_never_fetched(
    double: Double, client: Client, tmp_path: Path, name: str
) -> None:
    double.datasets[name] = b"x"
    with pytest.raises(DataError, match=r"has no file|did not write"):
        fetch(tmp_path / "data", files=[name.removeprefix("v5.3/")], client=client)
    assert double.count(f"GET {name}") == 0
    fetch(tmp_path / "data", client=client)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_too_small_a_disk_is_refused_before_it_is_full(
    double: Double, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eravane.tournament.fetch.LEAST_ROOM", 0)
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=10))
    with pytest.raises(DataError, match="still to come; make room"):
        fetch(tmp_path, client=client)


def _blocked(out: Path) -> None:
    out.write_text("a file")


def _foreign(out: Path) -> None:
    out.mkdir()
    (out / "train.parquet").write_bytes(b"mine")


def _other_version(out: Path) -> None:
    out.mkdir()
    Dataset("v5.2").write(out)


def _full(out: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("begin", "version", "words"),
    [
        (_blocked, "v5.3", "is no folder; choose another"),
        (_foreign, "v5.3", "train.parquet that `eravane fetch` did not write"),
        (_other_version, "v5.3", r"holds v5\.2; versions are never mixed"),
        (_full, "v5.3", "10 B free, which holds no dataset; make room"),
        (lambda out: None, "5.3", "'5.3' is no dataset version"),
    ],
    ids=["no folder", "foreign files", "another version", "no room", "no version"],
)
def test_what_the_folder_forbids_is_refused_before_the_network_is_asked(
    double: Double,
    client: Client,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    begin: Callable[[Path], None],
    version: str,
    words: str,
) -> None:
    begin(tmp_path / "data")
    if begin is _full:
        monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=10))
    with pytest.raises(DataError, match=words):
        fetch(tmp_path / "data", version, client=client)
    assert double.asked == []


def test_a_folder_that_cannot_be_written(
    double: Double, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)  # root may write everywhere
    with pytest.raises(DataError, match=f"{tmp_path} cannot be written; choose another folder"):
        fetch(tmp_path / "new" / "data", client=client)
    assert double.asked == []


def test_a_disk_that_fills_up_is_a_clear_error(
    double: Double, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("eravane.tournament.download.os", SimpleNamespace(fsync=full))
    with pytest.raises(DataError, match=r"features.json.part cannot be written: No space left on device"):
        fetch(tmp_path, client=client)


def test_no_round_is_no_obstacle(double: Double, client: Client, tmp_path: Path) -> None:
    double.round = None
    result: Fetched = fetch(tmp_path, client=client)
    assert result.dataset.files["train.parquet"].round is None

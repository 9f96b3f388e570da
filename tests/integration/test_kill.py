"""A run that is killed, fills the disk or loses its newest checkpoint ends in the bytes of one that was left alone."""

from __future__ import annotations

import dataclasses
import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from eravane.core.config import RunConfig, parse_config
from eravane.core.errors import RunError
from eravane.core.files import PART
from eravane.data.ingest import ingest
from eravane.data.store.store import SNAPSHOTS
from eravane.pipeline.batch import run
from tests.integration.victim import Moments, disk_full, run_and_die
from tests.support.micro import MICRO
from tests.support.programs import PROCESSES
from tests.support.shared import Runs

FINAL = ("live_predictions.csv", "metrics.json", "known_at.json", "models/index.json", "live.json")


@pytest.fixture(scope="module", params=["refit+leaves", pytest.param("append", marks=pytest.mark.full)])
def config(request: pytest.FixtureRequest) -> RunConfig:
    """With the default learner and the default update of its models on a rolling window, and with appended trees."""
    loop = {"append": {"every": 4, "append_trees": 2}}.get(request.param, MICRO["loop"])
    return parse_config({**MICRO, "zoo": {**MICRO["zoo"], "window": 4}, "loop": {**loop, "update": request.param}})


def _state(folder: Path) -> dict[str, bytes]:
    """Every result and all that the loop keeps, but for clocks: seconds, dates, the notes on what was resumed."""
    paths = [
        *(path for path in folder.glob("*.parquet") if path.name not in ("zoo.parquet", "telemetry.parquet")),
        *(folder / name for name in FINAL),
        *(folder / "models").glob("*.ubj"),
        *(path for path in (folder / "checkpoints").rglob("*") if path.is_file()),
    ]
    # What was half written at the kill is deleted a day later: until then its writer might be alive.
    kept = [path for path in paths if path.suffix != PART]
    return {str(path.relative_to(folder)): path.read_bytes() for path in kept}


@pytest.fixture(scope="module")
def whole(
    runs: Runs, micro_data: Path, config: RunConfig, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, bytes], int]:
    """A run that was left alone: its cache, its state, and how many moments it has with that cache."""
    folder = runs.started(micro_data, config, tmp_path_factory.mktemp("whole") / "whole")
    shutil.rmtree(folder / "run")
    with Moments(0, disk_full) as moments:
        run(micro_data, config, folder / "run", cache=folder / "cache")
    return folder / "cache", _state(folder / "run"), moments.count


def _killed(data: Path, config: RunConfig, out: Path, cache: Path, at: int) -> None:
    process = PROCESSES.Process(target=run_and_die, args=(data, config, out, cache, at))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


def _differences(found: dict[str, bytes], expected: dict[str, bytes]) -> list[str]:
    return sorted(name for name in found | expected if found.get(name) != expected.get(name))


def _kill_and_resume(
    share: float, whole: tuple[Path, dict[str, bytes], int], data: Path, config: RunConfig, out: Path
) -> None:
    cache, expected, moments = whole
    _killed(data, config, out, cache, 1 + int(share * (moments - 1)))
    run(data, config, out, resume=True, cache=cache)
    assert _differences(_state(out), expected) == []


@pytest.mark.parametrize("share", [0.2, 0.71, 0.97])
def test_a_killed_run_resumes_to_the_same_bytes(
    share: float, whole: tuple[Path, dict[str, bytes], int], micro_data: Path, config: RunConfig, tmp_path: Path
) -> None:
    _kill_and_resume(share, whole, micro_data, config, tmp_path / "run")


@pytest.mark.full
@pytest.mark.parametrize("seed", range(30))
def test_thirty_random_kills(
    seed: int, whole: tuple[Path, dict[str, bytes], int], micro_data: Path, config: RunConfig, tmp_path: Path
) -> None:
    _kill_and_resume(np.random.default_rng(seed).random(), whole, micro_data, config, tmp_path / "run")


@pytest.mark.full
def test_every_moment_of_one_era(
    whole: tuple[Path, dict[str, bytes], int], micro_data: Path, config: RunConfig, tmp_path: Path
) -> None:
    """An era with an update, from its record to the dropping of the checkpoint before last."""
    cache, expected, moments = whole
    first = int(0.6 * moments)
    for at in range(first, first + 40):
        out = tmp_path / str(at)
        _killed(micro_data, config, out, cache, at)
        run(micro_data, config, out, resume=True, cache=cache)
        assert _differences(_state(out), expected) == [], at


def test_a_run_killed_twice(
    whole: tuple[Path, dict[str, bytes], int], micro_data: Path, config: RunConfig, tmp_path: Path
) -> None:
    cache, expected, moments = whole
    _killed(micro_data, config, tmp_path / "run", cache, moments // 2)
    _killed(micro_data, config, tmp_path / "run", cache, moments // 4)
    run(micro_data, config, tmp_path / "run", resume=True, cache=cache)
    assert _differences(_state(tmp_path / "run"), expected) == []


@pytest.mark.parametrize("share", [0.1, 0.5, 0.8, 0.99])
def test_a_full_disk_is_reported_and_resumed_from(
    share: float, whole: tuple[Path, dict[str, bytes], int], micro_data: Path, config: RunConfig, tmp_path: Path
) -> None:
    cache, expected, moments = whole
    with Moments(int(share * moments), disk_full), pytest.raises(RunError, match="No space left on device"):
        run(micro_data, config, tmp_path / "run", cache=cache)
    run(micro_data, config, tmp_path / "run", resume=(tmp_path / "run").exists(), cache=cache)
    assert _differences(_state(tmp_path / "run"), expected) == []


@pytest.mark.parametrize("damage", ["flip", "cut", "manifest", "gone"])
def test_a_damaged_newest_checkpoint_falls_back(
    damage: str, whole: tuple[Path, dict[str, bytes], int], micro_data: Path, config: RunConfig, tmp_path: Path
) -> None:
    cache, expected, moments = whole
    out = tmp_path / "run"
    _killed(micro_data, config, out, cache, int(0.7 * moments))
    newest = max((out / "checkpoints").glob("[0-9]*"))
    state = newest / "gate.safetensors"
    if damage == "flip":
        content = bytearray(state.read_bytes())
        content[-1] ^= 1
        state.write_bytes(content)
    elif damage == "cut":
        state.write_bytes(state.read_bytes()[:-1])
    elif damage == "manifest":
        (newest / "manifest.json").write_text("{")
    else:
        shutil.rmtree(newest)
    result = run(micro_data, config, out, resume=True, cache=cache)
    assert (damage == "gone") != any(f"{newest.name} is damaged" in note for note in result.notes)
    assert _differences(_state(out), expected) == []


# --- data that changed while a run was down -----------------------------------------------------------------------

CHANGED = "changed since the run began, and is not read"


def _corrected(source: Path, folder: Path) -> Path:
    """The dataset with other labels in its newest file."""
    shutil.copytree(source, folder, dirs_exist_ok=True)
    frame = pd.read_parquet(folder / "validation.parquet")
    targets = [name for name in frame if name.startswith("target")]
    frame[targets] = 1.0 - frame[targets]
    frame.to_parquet(folder / "validation.parquet")
    return folder


def _store_of(run_folder: Path) -> Path:
    return Path(json.loads((run_folder / "manifest.json").read_text())["data"]["store"])


def test_a_replaced_file_is_reported_and_not_read(
    whole: tuple[Path, dict[str, bytes], int], micro_data: Path, config: RunConfig, tmp_path: Path
) -> None:
    cache, expected, moments = whole
    shutil.copytree(micro_data, tmp_path / "data")
    _killed(tmp_path / "data", config, tmp_path / "run", cache, int(0.7 * moments))
    _corrected(micro_data, tmp_path / "data")
    done = run(tmp_path / "data", config, tmp_path / "run", resume=True, cache=cache)
    assert [note for note in done.notes if CHANGED in note and "validation.parquet in " in note]
    assert _differences(_state(tmp_path / "run"), expected) == []


def test_a_newer_ingest_into_the_shared_cache_is_noted_and_not_read(
    whole: tuple[Path, dict[str, bytes], int], micro_data: Path, config: RunConfig, tmp_path: Path
) -> None:
    cache, expected, moments = whole
    shutil.copytree(cache, tmp_path / "cache")
    _killed(micro_data, config, tmp_path / "run", tmp_path / "cache", int(0.7 * moments))
    store = _store_of(tmp_path / "run")
    ingest(_corrected(micro_data, tmp_path / "data"), store)
    done = run(micro_data, config, tmp_path / "run", resume=True, cache=tmp_path / "cache")
    assert not [note for note in done.notes if CHANGED in note]
    assert _differences(_state(tmp_path / "run"), expected) == []
    _killed(micro_data, config, tmp_path / "again", tmp_path / "cache", int(0.7 * moments))
    ingest(tmp_path / "data", store)
    shutil.rmtree(store / SNAPSHOTS)
    with pytest.raises(RunError, match=r"was begun on data \w{16}, and .* now holds \w{16}.*start a new run"):
        run(micro_data, config, tmp_path / "again", resume=True, cache=tmp_path / "cache")


def test_other_members_and_feature_sets_are_refused(
    whole: tuple[Path, dict[str, bytes], int], micro_data: Path, config: RunConfig, tmp_path: Path
) -> None:
    cache, _, moments = whole
    shutil.copytree(micro_data, tmp_path / "data")
    rows = pd.concat([pd.read_parquet(micro_data / f"{name}.parquet") for name in ("train", "validation")])
    member = rows.reset_index()[["id"]].assign(prediction=np.linspace(0, 1, len(rows)))
    member.to_parquet(tmp_path / "member.parquet")
    members = {"mine": str(tmp_path / "member.parquet")}
    config = dataclasses.replace(config, zoo=dataclasses.replace(config.zoo, members=members))
    _killed(tmp_path / "data", config, tmp_path / "run", cache, int(0.7 * moments))
    member.assign(prediction=member["prediction"].to_numpy()[::-1]).to_parquet(tmp_path / "member.parquet")
    with pytest.raises(RunError, match="the member 'mine' is not as it was when the run began"):
        run(tmp_path / "data", config, tmp_path / "run", resume=True, cache=cache)
    member.to_parquet(tmp_path / "member.parquet")
    path = tmp_path / "data" / "features.json"
    content = json.loads(path.read_text())
    used = next(name for name in config.data.feature_sets if name in content["feature_sets"])
    content["feature_sets"][used] = content["feature_sets"][used][1:]
    path.write_text(json.dumps(content))
    with pytest.raises(RunError, match=r"features\.json is not as it was when the run began"):
        run(tmp_path / "data", config, tmp_path / "run", resume=True, cache=cache)


def test_another_meta_model_under_the_same_name_is_refused(
    whole: tuple[Path, dict[str, bytes], int], micro_data: Path, config: RunConfig, tmp_path: Path
) -> None:
    cache, _, moments = whole
    shutil.copytree(micro_data, tmp_path / "data")
    rows = pd.concat([pd.read_parquet(micro_data / f"{name}.parquet") for name in ("train", "validation")])
    meta = rows[["era"]].assign(numerai_meta_model=np.linspace(0, 1, len(rows)))
    meta.to_parquet(tmp_path / "data" / "meta_model.parquet")
    config = dataclasses.replace(config, aim="payout")
    _killed(tmp_path / "data", config, tmp_path / "run", cache, int(0.7 * moments))
    other = meta.assign(numerai_meta_model=meta["numerai_meta_model"].to_numpy()[::-1])
    other.to_parquet(tmp_path / "data" / "meta_model.parquet")
    with pytest.raises(RunError, match=r"meta_model\.parquet is not as it was when the run began.*start a new run"):
        run(tmp_path / "data", config, tmp_path / "run", resume=True, cache=cache)
    meta.sample(frac=1, random_state=0).to_parquet(tmp_path / "data" / "meta_model.parquet")  # the same values
    run(tmp_path / "data", config, tmp_path / "run", resume=True, cache=cache)


def test_a_store_of_ones_own_that_has_grown_is_noted_and_not_read(
    whole: tuple[Path, dict[str, bytes], int], micro_data: Path, config: RunConfig, tmp_path: Path
) -> None:
    cache, _, moments = whole
    store = tmp_path / "store"
    ingest(micro_data, store)
    run(store, config, tmp_path / "whole", cache=cache)
    _killed(store, config, tmp_path / "run", cache, int(0.7 * moments))
    ingest(_corrected(micro_data, tmp_path / "data"), store)
    done = run(store, config, tmp_path / "run", resume=True, cache=cache)
    assert [note for note in done.notes if CHANGED in note and f"the store {store}" in note]
    assert _differences(_state(tmp_path / "run"), _state(tmp_path / "whole")) == []


def test_a_deleted_cache_is_made_again_of_the_same_files_alone(
    whole: tuple[Path, dict[str, bytes], int], micro_data: Path, config: RunConfig, tmp_path: Path
) -> None:
    cache, expected, moments = whole
    for name in ("same", "other"):
        shutil.copytree(micro_data, tmp_path / name / "data")
        shutil.copytree(cache / "boosters", tmp_path / name / "cache" / "boosters")
        _killed(tmp_path / name / "data", config, tmp_path / name / "run", tmp_path / name / "cache", moments // 2)
        shutil.rmtree(tmp_path / name / "cache" / "stores")
    folder = tmp_path / "same"
    run(folder / "data", config, folder / "run", resume=True, cache=folder / "cache")
    assert _differences(_state(folder / "run"), expected) == []
    folder = tmp_path / "other"
    _corrected(micro_data, folder / "data")
    before = {path: path.read_bytes() for path in (folder / "run" / "checkpoints").rglob("*") if path.is_file()}
    assert before
    with pytest.raises(RunError, match=r"was begun on data \w{16}, and .* now holds \w{16}.*start a new run"):
        run(folder / "data", config, folder / "run", resume=True, cache=folder / "cache")
    assert {path: path.read_bytes() for path in before} == before

"""State that another build wrote, or that someone changed: a sentence that names the file, and never a raw error."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load, save

from eravane.core.config import parse_config
from eravane.core.errors import EravaneError, RunError
from eravane.gate.outcomes import History
from eravane.loop import session
from eravane.pipeline.batch import run
from eravane.pipeline.export import export
from eravane.pipeline.week import step
from eravane.report import write_report
from eravane.runstate.eradisk import EraFiles
from eravane.synth import SynthConfig, synthesise

Arrays = dict[str, NDArray[Any]]
CONFIG = {
    "data": {"feature_sets": ["small", "all"]},
    "time": {"loop_eras": 12},
    "zoo": {"trees": 2, "fold_eras": 10, "folds": 2, "minimum_eras": 2, "learner": "xgboost", "seeds": 2, "window": 8},
    "selection": {"most": 3, "minimum_corr": -1.0},
    "gate": {"warmup": 6, "seeds": 2, "steps": 4, "refit_every": 6, "rehearsal": 2},
    "loop": {"update": "refit", "every": 4},
    "compute": {"device": "cpu", "workers": 1},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("unlike")
    sizes = SynthConfig(main_target="target_ender_20", eras=60, rows=40, features=16, groups=3, seed=5, snr=0.5)
    synthesise(place / "data", sizes)
    run(place / "data", parse_config(CONFIG), place / "run", cache=place / "cache")
    return place


def _newest(folder: Path) -> Path:
    return max((folder / "checkpoints").glob("[0-9]*"))


def _rewrite(folder: Path, files: dict[str, bytes], change: Callable[[dict[str, Any]], None] = lambda _: None) -> None:
    """Change the newest checkpoint, with checksums as a writer would give them."""
    path = _newest(folder)
    manifest = json.loads((path / "manifest.json").read_text())
    for name, content in files.items():
        (path / name).write_bytes(content)
        manifest["sha256"][name] = hashlib.sha256(content).hexdigest()
    change(manifest)
    (path / "manifest.json").write_text(json.dumps(manifest))


def _arrays(folder: Path) -> Arrays:
    return load((_newest(folder) / "gate.safetensors").read_bytes())


def _damaged(arrays: Arrays) -> dict[str, Arrays]:
    """Every array left out, of another dtype, longer in every dimension; and one that nobody knows."""
    found: dict[str, Arrays] = {"unknown": {**arrays, "regimes.new": np.zeros(3)}}
    for name, array in arrays.items():
        # Versions may lack blocks: those that all have are used.
        if not name.startswith("versions.z"):
            found[f"no {name}"] = {key: value for key, value in arrays.items() if key != name}
        other = np.float32 if array.dtype != np.float32 else np.float64
        found[f"dtype of {name}"] = {**arrays, name: array.astype(other)}
        found[f"one dimension more in {name}"] = {**arrays, name: array[None]}
        if array.ndim and not name.startswith(("outside", "pending.answers", "versions.z")):
            grown = np.concatenate([array, array[:1] if len(array) else np.zeros((1, *array.shape[1:]), array.dtype)])
            found[f"length of {name}"] = {**arrays, name: grown}
    return found


def test_every_array_of_the_gate_is_checked_for_presence_dtype_and_shape(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays = _arrays(made / "run")
    kinds = {name.partition(".")[0] for name in arrays}
    assert kinds >= {"regimes", "inputs", "scorer", "network", "squint", "pending", "versions", "scores", "closed"}
    assert "versions.past.paid" in arrays
    folder = tmp_path / "run"
    shutil.copytree(made / "run", folder)
    read_history, read = session.read_history, list[History]()

    def once(*arguments: Any) -> History:
        """The eras' files are those of the run each time."""
        if not read:
            read.append(read_history(*arguments))
        return read[0]

    monkeypatch.setattr(session, "read_history", once)
    for what, changed in _damaged(arrays).items():
        _rewrite(folder, {"gate.safetensors": save({k: np.ascontiguousarray(v) for k, v in changed.items()})})
        try:
            export(folder, tmp_path / "model.pkl")
        except RunError as error:
            message = str(error)
        else:
            pytest.fail(f"exported with {what}")
        assert str(_newest(folder)) in message, (what, message)
        assert "written by another eravane: this one" in message, (what, message)
        assert "--resume" in message, (what, message)


def _without(content: dict[str, Any], prefix: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    paths = []
    for name, entry in content.items():
        paths.append((*prefix, name))
        if isinstance(entry, dict) and len(prefix) < 2:
            paths += _without(entry, (*prefix, name))
    return paths


def _changed(content: dict[str, Any], path: tuple[str, ...], value: object) -> dict[str, Any]:
    copy = json.loads(json.dumps(content))
    place = copy
    for name in path[:-1]:
        place = place[name]
    if value is None:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return copy


@pytest.mark.parametrize("value", [None, "x", 7, [3], {"a": 1}, -1.5, True], ids=str)
def test_values_of_gate_and_checkpoint_of_any_type_are_no_raw_error(made: Path, tmp_path: Path, value: object) -> None:
    folder = tmp_path / "run"
    shutil.copytree(made / "run", folder)
    gate = json.loads((_newest(folder) / "gate.json").read_text())
    refused = 0
    for path in _without(gate):
        _rewrite(folder, {"gate.json": json.dumps(_changed(gate, path, value)).encode()})
        refused += _refused(lambda: export(folder, tmp_path / "model.pkl"))
    _rewrite(folder, {"gate.json": json.dumps(gate).encode()})
    manifest = json.loads((_newest(folder) / "manifest.json").read_text())
    for path in _without(manifest):
        (_newest(folder) / "manifest.json").write_text(json.dumps(_changed(manifest, path, value)))
        refused += _refused(lambda: export(folder, tmp_path / "model.pkl"))
    assert refused > 12


def _refused(action: Callable[[], object]) -> bool:
    try:
        action()
    except EravaneError:
        return True
    return False


def _drop(folder: Path, name: str) -> None:
    arrays = {key: np.ascontiguousarray(value) for key, value in _arrays(folder).items() if key != name}
    _rewrite(folder, {"gate.safetensors": save(arrays)})


def test_step_and_resume_name_the_checkpoint_and_go_on_once_it_is_deleted(made: Path, tmp_path: Path) -> None:
    place = tmp_path / "place"
    shutil.copytree(made, place)
    for path in (place / "run").glob("*.json"):
        path.write_text(path.read_text().replace(str(made), str(place)))
    folder, data = place / "run", place / "data"
    live = (folder / "live_predictions.csv").read_bytes()
    _drop(folder, "regimes.to_MK")
    (data / "live.parquet").unlink()
    with pytest.raises(RunError, match=r"checkpoint .* this one misses 'regimes\.to_MK'; continue .* or delete"):
        run(data, parse_config(CONFIG), folder, cache=place / "cache", resume=True)
    write_report(folder)
    shutil.copy(made / "data" / "live.parquet", data)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "status": "complete"}))
    with pytest.raises(RunError, match=r"misses 'regimes\.to_MK'"):
        _step_after_news(folder, data, place)
    for saved in (folder / "checkpoints").glob("[0-9]*"):
        shutil.rmtree(saved)
    step(folder, data, cache=place / "cache")
    assert (folder / "live_predictions.csv").read_bytes() == live


def _step_after_news(folder: Path, data: Path, place: Path) -> None:
    """A step that has something to do: the run's newest era is taken back."""
    schedule = json.loads((folder / "known_at.json").read_text())
    (folder / "known_at.json").write_text(json.dumps(_changed(schedule, ("done",), schedule["done"] - 1)))
    step(folder, data, cache=place / "cache")


@pytest.mark.parametrize("kind", ["eras", "resolved"])
def test_files_of_eras_that_lack_an_array_are_named(made: Path, tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "run"
    shutil.copytree(made / "run", folder)
    files = EraFiles(folder / "checkpoints" / kind)
    era = files.eras()[-1 if kind == "eras" else 2]
    path = folder / "checkpoints" / kind / f"{era:04d}.safetensors"
    arrays = load(path.read_bytes())
    actions: dict[str, Callable[[], object]] = {
        "eras": lambda: run(made / "data", parse_config(CONFIG), folder, cache=made / "cache", resume=True),
        "resolved": lambda: export(folder, tmp_path / "model.pkl"),
    }
    for name in arrays:
        files.put(era, {key: value for key, value in arrays.items() if key != name})
        if name.startswith("comparator."):
            continue
        with pytest.raises(RunError, match=f"{path.name} was written by another eravane: this one misses '{name}'"):
            actions[kind]()
    files.put(era, arrays)

"""A made run folder with known numbers, and a headless Chromium that is driven over its debugging pipe."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

SETS = ("small", "medium", "all")
GROUPS = ("intelligence", "charisma", "strength", "dexterity", "constitution", "wisdom", "sunshine")
FIRST_ERA, ERAS, REPORT_START, ROWS = 201, 110, 211, 60


@dataclass(frozen=True)
class MadeRun:
    """A fabricated run folder and the tables it was written from (era as integer index)."""

    path: Path
    zoo: pd.DataFrame
    weights: pd.DataFrame
    scores: pd.DataFrame
    base: pd.DataFrame
    events: list[dict[str, Any]]

    @property
    def counted(self) -> pd.DataFrame:
        return self.scores[self.scores.index >= REPORT_START]


def make_zoo(rng: np.random.Generator) -> pd.DataFrame:
    cells = [(s, g) for s in SETS for g in GROUPS]
    n = len(cells)
    zoo = pd.DataFrame(cells, columns=["feature_set", "group"])
    zoo.insert(0, "model_id", [f"{s}-{g}-t20-s0" for s, g in cells])
    zoo["target"], zoo["learner"] = "target_ender_20", "xgboost"
    zoo["n_features"] = rng.integers(20, 800, n)
    zoo["n_trees"] = rng.choice([100, 200, 400], n)
    zoo["corr_mean"] = rng.normal(0.014, 0.006, n)
    zoo["corr_std"] = rng.normal(0.02, 0.002, n)
    zoo["sharpe"] = zoo["corr_mean"] / zoo["corr_std"]
    zoo["max_drawdown"] = rng.uniform(0.02, 0.2, n)
    zoo["selected"] = zoo["corr_mean"] > zoo["corr_mean"].nsmallest(3).max()
    zoo["reason"] = np.where(zoo["selected"], "kept", "mean CORR below the bound")
    zoo["seconds"] = rng.uniform(0.5, 4, n)
    return zoo


def make_weights(rng: np.random.Generator, models: list[str], regimes: np.ndarray) -> pd.DataFrame:
    taste = rng.normal(0, 1.4, (regimes.max() + 1, len(models)))
    raw = np.exp(taste[regimes] + rng.normal(0, 0.15, (ERAS, len(models))))
    closed = taste[regimes] < -0.9
    raw[closed] = 0.0
    raw[: REPORT_START - FIRST_ERA] = 1.0
    index = pd.RangeIndex(FIRST_ERA, FIRST_ERA + ERAS, name="era")
    return pd.DataFrame(raw / raw.sum(axis=1, keepdims=True), index=index, columns=models)


def make_scores(rng: np.random.Generator, weights: pd.DataFrame) -> pd.DataFrame:
    market = np.convolve(rng.normal(0.012, 0.03, ERAS + 3), np.ones(4) / 4, "valid")
    scores = pd.DataFrame(index=weights.index)
    scores["equal_weight"] = market
    scores["ensemble"] = market + np.convolve(rng.normal(0.004, 0.012, ERAS + 3), np.ones(4) / 4, "valid")
    scores.iloc[: REPORT_START - FIRST_ERA, 1] = scores.iloc[: REPORT_START - FIRST_ERA, 0]
    scores["best_single"] = market + rng.normal(-0.003, 0.01, ERAS)
    scores["benchmark_v53_lgbm_ender20"] = market + rng.normal(0.001, 0.012, ERAS)
    models = {name: market + rng.normal(-0.002, 0.012, ERAS) for name in weights.columns}
    scores = pd.concat([scores, pd.DataFrame(models, index=weights.index)], axis=1)
    scores["known_at"] = scores.index + 6
    scores.iloc[-6:, :-1] = np.nan
    return scores


def make_base(rng: np.random.Generator, weights: pd.DataFrame) -> pd.DataFrame:
    eras = np.repeat(weights.index.to_numpy(), ROWS)
    common = rng.normal(0, 1, (eras.size, 1))
    values = (common + rng.normal(0, 1, (eras.size, weights.shape[1]))).astype(np.float32)
    frame = pd.DataFrame(values, columns=weights.columns)
    frame.insert(0, "era", [f"{era:04d}" for era in eras])
    frame.insert(0, "id", [f"n{i:08x}" for i in range(eras.size)])
    return frame


def make_events(rng: np.random.Generator, zoo: pd.DataFrame) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = [
        {"event": "stage", "stage": "ingest", "seconds": 3.25, "bytes": 120_000_000, "device": "cpu"},
        {"event": "started", "time": 1795449600.5, "device": "cpu"},
    ]
    events += [
        {"event": "trained", "cell": name, "seconds": float(cost), "device": "cpu"}
        for name, cost in zip(zoo["model_id"], zoo["seconds"], strict=True)
    ]
    events.append({"event": "stage", "stage": "zoo", "seconds": 31.5, "bytes": 400_000_000, "device": "cpu"})
    for era in range(FIRST_ERA, FIRST_ERA + ERAS):
        costs = {"trees": 0.0 if era % 26 else 2.0, "predict": 0.08, "gate": 0.05, "weigh": 0.01}
        parts = {name: round(float(cost * rng.uniform(0.8, 1.2)), 4) for name, cost in costs.items()}
        events.append({"event": "era", "era": era, "seconds": sum(parts.values()), "parts": parts, "device": "cpu"})
    return events


def make_optional(rng: np.random.Generator, regimes: np.ndarray, eras: list[str]) -> dict[str, pd.DataFrame]:
    centres = rng.normal(0, 3, (regimes.max() + 1, 2))
    points = centres[regimes] + rng.normal(0, 0.7, (ERAS, 2))
    cells = [(s, g) for s in SETS for g in GROUPS]
    exposure = pd.DataFrame(cells, columns=["feature_set", "group"])
    exposure["mean"] = rng.uniform(0.005, 0.03, len(cells))
    exposure["max"] = exposure["mean"] * rng.uniform(3, 8, len(cells))
    return {
        "prototypes": pd.DataFrame({"era": eras, "prototype": regimes, "x": points[:, 0], "y": points[:, 1]}),
        "exposure": exposure,
        "missing": pd.DataFrame({"era": eras, "n_missing": np.maximum(0, 300 - 4 * np.arange(ERAS))}),
    }


def by_era(table: pd.DataFrame) -> pd.DataFrame:
    out = table.reset_index()
    out["era"] = [f"{era:04d}" for era in out["era"]]
    return out


MANIFEST: dict[str, Any] = {
    "status": "complete",
    "versions": {"eravane": "0.1.0", "python": "3.11.9", "torch": "2.13.0", "xgboost-cpu": "3.2.0"},
    "device": "cpu",
    "data": {"path": "/data/v5.3", "fingerprint": "9f2c1b7a"},
    "config_digest": "0a1b2c3d4e5f",
    "seed": 7,
    "target": "target_ender_20",
    "periods": {"first_era": 1, "loop_start": FIRST_ERA, "report_start": REPORT_START, "folds": ["1-44", "45-88"]},
    "lags": {"score": 6, "tree": 9, "minimum_score": 6, "minimum_tree": 9, "observed": 0, "hac": 8},
    "leaking": False,
    "peak_memory_bytes": 1_530_000_000,
    "notes": ["18 of 21 base models selected on 120 out-of-fold eras"],
}


def make_run(path: Path, seed: int = 0) -> MadeRun:
    """Write every file of the run folder contract, small, with a market factor, regimes and a gate that helps."""
    rng = np.random.default_rng(seed)
    path.mkdir(parents=True, exist_ok=True)
    zoo = make_zoo(rng)
    regimes = np.repeat(rng.integers(0, 4, ERAS // 10 + 1), 10)[:ERAS]
    weights = make_weights(rng, zoo.loc[zoo["selected"], "model_id"].tolist(), regimes)
    scores, base, events = make_scores(rng, weights), make_base(rng, weights), make_events(rng, zoo)
    made = MadeRun(path, zoo, weights, scores, base, events)
    zoo.to_parquet(path / "zoo.parquet", index=False)
    base.to_parquet(path / "base_predictions.parquet", index=False)
    base.to_parquet(path / "oof.parquet", index=False)
    by_era(weights.assign(n_active=(weights > 0).sum(axis=1))).to_parquet(path / "weights.parquet", index=False)
    by_era(scores).to_parquet(path / "scores.parquet", index=False)
    predictions = base[["id", "era"]].assign(prediction=rng.uniform(0.01, 0.99, len(base)))
    predictions.to_parquet(path / "predictions.parquet", index=False)
    predictions.head(ROWS)[["id", "prediction"]].to_csv(path / "live_predictions.csv", index=False)
    for name, table in make_optional(rng, regimes, predictions["era"].unique().tolist()).items():
        table.to_parquet(path / f"{name}.parquet", index=False)
    mean = float(made.counted["ensemble"].mean())
    (path / "metrics.json").write_text(json.dumps({"series": {"ensemble": {"corr_mean": mean}}, "leaking": False}))
    (path / "manifest.json").write_text(json.dumps(MANIFEST))
    (path / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    (path / "run.toml").write_text('seed = 7\n\n[data]\ntarget = "target_ender_20"\n')
    return made


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> MadeRun:
    """One finished made run, shared: tests that change it work on a copy (`changed`)."""
    return make_run(tmp_path_factory.mktemp("run") / "demo-2018")


@pytest.fixture
def changed(made: MadeRun, tmp_path: Path) -> Path:
    """A copy of the made run's folder, free to be damaged."""
    return Path(shutil.copytree(made.path, tmp_path / "run"))


@pytest.fixture
def run_maker():
    """The function that writes a made run: `run_maker(path, seed)`."""
    return make_run


class Browser:
    """Chromium over `--remote-debugging-pipe`: messages are JSON, ended by a zero byte; nothing listens on a port."""

    FLAGS = (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--hide-scrollbars",
        "--remote-debugging-pipe",
    )

    def __init__(self, binary: str, profile: Path) -> None:
        to_child, self._send = os.pipe()
        self._receive, from_child = os.pipe()
        # The pipe protocol reads from descriptor 3 and writes to 4.
        shell = f'exec "$0" "$@" 3<&{to_child} 4>&{from_child}'
        command = ["bash", "-c", shell, binary, *self.FLAGS, f"--user-data-dir={profile}", "about:blank"]
        self._process = subprocess.Popen(
            command, pass_fds=(to_child, from_child), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(to_child)
        os.close(from_child)
        self._buffer, self._count, self._session = b"", 0, None
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            chunk = os.read(self._receive, 1 << 16)
            if not chunk:
                raise RuntimeError("Chromium ended")
            self._buffer += chunk
        message, self._buffer = self._buffer.split(b"\0", 1)
        return json.loads(message)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._send, json.dumps(message).encode() + b"\0")
        while True:
            reply = self._next()
            if reply.get("id") == self._count:
                if "error" in reply:
                    raise RuntimeError(f"{method}: {reply['error']}")
                return reply["result"]
            self.events.append(reply)

    def open(self, path: Path, width: int = 1400, height: int = 1000, dark: bool = False) -> None:
        """Load a local file at a width in CSS pixels and a theme, and wait until it has loaded."""
        self.events.clear()
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        theme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=theme)
        self.call("Page.navigate", url=path.resolve().as_uri())
        self.wait("document.readyState === 'complete' && document.querySelector('main') !== null")

    def js(self, expression: str) -> Any:
        """Value of a JavaScript expression; promises are awaited."""
        reply = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in reply:
            raise RuntimeError(reply["exceptionDetails"]["exception"]["description"])
        return reply["result"].get("value")

    def wait(self, condition: str) -> None:
        """Wait up to ten seconds for a JavaScript condition."""
        poll = (
            "new Promise((done) => { const began = Date.now(); const look = () => "
            f"({condition}) ? done(true) : Date.now() - began > 10000 ? done(false) : setTimeout(look, 30); look(); }})"
        )
        assert self.js(poll), f"never true: {condition}"

    def mouse(self, x: float, y: float, click: bool = False) -> None:
        """Move the mouse to a viewport position; click there if asked."""
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        for kind in ("mousePressed", "mouseReleased") if click else ():
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def screenshot(self, path: Path, full: bool = True) -> None:
        """Write a PNG, of the whole page or of what is in view."""
        image = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=full)
        path.write_bytes(base64.b64decode(image["data"]))

    def complaints(self) -> list[str]:
        """Console errors and warnings, uncaught exceptions, and any request that is not the page itself."""
        self.js("1")
        found = []
        for event in self.events:
            method, params = event.get("method"), event.get("params", {})
            if method == "Runtime.exceptionThrown":
                found.append(str(params["exceptionDetails"]))
            if method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
                found.append(str(params["args"]))
            if method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
                found.append(params["entry"]["text"])
            if method == "Network.requestWillBeSent":
                url = params["request"]["url"]
                if not url.startswith(("file:", "data:", "blob:", "about:")):
                    found.append(f"request to {url}")
        return found

    def close(self) -> None:
        os.close(self._send)
        os.close(self._receive)
        self._process.terminate()
        self._process.wait(timeout=20)


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory):
    """A headless Chromium; tests that need it skip where none is installed."""
    binary = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if binary is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    opened = Browser(binary, tmp_path_factory.mktemp("chromium"))
    yield opened
    opened.close()

"""Cost of an era at different lengths of the loop, and update rules on different kinds of drift.

Update rules are compared on made worlds whose signal stays, swings or breaks, with one model and no gate; tuning uses
seeds 0-4, the report seeds 100-104. Kills and weekly steps are proved by the tests, which are run here.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import xgboost as xgb
from numpy.typing import NDArray

from benchmarks.drift import KINDS, TARGET, DriftConfig, made_store
from benchmarks.harness import Result, say
from eravane.backend import choose
from eravane.calendar.timeline import plan_timeline
from eravane.core.config import GateConfig, LoopConfig, RunConfig, parse_config
from eravane.data.features import Features
from eravane.learners.forest import Predictor
from eravane.learners.registry import predict
from eravane.learners.xgboost import fit, quantile_matrix, resolve_params
from eravane.loop.margins import Margins, full_margin
from eravane.loop.session import Session
from eravane.loop.updates import Model, Updater
from eravane.runstate.runfolder import RunFolder
from eravane.zoo.specs import ModelSpec
from eravane.zoo.trainer import Zoo, start_models
from eravane_kernels import cpu

LOOP_START = 100
PARAMS = {"max_depth": 4, "eta": 0.08, "colsample_bytree": 0.5}
RULES: dict[str, dict[str, Any]] = {
    "none": {"update": "none"},
    "refit, equal weights": {"update": "refit", "half_life": 0.0},
    "refit": {"update": "refit"},
    "append": {"update": "append", "every": 5},
    "leaves": {"update": "leaves"},
    "refit+leaves": {"update": "refit+leaves"},
}
# The loop whose cost is measured starts with the known eras of two folds (the default is four). After the warm-up the
# cap on appended blocks is reached; wherever a span of the gate's `refit_every` lies, it holds one refit of it.
HISTORY, WARM, LATER, SPAN = 312, 26, 180, GateConfig().refit_every
# Eras until the gate trains and every library is loaded.
SETTLED = 80


def main(quick: bool) -> list[Result]:
    """Every claim of the loop; `quick` takes one seed, short loops, and three kills."""
    return [*flat_cost(quick), flat_memory(quick), *margins(quick), *drift(quick), *proofs(quick)]


def flat_cost(quick: bool) -> list[Result]:
    """Seconds per era, gate and checkpoint included, `LATER` eras after the warm-up against right after it."""
    later, span = (30, 8) if quick else (LATER, SPAN)
    results: list[Result] = []
    eras = LOOP_START + HISTORY + WARM + later + span
    with _made(DriftConfig("stationary", 0, eras=eras, rows=300, features=24)) as made:
        features, folder = made
        for rule in ("none", "append", "leaves", "refit"):
            early, late = _era_seconds(features, folder, rule, later, span)
            detail = f"{1000 * early:.0f} ms right after warm-up, {1000 * late:.0f} ms {later} eras later"
            results.append(Result(f"era_cost_{_word(rule)}", late / early, "x", 1.2, "lower", detail))
        early, late = _naive_seconds(features, later, span)
        detail = f"{1000 * early:.1f} ms right after warm-up, {1000 * late:.1f} ms {later} eras later, one model"
        results.append(Result("era_cost_naive_continuation", late / early, "x", None, "lower", detail))
    return results


def _era_seconds(features: Features, folder: Path, rule: str, later: int, span: int) -> tuple[float, float]:
    """Mean CPU seconds of an era in two spans of a loop with four models, its gate and its checkpoints."""
    start = LOOP_START + HISTORY
    config = _config(rule, trees=50, start=start, every=5 if rule == "append" else 26)
    columns = features.store.columns
    specs = tuple(ModelSpec("all", f"g{n}", TARGET, n, columns[n * 5 : n * 5 + 9]) for n in range(4))
    session = _session(features, folder / _word(rule), config, specs)
    session.fit_first_models()
    loop = session.loop
    for era in range(LOOP_START, start):
        values = [features.era(era, spec.columns).values for spec in specs]
        known = [
            predict(loop.models[spec.model_id].trees.boosters(), x_CN) for spec, x_CN in zip(specs, values, strict=True)
        ]
        loop.await_labels(era, np.stack(known))
    seconds: list[float] = []
    for era in range(start, start + WARM + later + span):
        begun = time.process_time()
        session.advance(era)
        seconds.append(time.process_time() - begun)
    say(f"loop: {rule} done")
    return float(np.mean(seconds[WARM : WARM + span])), float(np.mean(seconds[WARM + later : WARM + later + span]))


def flat_memory(quick: bool) -> Result:
    """Resident memory, mapped files among it, after 200 eras against before them."""
    start, settled, later, rows = LOOP_START, (10 if quick else SETTLED), (10 if quick else 200), 1_000
    with _made(DriftConfig("stationary", 0, eras=start + settled + later, rows=rows, features=200)) as (
        features,
        folder,
    ):
        config = _config("append", trees=20, start=start, every=5)
        spec = ModelSpec("all", "all", TARGET, 0, features.store.columns)
        session = _session(features, folder / "run", config, (spec,))
        session.fit_first_models()
        held: list[int] = []
        for era in range(start, start + settled + later):
            session.advance(era)
            held.append(_resident())
    early, late = held[settled - 1], held[-1]
    read = later * rows * len(features.store.columns)
    detail = f"{early / 1e6:.0f} MB, then {late / 1e6:.0f} MB; {read / 1e6:.0f} MB of features were read meanwhile"
    return Result("resident_memory", late / early, "x", 1.05, "lower", detail)


def _resident() -> int:
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.findall(r"VmRSS:\s+(\d+)", status)[0])


def _naive_seconds(features: Features, later: int, span: int) -> tuple[float, float]:
    """The same for `xgb.train(xgb_model=...)` alone, ten trees per update on the last 40 eras."""
    params, _ = resolve_params(PARAMS, "cpu")
    columns, booster, seconds = features.store.columns[:9], None, []
    for era in range(LOOP_START, LOOP_START + WARM + later + span, 5):
        begun = time.process_time()
        window = (era - 48, era - 9)
        matrix = quantile_matrix(features.table(columns, *window), params)
        matrix.set_info(label=features.labels(TARGET, *window))
        booster = xgb.train({**params, "seed": era}, matrix, 10, xgb_model=booster)
        seconds.append(time.process_time() - begun)
    first, last = seconds[WARM // 5 : (WARM + span) // 5], seconds[(WARM + later) // 5 :]
    return float(np.mean(first)), float(np.mean(last))


def margins(quick: bool) -> list[Result]:
    """Appended blocks on cached margins against full prediction and naive continuation, after 100 updates."""
    updates, rng = (10 if quick else 100), np.random.default_rng(0)
    x_CN = rng.integers(0, 5, (20, 5000)).astype(np.int8)
    label_N = (0.5 + 0.05 * rng.normal(size=20) @ x_CN + 0.2 * rng.normal(size=5000)).astype(np.float32)
    params, _ = resolve_params({**PARAMS, "colsample_bytree": 1.0}, "cpu")
    table = pa.table({f"f{n}": pa.array(row) for n, row in enumerate(x_CN)})
    matrix = quantile_matrix(table, params)
    plain = xgb.QuantileDMatrix(table, label_N, ref=matrix, max_bin=params["max_bin"])
    blocks = [fit(matrix, label_N, None, trees=20, params=params, seed=1)]
    naive, cached = Predictor(blocks[0]).booster, Margins({}).over([0], [Predictor(blocks[0])], lambda era: x_CN)
    for update in range(updates):
        seed = 100 + update
        blocks.append(fit(matrix, label_N, None, trees=2, params=params, seed=seed, margin_N=cached.joined()))
        cached = cached.plus(Predictor(blocks[-1]), lambda era: x_CN)
        naive = xgb.train({**params, "seed": seed}, plain, 2, xgb_model=naive)
    difference = float(np.abs(full_margin([Predictor(block) for block in blocks], x_CN) - cached.joined()).max())
    ours = [tree for block in blocks for tree in Predictor(block).booster.get_dump()]
    same = float(np.mean([_splits(a) == _splits(b) for a, b in zip(ours, naive.get_dump(), strict=True)]))
    detail = f"{updates} updates of 2 trees on 5,000 rows"
    return [
        Result("cached_margins_error", difference, "", 1e-5, "lower", detail),
        Result("trees_as_naive_continuation", 100 * same, "%", 100.0, "higher", f"{len(ours)} trees, splits compared"),
    ]


def _splits(dump: str) -> list[str]:
    return re.findall(r"\[[^]]+\]", dump)


def drift(quick: bool) -> list[Result]:
    """Every rule on every kind of drift: mean CORR, Sharpe and seconds, and the default against the best."""
    seeds = range(100, 101) if quick else range(100, 105)
    default = LoopConfig().update
    results: list[Result] = []
    for kind in KINDS:
        found = compare_rules(kind, seeds, RULES)
        for rule, (corr, sharpe, seconds) in found.items():
            detail = f"Sharpe {sharpe:.2f}, {seconds:.1f} CPU s per world of 161 eras"
            results.append(Result(f"{kind}_{_word(rule)}", corr, "CORR", None, "higher", detail))
        best = max(found, key=lambda rule: found[rule][0])
        detail = f"default {default}, best {best}"
        share = 100 * found[default][0] / found[best][0]
        results.append(Result(f"{kind}_default_of_best", share, "%", 90.0, "higher", detail))
    return results


def compare_rules(kind: str, seeds: range, rules: dict[str, dict[str, Any]]) -> dict[str, tuple[float, float, float]]:
    """Mean CORR, Sharpe and CPU seconds per world of rules, pooled over the eras of all seeds."""
    scores: dict[str, list[NDArray[np.float64]]] = {rule: [] for rule in rules}
    seconds = dict.fromkeys(rules, 0.0)
    for seed in seeds:
        with _made(DriftConfig(kind, seed)) as (features, folder):
            for rule, settings in rules.items():
                begun = time.process_time()
                scores[rule].append(_prequential(features, folder, settings))
                seconds[rule] += time.process_time() - begun
        say(f"loop: {kind}, seed {seed}")
    pooled = {rule: np.concatenate(found) for rule, found in scores.items()}
    return {
        rule: (float(found.mean()), float(found.mean() / found.std()), seconds[rule] / len(seeds))
        for rule, found in pooled.items()
    }


def _prequential(features: Features, folder: Path, settings: dict[str, Any]) -> NDArray[np.float64]:
    """CORR of one model per era of the loop, updated by a rule."""
    config = _config(settings, trees=60)
    timeline = plan_timeline(config, features.store.index, features.store.index.last)
    zoo = Zoo(features.store.path, config, timeline, xgboost_device="cpu", cache=None)
    spec = ModelSpec("all", "all", TARGET, 0, features.store.columns)
    models = {name: Model(trees) for name, trees in start_models(zoo, [spec], LOOP_START).items()}

    updater = Updater(features.store.path, config, timeline, zoo)
    scores: list[float] = []
    for era in features.eras(LOOP_START, features.store.index.last):
        if updater.due(era):
            models = updater.update([spec], models, era)
        values_CN, y_N = features.era(era, spec.columns).values, features.labels(TARGET, era, era)
        p_N = predict(models[spec.model_id].trees.boosters(), values_CN)
        scores.append(float(cpu.numerai_corr(p_N[None, :], y_N, np.array([0, y_N.size]))[0, 0]))
    return np.array(scores)


def proofs(quick: bool) -> list[Result]:
    """Kills resumed to the same bytes, and weekly steps that end where a replay ends, by their tests."""
    passed, failed = _tests("test_kill.py", f"test_thirty_random_kills{' and (0 or 1 or 2)' if quick else ''}")
    counted = f"{passed} passed, {failed} failed of tests/integration/"
    results = [Result("kills_resumed", passed, "", None if quick else 30, "higher", counted + "test_kill.py")]
    passed, failed = _tests("test_step.py", "test_steps_end_where_a_replay_ends and append")
    counted = f"{passed} passed, {failed} failed of tests/integration/"
    return [*results, Result("weeks_as_replayed", 24 * passed, "", 24, "higher", counted + "test_step.py")]


def _tests(file: str, which: str) -> tuple[int, int]:
    """Run tests; returns how many passed and how many failed."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", f"tests/integration/{file}", "-k", which]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    say(f"loop: {file}: {done.stdout.strip().splitlines()[-1]}")
    passed, failed = (re.findall(rf"(\d+) {word}", done.stdout) or ["0"] for word in ("passed", "failed"))
    return int(passed[-1]), int(failed[-1])


def _config(rule: str | dict[str, Any], *, trees: int, start: int = LOOP_START, **loop: int) -> RunConfig:
    settings = RULES[rule] if isinstance(rule, str) else rule
    return parse_config(
        {
            "data": {"target": TARGET, "feature_sets": ["all"]},
            "time": {"loop_start": start, "observed_lag": False},
            "zoo": {"trees": trees, "fold_eras": 40, "params": PARAMS},
            "gate": {"seeds": 2},
            "loop": {**settings, **loop},
            "compute": {"device": "cpu", "workers": 1},
        }
    )


def _session(features: Features, folder: Path, config: RunConfig, specs: tuple[ModelSpec, ...]) -> Session:
    timeline = plan_timeline(config, features.store.index, features.store.index.last)
    zoo = Zoo(features.store.path, config, timeline, xgboost_device="cpu", cache=None)
    run = RunFolder.create(folder, config)
    return Session(run, config, features, timeline, specs, zoo, choose("cpu", say), {"benchmark": ("loop",)})


@contextmanager
def _made(config: DriftConfig) -> Iterator[tuple[Features, Path]]:
    with tempfile.TemporaryDirectory() as folder:
        yield made_store(Path(folder) / "world", config), Path(folder)


def _word(rule: str) -> str:
    return re.sub(r"\W+", "_", rule)

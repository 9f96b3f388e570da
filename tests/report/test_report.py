"""The report's numbers against pandas and brute force, and its behaviour on partial, damaged and hostile runs."""

from __future__ import annotations

import html
import json
import re
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from scipy.stats import spearmanr

from eravane.core.errors import RunError
from eravane.report import load_run, write_report
from eravane.report.alerts import alerts, warnings
from eravane.report.facts import compute_saved, model_correlation
from eravane.report.load import CONTRACT, RunView
from eravane.scoring.metrics import critical_t

LAG = 8


@pytest.fixture(scope="module")
def page(made) -> str:
    return write_report(made.path).read_text(encoding="utf-8")


def rows_of(page: str, table: str) -> list[list[tuple[str, str]]]:
    """Cells of a table as (sort key, visible text)."""
    body = re.search(rf'<table id="{table}">.*?<tbody>(.*?)</tbody>', page, re.S).group(1)
    cell = r'<td[^>]*? data-v="([^"]*)">(.*?)</td>'
    plain = [
        [(html.unescape(key), html.unescape(re.sub("<[^>]+>", "", shown))) for key, shown in re.findall(cell, row)]
        for row in re.findall(r"<tr>(.*?)</tr>", body, re.S)
    ]
    assert plain
    return plain


def heads_of(page: str, table: str) -> list[str]:
    head = re.search(rf'<table id="{table}"><thead>(.*?)</thead>', page, re.S).group(1)
    return re.findall(r"<button[^>]*>(.*?)</button>", head)


def figures_of(page: str) -> dict[str, dict]:
    content = re.search(r'<script type="application/json" id="figures">(.*?)</script>', page, re.S).group(1)
    return {figure["name"]: figure for figure in json.loads(content)}


def newey_west_t(x: np.ndarray, lag: int) -> float:
    """Bartlett HAC t by the double sum over all pairs, on the normal scale."""
    e, n = x - x.mean(), len(x)
    weight = np.maximum(0, 1 - np.abs(np.subtract.outer(np.arange(n), np.arange(n))) / (lag + 1))
    return float(x.mean() / np.sqrt(e @ weight @ e / n**2)) * 1.96 / critical_t(n, lag)


def deepest_fall(x: np.ndarray) -> float:
    total, peak, worst = 0.0, -np.inf, 0.0
    for value in x:
        total += value
        peak = max(peak, total)
        worst = max(worst, peak - total)
    return worst


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("Ensemble", "ensemble"),
        ("Equal weight", "equal_weight"),
        ("Best single", "best_single"),
        ("Benchmark v53 lgbm ender20", "benchmark_v53_lgbm_ender20"),
    ],
)
def test_series_table_equals_pandas(page: str, made, label: str, name: str) -> None:
    heads = heads_of(page, "series-table")
    row = next(row for row in rows_of(page, "series-table") if row[0][1] == label)
    found = {head: float(key or "nan") for head, (key, _) in list(zip(heads, row, strict=True))[1:]}
    scores = made.counted[name].dropna().to_numpy()
    assert found["CORR"] == pytest.approx(scores.mean(), abs=1e-12)
    assert found["Std"] == pytest.approx(scores.std(), abs=1e-12)
    assert found["Sharpe"] == pytest.approx(scores.mean() / scores.std(), abs=1e-10)
    assert found["Max drawdown"] == pytest.approx(deepest_fall(scores), abs=1e-12)
    assert found["HAC t"] == pytest.approx(newey_west_t(scores, LAG), abs=1e-9)
    assert found["± 95 %"] == pytest.approx(1.96 * abs(scores.mean() / newey_west_t(scores, LAG)), abs=1e-12)
    assert found["Eras"] == len(scores)
    if name == "equal_weight":
        assert np.isnan(found["t"])
    else:
        gain = (made.counted[name] - made.counted["equal_weight"]).dropna().to_numpy()
        assert found["Over equal weight"] == pytest.approx(gain.mean(), abs=1e-12)
        assert found["t"] == pytest.approx(newey_west_t(gain, LAG), abs=1e-9)


def test_facts_of_the_manifest_are_found_by_their_path() -> None:
    view = RunView(Path("run"), manifest={"lags": {"hac": 16}, "other": {"hac": 1, "made": True}, "data": {}})
    assert view.fact("lags.hac") == 16 == view.hac_lag
    assert view.fact("hac") is None is view.fact("data.made")
    assert view.fact("lags.hac.deeper", default=3) == 3


def test_headline_says_what_pandas_says(page: str, made) -> None:
    gain = (made.counted["ensemble"] - made.counted["equal_weight"]).dropna().to_numpy()
    t = newey_west_t(gain, LAG)
    words = re.search(r'<div class="verdict good"><p class="words">(.*?)</p><p>(.*?)</p>', page)
    assert words is not None
    assert words.group(1) == ("Clearly better than equal weight" if t >= 3 else "Probably better than equal weight")
    critical = critical_t(len(gain), LAG)
    least = (critical + 0.8416) * gain.mean() / (t * critical / 1.96)
    expected = f"{gain.mean():+.4f} CORR per era, HAC t {t:.1f}. The smallest gain that {len(gain)} eras"
    assert words.group(2) == f"{expected} could reliably have shown is {least:.4f}."
    assert f"<strong>{made.counted['ensemble'].mean():.4f}</strong>" in page
    assert "<span>last step</span> 2026-11-23 16:00 UTC" in page


def test_lag_follows_the_manifest(changed: Path, made) -> None:
    manifest = json.loads((changed / "manifest.json").read_text())
    manifest["lags"]["hac"] = 16
    (changed / "manifest.json").write_text(json.dumps(manifest))
    row = rows_of(write_report(changed).read_text(), "series-table")[0]
    assert float(row[3][0]) == pytest.approx(newey_west_t(made.counted["ensemble"].dropna().to_numpy(), 16), abs=1e-9)


def test_zoo_table_joins_loop_facts(page: str, made) -> None:
    heads = heads_of(page, "zoo-table")
    assert "Target" not in heads  # the same for every model
    rows = {row[0][0]: dict(zip(heads, row, strict=True)) for row in rows_of(page, "zoo-table")}
    assert set(rows) == set(made.zoo["model_id"])
    for _, model in made.zoo.iterrows():
        row = rows[model["model_id"]]
        assert float(row["CORR"][0]) == model["corr_mean"]
        assert row["Status"][1] == ("kept" if model["selected"] else "dropped")
        assert row["Why"][1] == model["reason"]
        if not model["selected"]:
            assert row["Weight"] == ("", "\N{EN DASH}")
            continue
        weights = made.weights[model["model_id"]]
        assert float(row["Weight"][0]) == pytest.approx(weights.mean())
        assert float(row["Open"][0]) == pytest.approx((weights > 0).mean())
        assert float(row["Loop CORR"][0]) == pytest.approx(made.counted[model["model_id"]].mean())


def test_compute_saved_counts_trees(made) -> None:
    trees = made.zoo.set_index("model_id")["n_trees"]
    saved = compute_saved(load_run(made.path))
    for era in (201, 215, 260, 310):
        closed = [name for name, weight in made.weights.loc[era].items() if weight == 0]
        assert saved[era] == pytest.approx(trees[closed].sum() / trees[list(made.weights.columns)].sum())
    assert saved.loc[201] == 0
    assert saved.max() > 0.1


def test_correlation_is_the_mean_of_eras(made) -> None:
    table, eras, source = model_correlation(load_run(made.path), eras=5)
    assert (eras, source) == (5, "base_predictions.parquet")
    labels = made.base["era"].unique()[np.linspace(0, 109, 5).round().astype(int)]
    names = list(table.columns)
    expected = np.mean([spearmanr(made.base.loc[made.base["era"] == e, names]).statistic for e in labels], axis=0)
    np.testing.assert_allclose(table.to_numpy(), expected, atol=1e-12)


def test_correlation_leaves_out_constant_and_missing_models(changed: Path, made) -> None:
    base = made.base.copy()
    names = list(base.columns[2:5])
    first = base["era"].unique()[0]
    base.loc[base["era"] == first, names[0]] = 0.5
    base.loc[base.index[3], names[1]] = np.nan
    base[["id", "era", *names]].to_parquet(changed / "base_predictions.parquet")
    table, _, _ = model_correlation(load_run(changed), eras=1)
    assert table.loc[names[:2], names].isna().all(axis=None)
    assert table.loc[names[2], names[2]] != table.loc[names[2], names[2]]  # alone in the era, so no pair at all
    table, _, _ = model_correlation(load_run(changed), eras=2)
    assert np.isfinite(table.to_numpy()).all()


def test_costs_add_up_once(page: str, made) -> None:
    rows = {row[0][0]: row for row in rows_of(page, "cost-table")}
    trees = sum(event["parts"]["trees"] for event in made.events if event["event"] == "era")
    total = 3.25 + 31.5 + sum(event["seconds"] for event in made.events if event["event"] == "era")
    assert float(rows["Trees"][2][0]) == pytest.approx(trees)
    assert float(rows["Trees"][3][0]) == pytest.approx(trees / total)
    assert rows["Trained (inside)"][3] == ("", "\N{EN DASH}")
    assert float(rows["Trained (inside)"][2][0]) == pytest.approx(made.zoo["seconds"].sum())
    assert f"{total:.1f} s in timed stages, 1.5 GB of memory at the peak." in page


def test_what_the_gate_has_earned(changed: Path) -> None:
    """The newest event with a readable state counts, and the heaviest expert comes first."""
    assert "gate-table" not in write_report(changed).read_text()
    states = [
        {"resolved": 10, "hedge": {"equal_weight": 1.0}, "earned": {"gate": 9.0, "equal_weight": 0.0}},
        {
            "resolved": 50,
            "hedge": {"equal_weight": 0.1, "ridge": 0.2, "network": 0.7},
            "earned": {"gate": 0.2, "equal_weight": 0.0, "ridge": 0.3, "network": -0.05},
        },
        {"resolved": 51, "hedge": {"ridge": 1.0}, "earned": "damaged"},
    ]
    with (changed / "events.jsonl").open("a") as file:
        file.writelines(
            json.dumps({"event": "era", "era": 300 + n, "gate": state}) + "\n" for n, state in enumerate(states)
        )
    page = write_report(changed).read_text()
    rows = [[shown for _, shown in row] for row in rows_of(page, "gate-table")]
    minus = "\N{MINUS SIGN}"
    assert rows == [
        ["Network", "70.0%", f"{minus}0.0500"],
        ["Ridge", "20.0%", "+0.3000"],
        ["Equal weight", "10.0%", "+0.0000"],
    ]
    assert "+0.2000 CORR over equal weight, summed over the judged eras of 50 resolved ones." in page
    assert "Alone, ridge would have earned most: +0.3000." in page


def test_figures_hold_the_numbers(page: str, made) -> None:
    found = figures_of(page)
    ensemble = made.counted["ensemble"].dropna()
    trace = next(t for t in found["cumulative"]["views"][0]["data"] if t["name"] == "Ensemble")
    assert trace["x"] == list(ensemble.index)
    np.testing.assert_allclose(trace["y"], ensemble.cumsum(), rtol=1e-4)
    gains = {view["label"]: view for view in found["cumulative"]["views"]}["Gain"]["data"]
    over = next(t for t in gains if t["name"] == "over equal weight")
    np.testing.assert_allclose(
        over["y"], (ensemble - made.counted["equal_weight"].dropna()).cumsum(), rtol=1e-3, atol=1e-7
    )
    weights = found["weights"]["views"][0]["data"][0]
    z = np.array(weights["z"], dtype=float)
    np.testing.assert_allclose(np.nan_to_num(z), made.weights[list(made.weights.columns)].T, rtol=1e-4)
    assert [view["label"] for view in found["weights"]["views"]] == ["By model", "By group", "By set"]
    by_set = found["weights"]["views"][2]["data"][0]
    np.testing.assert_allclose(np.nansum(np.array(by_set["z"], dtype=float), axis=0), 1, rtol=1e-4)
    cells = found["cells"]["views"][0]["data"][0]
    cell = made.zoo.set_index(["group", "feature_set"])["corr_mean"]
    for y, group in enumerate(cells["y"]):
        for x, name in enumerate(cells["x"]):
            assert cells["z"][y][x] == pytest.approx(cell[group, name], rel=1e-4)
    regimes = {view["label"] for view in found["regimes"]["views"]}
    assert regimes == {"Map", "Calendar", "Models used"}
    assert {"drawdown", "gate", "correlation", "exposure", "missing", "time"} <= set(found)


def test_figures_are_valid_plotly(page: str) -> None:
    def themed(value):
        if isinstance(value, str):
            return re.sub(r"^var\(--[\w-]+\)$", "#123456", value)
        if isinstance(value, list):
            return [themed(item) for item in value]
        return {key: themed(item) for key, item in value.items()} if isinstance(value, dict) else value

    for figure in figures_of(page).values():
        for view in figure["views"]:
            go.Figure(data=themed(view["data"]), layout=themed(view["layout"]))


def test_page_stands_alone(page: str) -> None:
    assert len(page.encode()) < 8_000_000
    shell = re.sub(r"<(script|style)\b.*?</\1>", "", page, flags=re.S)
    assert "default-src 'none'" in shell
    assert not re.search(r"""(?:src|href)\s*=\s*["'](?!#)""", shell)
    assert "://" not in shell
    assert page.count("plotly.js v") == 1


@pytest.mark.parametrize("name", sorted(CONTRACT))
def test_every_file_may_be_missing(changed: Path, name: str) -> None:
    (changed / name).unlink()
    page = write_report(changed).read_text()
    shell = page[: page.index("<script>")]
    if name == "manifest.json":
        assert "This run is not finished" in shell
    else:
        assert f"Not there: {name}" in shell
    assert re.search(rf'data-v="{re.escape(name)}">.*?</tr>', shell).group().count("missing") >= 1


@pytest.mark.parametrize("kept", sorted(CONTRACT))
def test_any_single_file_makes_a_report(made, tmp_path: Path, kept: str) -> None:
    (tmp_path / kept).write_bytes((made.path / kept).read_bytes())
    page = write_report(tmp_path).read_text()
    # A manifest alone says that the run came to its end.
    assert ("Files this run does not have" if kept == "manifest.json" else "This run is not finished") in page


@pytest.mark.parametrize("name", sorted(name for name in CONTRACT if name.endswith(".parquet")))
@pytest.mark.parametrize("damage", ["cut", "empty", "text"])
def test_damaged_tables_are_named(changed: Path, name: str, damage: str) -> None:
    content = (changed / name).read_bytes()
    (changed / name).write_bytes({"cut": content[: len(content) // 2], "empty": b"", "text": b"no parquet"}[damage])
    page = write_report(changed).read_text()
    if name in ("zoo.parquet", "weights.parquet", "scores.parquet"):
        assert f"{name} is damaged" in page


def test_damaged_text_files_are_named(changed: Path) -> None:
    (changed / "metrics.json").write_text("{")
    (changed / "manifest.json").write_text("[1]")
    (changed / "run.toml").write_bytes(b"\xff\xfe = 1")
    with (changed / "events.jsonl").open("a") as file:
        file.write('{"event": "era", "er')
    damaged = load_run(changed).damaged
    assert set(damaged) == {"metrics.json", "manifest.json", "run.toml", "events.jsonl"}
    assert damaged["events.jsonl"].startswith("1 of ")
    write_report(changed)


def test_no_run_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not a folder"):
        write_report(tmp_path / "none")
    with pytest.raises(RunError, match="eravane run --out"):
        write_report(tmp_path)


HOSTILE = "</script><img src=x onerror='window.pwned=1'>"


def poison(run: Path) -> None:
    """Put markup into every name that a run folder carries."""
    zoo = pd.read_parquet(run / "zoo.parquet")
    first = zoo.loc[zoo["selected"], "model_id"].iloc[0]
    zoo.loc[zoo["model_id"] == first, ["model_id", "group", "reason"]] = HOSTILE
    zoo.to_parquet(run / "zoo.parquet")
    for name in ("weights.parquet", "scores.parquet", "base_predictions.parquet"):
        pd.read_parquet(run / name).rename(columns={first: HOSTILE}).to_parquet(run / name)
    scores = pd.read_parquet(run / "scores.parquet")
    scores.assign(**{"series" + HOSTILE: scores["ensemble"]}).to_parquet(run / "scores.parquet")
    manifest = json.loads((run / "manifest.json").read_text())
    manifest |= {"device": HOSTILE, HOSTILE: {HOSTILE: [HOSTILE]}, "notes": [HOSTILE], "warnings": [HOSTILE]}
    (run / "manifest.json").write_text(json.dumps(manifest))
    (run / "run.toml").write_text(f'note = "{HOSTILE}"')
    event = {"event": "stage", "stage": HOSTILE, "seconds": 1, "device": HOSTILE}
    (run / "events.jsonl").write_text(json.dumps(event))


def test_user_text_is_escaped_and_still_readable(changed: Path) -> None:
    """Every text of a run is shown as it stands, once unescaped, and none of it is markup."""
    poison(changed)
    page = write_report(changed).read_text().split("<script>")[0]
    assert HOSTILE not in page
    assert "&amp;lt;" not in page, "escaped twice"
    plain = html.unescape(page)
    for where in (
        f"<li>{HOSTILE}</li>",
        f"<dt>{HOSTILE}</dt><dd>{HOSTILE}</dd>",
        f"<b>Note of the run.</b> {HOSTILE}",
        f"<span>device</span> {HOSTILE}",
        f'<pre>note = "{HOSTILE}"</pre>',
    ):
        assert where in plain
    assert HOSTILE in [row[0][1] for row in rows_of(page, "zoo-table")]


def test_names_are_never_markup(changed: Path, browser) -> None:
    poison(changed)
    path = write_report(changed)
    assert "<img" not in path.read_text().split("<script>")[0]
    browser.open(path)
    browser.js("document.querySelectorAll('[data-figure]').forEach((card) => card.scrollIntoView())")
    browser.wait("document.querySelectorAll('.plot .main-svg').length > 0")
    assert browser.js("window.pwned === undefined && document.images.length === 0")
    assert browser.complaints() == []


def titles(run: Path) -> dict[str, str]:
    return {alert.title: alert.level for alert in alerts(load_run(run))}


def edit(run: Path, table: str, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    change(pd.read_parquet(run / f"{table}.parquet")).to_parquet(run / f"{table}.parquet")


def test_clean_run_has_no_alerts(made) -> None:
    assert titles(made.path) == {}


def test_what_the_manifest_warns_of_is_shown_once(changed: Path) -> None:
    """The run writes the report's own warnings into its manifest, beside those that only the run can know."""
    manifest = json.loads((changed / "manifest.json").read_text())
    (changed / "manifest.json").write_text(json.dumps(manifest | {"leaking": True}))
    edit(changed, "scores", lambda table: table.iloc[:40].assign(equal_weight=np.nan))
    found = warnings(changed)
    assert [text.split(":")[0] for text in found] == [
        "This run leaks",
        "Few eras",
        "Equal weight has eras without a score",
        "metrics.json and scores.parquet disagree",
    ]
    warned = [*found, "3 of 5 selected base models failed"]
    (changed / "manifest.json").write_text(json.dumps(manifest | {"leaking": True, "warnings": warned}))
    assert warnings(changed) == found
    shown = alerts(load_run(changed))
    assert [alert.detail for alert in shown if alert.title == "Note of the run"] == [
        "3 of 5 selected base models failed"
    ]
    page = write_report(changed).read_text()
    assert page.index("This run leaks") < page.index("3 of 5 selected base models failed") < page.index("<h2")


def test_made_data_are_called_made(changed: Path) -> None:
    """High scores ask for an explanation: that the data is made is one, and is always shown."""
    edit(changed, "scores", lambda table: table.assign(ensemble=table["ensemble"] + 0.2))
    assert titles(changed)["Too good to be true"] == "warn"
    manifest = json.loads((changed / "manifest.json").read_text())
    manifest["data"]["made"] = True
    (changed / "manifest.json").write_text(json.dumps(manifest))
    found = titles(changed)
    assert found["Made data"] == "note"
    assert "Too good to be true" not in found


def test_memory_is_shown_in_bytes(changed: Path) -> None:
    pd.DataFrame({"seconds": [0.0, 1.0], "rss_bytes": [3e8, 8e8]}).to_parquet(changed / "telemetry.parquet")
    layout = figures_of(write_report(changed).read_text())["telemetry"]["views"][0]["layout"]
    assert layout["yaxis"] == {"title": {"text": "Host memory"}, "tickformat": "~s", "ticksuffix": "B"}


def test_leaks_void_the_verdict(changed: Path) -> None:
    manifest = json.loads((changed / "manifest.json").read_text())
    (changed / "manifest.json").write_text(json.dumps(manifest | {"leaking": True}))
    assert titles(changed)["This run leaks"] == "stop"
    assert '<div class="verdict bad"><p class="words">Not valid: this run leaks' in write_report(changed).read_text()


def test_scores_known_too_early_are_a_leak(changed: Path) -> None:
    edit(changed, "scores", lambda table: table.assign(known_at=table["era"].astype(int) + 5))
    assert titles(changed)["Scores were used before they were due"] == "stop"


def test_weights_are_checked(changed: Path) -> None:
    edit(changed, "weights", lambda table: table.assign(**{table.columns[1]: table.iloc[:, 1] - 0.5}))
    assert {"Weights do not sum to 1", "Negative weights"} <= set(titles(changed))


def test_disagreeing_summary_is_reported(changed: Path) -> None:
    (changed / "metrics.json").write_text('{"series": {"ensemble": {"corr_mean": 0.5}}}')
    assert titles(changed) == {"metrics.json and scores.parquet disagree": "warn"}


def test_constant_predictions_are_counted(changed: Path) -> None:
    edit(changed, "scores", lambda table: table.assign(ensemble=table["ensemble"].mask(table.index.isin([20, 30]))))
    found = {alert.title: alert.detail for alert in alerts(load_run(changed))}
    # Eras 211 to 304 are due when era 310 is the newest: two of them lost their score.
    assert found["Ensemble has eras without a score"].startswith("2 of 94 due eras")


@pytest.mark.parametrize(
    ("eras", "words"), [(23, "Too early to judge"), (40, "Probably better"), (60, "Clearly better")]
)
def test_verdict_takes_eras(changed: Path, eras: int, words: str) -> None:
    edit(changed, "scores", lambda table: table.iloc[10 : 10 + eras])
    edit(
        changed, "scores", lambda table: table.assign(ensemble=table["equal_weight"] + 0.01 + 0.001 * (table.index % 2))
    )
    assert f'<p class="words">{words}' in write_report(changed).read_text()


def test_few_eras_and_equal_weight(changed: Path) -> None:
    edit(changed, "scores", lambda table: table.head(28))
    assert titles(changed)["Few eras"] == "warn"
    edit(changed, "scores", lambda table: table.assign(ensemble=table["equal_weight"]))
    assert titles(changed)["The gate never left equal weight"] == "note"
    assert "Too early to judge" in write_report(changed).read_text()


@pytest.mark.parametrize("eras", [0, 1, 2])
def test_hardly_begun_runs_have_a_report(changed: Path, eras: int) -> None:
    for name in ("scores", "weights", "base_predictions", "prototypes", "missing"):
        edit(changed, name, lambda table: table[table["era"].astype(int) < 211 + eras])
    page = write_report(changed).read_text()
    assert ("No scores yet" if eras == 0 else "Too early to judge") in page


def test_large_run_stays_small(tmp_path: Path, run_maker) -> None:
    made = run_maker(tmp_path / "run")
    rng = np.random.default_rng(1)
    eras, models = [f"{era:04d}" for era in range(1, 1201)], [f"m{i:03d}" for i in range(150)]
    weights = rng.dirichlet(np.ones(150), len(eras))
    pd.DataFrame(weights, columns=models).assign(era=eras).to_parquet(made.path / "weights.parquet")
    scores = pd.DataFrame(rng.normal(0.01, 0.02, (1200, 150)), columns=models).assign(
        era=eras, ensemble=0.01, equal_weight=0.0
    )
    scores.to_parquet(made.path / "scores.parquet")
    zoo = pd.concat([made.zoo] * 8, ignore_index=True).head(150).assign(model_id=models, selected=True)
    zoo.to_parquet(made.path / "zoo.parquet")
    began = time.perf_counter()
    assert write_report(made.path).stat().st_size < 8_000_000
    assert time.perf_counter() - began < 30


def test_payout_mix_where_references_exist(changed: Path, made) -> None:
    mmc = made.counted[["ensemble"]].dropna() / 3
    references = pd.DataFrame({"era": [f"{era:04d}" for era in mmc.index], "ensemble_mmc": mmc["ensemble"].to_numpy()})
    references.to_parquet(changed / "references.parquet")
    page = write_report(changed).read_text()
    mean = (3.0 * made.counted["ensemble"] + 15.0 * made.counted["ensemble"] / 3).mean()
    assert f"<strong>{mean:.4f}</strong><small>3 CORR60 + 15 MMC60, 94 eras" in page
    assert "Payout mix" in [view["label"] for view in figures_of(page)["cumulative"]["views"]]

"""Comparisons of runs: paired differences against brute force, what a verdict takes, and readable refusals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from eravane.core.errors import RunError
from eravane.report import compare
from eravane.report.facts import detectable
from eravane.scoring.metrics import critical_t, hac_mean

LAG = 8
RNG = np.random.default_rng(5)
ERAS = np.arange(1, 201)
MARKET = RNG.normal(0.01, 0.02, ERAS.size)
NOISE = RNG.normal(0, 0.002, (4, ERAS.size))


def write_run(path: Path, scores: np.ndarray, eras: np.ndarray = ERAS, **manifest: object) -> Path:
    path.mkdir()
    labels = [f"{era:04d}" for era in eras]
    pd.DataFrame({"era": labels, "ensemble": scores, "equal_weight": MARKET[: len(eras)]}).to_parquet(
        path / "scores.parquet"
    )
    (path / "manifest.json").write_text(json.dumps({"target": "target_20", "leaking": False, **manifest}))
    return path


def bartlett(x: np.ndarray, lag: int) -> tuple[float, float]:
    """Mean and HAC standard error by the double sum."""
    e, n = x - x.mean(), len(x)
    weight = np.maximum(0, 1 - np.abs(np.subtract.outer(np.arange(n), np.arange(n))) / (lag + 1))
    return float(x.mean()), float(np.sqrt(e @ weight @ e) / n)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_run(tmp_path / "base", MARKET)


def test_gain_is_paired_by_era(base: Path, tmp_path: Path) -> None:
    other = write_run(tmp_path / "other", MARKET + 0.002 + NOISE[0])
    found = compare([base, other])
    item = found.others[0].differences[0]
    mean, error = bartlett(0.002 + NOISE[0], LAG)
    assert (item.series, item.gain.n_eras) == ("ensemble", 200)
    assert item.gain.mean == pytest.approx(mean, abs=1e-15)
    assert item.gain.se == pytest.approx(error, rel=1e-9)
    assert item.mean - item.first_mean == pytest.approx(mean, abs=1e-12)
    assert item.detectable == pytest.approx((critical_t(200, LAG) + 0.8416) * error, rel=1e-9)
    assert found.others[0].verdict == "better, and more than chance"
    pool = found.others[0].differences[1]
    assert (pool.series, pool.gain.mean) == ("equal_weight", 0.0)


def test_only_shared_counted_eras_enter(base: Path, tmp_path: Path) -> None:
    late = write_run(tmp_path / "late", (MARKET + NOISE[1])[50:150], ERAS[50:150], periods={"report_start": 81})
    item = compare([base, late]).others[0].differences[0]
    assert item.gain.n_eras == 70
    assert item.gain.mean == pytest.approx(NOISE[1][80:150].mean(), abs=1e-15)


def test_order_gives_the_sign(base: Path, tmp_path: Path) -> None:
    other = write_run(tmp_path / "other", MARKET - 0.002 + NOISE[2])
    assert compare([base, other]).others[0].verdict == "worse, and more than chance"
    assert compare([other, base]).others[0].verdict == "better, and more than chance"


def test_noise_is_no_difference(base: Path, tmp_path: Path) -> None:
    centred = NOISE[3] - NOISE[3].mean()
    verdict = compare([base, write_run(tmp_path / "other", MARKET + centred)]).others[0].verdict
    least = (critical_t(len(centred), LAG) + 0.8416) * bartlett(centred, LAG)[1]
    assert verdict == f"no proven difference; a true one below {least:.5f} would probably not be detected here"


def test_many_runs_need_a_larger_t(base: Path, tmp_path: Path) -> None:
    others = [write_run(tmp_path / f"r{i}", MARKET + NOISE[i]) for i in range(4)]
    assert compare([base, others[0]]).needed_t == pytest.approx(1.959964, abs=1e-6)
    assert compare([base, *others]).needed_t == pytest.approx(2.497705, abs=1e-6)  # 5 % over four runs


def test_same_scores_are_noted(base: Path, tmp_path: Path) -> None:
    same = write_run(tmp_path / "same", MARKET)
    assert compare([base, same]).others[0].verdict == "the same scores in every shared era"


def test_few_or_no_shared_eras(base: Path, tmp_path: Path) -> None:
    few = write_run(tmp_path / "few", MARKET[:10] + NOISE[0][:10], ERAS[:10])
    none = write_run(tmp_path / "none", MARKET[:10], ERAS[:10] + 500)
    found = compare([base, few, none])
    assert "too few shared eras to judge (10," in found.others[0].verdict
    assert found.others[0].cautions == ("only 10 of 200 counted eras are shared",)
    assert found.others[1].verdict.startswith("cannot be compared")


def test_leaks_and_targets_are_cautions(base: Path, tmp_path: Path) -> None:
    other = write_run(tmp_path / "other", MARKET + NOISE[0], leaking=True, target="target_60")
    cautions = compare([base, other]).others[0].cautions
    assert cautions == ("other is stamped as leaking", "scored on different targets: target_20 and target_60")


def test_longer_lag_of_the_two_is_used(base: Path, tmp_path: Path) -> None:
    other = write_run(tmp_path / "other", MARKET + 0.002 + NOISE[0], lags={"hac": 16})
    assert compare([base, other]).others[0].differences[0].gain.se == pytest.approx(bartlett(NOISE[0], 16)[1], rel=1e-9)


def test_payout_mix_where_both_have_references(base: Path, tmp_path: Path) -> None:
    other = write_run(tmp_path / "other", MARKET + NOISE[0])
    for run, mmc in ((base, MARKET / 2), (other, MARKET / 2 + NOISE[1])):
        table = pd.DataFrame({"era": [f"{era:04d}" for era in ERAS[100:]], "ensemble_mmc": mmc[100:]})
        table.to_parquet(run / "references.parquet")
    item = compare([base, other]).others[0].differences[-1]
    expected = 3.0 * NOISE[0][100:] + 15.0 * NOISE[1][100:]  # the rule since round 1343
    assert (item.series, item.gain.n_eras) == ("payout", 100)
    assert item.gain.mean == pytest.approx(expected.mean(), abs=1e-15)


def test_text_and_json_agree(base: Path, tmp_path: Path) -> None:
    other = write_run(tmp_path / "other", MARKET + 0.002 + NOISE[0])
    none = write_run(tmp_path / "none", MARKET, ERAS + 500)
    found = compare([base, other, none])
    content = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    row = content["runs"][0]["differences"][0]
    assert f"{row['gain']:+.5f}" in found.as_text()
    assert f"{row['hac_t']:.2f}" in found.as_text()
    assert content["runs"][1]["differences"] == []


@pytest.mark.parametrize("shift", [0.0005, 0.0008, 0.001, 0.0015, 0.003])
def test_the_t_that_is_shown_decides(tmp_path: Path, shift: float) -> None:
    """Few eras of 60-day labels, where the critical value of mean / se is well above that of t."""
    lags = {"lags": {"hac": 16}}
    first = write_run(tmp_path / "first", MARKET[:70], ERAS[:70], **lags)
    found = compare([first, write_run(tmp_path / "other", MARKET[:70] + shift + NOISE[0][:70], ERAS[:70], **lags)])
    shown = found.others[0].differences[0].gain
    assert shown.critical > 3
    assert (shown.t >= found.needed_t) == (found.others[0].verdict == "better, and more than chance")
    assert (shown.mean > shown.critical * shown.se) == (shown.t > 1.96)


def test_equal_names_are_kept_apart(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write_run(tmp_path / folder / "run", MARKET)
    found = compare([tmp_path / "a" / "run", tmp_path / "b" / "run"])
    assert found.first != found.others[0].run


def test_refusals_say_what_to_give(base: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="two run folders or more, given 1"):
        compare([base])
    with pytest.raises(RunError, match="not a folder"):
        compare([base, tmp_path / "nowhere"])


def test_detectable_gain_is_seen_four_times_in_five() -> None:
    rng = np.random.default_rng(11)
    noise, eras, trials = 0.01, 400, 2000
    gain = detectable(hac_mean(rng.normal(0, noise, 200_000), 0)) * np.sqrt(200_000 / eras)
    samples = rng.normal(gain, noise, (trials, eras))
    seen = np.mean([abs(hac_mean(sample, 0).t) > 1.96 for sample in samples])
    assert seen == pytest.approx(0.8, abs=0.03)

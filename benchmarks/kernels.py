"""The CPU kernels against pandas, polars, numerai-tools and plain memory traffic."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import polars as pl
from numerai_tools import scoring
from numpy.typing import NDArray
from scipy.stats import norm
from sklearn.impute import KNNImputer

from benchmarks.harness import Job, Result, described, ratio, say, seconds
from eravane_kernels import cpu
from eravane_kernels.arrays import Double, Integers, Levels
from eravane_kernels.cpu.moments import moments
from eravane_kernels.eras import spans

Score = Callable[[pd.DataFrame, pd.Series], object]

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class Size:
    """Sizes of the data, and repetitions."""

    eras: int
    rows: int
    levels: int
    floats: int
    models: int
    features: int
    share: int
    repeats: int


FULL = Size(eras=40, rows=5_000, levels=512, floats=64, models=36, features=500, share=16, repeats=5)
QUICK = Size(eras=8, rows=5_000, levels=128, floats=16, models=36, features=500, share=16, repeats=1)


def main(quick: bool) -> list[Result]:
    """Every result of the kernels."""
    size = QUICK if quick else FULL
    results = []
    for part in (level_statistics, level_tables, float_statistics, ranks, correlations, projections, neighbours):
        say(f"kernels: {part.__name__}")
        results += part(size)
    return results


def made_offsets(eras: int, rows: int) -> Integers:
    """Eras of about so many rows, no two alike."""
    sizes = rows + 3 * (np.arange(eras) - eras // 2)
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)


def made_eras(offsets: Integers) -> Integers:
    """The era of every row, as integers: kinder to the peers than Numerai's strings."""
    return np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))


def level_statistics(size: Size) -> list[Result]:
    """Statistics of levels with missing ones, against pandas, polars and reading the array once."""
    offsets = made_offsets(size.eras, size.rows)
    x_CN = np.random.default_rng(0).integers(-1, 5, (size.levels, offsets[-1])).astype(np.int8)
    few_CN = x_CN[: size.levels // size.share]
    era = made_eras(offsets)
    groups = pd.DataFrame(np.where(few_CN < 0, np.nan, few_CN).astype(np.float32).T).groupby(era)
    frame = pl.DataFrame({f"f{i}": pl.Series(c).replace(-1, None) for i, c in enumerate(few_CN)} | {"era": era})
    ours = Job("era_stats", lambda: cpu.era_stats(x_CN, offsets, QUANTILES))
    pandas = Job("pandas", lambda: pandas_statistics(groups), 1 / size.share)
    polars = Job("polars", lambda: polars_statistics(frame), 1 / size.share)
    counts = Job("level_counts", lambda: cpu.level_counts(x_CN, offsets))
    read = Job("plain read", lambda: flat_words(x_CN).sum())
    fast, counted, whole = seconds([ours, counts, read], 5 * size.repeats)
    return [
        ratio("int8_stats_vs_pandas", ours, pandas, size.repeats, 300),
        ratio("int8_stats_vs_polars", ours, polars, size.repeats, 100),
        Result("int8_stats_of_plain_read", 100 * whole / fast, "%", 40, "higher", described({ours: fast, read: whole})),
        Result("level_counts_of_plain_read", 100 * whole / counted, "%", 80, "higher", described({counts: counted})),
    ]


def flat_words(x_CN: Levels) -> NDArray[np.uint64]:
    """All but the last few bytes as 64-bit words."""
    raw = x_CN.reshape(-1)
    return raw[: len(raw) // 8 * 8].view(np.uint64)


def pandas_statistics(groups: pd.api.typing.DataFrameGroupBy) -> None:
    """Mean, std, count and quantiles; the mode, which takes pandas far longer, is left out."""
    groups.mean()
    groups.std(ddof=0)
    groups.count()
    groups.quantile(list(QUANTILES))


def polars_statistics(frame: pl.DataFrame) -> pl.DataFrame:
    """Mean, std, missing and quantiles; the mode is left out here too."""
    columns = pl.all().exclude("era")
    wanted = [columns.mean().name.suffix("_mean"), columns.std(ddof=0).name.suffix("_std")]
    wanted += [columns.null_count().name.suffix("_missing")]
    wanted += [columns.quantile(q, "linear").name.suffix(f"_{q}") for q in QUANTILES]
    return frame.group_by("era").agg(wanted)


def level_tables(size: Size) -> list[Result]:
    """Imputing levels by a table per era and column, against a copy of the array and against pandas."""
    offsets = made_offsets(size.eras, size.rows)
    x_CN = np.random.default_rng(1).integers(-1, 5, (size.levels, offsets[-1])).astype(np.int8)
    few_CN = x_CN[: size.levels // size.share]
    frame = pd.DataFrame(np.where(few_CN < 0, np.nan, few_CN).astype(np.float32).T)
    groups = frame.groupby(made_eras(offsets))
    table = cpu.fill_table(cpu.fill_values(x_CN, offsets, "median"))
    apply = Job("apply_table", lambda: cpu.apply_table(x_CN, offsets, table))
    copy = Job("copy", lambda: x_CN.copy())
    taken, copied = seconds([apply, copy], 3 * size.repeats)
    impute = Job("fill_values and apply_table", lambda: impute_levels(x_CN, offsets))
    pandas = Job("pandas", lambda: frame.fillna(groups.transform("median")), 1 / size.share)
    return [
        Result("int8_table_over_copy", taken / copied, "x", 2.5, "lower", described({apply: taken, copy: copied})),
        ratio("int8_impute_vs_pandas", impute, pandas, size.repeats, 50),
    ]


def impute_levels(x_CN: Levels, offsets: Integers) -> Levels:
    """Levels with the median of their era in place of missing ones."""
    return cpu.apply_table(x_CN, offsets, cpu.fill_table(cpu.fill_values(x_CN, offsets, "median")))


def float_statistics(size: Size) -> list[Result]:
    """Quantiles (with all other statistics) and moments of float32 with NaN, against pandas."""
    offsets, rng = made_offsets(size.eras, size.rows), np.random.default_rng(2)
    x_CN = rng.normal(size=(size.floats, offsets[-1])).astype(np.float32)
    x_CN[rng.random(x_CN.shape, dtype=np.float32) < 0.01] = np.nan
    groups = pd.DataFrame(x_CN.T).groupby(made_eras(offsets))
    ours = Job("float_stats", lambda: cpu.float_stats(x_CN, offsets, QUANTILES))
    pandas = Job("pandas quantile", lambda: groups.quantile(list(QUANTILES)))
    fast = Job("moments", lambda: moments(x_CN, spans(offsets)))
    slow = Job("pandas mean, std, count", lambda: (groups.mean(), groups.std(ddof=0), groups.count()))
    return [
        ratio("float32_quantiles_vs_pandas", ours, pandas, size.repeats, 8),
        ratio("float32_moments_vs_pandas", fast, slow, 3 * size.repeats, 40),
    ]


def made_scores(size: Size) -> tuple[Double, Double, Integers]:
    """Predictions, two of them with heavy ties, labels in five bins, offsets."""
    offsets, rng = made_offsets(size.eras // 2 or 1, size.rows * 6 // 5), np.random.default_rng(3)
    p_MN = rng.normal(size=(size.models, offsets[-1]))
    p_MN[:2] = np.round(p_MN[:2])
    return p_MN, rng.integers(0, 5, offsets[-1]) / 4.0, offsets


def by_era(score: Score, p_MN: Double, y_N: Double, offsets: Integers) -> Callable[[], None]:
    """A score of numerai-tools over ready frames of every era."""
    frames = [(pd.DataFrame(p_MN[:, rows].T), pd.Series(y_N[rows], name="y")) for rows in spans(offsets)]

    def call() -> None:
        for predictions, labels in frames:
            score(predictions, labels)

    return call


def ranks(size: Size) -> list[Result]:
    """Rank and gaussianise, against pandas and scipy."""
    p_MN, _, offsets = made_scores(size)
    groups = pd.DataFrame(p_MN.T).groupby(made_eras(offsets))
    ours = Job("gaussianize", lambda: cpu.gaussianize(p_MN, offsets))
    peer = Job("pandas rank, scipy ppf", lambda: norm.ppf((groups.rank() - 0.5) / groups.transform("count")))
    return [ratio("gaussianize_vs_pandas", ours, peer, size.repeats, 25)]


def correlations(size: Size) -> list[Result]:
    """CORR and MMC of many models, against numerai-tools with all columns per call and with one at a time."""
    p_MN, y_N, offsets = made_scores(size)
    ours = Job("numerai_corr", lambda: cpu.numerai_corr(p_MN, y_N, offsets))
    at_once = Job("numerai-tools", by_era(scoring.numerai_corr, p_MN, y_N, offsets))
    few = [by_era(scoring.numerai_corr, p_MN[m : m + 1], y_N, offsets) for m in range(0, size.models, 12)]
    in_turn = Job("numerai-tools, one model at a time", lambda: [call() for call in few], len(few) / size.models)
    reference = p_MN[-1] + p_MN[-2]
    mmc = Job("contribution", lambda: cpu.contribution(p_MN, reference, y_N, offsets))
    meta = by_era(lambda p, y: scoring.correlation_contribution(p, p.sum(axis=1), y), p_MN, y_N, offsets)
    return [
        ratio("numerai_corr_vs_numerai_tools", ours, at_once, size.repeats, 40),
        ratio("numerai_corr_vs_one_at_a_time", ours, in_turn, size.repeats, 150),
        ratio("mmc_vs_numerai_tools", mmc, Job("numerai-tools", meta), size.repeats, None),
    ]


def projections(size: Size) -> list[Result]:
    """Neutralisation and exposure of all predictions in one era, against numerai-tools and pandas."""
    rng = np.random.default_rng(4)
    offsets = np.array([0, size.rows], dtype=np.int64)
    p_MN, f_FN = (
        rng.normal(size=(size.models, size.rows)),
        rng.integers(0, 5, (size.features, size.rows)).astype(np.int8),
    )
    predictions, features = pd.DataFrame(p_MN.T), pd.DataFrame(f_FN.T.astype(np.float32))
    few = range(0, size.models, 12)
    neutralize = Job("neutralize", lambda: cpu.neutralize(p_MN, f_FN, offsets))
    peer = Job("numerai-tools", lambda: scoring.neutralize(predictions, features))
    exposure = Job("exposure", lambda: cpu.exposure(p_MN, f_FN, offsets))
    corrwith = Job("pandas corrwith", lambda: [features.corrwith(predictions[m]) for m in few], len(few) / size.models)
    return [
        ratio("neutralize_vs_numerai_tools", neutralize, peer, size.repeats, 4),
        ratio("exposure_vs_pandas", exposure, corrwith, 2 * size.repeats, 150),
    ]


def neighbours(size: Size) -> list[Result]:
    """Nearest-neighbour imputation of one era with 2 % missing, against scikit-learn."""
    rng = np.random.default_rng(5)
    x_CN = rng.normal(size=(size.floats, size.rows // 2)).astype(np.float32)
    x_CN[rng.random(x_CN.shape) < 0.02] = np.nan
    ours = Job("knn_impute", lambda: cpu.knn_impute(x_CN, np.array([0, x_CN.shape[1]])))
    peer = Job("scikit-learn", lambda: KNNImputer().fit_transform(x_CN.T))
    return [ratio("knn_impute_vs_scikit_learn", ours, peer, size.repeats, None)]

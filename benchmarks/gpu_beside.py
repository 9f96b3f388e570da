"""Parts of steps of `gpu` that put the level grower beside its peers: as a learner, at equal scores, and Falcata."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.gpu_lab import Check, Figure, Lab, importable
from benchmarks.gpu_work import Work

SEEDS = 5
WITHIN = 2.0
"""Standard errors that two means of scores may differ by; chance alone goes beyond in eight checks of a hundred."""
PUBLISHED = "published on an RTX 5090: XGBoost 286 s, Falcata 31 s"


def level_grower(lab: Lab, work: Work, rows: int, trees: int, bound: float, bound_of: str) -> Iterator[Figure | Check]:
    """The level grower as the zoo's learner: seconds per tree, and a held-out score.

    work: of which the first `rows` are trained on; bound: milliseconds.
    """
    learner = _learner("levels", lab.device)
    matrix, label_N = learner.matrix(work.table(rows=slice(0, rows))), work.label_N[:rows]
    learner.fit(matrix, label_N, None, trees=1, seed=0)
    block, taken = lab.once(lambda: learner.fit(matrix, label_N, None, trees=trees, seed=0))
    score = _score(lab, work, rows, block)
    detail = f"{rows:,} x {work.columns}, {trees} trees, model and its writing, held-out correlation {score:.4f}"
    yield Figure("tree_level_grower", 1000 * taken / trees, "ms", "lower", bound, bound_of, detail=detail)
    yield from _scores(lab, work, rows, lab.pick(trees, trees, 80), matrix)
    yield blocks_of(lab)


def _learner(name: str, device: str) -> Any:
    from eravane.core.config import parse_config
    from eravane.learners.registry import make_learner

    params = {"max_depth": 5, "eta": 0.1, "colsample_bytree": 0.1}
    return make_learner(parse_config({"zoo": {"learner": name, "params": params}}).zoo, device)[0]


def _score(lab: Lab, work: Work, rows: int, block: bytes) -> float:
    """Correlation with the labels of the rows held out."""
    from eravane.learners.registry import load_booster, predict

    predicted_N = predict([load_booster(block)], lab.host(work.values_CN[:, rows:]))
    return float(np.corrcoef(predicted_N, work.label_N[rows:])[0, 1])


def _scores(lab: Lab, work: Work, rows: int, trees: int, levels: Any) -> Iterator[Check]:
    """Held-out scores of models of several seeds, from the level grower and from XGBoost's own sampling."""
    scores: dict[str, list[float]] = {}
    for name in ("levels", "xgboost"):
        learner = _learner(name, lab.device)
        matrix = levels if name == "levels" else learner.matrix(work.table(rows=slice(0, rows)))
        label_N = work.label_N[:rows]
        blocks = [learner.fit(matrix, label_N, None, trees=trees, seed=seed) for seed in range(1, SEEDS + 1)]
        scores[name] = [_score(lab, work, rows, block) for block in blocks]
    ours, theirs = (np.array(scores[name]) for name in ("levels", "xgboost"))
    error = float(np.sqrt((ours.var(ddof=1) + theirs.var(ddof=1)) / SEEDS))
    away = float(ours.mean() - theirs.mean())
    detail = (
        f"held-out correlation {ours.mean():.4f} against {theirs.mean():.4f}, standard error {error:.4f}, {SEEDS} seeds"
    )
    yield Check("level_grower_scores_as_xgboost", abs(away) <= WITHIN * error, detail)


def blocks_of(lab: Lab) -> Check:
    """Models of three targets from the device and from the CPU, with missing values and weighed rows."""
    from eravane.backend import choose

    rows, width, trees = lab.pick(60_000, 30_000, 400), lab.pick(120, 60, 12), lab.pick(40, 20, 3)
    values_CN, rng = lab.levels(width, rows, seed=7, least=-1), np.random.default_rng(2)
    host_CN, names = lab.host(values_CN), [f"f{number}" for number in range(width)]
    label_BN = (0.5 + 0.05 * host_CN[:3] + 0.2 * rng.standard_normal((3, rows))).astype(np.float32)
    weight_N = rng.random(rows, dtype=np.float32)
    blocks = []
    for device, columns_CN in ((lab.device, values_CN), ("cpu", host_CN)):
        learner = _learner("levels", device)
        table = choose("cuda" if device == "cuda" else "cpu", lambda _: None, "none").table(columns_CN, names)
        blocks.append(learner.fit_together(learner.matrix(table), label_BN, weight_N, trees=trees, seed=1))
    detail = f"3 models of {trees} trees on {rows:,} x {width}, byte for byte"
    return Check("level_grower_blocks_as_on_the_cpu", blocks[0] == blocks[1], detail)


def falcata(lab: Lab, work: Work, trees: int, scale: float) -> Iterator[Figure | Check]:
    """The example model by Falcata, a fork of LightGBM, where it is installed; its default precision of sums.

    scale: rows of the example model by those of the work.
    """
    if not importable("falcata"):
        yield Check("falcata", True, f"not installed; {PUBLISHED}")
        return
    import falcata

    params = {
        "objective": "regression", "device_type": lab.device, "num_leaves": 31, "max_depth": 5, "learning_rate": 0.01,
        "feature_fraction": 0.1, "min_child_weight": 1.0, "lambda_l2": 1.0, "min_data_in_leaf": 1, "verbosity": -1,
    }  # fmt: skip
    try:
        data = falcata.Dataset(work.values_CN.T, label=work.label_N, params=params)
        _, built = lab.once(data.construct)
        falcata.train(params, data, num_boost_round=1)
        _, one = lab.once(lambda: falcata.train(params, data, num_boost_round=trees))
        _, two = lab.once(lambda: falcata.train(params, data, num_boost_round=3 * trees))
    except Exception as error:  # a failure with levels on the device must not end the step
        yield Check("falcata", True, f"left out: {type(error).__name__}: {str(error).splitlines()[:1]}; {PUBLISHED}")
        return
    tree = max(two - one, 0.0) / (2 * trees)
    detail = (
        f"EXTRAPOLATED from {1000 * tree:.2f} ms for each of trees {trees} to {3 * trees} of {work.rows:,} rows; "
        f"the first {trees} took {one:.2f} s, its data set {built:.1f} s; version {falcata.__version__}; {PUBLISHED}"
    )
    yield Figure("example_model_falcata", 2_000 * tree * scale, "s", detail=detail)

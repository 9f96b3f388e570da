"""One era's decision and prediction with NumPy, pandas and XGBoost alone: what an exported model executes.

The functions of this file, `portable_prepare` and `portable_weights` travel inside the pickle, so they import nothing
else. How an era is decided, weighed and mixed stands here once: loop, estimator and exported model call `decide_era`,
the first two with kernels, the last with NumPy. What the kernels measure of an era is repeated for one era, and the
tests of `export` compare both.
"""

from __future__ import annotations

import time
import warnings
import zlib
from collections.abc import Callable, Mapping, Sequence
from statistics import NormalDist
from types import SimpleNamespace
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from eravane.core.arrays import Bools as BoolArray
from eravane.core.arrays import Floats as FloatArray
from eravane.core.arrays import Values
from eravane.gate.portable_prepare import known, live_values, prepared
from eravane.gate.portable_weights import expected_weights, normalise, ridge_weights

Payload = Mapping[str, Any]

CLIP = 4.0  # normalised inputs are cut off here
# A closed gate of the network closes a model only where the top level agrees: what the other experts would still give
# it is below this share of an equal weight.
NEGLIGIBLE = 0.25
STALE_DAYS = 42  # lagged scores older than six eras more than at export no longer describe the models


def assemble(payload: Payload) -> Callable[..., pd.DataFrame]:
    """Make the function that Numerai calls: frames indexed by id in, predictions in (0, 1) out.

    It takes the live features, and the live benchmark models where some of these are members of the ensemble.

    Args:
        payload: from `eravane.pipeline.export`, plain containers and arrays.
    """

    def answer(live_features: pd.DataFrame, given: Mapping[str, NDArray[np.float32]]) -> pd.DataFrame:
        age = (time.time() - payload["made"]) / 86400
        if age > STALE_DAYS:
            warnings.warn(f"{payload['note']} That was {age:.0f} days ago: export the run again.", stacklevel=2)
        prediction_N, _ = ensemble(live_values(live_features, payload), payload, given)
        return pd.DataFrame({"prediction": prediction_N}, index=live_features.index)

    def predict(live_features: pd.DataFrame) -> pd.DataFrame:
        return answer(live_features, {})

    def predict_beside(live_features: pd.DataFrame, live_benchmark_models: pd.DataFrame) -> pd.DataFrame:
        names = payload["benchmarks"]
        return answer(live_features, {name: member(live_benchmark_models, name, live_features.index) for name in names})

    chosen = predict_beside if payload["benchmarks"] else predict
    chosen.__doc__ = payload["note"]
    return chosen


def member(live_benchmark_models: pd.DataFrame, name: str, ids: pd.Index) -> NDArray[np.float32]:
    """A benchmark model's predictions of the live rows, float32 [N]; rows it lacks get its median, or .5.

    Raises:
        ValueError: there is no such benchmark model.
    """
    if name not in live_benchmark_models.columns:
        raise ValueError(f"the live benchmark models lack {name}")
    found_N: NDArray[np.float32] = live_benchmark_models[name].reindex(ids).to_numpy(dtype=np.float32, copy=True)
    missing_N = np.isnan(found_N)
    found_N[missing_N] = 0.5 if missing_N.all() else np.median(found_N[~missing_N])
    return found_N


def ensemble(
    raw_CN: Values, payload: Payload, given: Mapping[str, NDArray[np.float32]]
) -> tuple[FloatArray, FloatArray]:
    """Decide the gates, run the open models, weigh them; returns predictions [N] and weights [M]."""
    own_MS, context_D, marginal_KC = facts(raw_CN, payload)
    gate, size = payload["gate"], len(payload["models"])
    if payload["nets"]:
        cells, maps = [model["columns"] for model in payload["models"]], SimpleNamespace(**payload["maps"])
        own_MS, context_D = normalise_facts(own_MS, context_D, marginal_KC, cells, maps)

    def decide() -> BoolArray:
        nobody, blank_MM = np.zeros(size, dtype=bool), np.zeros((size, size))
        found = experts(own_MS, context_D, nobody, blank_MM, np.ones(size), payload)
        return open_models(*found, gate["hedge_P"], gate["networked"], gate["max_active"])

    def evaluate(open_M: BoolArray) -> NDArray[np.float32]:
        base_MN = np.full((size, raw_CN.shape[1]), np.nan, dtype=np.float32)
        for m in np.flatnonzero(open_M):
            model = payload["models"][m]
            base_MN[m] = given[model["given"]] if model["given"] else base_prediction(raw_CN, model, payload["prepare"])
        return base_MN

    def weigh(open_M: BoolArray, C_MM: FloatArray, dispersion_M: FloatArray) -> FloatArray:
        experts_PM, _ = experts(own_MS, context_D, open_M, C_MM, dispersion_M, payload)
        return mix_experts(gate["hedge_P"], experts_PM, open_M, C_MM)

    arithmetic = SimpleNamespace(
        gaussianize=lambda base_MN: np.stack([gaussian_ranks(base_N) for base_N in base_MN]),
        gram=lambda z_MN: z_MN @ z_MN.T / z_MN.shape[1],
        dispersion=lambda base_MN: base_MN.astype(np.float64).std(axis=1),
        combine=lambda z_MN, w_M: np.round(w_M[w_M > 0] @ z_MN[w_M > 0], gate["decimals"]),
    )
    _, _, weights_M, mixed_N = decide_era(decide, evaluate, weigh, arithmetic)
    return ranks(neutralised(mixed_N, raw_CN, payload)), weights_M


class Arithmetic(Protocol):
    """What is computed of an era's predictions; of the engine's kernels, or of NumPy in an exported model."""

    def gaussianize(self, base_MN: NDArray[np.float32]) -> FloatArray:
        """Tie-kept ranks as normal quantiles, [M, N]; on a device they stay there."""
        ...

    def gram(self, z_MN: FloatArray) -> FloatArray:
        """Mean products of all pairs of rows, [M, M]."""
        ...

    def dispersion(self, base_MN: NDArray[np.float32]) -> FloatArray:
        """Standard deviations of the rows, [M]."""
        ...

    def combine(self, z_MN: FloatArray, weights_M: FloatArray) -> FloatArray:
        """Weighted sum of the rows that have weight, [N]; on a device it stays there."""
        ...


def decide_era(
    decide: Callable[[], BoolArray],
    evaluate: Callable[[BoolArray], NDArray[np.float32]],
    weigh: Callable[[BoolArray, FloatArray, FloatArray], FloatArray],
    arithmetic: Arithmetic,
    lap: Callable[[str], None] = lambda _: None,
) -> tuple[BoolArray, NDArray[np.float32], FloatArray, FloatArray]:
    """Decide the gates of an era, run the open models, weigh them and mix their ranks.

    Args:
        decide: gives the open models [M].
        evaluate: predictions [M, N] of the open models, NaN for the others.
        weigh: weights [M] from the open models, their agreement [M, M] and their spread [M].
        arithmetic: measures and mixes predictions.
        lap: called with "decide", "predict" and "weigh" as each is done.

    Returns:
        The open models [M], what they predict [M, N], their weights [M] and the mix [N].
    """
    open_M = decide()
    lap("decide")
    base_MN = evaluate(open_M)
    z_RN = arithmetic.gaussianize(base_MN[open_M])
    lap("predict")
    weights_M = weigh(open_M, *agreement_of(z_RN, base_MN, arithmetic))
    mixed_N = arithmetic.combine(z_RN, weights_M[open_M])
    lap("weigh")
    return open_M, base_MN, weights_M, mixed_N


def agreement_of(
    z_RN: FloatArray, base_MN: NDArray[np.float32], arithmetic: Arithmetic
) -> tuple[FloatArray, FloatArray]:
    """Gram matrix [M, M] and spread [M] of the R models that ran, from their ranks [R, N]; NaN for the others."""
    ran = ~np.isnan(base_MN).any(axis=1)
    C_MM, dispersion_M = np.full((ran.size, ran.size), np.nan), np.full(ran.size, np.nan)
    C_MM[np.ix_(ran, ran)] = arithmetic.gram(z_RN)
    dispersion_M[ran] = arithmetic.dispersion(base_MN[ran])
    return C_MM, dispersion_M


def mix_experts(hedge_P: FloatArray, experts_PM: FloatArray, open_M: BoolArray, C_MM: FloatArray) -> FloatArray:
    """Weights of the open models [M] by the top level's trust in the experts; a constant prediction gets none."""
    usable_M = open_M & (np.nan_to_num(np.diag(C_MM)) > 0)
    return normalise(hedge_P @ experts_PM, usable_M if usable_M.any() else open_M)


def neutralised(mixed_N: FloatArray, raw_CN: Values, payload: Payload) -> FloatArray:
    """The mix without the share of it that the chosen features explain; as it is where that is switched off."""
    neutral = payload["neutral"]
    if not len(neutral["columns"]) or mixed_N.min() == mixed_N.max():
        return mixed_N
    z_N, values_CN = gaussian_ranks(mixed_N), prepared(raw_CN, neutral["columns"], payload["prepare"])
    known_CN = known(values_CN)
    mean_C = np.where(known_CN, values_CN, 0).sum(axis=1, dtype=np.float64) / np.maximum(known_CN.sum(axis=1), 1)
    filled_CN = np.where(known_CN, values_CN, mean_C[:, None].astype(np.float32))
    base_NF = np.vstack([filled_CN, np.ones(len(z_N))]).T
    explained_N: FloatArray = base_NF @ np.linalg.lstsq(base_NF, z_N, rcond=1e-6)[0]
    return np.asarray(np.round(z_N - neutral["proportion"] * explained_N, payload["gate"]["decimals"]))


def base_prediction(raw_CN: Values, model: Payload, prepare: Payload) -> NDArray[np.float32]:
    """One base model's predictions, float32 [N]: the sum of its blocks, on prepared columns."""
    values_CN = prepared(raw_CN, model["columns"], prepare)
    total_N = np.zeros(raw_CN.shape[1], dtype=np.float32)
    for block in model["blocks"]:
        import xgboost as xgb  # here alone: the gate shares this file and runs without it

        booster = xgb.Booster({"nthread": 1})
        booster.load_model(bytearray(zlib.decompress(block)))
        total_N += booster.inplace_predict(values_CN.T, validate_features=False)
    return total_N


def ranks(values_N: NDArray[Any]) -> FloatArray:
    """Tie-kept ranks (rank - 0.5) / n."""
    rank_N: FloatArray = pd.Series(values_N).rank(method="average").to_numpy(dtype=np.float64)
    return (rank_N - 0.5) / len(values_N)


def gaussian_ranks(values_N: NDArray[Any]) -> FloatArray:
    """Tie-kept ranks as normal quantiles."""
    distinct, place_N = np.unique(ranks(values_N), return_inverse=True)
    return np.array([NormalDist().inv_cdf(rank) for rank in distinct.tolist()])[place_N]


def facts(raw_CN: Values, payload: Payload) -> tuple[FloatArray, FloatArray, NDArray[np.float32]]:
    """Statistics of each model's cell [M, S], of the era [D], and of every feature [K, C]."""
    gate = payload["gate"]
    quantiles = np.quantile if raw_CN.dtype == np.int8 else np.nanquantile
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # columns without any value
        wide_CN = raw_CN if raw_CN.dtype == np.int8 else raw_CN.astype(np.float64)
        mean_C = np.nanmean(wide_CN, axis=1, dtype=np.float64)
        std_C = np.nanstd(wide_CN, axis=1, dtype=np.float64)
        quantiles_QC = quantiles(wide_CN, gate["quantiles"], axis=1) if "marginals" in gate["inputs"] else []
    constant_C = ~(std_C > 0)
    missing_M = np.array([constant_C[model["columns"]].mean() for model in payload["models"]])
    marginal_KC = np.zeros((0, len(std_C)), dtype=np.float32)
    if "marginals" in gate["inputs"]:
        marginal_KC = np.where(constant_C, np.nan, np.stack([mean_C, std_C, *quantiles_QC])).astype(np.float32)
    model_MS = np.zeros((len(missing_M), 0))
    if "structure" in gate["inputs"]:
        cell_GS = structure(raw_CN, payload["cells"], gate["flat"])
        model_MS = np.column_stack([cell_GS[[model["cell"] for model in payload["models"]]], missing_M])
    own_D = [np.log(raw_CN.shape[1]), constant_C.mean()]
    return model_MS, np.array([*own_D, *gate.get("outside_D", ())]), marginal_KC


def structure(raw_CN: Values, cells: Sequence[NDArray[np.int64]], flat: float) -> FloatArray:
    """Correlation inside each cell and with the other cells, float64 [G, 6]."""
    inside, means = [], []
    for columns in cells:
        unit_CN = unit_columns(raw_CN[columns])
        inside.append(inside_cell(unit_CN @ unit_CN.T))
        total_N = unit_CN.sum(axis=0)
        length = np.sqrt(total_N @ total_N)
        means.append(total_N / length if length > flat * len(unit_CN) else total_N * 0.0)
    across_GG = np.abs(np.array([[left @ right for right in means] for left in means]))
    np.fill_diagonal(across_GG, np.nan)
    others_G = np.isfinite(across_GG).sum(axis=1)
    return np.column_stack([np.array(inside), np.nansum(across_GG, axis=1) / np.maximum(others_G, 1)])


def unit_columns(values_CN: Values) -> FloatArray:
    """The columns that vary, centred and of length 1, missing values at the mean."""
    kept_CN = values_CN[np.fmin.reduce(values_CN, 1) < np.fmax.reduce(values_CN, 1)].astype(np.float64)
    centred_CN = np.nan_to_num(kept_CN - np.nanmean(kept_CN, axis=1, keepdims=True))
    found_CN: FloatArray = centred_CN / np.sqrt((centred_CN**2).sum(axis=1, keepdims=True))
    return found_CN


def inside_cell(corr_CC: FloatArray) -> tuple[float, ...]:
    """Mean, mean absolute and mean squared correlation of the pairs, and the two leading eigenvalues per column."""
    width = len(corr_CC)
    if width < 2:
        return 0.0, 0.0, 0.0, 1.0, 0.0
    pairs = corr_CC[np.triu_indices(width, 1)]
    second, first = np.linalg.eigvalsh(corr_CC)[-2:] / width
    return float(pairs.mean()), float(np.abs(pairs).mean()), float((pairs**2).mean()), float(first), float(second)


def scaled(values: FloatArray, center: FloatArray, scale: FloatArray) -> FloatArray:
    """Standardised and clipped; 0 where the scale is 0 or the value undefined."""
    usable = (scale > 0) & np.isfinite(values)
    return np.where(usable, np.clip((values - center) / np.where(scale > 0, scale, 1.0), -CLIP, CLIP), 0.0)


def normalise_facts(
    model_MS: FloatArray,
    context_D: FloatArray,
    marginal_KF: NDArray[np.float32],
    cells: Sequence[NDArray[np.int64]],
    maps: Any,
) -> tuple[FloatArray, FloatArray]:
    """The network's inputs from facts: of each model [M, S + R], and of the era [D + P + 2]; all finite.

    `maps` has the normalisers as attributes (`eravane.gate.inputs.InputMap`).
    """
    own_MS = scaled(model_MS, maps.model_center_MS, maps.model_scale_MS)
    context_D = scaled(context_D, maps.context_center_D, maps.context_scale_D)
    marginal_KF = marginal_KF[: len(maps.kept_KF)]
    z_KF = scaled(marginal_KF.astype(np.float64), maps.marginal_center_KF, maps.marginal_scale_KF)
    known_KF = maps.kept_KF & np.isfinite(marginal_KF)
    reduced_MR = scaled(reduce_cells(z_KF, known_KF, cells), maps.reduced_center_MR, maps.reduced_scale_MR)
    kept_V = z_KF[maps.kept_KF]
    distances = [norm(own_MS.ravel()), norm(kept_V)]
    return np.hstack([own_MS, reduced_MR]), np.concatenate([context_D, distances, maps.components_PV @ kept_V])


def norm(values_V: FloatArray) -> float:
    """Root mean square; 0 for none."""
    return float(np.sqrt(np.mean(values_V**2))) if values_V.size else 0.0


def reduce_cells(z_KF: FloatArray, known_KF: BoolArray, cells: Sequence[NDArray[np.int64]]) -> FloatArray:
    """Means over each cell's features of what is known [M, 5]: mean, std, spread, skew, distance; NaN without any."""
    reduced_MR = np.full((len(cells), 5), np.nan)
    if z_KF.shape[0] == 0:
        return reduced_MR
    for m, columns in enumerate(cells):
        z, known = z_KF[:, columns], known_KF[:, columns]
        count_K = known.sum(axis=1)
        mean_K = np.where(count_K > 0, z.sum(axis=1) / np.maximum(count_K, 1), np.nan)
        mean, std, low, _, middle, _, high = mean_K
        distance = np.sqrt((z**2).sum() / count_K.sum()) if count_K.any() else np.nan
        reduced_MR[m] = mean, std, high - low, high + low - 2 * middle, distance
    return reduced_MR


def experts(
    own_MS: FloatArray,
    context_D: FloatArray,
    open_M: BoolArray,
    C_MM: FloatArray,
    dispersion_M: FloatArray,
    payload: Payload,
) -> tuple[FloatArray, BoolArray]:
    """Weights of the experts, those of the regimes and of the network last [P, M], and the network's gates [M]."""
    gate, size = payload["gate"], len(payload["models"])
    equal_M = np.full(size, 1.0 / size)
    if gate["warming_up"]:
        return np.stack([equal_M] * len(gate["hedge_P"])), np.ones(size, dtype=bool)
    era_MM = era_agreement(open_M, C_MM, gate["agreement_MM"])
    seen_M = gate["seen_M"]
    chosen = [*gate["experts_LM"], *(expected_weights(c_M, era_MM, seen_M) for c_M in gate["c_LM"])]
    if "regimes" in gate:
        known_D = np.where(np.isfinite(gate["outside_D"]), context_D[slice(*gate["outside"])], np.nan)
        chosen.append(expected_weights(foresee(gate["regimes"], own_MS, known_D)[0], era_MM, seen_M))
    if not gate["networked"] or not payload["nets"]:
        return np.stack(chosen + [equal_M] * gate["networked"]), np.ones(size, dtype=bool)
    maps, zero = SimpleNamespace(**payload["maps"]), np.zeros(1)
    known = (seen_M, gate["signal_M"], gate["dispersion_M"], gate["ridge"])
    late_MA = scaled(agreement(open_M, C_MM, dispersion_M, *known), zero, maps.agreement_scale_A)
    x_MF = np.hstack([scaled(gate["lagged_ML"], zero, maps.lagged_scale_L), own_MS, late_MA])
    gates_M, network_M = network(x_MF, context_D, open_M, payload["nets"], gate)
    return np.stack([*chosen, network_M]), gates_M


def era_agreement(open_M: BoolArray, C_MM: FloatArray, usual_MM: FloatArray) -> FloatArray:
    """Agreement of an era's predictions: its own where both models predicted, the usual one elsewhere [M, M]."""
    used_M = open_M & (np.nan_to_num(np.diag(C_MM)) > 0)
    return np.where(used_M[:, None] & used_M, np.nan_to_num(C_MM), usual_MM)


def foresee(bank: Payload, own_MF: FloatArray, outside_D: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Expected c of the models in an era [M], and what each member of the bank expects, their mean last [A + 1, M].

    `bank` is from `eravane.gate.regimes.Regimes.numbers`; facts from outside are NaN where missing. Where c moves with
    a model's own facts, two more answers add that to what one state and four states expect. The mean of all
    is shrunk towards the c for which equal weights are best: "trust" is the share of the rest that is kept.
    """
    answers = []
    index_M = own_MF @ bank["slope_F"] if bank["slope_F"].any() else np.zeros(len(own_MF))
    views = [np.zeros(0), index_M / float(bank["scale"][0]), outside_D]
    for b, view in enumerate(bank["view_B"].tolist()):
        state_S, facts_K = bank["state_BS"][b], views[view]
        apart_SK = (facts_K - bank["fact_BSK"][b, :, : len(facts_K)]) / bank["width_BK"][b, : len(facts_K)]
        log_S = -0.5 * bank["trust_B"][b] * np.nan_to_num(apart_SK**2).sum(axis=1)
        state_S = state_S * np.exp(log_S - log_S[state_S > 0].max())
        answers.append((state_S / state_S.sum()) @ bank["mean_BSM"][b])
    if bank["slope_F"].any():
        lead_M = index_M - index_M.mean()
        answers += [answers[0] + lead_M, answers[2] + lead_M]
    c_M = bank["share_A"] @ np.stack(answers)
    beside_M = beside_level(c_M, bank["to_MK"], bank["back_KM"]) @ bank["back_KM"]
    return c_M - (1 - bank["trust"]) * beside_M, np.stack([*answers, c_M])


def beside_level(c_M: FloatArray, to_MK: FloatArray, back_KM: FloatArray) -> FloatArray:
    """c along the directions of agreement [K], less its projection on the c for which equal weights are best."""
    u_K, level_K = c_M @ to_MK, back_KM.sum(axis=1)
    return np.asarray(u_K - (u_K @ level_K) / (level_K @ level_K) * level_K)


def agreement(
    open_M: BoolArray,
    C_MM: FloatArray,
    dispersion_M: FloatArray,
    seen_M: BoolArray,
    signal_M: FloatArray,
    usual_M: FloatArray,
    ridge: float,
) -> FloatArray:
    """Inputs of each open model from this era's predictions [M, 4], closed models 0.

    Mean correlation with the other open models; log prediction spread against the others' and against its own past;
    the weight that a ridge with this era's C gives it.

    Args:
        open_M: which models predicted; C_MM, dispersion_M: their agreement and spread in this era.
        seen_M: models with resolved eras; signal_M, usual_M: their lagged c and usual log spread; ridge: the ridge.
    """
    if not open_M.any():
        return np.zeros((len(open_M), 4))
    count = int(open_M.sum())
    C_MM = np.nan_to_num(C_MM) * (open_M[:, None] & open_M[None, :])
    others_M = (C_MM.sum(axis=1) - np.diag(C_MM)) / max(count - 1, 1)
    spread_M = np.log(np.maximum(np.nan_to_num(dispersion_M), 1e-12))
    surprise_M = np.where(seen_M, spread_M - usual_M, 0.0)
    ridge_M = ridge_weights(signal_M * open_M, C_MM, ridge, open_M) * count
    columns = np.column_stack([others_M, spread_M, surprise_M, ridge_M])
    return np.where(open_M[:, None], columns - columns[open_M].mean(axis=0), 0.0)


def open_models(
    experts_PM: FloatArray, gates_M: BoolArray, hedge_P: FloatArray, networked: int, max_active: int
) -> BoolArray:
    """The models to run, bool [M]: at least one, at most `max_active` (0: no cap).

    Args:
        experts_PM: weights of the experts, the network's last where it is `networked`.
        gates_M: the network's gates.
        hedge_P: trust of the top level in the experts.
        networked: 1 where the network is among the experts, else 0.
        max_active: most open models.
    """
    size, others = len(gates_M), slice(0, len(hedge_P) - networked)
    open_M: BoolArray = gates_M | (hedge_P[others] @ experts_PM[others] >= NEGLIGIBLE / size)
    if max_active and open_M.sum() > max_active:
        share_M = np.where(open_M, hedge_P @ experts_PM, -1.0)
        open_M = np.isin(np.arange(size), np.argsort(-share_M, kind="stable")[:max_active])
    return open_M


def network(
    x_MF: FloatArray, context_D: FloatArray, open_M: BoolArray, nets: Payload, gate: Payload
) -> tuple[BoolArray, FloatArray]:
    """Gates [M] and weights [M] of S nets, averaged."""
    early = nets["gate_linear"].shape[1]
    gate_SM = head(x_MF[:, :early], context_D, nets, "gate") + nets["gate_bias"] @ gate["agents_MA"].T
    weight_SM = head(x_MF, context_D, nets, "weight")
    gates_M = open_gates(gate_SM, gate)
    usable_M = gates_M & open_M if (gates_M & open_M).any() else gates_M
    shifted_SM = weight_SM - weight_SM[:, usable_M].max(axis=1, keepdims=True)
    raw_SM = usable_M * np.exp(np.minimum(shifted_SM, 30.0))
    return gates_M, normalise((raw_SM / raw_SM.sum(axis=1, keepdims=True)).mean(axis=0), usable_M)


def head(x_MF: FloatArray, context_D: FloatArray, nets: Payload, name: str) -> FloatArray:
    """Logits [S, M]: linear in a model's own inputs, plus a tanh layer of these and the era's."""
    hidden_SIH, inputs = nets[f"{name}_hidden"], x_MF.shape[1]
    own_SMH = np.einsum("mf,sfh->smh", x_MF, hidden_SIH[:, :inputs])
    era_SH = np.einsum("d,sdh->sh", context_D, hidden_SIH[:, inputs:]) + nets[f"{name}_shift"]
    bent_SM = np.einsum("smh,sh->sm", np.tanh(own_SMH + era_SH[:, None]), nets[f"{name}_out"])
    logits_SM: FloatArray = nets[f"{name}_linear"] @ x_MF.T + bent_SM
    return logits_SM


def open_gates(gate_SM: FloatArray, gate: Payload) -> BoolArray:
    """Gates [M] from the nets' gate logits."""
    score_M = (1 / (1 + np.exp(-gate_SM / gate["temperature"]))).mean(axis=0)
    return np.asarray((score_M >= 0.5) | (np.arange(len(score_M)) == int(np.argmax(score_M))))

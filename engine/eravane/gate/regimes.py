"""Regimes of the market: hidden Markov models on what base models scored and on what an era looks like.

An era is in one of a few states. In a state the models' c (see `outcomes`) scatter around means of their own, and, in
members of the bank that look at facts, so do facts that are known before the era is predicted. The state is
inferred from resolved eras, carried by the chain over those that are not resolved, and updated by the facts of the era.

Labels of `horizon` eras overlap: likelihoods of c have the power 2 / horizon, between what overlap leaves of a mean
(1 / horizon) and of a change (all of it). How many states there are, and whether facts help, is decided by forecasts:
members are averaged by the squared errors of their forecasts, in the metric of the noise (Bayesian model averaging on
prequential errors). Beside them stands the forecast of paths of regimes (see `paths`). The mean of all is shrunk
towards the c for which equal weights are best where the slope of a regression of c on past forecasts is small.

Models of one set, group or target agree, and what they share is paid to all of them. So c is read along the principal
directions of the models' agreement, in units of their spread, and noise is taken as independent between directions:
what a family of models has in common is few directions with much evidence, what sets one apart counts for little.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eravane.core.arrays import Floats as FloatArray
from eravane.core.arrays import Integers as IntArray
from eravane.core.layout import Layout
from eravane.gate.directions import Directions, directions, read, steady
from eravane.gate.paths import REGIMES, Facts, Foreseen, PathBank, drifting, independent
from eravane.gate.portable import beside_level, foresee
from eravane.gate.prototypes import find_regimes

# Most states of a member: as many as a path has regimes, since `foresee` reads members and paths as one array.
MOST = REGIMES
# States of the members: those that read scores alone, and those that read facts too.
STATES, STATES_WITH_FACTS = (1, 2, 4, MOST), (4, MOST)
# Views of an era: scores alone, facts of the models' cells, facts from outside.
SCORES, CELLS, OUTSIDE = 0, 1, 2
# Eras that a state is expected to last, and eras of evidence that this expectation is worth.
STAY, STAY_WORTH = 40.0, 10.0
# Horizons of prior evidence that a state is like the mean of all, for scores; eras of it, for facts.
PRIOR_HORIZONS, PRIOR_FACTS = 3.0, 4.0
# Rounds of expectation and maximisation of a first fit, and of one that starts from the last.
FIRST_ROUNDS, ROUNDS = 12, 4
# What the states leave over is averaged with a half-life of 16 eras, and expected to go on by this share: pay drifts.
REST_DECAY, GOES_ON = 0.5 ** (1 / 16.0), 0.6
# Likelihoods of c have this power over the horizon.
OVERLAPPED = 2.0
# Forecasts count in full from this slope of c in them on, which is also expected of them before the first one, with so
# much evidence. Where something is to be learnt the slope is .4 to 1.2, elsewhere 0 to .3; to shrink by the slope alone
# costs many models 1 %.
FULL_SLOPE, SLOPE_WORTH = 0.5, 16.0
# Evidence between the bank and paths has this power: with all of it one is left out that earns more on some series.
APART = 0.1
# Eras over which scores are averaged before they are clustered for the start.
SMOOTH = 8
# The pooled slopes of c in facts are expected to explain this share of the variance of c.
EXPLAINED = 0.02


@dataclass(frozen=True, eq=False)
class Bank:
    """Parameters of B members with at most S states.

    Attributes:
        states_B, view_B: states of each member, and which facts it reads.
        to_MK, back_KM: c @ to_MK is c along the principal directions, back_KM the way back.
        mean_BSK: mean of that in each state; noise_BK: variance around it.
        chain_BSS: transition probabilities.
        fact_BSK, width_BK: means of facts in each state, and their standard deviations; trust_B: power of their
            likelihood, below 1 where facts repeat each other.
        slope_F, scale: pooled slopes of c in a model's own facts, and the unit of the index they give.
    """

    states_B: IntArray
    view_B: IntArray
    to_MK: FloatArray
    back_KM: FloatArray
    mean_BSK: FloatArray
    noise_BK: FloatArray
    chain_BSS: FloatArray
    fact_BSK: FloatArray
    width_BK: FloatArray
    trust_B: FloatArray
    slope_F: FloatArray
    scale: FloatArray


class Regimes:
    """The bank, what it knows after the newest resolved era, and how well its members foresaw the past.

    Args:
        size: models of the pool; horizon: eras that a label spans.
    """

    def __init__(self, size: int, horizon: int) -> None:
        self._size, self._horizon = size, horizon
        self._bank: Bank | None = None
        self._state_BS = np.zeros((0, MOST))
        self._rest_BK, self._mass = np.zeros((0, size)), 0.0
        self._evidence_A = np.zeros(0)
        self._paths = PathBank(size, horizon)
        self._skill = np.zeros(2)
        self.known = self.fitted = 0

    @property
    def ready(self) -> bool:
        """Whether it has been fitted."""
        return self._bank is not None

    def fit(
        self,
        c_EM: FloatArray,
        own_EMF: FloatArray,
        outside_ED: FloatArray,
        C_MM: FloatArray,
        first: tuple[FloatArray, FloatArray] | None = None,
    ) -> None:
        """Fit every member to the resolved eras, from the last fit where there is one.

        Args:
            c_EM: c of the models, none missing; own_EMF: normalised facts of their cells (F may be 0).
            outside_ED: normalised facts from outside, NaN where missing (D may be 0); C_MM: mean agreement.
            first: c of the models' first version [E, M], and its agreement [M, M]; None where there is no other one.
        """
        slope_F, scale = _pooled_slope(c_EM, own_EMF)
        views = {CELLS: own_EMF @ slope_F / scale, OUTSIDE: outside_ED}
        members = _members(bool(slope_F.any()), bool(np.isfinite(outside_ED).any()))
        basis = directions(C_MM)
        u_EK, usual_K, *_ = read(basis, c_EM, C_MM, self._horizon)
        rounds, bank = ROUNDS, self._bank
        if bank is None or not np.array_equal(bank.view_B, members[1]) or bank.fact_BSK.shape[2] != _width(views):
            bank, rounds = _start(c_EM, views, members, basis), FIRST_ROUNDS
        noise_K = steady(u_EK.var(axis=0), basis.power_K, len(c_EM) / self._horizon)
        bank = replace(
            bank,
            to_MK=basis.to_MK,
            back_KM=basis.back_KM,
            mean_BSK=bank.mean_BSK @ bank.back_KM @ basis.to_MK,
            noise_BK=np.tile(noise_K, (len(members[0]), 1)),
            trust_B=np.array([independent(views[view]) if view else 0.0 for view in members[1].tolist()]),
        )
        for _ in range(rounds):
            state_BES, moves_BSS, self._state_BS = _passes(_likelihood(bank, u_EK, views, self._horizon), bank)
            bank = _maximised(bank, u_EK, views, state_BES, moves_BSS, usual_K, basis.power_K, self._horizon)
        content = _content(bank) | {"slope_F": slope_F, "scale": np.array([scale])}
        # In one layout, as they come back from disk: the order of a sum must not depend on it.
        self._bank = Bank(**{name: np.ascontiguousarray(array) for name, array in content.items()})
        state_BES, _, state_BS = _passes(_likelihood(self._bank, u_EK, views, self._horizon), self._bank)
        self._state_BS = state_BS.copy()
        share_E = REST_DECAY ** np.arange(len(c_EM) - 1, -1, -1)
        rest_BK = share_E @ u_EK - np.einsum("e,bes,bsk->bk", share_E, state_BES, self._bank.mean_BSK, optimize=True)
        self._rest_BK, self._mass = np.ascontiguousarray(rest_BK), float(share_E.sum())
        self._paths.fit(basis, c_EM, C_MM, _scattered(self._bank, views, state_BES), first)
        if len(self._evidence_A) != _answers(self._bank):
            self._evidence_A = np.zeros(_answers(self._bank))
        self.known = self.fitted = len(c_EM)

    def add(
        self, c_M: FloatArray, own_MF: FloatArray, outside_D: FloatArray, first_M: FloatArray | None = None
    ) -> None:
        """Take in one resolved era: c of the models, its facts, and c of their first version if `fit` had one."""
        bank = self._bank
        assert bank is not None
        views = {CELLS: (own_MF @ bank.slope_F / bank.scale)[None], OUTSIDE: outside_D[None]}
        u_K = c_M @ bank.to_MK
        log_BS = _likelihood(bank, u_K[None], views, self._horizon)[:, 0]
        state_BS = np.einsum("bs,bst->bt", self._state_BS, bank.chain_BSS) * np.exp(log_BS - log_BS.max(1)[:, None])
        self._state_BS = state_BS / state_BS.sum(axis=1, keepdims=True)
        rest_BK = u_K - np.einsum("bs,bsk->bk", self._state_BS, bank.mean_BSK)
        self._rest_BK, self._mass = REST_DECAY * self._rest_BK + rest_BK, REST_DECAY * self._mass + 1.0
        self._paths.add(u_K, {view: facts_ED[0] for view, facts_ED in views.items()}, first_M)
        self.known += 1

    def numbers(self, steps: int) -> dict[str, Any]:
        """What forecasts for an era `steps` after the newest resolved one rest on, as `portable.foresee` takes it."""
        bank = self._bank
        assert bank is not None
        state_BS = self._state_BS
        for _ in range(steps):
            state_BS = np.einsum("bs,bst->bt", state_BS, bank.chain_BSS)
        mean_BSM = (bank.mean_BSK + GOES_ON * self._rest_BK[:, None] / self._mass) @ bank.back_KM
        found = {"mean_BSM": mean_BSM, "state_BS": state_BS, "share_A": self._shares_A, "trust": self.trust}
        return _content(bank) | _joined(bank, found, self._paths.foreseen(steps))

    @property
    def _shares_A(self) -> FloatArray:
        """Weights of the answers: by their evidence, that between paths and all others to the power `APART`."""
        share_A, logs, of_paths_A = np.zeros(len(self._evidence_A)), [], np.zeros(len(self._evidence_A), dtype=bool)
        of_paths_A[len(self._state_BS) :][: self._paths.views] = True
        for group_A in (of_paths_A, ~of_paths_A):
            ahead_A = np.exp(self._evidence_A[group_A] - self._evidence_A[group_A].max())
            share_A[group_A] = ahead_A / ahead_A.sum()
            logs.append(self._evidence_A[group_A].max() + np.log(ahead_A.mean()))
        paths = 1 / (1 + np.exp(np.clip(APART * (logs[1] - logs[0]), -500, 500)))
        return np.asarray(share_A * np.where(of_paths_A, paths, 1 - paths))

    @property
    def trust(self) -> float:
        """Share in which forecasts count beside the c for which equal weights are best, by the slope of c in them."""
        product, square = self._skill
        slope = (FULL_SLOPE * SLOPE_WORTH + product) / (SLOPE_WORTH + square)
        return min(1.0, max(0.0, float(slope) / FULL_SLOPE))

    def settle(self, answer_AM: FloatArray, c_M: FloatArray) -> None:
        """Judge forecasts of a resolved era by the outcome: a row per member, and their mean as it was [A + 1, M].

        A mean by the evidence of today would know eras whose labels overlap with the one that is judged.
        """
        bank = self._bank
        if bank is None or answer_AM.shape != (len(self._evidence_A) + 1, self._size):
            return
        noise_K = self._horizon * bank.noise_BK[0]
        forecast_K, paid_K = (beside_level(row_M, bank.to_MK, bank.back_KM) for row_M in (answer_AM[-1], c_M))
        self._skill = self._skill + np.array([forecast_K @ (paid_K / noise_K), forecast_K @ (forecast_K / noise_K)])
        error_A = (((c_M - answer_AM[:-1]) @ bank.to_MK) ** 2 / noise_K).sum(axis=1)
        self._evidence_A = self._evidence_A - 0.5 * error_A

    def forecasts(self, steps: int, own_MF: FloatArray, outside_D: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Expected c of the models in an era [M], and what each member expects, their mean last [A + 1, M]."""
        return foresee(self.numbers(steps), own_MF, outside_D)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All state, for safetensors; empty before the first fit."""
        if self._bank is None:
            return {}
        known = {"known": np.array([self.known, self.fitted])}
        state = {"state": self._state_BS, "evidence": self._evidence_A, "rest": self._rest_BK}
        state |= {"mass": np.array([self._mass]), "skill": self._skill}
        state |= self._paths.arrays()
        return {f"regimes.{name}": array for name, array in (_content(self._bank) | state | known).items()}

    def load(self, layout: Layout) -> None:
        """Take over the state of `arrays()`.

        Raises:
            LayoutError: it is laid out in another way.
        """
        if not layout.names("regimes."):
            return

        def take(name: str, *dimensions: str | int, dtype: str = "f8") -> NDArray[Any]:
            return np.array(layout.take(f"regimes.{name}", dtype, *dimensions))

        self._bank = Bank(
            states_B=take("states_B", "members", dtype="i8"),
            view_B=take("view_B", "members", dtype="i8"),
            to_MK=take("to_MK", "M", "M"),
            back_KM=take("back_KM", "M", "M"),
            mean_BSK=take("mean_BSK", "members", MOST, "M"),
            noise_BK=take("noise_BK", "members", "M"),
            chain_BSS=take("chain_BSS", "members", MOST, MOST),
            fact_BSK=take("fact_BSK", "members", MOST, "facts"),
            width_BK=take("width_BK", "members", "facts"),
            trust_B=take("trust_B", "members"),
            slope_F=take("slope_F", "slopes"),
            scale=take("scale", 1),
        )
        self._state_BS, self._evidence_A = take("state", "members", MOST), take("evidence", _answers(self._bank))
        self._paths.load(layout, "regimes.", np.unique(self._bank.view_B).tolist())
        self._rest_BK, self._mass = take("rest", "members", "M"), float(take("mass", 1)[0])
        self._skill = take("skill", 2)
        self.known, self.fitted = (int(value) for value in take("known", 2, dtype="i8"))


def _answers(bank: Bank) -> int:
    """Forecasts that are made: of every member, of paths of each view, and two by the slopes in facts."""
    return len(bank.states_B) + len(np.unique(bank.view_B)) + (2 if bank.slope_F.any() else 0)


def _scattered(bank: Bank, views: Mapping[int, FloatArray], state_BES: FloatArray) -> dict[int, Facts]:
    """Facts of every view for its paths: width and share of the drift are of the residuals from its last member.

    That member reads eras as independent and takes slow moves for states, so both are too small rather than too large.
    """
    found = {}
    for view in np.unique(bank.view_B).tolist():
        last, facts_EF = _last(bank, view), views.get(view, np.zeros((state_BES.shape[1], 0)))
        of_view = slice(facts_EF.shape[1])
        rest_EF = facts_EF - state_BES[last] @ bank.fact_BSK[last, :, of_view]
        width_F = bank.width_BK[last, of_view]
        found[view] = Facts(facts_EF, width_F, drifting(rest_EF / width_F), float(bank.trust_B[last]))
    return found


def _last(bank: Bank, view: int) -> int:
    """The last member of a view, which has the most states."""
    return int(np.flatnonzero(bank.view_B == view)[-1])


def _joined(bank: Bank, found: dict[str, Any], foreseen: Mapping[int, Foreseen]) -> dict[str, Any]:
    """What members of the bank and, behind them, paths of each view expect, as `portable.foresee` takes it."""
    parts: dict[str, list[NDArray[Any]]] = {
        "mean_BSM": [found["mean_BSM"]],
        "state_BS": [found["state_BS"]],
        "fact_BSK": [bank.fact_BSK],
        "width_BK": [bank.width_BK],
    }
    for state_R, u_RK, facts_RF, width_F in foreseen.values():
        more = (0, bank.fact_BSK.shape[2] - len(width_F))
        parts["mean_BSM"].append((u_RK @ bank.back_KM)[None])
        parts["state_BS"].append(state_R[None])
        parts["fact_BSK"].append(np.pad(facts_RF, ((0, 0), more))[None])
        parts["width_BK"].append(np.pad(width_F, more, constant_values=1.0)[None])
    like = [*range(len(bank.view_B)), *(_last(bank, view) for view in foreseen)]
    same = {"view_B": bank.view_B[like], "trust_B": bank.trust_B[like]}
    return found | same | {name: np.concatenate(arrays) for name, arrays in parts.items()}


def _content(bank: Bank) -> dict[str, NDArray[Any]]:
    return {field.name: getattr(bank, field.name) for field in fields(Bank)}


def _members(cells: bool, outside: bool) -> tuple[IntArray, IntArray]:
    """States and view of each member."""
    kinds = [(states, SCORES) for states in STATES]
    kinds += [(states, CELLS) for states in STATES_WITH_FACTS if cells]
    kinds += [(states, OUTSIDE) for states in STATES_WITH_FACTS if outside]
    return np.array([states for states, _ in kinds]), np.array([view for _, view in kinds])


def _width(views: Mapping[int, FloatArray]) -> int:
    return max(int(facts_EK.shape[1]) for facts_EK in views.values())


def _pooled_slope(c_EM: FloatArray, own_EMF: FloatArray) -> tuple[FloatArray, float]:
    """Slopes of c in a model's own facts, shared by all models (a ridge), and the spread of the index they give."""
    if own_EMF.shape[2] == 0:
        return np.zeros(0), 1.0
    lead_EM = c_EM - c_EM.mean(axis=0)
    lead_EM = lead_EM - lead_EM.mean(axis=1, keepdims=True)
    x_NF = (own_EMF - own_EMF.mean(axis=1, keepdims=True)).reshape(-1, own_EMF.shape[2])
    strength = 1.0 / EXPLAINED
    slope_F = np.linalg.solve(x_NF.T @ x_NF + 4 * strength * np.eye(x_NF.shape[1]), x_NF.T @ lead_EM.ravel())
    return slope_F, max(float((own_EMF @ slope_F).std()), 1e-12)


def _start(
    c_EM: FloatArray, views: Mapping[int, FloatArray], members: tuple[IntArray, IntArray], basis: Directions
) -> Bank:
    """States from clusters of smoothed eras, kept for `STAY` eras; noise is left at 1."""
    states_B, view_B = members
    size, width = c_EM.shape[1], _width(views)
    unit = max(float(c_EM.std()), 1e-12)
    kernel = np.ones(min(SMOOTH, len(c_EM)))
    smooth_EM = np.stack([np.convolve(column, kernel / kernel.sum(), "same") for column in (c_EM / unit).T], axis=1)
    mean_BSM, fact_BSK = np.zeros((len(states_B), MOST, size)), np.zeros((len(states_B), MOST, width))
    chain_BSS = np.tile(np.eye(MOST), (len(states_B), 1, 1))
    for b, (states, view) in enumerate(zip(states_B, view_B, strict=True)):
        facts_EK = np.nan_to_num(views[view]) if view else np.zeros((len(c_EM), 0))
        regime_E, _ = find_regimes(np.hstack([smooth_EM, 2 * facts_EK]), int(states))
        for s in range(states):
            rows_E = regime_E == s if (regime_E == s).any() else np.ones(len(c_EM), dtype=bool)
            mean_BSM[b, s] = c_EM[rows_E].mean(axis=0)
            fact_BSK[b, s, : facts_EK.shape[1]] = facts_EK[rows_E].mean(axis=0)
        if states > 1:
            chain_BSS[b, :states, :states] = (1 / STAY) / (states - 1)
            chain_BSS[b, range(states), range(states)] = 1 - 1 / STAY
    return Bank(
        states_B=states_B,
        view_B=view_B,
        to_MK=basis.to_MK,
        back_KM=basis.back_KM,
        mean_BSK=mean_BSM @ basis.to_MK,
        noise_BK=np.ones((len(states_B), size)),
        chain_BSS=chain_BSS,
        fact_BSK=fact_BSK,
        width_BK=np.ones((len(states_B), width)),
        trust_B=np.zeros(len(states_B)),
        slope_F=np.zeros(0),
        scale=np.ones(1),
    )


def _likelihood(bank: Bank, u_EK: FloatArray, views: Mapping[int, FloatArray], horizon: int) -> FloatArray:
    """Log likelihood of every era in every state [B, E, S]; -inf in states that a member lacks."""
    found_BES = np.full((len(bank.states_B), len(u_EK), MOST), -np.inf)
    for b, states in enumerate(bank.states_B):
        unit_K = 1 / np.sqrt(bank.noise_BK[b])
        left_EK, right_SK = u_EK * unit_K, bank.mean_BSK[b, :states] * unit_K
        distance_ES = (left_EK**2).sum(1)[:, None] - 2 * left_EK @ right_SK.T + (right_SK**2).sum(1)
        log_ES = -0.5 * distance_ES * min(1.0, OVERLAPPED / horizon)
        if bank.view_B[b]:
            log_ES = log_ES + _fact_likelihood(bank, b, views[int(bank.view_B[b])], int(states))
        found_BES[b, :, :states] = log_ES
    return found_BES


def _fact_likelihood(bank: Bank, b: int, facts_EK: FloatArray, states: int) -> FloatArray:
    width = facts_EK.shape[1]
    apart_ESK = (facts_EK[:, None] - bank.fact_BSK[b, :states, :width]) / bank.width_BK[b, :width]
    return np.asarray(-0.5 * bank.trust_B[b] * np.nan_to_num(apart_ESK**2).sum(axis=-1))


def _passes(log_BES: FloatArray, bank: Bank) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Forward and backward: states of every era [B, E, S], expected moves [B, S, S], the newest filtered state."""
    chain_BSS = bank.chain_BSS
    like_BES = np.exp(log_BES - log_BES.max(axis=2, keepdims=True))
    eras = like_BES.shape[1]
    there_BS = np.arange(MOST) < bank.states_B[:, None]
    forth_EBS, back_EBS = np.empty((eras, *there_BS.shape)), np.ones((eras, *there_BS.shape))
    like_EBS = np.ascontiguousarray(like_BES.transpose(1, 0, 2))
    state_BS = there_BS / bank.states_B[:, None]
    for e in range(eras):
        state_BS = (state_BS[:, None] @ chain_BSS)[:, 0] * like_EBS[e]
        state_BS /= state_BS.sum(axis=1, keepdims=True)
        forth_EBS[e] = state_BS
    for e in range(eras - 2, -1, -1):
        later_BS = (chain_BSS @ (like_EBS[e + 1] * back_EBS[e + 1])[:, :, None])[:, :, 0]
        back_EBS[e] = later_BS / later_BS.sum(axis=1, keepdims=True)
    state_EBS = forth_EBS * back_EBS
    state_EBS /= state_EBS.sum(axis=2, keepdims=True)
    later_EBS = like_EBS[1:] * back_EBS[1:]
    total_EB = np.einsum("ebs,bst,ebt->eb", forth_EBS[:-1], chain_BSS, later_EBS, optimize=True)
    moves_BSS = chain_BSS * np.einsum("ebs,ebt->bst", forth_EBS[:-1] / total_EB[:, :, None], later_EBS, optimize=True)
    return state_EBS.transpose(1, 0, 2), moves_BSS, state_BS


def _maximised(
    bank: Bank,
    u_EK: FloatArray,
    views: Mapping[int, FloatArray],
    state_BES: FloatArray,
    moves_BSS: FloatArray,
    usual_K: FloatArray,
    power_K: FloatArray,
    horizon: int,
) -> Bank:
    """Parameters that make the eras likeliest given their states, and the priors."""
    worth, eras = PRIOR_HORIZONS * horizon, len(u_EK)
    count_BS = state_BES.sum(axis=1)
    total_BSK = np.einsum("bes,ek->bsk", state_BES, u_EK, optimize=True)
    mean_BSK = (total_BSK + worth * usual_K) / (count_BS + worth)[:, :, None]
    around_BK = (u_EK**2).sum(axis=0) + ((count_BS[:, :, None] * mean_BSK - 2 * total_BSK) * mean_BSK).sum(axis=1)
    noise_BK = np.stack([steady(around_K / eras, power_K, eras / horizon) for around_K in np.maximum(around_BK, 0.0)])
    fact_BSK, width_BK = bank.fact_BSK.copy(), bank.width_BK.copy()
    for b, view in enumerate(bank.view_B):
        if view:
            fact_BSK[b], width_BK[b] = _facts_of(views[int(view)], state_BES[b], bank.fact_BSK.shape[2])
    chain_BSS = np.tile(np.eye(MOST), (len(bank.states_B), 1, 1))
    for b, states in enumerate(bank.states_B):
        prior_SS = np.full((states, states), 0.1) + (STAY_WORTH - 0.1) * np.eye(states)
        found_SS = moves_BSS[b, :states, :states] / horizon + prior_SS
        chain_BSS[b, :states, :states] = found_SS / found_SS.sum(axis=1, keepdims=True)
    return replace(
        bank, mean_BSK=mean_BSK, noise_BK=noise_BK, chain_BSS=chain_BSS, fact_BSK=fact_BSK, width_BK=width_BK
    )


def _facts_of(facts_EK: FloatArray, state_ES: FloatArray, width: int) -> tuple[FloatArray, FloatArray]:
    """Means of facts in each state [S, width], and their spread around them [width]; what is missing counts nowhere."""
    known_EK = np.isfinite(facts_EK)
    filled_EK = np.where(known_EK, facts_EK, 0.0)
    usual_K = filled_EK.sum(axis=0) / np.maximum(known_EK.sum(axis=0), 1)
    count_SK = state_ES.T @ known_EK
    mean_SK = (state_ES.T @ filled_EK + PRIOR_FACTS * usual_K) / (count_SK + PRIOR_FACTS)
    square_K = np.einsum("es,esk->k", state_ES, np.where(known_EK[:, None], facts_EK[:, None] - mean_SK, 0.0) ** 2)
    spread_K = np.sqrt(square_K / np.maximum(known_EK.sum(axis=0), 1))
    more = width - facts_EK.shape[1]
    floor_K = np.maximum(spread_K, 1e-3 * (1 + np.abs(usual_K)))
    return np.pad(mean_SK, ((0, 0), (0, more))), np.pad(floor_K, (0, more), constant_values=1.0)

"""What the meta-learner is compared with: static and online weights, and a network with one output per model.

Every rival returns weights [T, M] for the tested outcomes, the one for era t from outcomes up to t - lag alone.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import nnls

from benchmarks.meta_worlds import CLOCK, Planted
from eravane.core.config import GateConfig
from eravane.gate.experts import normalise, ridge_weights
from eravane.gate.inputs import InputMap
from eravane.gate.outcomes import History
from eravane.gate.records import Records
from eravane.gate.reward import ensemble_correlation

FloatArray = NDArray[np.float64]
Update = Callable[[FloatArray, FloatArray, FloatArray], FloatArray]

# Tuned on seeds 0 to 4: the best of each grid by mean gain over the three worlds.
EWA_RATE, SHARE_RATE, SHARE = 1.0, 1.0, 0.002
NETWORK_STEPS, NETWORK_HIDDEN, NETWORK_SEEDS, NETWORK_REFIT = 10, 16, 6, 125


def static_ridge(world: Planted, first: int, lag: int) -> FloatArray:
    """Ridge on everything known at the first tested era, never changed; negative weights clipped."""
    c_EM, C_EMM, known_T = _past(world, first, lag)
    everyone = np.ones(c_EM.shape[1], dtype=bool)
    count = known_T[0]
    weights_M = ridge_weights(c_EM[:count].mean(axis=0), C_EMM[:count].mean(axis=0), 1.0, everyone)
    return np.tile(weights_M, (len(known_T), 1))


def stacking(world: Planted, first: int, lag: int) -> FloatArray:
    """Non-negative least squares of the target on all base predictions known so far, refitted every era."""
    c_EM, C_EMM, known_T = _past(world, first, lag)
    size = c_EM.shape[1]
    rows = []
    for count in known_T:
        root_MM = np.linalg.cholesky(C_EMM[:count].mean(axis=0) + 1e-6 * np.eye(size))
        rows.append(nnls(root_MM.T, np.linalg.solve(root_MM, c_EM[:count].mean(axis=0)))[0])
    return np.stack([normalise(row, np.ones(size, dtype=bool)) for row in rows])


def exponential_weights(world: Planted, first: int, lag: int, rate: float = EWA_RATE) -> FloatArray:
    """Weights proportional to exp(rate * cumulative score)."""

    def update(state_M: FloatArray, _: FloatArray, gain_M: FloatArray) -> FloatArray:
        return _softmax(np.log(state_M) + rate * gain_M)

    return _online(world, first, lag, update)


def fixed_share(world: Planted, first: int, lag: int, rate: float = SHARE_RATE, share: float = SHARE) -> FloatArray:
    """Exponential weights that give a share back to everyone after each era (Herbster and Warmuth, 1998)."""

    def update(state_M: FloatArray, _: FloatArray, gain_M: FloatArray) -> FloatArray:
        return (1 - share) * _softmax(np.log(state_M) + rate * gain_M) + share / len(state_M)

    return _online(world, first, lag, update)


def boa(world: Planted, first: int, lag: int) -> FloatArray:
    """Bernstein online aggregation with the second-order weights of the opera package."""
    size = len(world.models)
    V_M, R_M = np.zeros(size), np.zeros(size)

    def update(_: FloatArray, used_M: FloatArray, gain_M: FloatArray) -> FloatArray:
        nonlocal V_M, R_M
        regret_M = gain_M - used_M @ gain_M
        V_M = V_M + 2.2 * regret_M**2
        R_M = R_M + regret_M - regret_M**2 / np.sqrt(V_M)
        return _softmax(R_M / np.sqrt(V_M) - np.log(V_M) / 2)

    return _online(world, first, lag, update)


def one_output_per_model(world: Planted, first: int, lag: int, steps: int = NETWORK_STEPS) -> FloatArray:
    """A network from the whole era's inputs to one softmax output per model, on the meta-learner's own inputs."""
    config = GateConfig()
    history, records = replayed(world, config)
    weights = []
    network: torch.nn.Module | None = None
    for position in range(first, len(history)):
        known = history.known(history.eras[position], lag)
        if network is None or (position - first) % NETWORK_REFIT == 0:
            input_map = InputMap.fit(history, records, known, lag, config)
            network = _fit_network(input_map, history, records, known, lag, steps)
        with torch.no_grad():
            x_EV = _flat(input_map, history, records, [position], lag)
            weights.append(torch.softmax(network(x_EV), -1).mean(1)[0].double().numpy())
    return np.stack(weights)


def replayed(world: Planted, config: GateConfig) -> tuple[History, Records]:
    """A world as the meta-learner's own history."""
    history = History(len(world.models))
    records = Records(len(world.models), config, CLOCK.horizon)
    for position, outcome in enumerate(world.outcomes):
        history.append(outcome)
        records.add(history, position)
    return history, records


class _Nets(torch.nn.Module):
    """Several networks with separate parameters and one input."""

    def __init__(self, inputs: int, models: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = torch.nn.Parameter(torch.randn(NETWORK_SEEDS, inputs, NETWORK_HIDDEN) * inputs**-0.5)
        self.second = torch.nn.Parameter(0.1 * torch.randn(NETWORK_SEEDS, NETWORK_HIDDEN, models))
        self.bias = torch.nn.Parameter(torch.zeros(NETWORK_SEEDS, models))

    def forward(self, x_EV: torch.Tensor) -> torch.Tensor:
        hidden = torch.tanh(torch.einsum("ev,svh->esh", x_EV, self.first))
        return torch.einsum("esh,shm->esm", hidden, self.second) + self.bias


def _fit_network(
    input_map: InputMap, history: History, records: Records, known: int, lag: int, steps: int
) -> torch.nn.Module:
    rows = list(range(lag + 8, known))
    x_EV = _flat(input_map, history, records, rows, lag)
    c_EM = torch.tensor(history.column("c")[rows], dtype=torch.float32)[:, None]
    C_EMM = torch.tensor(history.column("C")[rows], dtype=torch.float32)
    network = _Nets(x_EV.shape[1], c_EM.shape[-1])
    optimiser = torch.optim.AdamW(network.parameters(), lr=0.02)
    for _ in range(steps):
        optimiser.zero_grad()
        noisy_EV = x_EV + torch.randn_like(x_EV)
        weights_SEM = torch.softmax(network(noisy_EV), -1).transpose(0, 1)
        loss = -ensemble_correlation(weights_SEM, c_EM[:, 0], C_EMM).mean(-1).sum()
        (loss / float(c_EM.std())).backward()
        optimiser.step()
    return network


def _flat(input_map: InputMap, history: History, records: Records, rows: list[int], lag: int) -> torch.Tensor:
    parts = [input_map.replay(history, records, position, lag) for position in rows]
    return torch.tensor(
        np.stack([np.append(x_MF.ravel(), context_D) for x_MF, context_D in parts]), dtype=torch.float32
    )


def _past(world: Planted, first: int, lag: int) -> tuple[FloatArray, FloatArray, list[int]]:
    c_EM = np.stack([outcome.c_M for outcome in world.outcomes])
    C_EMM = np.stack([outcome.C_MM for outcome in world.outcomes])
    eras = np.array([outcome.era for outcome in world.outcomes])
    return c_EM, C_EMM, [int(np.searchsorted(eras, era - lag, side="right")) for era in eras[first:]]


def _online(world: Planted, first: int, lag: int, update: Update) -> FloatArray:
    """Feed every era's linearised gains (the gradient of the mix's correlation) once they are known."""
    c_EM, C_EMM, known_E = _past(world, 0, lag)
    size = c_EM.shape[1]
    state_M, used, done = np.full(size, 1.0 / size), [], 0
    for count in known_E:
        while done < count:
            w_M = used[done]
            spread = np.sqrt(w_M @ C_EMM[done] @ w_M)
            gain_M = c_EM[done] / spread - (c_EM[done] @ w_M) * (C_EMM[done] @ w_M) / spread**3
            state_M = update(state_M, w_M, gain_M)
            done += 1
        used.append(state_M)
    return np.stack(used)[first:]


def _softmax(logits_M: FloatArray) -> FloatArray:
    raw_M = np.exp(np.clip(logits_M - logits_M.max(), -700, 0))
    return np.maximum(raw_M / raw_M.sum(), 1e-300)

"""The network: one scorer shared by all base models, its gates and weights, and its training on resolved eras."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eravane.core.config import GateConfig
from eravane.core.layout import Layout
from eravane.gate.prototypes import dynamos_prototype_loss, prototype_loss, standardise
from eravane.gate.reward import (
    dynamos_reward,
    ensemble_correlation,
    gain_reward,
    log_probability,
    open_share,
    policy_loss,
)
from eravane.gate.training import Training

# Single precision would do for the result, but not for two devices to agree after a hundred Adam steps.
DTYPE = torch.float64
FIRST_TEMPERATURE, LAST_TEMPERATURE = 1.0, 0.15
SAMPLES = 4
# The smaller of the two penalties of the paper's experiments.
DYNAMOS_PENALTY = 200.0
PROTOTYPE_ERAS = 64


@dataclass(frozen=True, eq=False)
class Batch:
    """Resolved eras on the device; S nets read the same inputs.

    Attributes:
        x_EMF: inputs of every model, those known before the era is predicted first.
        context_ED: inputs of the era; c_EM, C_EMM: sufficient statistics; present_EM: 1 where a model existed.
        affinity_EE: outcome-side similarity; regime_E: outcome-side classes; era_E: era numbers.
        scale: standard deviation of a single model's gain over equal weight.
    """

    x_EMF: Tensor
    context_ED: Tensor
    c_EM: Tensor
    C_EMM: Tensor
    present_EM: Tensor
    affinity_EE: Tensor
    regime_E: Tensor
    era_E: Tensor
    scale: float

    def take(self, rows: Tensor) -> Batch:
        """Some of the eras."""
        by_era = ("x_EMF", "context_ED", "c_EM", "C_EMM", "present_EM", "regime_E", "era_E")
        taken = {name: getattr(self, name)[rows] for name in by_era}
        return replace(self, **taken, affinity_EE=self.affinity_EE[rows][:, rows])

    def with_noise(self, scale: float, generator: torch.Generator) -> Batch:
        """The batch with Gaussian noise on every input that is on, drawn on the CPU so that devices agree."""

        def blurred(values: Tensor) -> Tensor:
            noise = torch.randn(values.shape, generator=generator, dtype=values.dtype).to(values.device)
            varies = (values != 0).any(dim=tuple(range(values.dim() - 1)))
            return values + scale * noise * varies

        return replace(self, x_EMF=blurred(self.x_EMF), context_ED=blurred(self.context_ED))


class Scorer(torch.nn.Module):
    """S independent networks evaluated at once: score = linear + tanh layer of a model's own inputs and the context.

    The gate head sees the first `early` inputs alone, the weight head all of them; every parameter is shared by all
    base models, but for one gate bias per agent. A permutation of the models permutes the scores.
    """

    def __init__(self, early: int, inputs: int, context: int, agents: int, config: GateConfig, seed: int) -> None:
        super().__init__()
        self.early = early
        generator = torch.Generator().manual_seed(seed)
        nets, hidden = config.seeds, Training.of(config).hidden

        def random(*shape: int, scale: float) -> torch.nn.Parameter:
            return torch.nn.Parameter(scale * torch.randn(*shape, generator=generator, dtype=DTYPE))

        def zeros(*shape: int) -> torch.nn.Parameter:
            return torch.nn.Parameter(torch.zeros(*shape, dtype=DTYPE))

        self.gate_linear, self.weight_linear = zeros(nets, early), zeros(nets, inputs)
        self.gate_hidden = random(nets, early + context, hidden, scale=(early + context) ** -0.5)
        self.weight_hidden = random(nets, inputs + context, hidden, scale=(inputs + context) ** -0.5)
        self.gate_shift, self.weight_shift = zeros(nets, hidden), zeros(nets, hidden)
        self.gate_out = random(nets, hidden, scale=0.1 * hidden**-0.5)
        self.weight_out = random(nets, hidden, scale=0.1 * hidden**-0.5)
        self.gate_bias = torch.nn.Parameter(torch.ones(nets, agents, dtype=DTYPE))

    def forward(self, x_EMF: Tensor, context_ED: Tensor, agents_MA: Tensor) -> tuple[Tensor, Tensor]:
        """Gate logits and weight logits, each [S, E, M]."""
        early_EMF = x_EMF[..., : self.early]
        gate_SEM = _score(early_EMF, context_ED, self.gate_linear, self.gate_hidden, self.gate_shift, self.gate_out)
        gate_SEM = gate_SEM + (self.gate_bias @ agents_MA.T)[:, None, :]
        weight_SEM = _score(
            x_EMF, context_ED, self.weight_linear, self.weight_hidden, self.weight_shift, self.weight_out
        )
        return gate_SEM, weight_SEM


def _score(x_EMF: Tensor, context_ED: Tensor, linear: Tensor, hidden: Tensor, shift: Tensor, out: Tensor) -> Tensor:
    inputs = x_EMF.shape[-1]
    linear_SEM = torch.einsum("emf,sf->sem", x_EMF, linear)
    own_SEMH = torch.einsum("emf,sfh->semh", x_EMF, hidden[:, :inputs])
    era_SEH = torch.einsum("ed,sdh->seh", context_ED, hidden[:, inputs:]) + shift[:, None]
    return linear_SEM + torch.einsum("semh,sh->sem", torch.tanh(own_SEMH + era_SEH[:, :, None]), out)


def masked_softmax(logits_M: Tensor, gates_M: Tensor) -> Tensor:
    """Weights proportional to gate times exp(logit), over the last dimension; gates may be soft."""
    shifted_M = logits_M - torch.where(gates_M > 0, logits_M, -torch.inf).amax(-1, keepdim=True).detach()
    raw_M = gates_M * torch.exp(shifted_M.clamp_max(30.0))
    return raw_M / raw_M.sum(-1, keepdim=True).clamp_min(1e-12)


class Trainer:
    """Trains a scorer on a batch; everything random comes from a generator on the CPU, so devices agree."""

    def __init__(self, config: GateConfig, agents_MA: Tensor, lag: int) -> None:
        self._config, self._constants = config, Training.of(config)
        self._agents_MA = agents_MA
        self._lag = lag

    def fit(self, scorer: Scorer, batch: Batch, *, steps: int, rate: float, seed: int, warm: bool) -> None:
        """Take a fixed number of Adam steps, each on `replay` of the eras.

        A step's cost is flat however long the history, and the temperature is annealed unless `warm`.
        """
        generator = torch.Generator().manual_seed(seed)
        optimiser = _optimiser(list(scorer.parameters()), rate, self._constants.decay)
        with single_thread():
            for step in range(steps):
                done = 1.0 if warm else step / max(steps - 1, 1)
                temperature = FIRST_TEMPERATURE * (LAST_TEMPERATURE / FIRST_TEMPERATURE) ** done
                optimiser.zero_grad()
                noisy = self._drawn(batch, generator).with_noise(self._constants.noise, generator)
                self.loss(scorer, noisy, temperature, generator).sum().backward()
                optimiser.step()

    def _drawn(self, batch: Batch, generator: torch.Generator) -> Batch:
        eras = len(batch.era_E)
        if eras <= self._constants.replay:
            return batch
        rows = torch.randperm(eras, generator=generator)[: self._constants.replay].sort().values
        return batch.take(rows.to(batch.era_E.device))

    def loss(self, scorer: Scorer, batch: Batch, temperature: float, generator: torch.Generator) -> Tensor:
        """Loss per net [S]: the policy's, plus the prototype loss."""
        gate_SEM, weight_SEM = scorer(batch.x_EMF, batch.context_ED, self._agents_MA)
        if self._config.reward == "dynamos":
            loss_S, gain_SE = self._sampled(gate_SEM, weight_SEM, batch, temperature, generator)
        else:
            gates_SEM = (
                torch.sigmoid(torch.where(batch.present_EM > 0, gate_SEM, -30.0) / temperature) * batch.present_EM
            )
            gain_SE = self.gain(gates_SEM, weight_SEM, batch)
            loss_S = -_agent_mean(*self._rewards(gain_SE, gates_SEM, batch)).mean(-1)
        weight = self._constants.prototype_weight
        return loss_S + weight * self._prototype(gate_SEM, gain_SE.detach(), batch, generator) if weight else loss_S

    def gain(self, gates_SEM: Tensor, weight_SEM: Tensor, batch: Batch) -> Tensor:
        """Correlation of the gated ensemble less that of equal weight, [..., E]."""
        weights_SEM = masked_softmax(weight_SEM.expand_as(gates_SEM), gates_SEM)
        equal_E = ensemble_correlation(batch.present_EM, batch.c_EM, batch.C_EMM)
        return ensemble_correlation(weights_SEM, batch.c_EM, batch.C_EMM) - equal_E

    def reward(self, gates_SEM: Tensor, weight_SEM: Tensor, batch: Batch) -> Tensor:
        """Reward of gates, averaged over agents, [..., E]."""
        return _agent_mean(*self._rewards(self.gain(gates_SEM, weight_SEM, batch), gates_SEM, batch))

    def _rewards(self, gain: Tensor, gates_SEM: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        config = self._config
        share, counts = open_share(gates_SEM, batch.present_EM, self._agents_MA)
        if config.reward == "dynamos":
            return dynamos_reward(gain, share, keep_ratio=self._constants.keep_ratio, penalty=DYNAMOS_PENALTY), counts
        how = {"penalty": self._constants.keep_penalty, "amplify": self._constants.amplify}
        return gain_reward(gain, share, scale=batch.scale, keep_ratio=self._constants.keep_ratio, **how), counts

    def _sampled(
        self, gate_SEM: Tensor, weight_SEM: Tensor, batch: Batch, temperature: float, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """The literal losses of Dynamos: REINFORCE on sampled gates; weights behind them have the exact gradient."""
        logits_SEM, present_EM = gate_SEM / temperature, batch.present_EM
        draws = torch.rand((SAMPLES, *gate_SEM.shape), generator=generator, dtype=DTYPE).to(gate_SEM.device)
        gates_KSEM = open_one((draws < torch.sigmoid(logits_SEM)) * present_EM, logits_SEM, present_EM)
        greedy_SEM = open_one((gate_SEM >= 0) * present_EM, gate_SEM, present_EM)
        gain_KSE, gain_SE = self.gain(gates_KSEM, weight_SEM, batch), self.gain(greedy_SEM, weight_SEM, batch)
        reward, counts = self._rewards(gain_KSE, gates_KSEM, batch)
        log_prob = log_probability(gates_KSEM, logits_SEM, present_EM, self._agents_MA)
        # As in the paper: no baseline, and the loss of the task itself (here the correlation) beside the reward.
        baseline, task = torch.zeros_like(reward[0]), gain_SE.mean(-1)
        policy = _agent_mean(policy_loss(reward, baseline, log_prob), counts).mean((0, -1))
        return policy - task / batch.scale, gain_SE

    def _prototype(self, gate_SEM: Tensor, gain_SE: Tensor, batch: Batch, generator: torch.Generator) -> Tensor:
        eras = gate_SEM.shape[1]
        rows = torch.randperm(eras, generator=generator)[:PROTOTYPE_ERAS].sort().values.to(gate_SEM.device)
        right_SE = gain_SE[:, rows] >= 0
        logits_SEM = gate_SEM[:, rows] * batch.present_EM[rows]
        if self._config.reward == "dynamos":
            return dynamos_prototype_loss(logits_SEM, batch.regime_E[rows], right_SE)
        apart_EE = (batch.era_E[rows][:, None] - batch.era_E[rows][None, :]).abs() >= self._lag
        pairs_SEE = (apart_EE & right_SE.unsqueeze(-1) & right_SE.unsqueeze(-2)).to(gate_SEM.dtype)
        affinity_EE = batch.affinity_EE[rows][:, rows]
        return prototype_loss(standardise(logits_SEM), affinity_EE, pairs_SEE, self._constants.prototype_margin)


def _optimiser(parameters: list[Tensor], rate: float, decay: float) -> Any:
    return (
        AdamW(parameters, rate, decay)
        if all(p.is_cpu for p in parameters)
        else torch.optim.AdamW(parameters, lr=rate, weight_decay=decay)
    )


class AdamW:
    """`torch.optim.AdamW` with its defaults on the CPU, to the bit; the first use of torch's imports its compiler.

    That import takes more time than a gate of an ordinary run needs for all its training (3 s of CPU).

    Args:
        parameters: what is trained.
        rate: of learning.
        decay: of the parameters, relative to the rate.
    """

    BETAS, EPS = (0.9, 0.999), 1e-8

    def __init__(self, parameters: list[Tensor], rate: float, decay: float) -> None:
        self._parameters, self._rate, self._decay, self._steps = parameters, rate, decay, 0
        self._moments = [(torch.zeros_like(one), torch.zeros_like(one)) for one in parameters]

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for one in self._parameters:
            one.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Change the parameters by their gradients."""
        self._steps += 1
        first, second = self.BETAS
        size, root = self._rate / (1 - first**self._steps), (1 - second**self._steps) ** 0.5
        for one, (mean, square) in zip(self._parameters, self._moments, strict=True):
            assert one.grad is not None, "every parameter has a part in the loss"
            one.mul_(1 - self._rate * self._decay)
            mean.lerp_(one.grad, 1 - first)
            square.mul_(second).addcmul_(one.grad, one.grad, value=1 - second)
            one.addcdiv_(mean, (square.sqrt() / root).add_(self.EPS), value=-size)


def open_one(gates_M: Tensor, logits_M: Tensor, present_M: Tensor) -> Tensor:
    """Gates as 0 and 1, with the likeliest model opened where every gate is closed."""
    gates_M = gates_M.to(logits_M.dtype)
    best_1 = torch.where(present_M > 0, logits_M, -torch.inf).expand_as(gates_M).argmax(-1, keepdim=True)
    likeliest_M = torch.zeros_like(gates_M).scatter(-1, best_1, 1.0)
    return torch.where(gates_M.sum(-1, keepdim=True) > 0, gates_M, likeliest_M)


def _agent_mean(value_A: Tensor, counts_A: Tensor) -> Tensor:
    return (value_A * counts_A).sum(-1) / counts_A.sum(-1).clamp_min(1.0)


@contextmanager
def single_thread() -> Iterator[None]:
    """Run torch on one thread: the order of its sums, and so every bit of the result, is then fixed."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def parameters(scorer: Scorer) -> dict[str, NDArray[np.float64]]:
    """The networks' parameters as arrays, for safetensors."""
    return {f"scorer.{name}": value.detach().cpu().numpy() for name, value in scorer.named_parameters()}


def load_parameters(scorer: Scorer, layout: Layout) -> None:
    """Set the networks' parameters from `parameters()`.

    Raises:
        LayoutError: they are of other sizes.
    """
    taken = {name: layout.take(f"scorer.{name}", "f8", *value.shape) for name, value in scorer.named_parameters()}
    scorer.load_state_dict({name: torch.as_tensor(array) for name, array in taken.items()})

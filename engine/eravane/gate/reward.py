"""Rewards of the gate: the ensemble's correlation from sufficient statistics, and rewards for sampled gates.

Leading dimensions are free: weights and gates are [..., E, M], rewards [..., E, A] with one value per agent (a tier of
feature sets); `agents_MA` [M, A] is 1 where a model belongs to an agent.
"""

from __future__ import annotations

import torch
from torch import Tensor

VARIANCE_FLOOR = 1e-8


def ensemble_correlation(weights_M: Tensor, c_EM: Tensor, C_EMM: Tensor) -> Tensor:
    """Correlation of weighted ensembles with the target, c'w / sqrt(w'Cw) [..., E]; its autograd is exact."""
    spread_M = torch.einsum("emn,...en->...em", C_EMM, weights_M)
    variance = (weights_M * spread_M).sum(-1).clamp_min(VARIANCE_FLOOR)
    return (weights_M * c_EM).sum(-1) / variance.sqrt()


def open_share(gates_M: Tensor, present_EM: Tensor, agents_MA: Tensor) -> tuple[Tensor, Tensor]:
    """Share of open gates per agent [..., E, A], and 1 where an agent has models in that era [E, A]."""
    size_EA = present_EM @ agents_MA
    share = (gates_M * present_EM) @ agents_MA / size_EA.clamp_min(1.0)
    return share, (size_EA > 0).to(share.dtype)


def gain_reward(
    gain: Tensor, share: Tensor, *, scale: float | Tensor, keep_ratio: float, penalty: float, amplify: float
) -> Tensor:
    """Standardised gain over equal weight, less the keep-ratio penalty, which is amplified where the gain is negative.

    R = gain / scale - penalty (keep_ratio - share)^2 (1 + (amplify - 1) 1[gain < 0]), per agent [..., E, A].
    """
    factor = 1.0 + (amplify - 1.0) * (gain < 0).to(gain.dtype)
    return (gain / scale).unsqueeze(-1) - penalty * factor.unsqueeze(-1) * (keep_ratio - share) ** 2


def dynamos_reward(gain: Tensor, share: Tensor, *, keep_ratio: float, penalty: float) -> Tensor:
    """The literal reward of Dynamos (arXiv 2301.00620), per agent [..., E, A].

    R = -(keep_ratio - share)^2 where the era counts as classified correctly (gain >= 0), else `penalty` times that.
    """
    factor = torch.where(gain < 0, penalty, 1.0)
    return -factor.unsqueeze(-1) * (keep_ratio - share) ** 2


def log_probability(gates_M: Tensor, logits_M: Tensor, present_EM: Tensor, agents_MA: Tensor) -> Tensor:
    """Log probability of sampled Bernoulli gates with the given logits, summed per agent [..., E, A]."""
    log_M = -torch.nn.functional.binary_cross_entropy_with_logits(
        logits_M.expand_as(gates_M), gates_M, reduction="none"
    )
    return (log_M * present_EM) @ agents_MA


def policy_loss(reward: Tensor, baseline: Tensor | float, log_prob: Tensor) -> Tensor:
    """REINFORCE before averaging, -(reward - baseline) log pi; neither reward nor baseline carries a gradient."""
    return -(reward - baseline).detach() * log_prob

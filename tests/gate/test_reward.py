"""The reward against plain NumPy transcriptions, and both gradients against the enumeration of every mask."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eravane.gate.reward import (
    dynamos_reward,
    ensemble_correlation,
    gain_reward,
    log_probability,
    open_share,
    policy_loss,
)


def era(rng, models=5, rows=400):
    z_MN = rng.standard_normal((models, rows)) + rng.standard_normal(rows)
    z_MN = (z_MN - z_MN.mean(1, keepdims=True)) / z_MN.std(1, keepdims=True)
    y_N = rng.standard_normal(rows) + 0.1 * z_MN[0]
    y_N = (y_N - y_N.mean()) / y_N.std()
    return z_MN, y_N


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_correlation_from_sufficient_statistics_is_pearson_of_the_mix(seed):
    rng = np.random.default_rng(seed)
    z_MN, y_N = era(rng)
    w_M = rng.random(5) + 0.01
    c_M, C_MM = z_MN @ y_N / y_N.size, z_MN @ z_MN.T / y_N.size
    got = ensemble_correlation(torch.tensor(w_M)[None], torch.tensor(c_M)[None], torch.tensor(C_MM)[None])
    assert got.item() == pytest.approx(np.corrcoef(w_M @ z_MN, y_N)[0, 1], abs=1e-12)


def test_gradient_is_the_closed_form():
    rng = np.random.default_rng(3)
    z_MN, y_N = era(rng)
    c_M, C_MM = z_MN @ y_N / y_N.size, z_MN @ z_MN.T / y_N.size
    w_M = rng.random(5)
    w = torch.tensor(w_M[None], requires_grad=True)
    ensemble_correlation(w, torch.tensor(c_M)[None], torch.tensor(C_MM)[None]).sum().backward()
    s = np.sqrt(w_M @ C_MM @ w_M)
    np.testing.assert_allclose(w.grad[0].numpy(), c_M / s - (c_M @ w_M) * (C_MM @ w_M) / s**3, atol=1e-12)


def test_constant_ensemble_scores_zero_and_has_a_finite_gradient():
    w = torch.tensor([[1.0, 0.0]], requires_grad=True)
    score = ensemble_correlation(w, torch.zeros(1, 2), torch.zeros(1, 2, 2))
    score.sum().backward()
    assert score.item() == 0.0
    assert torch.isfinite(w.grad).all()


def random_policy(seed, eras=7, models=6):
    rng = np.random.default_rng(seed)
    gates = (rng.random((3, eras, models)) < 0.6).astype(float)
    logits = rng.standard_normal((eras, models))
    agent_of = rng.integers(0, 2, models)
    agent_of[:2] = [0, 1]
    gain = 0.02 * rng.standard_normal((3, eras))
    return gates, logits, agent_of, gain


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_literal_dynamos_reward_equals_a_plain_transcription(seed):
    gates, logits, agent_of, gain = random_policy(seed)
    kappa, penalty = 0.7, 200.0
    total, count = 0.0, 0
    for k, e, agent in itertools.product(range(3), range(7), range(2)):
        own = [m for m in range(6) if agent_of[m] == agent]
        open_part = sum(gates[k, e, m] for m in own) / len(own)
        reward = -((kappa - open_part) ** 2)
        if gain[k, e] < 0:
            reward = -penalty * (kappa - open_part) ** 2
        log_prob = 0.0
        for m in own:
            p = 1 / (1 + np.exp(-logits[e, m]))
            log_prob += np.log(p) if gates[k, e, m] else np.log(1 - p)
        total += -reward * log_prob
        count += 1
    agents_MA = torch.tensor(np.eye(2)[agent_of])
    present = torch.ones(7, 6, dtype=torch.float64)
    share, _ = open_share(torch.tensor(gates), present, agents_MA)
    reward = dynamos_reward(torch.tensor(gain), share, keep_ratio=kappa, penalty=penalty)
    log_prob = log_probability(torch.tensor(gates), torch.tensor(logits), present, agents_MA)
    assert policy_loss(reward, 0.0, log_prob).mean().item() == pytest.approx(total / count, rel=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_gain_reward_equals_a_plain_transcription(seed):
    gates, _, agent_of, gain = random_policy(seed)
    agents_MA = torch.tensor(np.eye(2)[agent_of])
    share, _ = open_share(torch.tensor(gates), torch.ones(7, 6, dtype=torch.float64), agents_MA)
    got = gain_reward(torch.tensor(gain), share, scale=0.01, keep_ratio=0.7, penalty=1.5, amplify=3.0).numpy()
    for k, e, agent in itertools.product(range(3), range(7), range(2)):
        own = agent_of == agent
        error = (0.7 - gates[k, e, own].mean()) ** 2
        expected = gain[k, e] / 0.01 - 1.5 * error * (3.0 if gain[k, e] < 0 else 1.0)
        assert got[k, e, agent] == pytest.approx(expected, abs=1e-9)


def test_absent_models_do_not_count_towards_the_share():
    present = torch.tensor([[1.0, 1.0, 0.0, 0.0]])
    agents_MA = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    share, counts = open_share(torch.tensor([[1.0, 0.0, 1.0, 1.0]]), present, agents_MA)
    assert share[0].tolist() == [0.5, 0.0]
    assert counts[0].tolist() == [1.0, 0.0]


def planted(seed, models, eras=40):
    """Eras in which the first half of the models is good and the others are noise or bad."""
    rng = np.random.default_rng(seed)
    level_M = np.where(np.arange(models) < models // 2, 0.03, -0.01)
    c_EM = level_M + 0.004 * rng.standard_normal((eras, models))
    C_EMM = np.tile(0.3 * np.ones((models, models)) + 0.7 * np.eye(models), (eras, 1, 1))
    return torch.tensor(c_EM), torch.tensor(C_EMM)


def mask_rewards(masks, c_EM, C_EMM):
    """Mean reward of every mask [K], with the gates as equal weights of the open models."""
    equal = ensemble_correlation(torch.ones_like(c_EM), c_EM, C_EMM)
    weights = masks[:, None, :].expand(-1, len(c_EM), -1)
    gain = ensemble_correlation(weights, c_EM, C_EMM) - equal
    share = masks.mean(-1)[:, None, None].expand(-1, len(c_EM), 1)
    reward = gain_reward(gain, share, scale=0.02, keep_ratio=0.7, penalty=1.0, amplify=2.0)
    return reward[..., 0].mean(-1)


@pytest.mark.parametrize("models", [4, 12])
@pytest.mark.parametrize("gradient", ["exact", "reinforce"])
def test_both_gradients_reach_the_best_of_all_masks(models, gradient):
    c_EM, C_EMM = planted(models, models)
    masks = torch.tensor(list(itertools.product([0.0, 1.0], repeat=models))[1:], dtype=torch.float64)
    value_K = mask_rewards(masks, c_EM, C_EMM)
    logits = torch.zeros(models, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([logits], lr=0.05)
    generator = torch.Generator().manual_seed(0)
    for step in range(400):
        temperature = 0.15 ** (step / 399)
        optimiser.zero_grad()
        if gradient == "exact":
            log_prob_K = log_probability(
                masks,
                (logits / temperature)[None],
                torch.ones(1, models, dtype=torch.float64),
                torch.ones(models, 1).double(),
            )[..., 0]
            loss = -(log_prob_K.exp() * value_K).sum()
        else:
            chance = torch.sigmoid(logits / temperature).detach()
            drawn = (torch.rand(64, models, generator=generator, dtype=torch.float64) < chance).double()
            drawn[drawn.sum(-1) == 0] = 1.0
            greedy = (chance >= 0.5).double()[None]
            greedy = greedy if greedy.sum() else torch.ones_like(greedy)
            reward = mask_rewards(drawn, c_EM, C_EMM)[:, None]
            log_prob = log_probability(
                drawn, (logits / temperature)[None], torch.ones(1, models).double(), torch.ones(models, 1).double()
            )
            loss = policy_loss(reward, mask_rewards(greedy, c_EM, C_EMM), log_prob).mean()
        loss.backward()
        optimiser.step()
    reached = mask_rewards((logits.detach() >= 0).double()[None], c_EM, C_EMM).item()
    assert reached == pytest.approx(value_K.max().item(), abs=1e-3)

"""Prototype losses against plain double loops, affinities against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eravane.gate.prototypes import (
    affinity,
    dynamos_prototype_loss,
    find_regimes,
    prototype_loss,
    whiten,
)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_literal_loss_equals_the_papers_double_sum(seed):
    rng = np.random.default_rng(seed)
    z_ND, classes_N, right_N = rng.standard_normal((9, 5)), rng.integers(0, 3, 9), rng.random(9) < 0.7
    near = far = 0.0
    for i in range(9):
        for j in range(i + 1, 9):
            distance = np.sum((z_ND[i] - z_ND[j]) ** 2) / 5
            if not (right_N[i] and right_N[j]):
                continue
            if classes_N[i] == classes_N[j]:
                near += distance
            else:
                far += distance
    got = dynamos_prototype_loss(torch.tensor(z_ND), torch.tensor(classes_N), torch.tensor(right_N))
    assert got.item() == pytest.approx((1 + near) / (1 + far), rel=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_tabular_loss_equals_a_plain_double_sum(seed):
    rng = np.random.default_rng(seed)
    z_EM, gap, margin = 2 * rng.standard_normal((12, 4)), 3, 4.0
    A_EE = affinity(rng.standard_normal((12, 4)))
    right_E = rng.random(12) < 0.7
    pairs_EE = np.zeros((12, 12))
    near = far = like = unlike = 0.0
    for i in range(12):
        for j in range(12):
            if abs(i - j) < gap or not right_E[i] or not right_E[j]:
                continue
            pairs_EE[i, j] = 1.0
            distance = np.sum((z_EM[i] - z_EM[j]) ** 2) / 4
            near, like = near + A_EE[i, j] * distance, like + A_EE[i, j]
            far, unlike = far + (1 - A_EE[i, j]) * min(distance, margin), unlike + 1 - A_EE[i, j]
    expected = (1 + (near / like if like else 0)) / (1 + (far / unlike if unlike else 0))
    got = prototype_loss(torch.tensor(z_EM), torch.tensor(A_EE), torch.tensor(pairs_EE), margin)
    assert got.item() == pytest.approx(expected, rel=1e-6)


def test_no_pairs_is_a_constant_loss():
    loss = prototype_loss(torch.ones(3, 2), torch.ones(3, 3), torch.zeros(3, 3), 4.0)
    assert loss.item() == 1.0


def test_descent_draws_like_eras_together_and_unlike_ones_apart():
    torch.manual_seed(0)
    classes_E = torch.arange(20) % 2
    A_EE = (classes_E[:, None] == classes_E[None, :]).double()
    z_EM = torch.randn(20, 6, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([z_EM], lr=0.05)
    for _ in range(200):
        optimiser.zero_grad()
        prototype_loss(z_EM, A_EE, torch.ones(20, 20), 4.0).backward()
        optimiser.step()
    z = z_EM.detach()
    distance_EE = ((z[:, None] - z[None]) ** 2).mean(-1)
    assert distance_EE[A_EE > 0].mean() < 0.05 * distance_EE[A_EE == 0].mean()


def test_whitened_vectors_ignore_what_all_models_share():
    rng = np.random.default_rng(0)
    scores_EM = rng.standard_normal((40, 5))
    np.testing.assert_allclose(whiten(scores_EM + rng.standard_normal((40, 1))), whiten(scores_EM), atol=1e-9)


def test_affinity_is_one_on_the_diagonal_and_a_half_life_at_the_median():
    rng = np.random.default_rng(0)
    q_EM = rng.standard_normal((30, 4))
    A_EE = affinity(q_EM)
    np.testing.assert_allclose(np.diag(A_EE), 1.0)
    assert np.median(A_EE[np.triu_indices(30, 1)]) == pytest.approx(np.exp(-0.5), rel=1e-9)


def test_regimes_are_found_and_ordered_by_size():
    rng = np.random.default_rng(1)
    truth_E = np.repeat([0, 1, 2], [60, 30, 15])
    centres = np.array([[3.0, 0, 0, 0], [0, 3.0, 0, 0], [0, 0, 3.0, 0]])
    order_E = rng.permutation(105)
    q_EM = (centres[truth_E] + 0.3 * rng.standard_normal((105, 4)))[order_E]
    regime_E, share_EP = find_regimes(q_EM, 3)
    assert (regime_E == truth_E[order_E]).all()
    np.testing.assert_allclose(share_EP.sum(1), 1.0)
    assert (share_EP.argmax(1) == regime_E).all()


def test_fewer_eras_than_regimes_are_one_regime_each():
    regime_E, share_EP = find_regimes(np.eye(2), 4)
    assert sorted(regime_E.tolist()) == [0, 1]
    assert share_EP.shape == (2, 2)

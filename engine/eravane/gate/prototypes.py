"""The prototype loss: eras that resolved alike share gate patterns, eras that resolved unlike part.

An outcome-side affinity stands for the class label of Dynamos (arXiv 2301.00620); the statistics of the inputs would be
circular, since the policy is a function of them.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eravane.core.arrays import Floats as FloatArray

ROUNDS = 50


def find_regimes(vectors_EM: FloatArray, count: int) -> tuple[NDArray[np.int64], FloatArray]:
    """Cluster eras by k-means from a farthest-first start: regime of each era, the commonest first, and membership.

    Membership is softmax(-|q - centre|^2 / mean squared distance to the own centre), float64 [E, P]. The sums of
    scikit-learn's k-means depend on the number of threads, and with them the bytes of a run.
    """
    count = min(count, len(vectors_EM))
    centres_PM = _spread_out(vectors_EM, count)
    nearest_E = np.zeros(len(vectors_EM), dtype=np.int64)
    for _ in range(ROUNDS):
        distance_EP = ((vectors_EM[:, None] - centres_PM[None]) ** 2).sum(-1)
        nearest_E = distance_EP.argmin(axis=1)
        means = [
            vectors_EM[nearest_E == p].mean(axis=0) if (nearest_E == p).any() else centres_PM[p] for p in range(count)
        ]
        if np.array_equal(np.stack(means), centres_PM):
            break
        centres_PM = np.stack(means)
    order = np.argsort(-np.bincount(nearest_E, minlength=count), kind="stable")
    distance_EP = ((vectors_EM[:, None] - centres_PM[order][None]) ** 2).sum(-1)
    width = max(float(distance_EP.min(axis=1).mean()), 1e-12)
    share_EP = np.exp(-(distance_EP - distance_EP.min(axis=1, keepdims=True)) / width)
    return distance_EP.argmin(axis=1), share_EP / share_EP.sum(axis=1, keepdims=True)


def _spread_out(vectors_EM: FloatArray, count: int) -> FloatArray:
    """Start at the era nearest to the mean, then always take the era farthest from those taken."""
    first = ((vectors_EM - vectors_EM.mean(axis=0)) ** 2).sum(axis=1).argmin()
    chosen = [int(first)]
    while len(chosen) < count:
        distance_EP = ((vectors_EM[:, None] - vectors_EM[chosen][None]) ** 2).sum(-1)
        chosen.append(int(distance_EP.min(axis=1).argmax()))
    return vectors_EM[chosen]


def whiten(scores_EM: FloatArray) -> FloatArray:
    """Row-centred score vectors [E, M], whitened by their Ledoit-Wolf covariance (Ledoit and Wolf, 2004)."""
    from sklearn.covariance import ledoit_wolf

    centred_EM = scores_EM - scores_EM.mean(axis=1, keepdims=True)
    centred_EM = centred_EM - centred_EM.mean(axis=0)
    if len(centred_EM) < 2:
        return np.asarray(centred_EM)  # zeros: one era has no covariance, and scikit-learn warns of it
    values, vectors = np.linalg.eigh(ledoit_wolf(centred_EM, assume_centered=True)[0])
    floor = max(float(values.max()), 1e-12) * 1e-3
    return np.asarray(centred_EM @ vectors / np.sqrt(np.maximum(values, floor)))


def affinity(vectors_EM: FloatArray) -> FloatArray:
    """Similarity of eras, exp(-|q_i - q_j|^2 / 2 h^2) [E, E], h the median distance of distinct eras."""
    square_E = (vectors_EM**2).sum(axis=1)
    distance_EE = np.maximum(square_E[:, None] + square_E[None, :] - 2 * vectors_EM @ vectors_EM.T, 0.0)
    upper = distance_EE[np.triu_indices(len(vectors_EM), 1)]
    width = np.median(upper) if len(upper) and np.median(upper) > 0 else 1.0
    return np.asarray(np.exp(-distance_EE / (2 * width)))


def prototype_loss(logits_EM: Tensor, affinity_EE: Tensor, pairs_EE: Tensor, margin: float) -> Tensor:
    """Pull like eras together, push unlike ones apart up to a margin; means, so that it does not depend on E.

    L = (1 + sum A d / sum A) / (1 + sum (1 - A) min(d, margin) / sum (1 - A)), d = |z_i - z_j|^2 / M, over `pairs_EE`.

    Args:
        logits_EM: [..., E, M], standardised gate logits z.
        affinity_EE: [E, E] in [0, 1]; pairs_EE: [E, E], 1 where a pair counts.
        margin: distance beyond which unlike eras repel no more.
    """
    distance_EE = squared_distances(logits_EM) / logits_EM.shape[-1]
    like_EE, unlike_EE = affinity_EE * pairs_EE, (1 - affinity_EE) * pairs_EE
    near = (like_EE * distance_EE).sum((-2, -1)) / like_EE.sum((-2, -1)).clamp_min(1e-9)
    far = (unlike_EE * distance_EE.clamp_max(margin)).sum((-2, -1)) / unlike_EE.sum((-2, -1)).clamp_min(1e-9)
    return (1 + near) / (1 + far)


def dynamos_prototype_loss(logits_ND: Tensor, classes_N: Tensor, right_N: Tensor) -> Tensor:
    """The literal prototype loss of Dynamos: sums over pairs of correctly classified samples, no margin.

    L = (1 + sum same |z_i - z_j|^2 / D) / (1 + sum other |z_i - z_j|^2 / D), i < j.

    Args:
        logits_ND: [..., N, D], unstandardised gate logits.
        classes_N: class of each sample; right_N: bool [..., N], which were classified correctly.
    """
    pairs_NN = (right_N.unsqueeze(-1) & right_N.unsqueeze(-2)).to(logits_ND.dtype).triu(1)
    distance_NN = squared_distances(logits_ND) / logits_ND.shape[-1] * pairs_NN
    same_NN = (classes_N[:, None] == classes_N[None, :]).to(logits_ND.dtype)
    return (1 + (same_NN * distance_NN).sum((-2, -1))) / (1 + ((1 - same_NN) * distance_NN).sum((-2, -1)))


def squared_distances(points_ND: Tensor) -> Tensor:
    """Squared Euclidean distances between all points [..., N, N]."""
    square_N = (points_ND**2).sum(-1)
    cross_NN = points_ND @ points_ND.transpose(-2, -1)
    return (square_N.unsqueeze(-1) + square_N.unsqueeze(-2) - 2 * cross_NN).clamp_min(0.0)


def standardise(logits_EM: Tensor) -> Tensor:
    """Logits with mean 0 and standard deviation 1 over eras and models."""
    centred = logits_EM - logits_EM.mean((-2, -1), keepdim=True)
    return centred / torch.sqrt((centred**2).mean((-2, -1), keepdim=True) + 1e-4)

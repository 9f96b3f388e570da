"""The shared scorer: its gates, its symmetry, its determinism, and what its training reaches."""

from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pytest
import torch

from eravane.core.config import GateConfig
from eravane.gate.scorer import AdamW, Batch, Scorer, Trainer, masked_softmax, open_one, parameters
from eravane.gate.training import Training


def test_masked_softmax_is_softmax_over_the_open_models():
    logits = torch.tensor([1.0, 50.0, -2.0, 0.0])
    weights = masked_softmax(logits, torch.tensor([1.0, 0.0, 1.0, 1.0]))
    expected = torch.softmax(logits[[0, 2, 3]], 0)
    torch.testing.assert_close(weights[[0, 2, 3]], expected)
    assert weights[1] == 0


def test_the_likeliest_present_model_opens_where_every_gate_is_closed():
    nothing = torch.zeros(1, 3)
    opened = open_one(nothing, torch.tensor([[0.1, 3.0, 9.0]]), torch.tensor([[1.0, 1.0, 0.0]]))
    assert opened.tolist() == [[0, 1, 0]]


def batch_of(seed=0, eras=30, models=6, inputs=5, context=2):
    rng = np.random.default_rng(seed)
    level_M = np.where(np.arange(models) < models // 2, 0.03, -0.01)
    affinity_EE = rng.random((eras, eras))
    as_tensor = lambda values: torch.as_tensor(values, dtype=torch.float64)  # noqa: E731
    return Batch(
        x_EMF=as_tensor(rng.standard_normal((eras, models, inputs))),
        context_ED=as_tensor(rng.standard_normal((eras, context))),
        c_EM=as_tensor(level_M + 0.01 * rng.standard_normal((eras, models))),
        C_EMM=as_tensor(np.tile(0.3 + 0.7 * np.eye(models), (eras, 1, 1))),
        present_EM=torch.ones(eras, models, dtype=torch.float64),
        affinity_EE=as_tensor((affinity_EE + affinity_EE.T) / 2),
        regime_E=torch.arange(eras) % 3,
        era_E=torch.arange(eras),
        scale=0.02,
    )


def trained(config, batch, seed=0, agents=None, lag=6, rate=Training.rate):
    agents = torch.ones(batch.x_EMF.shape[1], 1).double() if agents is None else agents
    scorer = Scorer(
        batch.x_EMF.shape[2] - 1, batch.x_EMF.shape[2], batch.context_ED.shape[1], agents.shape[1], config, seed
    )
    Trainer(config, agents, lag).fit(scorer, batch, steps=config.steps, rate=rate, seed=seed, warm=False)
    return scorer, agents


def test_permuting_the_models_permutes_gates_and_weights():
    batch = batch_of()
    agents = torch.eye(2).double()[torch.tensor([0, 1, 0, 1, 0, 1])]
    scorer, _ = trained(GateConfig(seeds=2, steps=5), batch, agents=agents)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    with torch.no_grad():
        plain = scorer(batch.x_EMF, batch.context_ED, agents)
        moved = scorer(batch.x_EMF[:, order], batch.context_ED, agents[order])
    for before, after in zip(plain, moved, strict=True):
        torch.testing.assert_close(after, before[:, :, order])


def test_the_gate_head_cannot_see_late_inputs():
    batch = batch_of()
    scorer, agents = trained(GateConfig(seeds=2, steps=5), batch)
    changed = batch.x_EMF.clone()
    changed[..., -1] += 10.0
    with torch.no_grad():
        gates, weights = scorer(batch.x_EMF, batch.context_ED, agents)
        same_gates, other_weights = scorer(changed, batch.context_ED, agents)
    assert torch.equal(gates, same_gates)
    assert not torch.equal(weights, other_weights)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"reward": "dynamos"},
    ],
)
def test_training_is_bit_identical_for_a_seed_and_any_number_of_threads(changes):
    config = GateConfig(seeds=2, steps=6, **changes)
    first = parameters(trained(config, batch_of())[0])
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    second = parameters(trained(config, batch_of())[0])
    torch.set_num_threads(threads)
    assert all(np.array_equal(first[name], second[name]) for name in first)
    third = parameters(trained(config, batch_of(), seed=1)[0])
    assert not np.array_equal(first["scorer.weight_hidden"], third["scorer.weight_hidden"])


def identity_batch(models, eras=40):
    """A model's inputs are its own name, so that the shared scorer can hold any state-free gate."""
    batch = batch_of(models, eras=eras, models=models, inputs=models + 1)
    x_EMF = torch.zeros_like(batch.x_EMF)
    x_EMF[:, :, :models] = torch.eye(models)
    return Batch(**{**vars(batch), "x_EMF": x_EMF, "context_ED": torch.zeros_like(batch.context_ED)})


@pytest.mark.parametrize("models", [4, 9])
def test_training_reaches_the_best_of_all_masks(models, monkeypatch):
    batch = identity_batch(models)
    plain = Training(noise=0.0, prototype_weight=0.0, decay=0.0)
    monkeypatch.setattr(Training, "of", lambda config: plain)
    config = GateConfig(seeds=1, steps=400)
    scorer, agents = trained(config, batch, rate=0.03)
    trainer = Trainer(config, agents, 6)
    masks = torch.tensor(list(itertools.product([0.0, 1.0], repeat=models))[1:]).double()
    with torch.no_grad():
        gate_SEM, weight_SEM = scorer(batch.x_EMF, batch.context_ED, agents)
        mean = [trainer.reward(mask.expand_as(gate_SEM), weight_SEM, batch).mean().item() for mask in masks]
        reached = trainer.reward((gate_SEM >= 0).double(), weight_SEM, batch).mean().item()
    assert reached >= max(mean) - 0.01 * abs(max(mean))


def test_the_optimiser_is_torchs_to_the_bit():
    generator = torch.Generator().manual_seed(3)
    shapes = [(3, 7), (5,), (2, 1, 4)]
    ours, theirs = ([torch.nn.Parameter(torch.ones(shape, dtype=torch.float64)) for shape in shapes] for _ in range(2))
    steppers = [AdamW(ours, 0.03, 0.2), torch.optim.AdamW(theirs, lr=0.03, weight_decay=0.2)]
    for turn in range(40):
        gradients = [
            torch.randn(shape, generator=generator, dtype=torch.float64) * 10.0 ** (turn % 5) for shape in shapes
        ]
        for stepper, parameters_ in zip(steppers, (ours, theirs), strict=True):
            stepper.zero_grad()
            for one, gradient in zip(parameters_, gradients, strict=True):
                one.grad = gradient.clone()
            stepper.step()
        for one, other in zip(ours, theirs, strict=True):
            assert torch.equal(one, other)


def test_training_does_not_import_torchs_compiler():
    program = """
import sys, torch
from eravane.gate.scorer import AdamW
one = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
(one ** 2).sum().backward()
AdamW([one], 0.1, 0.1).step()
assert float(one.detach()[0]) < 1
print("torch._dynamo" in sys.modules)
"""
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"

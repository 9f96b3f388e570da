"""The namespaces of kernels: the names and signatures of the protocol that the engine is written against."""

from __future__ import annotations

import inspect
from types import ModuleType

import pytest

import eravane_kernels.cpu
import eravane_kernels.cuda
import eravane_kernels.spec
from eravane_kernels.namespace import Kernels

NAMES = [name for name in vars(Kernels) if not name.startswith("_")]


@pytest.mark.parametrize("module", [eravane_kernels.spec, eravane_kernels.cpu, eravane_kernels.cuda])
@pytest.mark.parametrize("name", NAMES)
def test_every_namespace_takes_the_same_arguments(module: ModuleType, name: str) -> None:
    wanted = list(inspect.signature(getattr(Kernels, name)).parameters.values())[1:]
    found = list(inspect.signature(getattr(module, name)).parameters.values())
    assert [(entry.name, entry.default, entry.kind) for entry in found] == [
        (entry.name, entry.default, entry.kind) for entry in wanted
    ]


@pytest.mark.parametrize("module", [eravane_kernels.cpu, eravane_kernels.cuda])
@pytest.mark.parametrize("name", ["add_trees", "grow_tree"])
def test_trees_are_grown_and_evaluated_by_the_same_arguments(module: ModuleType, name: str) -> None:
    wanted, found = (inspect.signature(getattr(owner, name)).parameters for owner in (eravane_kernels.spec, module))
    assert [(entry.name, entry.default) for entry in found.values()] == [
        (entry.name, entry.default) for entry in wanted.values()
    ]

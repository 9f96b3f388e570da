"""Compiling kernels beforehand: after it nothing is left to compile for a run or an estimator."""

from __future__ import annotations

import pytest

from eravane.pipeline import warm


def test_it_runs_a_batch_and_fits_an_estimator(monkeypatch: pytest.MonkeyPatch) -> None:
    called = list[str]()
    real = warm.run

    def counted(*args: object, **options: object) -> object:
        called.append("run")
        return real(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(warm, "run", counted)
    monkeypatch.setattr(warm, "fit_estimators", lambda: called.append("fit"))
    assert warm.warm() > 0
    assert called == ["run", "fit"]


def test_the_estimators_of_the_warm_up_fit() -> None:
    warm.fit_estimators()

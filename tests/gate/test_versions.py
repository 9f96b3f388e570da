"""What the newest version would have scored in past eras, against scoring it there."""

from __future__ import annotations

import numpy as np
import pytest

from eravane.core.errors import LayoutError
from eravane.core.layout import Layout
from eravane.gate.versions import Version, Versions, VersionScores

MODELS, WIDTH, ROWS, VERSIONS, LENGTH = 4, 8, 4_000, 6, 20


def world(seed=0, drift=0.35):
    """Linear models of 8 features that are refitted every 20 eras; features' covariances with the target by era."""
    rng = np.random.default_rng(seed)
    weights_VMF = [rng.standard_normal((MODELS, WIDTH))]
    for _ in range(VERSIONS - 1):
        moved = weights_VMF[-1] + drift * rng.standard_normal((MODELS, WIDTH))
        weights_VMF.append(moved)
    weights_VMF = np.array(weights_VMF)
    weights_VMF /= np.linalg.norm(weights_VMF, axis=2, keepdims=True)
    cov_EF = 0.02 * rng.standard_normal((VERSIONS * LENGTH, WIDTH))
    z_VMR = (weights_VMF @ rng.standard_normal((WIDTH, ROWS))).astype(np.float32)
    return weights_VMF, cov_EF, z_VMR


def filled(weights_VMF, cov_EF, z_VMR):
    versions, c_EM = Versions(), []
    for v in range(VERSIONS):
        versions.add(Version(v * LENGTH, {0: z_VMR[v, :, : ROWS // 2], 1: z_VMR[v, :, ROWS // 2 :]}))
        for era in range(v * LENGTH, (v + 1) * LENGTH):
            at = versions.at(era)
            assert at == (0, 1, 2, 3, 4, 5)[: v + 1] if v < 3 else (0, v - 2, v - 1, v)
            versions.score(era, VersionScores(at, weights_VMF[list(at)] @ cov_EF[era]))
            c_EM.append(weights_VMF[v] @ cov_EF[era])
    return versions, np.array(c_EM)


def test_the_projection_is_close_to_what_the_newest_version_scores():
    weights_VMF, cov_EF, z_VMR = world()
    versions, c_EM = filled(weights_VMF, cov_EF, z_VMR)
    projected_EM = versions.project(range(len(c_EM)), c_EM)
    true_EM = cov_EF @ weights_VMF[-1].T
    old = slice(0, (VERSIONS - 1) * LENGTH)

    def fit(found_EM):
        return np.corrcoef(found_EM[old].ravel(), true_EM[old].ravel())[0, 1]

    assert fit(projected_EM) > 0.95
    assert fit(c_EM) < 0.85
    assert np.array_equal(projected_EM[(VERSIONS - 1) * LENGTH :], c_EM[(VERSIONS - 1) * LENGTH :])


def test_the_projection_is_the_regression_on_the_version_scores_of_the_era():
    weights_VMF, cov_EF, z_VMR = world(seed=3)
    versions, c_EM = filled(weights_VMF, cov_EF, z_VMR)
    era = 3 * LENGTH + 4
    z = np.concatenate([z_VMR[v] for v in (1, 2, 3)]).astype(np.float64)
    y_KR = np.concatenate([weights_VMF[v] @ cov_EF[era] for v in (1, 2, 3)])
    ridge = z @ z.T / ROWS + 0.1 * np.eye(len(z))
    expected = (z_VMR[-1].astype(np.float64) @ z.T / ROWS) @ np.linalg.solve(ridge, y_KR)
    np.testing.assert_allclose(versions.project(range(len(c_EM)), c_EM)[era], expected, atol=1e-6)


def test_without_versions_scores_or_common_rows_scores_stay():
    weights_VMF, cov_EF, z_VMR = world()
    c_EM = cov_EF @ weights_VMF[0].T
    assert np.array_equal(Versions().project(range(len(c_EM)), c_EM), c_EM)
    versions = Versions()
    versions.add(Version(0, {0: z_VMR[0]}))
    versions.add(Version(50, {1: z_VMR[1]}))
    versions.score(3, VersionScores((0,), c_EM[3][None]))
    assert np.array_equal(versions.project(range(len(c_EM)), c_EM), c_EM)


def test_where_the_newest_version_was_scored_itself_that_counts():
    weights_VMF, cov_EF, z_VMR = world()
    versions, c_EM = filled(weights_VMF, cov_EF, z_VMR.astype(np.float16))
    projected_EM = versions.project(range(len(c_EM)), c_EM)
    past = {era: cov_EF[era] @ weights_VMF[-1].T for era in (3, 7)}
    past[7][1] = np.nan  # this model was not trained anew
    versions.kept[-1] = Version(versions.kept[-1].start, versions.kept[-1].z, past)
    found_EM = versions.project(range(len(c_EM)), c_EM)
    assert np.array_equal(found_EM[3], past[3])
    assert np.array_equal(found_EM[7], [past[7][0], projected_EM[7, 1], *past[7][2:]])
    others = [era for era in range(len(c_EM)) if era not in past]
    assert np.array_equal(found_EM[others], projected_EM[others])
    back = Versions()
    back.load(Layout(versions.arrays()))
    assert np.allclose(back.project(range(len(c_EM)), c_EM)[[3, 7]], found_EM[[3, 7]])
    versions.freeze(versions.kept[-1].z)
    assert versions.kept[-1].past.keys() == past.keys()
    versions.add(Version(len(c_EM), versions.kept[-1].z))
    assert not any(version.past for version in versions.kept)


def test_the_first_version_has_a_history_that_no_refit_breaks():
    weights_VMF, cov_EF, z_VMR = world()
    versions, c_EM = filled(weights_VMF, cov_EF, z_VMR)
    before_EM = np.full((2, MODELS), 0.5)  # out of fold, before any version
    at = versions.at(30)
    paid_KM = weights_VMF[list(at)] @ cov_EF[30]
    paid_KM[0, 1] = np.nan  # this model predicted nothing
    versions.score(30, VersionScores(at, paid_KM))
    found_EM = versions.first([-2, -1, *range(len(c_EM))], np.concatenate([before_EM, c_EM]))
    expected_EM = cov_EF @ weights_VMF[0].T
    expected_EM[30, 1] = c_EM[30, 1]
    np.testing.assert_allclose(found_EM, np.concatenate([before_EM, expected_EM]))
    z_MR = z_VMR[0].astype(np.float64)
    np.testing.assert_allclose(versions.first_MM, z_MR @ z_MR.T / ROWS, rtol=1e-5, atol=1e-6)
    assert Versions().first_MM is None
    alone = Versions()
    alone.add(versions.kept[0])
    assert alone.first_MM is None


def test_past_eras_of_no_version_are_refused():
    arrays = {"versions.start": np.zeros(0, dtype=np.int64), "versions.past.era": np.array([3])}
    with pytest.raises(LayoutError, match="there is none"):
        Versions().load(Layout(arrays | {"versions.past.paid": np.zeros((1, MODELS))}))


def test_a_model_without_predictions_says_nothing_and_state_survives_the_disk():
    weights_VMF, cov_EF, z_VMR = world()
    versions, c_EM = filled(weights_VMF, cov_EF, z_VMR.astype(np.float16))
    missing = weights_VMF[:1] @ cov_EF[5]
    missing[0, 2] = np.nan
    versions.score(5, VersionScores((0,), missing))
    projected_EM = versions.project(range(len(c_EM)), c_EM)
    assert np.isfinite(projected_EM).all()
    back = Versions()
    back.kept = list(versions.kept)
    back.load(Layout(versions.arrays()))
    assert np.array_equal(back.project(range(len(c_EM)), c_EM), projected_EM)

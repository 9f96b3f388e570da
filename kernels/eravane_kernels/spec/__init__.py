"""Specification of the kernels in plain NumPy, written for readability."""

from __future__ import annotations

from eravane_kernels.spec.context import dispersion, gram, group_structure, mean_products
from eravane_kernels.spec.cross_section import (
    contribution,
    exposure,
    feature_neutral_corr,
    gaussianize,
    neutralize,
    numerai_corr,
    rank,
)
from eravane_kernels.spec.forest import LEAF, add_leaves, add_trees
from eravane_kernels.spec.growth import grow_tree
from eravane_kernels.spec.leaves import renew_leaves
from eravane_kernels.spec.missing import fill, fill_values, knn_impute, missing_indicators
from eravane_kernels.spec.mixing import mix
from eravane_kernels.spec.outliers import apply_table, clip, clip_bounds
from eravane_kernels.spec.placing import place_columns
from eravane_kernels.spec.statistics import era_stats, float_stats, level_counts, level_stats
from eravane_kernels.tables import clip_table, compose_tables, fill_table, missing_eras

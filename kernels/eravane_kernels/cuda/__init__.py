"""The kernels on a GPU: CuPy, and the CUDA C++ of `cu/*.cu`.

The functions of `eravane_kernels.spec` under the same names and signatures. Arrays are CuPy's, or NumPy's, which are
uploaded; results stay on the device. CuPy is imported at the first call, kernels are compiled at their first use, once
per process and device (CuPy keeps them on disk). Devices of compute capability 8.0 and more.

Every result is bit-reproducible, and no era's result depends on the other eras of a call, but for what cuBLAS and
cuSOLVER compute.
"""

from __future__ import annotations

from eravane_kernels.cuda.context import dispersion, gram, group_structure, mean_products
from eravane_kernels.cuda.cross_section import gaussianize, numerai_corr, rank
from eravane_kernels.cuda.forest import add_trees
from eravane_kernels.cuda.growth import grow_tree
from eravane_kernels.cuda.leaves import renew_leaves
from eravane_kernels.cuda.missing import fill, fill_table, fill_values, missing_eras, missing_indicators
from eravane_kernels.cuda.mixing import mix
from eravane_kernels.cuda.neighbours import knn_impute
from eravane_kernels.cuda.outliers import apply_table, clip, clip_bounds, clip_table, compose_tables
from eravane_kernels.cuda.placing import place_columns
from eravane_kernels.cuda.projection import contribution, exposure, feature_neutral_corr, neutralize
from eravane_kernels.cuda.statistics import era_stats, float_stats, level_counts, level_stats

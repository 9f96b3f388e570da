"""The kernels at the speed of one CPU core, equal to their specification.

Arrays are checked and never copied as a whole; every function runs on one thread and releases the GIL, so callers may
use threads. Results do not depend on them, but for the last bits of matrix products, which follow the threads of BLAS.
The first call of a function compiles it, once: Numba keeps it on disk.
"""

from __future__ import annotations

from eravane_kernels.cpu.bounds import clip_bounds, fill_values
from eravane_kernels.cpu.cells import apply_table, clip, fill, missing_indicators
from eravane_kernels.cpu.context import dispersion, gram, group_structure, mean_products
from eravane_kernels.cpu.counts import level_counts, level_stats
from eravane_kernels.cpu.floats import float_stats
from eravane_kernels.cpu.forest import add_leaves, add_trees
from eravane_kernels.cpu.growth import grow_tree
from eravane_kernels.cpu.leaves import renew_leaves
from eravane_kernels.cpu.neighbours import knn_impute
from eravane_kernels.cpu.projection import exposure, feature_neutral_corr, neutralize
from eravane_kernels.cpu.scores import contribution, gaussianize, numerai_corr, rank
from eravane_kernels.cpu.statistics import era_stats
from eravane_kernels.spec.mixing import mix
from eravane_kernels.tables import clip_table, compose_tables, fill_table, missing_eras

"""The steps of `gpu`: what each does, how long it is expected to take, and what was predicted of its figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Sizes = Literal["full", "quick", "tiny"]
START_SECONDS = 12
"""A process of its own, CuPy's context and the libraries imported; once for all steps."""


@dataclass(frozen=True)
class Step:
    """One step, independent of the others.

    Attributes:
        name: of the step.
        what: it does, for people.
        job: `module:function`, called with a `Lab`, giving checks and figures.
        expected: seconds at each of the sizes "full", "quick" and "tiny" (the last on a stand-in, two slow cores).
        needs: modules without which it is skipped.
    """

    name: str
    what: str
    job: str
    expected: tuple[float, float, float]
    needs: tuple[str, ...] = ()

    def seconds(self, sizes: Sizes) -> float:
        """How long it is expected to take."""
        return self.expected[("full", "quick", "tiny").index(sizes)]

    def limit(self, sizes: Sizes) -> float:
        """Seconds after which it is ended: three times what is expected; a minute at least, on a stand-in three."""
        return max(180.0 if sizes == "tiny" else 60.0, 3 * self.seconds(sizes))


_TESTS, _TREES = ("pytest", "hypothesis"), ("xgboost",)


def _moved(full: float, quick: float, fixed: float, rate: float) -> tuple[float, float, float]:
    """Seconds of a step that moves so many gigabytes at a rate (GB/s), beside what does not depend on them."""
    return fixed + full / rate, fixed + quick / rate, 10.0


# Fixed parts: kernels of CuPy's own compiled at first use (0.17 s each), Numba's for the twin (8 s), the CPU's peers.
STEPS = (
    Step("preflight", "import everything, compile a kernel, train ten rows", "gpu_checks:preflight", (15, 15, 15)),
    Step("environment", "list GPU, driver and libraries, and what is missing", "gpu_checks:environment", (6, 6, 6)),
    Step("bandwidth", "measure copies within the device and to it", "gpu_kernels:bandwidth", _moved(90, 45, 3, 30)),
    Step(
        "kernel-tests", "run tests/kernels marked gpu: kernels, specification", "gpu_checks:kernel_tests",
        (150, 110, 60), _TESTS,
    ),
    # 24 GB of levels drawn at 20 GB/s, read fifteen times; an eighth of that quick; and two twins on a core.
    Step(
        "statistics", "measure statistics at v5.3's size beside the CPU twin", "gpu_kernels:statistics",
        _moved(24 + 15 * 0.2, 3, 20, 1),
    ),
    Step("tables", "measure imputing and clipping levels at v5.3's size", "gpu_kernels:tables", _moved(24, 3, 16, 1)),
    Step("scores", "measure CORR and ranks of 36 models over all eras", "gpu_kernels:scores", (40, 18, 10)),
    Step(
        "levels", "measure the level grower: widths, several models at once, the example model; and trees that predict",
        "gpu_growth:levels", _moved(9.6 + 2.1 + 1 + 20, 4.8 + 5, 42, 1),
    ),
    Step(
        "widths", "measure matrices, trees and memory at 3,555, 780, 355 and 42 columns", "gpu_trees:widths",
        (110, 48, 12), _TREES,
    ),
    Step(
        "boosters", "compare XGBoost on the GPU with the CPU, and two GPU runs", "gpu_checks:boosters", (60, 28, 10),
        _TREES,
    ),
    Step("engine-tests", "run tests marked gpu of backend and engine", "gpu_checks:engine_tests", (80, 60, 40), _TESTS),
    Step("example", "time trees of the example model beside levels and Falcata", "gpu_trees:example", (150, 45, 15),
         _TREES),
    Step("sampling", "compare ways to sample columns, at held-out scores", "gpu_trees:sampling", (90, 40, 15), _TREES),
    Step("projections", "measure neutralisation and nearest-neighbour imputation", "gpu_kernels:projections",
         (90, 40, 15)),
    Step("meta", "measure the meta-learner's training", "gpu_kernels:meta", (90, 35, 20), ("torch",)),
    Step("zoo", "train a zoo through the engine, with energy and utilisation", "gpu_trees:zoo", (250, 110, 25), _TREES),
    Step("together", "train small models in two processes on one GPU", "gpu_trees:together", (90, 45, 30), _TREES),
    Step("loading", "compare ingest by cuDF with ingest by Arrow", "gpu_checks:loading", (60, 25, 15), ("pylibcudf",)),
    Step(
        "cluster", "train three cells on a LocalCUDACluster of one worker, byte for byte", "gpu_checks:cluster",
        (50, 40, 40), ("xgboost", "distributed", "dask_cuda"),
    ),
    Step("demo", "run the demo on GPU and CPU", "gpu_checks:demo", (240, 90, 120), ("xgboost", "plotly")),
)  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """Steps for one visit to a GPU.

    Attributes:
        steps: their names, in order.
        budget: seconds that they may take in all.
    """

    steps: tuple[str, ...]
    budget: int


# What matters most comes first: a step for which no time is left is not begun.
PLANS: Mapping[str, Plan] = {
    "A": Plan(
        ("preflight", "kernel-tests", "statistics", "levels", "boosters", "engine-tests", "demo", "scores", "widths"),
        540,
    ),
    "B": Plan(("preflight", "cluster", "projections", "meta", "tables", "example"), 240),
}


def step_named(name: str) -> Step:
    """A step by its name."""
    return next(step for step in STEPS if step.name == name)


# Written before any GPU was measured: on 2026-11-26 for an H100 SXM and the full sizes, on 2026-11-28 for the H200
# of a visit (copies at 4.3 TB/s) where kernels had changed. Kernels: 85 % of the copy; level grower: docs/gpu.md;
# XGBoost's trees and matrices: `eravane.planning.rates.H100`; others as docs/cost.md and the remarks say.
PREDICTED: Mapping[str, tuple[float, str]] = {
    "device_copy": (4300.0, "90 % of 4.8 TB/s"),
    "upload_pinned": (50.0, "PCIe 5 x16 less its protocol"),
    "upload_pageable": (10.0, "a copy into a pinned buffer by one core first"),
    "level_counts": (3650.0, "85 % of the copy: stretches by bulk copies"),
    "era_stats": (3500.0, "one launch; 104 bytes written a run are 2 % of what is read"),
    "era_stats_vs_cpu_twin": (100.0, "15 GB/s on a core"),
    "era_stats_vs_cudf": (300.0, "cuDF sorts"),
    "era_stats_with_upload": (30.0, "pinned staging by one core bounds it"),
    "apply_table": (3400.0, "80 % of the copy"),
    "impute_levels": (3000.0, "three passes; tables by a kernel"),
    "apply_table_vs_cpu_twin": (150.0, "7 GB/s on a core"),
    "numerai_corr": (18.0, "14 ms of sorting in shared memory; powers of the labels are kept"),
    "numerai_corr_vs_cpu_twin": (70.0, "1.3 s on a core"),
    "rank": (40.0, "sorts as CORR does, writes float64"),
    "gaussianize": (45.0, "a table lookup more"),
    "neutralize_780": (6.0, "5 ms an era: Gram and factor in float64, four products"),
    "neutralize_3555": (25.0, "20 ms an era: 1.4e11 operations of float64 at 30 T/s, four products"),
    "neutralize_3555_vs_cpu_twin": (50.0, "one core"),
    "knn_impute": (1.0, "distances by float64 products, sorts"),
    "matrix_3555": (1.5, "rates.H100 at 2.7M rows"),
    "matrix_780": (0.37, "rates.H100 at 2.7M rows"),
    "tree_3555": (240.0, "rates.H100 at 2.7M rows"),
    "tree_780": (54.0, "rates.H100 at 2.7M rows"),
    "tree_355": (25.0, "rates.H100 at 2.7M rows"),
    "tree_42": (4.1, "rates.H100 at 2.7M rows"),
    "zoo_v5.3": (122.0, "rates.H100; the aim of 15 minutes is out of reach of stock XGBoost"),
    "matrix_reference_gain": (2.0, "as on the CPU"),
    "tree_all_columns": (51.0, "rates.H100 at 1M x 2,000"),
    "tree_stock_sampling": (51.0, "XGBoost builds histograms of all columns"),
    "tree_of_subset_matrix": (95.0, "a tenth of the tree, and a matrix for it"),
    "era_by_trees_of_depth_5": (0.1, "63 rounds of 10 dependent reads and 32 sums; cu/forest.cu"),
    "era_by_trees_of_depth_10": (0.2, "twice the reads; 65 MB of nodes, more than the L2 holds"),
    "leaves_of_two_models": (7.0, "28 tiles of 4,500 cycles a tree, models beside each other; cu/leaves.cu"),
    "levels_tree_3555": (1.3, "docs/gpu.md at two thirds of its bounds, and gradients"),
    "levels_tree_780": (0.7, "likewise; 7 of 32 lanes work on the second tile of a record of 39 bytes"),
    "levels_tree_355": (0.5, "rows' own bytes"),
    "levels_tree_42": (0.3, "26 nodes of a graph"),
    "levels_tree_all_columns": (2.4, "packed once for all trees; bound by __dp4a, 1.6 ms"),
    "levels_together_gain": (1.2, "packing is shared, counting is not, and launches are one graph either way"),
    "levels_zoo_v5.3": (3.5, "from the four widths, most cells narrow"),
    "example_model_levels": (5.5, "2.6 ms a tree"),
    "example_model_levels_linearity": (1.0, "nothing grows with the number of trees"),
    "example_model_levels_gain": (100.0, "970 s by 9 s; 30 if XGBoost takes what it took on an RTX 5090"),
    "tree_level_grower": (1.0, "200 columns of a million rows, launches, and the model's writing"),
    "example_model": (970.0, "rates.H100; an RTX 5090 was published with 286 s, so the rates may be too cautious"),
    "two_processes_gain": (1.3, "launches overlap, the histograms do not"),
    "meta_refit": (2.5, "small networks: launches bound it as Python does on the CPU"),
    "meta_era": (0.1, "likewise"),
    "zoo_small": (60.0, "matrices and predictions on the host"),
    "zoo_small_levels": (25.0, "predictions on the host and uploads, the trees are few seconds"),
    "demo_of_levels": (25.0, "as the demo of this size, its trees aside"),
    "loop_era": (0.2, "the gate's networks and the context's launches"),
    "demo": (120.0, "the CPU's time less its trees"),
}

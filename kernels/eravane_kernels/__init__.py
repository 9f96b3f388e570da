"""Array operations of the engine on columns x rows with era offsets.

Three namespaces hold the same functions under the same signatures: `spec` (NumPy, the specification), `cpu` (the
fast twin) and `cuda` (CuPy and the kernels of `cu/*.cu`). `Stats` is what the statistics return. Importing this
package imports neither Numba nor CuPy.

Shape letters: E eras, N rows, C columns, L level counters, Q quantiles, M models, F features, G groups.
"""

from __future__ import annotations

from eravane_kernels.stats import Stats

__all__ = ["Stats"]

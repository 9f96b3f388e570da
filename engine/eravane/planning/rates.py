"""Time per unit of work: measured rates of a CPU core, predicted rates of a GPU."""

from __future__ import annotations

from dataclasses import dataclass

# Rows are held against all splits of trees up to this depth, and walked down deeper ones (`eravane_kernels.cpu.walk`).
SHALLOW = 7


@dataclass(frozen=True)
class Rates:
    """Seconds of one worker that grows trees.

    Attributes:
        name: the worker, and whether its rates were measured or predicted.
        cell, column, matrix: to bin a matrix, per cell, per column, and once.
        visit: per cell that a level's histogram reads.
        row_level: per row and level: gradients, partition.
        node_column: per node and column: finding the split.
        tree: per tree.
        context: of an era, per [row x column of the thinned cells squared, that squared, cell of the store, era].
        renew: re-estimating leaf values, per row x tree x level; three times that where trees are deep.
    """

    name: str
    cell: float
    column: float
    matrix: float
    visit: float
    row_level: float
    node_column: float
    tree: float
    context: tuple[float, float, float, float]
    renew: float

    def to_bin(self, rows: int, columns: int) -> float:
        """Seconds to build a quantile matrix."""
        return rows * columns * self.cell + columns * self.column + self.matrix

    def to_grow(self, rows: int, columns: int, depth: int) -> float:
        """Seconds to grow a tree: the root reads all rows, each level below the smaller half of them."""
        visits = rows * columns * (1 + (depth - 1) / 2)
        return (
            visits * self.visit
            + rows * depth * self.row_level
            + float(2**depth) * columns * self.node_column
            + self.tree
        )


# docs/cost.md derives these; in the order of the attributes.
_CPU_CONTEXT, _H100_CONTEXT = (2.6e-12, 1.1e-8, 9.1e-9, 3.6e-3), (1.0e-13, 1.0e-9, 1.0e-10, 2.0e-2)
_CPU_RENEW, _H100_RENEW = 4.5e-9, 4.5e-10
_CPU, _H100 = "a CPU core (Intel Xeon)", "an NVIDIA H100"
_LEVELS, _GUESSED = "that grows by levels", "predicted and not yet measured"
CPU_CORE = Rates(f"{_CPU}, measured", 4.0e-8, 4.2e-5, 2.2e-3, 5.8e-10, 3.7e-9, 3.5e-8, 6.5e-5, _CPU_CONTEXT, _CPU_RENEW)
LEVELS_CORE = Rates(
    f"{_CPU} {_LEVELS}, measured", 5.7e-11, 3.7e-6, 0.0, 2.3e-10, 1.6e-9, 1.6e-7, 5.9e-5, _CPU_CONTEXT, _CPU_RENEW
)
H100 = Rates(
    f"{_H100}, {_GUESSED}", 1.3e-10, 5.0e-5, 5.0e-2, 8.3e-12, 2.0e-11, 1.0e-10, 1.0e-3, _H100_CONTEXT, _H100_RENEW
)
LEVELS_H100 = Rates(
    f"{_H100} {_LEVELS}, {_GUESSED}",
    4.0e-11,
    0.0,
    1.0e-2,
    6.0e-13,
    2.0e-11,
    1.0e-10,
    2.0e-4,
    _H100_CONTEXT,
    _H100_RENEW,
)


@dataclass(frozen=True)
class HostRates:
    """Seconds of one CPU core for single-threaded work; measured.

    Attributes:
        ingest, ingest_cell, ingest_row: decoding, checking and writing, once, per cell and per row.
        verify: reading a byte again with its checksum.
        predict_cell, predict_level, predict_call: per cell read, per row x tree x level, and per call.
        walked: per row x tree x level of deep trees that are walked in blocks.
        unfolded: of unfolded trees, per [cell read, tree, row x tree, row x split].
        outcome: of a resolved era, per [row x model, era].
        begin: the loop's libraries, loaded once.
        step: of the gate, per network and gradient step, of full fits and of warm starts.
        decide: per model and era; save: a checkpoint.
        leaf: reading and writing models whose leaf values are re-estimated, per [node, model].
        insights: per [cell of 52 eras, run].
    """

    ingest: float = 0.2
    ingest_cell: float = 2.7e-9
    ingest_row: float = 3.0e-6
    verify: float = 4.3e-10
    predict_cell: float = 1.4e-9
    predict_level: float = 1.4e-9
    predict_call: float = 3.2e-4
    walked: float = 9e-10
    unfolded: tuple[float, float, float, float] = (7.4e-11, 6.5e-6, 7e-11, 4.9e-11)
    outcome: tuple[float, float] = (2.7e-8, 1.0e-3)
    begin: float = 1.0
    step: tuple[float, float] = (3.0e-3, 2.5e-3)
    decide: float = 1.7e-4
    save: float = 8e-3
    leaf: tuple[float, float] = (1.7e-6, 1e-3)
    insights: tuple[float, float] = (2e-9, 1.0)

    def to_unfold(self, rows: int, columns: int, trees: int, depth: int) -> float:
        """Seconds to predict rows of levels with unfolded trees."""
        per_cell, per_tree, per_row, per_split = self.unfolded
        if depth > SHALLOW:
            per_tree, per_row, per_split = per_tree * 2.0 ** (depth - SHALLOW), depth * self.walked, 0.0
        return rows * columns * per_cell + trees * (per_tree + rows * (per_row + float(2**depth) * per_split))


HOST = HostRates()

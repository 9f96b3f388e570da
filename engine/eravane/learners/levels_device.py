"""The level grower on a GPU: columns where a table holds them there, and models that grow on them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from eravane.core.arrays import Float32s
from eravane.core.errors import ConfigError, DeviceError, RunError
from eravane.learners.protocol import OutOfDeviceMemoryError
from eravane_kernels.growth import Rules, Tree

if TYPE_CHECKING:
    from eravane_kernels.cpu.levelcolumns import LevelColumns
    from eravane_kernels.cuda.growth import Columns


def device_columns(table: Any) -> tuple[Columns, tuple[str, ...]]:
    """The columns of a table on the device at four bits a cell, and their names; the table may go afterwards.

    Args:
        table: a `DeviceTable`.

    Raises:
        RunError: they hold something else than levels 0..4 and -1.
        DeviceError: CuPy is missing.
    """
    with _readable():
        from eravane_kernels.cuda.growth import Columns

        values_CN, names = table.values_CN, table.names
        if values_CN.dtype != np.int8:
            raise RunError(
                f'zoo.learner "levels" needs features of integer levels, given {values_CN.dtype}; use zoo.learner = '
                '"xgboost"'
            )
        try:
            return Columns.of(values_CN), names
        except ValueError as error:
            raise RunError(f'zoo.learner "levels": {error}; use zoo.learner = "xgboost"') from error


class DeviceBoosting:
    """Models that grow side by side on the device; their trees are those of the CPU to the bit.

    Args:
        columns: from `device_columns`.
        rules: how trees are grown.
        label_BN: float32 [B, N]; NaN rows count as absent.
        weight_N: float32 [N], or None for equal weights.
        margin_BN: float32 [B, N], output of earlier blocks.
        seed, chosen, share: of the draws: columns of a tree, share of the rows.

    Raises:
        OutOfDeviceMemoryError: there is too little memory.
    """

    def __init__(
        self,
        columns: Columns,
        rules: Rules,
        label_BN: Float32s,
        weight_N: Float32s | None,
        margin_BN: Float32s,
        *,
        seed: int,
        chosen: int,
        share: float,
    ) -> None:
        with _readable():
            from eravane_kernels.cuda.boosting import Boosting

            self._boosting = Boosting(
                columns, rules, label_BN, weight_N, margin_BN, seed=seed, chosen=chosen, share=share
            )

    def grow(self, rounds: int) -> list[list[Tree]]:
        """The next trees, [rounds][B]; there may be fewer rounds than asked for, but one."""
        with _readable():
            return self._boosting.grow(rounds)

    def learn_at(self, eta: float) -> None:
        """Refuses another learning rate, which trees on a device cannot take.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(f"learning_rate cannot change while trees grow on a GPU, given {eta}")


def uploaded(columns: LevelColumns, rules: Rules, *arrays: Any, **draws: Any) -> DeviceBoosting:
    """Models about to grow on the device, on columns of the host that are copied there.

    Raises:
        DeviceError: there is no working GPU.
    """
    from eravane.backend import choose
    from eravane.backend.protocol import DeviceTable
    from eravane_kernels.cpu.pointers import levels_at

    backend = choose("cuda", lambda _note: None)
    parts, start = [], 0
    for address_C, rows in zip(columns.address_SC.tolist(), columns.row_S.tolist(), strict=True):
        parts.append((start, np.stack([levels_at(address, rows) for address in address_C])))
        start += rows
    matrix_CN = backend.load(parts, (columns.width, columns.rows), "int8")
    names = tuple(f"f{place}" for place in range(columns.width))
    found, _ = device_columns(DeviceTable(matrix_CN, names))
    return DeviceBoosting(found, rules, *arrays, **draws)


def device_bytes(rows: int, columns: int, chosen: int, rules: Rules, models: int) -> int:
    """Bytes on the device: the columns as they are sent and at half a byte, and models of weighed rows that grow."""
    from eravane_kernels.cuda.boosting import boosting_bytes
    from eravane_kernels.cuda.growth import half_step

    return rows * columns + columns * half_step(rows) + boosting_bytes(rows, chosen, rules, models, weighed=True)


@contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise DeviceError(
            f'zoo.learner "levels" grows trees on a GPU with {error.name}, which is not installed; install eravane '
            'with the extra cu12 or cu13, or set compute.device = "cpu"'
        ) from error
    except MemoryError as error:  # as CuPy's and RMM's are
        raise OutOfDeviceMemoryError(f"the level grower ran out of memory on cuda: {error}") from error

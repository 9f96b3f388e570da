"""Tables handed to XGBoost in tiles: the same matrix, and no more memory than without."""

from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa
import pytest
import xgboost as xgb

from eravane.learners import tiles
from eravane.learners.tiles import Tiles, reads_anew, worth_it
from eravane.learners.xgboost import fit, quantile_matrix, resolve_params
from eravane_kernels.cpu.levelrows import empty_rows, fill_rows

ROWS, COLUMNS = 1_003, 21
PARAMS, _ = resolve_params({"colsample_bytree": 0.5}, "cpu")


@pytest.fixture(scope="module")
def level_CN() -> np.ndarray:
    return np.random.default_rng(1).integers(-1, 5, (COLUMNS, ROWS)).astype(np.int8)


def _table(level_CN: np.ndarray, cuts: tuple[int, ...] = (0, 400, 401, ROWS)) -> pa.Table:
    parts = [[pa.array(level_N[a:b]) for a, b in itertools.pairwise(cuts)] for level_N in level_CN]
    return pa.table({f"f{column}": pa.chunked_array(chunks) for column, chunks in enumerate(parts)})


def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"FEWEST_COLUMNS": COLUMNS, "FEWEST_ROWS": 200, "MOST_ROWS": 250}.items():
        monkeypatch.setattr(tiles, name, value)


@pytest.mark.parametrize(("first", "rows", "columns"), [(0, ROWS, COLUMNS), (5, 600, 16), (700, 1, 1), (3, 257, 17)])
def test_rows_are_laid_out(level_CN: np.ndarray, first: int, rows: int, columns: int) -> None:
    address_C = level_CN.ctypes.data + np.arange(columns, dtype=np.int64) * level_CN.strides[0]
    around_RC = np.full((rows + 2, columns + 2), 9, dtype=np.float32)
    fill_rows(address_C, first, around_RC[1:-1, 1:-1])
    np.testing.assert_array_equal(around_RC[1:-1, 1:-1], level_CN[:columns, first : first + rows].T)
    around_RC[1:-1, 1:-1] = 9
    assert (around_RC == 9).all()


@pytest.mark.parametrize("columns", [1, 16, 780, 1024])
def test_laid_out_rows_do_not_share_places_in_the_cache(columns: int) -> None:
    x_RC = empty_rows(7, columns)
    assert x_RC.shape == (7, columns)
    assert x_RC.strides[0] % 128 == 64


@pytest.mark.parametrize("count", [None, 1, 3, ROWS])
def test_tiles_give_the_same_matrix(level_CN: np.ndarray, count: int | None) -> None:
    table, label_N = _table(level_CN), np.random.default_rng(2).random(ROWS, dtype=np.float32)
    whole = quantile_matrix(table, PARAMS)  # too small for tiles
    tiled = xgb.QuantileDMatrix(Tiles(table, count), ref=whole, nthread=1)
    np.testing.assert_array_equal(tiled.get_data().toarray(), whole.get_data().toarray())
    assert (tiled.feature_names, tiled.feature_types) == (whole.feature_names, whole.feature_types)
    blocks = [fit(matrix, label_N, None, trees=10, params=PARAMS, seed=3) for matrix in (tiled, whole)]
    assert blocks[0] == blocks[1]


def test_large_and_wide_tables_go_in_tiles(level_CN: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    table, label_N = _table(level_CN), np.random.default_rng(2).random(ROWS, dtype=np.float32)
    plain = fit(quantile_matrix(table, PARAMS), label_N, None, trees=10, params=PARAMS, seed=3)
    given: list[int] = []

    class Counted(Tiles):
        def next(self, input_data: tiles.Callable[..., None]) -> bool:
            given.append(self._next)
            return super().next(input_data)

    _small(monkeypatch)
    monkeypatch.setattr("eravane.learners.xgboost.Tiles", Counted)
    assert fit(quantile_matrix(table, PARAMS), label_N, None, trees=10, params=PARAMS, seed=3) == plain
    assert sorted(set(given)) == [0, 201, 402, 603, 804, ROWS]  # the fewest equal tiles of at most 250 rows


def test_a_tile_takes_no_more_memory_than_the_table(level_CN: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    _small(monkeypatch)
    table = _table(level_CN[:, :800], (0, 800))
    assert worth_it(table)
    assert Tiles(table)._tile_RC.nbytes <= table.nbytes


def test_other_tables_do_not_go_in_tiles(level_CN: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not worth_it(_table(level_CN))
    _small(monkeypatch)
    table = _table(level_CN)
    assert worth_it(table)
    assert not worth_it(table.slice(0, 799))
    assert not worth_it(table.select(table.column_names[1:]))
    others = {
        "nulls": pa.array(level_CN[0], mask=np.arange(ROWS) == 7),
        "float32": pa.array(level_CN[0].astype(np.float32)),
        "cut differently": pa.array(level_CN[0]),
    }
    for name, column in others.items():
        assert not worth_it(table.set_column(3, "f3", column)), name


def test_what_xgboost_keeps_of_a_frame_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    assert reads_anew()
    fill = Tiles._fill

    def once(self: Tiles, first: int, last: int) -> None:
        if first == 0:
            fill(self, first, last)

    monkeypatch.setattr(Tiles, "_fill", once)
    assert not reads_anew.__wrapped__()

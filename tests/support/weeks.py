"""A made dataset as it would have been downloaded week by week: labels come late, go missing, are corrected."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

UNRESOLVED = 5  # newest eras of history whose labels are not out yet
TRAIN = 20


class Weeks:
    """Weekly downloads cut from one finished dataset.

    Args:
        source: folder with the parquet files of a dataset whose eras are all labelled but the newest few.
    """

    def __init__(self, source: Path) -> None:
        self._source = source
        parts = [pd.read_parquet(source / f"{name}.parquet") for name in ("train", "validation")]
        self._frame = pd.concat(parts)
        self._era = self._frame["era"].astype(int).to_numpy()
        self._targets = [name for name in self._frame if name.startswith("target")]

    def write(
        self,
        folder: Path,
        last: int,
        *,
        late: int = 0,
        missing: tuple[int, ...] = (),
        corrected: Mapping[int, int] | None = None,
        live_seed: int | None = None,
    ) -> Path:
        """Write the download of the week whose live era is `last + 1`.

        Args:
            folder: where to.
            last: newest era of history.
            late: eras whose labels are not in the file though they should be.
            missing: eras without labels.
            corrected: era -> seed of the changes to its labels.
            live_seed: shuffles the live rows and leaves one out (None: as they will be in history).
        """
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "features.json").write_bytes((self._source / "features.json").read_bytes())
        kept, era = self._frame[self._era <= last].copy(), self._era[self._era <= last]
        unknown = (era > last - UNRESOLVED - late) | np.isin(era, missing)
        kept.loc[unknown, self._targets] = np.float32(np.nan)
        for number, seed in (corrected or {}).items():
            rows = np.flatnonzero((era == number) & ~unknown)
            order = np.random.default_rng(seed).permutation(rows)
            kept.iloc[rows, kept.columns.get_indexer(self._targets)] = kept.iloc[order][self._targets].to_numpy()
        kept[era <= TRAIN].to_parquet(folder / "train.parquet")
        kept[era > TRAIN].to_parquet(folder / "validation.parquet")
        live = self._frame[self._era == last + 1].copy()
        live[self._targets] = np.float32(np.nan)
        live = live.assign(era="X", data_type="live")
        if live_seed is not None:
            live = live.sample(frac=1, random_state=live_seed).iloc[1:]
        live.to_parquet(folder / "live.parquet")
        return folder

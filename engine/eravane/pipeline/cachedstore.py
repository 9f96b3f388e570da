"""The store that a run reads: the one it is given, or one in the cache, shared by runs of the same data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from eravane.core.config import DataConfig, digest_of
from eravane.core.errors import ChangedDataError, ConfigError
from eravane.data.catalog import FeatureCatalog
from eravane.data.ingest import ingest
from eravane.data.store.manifest import MANIFEST
from eravane.data.store.store import EraStore
from eravane.synth import TRUTH


def cached_store(
    data: Path,
    config: DataConfig,
    catalog: FeatureCatalog,
    cache: Path,
    *,
    rebuild: bool,
    wait: Callable[[str], None] | None = None,
) -> EraStore:
    """Open the store of a run, brought up to date with its files; its path is absolute.

    Args:
        data: a store, or a folder of parquet files.
        config: the [data] section.
        catalog: the features to keep.
        cache: folder that holds the stores of earlier runs.
        rebuild: delete the store that earlier runs made of this data, and ingest again.
        wait: called with a line while another process is ingesting the same data; None does not wait.

    Raises:
        ConfigError: a store of the user's is to be deleted.
        DataError: the files break the dataset's contract, or old eras changed since an earlier run.
    """
    if (data / MANIFEST).is_file():
        if rebuild:
            raise ConfigError(f"{data} is a store that you made; delete it, `eravane ingest` makes it again")
        return EraStore.open(data.resolve())
    first, last = config.first_era or None, config.last_era or None
    name = digest_of([str(data.resolve()), list(catalog.columns), first, last])
    path = cache.resolve() / "stores" / name
    try:
        return ingest(
            data, path, columns=list(catalog.columns), first_era=first, last_era=last, wait=wait, rebuild=rebuild
        )
    except ChangedDataError as error:
        advice = f"--rebuild-store replaces the store that earlier runs of this data made in {path}"
        raise ChangedDataError(error.fact, advice) from None


def described(data: Path, store: EraStore) -> dict[str, Any]:
    """A run's data in its manifest: their path, the store's content, and whether `synth` made them."""
    made = (data / TRUTH).is_file()
    return {"path": str(data.resolve()), "store": str(store.home), "fingerprint": store.fingerprint, "made": made}

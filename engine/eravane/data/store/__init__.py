"""Parts of a store: matrix files, segments, the manifest, and the transfer from parquet into them."""

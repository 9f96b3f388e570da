"""What a store is made of: matrix files, segments, the manifest, and the way from parquet into them."""

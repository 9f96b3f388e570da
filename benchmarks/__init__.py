"""One runnable program per performance claim; `python -m benchmarks` lists them."""

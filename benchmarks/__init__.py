"""One runnable program per question of speed or worth; `python -m benchmarks` lists them."""

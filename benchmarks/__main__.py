"""Runs a benchmark program: `python -m benchmarks NAME [--quick] [--json FILE]`, or `all` of them."""

from __future__ import annotations

import argparse
import ast
import importlib
import os
import subprocess
import sys
from pathlib import Path

THREAD_SETTINGS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "POLARS_MAX_THREADS",
)


def programs() -> dict[str, str]:
    """Programs by name, each with the first line of its docstring: modules here that define `main` or `command`."""
    found = {}
    for path in sorted(Path(__file__).parent.glob("[!_]*.py")):
        tree = ast.parse(path.read_text())
        if {node.name for node in tree.body if isinstance(node, ast.FunctionDef)} & {"main", "command"}:
            found[path.stem] = (ast.get_docstring(tree) or "").partition("\n")[0]
    return found


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Command line of the benchmarks."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Runs one benchmark program.")
    choices = [*programs(), "all"]
    parser.add_argument("name", nargs="?", choices=choices, metavar="NAME", help="the program, or all; none lists them")
    parser.add_argument("--quick", action="store_true", help="small sizes and few repeats: does it run, not how fast")
    parser.add_argument("--deep", action="store_true", help="levels: trees of depth 3 to 10 and recipes instead")
    parser.add_argument("--levels", action="store_true", help="zoo: the level grower alone, without the peer")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write environment and results to FILE")
    parser.add_argument("--threads", type=int, default=1, help="threads for ours and the peers (default 1)")
    given = parser.parse_args(arguments)
    if given.name == "all" and given.json:
        parser.error("--json takes the numbers of one program")
    if given.deep and given.name != "levels":
        parser.error("--deep is an option of levels")
    if given.levels and given.name != "zoo":
        parser.error("--levels is an option of zoo")
    return given


def run(arguments: argparse.Namespace) -> None:
    """Runs a program with its libraries held to the number of threads, prints the report and writes the JSON."""
    for setting in THREAD_SETTINGS:
        os.environ[setting] = str(arguments.threads)
    program = importlib.import_module(f"benchmarks.{arguments.name}")
    from benchmarks.harness import Result, environment, report, write_json

    name = " ".join([arguments.name, *(f"--{option}" for option in ("deep", "levels") if getattr(arguments, option))])
    facts = environment(name, quick=arguments.quick, threads=arguments.threads)
    if arguments.deep:

        def save(results: list[Result]) -> None:
            if arguments.json:
                write_json(arguments.json, facts, results)

        results = importlib.import_module("benchmarks.levels_deep").deep(arguments.quick, save)
    else:
        results = (program.levels if arguments.levels else program.main)(arguments.quick)
    print(report(name, facts, results))
    if arguments.json:
        write_json(arguments.json, facts, results)


def run_all(arguments: argparse.Namespace) -> int:
    """Runs every program but `gpu` in a process of its own; 1 if one of them failed."""
    failed = 0
    for name in programs():
        if name != "gpu":
            options = ["--quick"] * arguments.quick + ["--threads", str(arguments.threads)]
            failed |= subprocess.run([sys.executable, "-m", "benchmarks", name, *options], check=False).returncode != 0
    return int(failed)


def list_programs() -> None:
    """Prints every program with what it answers."""
    for name, line in programs().items():
        print(f"{name:12} {line}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["gpu"]:  # it has options of its own
        sys.exit(importlib.import_module("benchmarks.gpu").command(sys.argv[2:]))
    given = parse()
    if given.name == "all":
        sys.exit(run_all(given))
    elif given.name:
        run(given)
    else:
        list_programs()

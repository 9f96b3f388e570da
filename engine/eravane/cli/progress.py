"""Output of the command line: live progress on a terminal, plain lines when piped, and tables."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table
from rich.text import Text

# Plain lines of a stage when piped: its start, about this many in between, and its end.
PLAIN_STEPS = 4


class ConsoleProgress:
    """Shows the stages of a run; use as a context manager.

    Args:
        console: where to; a terminal gets bars with rates and time left, a pipe gets lines.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
            # The remaining width, so that a long detail never hides the remaining time.
            TextColumn("[dim]{task.fields[detail]}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
            expand=True,
            console=console,
            disable=not console.is_terminal,
        )
        self._stage, self._total, self._done, self._started = "", 0, 0, 0.0
        self._task = TaskID(0)  # of the stage that `start` begins

    def __enter__(self) -> ConsoleProgress:
        if self._console.is_terminal:
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:  # Rich before 14.3 ends with an empty line elsewhere
            self._bars.stop()

    def start(self, stage: str, total: int) -> None:
        """Begin a stage of `total` steps."""
        self._stage, self._total, self._done, self._started = stage, total, 0, time.perf_counter()
        # Names of features, members and files may hold brackets, which columns would take for markup.
        self._task = self._bars.add_task(escape(stage), total=total, detail="")

    def advance(self, detail: str = "") -> None:
        """One step is done."""
        self._done += 1
        self._bars.update(self._task, advance=1, detail=escape(detail))
        last = self._done == self._total
        if not self._console.is_terminal and (last or self._done % max(1, self._total // PLAIN_STEPS) == 0):
            seconds = time.perf_counter() - self._started
            self.note(f"{self._stage} {self._done}/{self._total} {seconds:.1f} s {detail}".rstrip())

    def reach(self, done: int, detail: str = "") -> None:
        """Set the number of finished steps; for work in uneven pieces."""
        if done > self._done:
            self._done = done - 1
            self._bars.update(self._task, completed=self._done)
            self.advance(detail)

    def note(self, text: str) -> None:
        """Print a fact: one line in a pipe, above the bars on a terminal."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=not self._console.is_terminal)


def print_table(console: Console, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table with its first column left and the others right: framed on a terminal, plain lines in a pipe."""
    if console.is_terminal:
        table = Table(title=Text(title), title_justify="left")
        for place, column in enumerate(columns):
            table.add_column(Text(column), justify="right" if place else "left")
        for row in rows:
            table.add_row(*map(Text, row))
        console.print(table)
        return
    console.print(title, highlight=False, markup=False, soft_wrap=True)
    widths = [max(map(len, cells)) for cells in zip(columns, *rows, strict=True)]
    for cells in (columns, *rows):
        first, *others = (
            f"{cell:>{width}}" if place else f"{cell:<{width}}"
            for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        console.print("  ".join([first, *others]), highlight=False, markup=False, soft_wrap=True)


def print_metrics(console: Console, metrics: Mapping[str, Any]) -> None:
    """The headline of a run: every series of metrics.json as a row."""
    rows = [
        [
            name.replace("_", " "),
            *(number(row[key]) for key in ("corr_mean", "corr_std", "sharpe", "max_drawdown")),
            str(row["n_eras"]),
        ]
        for name, row in metrics["series"].items()
    ]
    print_table(console, "CORR per era", ("series", "mean", "std", "Sharpe", "max drawdown", "eras"), rows)


def gain_sentence(metrics: Mapping[str, Any], least_eras: int) -> str:
    """The gain over equal weight in words; with fewer than `least_eras` it cannot be judged."""
    gain = metrics["gain_over_equal_weight"]
    gained = f"gain over equal weight: {number(gain['mean'])} per era, "
    if gain["n_eras"] < least_eras:
        return gained + f"{gain['n_eras']} eras; too early to judge, which takes {least_eras}"
    return gained + f"HAC t {number(gain['hac_t'], 2)}, {gain['n_eras']} eras"


def number(value: float | None, digits: int = 4) -> str:
    """A number for a table; what is undefined is a dash."""
    return "-" if value is None or value != value else f"{value:.{digits}f}"

"""The Typer application, its shared options and its output."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from typer.core import TyperGroup

from eravane import __version__
from eravane.cli.progress import ConsoleProgress

# The order of a user's work, in which --help lists the commands.
ORDER = (
    *("demo", "plan", "run", "report", "compare", "step"),
    *("fetch", "synth", "ingest"),
    *("submit", "scores", "rules", "diagnose", "export", "upload"),
    "doctor",
)

# Characters of a message that are shown: the paths, names and words that it is made of, but no file's content.
LONGEST = 2000


class _InOrder(TyperGroup):
    """Commands in the order of `ORDER`."""

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]
        return sorted(super().list_commands(ctx), key=ORDER.index)


app = typer.Typer(
    cls=_InOrder,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="GPU-accelerated batch engine for the Numerai tournament: train a zoo of boosted trees, gate it era by era, "
    "submit.",
)


def make_console(**options: bool) -> Console:
    """A console; 80 wide where COLUMNS is 0, as on terminals without a size, which would print nothing."""
    made = Console(**options)  # type: ignore[arg-type]
    if made.width < 1:
        made.width = 80
    return made


console = make_console()

RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Options of every command; `main` reads --debug."""


@contextmanager
def progress(*, aside: bool = False, quiet: bool = False) -> Iterator[ConsoleProgress]:
    """Progress on the console while a block runs.

    Args:
        aside: on stderr, where stdout is for programs.
        quiet: only on a terminal, not in a pipe.
    """
    with ConsoleProgress(
        make_console(stderr=True, quiet=quiet and not sys.stderr.isatty()) if aside else console
    ) as shown:
        yield shown


def printable(text: str) -> str:
    """A text of others (a cell of a file, a server's words) as a terminal may have it.

    Control characters, which could move the cursor or set the colours, are written as escapes; of a long text the
    middle is left out.
    """
    if len(text) > LONGEST:
        text = f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}"
    return "".join(sign if sign == "\n" or sign.isprintable() else ascii(sign)[1:-1] for sign in text)


def echo(text: str) -> None:
    """Print a line without markup."""
    console.print("\n".join(map(printable, text.split("\n"))), highlight=False, markup=False, soft_wrap=True)


def show(content: object, text: str, *, as_json: bool) -> None:
    """Print a result as JSON (a dataclass, or what json can write) or as text."""
    if as_json:
        sys.stdout.write(json.dumps(content, indent=2, default=_plain) + "\n")
    else:
        echo(text)


def _plain(value: object) -> object:
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else str(value)

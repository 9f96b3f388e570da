"""The command line: one readable message and an exit code for every error."""

from __future__ import annotations

import io
import logging
import os
import signal
import sys
import traceback

from eravane.cli.app import app, make_console, printable
from eravane.core.errors import ConfigError, EravaneError
from eravane.core.memory import require_addresses
from eravane.core.secrets import RedactingFormatter, keep_secret, redact

FAILURE, USAGE, INTERRUPTED = 1, 2, 130
# Bytes of addresses that commands map (measured 2.1 to 2.7 GB, Arrow's pools and threads included, most of it never
# used): those that load torch and Numba, and the others, which do with less of it.
ADDRESSES = dict.fromkeys(("demo", "plan", "run", "report", "compare", "step", "export"), 3_000_000_000)
ADDRESSES |= dict.fromkeys(("fetch", "synth", "ingest", "submit", "scores", "diagnose"), 1_200_000_000)
SECRETS = ("NUMERAI_PUBLIC_ID", "NUMERAI_SECRET_KEY")


class _PrintableFormatter(RedactingFormatter):
    """Formats log records for a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


class _InterruptedByUser(BaseException):
    """Ctrl-C or SIGTERM; not a KeyboardInterrupt, which the command parser would handle itself."""


def main() -> None:
    """Run a command; exit code 0 on success, 2 on bad usage or configuration, 1 on failure, 130 when interrupted."""
    # Spinning OpenMP threads slow down threefold next to another busy process; read when the libraries load.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    keep_secret(*(os.environ.get(name, "") for name in SECRETS))
    handler = logging.StreamHandler()
    handler.setFormatter(_PrintableFormatter("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    errors = make_console(stderr=True)
    try:
        _check_names()
        require_addresses(next((ADDRESSES[name] for name in sys.argv[1:] if name in ADDRESSES), 0))
        from eravane.cli import dataset, machine, runs, tournament  # noqa: F401  (they register their commands)

        app()
    except _InterruptedByUser:
        errors.print("interrupted; finished work is kept: `eravane run --resume` continues a run", highlight=False)
        sys.exit(INTERRUPTED)
    except Exception as error:
        if "--debug" in sys.argv:
            sys.stderr.write(redact(traceback.format_exc()))
        else:
            errors.print(printable(redact(_message(error))), highlight=False, markup=False, soft_wrap=True)
        sys.exit(USAGE if isinstance(error, ConfigError) else FAILURE)


def _check_names() -> None:
    """Check that every name means the same to Python and to the libraries, which take names for UTF-8.

    Raises:
        ConfigError: one does not, in bytes that are no UTF-8 or under a locale of another encoding; or the working
            directory was deleted.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a result with a dash is not to fail on an ASCII terminal
    try:
        here = os.getcwd()
    except FileNotFoundError:
        raise ConfigError("the working directory is gone; change to one that is there") from None
    for name in (*sys.argv[1:], here, os.environ.get("ERAVANE_CACHE", "")):
        if os.fsencode(name) != name.encode("utf-8", "backslashreplace"):
            shown = name.encode("ascii", "backslashreplace").decode()
            raise ConfigError(
                f"the name '{shown}' is not UTF-8, or the locale is not (file names are {sys.getfilesystemencoding()} "
                "here); set LC_ALL=C.UTF-8, or rename it in ASCII"
            )


def _message(error: Exception) -> str:
    if isinstance(error, EravaneError):
        return f"error: {error}"
    if isinstance(error, OSError):
        place = f": {error.filename}" if error.filename else ""
        return f"error: {error.strerror or error}{place}"
    return _unexpected(error)


def _unexpected(error: Exception) -> str:
    # A library that the loader cannot map fails to be imported.
    if isinstance(error, MemoryError) or (isinstance(error, ImportError) and "failed to map" in str(error)):
        detail = str(error).splitlines()[0] if str(error) else "the system gives no more"
        return f"error: out of memory ({detail}); `eravane plan` shows what a run needs, and changes that would fit"
    what = f"{type(error).__name__}: {error}".splitlines()[0]
    return f"error: unexpected, {what}; `eravane --debug ...` shows where, for a report"


def _interrupt(_signal: int, _frame: object) -> None:
    raise _InterruptedByUser

"""Commands about this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from eravane import api
from eravane.cli.app import AsJson, app, show


@app.command(rich_help_panel="Machine")
def doctor(
    data: Annotated[
        Path | None, typer.Argument(help="Dataset folder or store whose targets and horizons are examined, too.")
    ] = None,
    scheduler: Annotated[str, typer.Option(help="Address of a Dask scheduler to try.")] = "",
    as_json: AsJson = False,
) -> None:
    """Check this machine and advise on each problem; exit code 1 where something must be fixed."""
    checks = api.doctor(scheduler, data)
    show(checks, api.as_text(checks), as_json=as_json)
    if any(check.status == "fail" for check in checks):
        raise typer.Exit(1)

"""The report: one self-contained HTML file, headline first."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from string import Template

from plotly.offline import get_plotlyjs

from eravane.core.files import write_atomically
from eravane.report import figures, maps, sections
from eravane.report.alerts import Alert, alerts
from eravane.report.figures import Figure
from eravane.report.html import text
from eravane.report.load import RunView, load_run


@dataclass(frozen=True)
class Part:
    """A section of the page: its anchor and title, plots, words after the first plot, what to say without any."""

    name: str
    title: str
    draws: tuple[Callable[[RunView], Figure | None], ...]
    words: Callable[[RunView], str] | None
    empty: str = ""


PARTS = (
    Part(
        "performance",
        "Performance",
        (figures.cumulative_figure, figures.drawdown_figure),
        sections.series,
        "No counted era has a score yet.",
    ),
    Part(
        "gate",
        "Gate",
        (maps.weights_figure, figures.gate_figure, maps.regimes_figure, maps.live_figure),
        None,
        "The loop has not begun: there are no weights yet.",
    ),
    Part(
        "zoo",
        "Base models",
        (maps.cells_figure, maps.correlation_figure),
        sections.zoo,
        "No base model is trained yet.",
    ),
    Part(
        "risk",
        "Exposure and data",
        (maps.exposure_figure, figures.missing_figure),
        None,
        "This run has recorded neither feature exposure nor missing features.",
    ),
    Part(
        "cost", "Cost", (figures.time_figure, figures.telemetry_figure), sections.costs, "No step has been timed yet."
    ),
    Part("run", "This run", (), sections.about),
)


def write_report(run_dir: Path | str) -> Path:
    """Write `report.html` into a run folder, finished or not, and return its path.

    The file needs no network: styles, script, plotly.js and data are inside.

    Raises:
        RunError: the folder does not exist or is no run folder.
    """
    view = load_run(run_dir)
    path = view.path / "report.html"
    write_atomically(path, render(view).encode())
    return path


def render(view: RunView) -> str:
    """The report of a run as HTML text."""
    found = alerts(view)
    drawn: list[Figure] = []
    body = "".join(_section(view, part, drawn) for part in PARTS)
    # "<" is escaped so that no name in the data can close the script element.
    data = json.dumps([figure.as_dict() for figure in drawn], allow_nan=False, separators=(",", ":"))
    return Template(_asset("page.html")).substitute(
        title=text(f"{view.name} - eravane"),
        name=text(view.name),
        chips=sections.chips(view),
        verdict=sections.verdict(view, found),
        alerts="".join(map(_alert, found)),
        headline=sections.headline(view),
        body=body,
        css=_asset("page.css"),
        js=_asset("page.js"),
        plotly=get_plotlyjs(),
        data=data.replace("<", "\\u003c"),
    )


def _asset(name: str) -> str:
    return (resources.files("eravane.report") / name).read_text(encoding="utf-8")


def _alert(alert: Alert) -> str:
    return (
        f'<li class="{alert.level}" role="{"alert" if alert.level == "stop" else "note"}">'
        f"<b>{text(alert.title)}.</b> {text(alert.detail)}</li>"
    )


def _section(view: RunView, part: Part, drawn: list[Figure]) -> str:
    found = [figure for draw in part.draws if (figure := draw(view)) is not None]
    drawn += found
    cards = [_figure(figure) for figure in found]
    words = part.words(view) if part.words is not None else ""
    content = "".join([*cards[:1], words, *cards[1:]]) or f'<p class="empty">{text(part.empty)}</p>'
    return f'<section id="{part.name}"><h2>{text(part.title)}</h2>{content}</section>'


def _figure(figure: Figure) -> str:
    switches = ""
    if len(figure.views) > 1:
        buttons = "".join(
            f'<button type="button" data-view="{position}" aria-pressed="{"true" if position == 0 else "false"}">'
            f"{text(view.label)}</button>"
            for position, view in enumerate(figure.views)
        )
        switches = f'<div class="switch" role="group" aria-label="{text(figure.title)}">{buttons}</div>'
    return (
        f'<figure class="card" data-figure="{figure.name}"><div class="bar"><h3>{text(figure.title)}</h3>{switches}'
        f'</div><div class="legend"></div><div class="plot" style="height:{figure.height}px"></div>'
        f"<figcaption>{text(figure.note)}</figcaption></figure>"
    )

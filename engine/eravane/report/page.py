"""The report: one self-contained HTML file, headline first."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

import jinja2
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from eravane.core.files import write_atomically
from eravane.report import figures, maps, sections
from eravane.report.alerts import alerts
from eravane.report.blocks import Card
from eravane.report.figures import Figure
from eravane.report.load import RunView, load_run


@dataclass(frozen=True)
class Part:
    """A section of the page.

    Attributes:
        name, title, label: its anchor, its heading, and its name in the navigation where that is shorter.
        draws: its figures; a function returns None where the run has nothing to draw.
        cards: its tables and lists, shown after the first figure.
        empty: shown where there is neither figure nor card.
    """

    name: str
    title: str
    draws: tuple[Callable[[RunView], Figure | None], ...] = ()
    cards: Callable[[RunView], Sequence[Card]] | None = None
    empty: str = ""
    label: str = ""


@dataclass(frozen=True)
class Section:
    """A section with its content, as the template takes it."""

    part: Part
    figures: list[Figure]
    cards: Sequence[Card]


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
        sections.gate,
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
        empty="This run has recorded neither feature exposure nor missing features.",
        label="Exposure",
    ),
    Part(
        "cost", "Cost", (figures.time_figure, figures.telemetry_figure), sections.costs, "No step has been timed yet."
    ),
    Part("run", "This run", cards=sections.about),
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
    shown = [_section(view, part) for part in PARTS]
    drawn = [figure.as_dict() for section in shown for figure in section.figures]
    # "<" is escaped so that no name in the data can close the script element.
    data = json.dumps(drawn, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    return _template().render(
        name=view.name,
        chips=sections.chips(view),
        verdict=sections.verdict(view, found),
        alerts=found,
        tiles=sections.tiles(view),
        gains=sections.gains(view),
        hac_lag=view.hac_lag,
        sections=shown,
        css=_asset("page.css"),
        js=_asset("page.js"),
        plotly=_plotly(),
        data=Markup(data),
    )


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("eravane.report"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template("page.html.j2")


@cache
def _plotly() -> Markup:
    """The text of plotly.js, 5 MB: read once by a program that writes a report every week or for every run."""
    return Markup(get_plotlyjs())


@cache
def _asset(name: str) -> Markup:
    return Markup((resources.files("eravane.report") / "templates" / name).read_text(encoding="utf-8"))


def _section(view: RunView, part: Part) -> Section:
    found = [figure for draw in part.draws if (figure := draw(view)) is not None]
    cards = part.cards(view) if part.cards is not None else ()
    return Section(part, found, cards)

"""The report in headless Chromium: no complaints, plots drawn, tooltips, sorting, themes, narrow screens."""

from __future__ import annotations

from pathlib import Path

import pytest

from eravane.report import write_report

DRAW_ALL = """(async () => {
  for (const card of document.querySelectorAll('[data-figure]')) {
    card.scrollIntoView();
    await new Promise((done) => setTimeout(done, 60));
  }
  scrollTo(0, 0);
})()"""
FIGURES = 10


@pytest.fixture(scope="module")
def page(made) -> Path:
    return write_report(made.path)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400])
def test_renders_without_complaints(browser, page: Path, width: int, dark: bool) -> None:
    browser.open(page, width, dark=dark)
    browser.js(DRAW_ALL)
    count = "[...document.querySelectorAll('[data-figure] .plot')].filter((p) => p.querySelector('.main-svg')).length"
    browser.wait(f"{count} === document.querySelectorAll('[data-figure]').length")
    assert browser.js(count) == FIGURES
    assert browser.js("document.documentElement.scrollWidth") == width, "the page itself must not scroll sideways"
    assert browser.complaints() == []


def test_complaints_are_heard(browser, page: Path) -> None:
    browser.open(page)
    browser.js("console.error('planted')")
    browser.js("fetch('http://127.0.0.1:9/x').catch(() => 0)")
    assert any("planted" in text for text in browser.complaints())
    assert any("Content Security Policy" in text or "127.0.0.1" in text for text in browser.complaints())


def colour_of(browser) -> str:
    browser.wait("document.querySelector('[data-figure=cumulative] .js-line') !== null")
    return browser.js(
        "getComputedStyle([...document.querySelectorAll('[data-figure=cumulative] .js-line')].at(-1)).stroke"
    )


def test_plots_follow_the_theme(browser, page: Path) -> None:
    browser.open(page)
    assert colour_of(browser) == "rgb(36, 87, 214)"
    browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    browser.wait("getComputedStyle([...document.querySelectorAll('.js-line')].at(-1)).stroke !== 'rgb(36, 87, 214)'")
    assert colour_of(browser) == "rgb(122, 162, 255)"


def centre(browser, selector: str) -> tuple[float, float]:
    browser.js(f"document.querySelector({selector!r}).scrollIntoView({{block: 'center'}})")
    box = browser.js(
        f"(() => {{ const b = document.querySelector({selector!r}).getBoundingClientRect();"
        " return [b.x + b.width / 2, b.y + b.height / 2]; })()"
    )
    return box[0], box[1]


def test_tooltips_show_values(browser, page: Path, made) -> None:
    browser.open(page)
    browser.js(DRAW_ALL)
    browser.mouse(*centre(browser, "[data-figure=cumulative] .nsewdrag"))
    browser.wait(
        "document.querySelectorAll('[data-figure=cumulative] .hoverlayer .legendtext, "
        "[data-figure=cumulative] .hoverlayer text').length > 1"
    )
    text = browser.js("document.querySelector('[data-figure=cumulative] .hoverlayer').textContent")
    total = made.counted["ensemble"].dropna().cumsum()
    era = next(era for era in total.index if f"{era:04d}" in text)
    assert f"{total[era]:.4f}" in text
    browser.mouse(*centre(browser, "[data-figure=weights] .nsewdrag"))
    browser.wait("document.querySelector('[data-figure=weights] .hovertext') !== null")
    assert "era 0" in browser.js("document.querySelector('[data-figure=weights] .hovertext').textContent")


def column(browser, table: str, head: str) -> list[str]:
    return browser.js(
        f"(() => {{ const t = document.getElementById('{table}');"
        f" const i = [...t.tHead.rows[0].cells].findIndex((c) => c.textContent === '{head}');"
        " return [...t.tBodies[0].rows].map((r) => r.cells[i].dataset.v); })()"
    )


def press(browser, table: str, head: str) -> None:
    browser.js(f"[...document.querySelectorAll('#{table} th button')].find((b) => b.textContent === '{head}').click()")


def test_tables_sort_both_ways(browser, page: Path, made) -> None:
    browser.open(page, 400)
    expected = sorted(made.zoo["corr_mean"], reverse=True)
    press(browser, "zoo-table", "CORR")
    assert [float(value) for value in column(browser, "zoo-table", "CORR")] == expected
    press(browser, "zoo-table", "CORR")
    assert [float(value) for value in column(browser, "zoo-table", "CORR")] == expected[::-1]
    press(browser, "zoo-table", "Model")
    assert column(browser, "zoo-table", "Model") == sorted(made.zoo["model_id"])
    assert browser.js("document.querySelectorAll('#zoo-table [aria-sort=ascending]').length") == 1


def test_unknown_values_stay_last(browser, page: Path, made) -> None:
    dropped = int((~made.zoo["selected"]).sum())
    browser.open(page)
    for _ in range(2):
        press(browser, "zoo-table", "Weight")
        assert column(browser, "zoo-table", "Weight")[-dropped:] == [""] * dropped


def test_views_and_legend_switch(browser, page: Path) -> None:
    browser.open(page)
    browser.js(DRAW_ALL)
    card = "document.querySelector('[data-figure=weights]')"
    before = browser.js(f"{card}.querySelectorAll('.ytick').length")
    browser.js(f"{card}.querySelectorAll('.switch button')[2].click()")
    browser.wait(f"{card}.querySelectorAll('.ytick').length === 3")
    assert before > 3
    assert browser.js(f"{card}.querySelector('.switch [aria-pressed=true]').textContent") == "By set"
    lines = "document.querySelectorAll('[data-figure=cumulative] .js-line').length"
    assert browser.js(lines) == 4
    browser.js("document.querySelector('[data-figure=cumulative] .legend button').click()")
    browser.wait(f"{lines} === 3")

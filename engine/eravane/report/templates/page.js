(() => {
  "use strict";
  const figures = new Map(JSON.parse(document.getElementById("figures").textContent).map((f) => [f.name, f]));
  const drawn = new Map();

  // "var(--name)" anywhere in a figure becomes the theme's colour; plotly itself knows no CSS variables.
  const resolve = (value, style) => {
    if (typeof value === "string" && value.startsWith("var(--")) return style.getPropertyValue(value.slice(4, -1)).trim();
    if (Array.isArray(value)) return value.map((v) => resolve(v, style));
    if (value && typeof value === "object") return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, resolve(v, style)]));
    return value;
  };
  const isAxis = (key) => /^[xy]axis\d*$/.test(key);

  const layoutFor = (view, small, height) => {
    const axis = {
      gridcolor: "var(--line)", zerolinecolor: "var(--line)", linecolor: "var(--line)", automargin: true, fixedrange: small,
      tickfont: { size: small ? 10 : 12 }, title: { standoff: 8, font: { size: 12 } },
    };
    const layout = {
      height, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", margin: { l: 8, r: 8, t: 12, b: 8 },
      font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: "var(--ink-2)" },
      hoverlabel: { bgcolor: "var(--card)", bordercolor: "var(--line)", font: { color: "var(--ink)", size: 12 } },
      dragmode: small ? false : "zoom", xaxis: {}, yaxis: {}, bargap: 0.15, showlegend: false,
    };
    for (const [key, value] of Object.entries(view.layout)) layout[key] = value;
    for (const key of Object.keys(layout).filter(isAxis)) {
      const own = layout[key];
      layout[key] = { ...axis, ...own, title: { ...axis.title, ...own.title } };
      if (own.type === "category") Object.assign(layout[key], { showgrid: false, ticks: "" });
      if (small && key.startsWith("y")) layout[key].title = { text: "" };
      if (small && own.tickangle) layout[key].showticklabels = false;
    }
    return layout;
  };

  const draw = (card) => {
    const figure = figures.get(card.dataset.figure);
    const plot = card.querySelector(".plot");
    const view = figure.views[Number(card.dataset.view || 0)];
    const style = getComputedStyle(document.documentElement);
    const small = plot.clientWidth < 560;
    const traces = view.data.map((trace) => (small && trace.type === "heatmap" ? { ...trace, showscale: false } : trace));
    const [data, layout] = resolve([traces, layoutFor(view, small, figure.height)], style);
    Plotly.react(plot, data, layout, { displayModeBar: false, responsive: true });
    drawLegend(card.querySelector(".legend"), plot, data);
    drawn.set(card, true);
  };

  const drawLegend = (legend, plot, data) => {
    const named = data.map((trace, position) => ({ trace, position })).filter(({ trace }) => trace.name);
    legend.replaceChildren(...(named.length < 2 ? [] : named.map(({ trace, position }) => {
      const button = document.createElement("button");
      const key = document.createElement("i");
      const colour = trace.line?.color ?? trace.marker?.color;
      key.style.setProperty("--key", Array.isArray(colour) ? colour[0] : colour);
      button.type = "button";
      button.ariaPressed = "true";
      button.append(key, trace.name);
      button.addEventListener("click", () => {
        button.ariaPressed = String(button.ariaPressed !== "true");
        Plotly.restyle(plot, { visible: button.ariaPressed === "true" }, [position]);
      });
      return button;
    })));
  };

  const cards = [...document.querySelectorAll("[data-figure]")];
  const onSight = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (isIntersecting) { onSight.unobserve(target); draw(target); }
    }
  }, { rootMargin: "600px" });
  cards.forEach((card) => onSight.observe(card));
  const redraw = () => drawn.forEach((_, card) => draw(card));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  matchMedia("(max-width: 640px)").addEventListener("change", redraw);
  addEventListener("beforeprint", () => cards.forEach(draw));

  document.addEventListener("click", (event) => {
    const choice = event.target.closest(".switch button");
    if (choice) {
      for (const button of choice.parentElement.children) button.setAttribute("aria-pressed", String(button === choice));
      const card = choice.closest("[data-figure]");
      card.dataset.view = choice.dataset.view;
      draw(card);
    }
    const head = event.target.closest("th button");
    if (head) sortBy(head.parentElement);
  });

  // Numbers start with the largest, text with A; cells without a value stay last.
  const sortBy = (head) => {
    const column = head.cellIndex;
    const numeric = head.classList.contains("n");
    const next = { none: numeric ? "descending" : "ascending", ascending: "descending", descending: "ascending" }[head.ariaSort];
    for (const other of head.parentElement.cells) other.ariaSort = other === head ? next : "none";
    const sign = next === "ascending" ? 1 : -1;
    const key = (row) => row.cells[column].dataset.v;
    const compare = (a, b) => (numeric ? a - b : a.localeCompare(b, undefined, { numeric: true }));
    const body = head.closest("table").tBodies[0];
    const order = (a, b) => {
      const [x, y] = [key(a), key(b)];
      if (x === "" || y === "") return (x === "") - (y === "");
      return sign * compare(x, y);
    };
    body.append(...[...body.rows].sort(order));
  };

  const links = [...document.querySelectorAll("nav a")];
  const spy = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      links.find((a) => a.hash === `#${target.id}`)?.classList.toggle("here", isIntersecting);
    }
  }, { rootMargin: "-30% 0px -69%" });
  document.querySelectorAll("main > section").forEach((section) => spy.observe(section));
})();

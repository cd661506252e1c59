// Drawing helpers on d3, shared by all figures.
//
//   const fig = figure(el, model, { title, traits, height, lines, draw });     // once, in render
//     title   plain text above the drawing, also its accessible name
//     traits  names of the synced traits: the drawing is redone, once per frame, when one of them changes
//     height  (narrow) => height of the drawing in px; narrow means less than 480 px wide
//     lines   (narrow) => lines of text that the readout may need; kept free, so that no text moves the page
//     draw    ({ svg, width, narrow, say }) => void; say(text) fills the readout and tells screen readers
//   fig.controls.append(...)     what controls.js makes goes here;  return fig.stop at the end of render
//
//   const p = panel(svg);        // one set of axes, made in the first draw and kept
//   p.frame({ left, top, width, height, x, y, xTicks, yTicks, xFormat, yFormat, xLabel, yLabel })   // d3 scales
//   p.line(key, [[x, y], ...], cls, { step })         p.dots(key, points, cls, radius)
//   p.bars(key, points, cls, { width, base })         p.stems(key, points, cls, radius)
//   p.cells(key, rows, { cls, low, high, label })     // a heat strip or matrix over the whole panel, values to opacity
//   p.segment(key, from, to, cls)    p.band(key, x0, x1, cls)    p.area(key, [[x, low, high], ...], cls)
//   p.note(key, [x, y], text, cls, { anchor, dx, dy })               // one text at a data point
//   p.notes([{ key, x, y, text, cls }])                              // several texts, placed so that none overlap
//   p.endLabels([{ key, y, text, cls }])                             // direct labels at the right edge, moved apart
//   p.onDrag((x, y) => ...)                                          // a bonus for pointers; sliders stay the main way
// Drawing the same key again updates it in place; empty data or text removes it. Room right of a panel for direct
// labels: labelRoom(svg, texts). Classes are colours from theme.css: state input attention warn zoh bilinear euler
// mamba exact quiet; add "chosen" to stress a line or label. Numbers and ticks: format.js.
import { axisBottom, axisLeft } from "d3-axis";
import { select } from "d3-selection";
import { area as d3area, curveLinear, curveStepAfter, line as d3line } from "d3-shape";
import { addTheme } from "./theme.js";

/** Title, drawing, readout and controls inside `el`; see the notes above. */
export function figure(el, model, { title, traits, height, lines = () => 2, draw }) {
  addTheme(el);
  const root = select(el).append("figure").attr("class", "ssmfig").attr("role", "group").attr("aria-label", title);
  for (const [name, of] of [["height", height], ["lines", lines]]) // CSS keeps this room from the first paint on
    root.style(`--${name}`, of(false)).style(`--${name}-narrow`, of(true));
  root.append("figcaption").text(title);
  const svg = root.append("svg").attr("role", "img").attr("aria-label", title);
  const readout = root.append("p").attr("class", "readout").attr("role", "status");
  const controls = root.append("div").attr("class", "controls").node();
  const say = (text) => { if (readout.text() !== text) { readout.text(text); svg.attr("aria-label", `${title}. ${text}`); } };
  let pending = 0, sliders;
  const paint = () => {
    pending = 0;
    const width = Math.floor(root.node().clientWidth);
    if (!width) return;
    const narrow = width < 480, h = height(narrow), start = performance.now();
    svg.attr("width", width).attr("height", h).attr("viewBox", `0 0 ${width} ${h}`);
    draw({ svg, width, narrow, say });
    sliders ??= nameSliders(el.closest(".ssmfig-panel"));
    el.dataset.drawMs = (performance.now() - start).toFixed(2);
    el.dataset.redraws = 1 + Number(el.dataset.redraws ?? 0);
  };
  const schedule = () => { pending ||= requestAnimationFrame(paint); };
  const watcher = new ResizeObserver(schedule);
  watcher.observe(root.node());
  for (const t of traits) model.on(`change:${t}`, schedule);
  return { root: root.node(), controls, schedule, stop() {
    watcher.disconnect(); sliders?.disconnect(); cancelAnimationFrame(pending);
    for (const t of traits) model.off(`change:${t}`, schedule);
  } };
}

const GAP = 13; // from the panel's edge to a direct label

/** ipywidgets sliders have no accessible name and round their spoken value: both follow the visible texts. */
function nameSliders(box) {
  const name = () => {
    for (const row of box?.querySelectorAll(".widget-slider") ?? []) {
      const handle = row.querySelector(".noUi-handle, .ui-slider-handle"), text = (cls) => row.querySelector(cls)?.textContent.trim() ?? "";
      handle?.setAttribute("role", "slider"); // the jQuery sliders of ipywidgets 7 have none
      handle?.setAttribute("aria-label", text(".widget-label"));
      handle?.setAttribute("aria-valuetext", text(".widget-readout"));
    }
  };
  const watcher = new MutationObserver(name); // sliders come after the drawing, and their texts change
  if (box) watcher.observe(box, { childList: true, characterData: true, subtree: true });
  name();
  return watcher;
}

const rooms = new Map(); // measuring makes the browser lay out the page: once per set of texts

/** The width that the longest of these labels needs right of a panel. */
export function labelRoom(svg, texts) {
  const key = texts.join("\n");
  if (!rooms.has(key)) {
    const probe = svg.append("text").attr("class", "label chosen");
    rooms.set(key, Math.ceil(Math.max(...texts.map((t) => probe.text(t).node().getComputedTextLength()))) + GAP + 3);
    probe.remove();
  }
  return rooms.get(key);
}

/** One set of axes. The inner <svg> clips the data, so no ids are needed (every bundle is its own module: counters clash). */
export function panel(svg) {
  const g = svg.append("g").attr("class", "panel");
  const grid = g.append("g").attr("class", "grid"), gx = g.append("g").attr("class", "axis"), gy = g.append("g").attr("class", "axis");
  const xTitle = g.append("text").attr("class", "axis-title").attr("text-anchor", "end"), yTitle = g.append("text").attr("class", "axis-title");
  const data = g.append("svg").attr("class", "data"), texts = g.append("g");
  const drawn = new Map();
  const one = (parent, tag, key) => {
    const id = `${parent === data} ${tag} ${key}`;
    if (!drawn.has(id)) drawn.set(id, parent.append(tag));
    return drawn.get(id);
  };
  const finite = (points) => points.filter((p) => p.every(Number.isFinite));
  let x, y, w, h;
  return {
    data, node: g.node(),
    frame(o) {
      ({ x, y } = o); w = o.width; h = o.height;
      x.range([0, w]); y.range([h, 0]);
      g.attr("transform", `translate(${o.left},${o.top})`);
      data.attr("width", w).attr("height", h);
      gx.attr("transform", `translate(0,${h})`).call(axisBottom(x).tickValues(o.xTicks).tickFormat(o.xFormat).tickSize(5).tickPadding(5).tickSizeOuter(0));
      gy.call(axisLeft(y).tickValues(o.yTicks).tickFormat(o.yFormat).tickSize(5).tickPadding(5).tickSizeOuter(0));
      grid.selectAll("line").data(o.yTicks).join("line").attr("x2", w).attr("y1", y).attr("y2", y);
      xTitle.attr("x", w).attr("y", h + 36).text(o.xLabel);
      yTitle.attr("x", -o.left).attr("y", -10).text(o.yLabel);
      return this;
    },
    line(key, points, cls, { step = false } = {}) {
      const path = d3line().x((p) => x(p[0])).y((p) => y(p[1])).curve(step ? curveStepAfter : curveLinear);
      return one(data, "path", key).attr("class", `line ${cls}`).attr("d", path(points));
    },
    area(key, points, cls) {
      const path = d3area().x((p) => x(p[0])).y0((p) => y(p[1])).y1((p) => y(p[2]));
      return one(data, "path", key).attr("class", `area ${cls}`).attr("d", path(points));
    },
    /** All dots are two paths of round caps (paper rim, colour): hundreds cost no more than one. */
    dots(key, points, cls, r) {
      const d = finite(points).map((p) => `M${x(p[0]).toFixed(2)},${y(p[1]).toFixed(2)}h0`).join("");
      const group = one(data, "g", key).attr("class", `dots ${cls}`);
      group.selectAll("path").data([r + 1, r]).join("path").attr("class", (_, i) => (i ? "dot" : "rim")).attr("d", d).attr("stroke-width", (v) => 2 * v);
      return group;
    },
    /** Bars from `base` to each value; `width` in px, by default most of the distance between two of them. */
    bars(key, points, cls, { width = 0.7 * Math.abs(x((points[1]?.[0] ?? 1)) - x(points[0]?.[0] ?? 0)), base = 0 } = {}) {
      const zero = y(base), d = finite(points).map((p) => `M${(x(p[0]) - width / 2).toFixed(2)},${zero}h${width.toFixed(2)}V${y(p[1]).toFixed(2)}h${-width.toFixed(2)}Z`).join("");
      return one(data, "path", key).attr("class", `bars ${cls}`).attr("d", d);
    },
    stems(key, points, cls, r = 3) {
      const zero = y(0), d = finite(points).map((p) => `M${x(p[0]).toFixed(2)},${zero}V${y(p[1]).toFixed(2)}`).join("");
      one(data, "path", `${key}-stems`).attr("class", `line ${cls}`).attr("d", d);
      return this.dots(key, points, cls, r);
    },
    /** rows of values fill the panel; opacity runs from 0 at `low` to 1 at `high`, `label(value)` writes into the cells. */
    cells(key, rows, { cls = "state", low = 0, high = 1, label } = {}) {
      const group = one(data, "g", key).attr("class", `cells ${cls}`), ch = h / rows.length;
      const flat = rows.flatMap((row, i) => row.map((v, j) => ({ v, left: (j * w) / row.length, top: i * ch, cw: w / row.length })));
      const ink = (d) => Math.min(Math.max((d.v - low) / (high - low), 0), 1);
      group.selectAll("rect").data(flat).join("rect").attr("x", (d) => d.left + 1).attr("y", (d) => d.top + 1)
        .attr("width", (d) => Math.max(1, d.cw - 2)).attr("height", Math.max(1, ch - 2)).attr("fill-opacity", ink);
      group.selectAll("text").data(label ? flat : []).join("text").attr("class", (d) => (ink(d) > 0.55 ? "on" : ""))
        .attr("x", (d) => d.left + d.cw / 2).attr("y", (d) => d.top + ch / 2).attr("dy", "0.35em").text((d) => label(d.v));
      return group;
    },
    segment(key, from, to, cls) {
      return one(data, "line", key).attr("class", cls).attr("x1", x(from[0])).attr("y1", y(from[1])).attr("x2", x(to[0])).attr("y2", y(to[1]));
    },
    band(key, from, to, cls) {
      return one(data, "rect", key).attr("class", cls).attr("x", x(from)).attr("width", Math.max(0, x(to) - x(from))).attr("height", h);
    },
    /** Pointer position in data units while the reader presses or drags inside the panel. */
    onDrag(move) {
      const hit = data.insert("rect", ":first-child").attr("class", "hit").attr("width", "100%").attr("height", "100%");
      const report = (e) => { if (e.buttons) { const box = hit.node().getBoundingClientRect(); move(x.invert(e.clientX - box.left), y.invert(e.clientY - box.top)); } };
      data.on("pointerdown", (e) => { data.node().setPointerCapture(e.pointerId); report(e); }).on("pointermove", report);
    },
    /** A note at a data point, kept inside the panel's height. */
    note(key, [px, py], text, cls, { anchor = "start", dx = 0, dy = 0 } = {}) {
      one(texts, "text", key).attr("class", `note ${cls}`).attr("text-anchor", anchor)
        .attr("x", x(px) + dx).attr("y", Math.min(Math.max(y(py) + dy, 12), h - 4)).text(text);
    },
    /** Notes beside their points, each where it fits: inside the panel and over no earlier note. */
    notes(items) {
      const taken = [];
      for (const d of items) {
        const node = one(texts, "text", d.key).attr("class", `note ${d.cls ?? ""}`).text(d.text ?? "");
        if (!d.text) continue;
        const width = node.node().getComputedTextLength(), px = x(d.x), py = y(d.y);
        const spots = [[8, -8], [8, 16], [-8 - width, -8], [-8 - width, 16], [-width / 2, -12], [-width / 2, 20], [8, -24], [-8 - width, -24], [8, 32], [-8 - width, 32]]
          .map(([dx, dy]) => [px + dx, py + dy]);
        const free = ([a, b]) => a >= 2 && a + width <= w - 2 && b >= 12 && b <= h - 4
          && taken.every(([ta, tb, tw]) => a > ta + tw + 6 || a + width + 6 < ta || Math.abs(b - tb) > 15);
        const [a, b] = spots.find(free) ?? [Math.min(Math.max(px + 8, 2), w - width - 2), Math.min(Math.max(py - 8, 12), h - 4)];
        taken.push([a, b, width]);
        node.attr("x", a).attr("y", b);
      }
    },
    /** Direct labels right of the panel: [{ key, y, text, cls }], moved apart where they would overlap. */
    endLabels(items, gap = 16) {
      const rows = items.map((d) => ({ ...d, at: Math.min(Math.max(y(d.y), 0), h) })).sort((p, q) => p.at - q.at);
      rows.forEach((d, i) => { d.pos = Math.max(d.at, i ? rows[i - 1].pos + gap : 4); });
      for (let i = rows.length - 1, floor = h - 2; i >= 0; i--, floor = rows[i + 1].pos - gap) rows[i].pos = Math.min(rows[i].pos, floor);
      for (const d of rows) {
        one(texts, "path", `${d.key}-lead`).attr("class", `lead ${d.cls}`).attr("d", d.text ? `M${w + 2},${d.at}L${w + GAP - 3},${d.pos}` : "");
        one(texts, "text", d.key).attr("class", `label ${d.cls}`).attr("x", w + GAP).attr("y", d.pos).attr("dy", "0.35em").text(d.text);
      }
    },
  };
}

// RunningState: a text read token by token into one fixed state, beside a cache that keeps every token.
import { scaleLinear, scaleLog } from "d3-scale";
import * as M from "../models/running_state.js";
import { figure, panel } from "../shared/chart.js";
import { assign, field, make, menu, reset, stepper } from "../shared/controls.js";
import { bytes, count, fixed, short } from "../shared/format.js";

const MOST = 2 ** 20, LOW = 2 ** 16, HIGH = 2 ** 39, CHIP = [60, 20], BAR = [18, 9], TRAITS = ["text", "decay", "tokens", "model"];
// Where the slider can stand: every token at first, then eight stops to a doubling, and the points of balance.
const STOPS = [...new Set([...Array(64).keys(), ...Array.from({ length: 113 }, (_, i) => Math.round(64 * 2 ** (i / 8))),
  ...Object.keys(M.STATES).map(M.crossover)])].sort((p, q) => p - q);
const many = (n, noun) => `${count(n)} ${noun}${n === 1 ? "" : "s"}`;

/** The tape of words, the toy state and cache (stacked on a phone), two bars of bytes, and the curves. */
function layout(width, narrow) {
  const state = { left: 40, top: 72, width: narrow ? width - 44 : 262, height: narrow ? 84 : 110 };
  const cache = narrow ? { left: 0, top: 218, width, height: 100 } : { left: 344, top: 72, width: width - 344, height: 110 };
  const held = cache.top + cache.height + 58;
  return { state, cache, held, curve: { left: 52, top: held + 88, height: narrow ? 150 : 170 }, height: held + 88 + (narrow ? 150 : 170) + 42 };
}

/** The words about the one just read; under each hangs what is left of it in the state. */
function drawTape(layer, width, widthOf, { list, tokens, decay }) {
  const first = Math.max(0, tokens - 16), last = list.length ? tokens + 10 : first, start = 0.6 * width;
  const rows = Array.from({ length: last - first }, (_, i) => ({ word: shorten(list[(first + i) % list.length], 18), age: tokens - 1 - first - i }));
  const text = layer.selectAll("text").data(rows).join("text").attr("y", 12)
    .attr("class", (d) => (d.age > 0 ? "note" : d.age ? "note quiet" : "label chosen input"));
  const widths = rows.map((d) => widthOf(d.word, d.age === 0) + 8), at = rows.findIndex((d) => d.age <= 0);
  let x = start - widths.slice(0, at).reduce((sum, w) => sum + w, 0);
  text.each(function place(_, i) {
    this.setAttribute("x", x);
    rows[i].shown = x >= 0 && x + widths[i] <= width;
    this.textContent = rows[i].shown ? rows[i].word : "";
    rows[i].bar = `M${x},${BAR[0]}h${widths[i] - 8}v${BAR[1] * decay ** rows[i].age}h${8 - widths[i]}z`;
    x += widths[i];
  });
  layer.selectAll("path").data(rows.filter((d) => d.shown && d.age >= 0)).join("path").attr("class", (d) => `bars ${d.age ? "state" : "input"}`).attr("d", (d) => d.bar);
}

/** Eight bars; beside each, how far the last token moved it from what was kept. */
function drawState(p, caption, box, { list, tokens, decay }) {
  const h = M.stateAfter(list, decay, tokens), kept = M.stateAfter(list, decay, Math.max(0, tokens - 1)).map((v) => decay * v);
  const most = Math.max(0.1, Math.ceil(10 * M.reach(list, decay)) / 10), bar = box.width / 8;
  p.frame({ ...box, x: scaleLinear([-0.5, 7.5], [0, 1]), y: scaleLinear([-most, most], [0, 1]), xTicks: [], yTicks: [-most, 0, most],
    xFormat: String, yFormat: (v) => short(v, 2), xLabel: "", yLabel: "toy state h: 8 numbers, always" });
  p.bars("h", h.map((v, i) => [i - 0.08, v]), "state", { width: 0.46 * bar });
  h.forEach((v, i) => p.bars(`new${i}`, tokens && list.length ? [[i + 0.3, v]] : [], "input", { width: 0.16 * bar, base: kept[i] }));
  const parts = [["state", "h"], ["", ` = ${fixed(decay)} `], ["state", "h"], ["", ` + ${fixed(1 - decay)} `], ["input", `v(${word({ list, tokens })})`]];
  caption.attr("x", box.left).attr("y", box.top + box.height + 20).selectAll("tspan").data(parts).join("tspan")
    .attr("class", (d) => d[0]).style("fill", "currentColor").text((d) => d[1]);
}

const word = ({ list, tokens }) => (tokens && list.length ? shorten(list[(tokens - 1) % list.length], 18) : "token");
const shorten = (text, most) => (text.length > most ? `${text.slice(0, most - 2)}…` : text);

/** One cell for every token: words while they fit, then smaller squares, then squares that stand for many tokens. */
function cells({ width, height }, tokens) {
  const fit = (w, h) => [Math.floor(width / w), Math.floor(height / h)], room = ([columns, rows]) => columns * rows;
  const [w, h] = [CHIP, [12, 12], [8, 8], [5, 5]].find((size) => room(fit(...size)) >= tokens) ?? [5, 5];
  const [columns, rows] = fit(w, h), unit = 2 ** Math.max(0, Math.ceil(Math.log2(tokens / (columns * rows))));
  const place = (i) => [(i % columns) * w, Math.floor(i / columns) * h];
  return { w, h, gap: w > 8 ? 2 : 1, columns, unit, place, number: Math.ceil(tokens / unit), words: w === CHIP[0] };
}

/** The first `number` cells as one dashed line per row: a thousand cells cost no more than ten. */
function dashes({ w, h, gap, columns, number }) {
  const rows = Array.from({ length: Math.ceil(number / columns) }, (_, i) => Math.min(columns, number - i * columns) * w - gap);
  return rows.map((end, i) => `M0,${i * h + (h - gap) / 2}h${end}`).join("");
}

function drawCache(layer, box, { list, tokens }) {
  const grid = cells(box, list.length ? tokens : 0), { w, h, gap, number, place } = grid, [x, y] = place(Math.max(0, number - 1));
  layer.attr("transform", `translate(${box.left},${box.top})`);
  layer.selectAll("path").data([dashes(grid), number ? `M${x},${y + (h - gap) / 2}h${w - gap}` : ""]).join("path").attr("class", "attention")
    .style("stroke", "currentColor").style("stroke-width", h - gap).style("stroke-dasharray", `${w - gap} ${gap}`).attr("d", String)
    .attr("opacity", (_, i) => (i ? (grid.words ? 0.3 : 1) : grid.words ? 0.16 : 0.6));
  layer.selectAll("text.chip").data(grid.words ? Array.from({ length: number }, (_, i) => place(i)) : []).join("text").attr("class", "chip").style("fill", "var(--ink)").style("font-size", "11px")
    .attr("x", (d) => d[0] + 5).attr("y", (d) => d[1] + 13).text((_, i) => shorten(list[i % list.length], 8));
  const captions = [[-10, "KV cache: one more cell for every token"], [box.height + 20, grid.unit > 1 ? `1 square = ${count(grid.unit)} tokens` : tokens ? `${many(tokens, "cell")}, a key and a value in each` : "empty"]];
  layer.selectAll("text.label").data(captions).join("text").attr("class", (_, i) => `label ${i ? "quiet" : ""}`).attr("x", 0).attr("y", (d) => d[0]).text((d) => d[1]);
}

/** The bytes that both real models hold now, on one linear scale. */
function drawHeld(layer, top, width, { held, cache, name }) {
  const rows = [[held, "state", `${bytes(held)}  state of ${name}`], [cache, "attention", `${bytes(cache)}  KV cache of ${M.CACHE.name}`]];
  const scale = (v) => ((width - 220) * v) / Math.max(held, cache);
  layer.attr("transform", `translate(0,${top})`);
  layer.selectAll("path").data(rows).join("path").attr("class", (d) => `bars ${d[1]}`).attr("d", (d, i) => `M0,${i * 23}h${Math.max(1, scale(d[0]))}v17h${-Math.max(1, scale(d[0]))}z`);
  layer.selectAll("text").data([["", "", "held now by two real models (bfloat16, one sequence)"], ...rows]).join("text").attr("class", (d, i) => (i ? `label ${d[1]}` : "label"))
    .attr("x", (d, i) => (i ? Math.max(1, scale(d[0])) + 8 : 0)).attr("y", (_, i) => (i ? i * 23 - 10 : -11)).text((d) => d[2]);
}

function drawCurve(p, box, width, room, narrow, { held, cache, tokens, balance }) {
  const x = scaleLog([1, MOST], [0, 1]), y = scaleLog([LOW, HIGH], [0, 1]), at = Math.max(1, tokens);
  p.frame({ ...box, width: width - box.left - room, x, y, xTicks: narrow ? [1, 100, 1e4, 1e6] : [1, 10, 100, 1e3, 1e4, 1e5, 1e6], xFormat: count,
    yTicks: [2 ** 20, 2 ** 25, 2 ** 30, 2 ** 35], yFormat: bytes, xLabel: "tokens read", yLabel: "bytes held against tokens, both axes logarithmic" });
  p.segment("balance", [balance, LOW], [balance, held], "now");
  p.segment("now", [at, LOW], [at, HIGH], "now").attr("opacity", tokens ? 1 : 0);
  p.line("state", [[1, held], [MOST, held]], "state chosen");
  p.line("cache", [[1, M.cacheBytes(1)], [MOST, M.cacheBytes(MOST)]], "attention chosen");
  p.dots("state-now", tokens ? [[at, held]] : [], "state", 5).raise();
  p.dots("cache-now", tokens ? [[at, cache]] : [], "attention", 5).raise();
  p.note("balance", [balance, LOW], `equal at ${count(balance)} tokens`, "quiet", { dx: 7, dy: -8 });
  const late = at > 3000;
  p.note("now", [at, HIGH], tokens ? many(tokens, "token") : "", "", { anchor: late ? "end" : "start", dx: late ? -7 : 7, dy: 14 });
  p.endLabels([{ key: "l-state", y: held, text: "state", cls: "state chosen" }, { key: "l-cache", y: M.cacheBytes(MOST), text: "KV cache", cls: "attention chosen" }]);
}

function verdict({ tokens, held, cache, name, balance }) {
  const until = `They are equal at ${count(balance)} tokens.`;
  if (!tokens) return `Nothing read yet, and ${name} already holds ${bytes(held)} of state. Press Play, or move Tokens read. ${until}`;
  const sizes = `After ${many(tokens, "token")}: state of ${name} ${bytes(held)}, KV cache of ${M.CACHE.name} ${bytes(cache)}.`;
  if (held === cache) return `${sizes} Equal to the byte: from here on the cache is the larger one.`;
  const [larger, other, factor] = held > cache ? ["state", "cache", held / cache] : ["cache", "state", cache / held];
  return `${sizes} The ${larger} is ${short(factor)} times as large as the ${other}. ${until}`;
}

/** A slider over STOPS: close steps for few tokens, doublings for many. */
function tokenSlider(model) {
  const input = make("input", { type: "range", min: 0, max: STOPS.length - 1, step: 1, onkeydown: (e) => e.stopPropagation() });
  const show = () => {
    const tokens = model.get("tokens"), above = STOPS.findIndex((v) => v >= tokens);
    input.value = above;
    input.setAttribute("aria-valuetext", many(tokens, "token"));
  };
  input.oninput = () => assign(model, { tokens: STOPS[input.value] });
  show();
  model.on("change:tokens", show);
  input.style.cssText = "flex: 1; min-width: 140px; height: 28px; margin: 0; accent-color: var(--accent)";
  const label = make("label", { className: "field" }, make("span", { textContent: "Tokens read" }), input);
  label.style.flex = "1 1 260px";
  return label;
}

/** The text; whoever types sees every word arrive in state and cache. */
function textField(model) {
  const label = field(model, "text", "Text"), input = label.querySelector("input");
  input.maxLength = 2000;
  input.addEventListener("input", () => assign(model, { tokens: M.words(input.value).length }));
  label.style.flex = "1 1 100%";
  input.style.flex = "1";
  return label;
}

function render({ model, el }) {
  let parts;
  function build(svg) {
    const layer = () => svg.append("g");
    svg.append("text").attr("class", "note quiet").attr("y", 42).text("Under each word read: how much of it is left in the state.");
    parts = { tape: layer(), cache: layer(), held: layer(), caption: svg.append("text").attr("class", "label"), state: panel(svg), curve: panel(svg) };
    const probe = svg.append("text").attr("class", "label chosen").attr("visibility", "hidden"), known = new Map();
    parts.widthOf = (text, bold) => { // measuring forces a layout: once for every word
      const key = `${bold} ${text}`;
      if (!known.has(key)) known.set(key, probe.style("font-weight", bold ? 700 : 400).text(text).node().getComputedTextLength());
      probe.text("");
      return known.get(key);
    };
    parts.curve.onDrag((x) => assign(model, { tokens: Math.min(Math.max(Math.round(x), 1), MOST) }));
  }
  function draw({ svg, width, narrow, say }) {
    if (!parts) build(svg);
    const [text, decay, tokens, key] = TRAITS.map((name) => model.get(name)), place = layout(width, narrow);
    const now = { list: M.words(text), decay, tokens, held: M.stateBytes(key), cache: M.cacheBytes(tokens), balance: M.crossover(key), name: M.STATES[key].name };
    drawTape(parts.tape, width, parts.widthOf, now);
    drawState(parts.state, parts.caption, place.state, now);
    drawCache(parts.cache, place.cache, now);
    drawHeld(parts.held, place.held, width, now);
    drawCurve(parts.curve, place.curve, width, parts.widthOf("KV cache", true) + 16, narrow, now);
    counter.style.visibility = tokens > now.balance ? "hidden" : ""; // a million needs more room than a phone has
    say(verdict(now));
  }
  const fig = figure(el, model, { title: "One running state, one growing cache", traits: TRAITS, height: (narrow) => layout(720, narrow).height, lines: (narrow) => (narrow ? 4 : 2), draw });
  const end = () => { // Play reads the text again and again: first up to equality, from there on to the end
    const balance = M.crossover(model.get("model")), tokens = model.get("tokens");
    if (!M.words(model.get("text")).length) return tokens;
    return tokens <= balance ? balance : MOST;
  };
  const next = (k) => STOPS.find((stop) => stop > k), steps = stepper(model, "tokens", end, { interval: 250, depends: ["text", "model"], next });
  const counter = steps.bar.querySelector(".count");
  counter.style.cssText = "width: 8em; overflow: hidden; white-space: nowrap";
  fig.controls.append(steps.bar, tokenSlider(model), textField(model),
    menu(model, "model", "State of", Object.entries(M.STATES).map(([key, { name }]) => [key, name])), reset(model, steps));
  return () => { steps.stop(); fig.stop(); };
}

export default { render };

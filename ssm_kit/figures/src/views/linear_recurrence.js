// LinearRecurrence: one number of memory; how long it lasts is decided by the last digits of Ā.
import { format } from "d3-format";
import { scaleLinear, scaleLog } from "d3-scale";
import * as M from "../models/recurrence.js";
import { figure, panel } from "../shared/chart.js";
import { assign, radios, reset } from "../shared/controls.js";
import { fixed, short } from "../shared/format.js";

const LAGS = 101, LOW = 0.2, HIGH = 400, LEFT = 44, GRID = 200; // the slider has 200 positions per unit
const CURVE = Array.from({ length: 260 }, (_, i) => 1 - 10 ** (-3 * (i + 1) / 260)).map((a) => [a, M.halfLife(a)]);
const indexed = (values) => values.map((v, k) => [k, v]);
const axis = format("-~g"), two = (v) => short(v, 2), steps = (v) => `${two(v)} step${two(v) === "1" ? "" : "s"}`;
/** Without the noise of slider arithmetic: 0.9999999999999999 would be a stable Ā. */
const plain = (v) => Math.round(v * 1e9) / 1e9;
/** 0.90, 0.995, −0.50: the third decimal only where it says something. */
const coefficient = (v) => fixed(v, 3).replace(/0$/, "");

/** The smallest of 1, 2, 5, 10, 20, ... that holds every value: the axis stays put while the reader drags. */
function roof(values) {
  const most = Math.max(...values.map(Math.abs));
  for (let unit = 1; ; unit *= 10) for (const m of [1, 2, 5]) if (most <= m * unit) return m * unit;
}

/** Where the four panels lie; on a phone the lower two stack. */
function layout(width, narrow) {
  const size = narrow ? { x: 34, h: 100, response: 92, life: 116 } : { x: 44, h: 136, response: 164, life: 164 };
  const full = width - LEFT - 12, half = narrow ? full : Math.floor((full - LEFT - 32) / 2), gap = 78;
  const h = 26 + size.x + 34, response = h + size.h + gap, life = narrow ? response + size.response + gap : response;
  return {
    x: { left: LEFT, top: 26, width: full, height: size.x },
    h: { left: LEFT, top: h, width: full, height: size.h },
    response: { left: LEFT, top: response, width: half, height: size.response },
    life: { left: LEFT, top: life, width: half, height: size.life },
    shift: full - half, height: life + size.life + 42,
  };
}

function drawInput(p, box, { x }) {
  const low = Math.min(...x) < 0 ? -1 : 0;
  p.frame({ ...box, x: scaleLinear([-0.6, x.length - 0.4], [0, 1]), y: scaleLinear([1.08 * low, 1.08], [0, 1]),
    xTicks: [], yTicks: low ? [-1, 0, 1] : [0, 1], xFormat: String, yFormat: axis, xLabel: "", yLabel: "input xₖ" });
  p.bars("input", indexed(x), "input");
}

function drawState(p, box, { a, b, x, pattern, colour }) {
  const h = M.recurrence(a, b, x), top = roof(h), low = Math.min(...h) < 0 ? -top : 0;
  p.frame({ ...box, x: scaleLinear([-0.6, x.length - 0.4], [0, 1]), y: scaleLinear([1.08 * low, 1.08 * top], [0, 1]),
    xTicks: [0, 10, 20, 30, 40, 50], yTicks: low ? [low, 0, top] : [0, top / 2, top], xFormat: String, yFormat: axis,
    xLabel: "step k", yLabel: "state hₖ = Ā hₖ₋₁ + B̄ xₖ" });
  drawGoal(p, x.length, top, pattern === "step" ? M.gain(a, b) : NaN);
  p.line("path", indexed(h), colour);
  p.dots("states", indexed(h), colour, Math.min(3.5, box.width / x.length / 3));
  const [point, place] = low ? [[0, top], { dx: 4, dy: 8 }] : [[x.length - 1, 0], { anchor: "end", dy: -10 }];
  p.note("warning", point, colour === "warn" ? "unstable" : "", "warn chosen", place); // where growth leaves room
}

/** Where a constant input takes the state; nothing where `level` is NaN. */
function drawGoal(p, length, top, level) {
  const inside = level <= top, under = !(level <= 0.3 * top); // the text goes where the state is not
  const text = `${inside ? "settles at" : "on its way to"} B̄/(1−Ā) = ${two(level)}`;
  p.line("level", inside ? [[-0.6, level], [length, level]] : [], "goal");
  p.note("goal", [length - 1, under ? 0 : level], Number.isNaN(level) ? "" : text, "quiet",
    { anchor: "end", dy: under ? -8 : -12 });
}

/** What becomes of one input, in words. */
function fate(a) {
  if (Math.abs(a) > 1) return "grows without bound";
  if (Math.abs(a) === 1) return "never fades";
  return a === 0 ? "nothing is left after one step" : `half is left after ${steps(M.halfLife(a))}`;
}

function drawResponse(p, box, { a, b, start, moved, colour }) {
  const low = a < 0 ? -1 : 0, life = M.halfLife(a), shown = life > 0 && life < LAGS && b > 0 ? [[life, b / 2]] : [];
  const wild = colour === "warn", compare = moved && !wild, corner = [LAGS - 1, 1.2];
  p.frame({ ...box, x: scaleLinear([-1, LAGS], [0, 1]), y: scaleLinear([1.2 * low, 1.2], [0, 1]),
    xTicks: [0, 25, 50, 75, 100], yTicks: low ? [-1, 0, 1] : [0, 0.5, 1], xFormat: String, yFormat: axis,
    xLabel: "steps i after the input", yLabel: "what is left of one input, Āⁱ B̄" });
  p.bars("response", indexed(M.impulseResponse(a, b, LAGS)), wild ? "warn soft" : colour);
  p.line("before", compare ? indexed(M.impulseResponse(Math.abs(start), b, LAGS)) : [], "before");
  p.line("drop", shown.flatMap(([i, v]) => [[i, 0], [i, v]]), "ink");
  p.dots("half", shown, "ink", 4.5);
  p.note("fate", corner, fate(a), wild ? "warn chosen" : "chosen", { anchor: "end", dy: 13 });
  p.note("before-label", corner, compare ? `dashed: ${steps(M.halfLife(start))} at ${coefficient(start)}` : "", "quiet",
    { anchor: "end", dy: 30 });
}

function drawLife(p, box, { a, start, moved, colour }) {
  const size = Math.abs(a), life = M.halfLife(a), first = M.halfLife(start);
  const height = Math.min(Math.max(life, 1.7 * LOW), 0.6 * HIGH); // the dot stays inside
  p.frame({ ...box, x: scaleLinear([0, 1.08], [0, 1]), y: scaleLog([LOW, HIGH], [0, 1]), xTicks: [0, 0.5, 0.9, 1],
    yTicks: [1, 10, 100], xFormat: String, yFormat: String, xLabel: "size |Ā|", yLabel: "half-life (steps)" });
  p.band("beyond", 1, 1.08, "unstable");
  p.line("curve", CURVE, "state");
  p.line("now", [[size, LOW], [size, height]], "goal");
  p.dots("first", moved ? [[Math.abs(start), first]] : [], "quiet", 4.5);
  p.dots("here", [[size, height]], colour, 6);
  const apart = life > 2 * first || life < first / 2, right = size < 0.5; // closer than this, labels would touch
  const before = moved && apart ? `${coefficient(start)}: ${steps(first)}` : "";
  p.note("first-label", [Math.abs(start), first], before, "quiet", { anchor: "end", dx: -10, dy: 4 });
  const text = `${coefficient(a)}: ${life < Infinity ? steps(life) : "no half-life"}`;
  p.note("here-label", [size, height], text, `${colour} chosen`,
    right ? { dx: 10, dy: -8 } : { anchor: "end", dx: -12, dy: 4 });
}

/** The readout. */
function sentence({ a, b, start, moved }) {
  const name = `Ā = ${coefficient(a)}`, flips = a < 0 ? " The state flips sign every step." : "";
  if (a > 1) return `${name}: unstable. Every step multiplies the past by ${coefficient(a)}; it grows without bound.`;
  if (Math.abs(a) === 1) return `${name}: unstable. Nothing is forgotten; the past piles up without bound.${flips}`;
  if (a === 0) return `${name}: no memory. The state is the latest input alone, times B̄ = ${fixed(b)}.`;
  const ratio = M.halfLife(a) / M.halfLife(start);
  const longer = moved && ratio > 1.05 ? `, ${two(ratio)} × that of ${coefficient(start)}` : "";
  return `${name}: half-life ${steps(M.halfLife(a))}${longer}; memory 1/(1−|Ā|) = ${steps(M.memory(a))}; `
    + `gain B̄/(1−Ā) = ${two(M.gain(a, b))}.${flips}`;
}

/** The reader's values. `moved`: the starting Ā differs and has a half-life, so it stays visible for comparison. */
function current(model) {
  const a = plain(model.get("a_bar")), start = model.get("_initial").a_bar, pattern = model.get("pattern");
  const moved = a !== start && start !== 0 && Math.abs(start) < 1;
  const colour = Math.abs(a) < 1 ? "state" : "warn";
  return { a, b: model.get("b_bar"), start, moved, pattern, x: M.signal(pattern), colour };
}

function render({ model, el }) {
  let parts;
  const drag = (size) => assign(model, { a_bar: Math.min(Math.max(Math.round(size * GRID) / GRID, 0), 1.05) });

  function draw({ svg, width, narrow, say }) {
    if (!parts) {
      const right = svg.append("g").attr("class", "right");
      parts = { x: panel(svg), h: panel(svg), response: panel(svg), life: panel(right) };
      parts.life.onDrag(drag);
    }
    const box = layout(width, narrow), now = current(model);
    svg.select(".right").attr("transform", `translate(${box.shift},0)`);
    drawInput(parts.x, box.x, now);
    drawState(parts.h, box.h, now);
    drawResponse(parts.response, box.response, now);
    drawLife(parts.life, box.life, now);
    fig.root.classList.toggle("warned", now.colour === "warn");
    say(sentence(now));
  }

  const fig = figure(el, model, { title: "A memory of one number", traits: ["a_bar", "b_bar", "pattern"],
    height: (narrow) => layout(0, narrow).height, lines: (narrow) => (narrow ? 3 : 2), draw });
  fig.controls.append(radios(model, "pattern", "Input", M.PATTERNS.map((p) => [p, p])), reset(model));
  return fig.stop;
}

export default { render };

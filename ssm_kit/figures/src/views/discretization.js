// Discretization: one scalar model, four rules that turn it into a recurrence, and what each costs in accuracy.
import { scaleLinear, scaleLog } from "d3-scale";
import * as M from "../models/discretization.js";
import { figure, labelRoom, panel } from "../shared/chart.js";
import { assign, radios, reset, toggle } from "../shared/controls.js";
import { abs, fixed, power, short } from "../shared/format.js";

const NAMES = { zoh: "ZOH", bilinear: "bilinear", euler: "Euler", mamba: "Mamba ΔB" };
const LOW = 3e-6, HIGH = 10, LEFT = 40, GRID = M.deltaGrid(), SAMPLES = GRID.map(M.samples);
const cut = (error) => Math.min(Math.max(error, LOW / 10), HIGH * 10);
const panelHeight = (narrow) => (narrow ? 160 : 184);

/** What depends on neither method nor Δ: the error curves of all rules. */
function errorCurves({ kind, a, average }) {
  const rows = GRID.map((d, i) => M.errors(kind, a, d, average, SAMPLES[i]));
  return Object.fromEntries(M.METHODS.map((m) => [m, GRID.map((d, i) => [d, rows[i][m]])]));
}

/** The continuous solution as a curve of about 320 points. */
function solutionCurve({ kind, a, delta }) {
  if (kind === "smooth") return Array.from({ length: 321 }, (_, i) => [(i * M.T_END) / 320, M.smooth(a, (i * M.T_END) / 320)]);
  const h = M.solution(kind, a, delta), inner = Math.ceil((320 * delta) / M.T_END);
  return Array.from(h).flatMap((end, k) => (k ? Array.from({ length: inner }, (_, i) => {
    const s = (delta * (i + 1)) / inner;
    return [(k - 1) * delta + s, M.held(a, h[k - 1], s, M.input(k * delta))];
  }) : [[0, end]]));
}

function inputCurve({ kind, delta }) {
  if (kind === "smooth") return Array.from({ length: 161 }, (_, i) => [(i * M.T_END) / 160, M.input((i * M.T_END) / 160)]);
  return Array.from(M.times(delta)).slice(1).flatMap((t) => [[t - delta, M.input(t)], [t, M.input(t)]]);
}

function drawSignals(p, o, box) {
  const { a, delta, method, average } = o, exact = solutionCurve(o), t = M.times(delta);
  const h = M.trajectory(method, a, delta, average), ideal = M.solution(o.kind, a, delta);
  const y = scaleLinear([Math.min(-1.5, ...exact.map((q) => q[1])), Math.max(1.5, ...exact.map((q) => q[1]))], [0, 1]).nice(6);
  p.frame({ ...box, x: scaleLinear([0, M.T_END], [0, 1]), y, xTicks: [0, 2, 4, 6, 8], yTicks: y.ticks(5), xFormat: String, yFormat: (v) => fixed(v, 1),
    xLabel: "time t (s)", yLabel: "input and state" });
  const points = Array.from(t, (s, k) => [s, h[k]]), worst = h.reduce((best, v, k) => (Math.abs(v - ideal[k]) > Math.abs(h[best] - ideal[best]) ? k : best), 0);
  p.line("input", inputCurve(o), "input dotted");
  p.line("exact", exact, "exact");
  p.line("hold", points, `hold ${method}`, { step: true });
  p.dots("points", points, method, Math.max(1.2, Math.min(4, (box.width / points.length) * 0.36)));
  p.segment("worst", [t[worst], ideal[worst]], [t[worst], h[worst]], "worst");
  p.endLabels([
    { key: "l-input", y: M.input(t.at(-1)), text: "input x(t)", cls: "input" },
    { key: "l-exact", y: exact.at(-1)[1], text: "exact h(t)", cls: "exact" },
    { key: "l-points", y: h.at(-1), text: `${NAMES[method]} hₖ`, cls: method },
  ]);
  const late = t[worst] > 5, size = Math.abs(h[worst] - ideal[worst]), floor = y.domain()[0], low = Math.min(ideal[worst], h[worst]);
  p.segment("worst-lead", [t[worst], size < 1e-9 ? floor : Math.max(low, floor)], [t[worst], floor], "now");
  p.note("worst", [t[worst], floor], size < 1e-9 ? "" : `max error ${short(size)}`, "", { anchor: late ? "end" : "start", dx: late ? -6 : 6, dy: -8 });
}

function drawErrors(p, o, curves, now, box) {
  const { a, delta, method, kind, average } = o, chosen = (m) => (m === method ? `${m} chosen` : m);
  p.frame({ ...box, x: scaleLog([0.01, 1], [0, 1]), y: scaleLog([LOW, HIGH], [0, 1]), xTicks: [0.01, 0.03, 0.1, 0.3, 1], yTicks: [1e-5, 1e-4, 1e-3, 0.01, 0.1, 1, 10],
    xFormat: String, yFormat: power(10), xLabel: "step size Δ (s)", yLabel: "largest error, max |hₖ − h(tₖ)|" });
  const limit = 2 / Math.abs(a), unstable = method === "euler" && limit < 1;
  p.band("unstable", unstable ? limit : 1, 1, "unstable");
  p.segment("now", [delta, LOW], [delta, HIGH], "now");
  for (const m of [...M.METHODS.filter((m) => m !== method), method]) { // the chosen one is drawn last, on top
    p.line(m, curves[m].map(([d, e]) => [d, cut(e)]), chosen(m)).raise();
    p.dots(`dot-${m}`, [[delta, cut(now[m])]], m, m === method ? 5 : 3).raise();
  }
  const second = average || kind === "held"; // the bilinear rule is of second order when it sees the input as it is
  const reach = Math.round(GRID.length * (0.05 + 30 / box.width)); // the grid point under the end of the note
  p.note("order1", [0.0125, Math.max(curves.euler[reach][1], curves.mamba[reach][1])], "error ∝ Δ", "quiet", { dy: -8 });
  p.note("order2", [0.0172, curves.bilinear[8][1]], second ? "error ∝ Δ²" : "", "quiet", { dx: 14, dy: 14 });
  const edge = unstable ? "Euler unstable" : "";
  p.note("limit", [1, LOW], edge, "warn", { anchor: "end", dx: -4, dy: -26 });
  const far = delta > 0.3;
  p.note("delta", [delta, LOW], `Δ = ${fixed(delta)} s`, "", { anchor: far ? "end" : "start", dx: far ? -6 : 6, dy: -8 });
  p.endLabels(M.METHODS.map((m) => ({ key: `l-${m}`, y: cut(curves[m].at(-1)[1]), text: now[m] < 1e-9 ? `${NAMES[m]}: exact` : NAMES[m], cls: chosen(m) })));
}

function summary({ a, delta, method, kind, average }, error) {
  const { A, B } = M.coefficients(method, a, delta);
  const fed = kind === "held" ? "xₖ, the held input" : average ? "the mean of xₖ₋₁ and xₖ" : "xₖ alone, as in S4's code";
  const rule = method === "bilinear" ? ` on ${fed}` : "";
  const quality = error < 1e-9 ? "no error: ZOH solves a held input exactly" : `largest error ${short(error)}`;
  const verdict = Math.abs(A) > 1 ? `It diverges: ${abs("Ā")} = ${fixed(Math.abs(A))} > 1, because Δ > 2/${abs("a")}.`
    : `At ${abs("Δa")} = ${short(Math.abs(a * delta))}, B̄ of ZOH is ${fixed(M.writeRatio(a, delta), 3)} of Mamba's ΔB.`;
  return `${NAMES[method]}${rule}: Ā = ${fixed(A, 3)}, B̄ = ${fixed(B, 3)}, ${quality}. ${verdict}`;
}

function render({ model, el }) {
  let top, bottom, curves, curvesOf;
  function draw({ svg, width, narrow, say }) {
    if (!top) {
      top = panel(svg); bottom = panel(svg);
      bottom.onDrag((d) => assign(model, { delta: Math.min(Math.max(Math.round(d * 100) / 100, 0.01), 1) }));
    }
    const [a, delta, method, kind, box] = ["a", "delta", "method", "kind", "average"].map((name) => model.get(name));
    const average = M.averages(kind, box), o = { a, delta, method, kind, average }, key = `${a} ${kind} ${average}`;
    if (curvesOf !== key) { curves = errorCurves(o); curvesOf = key; }
    const now = M.errors(kind, a, delta, average), height = panelHeight(narrow);
    const room = { left: LEFT, width: width - LEFT - labelRoom(svg, [...Object.values(NAMES).map((n) => `${n} hₖ`), "ZOH: exact"]), height };
    drawSignals(top, o, { ...room, top: 26 });
    drawErrors(bottom, o, curves, now, { ...room, top: 26 + height + 78 });
    say(summary(o, now[method]));
  }
  const fig = figure(el, model, {
    title: "From a differential equation to a recurrence", traits: ["a", "delta", "method", "kind", "average"],
    height: (narrow) => 2 * panelHeight(narrow) + 26 + 78 + 44, lines: (narrow) => (narrow ? 3 : 2), draw,
  });
  fig.controls.append(
    radios(model, "method", "Rule", M.METHODS.map((m) => [m, NAMES[m], m])),
    radios(model, "kind", "Input", [["smooth", "smooth"], ["held", "held"]]),
    toggle(model, "average", "bilinear averages xₖ₋₁, xₖ (smooth input only)", { kind: "smooth" }),
    reset(model),
  );
  return fig.stop;
}

export default { render };

// Discretization: one scalar state-space model, four rules that turn it into a recurrence, and what each costs in accuracy.
import { format } from "d3-format";
import { scaleLinear, scaleLog } from "d3-scale";
import { figure, labelRoom, panel } from "../shared/chart.js";
import { assign, radios, reset } from "../shared/controls.js";
import * as M from "../models/discretization.js";

const NAMES = { zoh: "ZOH", bilinear: "bilinear", euler: "Euler", mamba: "Mamba ΔB" };
const LOW = 3e-6, HIGH = 10, f2 = format(".2f"), f3 = format(".3~g");
const power = (v) => { const e = Math.round(Math.log10(v)); return `10${e < 0 ? "⁻" : ""}${"⁰¹²³⁴⁵"[Math.abs(e)]}`; };
const GRID = M.deltaGrid();

function render({ model, el }) {
  let top, bottom, cached;
  // What depends on a alone: the exact solution and the error curves.
  const solved = (a) => {
    if (cached?.a !== a) {
      const fine = M.solve(a), rows = GRID.map((d) => M.errors(a, d, fine));
      const curves = Object.fromEntries(M.METHODS.map((m) => [m, GRID.map((d, i) => [d, rows[i][m]])]));
      const exact = Array.from({ length: 321 }, (_, i) => { const t = i * M.T_END / 320; return [t, M.at(fine, a, t)]; });
      cached = { a, fine, curves, exact };
    }
    return cached;
  };

  function draw({ svg, width, narrow, say }) {
    if (!top) {
      top = panel(svg); bottom = panel(svg);
      bottom.onDrag((d) => assign(model, { delta: Math.min(Math.max(Math.round(d * 100) / 100, 0.01), 1) }));
    }
    const a = model.get("a"), delta = model.get("delta"), method = model.get("method");
    const { fine, curves, exact } = solved(a), h = M.trajectory(method, a, delta), t = M.times(delta), points = t.map((s, k) => [s, h[k]]);
    const now = M.errors(a, delta, fine), error = now[method];
    const left = 40, right = labelRoom(svg, [...Object.values(NAMES).map((n) => `${n} yₖ`), "exact y(t)"]), w = width - left - right, ph = narrow ? 168 : 200;

    // Top: input, exact output, discrete output.
    const lo = Math.min(-1.5, ...exact.map((p) => p[1])), hi = Math.max(1.5, ...exact.map((p) => p[1]));
    const y = scaleLinear([lo, hi], [0, 1]).nice(6), x = scaleLinear([0, M.T_END], [0, 1]);
    top.frame({ left, top: 26, width: w, height: ph, x, y, xTicks: [0, 2, 4, 6, 8], yTicks: y.ticks(5), xFormat: String, yFormat: format("-.1f"), xLabel: "time t (s)", yLabel: "input and output" });
    const f = (k) => M.at(fine, a, t[k]), worst = h.reduce((b, v, k) => (Math.abs(v - f(k)) > Math.abs(h[b] - f(b)) ? k : b), 0);
    top.line("input", exact.map(([s]) => [s, M.input(s)]), "input");
    top.line("exact", exact, "exact");
    top.line("hold", points, `hold ${method}`, { step: true });
    top.dots("points", points, method, Math.max(1.4, Math.min(4, (w / points.length) * 0.36)));
    top.segment("worst", [t[worst], f(worst)], [t[worst], h[worst]], "worst");
    const late = t[worst] > 5;
    top.note("worst", [t[worst], (f(worst) + h[worst]) / 2], `max error ${f3(error)}`, "", { anchor: late ? "end" : "start", dx: late ? -10 : 10, dy: 4 });
    top.endLabels([
      { key: "l-input", y: M.input(M.T_END), text: "input x(t)", cls: "input" },
      { key: "l-exact", y: exact.at(-1)[1], text: "exact y(t)", cls: "exact" },
      { key: "l-points", y: points.at(-1)[1], text: `${NAMES[method]} yₖ`, cls: method },
    ]);

    // Bottom: largest error against Δ, all rules.
    const ex = scaleLog([0.01, 1], [0, 1]), ey = scaleLog([LOW, HIGH], [0, 1]), cut = (e) => Math.min(Math.max(e, LOW / 10), HIGH * 10);
    bottom.frame({ left, top: 26 + ph + 78, width: w, height: ph, x: ex, y: ey, xTicks: [0.01, 0.03, 0.1, 0.3, 1], yTicks: [1e-5, 1e-4, 1e-3, 0.01, 0.1, 1, 10], xFormat: String, yFormat: power, xLabel: "step size Δ (s)", yLabel: "largest error, max |yₖ − y(tₖ)|" });
    const limit = 2 / Math.abs(a), unstable = method === "euler" && limit < 1;
    bottom.band("unstable", unstable ? limit : 1, 1, "unstable");
    bottom.segment("now", [delta, LOW], [delta, HIGH], "now");
    for (const m of [...M.METHODS.filter((m) => m !== method), method]) { // the chosen one is drawn last, on top
      bottom.line(m, curves[m].map(([d, e]) => [d, cut(e)]), m === method ? `${m} chosen` : m).raise();
      bottom.dots(`dot-${m}`, [[delta, Math.min(now[m], HIGH)]], m, m === method ? 5 : 3).raise();
    }
    bottom.note("order1", [0.0125, Math.max(...["zoh", "euler", "mamba"].map((m) => curves[m][3][1]))], "error ∝ Δ", "quiet", { dy: -14 });
    bottom.note("order2", [0.0172, curves.bilinear[8][1]], "error ∝ Δ²", "quiet", { dx: 14, dy: 14 });
    bottom.note("limit", [1, LOW], unstable ? "unstable" : "", "quiet", { anchor: "end", dx: -4, dy: -26 });
    const far = delta > 0.3;
    bottom.note("delta", [delta, LOW], `Δ = ${f2(delta)} s`, "", { anchor: far ? "end" : "start", dx: far ? -6 : 6, dy: -8 });
    bottom.endLabels(M.METHODS.map((m) => ({ key: `l-${m}`, y: cut(curves[m].at(-1)[1]), text: NAMES[m], cls: m === method ? `${m} chosen` : m })));

    const { A, B0, B1 } = M.coefficients(method, a, delta), gone = Math.abs(A) > 1 ? ` It diverges: |Ā| = ${f2(Math.abs(A))} > 1, since Δ > 2/|a|.` : "";
    say(`${NAMES[method]}, Δ = ${f2(delta)} s, a = ${f2(a)} s⁻¹: largest error ${f3(error)} over ${h.length - 1} steps. Ā = ${format(".3f")(A)}, B̄ = ${format(".3f")(B0 + B1)}.${gone}`);
  }

  const fig = figure(el, model, { title: "From a differential equation to a recurrence", traits: ["a", "delta", "method"], height: (narrow) => 2 * (narrow ? 168 : 200) + 26 + 78 + 44, draw });
  fig.controls.append(radios(model, "method", "Rule", M.METHODS.map((m) => [m, NAMES[m], m])), reset(model));
  return fig.stop;
}

export default { render };

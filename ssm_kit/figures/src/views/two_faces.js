// TwoFaces: one model computed as a recurrence (left) and as a convolution (right), output by output. With selection
// every output has a kernel of its own: a weighted sum, but no convolution.
import { scaleLinear } from "d3-scale";
import * as M from "../models/two_faces.js";
import { figure, panel } from "../shared/chart.js";
import { reset, stepper, toggle } from "../shared/controls.js";
import { fixed, short, sub } from "../shared/format.js";

const N = M.INPUTS.length, SOFT = 0.45, FAINT = 0.22, TICKS = [0, 5, 10, 15];
const TRAITS = ["a", "delta", "length", "selection", "step"];
const many = (n, noun) => `${n} ${noun}${n === 1 ? "" : "s"}`;
const positions = () => scaleLinear([-0.6, N - 0.4], [0, 1]);
const points = (values) => values.map((v, i) => [i, v]);

const two = (v) => (v ? fixed(v, 2) : "0");

/** Two columns of four rows; `box(i)` is row i within its column. */
function layout(width, narrow) {
  const gap = narrow ? 14 : 40, left = 46, row = narrow ? 64 : 80, column = (width - gap) / 2, pitch = row + 46;
  const common = { xLabel: "", xTicks: [], xFormat: String, yFormat: (v) => short(v, 2), left, width: column - left, height: row };
  const top = (i) => 50 + i * pitch - (i > 1 ? 16 : 0); // the row of inputs has no tick labels
  const box = (i, options) => ({ ...common, top: top(i), ...options });
  return { far: column + gap, box, numbers: top(4) - 4, height: top(4) + 24, bar: ((column - left) / (N + 1)) * 0.62 };
}

/** What each face must know before it starts: two coefficients, or a weight for every lag. */
function drawNeeds([left, right], { box, bar }, { k, steps, rows, kernel, selection }) {
  const most = Math.max(...steps), known = k >= 0 || !selection;
  left.frame(box(0, { x: positions(), y: scaleLinear([0, 1.15 * most], [0, 1]), yTicks: [0, most], yFormat: two, xTicks: TICKS,
    yLabel: selection ? "step Δₖ of each token" : "step Δ, the same for all" }));
  left.bars("steps", points(steps), "state", { width: bar }).attr("opacity", SOFT);
  left.bars("step", k >= 0 ? [[k, steps[k]]] : [], "state", { width: bar });

  const now = selection ? (rows[k] ?? []) : kernel, high = Math.max(...rows.map((row) => row[0]));
  right.frame(box(0, { x: positions(), y: scaleLinear([0, 1.15 * high], [0, 1]), yTicks: [0, high], yFormat: two, xTicks: TICKS,
    yLabel: known ? `kernel ${selection ? `of y${sub(k)}` : "Kᵢ"} by lag i` : "no kernel before the inputs" }));
  for (let i = 0; i < N; i++) right.line(`past${i}`, selection && i < k ? points(rows[i]) : [], "state").attr("opacity", 0.35);
  right.line("kernel", points(now), "state chosen").raise();
  right.dots("lags", points(now), "state", 3).raise();
}

/** Which inputs each face reads for this output; over the right ones lies the kernel, flipped, on a scale of its own. */
function drawInputs([left, right], { box, bar }, { k, rows, kernel, selection, length }) {
  const window = Math.min(k + 1, length), all = window > k ? "input: reads all so far" : `input: reads the last ${length}`;
  for (const [p, reach, yLabel] of [[left, Math.min(k + 1, 1), "input: reads one"], [right, window, all]]) {
    p.frame(box(1, { x: positions(), y: scaleLinear([-1.15, 1.15], [0, 1]), yTicks: [-1, 0, 1], yLabel }));
    p.band("reach", k - reach + 0.5, k + 0.5, "area input");
    p.bars("all", points(M.INPUTS), "input", { width: bar }).attr("opacity", FAINT);
    p.bars("read", points(M.INPUTS).filter(([i]) => i <= k && i > k - reach), "input", { width: bar });
  }
  const row = selection ? (rows[k] ?? []) : kernel, flipped = row.map((w, lag) => [k - lag, w / Math.max(...row)]);
  right.line("flipped", flipped, "state").raise();
  right.dots("weights", flipped, "state", 2.5).raise();
}

/** How each face adds up this output: two terms, or one product for every input it reads. */
function drawTerms([left, right], { box, bar }, { k, h, rows, A, B, selection, domain, yTicks }) {
  const y = () => scaleLinear(domain, [0, 1]), kept = k > 0 ? A * h[k - 1] : 0, at = (x, value) => (k >= 0 ? [[x, value]] : []);
  const products = k >= 0 ? M.products(rows[k], M.INPUTS, k) : [], sum = N + 1.6;
  left.frame(box(2, { x: scaleLinear([0.4, 3.6], [0, 1]), y: y(), yTicks, xTicks: [1, 2, 3], xFormat: (i) => ["Ā hₖ₋₁", "+ B̄ xₖ", "= yₖ"][i - 1], 
    yLabel: k >= 0 || !selection ? `adds two: Ā ${two(A)}, B̄ ${two(B)}` : "adds two terms" }));
  left.bars("kept", at(1, kept), "state", { width: 2.4 * bar }).attr("opacity", SOFT);
  left.bars("new", at(2, h[k]), "input", { width: 2.4 * bar, base: kept });
  left.bars("sum", at(3, h[k]), "state", { width: 2.4 * bar });
  right.frame(box(2, { x: scaleLinear([-0.6, N + 2.6], [0, 1]), y: y(), yTicks, xTicks: [0, 5, 10, sum], xFormat: (i) => (i > N ? "yₖ" : i),
    yLabel: k >= 0 ? `adds ${many(products.length, "product")}` : "adds products" }));
  right.bars("products", products.map((p, lag) => [k - lag, p]), "state", { width: bar }).attr("opacity", SOFT);
  right.bars("sum", at(sum, products.reduce((total, p) => total + p, 0)), "state", { width: 1.6 * bar });
}

function drawOutputs(panels, { box, bar }, { k, h, sums, domain, yTicks }) {
  for (const [i, values] of [h, sums].entries()) {
    panels[i].frame(box(3, { x: positions(), y: scaleLinear(domain, [0, 1]), yTicks, xTicks: TICKS, yLabel: "output yₖ, by step k" }));
    panels[i].bars("past", points(values).slice(0, Math.max(k, 0)), "state", { width: bar }).attr("opacity", SOFT);
    panels[i].bars("now", points(values).filter(([j]) => j === k), "state", { width: bar });
  }
}

/** Both outputs to the last digit, those that differ in another colour. */
function drawNumbers(layer, { far, numbers }, { k, h, sums, way }) {
  const [one, other] = [h, sums].map((v) => (k >= 0 ? v[k].toFixed(17).replace("-", "−") : "")), place = [...one].findIndex((d, i) => d !== other[i]);
  const cut = place < 0 ? other.length : place, name = `y${k >= 0 ? sub(k) : "ₖ"}`;
  const cells = [[0, 0, `${name} by recurrence`], [far, 0, `${name} by ${way}`], [0, 1, one], [far, 1, other.slice(0, cut), other.slice(cut)]];
  const text = layer.selectAll("text").data(cells).join("text").attr("class", "note").attr("x", (d) => d[0]).attr("y", (d) => numbers + 19 * d[1]);
  text.selectAll("tspan").data((d) => [[d[2], ""], [d[3] ?? "", "warn"]]).join("tspan").attr("class", (d) => d[1]).style("fill", "currentColor").text((d) => d[0]);
}

function verdict({ k, h, sums, selection, length }) {
  if (k < 0) return selection
    ? "Before the first input there is no kernel: its weights depend on inputs that have not come. Press Play."
    : `Before the first input the recurrence holds two numbers, Ā and B̄; the kernel is there whole, ${many(length, "number")}. Press Play.`;
  const gap = Math.abs(h[k] - sums[k]), right = selection ? "a weighted sum: a different kernel for every output" : "convolution";
  const values = `y${sub(k)}: ${fixed(h[k], 4)} by recurrence, ${fixed(sums[k], 4)} by ${right}`;
  if (k >= length) return `${values}. ${selection ? "Each" : "The"} kernel is cut after ${many(length, "number")}, so the two differ by ${short(gap, 2)}: what older inputs left in the state.`;
  const same = `${values}${selection ? ". D" : "; d"}ifference ${short(gap, 2)}${gap ? ", rounding" : ""}.`;
  if (!selection) return `${same} The recurrence read 1 input and 1 state, the convolution ${many(k + 1, "input")} and ${many(k + 1, "weight")}.`;
  return k === 0 ? `${same} Step on: will the next output use the same weights?` : `${same} The ${k + 1} kernels so far do not coincide: no single shape can slide over the input.`;
}

function render({ model, el }) {
  let columns, pairs, layer;
  function build(svg) {
    columns = ["Recurrence", "Convolution"].map((name) => {
      const column = svg.append("g");
      column.append("text").attr("class", "label chosen").attr("y", 12).text(name);
      return column;
    });
    pairs = Array.from({ length: 4 }, () => columns.map(panel));
    layer = svg.append("g");
  }
  function draw({ svg, width, narrow, say }) {
    if (!columns) build(svg);
    const [a, delta, length, selection, step] = TRAITS.map((name) => model.get(name)), k = step - 1, place = layout(width, narrow);
    const { steps, kernel, rows, recurrence: h, sums } = M.faces(a, delta, length, selection), { A, B } = M.coefficients(a, steps[Math.max(k, 0)]);
    const outputs = scaleLinear([Math.min(0, ...h, ...sums), Math.max(0, ...h, ...sums)], [0, 1]).nice(3);
    const way = selection ? "weighted sum" : "convolution";
    const now = { k, steps, kernel, rows, h, sums, A, B, length, selection, way, domain: outputs.domain(), yTicks: outputs.ticks(3) };
    columns[1].attr("transform", `translate(${place.far},0)`).select("text").text(way[0].toUpperCase() + way.slice(1));
    [drawNeeds, drawInputs, drawTerms, drawOutputs].forEach((part, i) => part(pairs[i], place, now));
    drawNumbers(layer, place, now);
    say(verdict(now));
  }
  const fig = figure(el, model, { title: "One model, two faces", traits: TRAITS, height: (narrow) => layout(720, narrow).height, lines: (narrow) => (narrow ? 4 : 2), draw });
  const steps = stepper(model, "step", () => N);
  fig.controls.append(steps.bar, toggle(model, "selection", "Selection: Δ set by the input"), reset(model, steps));
  return () => { steps.stop(); fig.stop(); };
}

export default { render };

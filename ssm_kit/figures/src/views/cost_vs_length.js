// CostVsLength: where the work of a pass over L tokens goes, and what a sequence holds in memory, for a stack of
// attention and state-space layers.
import { scaleLinear, scaleLog } from "d3-scale";
import { figure, labelRoom, panel } from "../shared/chart.js";
import { assign, radios, reset } from "../shared/controls.js";
import { bytes, count, percent, power, powers } from "../shared/format.js";
import * as M from "../models/cost.js";

const TITLE = "What a sequence costs, and what it holds";
const LOW = 256, HIGH = 2 ** 20, LENGTHS = powers(2, LOW, HIGH);
const TICKS = new Map([[256, "256"], [2048, "2k"], [32768, "32k"], [131072, "128k"], [HIGH, "1M"]]);
const FLOPS = [1e9, 1e20], BYTES = [2 ** 18, 2 ** 42]; // with room above the lines for the notes
const KINDS = [["score", "scores", "attention"], ["linear", "linear layers", "quiet"], ["scan", "SSM scan", "state"]];
const HELD = [["cache", "KV cache", "attention"], ["state", "state", "state"]];
const SHARES = 66; // height of the bar of shares with its texts, in px
const LEFT = 38, LEFT_BYTES = 50; // room for the numbers of the y axes

const panelHeight = (narrow) => (narrow ? 176 : 236);
const share = (work) => percent(work.score / M.total(work));

/** Length axis, vertical line at the chosen length. */
function frame(p, box, y, length, top) {
  const x = scaleLog([LOW, HIGH], [0, 1]), ticks = { xTicks: [...TICKS.keys()], xFormat: (v) => TICKS.get(v) };
  p.frame({ ...box, ...y, ...ticks, x, xLabel: "length L (tokens)" });
  p.segment("now", [length, y.y.domain()[0]], [length, top], "now");
}

/**
 * The terms of one panel, each [key, text, class] with its line, a dot at the chosen length and its label; dashed, what
 * it would be if every layer were of its kind. cost(attention, tokens) holds the terms by key; `others` are labels.
 */
function terms(p, kinds, cost, s, attention, length, others) {
  const alone = { score: s.layers, cache: s.layers, scan: 0, state: 0 }; // attention layers where all are of this kind
  const curve = (key, a) => LENGTHS.map((n) => [n, cost(a, n)[key]]);
  const labels = kinds.map(([key, text, cls]) => {
    const here = curve(key, attention), present = here[0][1] > 0, dashed = key in alone ? curve(key, alone[key]) : [];
    p.line(`${key}-alone`, dashed, cls).attr("stroke-dasharray", "5 4").style("stroke-width", 1.25);
    p.line(key, present ? here : [], cls);
    p.dots(`dot-${key}`, present ? [[length, cost(attention, length)[key]]] : [], cls, 4);
    return { key: `l-${key}`, text, cls, y: (present ? here : dashed).at(-1)[1] };
  });
  p.endLabels([...others, ...labels]);
}

/** Where two lines meet: a dot, and at the top of a thin line what it means; outside the panel only the text. */
function meeting(p, [at, value], top, lines) {
  const seen = at >= LOW && at <= HIGH, place = Math.min(Math.max(at, LOW), HIGH), before = place > 2 ** 14.5;
  p.line("meet-line", seen ? [[at, value], [at, top]] : [], "quiet").style("stroke-width", 1);
  p.dots("meet", seen ? [[at, value]] : [], "exact", 3.5);
  const side = before ? { anchor: "end", dx: -6 } : { anchor: "start", dx: 6 };
  lines.forEach((text, i) => p.note(`meet-${i}`, [place, top], text, "", { ...side, dy: 12 + 15 * i }));
}

/** One bar for all the work, as long as the drawing is wide, and below it what its parts are. */
function drawShares(g, width, s, attention, length) {
  const now = M.sequenceWork(s, attention, length), all = M.total(now), x = scaleLinear([0, all], [0, width]);
  const before = [0, now.score, now.score + now.linear];
  const parts = KINDS.map(([kind, name, cls], i) => ({
    cls, left: x(before[i]), size: x(now[kind]), text: now[kind] ? `${name} ${percent(now[kind] / all)}` : `no ${name}`,
  }));
  g.selectAll(".axis-title").data([`where the work goes, L = ${count(length)}`]).join("text")
    .attr("class", "axis-title").attr("y", 9).text(String);
  g.selectAll(".bars").data(parts).join("rect").attr("class", (d) => `bars ${d.cls}`)
    .attr("x", (d) => d.left).attr("width", (d) => d.size).attr("y", 17).attr("height", 18);
  g.selectAll(".label").data(parts).join("text").attr("class", (d, i) => `label ${d.cls}${i ? "" : " chosen"}`)
    .attr("x", (_, i) => (i * width) / 2).attr("y", 52)
    .attr("text-anchor", (_, i) => ["start", "middle", "end"][i]).text((d) => d.text);
}

/** Work of one causal pass against its length. */
function drawWork(p, box, s, attention, length) {
  const cost = (a, n) => M.sequenceWork(s, a, n), sum = (n) => M.total(cost(attention, n));
  const y = { y: scaleLog(FLOPS, [0, 1]), yTicks: powers(10, ...FLOPS, 2), yFormat: power(10) };
  frame(p, box, { ...y, yLabel: "work of one causal pass over L tokens (FLOP)" }, length, Math.max(sum(length), 1e18));
  p.line("total", LENGTHS.map((n) => [n, sum(n)]), "exact");
  terms(p, KINDS, cost, s, attention, length, [{ key: "l-total", y: sum(HIGH), text: "total", cls: "exact" }]);
  const meet = attention ? M.scoreCrossover(s, attention).sequence : Infinity;
  const where = meet <= HIGH ? `at L = ${count(meet)}` : "beyond L = 1M";
  meeting(p, [meet, cost(attention, meet).linear], FLOPS[1], attention ? ["scores = linear", where] : ["", ""]);
}

/** Bytes held for one sequence against its length, beside the bytes of the weights, which all sequences share. */
function drawHeld(p, box, s, attention, length) {
  const cost = (a, n) => M.memory(s, a, n), { cache } = cost(attention, length), file = 2 * M.weights(s, attention);
  const y = { y: scaleLog(BYTES, [0, 1]), yTicks: powers(2, 2 ** 20, 2 ** 40, 5), yFormat: bytes };
  frame(p, box, { ...y, yLabel: "bytes held per sequence (bf16)" }, length, Math.max(cache, 2 ** 37));
  p.line("weights", LENGTHS.map((n) => [n, file]), "quiet");
  terms(p, HELD, cost, s, attention, length, [{ key: "l-weights", y: file, text: "weights", cls: "quiet" }]);
  const ssm = s.layers - attention || s.layers; // the dashed line where there is no other
  const meet = M.memoryCrossover(s, attention || s.layers, ssm);
  meeting(p, [meet, cost(s.layers - ssm, 1).state], BYTES[1], ["cache = state", `at ${count(meet)} tokens`]);
}

function sentence(s, attention, length) {
  const { cache, state } = M.memory(s, attention, length), amount = (v) => (v ? bytes(v) : "none");
  const whole = share(M.sequenceWork(s, attention, length)), last = share(M.tokenWork(s, attention, length));
  const scores = `the score term is ${whole} of the work at L = ${count(length)} (${last} for its last token)`;
  const text = `With attention in ${attention} of ${s.layers} layers, ${attention ? scores : "there is no score term"}.`
    + ` KV cache ${amount(cache)}, state ${amount(state)}.`;
  return text.replace(/ (?=%|.iB)|(?<=<) /g, "\u00a0"); // no number alone at the end of a line
}

/** The same share of the layers attends after a change of preset (cost_vs_length.py does the same). */
function keepShare(model) {
  const before = model.get("_layers"), layers = model.get("_presets")[model.get("preset")].layers;
  if (layers === before) return;
  const attention = { attention_layers: Math.floor((model.get("attention_layers") / before) * layers + 0.5) };
  const end = { _layers: layers }; // the slider's upper end, never to be below its value
  for (const change of layers > before ? [end, attention] : [attention, end]) assign(model, change);
}

function render({ model, el }) {
  const presets = model.get("_presets");
  const names = Object.keys(presets).sort((p, q) => presets[p].layers - presets[q].layers); // saved notebooks sort keys
  let shares, work, beside, held, footnote;

  function build(svg) {
    shares = svg.append("g");
    work = panel(svg);
    beside = svg.append("g");
    held = panel(beside);
    footnote = svg.append("text").attr("class", "note quiet");
    footnote.text("dashed: the same term if every layer were of that kind");
    for (const p of [work, held])
      p.onDrag((n) => assign(model, { length: Math.min(Math.max(2 ** Math.round(Math.log2(n)), LOW), HIGH) }));
  }

  function draw({ svg, width, narrow, say }) {
    if (!work) build(svg);
    const s = presets[model.get("preset")], length = model.get("length");
    const attention = Math.min(model.get("attention_layers"), s.layers), chosen = [s, attention, length];
    const [right, rightBytes] = [KINDS, HELD].map((kinds) => labelRoom(svg, kinds.map((kind) => kind[1])));
    const room = [width - LEFT - right, width - LEFT_BYTES - rightBytes]; // for axes that have the width to themselves
    const half = Math.floor((room[0] + room[1] - width) / 2), height = panelHeight(narrow);
    const top = SHARES + 26, below = narrow ? top + height + 78 : top;
    beside.attr("transform", `translate(${narrow ? 0 : room[1] - half},0)`);
    drawShares(shares, width, ...chosen);
    drawWork(work, { left: LEFT, top, height, width: narrow ? room[0] : half }, ...chosen);
    drawHeld(held, { left: LEFT_BYTES, top: below, height, width: narrow ? room[1] : half }, ...chosen);
    footnote.attr("y", below + height + 58);
    say(sentence(...chosen));
  }

  const height = (narrow) => SHARES + 26 + panelHeight(narrow) + (narrow ? 78 + panelHeight(narrow) : 0) + 64;
  const traits = ["length", "preset", "attention_layers"], follow = () => keepShare(model);
  const fig = figure(el, model, { title: TITLE, traits, height, lines: (narrow) => (narrow ? 4 : 2), draw });
  fig.controls.append(radios(model, "preset", "Model", names.map((name) => [name, name])), reset(model));
  model.on("change:preset", follow);
  return () => { model.off("change:preset", follow); fig.stop(); };
}

export default { render };

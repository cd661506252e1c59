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
const FLOPS = [1e9, 1e19], BYTES = [2 ** 18, 2 ** 40];
const KINDS = [["score", "scores", "attention"], ["linear", "linear layers", "quiet"], ["scan", "SSM scan", "state"]];
const SHARES = 66; // height of the bar of shares with its texts, in px
const share = (work) => work.score / M.total(work);
const panelHeight = (narrow) => (narrow ? 176 : 236);

function render({ model, el }) {
  let shares, work, held, beside, footnote;

  /** The same share of the layers attends after a change of preset (cost_vs_length.py does the same). */
  const keepShare = () => {
    const before = model.get("_layers"), layers = model.get("_presets")[model.get("preset")].layers;
    if (layers === before) return;
    const attention = Math.floor((model.get("attention_layers") / before) * layers + 0.5);
    // The slider's upper end follows _layers: it must never be below the value.
    for (const change of layers > before ? [{ _layers: layers }, { attention_layers: attention }] : [{ attention_layers: attention }, { _layers: layers }]) assign(model, change);
  };

  /** A line of this stack, and dashed what it would be if every layer were of its kind. */
  function term(p, key, cls, here, alone) {
    p.line(`${key}-alone`, alone, cls).attr("stroke-dasharray", "5 4").style("stroke-width", 1.25);
    p.line(key, here[0][1] > 0 ? here : [], cls);
  }

  /** One bar for all the work, as long as the drawing is wide, and what its parts are. */
  function drawShares(width, s, attention, length) {
    const now = M.sequenceWork(s, attention, length), all = M.total(now), x = scaleLinear([0, all], [0, width]);
    const parts = KINDS.map(([kind, name, cls], i) => ({ cls, left: x(KINDS.slice(0, i).reduce((sum, [k]) => sum + now[k], 0)), size: x(now[kind]), text: now[kind] ? `${name} ${percent(now[kind] / all)}` : `no ${name}` }));
    shares.selectAll(".axis-title").data([`where the work goes, L = ${count(length)}`]).join("text").attr("class", "axis-title").attr("y", 9).text(String);
    shares.selectAll(".bars").data(parts).join("rect").attr("class", (d) => `bars ${d.cls}`).attr("y", 17).attr("height", 18).attr("x", (d) => d.left).attr("width", (d) => d.size);
    shares.selectAll(".label").data(parts).join("text").attr("class", (d, i) => `label ${d.cls}${i ? "" : " chosen"}`).attr("y", 52)
      .attr("x", (_, i) => (i * width) / 2).attr("text-anchor", (_, i) => ["start", "middle", "end"][i]).text((d) => d.text);
  }

  /** Where two lines meet: a dot, and on a thin line above it what it means; beyond the panel the text says so. */
  function meeting(p, at, value, top, lines) {
    const seen = at >= LOW && at <= HIGH, place = Math.min(Math.max(at, LOW), HIGH), before = place > 2 ** 15;
    p.line("meet-line", seen ? [[at, value], [at, top]] : [], "quiet").style("stroke-width", 1);
    p.dots("meet", seen ? [[at, value]] : [], "exact", 3.5);
    lines.forEach((text, i) => p.note(`meet-${i}`, [place, top], text, "", { anchor: before ? "end" : "start", dx: before ? -6 : 6, dy: 12 + 15 * i }));
  }

  function drawWork(box, s, attention, length) {
    const at = (a) => LENGTHS.map((n) => [n, M.sequenceWork(s, a, n)]), here = at(attention), of = (rows, kind) => rows.map(([n, w]) => [n, w[kind]]);
    work.frame({ ...box, x: scaleLog([LOW, HIGH], [0, 1]), y: scaleLog(FLOPS, [0, 1]), xTicks: [...TICKS.keys()], yTicks: powers(10, ...FLOPS, 2), xFormat: (v) => TICKS.get(v), yFormat: power(10), xLabel: "length L (tokens)", yLabel: "work of one causal pass over L tokens (FLOP)" });
    const sums = here.map(([n, w]) => [n, M.total(w)]), now = M.sequenceWork(s, attention, length);
    work.line("total", sums, "exact");
    work.line("linear", of(here, "linear"), "quiet");
    term(work, "score", "attention", of(here, "score"), of(at(s.layers), "score"));
    term(work, "scan", "state", of(here, "scan"), of(at(0), "scan"));
    work.segment("now", [length, FLOPS[0]], [length, Math.max(M.total(now), 1e17)], "now");
    for (const [kind, , cls] of KINDS) work.dots(`dot-${kind}`, now[kind] ? [[length, now[kind]]] : [], cls, 4);
    const meet = attention ? M.scoreCrossover(s, attention).sequence : Infinity;
    meeting(work, meet, meet <= HIGH ? M.sequenceWork(s, attention, meet).linear : 0, FLOPS[1], attention ? ["scores = linear layers", meet <= HIGH ? `at L = ${count(meet)}` : "beyond L = 1M"] : ["", ""]);
    work.endLabels([
      { key: "l-total", y: sums.at(-1)[1], text: "total", cls: "exact" },
      ...KINDS.map(([kind, text, cls]) => ({ key: `l-${kind}`, y: (here.at(-1)[1][kind] || M.sequenceWork(s, kind === "scan" ? 0 : s.layers, HIGH)[kind]), text, cls })),
    ]);
  }

  function drawHeld(box, s, attention, length) {
    const at = (a) => LENGTHS.map((n) => [n, M.memory(s, a, n)]), here = at(attention), all = at(s.layers), none = at(0), of = (rows, kind) => rows.map(([n, m]) => [n, m[kind]]);
    held.frame({ ...box, x: scaleLog([LOW, HIGH], [0, 1]), y: scaleLog(BYTES, [0, 1]), xTicks: [...TICKS.keys()], yTicks: powers(2, 2 ** 20, BYTES[1], 5), xFormat: (v) => TICKS.get(v), yFormat: bytes, xLabel: "length L (tokens)", yLabel: "bytes held per sequence (bf16)" });
    const file = 2 * M.weights(s, attention), now = M.memory(s, attention, length);
    held.line("weights", LENGTHS.map((n) => [n, file]), "quiet");
    term(held, "cache", "attention", of(here, "cache"), of(all, "cache"));
    term(held, "state", "state", of(here, "state"), of(none, "state"));
    held.segment("now", [length, BYTES[0]], [length, Math.max(now.cache, 2 ** 36)], "now"); // below the note
    for (const [kind, cls] of [["cache", "attention"], ["state", "state"]]) held.dots(`dot-${kind}`, now[kind] ? [[length, now[kind]]] : [], cls, 4);
    const attends = attention || s.layers, scans = s.layers - attention || s.layers, meet = M.memoryCrossover(s, attends, scans), flat = M.memory(s, s.layers - scans, 1).state;
    meeting(held, meet, flat, BYTES[1], ["cache = state", `at ${count(meet)} tokens`]);
    held.endLabels([
      { key: "l-weights", y: file, text: "weights", cls: "quiet" },
      { key: "l-cache", y: (attention ? here : all).at(-1)[1].cache, text: "KV cache", cls: "attention" },
      { key: "l-state", y: flat, text: "state", cls: "state" },
    ]);
  }

  function draw({ svg, width, narrow, say }) {
    if (!work) {
      shares = svg.append("g"); work = panel(svg); beside = svg.append("g"); held = panel(beside);
      footnote = svg.append("text").attr("class", "note quiet");
      const move = (n) => assign(model, { length: Math.min(Math.max(2 ** Math.round(Math.log2(n)), LOW), HIGH) });
      work.onDrag(move); held.onDrag(move);
    }
    const s = model.get("_presets")[model.get("preset")], attention = Math.min(model.get("attention_layers"), s.layers), length = model.get("length");
    const ph = panelHeight(narrow), top = SHARES + 26, left = 38, left2 = 50;
    const right = labelRoom(svg, ["linear layers"]), right2 = labelRoom(svg, ["KV cache"]);
    const half = Math.floor((width - left - right - left2 - right2) / 2);
    const below = narrow ? top + ph + 78 : top;
    beside.attr("transform", `translate(${narrow ? 0 : width - right2 - half - left2},0)`);
    drawShares(width, s, attention, length);
    drawWork({ left, top, width: narrow ? width - left - right : half, height: ph }, s, attention, length);
    drawHeld({ left: left2, top: below, width: narrow ? width - left2 - right2 : half, height: ph }, s, attention, length);
    footnote.attr("y", below + ph + 58).text("dashed: the same term if every layer were of that kind");
    say(sentence(s, attention, length));
  }

  const fig = figure(el, model, { title: TITLE, traits: ["length", "preset", "attention_layers"], height: (narrow) => SHARES + 26 + panelHeight(narrow) + (narrow ? 78 + panelHeight(narrow) : 0) + 64, lines: (narrow) => (narrow ? 4 : 2), draw });
  fig.controls.append(radios(model, "preset", "Model", Object.keys(model.get("_presets")).map((name) => [name, name])), reset(model));
  model.on("change:preset", keepShare);
  return () => { model.off("change:preset", keepShare); fig.stop(); };
}

function sentence(s, attention, length) {
  const { cache, state } = M.memory(s, attention, length), amount = (v) => (v ? bytes(v) : "none");
  const term = attention ? `the score term is ${percent(share(M.sequenceWork(s, attention, length)))} of the work at L = ${count(length)} (${percent(share(M.tokenWork(s, attention, length)))} for its last token)` : "there is no score term";
  return `With attention in ${attention} of ${s.layers} layers, ${term}. KV cache ${amount(cache)}, state ${amount(state)}.`.replace(/ (%|.iB)/g, "\u00a0$1");
}

export default { render };

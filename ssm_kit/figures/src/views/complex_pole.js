// ComplexPole: the powers of one complex number, a memory that turns and fades.
import { format } from "d3-format";
import { scaleLinear } from "d3-scale";
import * as M from "../models/recurrence.js";
import { figure, labelRoom, panel } from "../shared/chart.js";
import { assign, reset } from "../shared/controls.js";
import { fixed, percent, short } from "../shared/format.js";

const LAGS = 81, LEFT = 44, REACH = 1.2, PLANE = 1.32, MOST = { radius: 1.02, angle: 3.14 };
const axis = format("-~g"), steps = (v) => `${short(v, 2)} step${short(v, 2) === "1" ? "" : "s"}`;
const degrees = (angle) => `${fixed((angle * 180) / Math.PI, 0)}°`;

/** An arc of this radius from the real axis up to `angle`. */
const arc = (radius, angle) => Array.from({ length: 121 }, (_, i) => [
  radius * Math.cos((angle * i) / 120), radius * Math.sin((angle * i) / 120),
]);

/** The way between the powers: r^t · e^(iθt) for real t, about 50 points a turn. */
function spiral(r, angle) {
  const fine = Math.ceil(8 * angle) + 1;
  return M.powers(r ** (1 / fine), angle / fine, (LAGS - 1) * fine + 1);
}

/** The disc is square; on a phone the response goes under it. */
function layout(width, narrow, room) {
  const side = narrow ? 252 : 264, shift = narrow ? 0 : LEFT + side + 30, top = narrow ? 26 + side + 78 : 26;
  const disc = { left: LEFT, top: 26, width: side, height: side };
  const response = { left: LEFT, top, width: width - shift - LEFT - room, height: narrow ? 160 : side };
  return { disc, response, shift, height: top + response.height + 42 };
}

/** Poles are drawn as crosses in pole diagrams. */
function cross(p, x, y, key, [re, im], size, cls) {
  const corner = `M${x(re) - size},${y(im) - size}`, back = -2 * size;
  p.line(key, [], cls).attr("d", `${corner}l${-back},${-back}m0,${back}l${back},${-back}`);
}

function drawDisc(p, box, { r, angle, powers, colour, probe }) {
  const x = scaleLinear([-PLANE, PLANE], [0, 1]), y = x.copy(), [re, im] = powers[1], at = powers[probe];
  p.frame({ ...box, x, y, xTicks: [-1, 0, 1], yTicks: [-1, 0, 1], xFormat: axis, yFormat: axis,
    xLabel: "real part", yLabel: "imaginary part" });
  p.line("imaginary", [[0, -PLANE], [0, PLANE]], "rule");
  p.line("circle", arc(1, 2 * Math.PI), "quiet");
  p.line("path", spiral(r, angle), `${colour} faint`);
  p.dots("powers", powers, colour, 2.6);
  p.line("arm", [[0, 0], [re, im]], "ink");
  p.line("angle", r > 0.4 ? arc(0.3, angle) : [], "ink");
  p.line("real-part", at ? [[0, at[1]], at] : [], "real");
  p.dots("probe", at ? [at] : [], "ink", 5);
  cross(p, x, y, "mirror", [re, -im], 5, "quiet chosen");
  cross(p, x, y, "halo", [re, im], 8, "halo");
  cross(p, x, y, "pole", [re, im], 8, `${colour} chosen`);
  const far = angle < 0.6 ? 0.66 : 0.46; // where the letter fits between the arm and the axis
  const letter = r > far && angle > 0.25 ? "θ" : "";
  p.note("theta", arc(far, angle / 2).at(-1), letter, "chosen clear", { anchor: "middle", dy: 4 });
  const name = `a: r = ${fixed(r)}, θ = ${fixed(angle)} rad`, mirrored = im > 0.05 ? "grey: its mirror image" : "";
  p.note("pole-label", [PLANE, PLANE], name, `${colour} chosen`, { anchor: "end", dx: -4, dy: 13 });
  p.note("mirror-label", [PLANE, -PLANE], mirrored, "quiet", { anchor: "end", dx: -4, dy: -6 });
}

function drawResponse(p, box, { r, angle, powers, colour, probe }) {
  const size = powers.map((_, i) => [i, r ** i]), at = powers[probe], last = size.at(-1)[1];
  p.frame({ ...box, x: scaleLinear([-1, LAGS], [0, 1]), y: scaleLinear([-REACH, REACH], [0, 1]),
    xTicks: [0, 20, 40, 60, 80], yTicks: [-1, 0, 1], xFormat: String, yFormat: axis,
    xLabel: "steps i after the input", yLabel: "what is left of one input, Re aⁱ" });
  p.line("above", size, "goal");
  p.line("below", size.map(([i, v]) => [i, -v]), "goal");
  p.stems("response", powers.map(([re], i) => [i, re]), colour, 2.6);
  p.endLabels([["rⁱ", last], ["−rⁱ", -last]].map(([text, at]) => ({ key: text, y: at, text, cls: "quiet" })));
  drawTurn(p, angle);
  drawHalf(p, r);
  p.line("real-part", at ? [[probe, 0], [probe, at[0]]] : [], "real");
  p.dots("probe", at ? [[probe, at[0]]] : [], "ink", 5);
  const found = `i = ${probe}: turned by ${degrees(probe * angle)}, size ${fixed(r ** probe)}`;
  const [text, look] = at ? [found, "chosen"] : ["press to find a step in the disc", "quiet"];
  p.note("probe-label", [LAGS - 1, REACH], text, look, { anchor: "end", dy: 13 });
}

/** How many steps one turn takes, as a length under the curve. */
function drawTurn(p, angle) {
  const turn = M.period(angle), end = Math.min(turn, LAGS - 1), floor = -1.1;
  p.line("turn", angle > 0 ? [[0, floor], [Math.min(turn, LAGS), floor]] : [], "ink");
  p.dots("turn-ends", angle > 0 ? [[0, floor], [turn, floor]] : [], "ink", 3.5);
  p.note("turn-label", [end, floor], angle > 0 ? `one turn: ${steps(turn)}` : "never turns", "chosen",
    turn > 40 ? { anchor: "end", dy: -8 } : { dx: 9, dy: 4 });
}

/** Where the envelope has fallen to one half. */
function drawHalf(p, r) {
  const life = M.halfLife(r), shown = r > 0 && life < LAGS;
  p.dots("half", shown ? [[life, 0.5]] : [], "ink", 4.5);
  p.note("half-label", [shown ? life : 0, 0.5], shown ? `half left after ${steps(life)}` : "", "chosen",
    life > 40 ? { anchor: "end", dy: -12 } : { dx: 9, dy: -6 });
}

/** The readout: what one step does, then the rhythm, then the fading. */
function sentence({ r, angle }) {
  if (r === 0) return "Radius 0: no memory. The state is the latest input alone.";
  const rhythm = angle === 0 ? "no turn and no rhythm" : `period 2π/θ = ${steps(M.period(angle))}`;
  const staying = r > 1 ? "unstable, it grows without bound" : "unstable, it never fades";
  const fading = r < 1 ? `half-life ${steps(M.halfLife(r))}` : staying;
  const kept = percent(r).replace(" ", "\u00a0"); // never split over two lines
  return `Each step turns the state by ${degrees(angle)} and keeps ${kept} of its size: ${rhythm}; ${fading}.`;
}

function render({ model, el }) {
  let disc, response, probe; // probe: the step that the reader points at, shown in both panels
  const drag = (x, y) => assign(model, {
    radius: Math.min(Math.round(100 * Math.hypot(x, y)) / 100, MOST.radius),
    angle: Math.min(Math.round(100 * Math.abs(Math.atan2(y, x))) / 100, MOST.angle),
  });
  const point = (k) => { probe = Math.min(Math.max(Math.round(k), 0), LAGS - 1); fig.schedule(); };

  function draw({ svg, width, narrow, say }) {
    if (!disc) {
      disc = panel(svg);
      response = panel(svg.append("g").attr("class", "right"));
      disc.onDrag(drag);
      disc.data.classed("plane", true);
      response.onDrag(point);
    }
    const [r, angle] = ["radius", "angle"].map((name) => Math.round(model.get(name) * 1e9) / 1e9); // no slider noise
    const box = layout(width, narrow, labelRoom(svg, ["−rⁱ"]));
    const now = { r, angle, probe, powers: M.powers(r, angle, LAGS), colour: r < 1 ? "state" : "warn" };
    svg.select(".right").attr("transform", `translate(${box.shift},0)`);
    drawDisc(disc, box.disc, now);
    drawResponse(response, box.response, now);
    fig.root.classList.toggle("warned", r >= 1);
    say(sentence(now));
  }

  const fig = figure(el, model, { title: "A memory that turns", traits: ["radius", "angle"],
    height: (narrow) => layout(0, narrow, 0).height, lines: (narrow) => (narrow ? 3 : 2), draw });
  const back = reset(model);
  back.addEventListener("click", () => point(NaN));
  fig.controls.append(back);
  return fig.stop;
}

export default { render };

// ComplexPole: the powers of one complex number, a memory that turns and fades.
import { format } from "d3-format";
import { scaleLinear } from "d3-scale";
import * as M from "../models/recurrence.js";
import { figure, labelRoom, panel } from "../shared/chart.js";
import { assign, reset } from "../shared/controls.js";
import { fixed, percent, short } from "../shared/format.js";

const LAGS = 81, LEFT = 44, REACH = 1.2, PLANE = 1.32, MOST = { radius: 1.02, angle: 3.14 };
const axis = format("-~g"), two = (v) => short(v, 2);
const between = (f) => Array.from({ length: 121 }, (_, i) => f(i / 120));
const arc = (size, angle) => between((t) => [size * Math.cos(angle * t), size * Math.sin(angle * t)]);

/** The disc is square; on a phone the response goes under it. */
function layout(width, narrow, room) {
  const side = narrow ? 252 : 264, shift = narrow ? 0 : LEFT + side + 30;
  const response = { left: LEFT, top: narrow ? 26 + side + 78 : 26, width: width - shift - LEFT - room, height: narrow ? 160 : side };
  return { disc: { left: LEFT, top: 26, width: side, height: side }, response, shift, height: response.top + response.height + 42 };
}

/** Poles are drawn as crosses in pole diagrams. */
function cross(p, x, y, key, [re, im], size, cls) {
  p.line(key, [], cls).attr("d", `M${x(re) - size},${y(im) - size}l${2 * size},${2 * size}m0,${-2 * size}l${-2 * size},${2 * size}`);
}

function drawDisc(p, box, { r, angle, powers, colour }) {
  const x = scaleLinear([-PLANE, PLANE], [0, 1]), y = x.copy(), [re, im] = powers[1];
  p.frame({ ...box, x, y, xTicks: [-1, 0, 1], yTicks: [-1, 0, 1], xFormat: axis, yFormat: axis, xLabel: "real part", yLabel: "imaginary part" });
  p.line("imaginary", [[0, -PLANE], [0, PLANE]], "rule");
  p.line("circle", arc(1, 2 * Math.PI), "quiet");
  p.line("path", powers, `${colour} faint`);
  p.dots("powers", powers, colour, 2.6);
  p.line("arm", [[0, 0], [re, im]], "ink");
  p.line("angle", r > 0.4 ? arc(0.3, angle) : [], "ink");
  cross(p, x, y, "mirror", [re, -im], 5, "quiet chosen");
  cross(p, x, y, "halo", [re, im], 8, "halo");
  cross(p, x, y, "pole", [re, im], 8, `${colour} chosen`);
  p.note("theta", [0.46 * Math.cos(angle / 2), 0.46 * Math.sin(angle / 2)], r > 0.4 && angle > 0.2 ? "θ" : "", "chosen", { anchor: "middle", dy: 4 });
  p.note("pole-label", [PLANE, PLANE], `a: r = ${fixed(r)}, θ = ${fixed(angle)} rad`, `${colour} chosen`, { anchor: "end", dx: -4, dy: 13 });
  p.note("mirror-label", [PLANE, -PLANE], im > 0.05 ? "grey: its mirror image" : "", "quiet", { anchor: "end", dx: -4, dy: -6 });
}

function drawResponse(p, box, { r, angle, powers, colour }) {
  const size = powers.map((_, k) => [k, r ** k]), turn = M.period(angle), life = M.halfLife(r), floor = -1.1;
  p.frame({ ...box, x: scaleLinear([-1, LAGS], [0, 1]), y: scaleLinear([-REACH, REACH], [0, 1]), xTicks: [0, 20, 40, 60, 80], yTicks: [-1, 0, 1],
    xFormat: String, yFormat: axis, xLabel: "steps k after the input", yLabel: "what is left of one input, Re aᵏ" });
  p.line("above", size, "goal");
  p.line("below", size.map(([k, v]) => [k, -v]), "goal");
  p.stems("response", powers.map(([re], k) => [k, re]), colour, 2.6);
  p.line("turn", angle > 0 ? [[0, floor], [Math.min(turn, LAGS), floor]] : [], "ink");
  p.dots("turn-ends", angle > 0 ? [[0, floor], [turn, floor]] : [], "ink", 3.5);
  p.note("turn-label", [Math.min(turn, LAGS - 1), floor], angle > 0 ? `one turn: ${two(turn)} steps` : "never turns", "chosen",
    turn > 40 ? { anchor: "end", dy: -8 } : { dx: 9, dy: 4 });
  const shown = life < LAGS ? [[life, 0.5]] : [];
  p.dots("half", shown, "ink", 4.5);
  p.note("half-label", [Math.min(life, LAGS - 1), 0.5], shown.length ? `half after ${two(life)} steps` : "", "chosen",
    life > 40 ? { anchor: "end", dy: -12 } : { dx: 9, dy: -6 });
  p.endLabels([{ key: "above-label", y: size.at(-1)[1], text: "rᵏ", cls: "quiet" }, { key: "below-label", y: -size.at(-1)[1], text: "−rᵏ", cls: "quiet" }]);
}

/** The readout: what one step does, then the rhythm, then the fading. */
function sentence({ r, angle }) {
  if (r === 0) return "Radius 0: no memory. The state is the latest input alone.";
  const rhythm = angle === 0 ? "no turn and no rhythm" : `period 2π/θ = ${two(M.period(angle))} steps`;
  const fading = r > 1 ? "unstable, it grows without bound" : r === 1 ? "it never fades" : `half-life ${two(M.halfLife(r))} steps`;
  return `Each step turns the state by ${fixed(angle * 180 / Math.PI, 0)}° and keeps ${percent(r).replace(" ", "\u00a0")} of its size: ${rhythm}; ${fading}.`;
}

function render({ model, el }) {
  let disc, response;
  const drag = (x, y) => assign(model, {
    radius: Math.min(Math.round(100 * Math.hypot(x, y)) / 100, MOST.radius),
    angle: Math.min(Math.round(100 * Math.abs(Math.atan2(y, x))) / 100, MOST.angle),
  });

  function draw({ svg, width, narrow, say }) {
    if (!disc) {
      disc = panel(svg);
      response = panel(svg.append("g").attr("class", "right"));
      disc.onDrag(drag);
      disc.data.classed("plane", true);
    }
    const r = model.get("radius"), angle = model.get("angle"), box = layout(width, narrow, labelRoom(svg, ["−rᵏ"]));
    const now = { r, angle, powers: M.powers(r, angle, LAGS), colour: r > 1 ? "warn" : "state" };
    svg.select(".right").attr("transform", `translate(${box.shift},0)`);
    drawDisc(disc, box.disc, now);
    drawResponse(response, box.response, now);
    fig.root.classList.toggle("warned", r > 1);
    say(sentence(now));
  }

  const fig = figure(el, model, { title: "A memory that turns", traits: ["radius", "angle"],
    height: (narrow) => layout(narrow ? 358 : 720, narrow, 0).height, lines: (narrow) => (narrow ? 3 : 2), draw });
  fig.controls.append(reset(model));
  return fig.stop;
}

export default { render };

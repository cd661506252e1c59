// Bars on the scales of a panel, standing on zero or floating between two values.
import { select } from "d3-selection";

/** Draw `rows` of { at, from = 0, to, cls, width }: one rectangle each, `width` pixels wide around x(at). */
export function bars(panel, key, x, y, rows) {
  const layer = panel.data.selectAll(`g[data-bars="${key}"]`).data([key]).join("g").attr("data-bars", key);
  layer.selectAll("rect").data(rows).join("rect").each(function place({ at, from = 0, to, cls = "", width }) {
    const top = Math.min(y(from), y(to)), height = Math.abs(y(from) - y(to));
    select(this).attr("class", `bar ${cls}`).attr("x", x(at) - width / 2).attr("width", width).attr("y", top).attr("height", height);
  });
  return layer;
}

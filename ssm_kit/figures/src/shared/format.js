// Numbers as a reader wants them: plain Unicode, true minus signs, units with a thin reach.
import { format } from "d3-format";

const SUPERSCRIPT = { "-": "⁻", 0: "⁰", 1: "¹", 2: "²", 3: "³", 4: "⁴", 5: "⁵", 6: "⁶", 7: "⁷", 8: "⁸", 9: "⁹" };
const SUBSCRIPT = { "-": "₋", 0: "₀", 1: "₁", 2: "₂", 3: "₃", 4: "₄", 5: "₅", 6: "₆", 7: "₇", 8: "₈", 9: "₉" };
const shift = (k, alphabet) => [...String(k)].map((c) => alphabet[c]).join("");

/** 12 as ¹² or ₁₂. */
export const sup = (k) => shift(k, SUPERSCRIPT);
export const sub = (k) => shift(k, SUBSCRIPT);

/** |Δa|, which a line of text never breaks. */
export const abs = (text) => `|\u2060${text}\u2060|`;

/** −1.50: always this many decimals. */
export const fixed = (v, decimals = 2) => format(`.${decimals}f`)(v);

/** 0.0849, 69.3, 1.2×10⁻⁷: three significant digits (or as asked), never "1e-7". */
export function short(v, digits = 3) {
  if (!Number.isFinite(v)) return v > 0 ? "∞" : v < 0 ? "−∞" : "undefined";
  const size = Math.abs(v);
  if (size === 0 || (size >= 1e-4 && size < 1e6)) return format(`,.${digits}~r`)(v);
  const [mantissa, exponent] = format(`.${digits - 1}~e`)(v).split("e");
  return `${mantissa}×10${sup(Number(exponent.replace("−", "-")))}`;
}

/** 1,048,576 */
export const count = format(",.0f");

/** 0.083 as 8.3 %; below 0.1 % as "< 0.1 %". */
export const percent = (v) => (v > 0 && v < 0.001 ? "< 0.1 %" : `${format(v < 0.0995 ? ".1f" : ".0f")(100 * v)} %`);

/** 10⁻³ for 0.001; `power(2)` gives 2¹⁰ for 1024. Ticks of log axes. */
export const power = (base) => (v) => `${base}${sup(Math.round(Math.log(v) / Math.log(base)))}`;

/** Powers of `base` from low to high, every `step`-th. */
export function powers(base, low, high, step = 1) {
  const first = Math.ceil(Math.log(low) / Math.log(base) - 1e-9), last = Math.floor(Math.log(high) / Math.log(base) + 1e-9);
  return Array.from({ length: Math.max(0, Math.floor((last - first) / step) + 1) }, (_, i) => base ** (first + i * step));
}

function scaled(v, base, units) {
  let i = 0;
  while (Math.abs(v) >= base * (1 - 5e-4) && i < units.length - 1) { v /= base; i += 1; }
  return `${i || !Number.isInteger(v) ? format(",.3~r")(v) : v} ${units[i]}`.trimEnd();
}

/** 1.5 GiB (binary, as memory is counted); 512 B. */
export const bytes = (v) => scaled(v, 1024, ["B", "KiB", "MiB", "GiB", "TiB", "PiB"]);

/** 1.5 GFLOP for si(1.5e9, "FLOP"); si(2e6) is 2 M. */
export const si = (v, unit = "") => scaled(v, 1000, ["", "k", "M", "G", "T", "P", "E"].map((prefix) => prefix + unit));

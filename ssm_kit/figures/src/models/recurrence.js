// The recurrence h_k = a h_{k-1} + b x_k with one real or one complex coefficient, and how long it remembers.
// Pure functions, no DOM: the same numbers as ssm_kit.lti and ssm_kit.figures.linear_recurrence.signal.

export const LENGTH = 60;
export const PATTERNS = ["impulse", "step", "noise", "tokens"];
const START = 5; // before it the input is silent, so that the first effect has a visible cause
const SPIKES = new Set([START, 20, 23, 42]);

/** Noise in [−1, 1) that is the same everywhere: s ← (75 s + 74) mod 65537, exact in any arithmetic. */
function noise(n) {
  const out = [];
  for (let s = 1; out.length < n;) { s = (75 * s + 74) % 65537; out.push(s / 32768 - 1); }
  return out;
}

/** The input x_0 ... x_59 of one pattern. "tokens": four that matter among small filler. */
export function signal(pattern) {
  const wave = noise(LENGTH);
  const at = {
    impulse: (k) => Number(k === START), step: (k) => Number(k >= START),
    noise: (k) => wave[k], tokens: (k) => (SPIKES.has(k) ? 1 : 0.15 * Math.abs(wave[k])),
  }[pattern];
  if (!at) throw new RangeError(`pattern must be one of ${PATTERNS.join(", ")}; got ${pattern}`);
  return Array.from({ length: LENGTH }, (_, k) => at(k));
}

/** States h_0 ... of h_k = a h_{k−1} + b x_k, starting from h_{−1} = 0. */
export function recurrence(a, b, x) {
  let h = 0;
  return x.map((v) => (h = a * h + b * v));
}

/** What one input of 1 leaves in the state: b, a b, a² b, ... */
export const impulseResponse = (a, b, n) => Array.from({ length: n }, (_, k) => b * a ** k);

/** Steps until half is left, ln 2 / −ln|a|: 0 at a = 0, infinite from |a| = 1 on. */
export const halfLife = (a) => (Math.abs(a) < 1 ? Math.LN2 / -Math.log(Math.abs(a)) : Infinity);

/** How many steps' worth of input the state holds, Σ|a|ᵏ = 1 / (1 − |a|); infinite from |a| = 1 on. */
export const memory = (a) => (Math.abs(a) < 1 ? 1 / (1 - Math.abs(a)) : Infinity);

/** Where the state settles under a constant input of 1, b / (1 − a); NaN where it settles nowhere. */
export const gain = (a, b) => (Math.abs(a) < 1 ? b / (1 - a) : NaN);

/** Powers a⁰, a¹, ... of a = radius · e^(i angle), as [real, imaginary]. */
export const powers = (radius, angle, n) => Array.from({ length: n }, (_, k) => {
  const size = radius ** k;
  return [size * Math.cos(k * angle), size * Math.sin(k * angle)];
});

/** Steps per turn, 2π / angle; infinite for a real positive pole, which does not turn. */
export const period = (angle) => (2 * Math.PI) / angle;

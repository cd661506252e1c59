// One scalar state-space model h' = a h + x, y = h, sampled with a held input (ZOH): computed as a recurrence
// and as a weighted sum over the past. Pure functions; the Python package is the reference (test_two_faces.py).

/** The sixteen inputs that both faces read: pulses with silence between them. */
export const INPUTS = [1, 0.6, 0, 0, -0.8, 0.4, 0, 0.9, 0, 0, 0, 0.7, -0.5, 0, 1, 0.3];

/** The step of every token: the same for all, or (selection on) small for weak inputs and large for strong ones. */
export const deltas = (delta, selection, inputs = INPUTS) => inputs.map((x) => (selection ? delta * (0.2 + 2 * Math.abs(x)) : delta));

/** Ā = exp(aΔ) and B̄ = (Ā − 1)/a for B = 1; at a = 0 the limit B̄ = Δ. */
export const coefficients = (a, delta) => ({ A: Math.exp(a * delta), B: a === 0 ? delta : Math.expm1(a * delta) / a });

/** States h₀, h₁, … of h_k = Ā_k h_{k−1} + B̄_k x_k from h₋₁ = 0: it reads each input once and keeps one number. */
export function recurrence(a, steps, inputs) {
  let h = 0;
  return inputs.map((x, k) => {
    const { A, B } = coefficients(a, steps[k]);
    return (h = A * h + B * x);
  });
}

/** The convolution kernel K_i = Ā^i B̄, i = 0 … length − 1: one shape for every output, known before any input. */
export function kernel(a, delta, length) {
  const { A, B } = coefficients(a, delta);
  return Array.from({ length }, (_, i) => A ** i * B);
}

/** The weights of output k by lag when every token has its own step: B̄_{k−lag} times the product of all later Ā. */
export function weights(a, steps, k, length) {
  const out = [];
  for (let lag = 0, carried = 1; lag <= k && lag < length; lag++) {
    const { A, B } = coefficients(a, steps[k - lag]);
    out.push(carried * B);
    carried *= A;
  }
  return out;
}

/** The products weight × input behind output k, newest input first; their sum is the output. */
export const products = (row, inputs, k) => row.map((w, lag) => w * inputs[k - lag]);

/** Both faces of a model: the outputs of each, and the weights behind every output of the second. */
export function faces(a, delta, length, selection, inputs = INPUTS) {
  const steps = deltas(delta, selection, inputs), K = kernel(a, delta, length);
  const rows = inputs.map((_, k) => (selection ? weights(a, steps, k, length) : K.slice(0, k + 1)));
  const sums = rows.map((row, k) => products(row, inputs, k).reduce((sum, p) => sum + p, 0));
  return { steps, kernel: K, rows, recurrence: recurrence(a, steps, inputs), sums };
}

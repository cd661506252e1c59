// What a sequence costs, in FLOPs and in bytes: the numbers of ssm_kit.cost (tests/figures/test_cost_vs_length.py).
// Pure functions. `s` is the shape of a decoder as the Python figure sends it: the fields of ssm_kit.cost.Stack and the
// constants of its state-space layers. `attention` of its layers attend, all others are Mamba-2.

const queryWidth = (s) => s.query_heads * s.head_dim;
const ssmChannels = (s) => 2 * s.d_model;
const ssmHeads = (s) => ssmChannels(s) / s.ssm_head_dim;

/** Linear weights of all layers: mixers and MLPs, no vocabulary. */
export function weights(s, attention) {
  const attends = 2 * s.d_model * (queryWidth(s) + s.kv_heads * s.head_dim), inner = ssmChannels(s);
  const scans = s.d_model * (2 * inner + 2 * s.ssm_state + ssmHeads(s)) + inner * s.d_model;
  return attention * attends + (s.layers - attention) * scans + s.layers * s.mlp_matrices * s.d_model * s.mlp_width;
}

/** FLOPs of one causal pass over `tokens` tokens: { score, linear, scan }. */
export function sequenceWork(s, attention, tokens) {
  const perHead = 4 * s.ssm_state * s.ssm_head_dim + 2 * s.ssm_chunk * (s.ssm_state + s.ssm_head_dim);
  return {
    score: attention * 2 * tokens * (tokens + 1) * queryWidth(s),
    linear: 2 * weights(s, attention) * tokens,
    scan: (s.layers - attention) * tokens * ssmHeads(s) * perHead,
  };
}

/** FLOPs of one generated token that attends to `context` tokens, itself included. */
export function tokenWork(s, attention, context) {
  return {
    score: attention * 4 * context * queryWidth(s),
    linear: 2 * weights(s, attention),
    scan: (s.layers - attention) * 5 * ssmHeads(s) * s.ssm_state * s.ssm_head_dim,
  };
}

export const total = (work) => work.score + work.linear + work.scan;

/** Bytes held for one sequence: { cache, state }, two bytes a number. */
export function memory(s, attention, tokens) {
  return {
    cache: attention * 2 * s.kv_heads * s.head_dim * tokens * 2,
    state: (s.layers - attention) * ssmChannels(s) * s.ssm_state * 2,
  };
}

/** Where the score term equals the linear layers: context of one token, and length of a whole causal sequence. */
export function scoreCrossover(s, attention) {
  const context = weights(s, attention) / (2 * attention * queryWidth(s));
  return { context, sequence: 2 * context - 1 };
}

/** Tokens at which the cache of `attention` layers is as large as the state of `ssm` layers. */
export function memoryCrossover(s, attention, ssm) {
  return memory(s, s.layers - ssm, 1).state / memory(s, attention, 1).cache;
}

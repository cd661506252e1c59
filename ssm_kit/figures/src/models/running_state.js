// A running state of eight numbers beside a cache that keeps every token, and the bytes both hold in real models.
// Pure functions; running_state.py and ssm_kit.cost are the reference (test_running_state.py).

export const WIDTH = 8; // numbers in the toy state

/** Words are the tokens: plain white space separates them. */
export const words = (text) => text.split(/[ \t\r\n]+/).filter((word) => word);

/** Scramble 32 bits with Knuth's golden-ratio factor, so that similar words get unrelated numbers. */
function mix(bits) {
  for (let round = 0; round < 3; round++) bits = Math.imul(bits ^ (bits >>> 15), 0x9e3779b1);
  return (bits ^ (bits >>> 15)) >>> 0;
}

/** The fixed vector of a token: eight numbers in [−1, 1), the same for the same word wherever it stands. */
export function vector(word) {
  let seed = 0;
  for (const letter of word) seed = mix(seed ^ letter.codePointAt(0));
  return Array.from({ length: WIDTH }, (_, i) => mix(seed + i + 1) / 2 ** 31 - 1);
}

/** One step: keep a share `decay` of the state, fill up with the token's vector. */
export const update = (state, decay, token) => state.map((h, i) => decay * h + (1 - decay) * token[i]);

/** The state after `count` tokens of a text that is read again and again (decay < 1). */
export function stateAfter(tokens, decay, count) {
  if (!tokens.length) return new Array(WIDTH).fill(0);
  const vectors = tokens.map(vector), rounds = Math.floor(count / tokens.length), rest = count % tokens.length;
  const read = (start, list) => list.reduce((h, v) => update(h, decay, v), start);
  // Every full round multiplies what was there by decay^n and adds the same vector: a geometric series.
  const once = read(new Array(WIDTH).fill(0), vectors), kept = decay ** tokens.length;
  const share = rounds ? (1 - kept ** rounds) / (1 - kept) : 0;
  return read(once.map((h) => h * share), vectors.slice(0, rest));
}

/** The largest size that any number of the state takes while the text is read twice. */
export function reach(tokens, decay) {
  let h = new Array(WIDTH).fill(0), most = 0;
  for (const token of [...tokens, ...tokens]) {
    h = update(h, decay, vector(token));
    most = Math.max(most, ...h.map(Math.abs));
  }
  return most;
}

const BYTES = 2; // bfloat16

/** Models without attention, whose memory is a fixed state (the short convolution's window, 2 to 3 MiB, not counted). */
export const STATES = {
  "mamba-1": { name: "Mamba 2.8B", layers: 64, channels: 5120, state: 16 },
  "falcon-mamba": { name: "Falcon Mamba 7B", layers: 64, channels: 8192, state: 16 },
  "mamba-2": { name: "Mamba-2 2.7B", layers: 64, channels: 5120, state: 128 },
};
export const CACHE = { name: "Llama-3-8B", layers: 32, heads: 8, width: 128 };

/** Bytes of the state of one sequence: the same for one token and for a million. */
export const stateBytes = (model) => STATES[model].layers * STATES[model].channels * STATES[model].state * BYTES;

/** Bytes of the key-value cache: a key and a value for every layer, key-value head and token. */
export const cacheBytes = (tokens) => CACHE.layers * 2 * CACHE.heads * CACHE.width * tokens * BYTES;

/** The number of tokens at which the cache has grown as large as the state. */
export const crossover = (model) => stateBytes(model) / cacheBytes(1);

// What the page holds: rows of the list at once, texts and tokens chunk by chunk.

const meta = JSON.parse(document.getElementById("meta").textContent);
const CORRECT = 1, UNSCORED = 2, TRUNCATED = 4, FIRED = 8, GUESSED = 16, DISAGREE = 32, MISSING = 64, MISSTEPS = 128;
const BASE = "unsteered";
const chunks = new Map();

async function unzip(number) {
  const text = document.getElementById(`chunk-${number}`).textContent;
  const bytes = Uint8Array.from(atob(text), character => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}

function once(key, make) {
  if (!chunks.has(key)) chunks.set(key, make());
  return chunks.get(key);
}

const words = () => once("words", async () => JSON.parse(new TextDecoder().decode(await unzip(meta.words))));

const opened = number => once(number, async () => {
  const buffer = await unzip(number);
  const length = new DataView(buffer).getUint32(0, true);
  return { entries: JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length))), buffer, start: 4 + length };
});

// A response's tokens: pieces of its text with what the model said of each.
function decode(response, chunk, known) {
  const { at, n, alternatives, neurons, scale, dose, strength, running } = response.tokens;
  let offset = chunk.start + at;
  const take = (kind, length) => {
    const found = new kind(chunk.buffer.slice(offset, offset + length * kind.BYTES_PER_ELEMENT));
    offset += length * kind.BYTES_PER_ELEMENT;
    return found;
  };
  const Word = meta.wide ? Uint32Array : Uint16Array;
  const lengths = take(Uint16Array, n), ids = take(Word, n), surprise = take(Uint16Array, n);
  const other = take(Word, n * alternatives), otherSurprise = take(Uint16Array, n * alternatives);
  const neuron = take(Uint16Array, n * neurons), acted = take(Uint8Array, neurons ? n : 0);
  const total = take(Int8Array, neurons ? n : 0), contribution = take(Int8Array, n * neurons), doses = take(Uint8Array, neurons ? n : 0);
  const fails = take(Uint8Array, running ? n : 0);
  let place = 0;
  return Array.from(ids, (id, i) => {
    const piece = response.text.slice(place, place += lengths[i]);
    const largest = [];
    for (let j = i * neurons; acted[i] && j < (i + 1) * neurons; j++) largest.push([neuron[j], contribution[j] / 127 * scale]);
    const likely = [];
    for (let j = i * alternatives; j < (i + 1) * alternatives; j++) likely.push([other[j], Math.exp(-otherSurprise[j] / 1000)]);
    return {
      id, piece, word: known[id], start: place - piece.length, surprise: surprise[i] / 1000, p: Math.exp(-surprise[i] / 1000),
      likely: likely.map(([word, p]) => ({ id: word, word: known[word], p })),
      acted: Boolean(acted[i]), total: acted[i] ? total[i] / 127 * scale : 0, largest, dose: acted[i] ? doses[i] / 255 * dose : 0,
      strength, fail: running ? fails[i] / 255 : null,
    };
  });
}

// Tokens of a response without recorded ones: words with the white space before them.
function wordTokens(text) {
  let start = 0;
  return (text.match(/\s*[^\s]+|\s+$/g) ?? []).map(piece => {
    const token = { id: piece.trim(), piece, word: piece, start, likely: [], largest: [], acted: false };
    start += piece.length;
    return token;
  });
}

// The pair of a row under a condition; null where the file does not hold it.
async function pairOf(row, condition) {
  if (meta.chunk[row] < 0) return null;
  const [chunk, known] = await Promise.all([opened(meta.chunk[row]), words()]);
  const entry = chunk.entries[row];
  const tokens = response => (response.tokens ? decode(response, chunk, known) : wordTokens(response.text));
  if (condition === meta.condition) {
    return { ...entry, recorded: Boolean(entry.base.tokens && entry.steered.tokens),
      base: { ...entry.base, tokens: tokens(entry.base) }, steered: { ...entry.steered, tokens: tokens(entry.steered) } };
  }
  const base = { ...entry.base, tokens: wordTokens(entry.base.text) };
  if (meta.others[row] < 0) return { ...entry, base, steered: null, recorded: false };
  const steered = (await opened(meta.others[row])).entries[row][condition];
  if (!steered) return { ...entry, base, steered: null, recorded: false };
  const text = steered.text ?? entry.base.text;
  return { ...entry, base, steered: { ...steered, text, tokens: wordTokens(text) }, recorded: false };
}

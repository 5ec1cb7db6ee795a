// What is looked at, also as the part of the address after #, so that every view has a link of its own.

const KINDS = { fixed: [false, true], broken: [true, false], right: [true, true], wrong: [false, false] };
const KIND_NAMES = { fixed: "Fixed", broken: "Broken", right: "Both right", wrong: "Both wrong" };
const MARKS = {
  fired: ["Gate fired", (base, steered) => steered & FIRED],
  truncated: ["Truncated", (base, steered) => (base | steered) & TRUNCATED],
  unscored: ["Unscored", (base, steered) => (base | steered) & UNSCORED],
  guessed: ["Guessed", (base, steered) => (base | steered) & GUESSED],
  missteps: ["Right by wrong steps", (base, steered) => (base | steered) & MISSTEPS],
  disagree: ["Checks disagree", (base, steered) => (base | steered) & DISAGREE],
};
const MARK_HINTS = {
  fired: "the gate let the steering act", truncated: "cut at the token limit", unscored: "the grader itself failed",
  guessed: "no answer was stated, so the last number was taken", missteps: "the right answer after a wrong step",
  disagree: "two checks of the answer came to other scores",
};
const SORTS = {
  order: "problem order", divergence: "first divergence", shorter: "most tokens saved", longer: "most tokens added", fail: "p(fail), highest first",
};
const COLOURS = { none: "nothing", contribution: "contribution", neuron: "one neuron", surprise: "surprise", fail: "running p(fail)", dose: "dose" };
const KNOWN = { contribution: meta.contributions, neuron: meta.contributions, dose: meta.doses, fail: meta.running !== null };
const DEFAULT_COLOUR = meta.contributions ? "contribution" : meta.tokens ? "surprise" : "none";
const PLACES = !meta.neurons.length ? "neuron" : meta.neurons.every(each => each.index === null) ? "direction" : meta.neurons.some(each => each.index === null) ? "place" : "neuron";

const state = {
  row: 0, condition: meta.condition, kind: null, marks: new Set(), query: "", sort: "order", tab: "pair",
  colour: DEFAULT_COLOUR, neuron: 0, token: null, folded: true,
};

const kindOf = (row, condition = state.condition) => {
  const base = meta.flags[BASE][row] & CORRECT, steered = meta.flags[condition][row] & CORRECT;
  return base ? (steered ? "right" : "broken") : steered ? "fixed" : "wrong";
};

const has = (row, condition) => !(meta.flags[condition][row] & MISSING);

const rowByKey = new Map(meta.problem.map((problem, row) => [`${problem}\n${meta.seed[row]}\n${meta.sample[row]}`, row]));

function readHash() {
  const given = new URLSearchParams(location.hash.slice(1));
  const row = rowByKey.get(`${given.get("problem")}\n${given.get("seed") ?? firstOf("seed", given)}\n${given.get("sample") ?? firstOf("sample", given)}`);
  if (row !== undefined) state.row = row;
  if (meta.conditions.includes(given.get("condition"))) state.condition = given.get("condition");
  if (given.get("tab") === "neurons" || given.get("tab") === "pair") state.tab = given.get("tab");
  if (given.get("filter") in KINDS) state.kind = given.get("filter");
  if (given.get("colour") in COLOURS && (KNOWN[given.get("colour")] ?? true)) state.colour = given.get("colour");
  if (given.get("sort") in SORTS) state.sort = given.get("sort");
  const neuron = Number(given.get("neuron") ?? NaN);
  if (Number.isInteger(neuron) && meta.neurons[neuron]) state.neuron = neuron;
  const token = /^(base|steered)\.(\d+)$/.exec(given.get("token") ?? "");
  state.token = token ? { side: token[1], i: Number(token[2]) } : null;
  return row !== undefined;
}

function firstOf(column, given) {
  const row = meta.problem.indexOf(given.get("problem"));
  return row < 0 ? "" : meta[column][row];
}

function hashOf() {
  const made = new URLSearchParams({ problem: meta.problem[state.row] });
  if (meta.seed[state.row] !== meta.seed[0]) made.set("seed", meta.seed[state.row]);
  if (meta.sample[state.row]) made.set("sample", meta.sample[state.row]);
  if (state.condition !== meta.condition) made.set("condition", state.condition);
  if (state.kind) made.set("filter", state.kind);
  if (state.sort !== "order") made.set("sort", state.sort);
  if (state.colour !== DEFAULT_COLOUR) made.set("colour", state.colour);
  if (state.tab !== "pair") made.set("tab", state.tab);
  if (state.tab === "neurons" || state.colour === "neuron") made.set("neuron", state.neuron);
  if (state.token) made.set("token", `${state.token.side}.${state.token.i}`);
  return "#" + made.toString();
}

function writeHash(push = false) {
  const hash = hashOf();
  if (hash === location.hash) return;
  try {
    history[push ? "pushState" : "replaceState"](null, "", hash);
  } catch { /* a page within a notebook has no address of its own */ }
}

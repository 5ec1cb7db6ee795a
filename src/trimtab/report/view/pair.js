// One pair: question, where the two responses part, both of them as tokens, and how each was graded.

let pair = null;
let drawing = 0;

async function drawPair() {
  const mine = ++drawing, main = document.getElementById("main");
  let opened_ = null;
  try {
    opened_ = await pairOf(state.row, state.condition);
  } catch (error) {
    main.replaceChildren(el("p", { class: "loading" }, `These responses cannot be opened (${error.message}); the file may be damaged. Write it again with trimtab view RUN.`));
    return;
  }
  if (mine !== drawing) return;
  pair = opened_;
  lists = {};
  if (!pair) {
    main.replaceChildren(heading(), el("p", { class: "loading" }, "This file does not hold the texts of this pair, to stay small. ", el("code", {}, "trimtab view RUN --serve"), " shows all of them."));
    return;
  }
  main.replaceChildren(heading(), problem(), conditionStrip(), ...(pair.steered ? responses() : [el("p", { class: "loading" }, "This file does not hold this condition's response to this problem.")]));
  drawSheet();
}

function heading() {
  const kind = kindOf(state.row), p = meta.pFail[state.row], many = new Set(meta.sample).size > 1 || new Set(meta.seed).size > 1;
  const rows = visibleRows(), at = rows.indexOf(state.row);
  return el("div", { class: "heading" },
    el("button", { class: "quiet back", onclick: () => { document.body.classList.remove("reading"); document.querySelector('#rows [aria-current]')?.focus(); } }, "‹ All problems"),
    el("h1", {}, visible(meta.problem[state.row]), many ? el("small", {}, ` seed ${meta.seed[state.row]}, sample ${meta.sample[state.row]}`) : null),
    el("span", { class: `badge ${kind}` }, KIND_NAMES[kind]),
    meta.domain[state.row] ? el("span", { class: "domain" }, visible(meta.domain[state.row])) : null,
    p === null ? null : el("span", { class: "pfail", title: "the gate's probability, from the prompt, that the unsteered model fails" }, gauge(p), ` p(fail) ${p.toFixed(2)}`,
      meta.threshold === null ? "" : p >= meta.threshold ? ", gate fired" : ", gate stayed closed"),
    el("span", { class: "steps" },
      el("button", { class: "quiet", "aria-label": "Previous pair (k)", disabled: at <= 0, onclick: () => step(-1) }, "↑"),
      el("button", { class: "quiet", "aria-label": "Next pair (j)", disabled: at < 0 || at >= rows.length - 1, onclick: () => step(1) }, "↓"),
      el("button", { class: "quiet", onclick: () => copy(location.href, "Link") }, "Copy link"),
      el("button", { class: "quiet", id: "copy-pair", onclick: async () => copy(`${await jsonLine(state.row)}\n`, "Pair") }, "Copy JSONL")));
}

function gauge(p) {
  const mark = meta.threshold === null ? [] : [svg("line", { x1: 60 * meta.threshold, x2: 60 * meta.threshold, y1: 0, y2: 10, class: "threshold" })];
  return svg("svg", { class: "gauge", viewBox: "0 0 60 10", width: 60, height: 10, "aria-hidden": "true" },
    svg("rect", { x: 0, y: 3, width: 60, height: 4, rx: 2, class: "track" }), svg("rect", { x: 0, y: 3, width: 60 * p, height: 4, rx: 2, class: "fill" }), ...mark);
}

function problem() {
  return el("section", { class: "problem", "aria-label": "Question" }, box(pair.question, "question"),
    pair.choices?.length ? el("ol", { class: "choices", type: "A" }, pair.choices.map(choice => el("li", { dir: "auto" }, visible(choice)))) : null,
    el("p", { class: "gold" }, el("span", {}, "gold answer "), el("b", { dir: "auto" }, visible(pair.gold))));
}

// Every condition on this one problem, the random sets too: a flip that chance makes as often is no finding.
function conditionStrip() {
  const names = meta.conditions.filter(name => has(state.row, name)), sets = names.filter(isRandom);
  return el("div", { class: "strip", role: "group", "aria-label": "This problem under every condition" }, [...names.filter(name => !isRandom(name)), ...sets].flatMap(name => {
    const flags = meta.flags[name][state.row], right = flags & CORRECT, word = flags & UNSCORED ? "unscored" : right ? "correct" : "incorrect";
    const title = name === sets[0] ? [el("span", { class: "sets" }, "random sets")] : [];
    return [...title, el("button", {
      class: `outcome ${word}${isRandom(name) ? " random" : ""}`, "aria-pressed": String(name === state.condition), disabled: name === BASE,
      title: `${conditionLabel(name)}: ${word}`, "aria-label": `${conditionLabel(name)}: ${word}`, onclick: () => update({ condition: name, token: null }),
    }, el("span", { class: "sign", "aria-hidden": "true" }, flags & UNSCORED ? "?" : right ? "✓" : "✗"), isRandom(name) ? null : name)];
  }));
}

function responses() {
  const { base, steered } = pair, alignment = align(base.tokens, steered.tokens);
  const same = base.text === steered.text && alignment.start === base.tokens.length && alignment.start === steered.tokens.length;
  const scales = scalesOf([base.tokens, steered.tokens]);
  pair.alignment = alignment;
  pair.scales = scales;
  const column = (side, response, name) => el("section", { class: "response", "aria-label": name },
    el("h2", {}, name, el("small", {}, ` ${plural(response.length, "token")}`)), drawTokens(side, response, alignment, scales), grade(response));
  return [
    same ? el("p", { class: "same" }, steeredAsleep() ? "The gate stayed closed: the response is the unsteered one." : "Both responses are the same, token by token.") : divergence(alignment),
    toolbar(),
    ...(state.colour === "fail" ? failChart(base, steered) : []),
    el("div", { class: "pair" }, column("base", base, "Unsteered"), column("steered", steered, conditionLabel(state.condition).replace(/^\w/, letter => letter.toUpperCase()))),
    forks(),
  ];
}

const steeredAsleep = () => meta.threshold !== null && state.condition === meta.condition && !(meta.flags[state.condition][state.row] & FIRED);

// The fork in the road: what both said so far, and how likely each next token was without and with steering.
function divergence(alignment) {
  const { base, steered } = pair, at = alignment.start, one = base.tokens[at], two = steered.tokens[at];
  const before = base.tokens.slice(Math.max(0, at - 14), at).map(token => token.piece).join("");
  const word = token => (token ? tokenLabel(token.piece.trim() ? token.piece.trim() : token.word ?? "") : "ends here");
  const card = el("section", { class: "divergence", "aria-label": "First divergence" },
    el("h2", {}, `They part at ${pair.recorded ? "token" : "word"} ${at + 1}`),
    el("p", { class: "fork", dir: "auto" }, at > 14 ? "… " : "", visible(before.trimStart()), " ",
      el("span", { class: "branches" }, el("b", { class: "branch base" }, word(one)), el("b", { class: "branch steered" }, word(two)))));
  if (pair.recorded && one && two) card.append(likelihoods(one, two));
  if (two?.acted && meta.contributions) card.append(el("p", { class: "effect" }, PLACES === "neuron" ? "The neurons' edits add " : "The edits add ", el("b", {}, signed(two.total)), " to the logit of ", el("b", {}, word(two)), " here, directly."));
  return card;
}

function likelihoods(one, two) {
  const known = new Map(), put = (token, side) => {
    for (const { id, word, p } of token.likely) known.set(id, { ...known.get(id), id, word, [side]: p });
    known.set(token.id, { ...known.get(token.id), id: token.id, word: token.word, [side]: token.p });
  };
  put(one, "base");
  put(two, "steered");
  const rows = [...known.values()].sort((a, b) => Math.max(b.base ?? 0, b.steered ?? 0) - Math.max(a.base ?? 0, a.steered ?? 0)).slice(0, 8);
  return el("table", { class: "likely" },
    el("caption", { class: "sr" }, "Probability of the next token, unsteered and steered"),
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "next token"), el("th", { scope: "col" }, el("span", { class: "key base" }), "unsteered"), el("th", { scope: "col" }, el("span", { class: "key steered" }), "steered"))),
    el("tbody", {}, rows.map(row => el("tr", {},
      el("th", { scope: "row", dir: "auto" }, tokenLabel(row.word), row.id === one.id ? el("span", { class: "took base", title: "the unsteered response took it" }, "unsteered") : null, row.id === two.id ? el("span", { class: "took steered", title: "the steered response took it" }, "steered") : null),
      bar(row.base, "base", one), bar(row.steered, "steered", two)))));
}

// A probability; of a token that is not among the likeliest, no more is known than that it is below the last of these.
function bar(p, side, token) {
  const below = p === undefined ? `below ${percent(Math.min(...token.likely.map(each => each.p)))}` : percent(p);
  const cell = el("td", { class: "bar" }, el("span", { class: `fill ${side}` }), el("span", { class: "number" }, below));
  cell.style.setProperty("--p", String(p ?? 0));
  if (p === undefined) cell.classList.add("faint");
  return cell;
}

function toolbar() {
  if (!pair.recorded) return el("p", { class: "note" }, meta.tokens ? "Probabilities and contributions are recorded for the judged condition alone." : "This run has no token probabilities: it was evaluated before they were kept, or without its model.");
  const choices = Object.entries(COLOURS).filter(([key]) => KNOWN[key] ?? true);
  const legend = { contribution: [["against", "against the token"], ["towards", "towards it"]], neuron: [["against", "against the token"], ["towards", "towards it"]], surprise: [["surprise", "unlikely token"]], dose: [["dose", "large edit"]], fail: [["fail", "likely to fail, by what was read so far"]], none: [] }[state.colour];
  return el("div", { class: "toolbar" },
    el("label", {}, "Colour by ", el("select", { id: "colour", onchange: event => update({ colour: event.target.value }) }, choices.map(([key, name]) => el("option", { value: key, selected: key === state.colour }, key === "neuron" ? `one ${PLACES}` : name)))),
    state.colour === "neuron" ? el("label", {}, `${PLACES} `, el("select", { id: "neuron", onchange: event => update({ neuron: Number(event.target.value) }) }, meta.neurons.map((neuron, i) => el("option", { value: i, selected: i === state.neuron }, neuron.address)))) : null,
    el("span", { class: "legend" }, legend.map(([name, text]) => el("span", {}, el("i", { class: name }), text)), el("span", {}, el("u", {}, "underlined"), " steering acted"), el("span", {}, el("i", { class: "own" }), "only here")),
    state.colour === "neuron" && !meta.live ? el("span", { class: "faint" }, "where it is among a token's three largest") : null);
}

// Running p(fail) of both responses over their tokens, and the gate's threshold.
function failChart(base, steered) {
  const sides = [["base", base], ["steered", steered]].filter(([, side]) => side.tokens.some(token => typeof token.fail === "number"));
  if (!sides.length) return [];
  const width = 720, height = 110, left = 30, top = 6, bottom = 18, longest = Math.max(...sides.map(([, side]) => side.tokens.length), 2);
  const x = i => left + i / (longest - 1) * (width - left - 4), y = p => top + (1 - p) * (height - top - bottom);
  const label = (text, at, anchor = "end") => { const made = svg("text", { x: at[0], y: at[1], "text-anchor": anchor }); made.textContent = text; return made; };
  const line = ([name, side]) => svg("polyline", { class: name, points: side.tokens.map((token, i) => `${x(i).toFixed(1)},${y(token.fail).toFixed(1)}`).join(" ") });
  const last = sides.map(([name, side]) => `${name === "base" ? "unsteered" : "steered"} ends at ${side.tokens.at(-1).fail.toFixed(2)}`).join(", ");
  return [el("figure", { class: "fail-chart" },
    el("figcaption", {}, "Running p(fail): ", sides.map(([name]) => el("span", {}, el("span", { class: `key ${name}` }), name === "base" ? "unsteered" : "steered")), el("span", {}, `threshold ${meta.running.toFixed(2)}`)),
    svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `Running p(fail) by token; ${last}; threshold ${meta.running}` },
      svg("line", { x1: left, x2: width - 4, y1: y(0), y2: y(0), class: "axis" }), svg("line", { x1: left, x2: width - 4, y1: y(1), y2: y(1), class: "axis" }),
      svg("line", { x1: left, x2: width - 4, y1: y(meta.running), y2: y(meta.running), class: "threshold" }),
      label("1", [left - 6, y(1) + 4]), label("0", [left - 6, y(0) + 4]), label("token 1", [left, height - 4], "start"), label(`token ${longest}`, [width - 4, height - 4]), ...sides.map(line)))];
}

function grade(response) {
  const word = response.score, disagrees = response.reason.includes("string check disagrees");
  return el("footer", { class: "grade" },
    el("span", { class: `score ${word}` }, word === "correct" ? "✓ correct" : word === "incorrect" ? "✗ incorrect" : "? unscored"),
    el("span", {}, "answer ", response.answer ? el("b", { class: "answer", dir: "auto" }, visible(response.answer)) : el("i", {}, "none found")),
    el("span", { class: "reason", dir: "auto" }, visible(response.reason)),
    response.steps === null || response.steps === undefined ? null : el("span", {}, response.steps ? "every step right" : word === "correct" ? "a wrong step on the way" : "a wrong step"),
    disagrees ? el("span", { class: "warn" }, "the second check disagrees") : null);
}

// One token opened: alternatives, neurons, dose, and where it is served, going on from here in another way.

function openToken(side, i) {
  update({ token: { side, i }, colour: state.colour }, false);
}

function closeToken() {
  const { token } = state;
  state.token = null;
  writeHash();
  drawSheet();
  if (token) lists[token.side]?.list.focus({ preventScroll: true });
}

function drawSheet() {
  markOpen();
  document.getElementById("sheet")?.remove();
  document.body.classList.toggle("sheeted", false);
  const response = state.token && pair?.[state.token.side], token = response?.tokens?.[state.token.i];
  if (!token || state.tab !== "pair") return;
  const { side, i } = state.token;
  document.body.classList.toggle("sheeted", true);
  const sheet = el("aside", { id: "sheet", "aria-label": `Token ${i + 1} of the ${side === "base" ? "unsteered" : "steered"} response` },
    el("div", { class: "sheet-head" }, el("h2", {}, el("span", { class: "piece", dir: "auto" }, tokenLabel(token.piece || token.word)), el("small", {}, ` token ${i + 1}, ${side === "base" ? "unsteered" : "steered"}`)),
      el("button", { class: "quiet", "aria-label": "Token before", disabled: i === 0, onclick: () => openToken(side, i - 1) }, "←"),
      el("button", { class: "quiet", "aria-label": "Token after", disabled: i >= response.tokens.length - 1, onclick: () => openToken(side, i + 1) }, "→"),
      el("button", { class: "quiet close", "aria-label": "Close (Escape)", onclick: closeToken }, "✕")),
    el("div", { class: "sheet-body" }, alternatives(token), neuronsOf(token), meta.live && pair.recorded ? forkForm(side, i, token) : null));
  document.getElementById("main").append(sheet);
  if (meta.live && token.acted && !token.every) everyNeuron(side);
}

function alternatives(token) {
  if (token.p === undefined) return el("p", { class: "note" }, "No probabilities are recorded for this response.");
  const rows = token.likely.some(({ id }) => id === token.id) ? token.likely : [...token.likely, { id: token.id, word: token.word, p: token.p }];
  return el("section", {}, el("h3", {}, "What could have stood here"), el("table", { class: "likely single" },
    el("tbody", {}, rows.map(row => el("tr", { class: row.id === token.id ? "chosen" : "" }, el("th", { scope: "row", dir: "auto" }, tokenLabel(row.word)), bar(row.p, state.token.side))))),
    el("p", { class: "note" }, `surprise ${token.surprise.toFixed(2)} nats${typeof token.fail === "number" ? `; p(fail) ${token.fail.toFixed(2)} once it is read, threshold ${meta.running.toFixed(2)}` : ""}`));
}

function neuronsOf(token) {
  if (!token.acted) return el("section", {}, el("h3", {}, "Steering"), el("p", { class: "note" }, state.token.side === "base" || steeredAsleep() ? "Nothing acted on this response." : "The forward that chose this token was not steered: steering begins with the first generated token."));
  if (!meta.contributions) return el("section", {}, el("h3", {}, "Steering"), el("p", { class: "note" }, "Steering acted. " + (meta.notes.find(note => note.startsWith("Contributions")) ?? "Contributions are not told for this model.")));
  const rows = token.every ?? token.largest, largest = Math.max(...rows.map(([, value]) => Math.abs(value)), 1e-9);
  return el("section", {}, el("h3", {}, `${PLACES[0].toUpperCase()}${PLACES.slice(1)}s on its logit`),
    el("p", {}, el("b", {}, signed(token.total)), ` in all, at strength ${token.strength.toLocaleString("en-US", { maximumFractionDigits: 3 })}`, meta.doses ? `; the edit is ${token.dose < 0.995 ? `${percent(token.dose)} of` : times(token.dose)} what the FFNs write` : ""),
    el("table", { class: "pushes" }, el("tbody", {}, rows.map(([neuron, value]) => {
      const cell = el("td", { class: `push ${value < 0 ? "against" : "towards"}` }, el("span", { class: "fill" }), el("span", { class: "number" }, signed(value)));
      cell.style.setProperty("--p", String(Math.abs(value) / largest));
      return el("tr", {}, el("th", { scope: "row" }, el("a", { href: "#", onclick: event => { event.preventDefault(); update({ tab: "neurons", neuron }); } }, meta.neurons[neuron].address)), cell);
    }))),
    token.every || rows.length >= meta.neurons.length ? null : el("p", { class: "note" }, `The ${rows.length} largest of ${meta.neurons.length}${meta.live ? "; the others are on their way" : ""}.`));
}

async function ask(path, body) {
  const answer = await fetch(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
  const value = await answer.json();
  if (!answer.ok) throw new Error(value.error ?? `HTTP ${answer.status}`);
  return value;
}

const address = side => ({ problem: meta.problem[state.row], seed: meta.seed[state.row], sample: meta.sample[state.row], side });

async function everyNeuron(side) {
  const mine = pair;
  try {
    const { contributions } = await ask("api/neurons", address(side));
    if (mine !== pair) return;
    mine[side].tokens.forEach((token, i) => {
      if (token.acted) token.every = contributions[i].map((value, neuron) => [neuron, value]).sort((a, b) => Math.abs(b[1]) - Math.abs(a[1]));
    });
    drawSheet();
  } catch (error) {
    say(error.message);
  }
}

function forkForm(side, i, token) {
  const word = el("select", { id: "fork-token" }, el("option", { value: "" }, "the model's own choice"), token.likely.map(({ word }, rank) => el("option", { value: rank }, ...tokenLabel(word).map(part => part.textContent ?? part))));
  const strength = el("input", { id: "fork-strength", type: "number", step: "any", value: meta.strength });
  const go = el("button", { class: "primary", type: "submit" }, "Go on");
  const say_ = el("span", { class: "note", role: "status" });
  return el("section", {}, el("h3", {}, "Go on from here"), el("form", { class: "fork-form", onsubmit: async event => {
    event.preventDefault();
    go.disabled = true;
    say_.textContent = "generating …";
    try {
      const fork = await ask("api/fork", { ...address(side), token: i, strength: Number(strength.value), alternative: word.value === "" ? null : Number(word.value) });
      (pair.forks ??= []).push(fork);
      say_.textContent = `${fork.score}, ${plural(fork.pieces.length, "token")}`;
      document.querySelector(".forks")?.replaceWith(forks());
      document.querySelector(".forks")?.lastElementChild?.scrollIntoView({ block: "nearest" });
    } catch (error) {
      say_.textContent = error.message;
    }
    go.disabled = false;
  } },
    el("label", {}, "with token ", word), el("label", {}, "at strength ", strength),
    el("span", { class: "presets" }, el("button", { type: "button", class: "quiet", onclick: () => { strength.value = "0"; } }, "unsteered"), el("button", { type: "button", class: "quiet", onclick: () => { strength.value = meta.strength; } }, "steered"), el("button", { type: "button", class: "quiet", onclick: () => { strength.value = -meta.strength; } }, "negative")),
    go, say_));
}

function forks() {
  return el("div", { class: "forks" }, (pair.forks ?? []).map(fork => el("section", { class: "response fork-result", "aria-label": "A fork" },
    el("h2", {}, `From token ${fork.token + 1} of the ${fork.side === "base" ? "unsteered" : "steered"} response, ${fork.strength ? `strength ${fork.strength}` : "unsteered"}`, el("small", {}, ` ${plural(fork.pieces.length, "new token")}`)),
    el("div", { class: "tokens", dir: "auto" }, el("span", { class: "shared" }, visible(fork.before)), fork.pieces.map((piece, i) => el("span", { class: `t own${fork.strength ? " acted" : ""}`, title: `p ${percent(fork.p[i])}` }, visible(piece)))),
    grade(fork))));
}

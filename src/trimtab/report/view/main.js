// Wiring: the header, the keys, and what is drawn again when something changes.

function update(changes, push = false) {
  const before = { ...state };
  Object.assign(state, changes);
  if ((state.colour === "neuron" || changes.neuron !== undefined) && meta.live && pair?.steered?.tokens?.some(token => token.acted && !token.every)) everyNeuron("steered");
  writeHash(push);
  const listed = ["condition", "kind", "sort"].some(key => before[key] !== state[key]) || !Object.keys(changes).length || "query" in changes;
  if (listed) { shown = SHOWN; drawList(); }
  drawTabs();
  if (state.tab === "neurons") { if (before.tab !== state.tab || before.neuron !== state.neuron) drawNeurons(); return; }
  const drawn = ["row", "condition", "colour", "neuron", "folded", "tab"].some(key => before[key] !== state[key]);
  if (drawn) return drawPair();
  if ("token" in changes) drawSheet();
  if (listed) document.querySelector(".heading")?.replaceWith(heading());
}

function openRow(row) {
  if (row < 0) return;
  document.body.classList.add("reading");
  update({ row, tab: "pair", token: null, folded: true }, true);
  markCurrent();
  document.getElementById("main").scrollTo?.(0, 0);
  if (matchMedia("(max-width: 52rem)").matches) scrollTo(0, 0);
}

// A file's name without its folders; the whole path is in the title.
const shortName = name => (/^(local:|[./~])/.test(name) || /\.gguf$/.test(name) ? name.replace(/^local:/, "").replace(/.*\/(?=[^/]+\/?$)/, "") : name);

function drawHeader() {
  const [lead, ...rest] = meta.sentence.split(". "), word = meta.word[0].toUpperCase() + meta.word.slice(1);
  document.getElementById("top").replaceChildren(
    el("div", { class: "brand" }, el("b", {}, "trimtab"), el("span", { class: "run", title: `${meta.model} on ${meta.task}` }, visible(shortName(meta.model)), " on ", visible(shortName(meta.task)), `, ${meta.split} split`)),
    el("details", { class: `verdict ${meta.word.replace(" ", "-")}` }, el("summary", {}, el("b", {}, `${word}:`), " ", visible(lead.replace(`${word}: `, "")), "."),
      el("p", {}, visible(rest.join(". "))), meta.notes.map(note => el("p", {}, visible(note)))),
    el("div", { class: "tabs", role: "tablist", "aria-label": "What is shown" }, [["pair", "Responses"], ["neurons", `${PLACES[0].toUpperCase()}${PLACES.slice(1)}s`]].map(([tab, name]) => el("button", {
      role: "tab", id: `tab-${tab}`, "aria-controls": "main", disabled: tab === "neurons" && !meta.neurons.length,
      onclick: () => { document.body.classList.toggle("reading", true); update({ tab, token: null }); },
    }, name))), el("button", { class: "help", "aria-label": "Keys (?)", onclick: help }, "?"));
  const warning = meta.notes.find(note => note.startsWith("This file holds"));
  if (warning) document.getElementById("top").append(el("p", { class: "warning" }, warning));
}

function drawTabs() {
  for (const tab of ["pair", "neurons"]) document.getElementById(`tab-${tab}`).setAttribute("aria-selected", String(state.tab === tab));
}

function help() {
  document.getElementById("help")?.remove();
  const keys = [["j  k", "next and previous pair"], ["/", "search"], ["f  b", "fixed alone, broken alone"], ["d", "open the token at which they part"], ["← →", "move among tokens, after Tab"], ["Enter", "open a token"], ["Esc", "close"], ["?", "this list"]];
  const dialog = el("dialog", { id: "help", "aria-labelledby": "help-title", onclose: () => dialog.remove() }, el("h2", { id: "help-title" }, "Keys"),
    el("dl", {}, keys.flatMap(([key, text]) => [el("dt", {}, el("kbd", {}, key)), el("dd", {}, text)])),
    el("p", { class: "note" }, "A contribution is what steering's edits add to the logit of the chosen token directly, through the final norm and the unembedding; what later layers and later tokens make of them is left out. Probabilities are those of one forward over the whole response."),
    el("form", { method: "dialog" }, el("button", { class: "primary" }, "Close")));
  document.body.append(dialog);
  dialog.showModal();
}

addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey || document.getElementById("help")) return;
  const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
  if (event.key === "Escape") { if (typing) event.target.blur(); else if (state.token) closeToken(); else document.body.classList.remove("reading"); return; }
  if (typing) return;
  const parted = pair?.alignment?.start;
  const does = {
    j: () => step(1), k: () => step(-1), "/": () => document.getElementById("search").focus(), "?": help,
    f: () => update({ kind: state.kind === "fixed" ? null : "fixed" }), b: () => update({ kind: state.kind === "broken" ? null : "broken" }),
    d: () => { if (pair?.steered?.tokens?.[parted]) openToken("steered", parted); },
  }[event.key];
  if (does) { event.preventDefault(); does(); }
});

addEventListener("popstate", () => { readHash(); drawList(); drawTabs(); state.tab === "neurons" ? drawNeurons() : drawPair(); markCurrent(); });
addEventListener("hashchange", () => { if (location.hash !== hashOf()) { readHash(); drawTabs(); state.tab === "neurons" ? drawNeurons() : drawPair(); markCurrent(); } });
addEventListener("scroll", unhover, { passive: true, capture: true });

function start() {
  if (readHash()) document.body.classList.add("reading");
  else {
    const held = kind => visibleRows().find(row => kindOf(row) === kind && meta.chunk[row] >= 0);
    state.row = held("fixed") ?? held("broken") ?? state.row;
    if (state.tab === "neurons") document.body.classList.add("reading");
  }
  drawHeader();
  drawTabs();
  drawList();
  state.tab === "neurons" ? drawNeurons() : drawPair();
  markCurrent();
}

start();

// The problems: chips that count what the verdict counts, a search, and one line a pair.

let found = null; // rows that the search found in texts, null without a search
const SHOWN = 1000;
let shown = SHOWN;

function visibleRows() {
  const { condition, kind, marks, sort } = state;
  const rows = [];
  for (let row = 0; row < meta.problem.length; row++) {
    if (!has(row, condition) || (kind && kindOf(row) !== kind) || (found && !found.has(row))) continue;
    const base = meta.flags[BASE][row], steered = meta.flags[condition][row];
    if ([...marks].every(mark => MARKS[mark][1](base, steered))) rows.push(row);
  }
  const saved = row => meta.length[condition][row] - meta.length[BASE][row];
  const first = row => (meta.divergence[condition]?.[row] ?? -1) < 0 ? Infinity : meta.divergence[condition][row];
  const order = {
    divergence: (a, b) => first(a) - first(b) || a - b, shorter: (a, b) => saved(a) - saved(b) || a - b,
    longer: (a, b) => saved(b) - saved(a) || a - b, fail: (a, b) => (meta.pFail[b] ?? -1) - (meta.pFail[a] ?? -1) || a - b,
  }[sort];
  return order ? rows.sort((a, b) => order(a, b) || 0) : rows;
}

function counts(condition) {
  const found = { fixed: 0, broken: 0, right: 0, wrong: 0 };
  for (let row = 0; row < meta.problem.length; row++) if (has(row, condition)) found[kindOf(row, condition)]++;
  return found;
}

const isRandom = name => /^random(-norm)?-\d+$/.test(name);
const conditionLabel = name => {
  const random = /^random(-norm)?-(\d+)$/.exec(name);
  if (random) return `random set ${Number(random[2]) + 1}${random[1] ? ", norm-matched" : ""}`;
  return name === meta.condition ? `${name} (judged)` : name;
};

function randomLine() {
  const sets = meta.conditions.filter(isRandom).map(counts);
  if (!sets.length) return null;
  const range = key => {
    const values = sets.map(set => set[key]), low = Math.min(...values), high = Math.max(...values);
    return low === high ? `${low}` : `${low} to ${high}`;
  };
  return el("p", { class: "controls" }, `${plural(sets.length, "random set")} of as many ${PLACES}s: ${range("fixed")} fixed, ${range("broken")} broken.`);
}

function drawList() {
  const place = document.getElementById("list");
  const tally = counts(state.condition);
  const choose = el("select", { id: "condition", onchange: event => update({ condition: event.target.value, token: null }) },
    meta.conditions.slice(1).map(name => el("option", { value: name, selected: name === state.condition }, conditionLabel(name))));
  const chips = el("div", { class: "chips", role: "group", "aria-label": "What steering changed" },
    Object.keys(KINDS).map(kind => el("button", {
      class: `chip ${kind}`, "data-kind": kind, "aria-pressed": String(state.kind === kind),
      onclick: () => update({ kind: state.kind === kind ? null : kind }),
    }, el("b", {}, count(tally[kind])), el("span", {}, KIND_NAMES[kind]))));
  const marks = el("div", { class: "marks", role: "group", "aria-label": "Marks" }, Object.entries(MARKS).map(([mark, [name, test]]) => {
    let n = 0;
    for (let row = 0; row < meta.problem.length; row++) if (has(row, state.condition) && test(meta.flags[BASE][row], meta.flags[state.condition][row])) n++;
    return n || state.marks.has(mark) ? el("button", {
      class: "mark", "data-mark": mark, title: MARK_HINTS[mark], "aria-pressed": String(state.marks.has(mark)),
      onclick: () => { state.marks.has(mark) ? state.marks.delete(mark) : state.marks.add(mark); update({}); },
    }, name, " ", el("b", {}, count(n))) : null;
  }));
  const sort = el("select", { id: "sort", onchange: event => update({ sort: event.target.value }) },
    Object.entries(SORTS).map(([key, name]) => el("option", { value: key, selected: key === state.sort }, name)));
  const search = el("input", { id: "search", type: "search", placeholder: "Search questions and responses", "aria-label": "Search questions and responses", value: state.query, oninput: event => searchFor(event.target.value) });
  place.replaceChildren(
    el("div", { class: "filters" },
      el("label", { class: "field" }, el("span", {}, "Unsteered against"), choose), chips, randomLine(), marks, search,
      el("div", { class: "sorting" }, el("span", { id: "matches" }), el("label", {}, el("span", {}, "by "), sort),
        el("button", { class: "quiet", id: "copy-list", title: "Copy the listed pairs as JSON lines", onclick: copyList }, "Copy JSONL"))),
    el("ol", { class: "rows", id: "rows" }));
  drawRows();
}

function drawRows() {
  const rows = visibleRows(), place = document.getElementById("rows");
  document.getElementById("matches").textContent = `${count(rows.length)} of ${count(meta.problem.length)}`;
  const lines = rows.slice(0, shown).map(row => {
    const kind = kindOf(row), difference = meta.length[state.condition][row] - meta.length[BASE][row];
    const p = meta.pFail[row], first = meta.divergence[state.condition][row];
    const facts = [first < 0 ? "same text" : `parts at ${first + 1}`, difference ? `${difference < 0 ? "−" : "+"}${Math.abs(difference)} tokens` : null, p === null ? null : `p(fail) ${p.toFixed(2)}`];
    return el("li", {}, el("a", {
      href: "#" + new URLSearchParams({ problem: meta.problem[row] }), class: "row", "data-row": row, "aria-current": row === state.row ? "true" : null,
      onclick: event => { if (event.metaKey || event.ctrlKey) return; event.preventDefault(); openRow(row); },
    },
      el("span", { class: `dot ${kind}`, role: "img", "aria-label": KIND_NAMES[kind], title: KIND_NAMES[kind] }),
      el("span", { class: "what" }, el("span", { class: "question", dir: "auto" }, visible(meta.question[row])),
        el("span", { class: "facts" }, facts.filter(Boolean).join(" · "), meta.chunk[row] < 0 ? " · not in this file" : ""))));
  });
  if (rows.length > shown) lines.push(el("li", {}, el("button", { class: "quiet more", onclick: () => { shown += SHOWN; drawRows(); } }, `Show ${count(Math.min(SHOWN, rows.length - shown))} more`)));
  if (!rows.length) lines.push(el("li", { class: "none" }, "No pair matches. ", el("button", { class: "quiet", onclick: clearFilters }, "Clear the filters")));
  place.replaceChildren(...lines);
}

function clearFilters() {
  state.marks.clear();
  found = null;
  update({ kind: null, query: "" });
}

function markCurrent() {
  for (const link of document.querySelectorAll("#rows .row")) {
    const current = Number(link.dataset.row) === state.row;
    if (current) link.setAttribute("aria-current", "true"); else link.removeAttribute("aria-current");
    if (current && getComputedStyle(link.closest("#rows")).overflowY === "auto") link.scrollIntoView({ block: "nearest" });
  }
}

let searching = 0;
async function searchFor(query) {
  state.query = query;
  const mine = ++searching, needle = query.trim().toLowerCase();
  if (!needle) { found = null; drawRows(); return; }
  await new Promise(resolve => setTimeout(resolve, 120));
  const matches = new Set();
  for (let row = 0; row < meta.problem.length; row++) {
    if (mine !== searching) return;
    const pair = meta.chunk[row] < 0 ? null : (await opened(meta.chunk[row])).entries[row];
    const texts = pair ? [meta.problem[row], pair.question, pair.base.text, pair.steered.text, pair.gold] : [meta.problem[row], meta.question[row]];
    if (texts.some(text => text.toLowerCase().includes(needle))) matches.add(row);
  }
  if (mine !== searching) return;
  found = matches;
  shown = SHOWN;
  drawRows();
}

function step(by) {
  const rows = visibleRows(), at = rows.indexOf(state.row);
  const next = rows[at < 0 ? 0 : Math.max(0, Math.min(rows.length - 1, at + by))];
  if (next !== undefined && next !== state.row) openRow(next);
}

async function jsonLine(row) {
  const pair = await pairOf(row, state.condition);
  const plain = response => response && { text: response.text, answer: response.answer, score: response.score, reason: response.reason, tokens: response.length };
  return JSON.stringify({
    problem_id: meta.problem[row], seed: meta.seed[row], sample: meta.sample[row], condition: state.condition, change: kindOf(row),
    p_fail: meta.pFail[row], first_divergence: meta.divergence[state.condition][row],
    question: pair?.question ?? meta.question[row], gold: pair?.gold ?? null, unsteered: plain(pair?.base) ?? null, steered: plain(pair?.steered) ?? null,
  });
}

async function copyList() {
  const rows = visibleRows();
  await copy((await Promise.all(rows.map(jsonLine))).join("\n") + "\n", plural(rows.length, "line"));
}

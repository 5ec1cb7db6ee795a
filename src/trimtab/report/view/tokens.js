// One response as tokens: colours, the tip on hover, and keys that move among them.

const CONTEXT = 10; // tokens of the shared start that stay when it is folded
const LONGEST = 6000; // tokens that are drawn before the reader asks for the rest
let lists = {}; // by side: what is drawn, and the tokens of it

const contributionOf = (token, colour) =>
  colour === "contribution" ? (token.acted ? token.total : null)
    : (token.every ?? token.largest).find(([neuron]) => neuron === state.neuron)?.[1] ?? null;

// Colour and strength of a token's background, 0 to 1; null for none.
function tint(token, scales) {
  const { colour } = state;
  if (colour === "contribution" || colour === "neuron") {
    const value = contributionOf(token, colour);
    if (value === null || !scales[colour]) return null;
    return [value < 0 ? "against" : "towards", Math.min(1, Math.abs(value) / scales[colour]) ** 0.8];
  }
  if (colour === "surprise" && token.surprise !== undefined) return ["surprise", Math.min(1, token.surprise / 4) ** 0.7];
  if (colour === "fail" && typeof token.fail === "number") return ["fail", token.fail];
  if (colour === "dose" && token.acted && scales.dose) return ["dose", Math.min(1, token.dose / scales.dose)];
  return null;
}

function scalesOf(sides) {
  const tokens = sides.flat(), largest = values => {
    const found = values.filter(value => value !== null).map(Math.abs).sort((a, b) => a - b);
    return found.length ? found[Math.min(found.length - 1, Math.floor(found.length * 0.98))] || found[found.length - 1] : 0;
  };
  return {
    contribution: largest(tokens.map(token => contributionOf(token, "contribution"))),
    neuron: largest(tokens.map(token => contributionOf(token, "neuron"))),
    dose: largest(tokens.map(token => (token.acted ? token.dose : null))),
  };
}

// Where the extracted answer stands last in a text, as [start, end]; null where it does not.
function answerSpan(response) {
  if (!response.answer) return null;
  const start = response.text.lastIndexOf(response.answer);
  return start < 0 ? null : [start, start + response.answer.length];
}

function drawTokens(side, response, alignment, scales) {
  const { tokens } = response, partner = side === "base" ? alignment.left : alignment.right;
  const span = answerSpan(response), from = state.folded ? Math.max(0, alignment.start - CONTEXT) : 0;
  const list = el("div", {
    class: "tokens", id: `tokens-${side}`, role: "listbox", tabindex: "0", dir: "auto", "data-side": side,
    "aria-label": `${side === "base" ? "Unsteered" : "Steered"} response, ${plural(tokens.length, "token")}; arrow keys move, Enter opens`,
  });
  const draw = (start, end) => {
    const made = document.createDocumentFragment();
    for (let i = start; i < end; i++) {
      // spaces before a word stay outside of its box, so that words stand apart
      const space = /^[ \t]*/.exec(tokens[i].piece)[0];
      if (space && space !== tokens[i].piece) made.append(space);
      made.append(drawToken(side, tokens[i], i, partner[i], alignment.start, span, scales));
    }
    return made;
  };
  const end = Math.min(tokens.length, from + LONGEST);
  list.append(draw(from, end));
  list.addEventListener("mouseover", hover);
  list.addEventListener("mouseleave", unhover);
  list.addEventListener("click", event => { const i = indexOf(event.target); if (i !== null) openToken(side, i); });
  list.addEventListener("keydown", event => moveAmong(event, side));
  lists[side] = { list, tokens, from, partner };
  const parts = [];
  if (from > 0) parts.push(el("button", { class: "fold", "aria-expanded": "false", onclick: () => update({ folded: false }) }, `${plural(from, "shared token")} folded`));
  else if (!state.folded && alignment.start > CONTEXT) parts.push(el("button", { class: "fold", "aria-expanded": "true", onclick: () => update({ folded: true }) }, "Fold what both share"));
  parts.push(list);
  if (end < tokens.length) {
    const more = el("button", { class: "quiet", onclick: () => { list.append(draw(end, tokens.length)); more.remove(); } }, `Show ${plural(tokens.length - end, "more token")}`);
    parts.push(more);
  }
  return parts;
}

function drawToken(side, token, i, partner, parted, span, scales) {
  const classes = ["t"];
  if (token.acted) classes.push("acted");
  if (i === parted) classes.push("parted");
  else if (partner < 0) classes.push("own");
  if (i < parted) classes.push("shared");
  if (span && token.start < span[1] && token.start + token.piece.length > span[0] && token.piece.trim()) classes.push("answer");
  const shade = tint(token, scales);
  if (shade) classes.push(shade[0]);
  const end = token.piece === "", shownPiece = token.piece.trim() ? token.piece.replace(/^[ \t]+/, "") : token.piece;
  const made = el("span", { class: classes.join(" "), role: "option", id: `${side}-${i}`, "data-i": i, "aria-selected": "false" },
    end ? el("span", { class: "end" }, token.word || "end") : visible(shownPiece));
  if (shade) made.style.setProperty("--a", shade[1].toFixed(3));
  return made;
}

const indexOf = target => { const token = target.closest?.(".t"); return token ? Number(token.dataset.i) : null; };

function hover(event) {
  const i = indexOf(event.target), side = event.currentTarget.dataset.side;
  if (i === null) return;
  document.querySelectorAll(".t.twin").forEach(token => token.classList.remove("twin"));
  const { tokens, partner } = lists[side];
  document.getElementById(`${side === "base" ? "steered" : "base"}-${partner[i]}`)?.classList.add("twin");
  const tip = document.getElementById("tip"), token = tokens[i];
  tip.replaceChildren(...tipLines(token, i));
  tip.hidden = false;
  const place = event.target.closest(".t").getBoundingClientRect(), width = tip.offsetWidth, height = tip.offsetHeight;
  tip.style.left = `${Math.max(8, Math.min(innerWidth - width - 8, place.left))}px`;
  tip.style.top = `${place.bottom + height + 12 > innerHeight ? place.top - height - 8 : place.bottom + 8}px`;
}

function unhover() {
  document.getElementById("tip").hidden = true;
  document.querySelectorAll(".t.twin").forEach(token => token.classList.remove("twin"));
}

function tipLines(token, i) {
  const lines = [el("b", {}, tokenLabel(token.piece || token.word)), el("span", {}, `token ${i + 1}`)];
  if (token.p !== undefined) lines.push(el("span", {}, `p ${percent(token.p)} · surprise ${token.surprise.toFixed(2)} nats`));
  if (typeof token.fail === "number") lines.push(el("span", {}, `p(fail) so far ${token.fail.toFixed(2)}`));
  if (token.acted && meta.contributions) {
    lines.push(el("span", {}, `steering ${signed(token.total)} on its logit${meta.doses ? ` · dose ${times(token.dose)}` : ""}`));
    for (const [neuron, value] of token.largest.slice(0, 3)) lines.push(el("span", { class: "faint" }, `${signed(value)}  ${meta.neurons[neuron].address}`));
  } else if (token.acted) lines.push(el("span", {}, "steering acted"));
  return lines;
}

function moveAmong(event, side) {
  const { tokens, from } = lists[side];
  const active = lists[side].active ?? state.token?.i ?? from;
  const jump = { ArrowRight: 1, ArrowDown: 10, ArrowLeft: -1, ArrowUp: -10 }[event.key];
  if (jump) setActive(side, Math.max(from, Math.min(tokens.length - 1, lists[side].active === undefined ? active : active + jump)));
  else if (event.key === "Home") setActive(side, from);
  else if (event.key === "End") setActive(side, tokens.length - 1);
  else if (event.key === "Enter" || event.key === " ") openToken(side, active);
  else return;
  event.preventDefault();
  event.stopPropagation();
}

function setActive(side, i) {
  const { list } = lists[side];
  lists[side].active = i;
  list.querySelector(".active")?.classList.remove("active");
  const token = document.getElementById(`${side}-${i}`);
  token?.classList.add("active");
  token?.scrollIntoView({ block: "nearest" });
  list.setAttribute("aria-activedescendant", `${side}-${i}`);
}

function markOpen() {
  document.querySelectorAll(".t.open").forEach(token => { token.classList.remove("open"); token.setAttribute("aria-selected", "false"); });
  if (!state.token) return;
  const token = document.getElementById(`${state.token.side}-${state.token.i}`);
  token?.classList.add("open");
  token?.setAttribute("aria-selected", "true");
}

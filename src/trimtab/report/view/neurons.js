// The steered neurons: what each does in correct and incorrect traces, to which tokens, and how every criterion ranks it.

function drawNeurons() {
  const main = document.getElementById("main"), neuron = meta.neurons[state.neuron];
  document.getElementById("sheet")?.remove();
  const known = Object.keys(meta.neurons[0]?.ranks ?? {});
  const table = el("table", { class: "neurons" },
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, PLACES), known.map(name => el("th", { scope: "col" }, name)), el("th", { scope: "col" }, PLACES === "direction" ? "norm" : "difference"))),
    el("tbody", {}, meta.neurons.map((each, i) => el("tr", { class: i === state.neuron ? "current" : "" },
      el("th", { scope: "row" }, el("a", { href: "#", "aria-current": i === state.neuron ? "true" : null, "data-neuron": i, onclick: event => { event.preventDefault(); update({ neuron: i }); } }, each.address)),
      known.map(name => el("td", {}, typeof each.ranks[name] === "number" ? count(each.ranks[name]) : "–")),
      el("td", {}, each.index === null ? (PLACES === "direction" ? String(each.norm) : "–") : each.correct_mean === null ? "–" : signed(each.correct_mean - each.incorrect_mean))))));
  main.replaceChildren(
    el("div", { class: "heading" }, el("button", { class: "quiet back", onclick: () => document.body.classList.remove("reading") }, "‹ All problems"), el("h1", {}, `${PLACES[0].toUpperCase()}${PLACES.slice(1)}s`), el("span", { class: "domain" }, `${plural(meta.neurons.length, PLACES)} steered at strength ${meta.strength}`)),
    el("div", { class: "neuron-page" }, el("div", { class: "scroll" }, table), neuron ? neuronPage(neuron) : null));
}

function neuronPage(neuron) {
  const does = [neuron.gain ? `gain ${signed(neuron.gain)}` : null, neuron.shift ? `shift ${signed(neuron.shift)}` : null].filter(Boolean).join(", ");
  return el("article", { class: "neuron", "aria-label": neuron.address }, el("h2", {}, neuron.address),
    el("p", { class: "note" }, neuron.index === null ? `At unit strength a vector of norm ${neuron.norm} is added to the residual stream.` : `At unit strength: ${does || "nothing"}.`),
    neuron.index === null ? null : histogram(neuron),
    el("div", { class: "columns" }, vocabulary(neuron.index === null ? "It promotes" : "A positive activation promotes", neuron.promoted), vocabulary("and demotes", neuron.demoted)),
    neuron.hits.length ? el("section", {}, el("h3", {}, "Most active on these tokens of unsteered responses"), el("ol", { class: "hits" }, neuron.hits.map(hit => el("li", {},
      el("a", { class: "context", dir: "auto", href: "#" + new URLSearchParams({ problem: hit.problem }), onclick: event => { event.preventDefault(); openRow(meta.problem.indexOf(hit.problem)); } }, visible(hit.before), el("mark", {}, visible(hit.token)), visible(hit.after)), el("span", { class: "number" }, signed(hit.activation)))))) : null,
    Object.keys(neuron.ranks).length ? el("section", {}, el("h3", {}, "Place in each ranking"), el("dl", { class: "ranks" }, Object.entries(neuron.ranks).flatMap(([name, rank]) => [el("dt", {}, name), el("dd", {}, rank === null ? "not ranked" : `${count(rank)} of ${count(neuron.ranked)}`)]))) : null);
}

function histogram({ histogram: found, correct_mean, incorrect_mean }) {
  if (!found) return el("p", { class: "note" }, "The traces that found this neuron are not part of this run.");
  const width = 560, height = 150, left = 8, n = found.correct.length, step = (width - 2 * left) / n;
  const share = counts => { const all = counts.reduce((a, b) => a + b, 0) || 1; return counts.map(value => value / all); };
  const correct = share(found.correct), incorrect = share(found.incorrect), top = Math.max(...correct, ...incorrect) || 1;
  const x = value => left + (value - found.low) / (found.high - found.low || 1) * (width - 2 * left);
  const y = value => height - 24 - value / top * (height - 44);
  const area = (shares, name) => {
    let path = `M${left},${y(0)}`;
    shares.forEach((value, i) => { path += `V${y(value).toFixed(1)}H${(left + (i + 1) * step).toFixed(1)}`; });
    return svg("path", { d: `${path}V${y(0)}Z`, class: `area ${name}` });
  };
  const mean = (value, name) => (value === null ? [] : [svg("line", { x1: x(value), x2: x(value), y1: 12, y2: height - 24, class: `mean ${name}` })]);
  const label = (value, anchor) => { const text = svg("text", { x: x(value), y: height - 8, "text-anchor": anchor }); text.textContent = value.toPrecision(2); return text; };
  return el("figure", {}, el("figcaption", {}, "Mean activation over a trace's tokens: ", el("span", {}, el("i", { class: "swatch right" }), "correct traces "), el("span", {}, el("i", { class: "swatch wrong" }), "incorrect traces")),
    svg("svg", { viewBox: `0 0 ${width} ${height}`, class: "histogram", role: "img", "aria-label": `Histogram of mean activations; correct traces ${correct_mean}, incorrect traces ${incorrect_mean} on average` },
      area(correct, "right"), area(incorrect, "wrong"), ...mean(correct_mean, "right"), ...mean(incorrect_mean, "wrong"),
      svg("line", { x1: left, x2: width - left, y1: y(0), y2: y(0), class: "axis" }), label(found.low, "start"), label(found.high, "end")));
}

function vocabulary(title, tokens) {
  if (!tokens.length) return null;
  const largest = Math.max(...tokens.map(([, z]) => Math.abs(z)));
  return el("section", {}, el("h3", {}, title), el("table", { class: "likely single vocabulary" }, el("tbody", {}, tokens.map(([token, z]) => {
    const cell = el("td", { class: "bar" }, el("span", { class: "fill steered" }), el("span", { class: "number" }, `${signed(z)} sd`));
    cell.style.setProperty("--p", String(Math.abs(z) / largest));
    return el("tr", {}, el("th", { scope: "row", dir: "auto" }, tokenLabel(token)), cell);
  }))));
}

// Elements and text. Nothing is ever parsed as HTML: every string of the run becomes a text node.

const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/g;

function el(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (key === "class") made.className = value;
    else made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.flat().filter(child => child !== null && child !== undefined && child !== false));
  return made;
}

const SVG = "http://www.w3.org/2000/svg";
function svg(name, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// Text with the characters that do not show, or that turn the text around, written out.
function visible(text) {
  const parts = [];
  let end = 0;
  for (const match of text.matchAll(HIDDEN)) {
    if (match.index > end) parts.push(text.slice(end, match.index));
    const code = match[0].codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
    parts.push(el("span", { class: "control", title: "a character that does not show itself" }, "U+" + code));
    end = match.index + match[0].length;
  }
  if (end < text.length) parts.push(text.slice(end));
  return parts;
}

// A token by itself: its spaces and line breaks show, too.
function tokenLabel(text) {
  if (text === "") return [el("span", { class: "control" }, "empty")];
  return visible(text.replace(/\n/g, "⏎").replace(/^ +| +$/g, spaces => "·".repeat(spaces.length)).replace(/\t/g, "⇥"));
}

function box(text, className) {
  return el("div", { class: className, dir: "auto" }, visible(text));
}

const percent = value => (value >= 0.9995 ? "100 %" : value >= 0.0995 ? `${(100 * value).toFixed(1)} %` : value >= 0.0005 ? `${(100 * value).toFixed(2)} %` : "<0.05 %");
const times = value => (value < 0.995 ? percent(value) : `${value.toFixed(2)} times`);
const signed = value => `${value < 0 ? "−" : "+"}${Math.abs(value) >= 10 ? Math.abs(value).toFixed(1) : Math.abs(value).toFixed(2)}`;
const count = value => value.toLocaleString("en-US");
const plural = (value, noun) => `${count(value)} ${noun}${value === 1 ? "" : "s"}`;

let saidTimer = 0;
function say(text) {
  const place = document.getElementById("said");
  place.textContent = text;
  place.classList.add("shown");
  clearTimeout(saidTimer);
  saidTimer = setTimeout(() => place.classList.remove("shown"), 2600);
}

async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = el("textarea", { class: "sr", "aria-hidden": "true" });
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  say(`${what} copied`);
}

// Mathematics in texts: $…$, $$…$$, \(…\) and \[…\], drawn by KaTeX, which is loaded with the first one.
//
// A dollar sign is money or a variable of a shell unless the text around it says otherwise: no space
// inside the dollar signs, no letter or number outside them, and no words between them if they begin
// with a number.
//
// Each expression stops at the next character that could begin a formula, so that a text with many
// beginnings and no end is read in time that is linear in its length.

import { escapeHtml, make } from "./dom.js";

const INLINE =
  /^(?:\\\((?<parenthesis>(?:\\[^()\n]|[^\\\n])+?)\\\)|\\\[(?<bracket>(?:\\[^[\]\n]|[^\\\n])+?)\\\]|\$\$(?<dollars>[^$\n]+?)\$\$|\$(?<dollar>(?:\\.|[^$\\\n])+?)\$(?![\p{L}\p{N}_{$]))/u;
const BLOCK = /^ {0,3}(?:\$\$([^$]+?)\$\$|\\\[((?:\\[^[\]]|[^\\])+?)\\\])[ \t]*(?:\n|$)/;
const BLOCK_BEGIN = /\n(?= {0,3}(?:\$\$|\\\[))/g;
const BLANK_LINE = /\n[ \t]*\n/;
const TO_DOLLAR = /^[^$\\<!\[`*_]*(?=\$)/; // up to a $, with no character before it at which the parser stops
const STYLES = new URL("vendor/katex.min.css", import.meta.url).href;
const SLICE_MS = 10; // of drawing without a pause
const LIMITS = { maxSize: 20, maxExpand: 200 }; // in em, and of macros in one formula

let katex = null;
let loading = null;

/** Extensions of the markdown parser. */
export const mathExtensions = [
  {
    name: "math",
    level: "inline",
    start: (text) => TO_DOLLAR.exec(text)?.[0].length,
    tokenizer(text, tokens) {
      const match = INLINE.exec(text);
      if (!match) return undefined;
      const { parenthesis, bracket, dollars, dollar } = match.groups,
        display = bracket ?? dollars;
      if (dollar !== undefined && isMoney(dollar, tokens.at(-1)?.raw ?? "")) return undefined;
      const tex = display ?? parenthesis ?? dollar;
      return { type: "math", raw: match[0], tex, isDisplay: display !== undefined };
    },
    renderer: renderSource,
  },
  {
    name: "mathBlock",
    level: "block",
    start: findBlockStart,
    tokenizer(text) {
      const match = BLOCK.exec(text);
      if (!match) return undefined;
      return { type: "mathBlock", raw: match[0], tex: match[1] ?? match[2], isDisplay: true };
    },
    renderer: renderSource,
  },
];

/** Draws the formulas of a node, as soon as KaTeX is loaded. */
export function drawMath(node) {
  const formulas = [...node.querySelectorAll("code.formula-source")];
  if (!formulas.length) return;
  if (katex) drawAll(formulas);
  else load().then(() => drawAll(formulas.filter((one) => one.isConnected)), reportError);
}

/** Draws formulas, the first ones at once; the page answers between the others. Those that are removed
 *  meanwhile are left out. */
async function drawAll(formulas) {
  let until = performance.now() + SLICE_MS,
    isFirstSlice = true; // its node may not be on the page yet
  for (const one of formulas) {
    if (performance.now() > until) {
      await new Promise((resume) => setTimeout(resume));
      until = performance.now() + SLICE_MS;
      isFirstSlice = false;
    }
    if (isFirstSlice || one.isConnected) drawFormula(one);
  }
}

/** The text of a node as it was written: a formula is its source, once. */
export function sourceText(node) {
  if (!node.querySelector(".formula")) return node.textContent;
  const copy = node.cloneNode(true);
  for (const one of copy.querySelectorAll(".formula")) one.replaceWith(one.dataset.tex);
  return copy.textContent;
}

/** Returns the index of a whole formula on lines of its own in the first paragraph, or undefined. */
function findBlockStart(text) {
  const end = text.search(BLANK_LINE),
    paragraph = end < 0 ? text : text.slice(0, end + 1);
  for (const { index } of paragraph.matchAll(BLOCK_BEGIN))
    if (BLOCK.test(text.slice(index + 1))) return index;
  return undefined;
}

function isMoney(tex, before) {
  if (/^\s|\s$/.test(tex) || /[\p{L}\p{N}]$/u.test(before.slice(-2))) return true;
  if (/^[\d.,\s]*\s[\d.,\s]*$/.test(tex)) return true; // two amounts
  return /^[\d.,]/.test(tex) && /[\p{L}]{3}/u.test(tex.replace(/\\[a-z]+(?:\{[^}]*\})?/gi, ""));
}

function renderSource({ tex, isDisplay }) {
  return `<code class="formula-source${isDisplay ? " display" : ""}">${escapeHtml(tex)}</code>`;
}

async function load() {
  loading ??= import("./vendor/katex.min.js").then(() => {
    katex = window.katex;
    document.head.append(make("link", { rel: "stylesheet", href: STYLES }));
  });
  try {
    await loading;
  } catch (error) {
    loading = null; // the next formula tries again
    throw error;
  }
}

function drawFormula(code) {
  const tex = code.textContent,
    displayMode = code.classList.contains("display"),
    target = make("span", { className: displayMode ? "formula display" : "formula", "data-tex": tex });
  try {
    katex.render(tex, target, { displayMode, strict: "ignore", ...LIMITS });
  } catch (error) {
    code.title = error.message; // the source stays, as it was written
    return;
  }
  if (displayMode) target.tabIndex = 0; // keyboards scroll what they can focus
  code.replaceWith(target);
}

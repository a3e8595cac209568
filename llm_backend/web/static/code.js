// Syntax highlighting: comments, strings, numbers and keywords. Other code is unchanged; no text is
// lost, and none becomes markup.

import { make } from "./dom.js";

const HASH = "py python sh bash zsh shell console yaml yml toml rb ruby r perl dockerfile makefile make nginx ini conf";
const SLASHES =
  "js javascript mjs jsx ts typescript tsx java c h cpp c++ cs csharp go rs rust swift kt kotlin scala php dart css scss json jsonc proto";
const DASHES = "sql lua haskell hs";

const TEXTS = String.raw`"""[^]*?(?:"""|$)|'''[^]*?(?:'''|$)|"(?:\\.|[^"\\\n])*"?|'(?:\\.|[^'\\\n])*'?|${"`"}(?:\\.|[^${"`"}\\])*${"`"}?`;
const NUMBERS = String.raw`\b\d[\w.]*`;
const NAMES = String.raw`[A-Za-z_$][\w$]*`;

const tokenPattern = (comments) =>
  new RegExp(`(?<comment>${comments})|(?<text>${TEXTS})|(?<number>${NUMBERS})|(?<name>${NAMES})`, "g");

const RESERVED =
  "and as assert async await break case catch class const continue def default del do done elif else enum esac " +
  "except export extends extern false fi final finally fn for from func function global go if impl implements " +
  "import in instanceof interface is lambda let match mod mut new nil none nonlocal not null of or package pass " +
  "private protected pub public raise return select self static struct super switch then this throw throws trait " +
  "true try type typeof undefined union use using var void where while with yield";
const RESERVED_BY_SQL =
  " add all alter between by create delete desc distinct drop end exists group having index inner insert into join " +
  "key left like limit offset on order outer primary references right set table update values view when";

const KINDS = new Map();
for (const [languages, comments, words] of [
  [HASH, String.raw`(?<!\S)#[^\n]*`, RESERVED],
  [SLASHES, String.raw`\/\/[^\n]*|\/\*[^]*?(?:\*\/|$)`, RESERVED],
  [DASHES, String.raw`--[^\n]*|\/\*[^]*?(?:\*\/|$)`, RESERVED + RESERVED_BY_SQL],
]) {
  const kind = { tokenPattern: tokenPattern(comments), words: new Set(words.split(" ")) };
  for (const language of languages.split(" ")) KINDS.set(language, kind);
}

/** Highlights the code of an element in a language; of an unknown one it stays as it is. */
export function highlight(element, language) {
  const known = KINDS.get(language.toLowerCase());
  if (!known) return;
  const text = element.textContent,
    nodes = [];
  let end = 0;
  for (const match of text.matchAll(known.tokenPattern)) {
    const kind = kindOf(match.groups, known.words);
    if (!kind) continue;
    nodes.push(text.slice(end, match.index), make("span", { className: kind }, match[0]));
    end = match.index + match[0].length;
  }
  element.replaceChildren(...nodes, text.slice(end));
}

function kindOf({ comment, text, number, name }, words) {
  if (comment) return "comment";
  if (text) return "text";
  if (number) return "number";
  return words.has(name.toLowerCase()) ? "word" : null;
}

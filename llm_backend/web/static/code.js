// Syntax highlighting: comments, strings, numbers and keywords. Other code is unchanged; no text is
// lost, and none becomes markup.

import { make } from "./dom.js";

const HASH = "py python sh bash zsh shell console yaml yml toml rb ruby r perl dockerfile makefile make nginx ini conf";
const SLASHES =
  "js javascript mjs jsx ts typescript tsx java c h cpp c++ cs csharp go rs rust swift kt kotlin scala php dart css scss json jsonc proto";
const DASHES = "lua haskell hs";

const STRINGS = String.raw`"""[^]*?(?:"""|$)|'''[^]*?(?:'''|$)|"(?:\\.|[^"\\\n])*"?|'(?:\\.|[^'\\\n])*'?|${"`"}(?:\\.|[^${"`"}\\])*${"`"}?`;
const NUMBERS = String.raw`\b\d[\w.]*`;
const NAMES = String.raw`[A-Za-z_$][\w$]*`;

const tokenPattern = (comments) =>
  new RegExp(`(?<comment>${comments})|(?<string>${STRINGS})|(?<number>${NUMBERS})|(?<name>${NAMES})`, "g");

const KEYWORDS =
  "and as assert async await break case catch class const continue def default del do done elif else enum esac " +
  "except export extends extern false fi final finally fn for from func function global go if impl implements " +
  "import in instanceof interface is lambda let match mod mut new nil none nonlocal not null of or package pass " +
  "private protected pub public raise return select self static struct super switch then this throw throws trait " +
  "true try type typeof undefined union use using var void where while with yield";
const SQL_KEYWORDS =
  " add all alter between by create delete desc distinct drop end exists group having index inner insert into join " +
  "key left like limit offset on order outer primary references right set table update values view when";

const LEXERS = new Map(); // by language
for (const [languages, comments, keywords] of [
  [HASH, String.raw`(?<!\S)#[^\n]*`, KEYWORDS],
  [SLASHES, String.raw`\/\/[^\n]*|\/\*[^]*?(?:\*\/|$)`, KEYWORDS],
  [DASHES, String.raw`--[^\n]*`, KEYWORDS],
  ["sql", String.raw`--[^\n]*|\/\*[^]*?(?:\*\/|$)`, KEYWORDS + SQL_KEYWORDS],
]) {
  const lexer = { tokenPattern: tokenPattern(comments), keywords: new Set(keywords.split(" ")) };
  for (const language of languages.split(" ")) LEXERS.set(language, lexer);
}

/** Highlights the code of an element in a language; of an unknown one it stays as it is. */
export function highlight(element, language) {
  const lexer = LEXERS.get(language.toLowerCase());
  if (!lexer) return;
  const text = element.textContent,
    nodes = [];
  let end = 0;
  for (const match of text.matchAll(lexer.tokenPattern)) {
    const className = tokenClass(match.groups, lexer.keywords);
    if (!className) continue;
    nodes.push(text.slice(end, match.index), make("span", { className }, match[0]));
    end = match.index + match[0].length;
  }
  element.replaceChildren(...nodes, text.slice(end));
}

function tokenClass({ comment, string, number, name }, keywords) {
  if (comment) return "comment";
  if (string) return "string";
  if (number) return "number";
  return keywords.has(name.toLowerCase()) ? "keyword" : null;
}

// Markdown to nodes, in blocks, so that a growing text is rendered again only where it changes.
//
// Two defences: HTML in the text is shown as text, and the renderer's output goes through the
// sanitiser, which allows only the elements named here. Pictures become links: loading one from
// another server would reveal the reader to it.

import { t } from "./language.js";
import { Marked } from "./vendor/marked.esm.js";
import DOMPurify from "./vendor/purify.es.mjs";
import { colour } from "./code.js";
import { iconButton, changeIcon, make } from "./dom.js";
import { drawMath, mathExtensions, textOf } from "./math.js";

const escaped = (text) =>
  text
    .replaceAll("&", "&amp;")
    .replaceAll("<", "&lt;")
    .replaceAll(">", "&gt;")
    .replaceAll('"', "&quot;");

const marked = new Marked({
  gfm: true,
  extensions: mathExtensions,
  renderer: {
    html: ({ text }) => escaped(text),
    image: ({ href, text }) => `<a href="${escaped(href)}">${escaped(text || href)}</a>`,
  },
});

const ALLOWED = {
  ALLOWED_TAGS: [
    "a",
    "blockquote",
    "br",
    "code",
    "del",
    "em",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "hr",
    "input",
    "li",
    "ol",
    "p",
    "pre",
    "strong",
    "table",
    "tbody",
    "td",
    "th",
    "thead",
    "tr",
    "ul",
  ],
  ALLOWED_ATTR: ["href", "title", "class", "align", "start", "type", "checked", "disabled"],
  ALLOWED_URI_REGEXP: /^(?:https?|mailto):/i,
  ADD_URI_SAFE_ATTR: ["align", "start", "type", "checked", "disabled"], // these are not addresses
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  RETURN_DOM_FRAGMENT: true,
};

/** Renders a text, and renders it again as it grows. */
export class Markdown {
  #place;
  #rendered = [];

  constructor(place) {
    this.#place = place;
  }

  /** Draws the text; blocks that are what they were stay the nodes that they are. */
  draw(text) {
    const blocks = marked
      .lexer(text)
      .filter((token) => token.type !== "space" && token.type !== "def");
    let same = 0;
    while (same < blocks.length && this.#rendered[same]?.raw === blocks[same].raw) same += 1;
    for (const { node } of this.#rendered.splice(same)) node.remove();
    for (const token of blocks.slice(same)) {
      const node = block(token);
      this.#place.append(node);
      drawMath(node);
      this.#rendered.push({ raw: token.raw, node });
    }
  }

  /** The texts of blocks that will not change any more: all but the last. */
  get settled() {
    return this.#rendered.slice(0, -1).map(({ node }) => textOf(node));
  }

  /** The texts of all blocks. */
  get all() {
    return this.#rendered.map(({ node }) => textOf(node));
  }
}

function block(token) {
  const node = make("div", { className: "block" });
  node.append(DOMPurify.sanitize(marked.parser([token]), ALLOWED));
  for (const link of node.querySelectorAll("a")) {
    link.target = "_blank";
    link.rel = "noopener noreferrer nofollow";
  }
  for (const code of node.querySelectorAll("pre")) code.replaceWith(framed(code));
  for (const table of node.querySelectorAll("table")) {
    const frame = make("div", {
      className: "table",
      tabIndex: 0,
      role: "group", // an answer may have many, and landmarks are to have names of their own
      "aria-label": t("Table"),
    });
    table.replaceWith(frame);
    frame.append(table);
  }
  return node;
}

/** A code block under a line that names its language and copies it. */
function framed(pre) {
  const language = /language-(\S+)/.exec(pre.firstElementChild?.className ?? "")?.[1] ?? "";
  const head = make("figcaption", {}, make("span", {}, language));
  if (navigator.clipboard) head.append(copyButton(t("Copy the code"), () => pre.textContent));
  const code = pre.cloneNode(true);
  code.tabIndex = 0; // keyboards scroll what they can focus
  if (code.firstElementChild) colour(code.firstElementChild, language);
  return make("figure", { className: "code" }, head, code);
}

/** A button that copies a text and confirms it with a tick. */
export function copyButton(label, text) {
  const button = iconButton("copy", label, async () => {
    await navigator.clipboard.writeText(text());
    changeIcon(button, "check");
    setTimeout(() => changeIcon(button, "copy"), 1500);
  });
  return button;
}

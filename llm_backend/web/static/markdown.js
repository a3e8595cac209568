// Markdown -> nodes, in blocks, so that a text that grows is drawn anew only where it changes.
//
// Two locks: HTML in the text is shown as the text that it is, and what the renderer makes of the
// markdown goes through the sanitiser, which keeps the few elements named here. Pictures become
// links: one from elsewhere would tell its server who reads this.

import { Marked } from "./vendor/marked.esm.js";
import DOMPurify from "./vendor/purify.es.mjs";
import { colour } from "./code.js";
import { iconButton, changeIcon, make } from "./dom.js";

const escaped = (text) =>
  text
    .replaceAll("&", "&amp;")
    .replaceAll("<", "&lt;")
    .replaceAll(">", "&gt;")
    .replaceAll('"', "&quot;");

const marked = new Marked({
  gfm: true,
  renderer: {
    html: ({ text }) => escaped(text),
    image: ({ href, text }) => `<a href="${escaped(href)}">${escaped(text || href)}</a>`,
  },
});

const KEPT = {
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

/** A place where a text is drawn, and drawn again as it grows. */
export class Markdown {
  #place;
  #drawn = [];

  constructor(place) {
    this.#place = place;
  }

  /** Draws the text; blocks that are what they were stay the nodes that they are. */
  draw(text) {
    const blocks = marked
      .lexer(text)
      .filter((token) => token.type !== "space" && token.type !== "def");
    let same = 0;
    while (same < blocks.length && this.#drawn[same]?.raw === blocks[same].raw) same += 1;
    for (const { node } of this.#drawn.splice(same)) node.remove();
    for (const token of blocks.slice(same)) {
      const node = block(token);
      this.#place.append(node);
      this.#drawn.push({ raw: token.raw, node });
    }
  }

  /** The texts of blocks that will not change any more: all but the last. */
  get settled() {
    return this.#drawn.slice(0, -1).map(({ node }) => node.textContent);
  }

  /** The texts of all blocks. */
  get all() {
    return this.#drawn.map(({ node }) => node.textContent);
  }
}

function block(token) {
  const node = make("div", { className: "block" });
  node.append(DOMPurify.sanitize(marked.parser([token]), KEPT));
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
      "aria-label": "Table",
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
  if (navigator.clipboard) head.append(copyButton("Copy the code", () => pre.textContent));
  const shown = pre.cloneNode(true);
  shown.tabIndex = 0; // keyboards scroll what they can focus
  if (shown.firstElementChild) colour(shown.firstElementChild, language);
  return make("figure", { className: "code" }, head, shown);
}

/** A button that copies a text and says so with a tick. */
export function copyButton(label, text) {
  const button = iconButton("copy", label, async () => {
    await navigator.clipboard.writeText(text());
    changeIcon(button, "check");
    setTimeout(() => changeIcon(button, "copy"), 1500);
  });
  return button;
}

// Markdown as nodes, block by block, so that a growing text is rendered again only where it changes.
//
// Two defences: HTML in the text is shown as text, and the renderer's output goes through the
// sanitiser, which allows only the elements named here. Images become links: loading one from
// another server would reveal the reader to that server.

import { t } from "./language.js";
import { Marked } from "./vendor/marked.esm.js";
import DOMPurify from "./vendor/purify.es.mjs";
import { highlight } from "./code.js";
import { copyButton } from "./copy_button.js";
import { escapeHtml, make } from "./dom.js";
import { drawMath, mathExtensions, sourceText } from "./math.js";

const marked = new Marked({
  gfm: true,
  extensions: mathExtensions,
  renderer: {
    html: ({ text }) => escapeHtml(text),
    image: ({ href, text }) => `<a href="${escapeHtml(href)}">${escapeHtml(text || href)}</a>`,
  },
});

const CLOSED_FENCE = /\n {0,3}(?:`{3,}|~{3,})\s*$/; // an open one is still being written

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
  #element;
  #rendered = [];
  #links = "{}"; // the definitions of links, which may come after the blocks that refer to them

  constructor(element) {
    this.#element = element;
  }

  /** Draws the text; unchanged blocks keep their nodes. */
  draw(text) {
    const tokens = marked.lexer(text),
      links = JSON.stringify(tokens.links),
      isSame = (block, rendered) =>
        rendered?.raw === block.raw && (links === this.#links || !block.raw.includes("]")),
      blocks = tokens.filter((token) => token.type !== "space" && token.type !== "def");
    let same = 0;
    while (same < blocks.length && isSame(blocks[same], this.#rendered[same])) same += 1;
    this.#links = links;
    for (const { node } of this.#rendered.splice(same)) node.remove();
    for (const token of blocks.slice(same)) {
      const node = renderBlock(token);
      this.#element.append(node);
      drawMath(node);
      if (isDiagram(token)) drawDiagram(node.firstElementChild, token.text);
      this.#rendered.push({ raw: token.raw, node });
    }
  }

  /** The number of blocks. While the text grows, the last one changes. */
  get count() {
    return this.#rendered.length;
  }

  /** The texts of all blocks, or of those from one index to before another. */
  texts(begin = 0, end = this.count) {
    return this.#rendered.slice(begin, end).map(({ node }) => sourceText(node));
  }
}

function renderBlock(token) {
  const node = make("div", { className: "block" });
  node.append(DOMPurify.sanitize(marked.parser([token]), ALLOWED));
  for (const link of node.querySelectorAll("a")) {
    link.target = "_blank";
    link.rel = "noopener noreferrer nofollow";
  }
  for (const code of node.querySelectorAll("pre")) code.replaceWith(frameCode(code));
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

async function drawDiagram(code, text) {
  try {
    const { showDiagram } = await import("./diagrams.js"); // only texts with diagrams load it
    await showDiagram(code, text);
  } catch (error) {
    code.title = error.message; // the source stays, as it was written
  }
}

function isDiagram({ type, lang, raw }) {
  return type === "code" && lang === "mermaid" && CLOSED_FENCE.test(raw);
}

/** A code block under a line that names its language and copies it. */
function frameCode(pre) {
  const language = /language-(\S+)/.exec(pre.firstElementChild?.className ?? "")?.[1] ?? "";
  const head = make("figcaption", {}, make("span", {}, language));
  if (navigator.clipboard) head.append(copyButton(t("Copy the code"), () => pre.textContent));
  const code = pre.cloneNode(true);
  code.tabIndex = 0; // keyboards scroll what they can focus
  if (code.firstElementChild) highlight(code.firstElementChild, language);
  return make("figure", { className: "code" }, head, code);
}

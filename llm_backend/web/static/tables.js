// Tables of the pages for operators.

import { make } from "./dom.js";

/** A section with a title and a table; a column without a name has buttons. A hidden head is for screen
 *  readers, where the cells speak for themselves. */
export function table(title, columns, body, { className = "", hasHiddenHead = false } = {}) {
  const heads = columns.map((name) => (name ? make("th", { scope: "col" }, name) : make("td", {})));
  const head = make("thead", { className: hasHiddenHead ? "hidden" : "" }, make("tr", {}, ...heads));
  return make(
    "section",
    {},
    make("h2", {}, title),
    make(
      "div",
      { className: "table", tabIndex: 0, role: "region", "aria-label": title },
      make("table", { className }, head, body),
    ),
  );
}

/** A row: the first cell names it. */
export const row = (first, ...cells) =>
  make(
    "tr",
    {},
    make("th", { scope: "row" }, first),
    ...cells.map((cell) => make("td", {}, cell ?? "–")),
  );

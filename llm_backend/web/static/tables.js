// Tables of the pages for operators.

import { make } from "./dom.js";

/** A section with a title and a table; a column without a name has buttons. */
export function table(title, columns, body) {
  const heads = columns.map((name) => (name ? make("th", { scope: "col" }, name) : make("td", {})));
  const head = make("thead", {}, make("tr", {}, ...heads));
  return make(
    "section",
    {},
    make("h2", {}, title),
    make(
      "div",
      { className: "table", tabIndex: 0, role: "region", "aria-label": title },
      make("table", {}, head, body),
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

// Operations of the document: the coverage table with a search.

import { request } from "./api.js";
import { byId, make } from "./dom.js";
import { t } from "./language.js";
import { table } from "./tables.js";

const ANSWERS = {
  all: t("All"),
  local: t("Here"),
  upstream: t("By an upstream"),
  unsupported: t("Nowhere"),
};

export class OperationsPage {
  #element = byId("operations-view");
  #rows = [];
  #answered = "all";
  #field = make("input", {
    type: "search",
    placeholder: t("Find an operation"),
    "aria-label": t("Find an operation"),
    oninput: () => this.#draw(),
  });
  #choices;
  #list = make("div", {});
  #summary = make("p", { className: "hint", role: "status" });

  /** Shows the operations as the server lists them now, searched as before. */
  async open() {
    this.#rows = (await request("v1/operations")).data;
    this.#choices = make(
      "div",
      { className: "choices", role: "group", "aria-label": t("Answered") },
      ...Object.keys(ANSWERS).map((name) => this.#filterButton(name)),
    );
    const here = this.#count("local");
    this.#element.replaceChildren(
      make("header", {}, make("h1", {}, t("Operations"))),
      make(
        "p",
        { className: "lead" },
        t("OpenAI’s document and this server’s own: {count} operations, {here} of them answered here. The others are relayed where an upstream is set, and say so where none is.", {
          count: this.#rows.length,
          here,
        }),
      ),
      make("div", { className: "filter" }, this.#field, this.#choices),
      this.#summary,
      this.#list,
    );
    this.#draw();
  }

  #count(name) {
    return this.#rows.filter((row) => name === "all" || row.answered === name).length;
  }

  #filterButton(name) {
    const onclick = () => {
      this.#answered = name;
      this.#draw();
    };
    return make(
      "button",
      { type: "button", "data-answered": name, onclick, hidden: this.#count(name) === 0 },
      `${ANSWERS[name]} `,
      make("small", {}, String(this.#count(name))),
    );
  }

  #draw() {
    for (const button of this.#choices.children)
      button.setAttribute("aria-pressed", button.dataset.answered === this.#answered);
    const words = this.#field.value.toLowerCase().split(/\s+/).filter(Boolean);
    const rows = this.#rows.filter((row) => this.#isMatch(row, words));
    this.#summary.textContent =
      rows.length === this.#rows.length
        ? ""
        : t("{part} of {whole}", { part: rows.length, whole: this.#rows.length });
    const tags = [...new Set(rows.map(({ tag }) => tag))];
    this.#list.replaceChildren(
      ...tags.map((tag) =>
        group(
          tag,
          rows.filter((row) => row.tag === tag),
        ),
      ),
    );
  }

  #isMatch(row, words) {
    const text =
      `${row.summary} ${row.operationId} ${row.method} ${row.path} ${row.tag}`.toLowerCase();
    return (
      (this.#answered === "all" || row.answered === this.#answered) &&
      words.every((word) => text.includes(word))
    );
  }
}

function group(tag, rows) {
  const body = make(
    "tbody",
    {},
    ...rows.map((row) =>
      make(
        "tr",
        {},
        make("td", { className: "method", "data-method": row.method }, row.method),
        make("td", {}, make("code", {}, row.path)),
        make("td", {}, row.summary),
        make(
          "td",
          {},
          make(
            "span",
            { className: "badge", "data-answered": row.answered },
            ANSWERS[row.answered],
          ),
        ),
      ),
    ),
  );
  return table(tag, [t("Method"), t("Path"), t("What it does"), t("Answered")], body, {
    className: "operations",
    hasHiddenHead: true,
  });
}

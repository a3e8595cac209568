// The user's prompts: named texts, stored in this browser, which `/name` inserts into the message.

import { announce, byId, iconButton, make } from "./dom.js";
import { t } from "./language.js";
import { persistent } from "./storage.js";

const STORED = "prompts"; // as JSON
const NAME_PATTERN = /^\/([^\s/]*)$/;

export class Prompts {
  #field = byId("prompt");
  #suggestions = byId("suggestions");
  #name = byId("prompt-name");
  #text = byId("prompt-text");
  #selected = 0; // index of a suggestion

  constructor() {
    byId("new-prompt").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#save();
    });
    this.#field.addEventListener("input", () => this.#suggest());
    this.#field.addEventListener("blur", () => this.#hide());
    this.#field.addEventListener("keydown", (event) => this.#handleKey(event));
    window.addEventListener("storage", () => this.#drawList()); // of another tab
    this.#drawList();
  }

  /** The texts by name, as they are now: other tabs change them, too. */
  get #texts() {
    return parsePrompts(persistent.get(STORED));
  }

  #save() {
    this.#store({ ...this.#texts, [this.#name.value]: this.#text.value });
    this.#name.value = this.#text.value = "";
    this.#name.focus();
  }

  #store(texts) {
    persistent.set(STORED, JSON.stringify(texts));
    this.#drawList();
  }

  get #names() {
    return Object.keys(this.#texts).sort();
  }

  #drawList() {
    byId("prompt-list").replaceChildren(...this.#names.map((name) => this.#listItem(name)));
  }

  #listItem(name) {
    const edit = () => {
      this.#name.value = name;
      this.#text.value = this.#texts[name];
      this.#text.focus();
    };
    const remove = () => {
      const { [name]: _, ...others } = this.#texts;
      this.#store(others);
      this.#name.focus();
    };
    return make(
      "li",
      {},
      make("span", { title: this.#texts[name] }, `/${name}`),
      iconButton("pen", t("Edit {name}", { name }), edit),
      iconButton("bin", t("Delete {name}", { name }), remove),
    );
  }

  /** Suggests the prompts whose names begin as the message does. */
  #suggest() {
    const prefix = NAME_PATTERN.exec(this.#field.value)?.[1].toLowerCase(),
      texts = this.#texts;
    const names =
      prefix === undefined ? [] : this.#names.filter((name) => name.toLowerCase().startsWith(prefix));
    this.#suggestions.replaceChildren(
      ...names.map((name, index) =>
        make(
          "li",
          {
            id: `suggestion-${index}`,
            role: "option",
            "data-name": name,
            onpointerdown: (event) => this.#insertPressed(event, name),
          },
          make("strong", {}, `/${name}`),
          ` ${texts[name].split("\n")[0]}`,
        ),
      ),
    );
    this.#suggestions.hidden = names.length === 0;
    this.#select(0);
    if (names.length)
      announce(t("{count} prompts. Arrow keys choose, Enter inserts.", { count: names.length }));
  }

  #select(index) {
    const items = [...this.#suggestions.children];
    this.#selected = (index + items.length) % (items.length || 1);
    items.forEach((item, at) => item.setAttribute("aria-selected", at === this.#selected));
    if (items.length) this.#field.setAttribute("aria-activedescendant", items[this.#selected].id);
    else this.#field.removeAttribute("aria-activedescendant");
    items[this.#selected]?.scrollIntoView({ block: "nearest" });
  }

  #hide() {
    this.#suggestions.hidden = true;
    this.#suggestions.replaceChildren();
    this.#select(0);
  }

  /** Handles the keys of the suggestions; without any the message field does. */
  #handleKey(event) {
    if (this.#suggestions.hidden || event.isComposing) return;
    const steps = { ArrowDown: 1, ArrowUp: -1 };
    if (event.key in steps) this.#select(this.#selected + steps[event.key]);
    else if (event.key === "Escape") this.#hide();
    else if ((event.key === "Enter" && !event.shiftKey) || event.key === "Tab")
      this.#insert(this.#suggestions.children[this.#selected].dataset.name);
    else return;
    event.preventDefault();
    event.stopImmediatePropagation();
  }

  #insertPressed(event, name) {
    event.preventDefault(); // the message field keeps the focus
    this.#insert(name);
  }

  #insert(name) {
    this.#hide();
    this.#field.value = this.#texts[name];
    this.#field.setSelectionRange(this.#field.value.length, this.#field.value.length);
    this.#field.dispatchEvent(new Event("input")); // its height is fitted
  }
}

/** Returns the prompts of a stored text; none if it is no map of texts. */
function parsePrompts(stored) {
  let values;
  try {
    values = JSON.parse(stored ?? "{}");
  } catch {
    return {}; // changed by hand, or by another program
  }
  const isMap = values !== null && typeof values === "object" && !Array.isArray(values);
  return Object.fromEntries(
    Object.entries(isMap ? values : {}).filter(([, text]) => typeof text === "string"),
  );
}

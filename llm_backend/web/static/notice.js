// A message above a field, or below an answer: a failure, and the buttons that help.

import { make } from "./dom.js";

export class Notice {
  #element;
  #field;
  #text = make("p", {});

  /** The element has the class `notice`; `field` gets the focus of a button that is used. */
  constructor({ element, field }) {
    this.#element = element;
    this.#field = field;
    this.#element.append(this.#text);
  }

  get isShown() {
    return !this.#element.hidden;
  }

  /** Shows a text, and a button for each action: a label, and the function to call. */
  show(text, actions = []) {
    this.#text.textContent = text;
    const buttons = actions.map(([label, action]) => {
      const onclick = () => {
        this.#field.focus(); // the button is about to be removed
        action();
      };
      return make("button", { type: "button", className: "quiet", onclick }, label);
    });
    this.#element.replaceChildren(this.#text, ...buttons);
    this.#element.classList.remove("is-mild");
    this.#element.hidden = false;
  }

  /** Shows a text about a wait, which is no failure yet. */
  showMild(text) {
    this.show(text);
    this.#element.classList.add("is-mild");
  }

  /** Adds a sentence to a text that is shown. */
  add(text) {
    if (this.isShown && !this.#text.textContent.endsWith(text))
      this.#text.textContent += ` ${text}`;
  }

  hide() {
    this.#element.hidden = true;
  }

  hideMild() {
    if (this.#element.classList.contains("is-mild")) this.hide();
  }
}

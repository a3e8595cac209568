// The message above the composer: something went wrong, and the buttons that help.

import { byId, make } from "./dom.js";

export class Notice {
  #place = byId("notice");
  #text = make("p", {});

  constructor() {
    this.#place.append(this.#text);
  }

  get isShown() {
    return !this.#place.hidden;
  }

  /** Shows a text, and a button for each action: a label, and the function to call. */
  show(text, actions = []) {
    this.#text.textContent = text;
    const buttons = actions.map(([label, act]) => {
      const onclick = () => {
        byId("prompt").focus(); // the button is about to go
        act();
      };
      return make("button", { type: "button", className: "quiet", onclick }, label);
    });
    this.#place.replaceChildren(this.#text, ...buttons);
    this.#place.classList.remove("is-mild");
    this.#place.hidden = false;
  }

  /** Shows a text about a wait, which is no failure yet. */
  showMild(text) {
    this.show(text);
    this.#place.classList.add("is-mild");
  }

  /** Adds a sentence to a text that is shown. */
  add(text) {
    if (this.isShown && !this.#text.textContent.endsWith(text))
      this.#text.textContent += ` ${text}`;
  }

  hide() {
    this.#place.hidden = true;
  }

  hideMild() {
    if (this.#place.classList.contains("is-mild")) this.hide();
  }
}

// The search field over the stored chats.

import { byId, make } from "./dom.js";

const PAUSE_MS = 200; // after the last letter

export class SearchField {
  #field = byId("search");
  #timer = null;
  #sought = "";
  #onSought;

  /** `onSought` is called for each other text that is sought; `onDown` moves to what was found. */
  constructor({ onSought, onDown }) {
    this.#onSought = onSought;
    this.#field.addEventListener("input", () => {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.#seek(), this.#field.value.trim() ? PAUSE_MS : 0);
    });
    this.#field.addEventListener("keydown", (event) => {
      if (event.isComposing) return; // the keys are the input method's
      if (event.key === "Escape" && this.#field.value) this.#empty(event);
      if (event.key !== "ArrowDown" && event.key !== "Enter") return;
      event.preventDefault();
      this.#seek();
      onDown({ isOpened: event.key === "Enter" });
    });
    document.addEventListener("keydown", (event) => {
      if (!(event.ctrlKey || event.metaKey) || event.key !== "k") return;
      event.preventDefault();
      if (byId("open-sidebar").checkVisibility()) byId("open-sidebar").click();
      this.#field.select();
    });
  }

  /** What is sought; empty for all chats. */
  get sought() {
    return this.#sought;
  }

  #empty(event) {
    event.preventDefault();
    event.stopPropagation(); // which would stop an answer
    this.#field.value = "";
    this.#seek();
  }

  #seek() {
    clearTimeout(this.#timer);
    const sought = this.#field.value.trim();
    if (sought === this.#sought) return;
    this.#sought = sought;
    this.#onSought();
  }
}

/** An excerpt of a found chat, with the words that were sought marked. */
export const excerptOf = (parts) =>
  make(
    "span",
    { className: "excerpt" },
    ...parts.map(({ text, is_match: isMatch }) => (isMatch ? make("mark", {}, text) : text)),
  );

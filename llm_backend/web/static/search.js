// The search field over the stored chats.

import { byId, make } from "./dom.js";

const PAUSE_MS = 200; // after the last letter

export class SearchField {
  #field = byId("search");
  #timer = null;
  #query = "";
  #onSearch;

  /** `onSearch` is called when the query changes; `onMoveDown` moves to the first chat, or opens it. */
  constructor({ onSearch, onMoveDown }) {
    this.#onSearch = onSearch;
    this.#field.addEventListener("input", () => {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.#search(), this.#field.value.trim() ? PAUSE_MS : 0);
    });
    this.#field.addEventListener("keydown", (event) => {
      if (event.isComposing) return; // the keys are the input method's
      if (event.key === "Escape" && this.#field.value) this.#clear(event);
      if (event.key !== "ArrowDown" && event.key !== "Enter") return;
      event.preventDefault();
      this.#search();
      onMoveDown({ isOpening: event.key === "Enter" });
    });
    document.addEventListener("keydown", (event) => {
      if (!(event.ctrlKey || event.metaKey) || event.key !== "k") return;
      event.preventDefault();
      if (byId("open-sidebar").checkVisibility()) byId("open-sidebar").click();
      this.#field.select();
    });
  }

  /** The words to search for; empty for all chats. */
  get query() {
    return this.#query;
  }

  #clear(event) {
    event.preventDefault();
    event.stopPropagation(); // Escape on the document stops an answer
    this.#field.value = "";
    this.#search();
  }

  #search() {
    clearTimeout(this.#timer);
    const query = this.#field.value.trim();
    if (query === this.#query) return;
    this.#query = query;
    this.#onSearch();
  }
}

/** An excerpt of a found chat, with the words of the query marked. */
export const excerptOf = (parts) =>
  make(
    "span",
    { className: "excerpt" },
    ...parts.map(({ text, is_match: isMatch }) => (isMatch ? make("mark", {}, text) : text)),
  );

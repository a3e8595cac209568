// Several stored chats chosen in the sidebar, to be deleted together.

import { byId, make } from "./dom.js";
import { t } from "./language.js";

export class Selection {
  #button = byId("select-chats");
  #bar = byId("selection");
  #delete = byId("delete-selected");
  #boxes = new Map(); // by the chat of each

  constructor({ onDelete }) {
    this.#button.addEventListener("click", () => this.#turn(!this.isOn));
    byId("select-all").addEventListener("click", () => this.#setAll(true));
    this.#delete.addEventListener("click", () => onDelete(this.#chosen));
  }

  get isOn() {
    return this.#button.getAttribute("aria-pressed") === "true";
  }

  /** A box for a chat, which is seen while chats are being chosen. */
  box(chat, title) {
    const onchange = () => this.#tell();
    const box = make("input", { type: "checkbox", "aria-label": t("Select {title}", { title }), onchange });
    this.#boxes.set(chat, box);
    return box;
  }

  /** Forgets the boxes of a list that is drawn anew; the choice ends. */
  clear() {
    this.#boxes.clear();
    this.#turn(false);
  }

  get #chosen() {
    return [...this.#boxes].filter(([, box]) => box.isConnected && box.checked).map(([chat]) => chat);
  }

  #turn(isOn) {
    this.#button.setAttribute("aria-pressed", isOn);
    byId("chats").classList.toggle("is-selecting", isOn);
    this.#bar.hidden = !isOn;
    this.#setAll(false);
  }

  #setAll(isChecked) {
    for (const box of this.#boxes.values()) box.checked = isChecked;
    this.#tell();
  }

  #tell() {
    const { length } = this.#chosen;
    this.#delete.textContent = t("Delete {count}", { count: length });
    this.#delete.disabled = length === 0;
  }
}

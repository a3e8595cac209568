// Several stored chats chosen in the sidebar, to be saved or deleted together.

import { byId, make } from "./dom.js";
import { t } from "./language.js";

export class Selection {
  #button = byId("select-chats");
  #bar = byId("selection");
  #delete = byId("delete-selected");
  #save = byId("save-selected");
  #boxes = new Map(); // by the chat of each
  #kept = new Set(); // ids of the chats that were chosen in the list before

  constructor({ onDelete, onSave }) {
    this.#button.addEventListener("click", () => this.#turn(!this.isOn));
    byId("select-all").addEventListener("click", () => this.#setAll(true));
    this.#delete.addEventListener("click", () => onDelete(this.#chosen));
    this.#save.addEventListener("click", () => onSave(this.#chosen));
  }

  get isOn() {
    return this.#button.getAttribute("aria-pressed") === "true";
  }

  /** A box for a chat, which is seen while chats are being chosen. */
  box(chat, title) {
    const onchange = () => this.tell();
    const checked = this.#kept.has(chat.id);
    const box = make("input", { type: "checkbox", "aria-label": t("Select {title}", { title }), checked, onchange });
    this.#boxes.set(chat, box);
    return box;
  }

  /** Forgets the boxes of a list that is drawn anew; chats in it that were chosen stay so. */
  redraw() {
    this.#kept = new Set(this.#chosen.map(({ id }) => id));
    this.#boxes.clear();
  }

  /** Ends the choice. */
  end() {
    this.#turn(false);
  }

  /** Tells how many are chosen. */
  tell() {
    const { length } = this.#chosen;
    this.#delete.textContent = t("Delete {count}", { count: length });
    this.#save.textContent = t("Save {count}", { count: length });
    this.#delete.disabled = this.#save.disabled = length === 0;
  }

  get #chosen() {
    return [...this.#boxes].filter(([, box]) => box.isConnected && box.checked).map(([chat]) => chat);
  }

  #turn(isOn) {
    this.#button.setAttribute("aria-pressed", isOn);
    byId("chats").classList.toggle("is-selecting", isOn);
    this.#bar.hidden = !isOn;
    this.#kept.clear();
    this.#setAll(false);
  }

  #setAll(isChecked) {
    for (const box of this.#boxes.values()) box.checked = isChecked;
    this.tell();
  }
}

// Selection of stored chats in the sidebar, which are then saved or deleted together.

import { byId, make } from "./dom.js";
import { t } from "./language.js";

export class Selection {
  #button = byId("select-chats");
  #bar = byId("selection");
  #delete = byId("delete-selected");
  #save = byId("save-selected");
  #boxes = new Map(); // by the chat of each
  #selectedIds = new Set(); // ids of the chats selected in the previous list

  constructor({ onDelete, onSave }) {
    this.#button.addEventListener("click", () => this.#setOn(!this.isOn));
    byId("select-all").addEventListener("click", () => this.#setAll(true));
    this.#delete.addEventListener("click", () => onDelete(this.#chosen));
    this.#save.addEventListener("click", () => onSave(this.#chosen));
  }

  get isOn() {
    return this.#button.getAttribute("aria-pressed") === "true";
  }

  /** A checkbox for a chat, visible while chats are being selected. */
  box(chat, title) {
    const onchange = () => this.showCount();
    const checked = this.#selectedIds.has(chat.id);
    const box = make("input", { type: "checkbox", "aria-label": t("Select {title}", { title }), checked, onchange });
    this.#boxes.set(chat, box);
    return box;
  }

  /** Removes all checkboxes, for a list that is drawn again; selected chats in it stay selected. */
  redraw() {
    this.#selectedIds = new Set(this.#chosen.map(({ id }) => id));
    this.#boxes.clear();
  }

  /** Ends the selection. */
  end() {
    this.#setOn(false);
  }

  /** Shows how many chats are selected. */
  showCount() {
    const { length } = this.#chosen;
    this.#delete.textContent = t("Delete {count}", { count: length });
    this.#save.textContent = t("Save {count}", { count: length });
    this.#delete.disabled = this.#save.disabled = length === 0;
  }

  get #chosen() {
    return [...this.#boxes].filter(([, box]) => box.isConnected && box.checked).map(([chat]) => chat);
  }

  #setOn(isOn) {
    this.#button.setAttribute("aria-pressed", isOn);
    byId("chats").classList.toggle("is-selecting", isOn);
    this.#bar.hidden = !isOn;
    this.#selectedIds.clear();
    this.#setAll(false);
  }

  #setAll(isChecked) {
    for (const box of this.#boxes.values()) box.checked = isChecked;
    this.showCount();
  }
}

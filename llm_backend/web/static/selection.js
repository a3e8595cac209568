// Selection of stored chats in the sidebar, which are then saved or deleted together.

import { byId, make } from "./dom.js";
import { t } from "./language.js";

export class Selection {
  #button = byId("select-chats");
  #bar = byId("selection");
  #delete = byId("delete-selected");
  #save = byId("save-selected");
  #boxes = new Map(); // of the chats in the list: [chat, its box] by path
  #selected = new Set(); // paths, which a chat keeps while its stored answers change

  constructor({ onDelete, onSave }) {
    this.#button.addEventListener("click", () => this.#setOn(!this.isOn));
    byId("select-all").addEventListener("click", () => this.#setAll(true));
    this.#delete.addEventListener("click", () => onDelete(this.#chosen));
    this.#save.addEventListener("click", () => onSave(this.#chosen));
  }

  get isOn() {
    return this.#button.getAttribute("aria-pressed") === "true";
  }

  /** A checkbox for the chat of a path, visible while chats are being selected. */
  box(chat, path, title) {
    const box = make("input", {
      type: "checkbox",
      "aria-label": t("Select {title}", { title }),
      checked: this.#selected.has(path),
      onchange: () => {
        if (box.checked) this.#selected.add(path);
        else this.#selected.delete(path);
        this.showCount();
      },
    });
    this.#boxes.set(path, [chat, box]);
    return box;
  }

  /** Removes all checkboxes, for a list that is drawn again; chats that come back in it, or in a later
   * one, are still selected. */
  redraw() {
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
    return [...this.#boxes.values()].filter(([, box]) => box.isConnected && box.checked).map(([chat]) => chat);
  }

  #setOn(isOn) {
    this.#button.setAttribute("aria-pressed", isOn);
    byId("chats").classList.toggle("is-selecting", isOn);
    this.#bar.hidden = !isOn;
    this.#selected.clear();
    this.#setAll(false);
  }

  #setAll(isChecked) {
    for (const [path, [, box]] of this.#boxes) {
      box.checked = isChecked;
      if (isChecked) this.#selected.add(path);
    }
    this.showCount();
  }
}

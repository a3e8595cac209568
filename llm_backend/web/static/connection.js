// The connection to the server: once it is lost, it is tried until the server answers again.

import { isReachable } from "./api.js";

const AGAIN_AFTER_MS = 3000;

export class Connection {
  #timer = null;
  #isChecking = false;
  #onBack;

  constructor({ onBack }) {
    this.#onBack = onBack;
    window.addEventListener("online", () => this.#check());
  }

  /** Tries the server from now on; `onBack` is called once it answers. */
  watch() {
    this.#timer ??= setInterval(() => this.#check(), AGAIN_AFTER_MS);
  }

  async #check() {
    if (this.#timer === null || this.#isChecking) return;
    this.#isChecking = true;
    const isBack = await isReachable();
    this.#isChecking = false;
    if (!isBack || this.#timer === null) return;
    clearInterval(this.#timer);
    this.#timer = null;
    this.#onBack();
  }
}

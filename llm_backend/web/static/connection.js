// Watch of a lost connection: pings the server until it answers again.

import { isReachable } from "./api.js";

const RETRY_MS = 3000;

export class Connection {
  #timer = null;
  #isChecking = false;
  #onReconnected;

  constructor({ onReconnected }) {
    this.#onReconnected = onReconnected;
    window.addEventListener("online", () => this.#check());
  }

  /** Pings the server from now on; `onReconnected` is called once it answers. */
  watch() {
    this.#timer ??= setInterval(() => this.#check(), RETRY_MS);
  }

  async #check() {
    if (this.#timer === null || this.#isChecking) return;
    this.#isChecking = true;
    const isConnected = await isReachable();
    this.#isChecking = false;
    if (!isConnected || this.#timer === null) return;
    clearInterval(this.#timer);
    this.#timer = null;
    this.#onReconnected();
  }
}

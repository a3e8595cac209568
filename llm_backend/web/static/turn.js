// One answer in progress. It can be stopped at any time, and it is ended when the server is gone
// without having closed the connection: a model may be silent for long, a server is not.

import { ConnectionLost, isReachable } from "./api.js";
import { t } from "./language.js";

const SILENCE_MS = 15_000; // then the server is asked whether it is there
const FAILED_CHECKS = 2; // one alone may be a server with much to do

export class Turn {
  /** True once the user has stopped it. */
  isStopped = false;
  /** True once its chat is not shown any more, and the server goes on with the answer. */
  isLeft = false;
  /** The id by which the server goes on with the answer; null if it ends with this page. */
  detachedId = null;
  #controller = new AbortController();
  #timer = setInterval(() => this.#check(), SILENCE_MS);
  #isHeard = false;
  #failedChecks = 0;
  #onSilent;

  constructor({ onSilent }) {
    this.#onSilent = onSilent;
  }

  get signal() {
    return this.#controller.signal;
  }

  stop() {
    this.isStopped = true;
    this.#controller.abort();
  }

  /** Ends it here, and nowhere else. */
  leave() {
    this.isLeft = true;
    this.#controller.abort();
  }

  /** Notes that something has come. */
  hear() {
    this.#isHeard = true;
  }

  end() {
    clearInterval(this.#timer);
  }

  /** Waits for a promise; throws as soon as the turn is aborted. */
  async wait(promise) {
    this.signal.throwIfAborted();
    const aborted = new Promise((_, reject) =>
      this.signal.addEventListener("abort", () => reject(this.signal.reason), { once: true }),
    );
    return Promise.race([promise, aborted]);
  }

  async #check() {
    const isHeard = this.#isHeard;
    this.#isHeard = false;
    if (isHeard) return;
    this.#onSilent();
    if (await isReachable()) this.#failedChecks = 0;
    else this.#failedChecks += 1;
    if (this.#failedChecks === FAILED_CHECKS)
      this.#controller.abort(new ConnectionLost(t("The server does not answer any more.")));
  }
}

// One answer in progress. It can be stopped at any time, and it ends if the server disappears
// without closing the connection. Silence alone does not end it: a model may be silent for long,
// but its server answers pings.

import { ConnectionLost, isReachable } from "./api.js";
import { t } from "./language.js";

const SILENCE_MS = 15_000; // then the server is pinged
const FAILED_CHECKS = 2; // one alone may be a busy server

export class Turn {
  /** True once the user stopped it. */
  isStopped = false;
  /** True if its chat is not shown any more, and it continues at the server or on this page. */
  isLeft = false;
  /** The id of a detached answer; null if the answer ends with this page. */
  detachedId = null;
  /** True if another server of the database writes the answer, which is shown here at its end. */
  isElsewhere = false;
  /** The view of the answer; null of a turn that calls tools. */
  answerView = null;
  /** True once an event of the answer has come, or it is one that the server was writing before. */
  hasBegun = false;
  #controller = new AbortController();
  #timer = setInterval(() => this.#check(), SILENCE_MS);
  #hasEvents = false;
  #failedChecks = 0;
  #onSilence;
  #staysOnPage;

  /** A turn with `staysOnPage` goes on when its chat is left, on this page, and not at the server. */
  constructor({ onSilence, staysOnPage = false }) {
    this.#onSilence = onSilence;
    this.#staysOnPage = staysOnPage;
  }

  /** True if its chat can be left without stopping it. */
  get isLeavable() {
    return this.#staysOnPage || this.detachedId !== null;
  }

  /** True if it goes on on this page when its chat is left: until the server has its request, or its end. */
  get needsPage() {
    return this.#staysOnPage || !this.hasBegun;
  }

  /** True if its chat was left and the server goes on with it. */
  get isWithServer() {
    return this.isLeft && !this.needsPage;
  }

  get signal() {
    return this.#controller.signal;
  }

  stop() {
    this.isStopped = true;
    this.#controller.abort();
  }

  /** Shows it no more. It continues at the server once that has the request, or on this page with
   *  `staysOnPage`. */
  leave() {
    this.isLeft = true;
    this.#endIfDetached();
  }

  /** Shows a turn again that was left. */
  resume() {
    this.isLeft = false;
  }

  /** Notes that an event of the answer has come. */
  noteEvent() {
    this.#hasEvents = this.hasBegun = true;
    this.#endIfDetached();
  }

  /** Ends what the server goes on with for a chat that is not shown. */
  #endIfDetached() {
    if (this.isWithServer) this.#controller.abort();
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
    const hadEvents = this.#hasEvents;
    this.#hasEvents = false;
    if (hadEvents) return;
    if (!this.isLeft) this.#onSilence();
    if (await isReachable()) this.#failedChecks = 0;
    else this.#failedChecks += 1;
    if (this.#failedChecks === FAILED_CHECKS)
      this.#controller.abort(new ConnectionLost(t("The server does not answer any more.")));
  }
}

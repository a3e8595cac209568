// Streams of answers, drawn while they grow: of a new answer, or of one that the server is writing.

import { loadModule } from "./api.js";

export class AnswerStream {
  #view;
  #router;
  #options;
  #attachments;
  #notice;

  constructor({ view, router, options, attachments, notice }) {
    this.#view = view;
    this.#router = router;
    this.#options = options;
    this.#attachments = attachments;
    this.#notice = notice;
  }

  /** Has the model answer, or continue its last answer; throws as soon as the turn is aborted. */
  async request(conversation, answerView, turn, isContinued) {
    const { model, parameters, isStoring, isDrawing } = this.#options,
      { signal } = turn;
    const isSearching = this.#options.canReadFiles && !isContinued;
    const storeId = isSearching ? await turn.wait(this.#attachments.readyStore()) : null;
    if (storeId && conversation === this.#view.conversation) this.#attachments.showStore(storeId);
    const tools =
      this.#options.usesTools && !isContinued ? await turn.wait(this.#listTools()) : [];
    const began = performance.now();
    const answers =
      isDrawing && !isContinued
        ? conversation.draw({ model, isStoring, signal })
        : conversation.answer({
            model: isDrawing ? conversation.lastAnswer.model : model, // one that draws continues no text
            parameters,
            storeId,
            tools,
            isStoring,
            isContinued,
            detachedId: turn.detachedId,
            signal,
          });
    for await (const answer of answers) {
      signal.throwIfAborted(); // events that came before are left out
      turn.noteEvent();
      if (!turn.isLeft) this.#notice.hideMild();
      if (conversation.storedId) this.#nameInAddress(conversation);
      answerView.update(answer);
    }
    const { usage } = conversation.messages.at(-1);
    this.#view.showSpeed(usage, (performance.now() - began) / 1000);
  }

  /** Draws the question and the answer that the server is writing. */
  async follow(conversation, answerView, turn) {
    const { signal } = turn;
    let isDrawn = false;
    for await (const answer of conversation.follow(turn.detachedId, signal)) {
      signal.throwIfAborted();
      turn.noteEvent();
      if (!isDrawn) {
        this.#options.system = conversation.system;
        this.#view.draw();
        this.#view.transcript.removeLastAnswer(); // the empty one, which is about to grow
        this.#view.transcript.resume(answerView);
        this.#view.showTitle();
        this.#view.showGreeting();
        isDrawn = true;
      }
      answerView.update(answer);
    }
  }

  /** Returns the tools; the notice says once which servers' are missing. */
  async #listTools() {
    const isFirst = listed === null,
      { tools, failures } = await allTools();
    if (isFirst && failures.length) this.#notice.show(failures.join(" "));
    return tools;
  }

  /** Names the conversation in the address if it is shown, once the server has stored it. */
  #nameInAddress(conversation) {
    if (conversation === this.#view.conversation && this.#router.isAtChat)
      this.#router.replace(conversation.path);
  }
}

let listed = null; // promise of the tools

/** Returns the tools that models may call, in the form of chat requests. */
export async function listTools() {
  return (await allTools()).tools;
}

async function allTools() {
  const listing = (listed ??= loadModule(() => import("./tools.js")).then(({ functionTools }) => functionTools()));
  try {
    return await listing;
  } catch (error) {
    if (listed === listing) listed = null; // the next question asks again
    throw error;
  }
}

/** Has the tools be listed again: another key may call others. */
export function forgetTools() {
  listed = null;
}

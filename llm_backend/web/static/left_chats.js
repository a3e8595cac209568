// Chats that were left while this page has work for them: a turn in progress, or a question or results
// of tools that wait to be sent. Opening such a chat resumes it here.

import { CLIENT } from "./detached.js";

export class LeftChats {
  #entries = new Map(); // by conversation, `{ conversation, turn, since }`

  /** Keeps a conversation; `turn` is null where nothing is in progress: opening the chat sends its question,
   *  or the results of its calls, to the model. */
  keep(conversation, turn) {
    this.#entries.set(conversation.id, { conversation, turn, since: Date.now() / 1000 });
  }

  /** Returns the conversation of an id, and its turn; null if none is kept. */
  find(id) {
    return this.#entries.get(id) ?? null;
  }

  remove(id) {
    this.#entries.delete(id);
  }

  /** Removes a conversation that is kept for this turn. */
  removeEnded({ id }, turn) {
    if (this.find(id)?.turn === turn) this.remove(id);
  }

  /** Stops what is in progress for those that are not open, and removes them. */
  stopAll() {
    for (const { conversation, turn } of this.#closed) {
      turn?.stop();
      this.remove(conversation.id);
    }
  }

  get #closed() {
    return [...this.#entries.values()].filter(({ turn }) => turn === null || turn.isLeft);
  }

  /** Returns those that are not open, latest first, in the form of stored chats. */
  list() {
    return this.#closed
      .map(({ conversation: { id, title }, turn, since }) => ({
        id,
        created: since,
        metadata: { client: CLIENT, conversation: id, title },
        isRunning: turn !== null,
      }))
      .reverse();
  }
}

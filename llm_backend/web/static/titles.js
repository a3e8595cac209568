// Titles that chats got while they were answered: such an answer is stored with an earlier title, and then
// gets the new one. They last as long as the tab, as an answer goes on while its page is loaded again.

import { conversationOf, rename, titleOf } from "./conversation.js";
import { ofSession } from "./storage.js";

const STORED = "titles"; // as JSON

export class Titles {
  /** By conversation, `{ id, title, earlier }`: the completion that has the title, and titles before. */
  #given = new Map(JSON.parse(ofSession.get(STORED) ?? "[]"));
  #onRestored;

  /** `onRestored` gets the id of a conversation and its title. */
  constructor({ onRestored }) {
    this.#onRestored = onRestored;
  }

  /** Notes that a stored completion has got its title, instead of the one before. */
  note(completion, before) {
    const conversation = conversationOf(completion);
    if (conversation === null) return;
    const { earlier = [] } = this.#given.get(conversation) ?? {};
    const { id } = completion;
    this.#given.set(conversation, { id, title: titleOf(completion), earlier: [...earlier, before] });
    this.#store();
  }

  /** Shows the titles of chats that are being answered, and gives listed chats theirs again where a later
   *  answer was stored with an earlier one. A failure is thrown; the next list tries again. */
  async restore(chats, answered) {
    for (const [conversation, { id, title, earlier }] of this.#given) {
      const isOf = (chat) => conversationOf(chat) === conversation,
        running = answered.find(isOf),
        stored = chats.find(isOf);
      if (running) running.metadata = { ...running.metadata, title };
      if (running || !stored || titleOf(stored) === title) continue;
      if (!earlier.includes(titleOf(stored))) {
        this.#given.delete(conversation); // renamed in another tab
      } else if (stored.id !== id) {
        Object.assign(stored, await rename(stored, title));
        this.#given.set(conversation, { id: stored.id, title, earlier });
        this.#onRestored(conversation, title);
      }
      this.#store();
    }
  }

  /** Forgets the titles, as the chats of another key lack them. */
  forget() {
    this.#given.clear();
    this.#store();
  }

  #store() {
    ofSession.set(STORED, JSON.stringify([...this.#given]));
  }
}

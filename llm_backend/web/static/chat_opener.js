// Opening of chats: a new one, a stored one, one whose answer the server is writing, one of a file.

import { RequestError } from "./api.js";
import { Conversation, loadConversation, loadStoredChat } from "./conversation.js";
import { findRunning } from "./detached.js";
import { t } from "./language.js";
import { loadMarkdown } from "./transcript.js";

export class ChatOpener {
  #left;
  #view;
  #answers;
  #router;
  #options;
  #attachments;
  #errors;

  constructor({ left, view, answers, router, options, attachments, errors }) {
    this.#left = left;
    this.#view = view;
    this.#answers = answers;
    this.#router = router;
    this.#options = options;
    this.#attachments = attachments;
    this.#errors = errors;
  }

  /** Opens the chat of an address: `chat` with a conversation's id, `stored` with that of a stored
   *  completion, or an empty kind for a new chat. With `isReturn` it is the address of the open chat, which
   *  is shown again: one that was begun at the address of new chats, too, and a new one with its files and
   *  its system prompt. */
  async open(kind, id, isReturn) {
    const { conversation } = this.#view;
    if (kind ? kind === "chat" && id === conversation.id : isReturn) {
      this.#view.showTitle();
      if (conversation.storedId) this.#router.replace(conversation.path);
      return;
    }
    this.#answers.leave();
    await (kind ? this.load(kind, id) : this.openNew());
  }

  /** Shows an empty chat; returns once no files are shown. */
  openNew() {
    this.#answers.leave();
    this.#view.showNew();
    return this.#attachments.show(null);
  }

  /** Loads a chat from the server, by its id as addresses have it, and shows it; an answer in progress
   *  is followed. A chat that was left and goes on here is shown as it is here, unless the server has its
   *  answer. */
  async load(kind, encodedId) {
    const { visit } = this.#router;
    try {
      const id = decodeId(encodedId),
        left = kind === "chat" ? this.#left.find(id) : null;
      if (left?.turn) {
        await this.#resume(left);
        return;
      }
      const [conversation, run] = await (kind === "chat"
        ? Promise.all([loadConversation(id), findRunning(id), loadMarkdown()])
        : Promise.all([loadStoredChat(id), null, loadMarkdown()]));
      if (visit !== this.#router.visit) return; // another address was chosen meanwhile
      if (run) {
        this.#answers.rejoin(conversation ?? new Conversation(), run);
        return;
      }
      if (left && (conversation === null || conversation.storedId === left.conversation.storedId)) {
        await this.#resume(left);
        return;
      }
      this.#left.remove(id);
      if (conversation === null) throw new RequestError(404, t("This chat is not stored any more."));
      await this.#show(conversation).filesShown;
    } catch (error) {
      if (visit !== this.#router.visit) return;
      this.#router.noteFailure();
      this.#view.showNew();
      this.#attachments.show(null);
      this.#errors.show(error);
    }
  }

  async #resume(left) {
    const { filesShown } = this.#show(left.conversation);
    this.#answers.resume(left);
    await filesShown;
  }

  /** Shows a chat of a file, which is not stored yet; returns once its files are shown. */
  async showImported(conversation) {
    await loadMarkdown();
    this.#answers.leave();
    this.#options.hide();
    this.#router.push("#/");
    await this.#show(conversation).filesShown;
  }

  /** Shows a conversation; `filesShown` is a promise of its files. */
  #show(conversation) {
    this.#options.choose(conversation.model);
    this.#options.system = conversation.system;
    this.#view.show(conversation);
    return { filesShown: this.#attachments.show(conversation.metadata.vector_store) };
  }
}

function decodeId(encoded) {
  try {
    return decodeURIComponent(encoded);
  } catch {
    throw new RequestError(404, t("This address names no chat."));
  }
}

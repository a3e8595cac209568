// Opening of chats: a new one, a stored one, one whose answer the server is writing, one of a file.

import { RequestError } from "./api.js";
import { Conversation, loadConversation, loadStoredChat } from "./conversation.js";
import { findRunning } from "./detached.js";
import { t } from "./language.js";
import { loadMarkdown } from "./transcript.js";

export class ChatOpener {
  #view;
  #answers;
  #router;
  #options;
  #attachments;
  #errors;

  constructor({ view, answers, router, options, attachments, errors }) {
    this.#view = view;
    this.#answers = answers;
    this.#router = router;
    this.#options = options;
    this.#attachments = attachments;
    this.#errors = errors;
  }

  /** Opens the chat of an address: `chat` with a conversation's id, `stored` with that of a stored
   *  completion, or an empty kind for a new chat. With `wasBeside` a view beside the chat was shown
   *  before: a chat that has no address yet is shown again. */
  async open(kind, id, wasBeside) {
    const { conversation } = this.#view,
      isOpen = kind ? kind === "chat" && id === conversation.id : wasBeside && conversation.isUnstored;
    if (isOpen) {
      this.#view.showTitle();
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
   *  is followed. A chat whose turn goes on on this page is shown as it is here. */
  async load(kind, encodedId) {
    const { visit } = this.#router;
    try {
      const id = decodeId(encodedId),
        ongoing = kind === "chat" ? this.#answers.findOnPage(id) : null;
      if (ongoing) {
        const { filesShown } = this.#show(ongoing.conversation);
        this.#answers.resume(ongoing);
        await filesShown;
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

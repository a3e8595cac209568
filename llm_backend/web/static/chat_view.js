// The open chat on the page: its messages, its title, the greeting of an empty chat, and the send button.

import { Conversation } from "./conversation.js";
import { announce, byId, changeIcon, nameWindow } from "./dom.js";
import { formatCount, t } from "./language.js";
import { Transcript } from "./transcript.js";

export class ChatView {
  conversation = new Conversation();
  transcript = new Transcript();
  #options;
  #notice;
  #onEdit;
  #onStep;
  #onDrawn;

  /** `onEdit` gets the index of a question and its edited text, `onStep` the index of a message and the
   *  step (-1 or 1) to another variant of it. `onDrawn` is called after the messages are drawn. */
  constructor({ options, notice, onEdit, onStep, onDrawn }) {
    this.#options = options;
    this.#notice = notice;
    this.#onEdit = onEdit;
    this.#onStep = onStep;
    this.#onDrawn = onDrawn;
  }

  /** Shows a conversation instead of the open one. */
  show(conversation) {
    this.conversation = conversation;
    this.#notice.hide();
    byId("speed").textContent = "";
    this.#draw();
    this.showTitle();
    this.showGreeting();
  }

  /** Shows an empty conversation. */
  showNew() {
    this.#options.resetSystem();
    this.show(new Conversation());
  }

  /** Draws the messages of the open conversation anew; those that are being edited stay so. */
  draw() {
    const { edits } = this.transcript;
    this.#draw();
    this.transcript.resumeEdits(edits);
  }

  #draw() {
    this.transcript.show(this.conversation.messages, {
      onEdit: this.#onEdit,
      variantAt: (index) => this.conversation.variantAt(index),
      onStep: this.#onStep,
    });
    this.#onDrawn();
  }

  /** Shows an answer in progress again, in place of what its conversation has of it. */
  resumeAnswer(answerView) {
    if (this.conversation.lastAnswer) this.transcript.removeLastAnswer();
    this.transcript.resume(answerView);
  }

  showTitle() {
    const { title } = this.conversation;
    byId("heading").textContent = title || t("New chat");
    if (document.body.dataset.page === "chat") nameWindow(title);
  }

  /** Shows the new title of a conversation, if it is the open one. */
  rename(id, title) {
    if (id !== this.conversation.id) return;
    this.conversation.title = title;
    this.showTitle();
  }

  showGreeting() {
    byId("greeting").hidden = this.conversation.messages.length > 0;
    byId("greeting-model").textContent = this.#modelText;
    byId("starters").hidden = !this.#options.isBuiltin;
  }

  get #modelText() {
    const { model, isLoaded, isLocal, isDrawing } = this.#options;
    if (!isLoaded) return "";
    if (isDrawing) return t("{model} draws what you write.", { model });
    if (model && isLocal) return t("{model} runs on this server.", { model });
    if (model) return t("{model} is reached through this server.", { model });
    return t("No model is served yet. Start the server with --model FILE.gguf, or with an upstream: OPENAI_API_KEY.");
  }

  /** Shows whether an answer is in progress: then the send button stops it. */
  showAnswering(isAnswering) {
    const button = byId("send");
    changeIcon(button, isAnswering ? "stop" : "up");
    button.setAttribute("aria-label", isAnswering ? t("Stop") : t("Send"));
    button.classList.toggle("is-stop", isAnswering);
    byId("announcer").replaceChildren();
    if (!isAnswering) return;
    this.transcript.removeApproval(); // the calls that it asks about are not the last answer's any more
    announce(t("The model is answering."));
    this.#notice.hide();
    byId("speed").textContent = "";
    byId("greeting").hidden = true;
  }

  /** Shows the tokens of an answer and their rate, if the server reports usage. */
  showSpeed(usage, seconds) {
    if (!usage) return;
    const speed = usage.timings?.tokens_per_second ?? usage.completion_tokens / seconds;
    const cached = usage.prompt_tokens_details?.cached_tokens ?? 0;
    byId("speed").textContent =
      t("{tokens} tokens, {speed} a second; {cached} of {prompt} from the cache.", {
        tokens: formatCount(usage.completion_tokens),
        speed: formatCount(speed),
        cached: formatCount(cached),
        prompt: formatCount(usage.prompt_tokens),
      });
  }
}

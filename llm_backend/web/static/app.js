// The page: builds its parts, loads the lists of the server, and wires the keyboard and the buttons.

import { forgetTools } from "./answer_stream.js";
import { Answers } from "./answers.js";
import { Attachments } from "./attachments.js";
import { ChatOpener } from "./chat_opener.js";
import { ChatView } from "./chat_view.js";
import { Chats } from "./chats.js";
import { byId, fitHeight, make } from "./dom.js";
import { Documents } from "./documents.js";
import { ErrorReport } from "./error_report.js";
import { sidebar, wireSidebar } from "./sidebar.js";
import { t, translatePage } from "./language.js";
import { LeftChats } from "./left_chats.js";
import { Notice } from "./notice.js";
import { Options } from "./options.js";
import { Images } from "./images.js";
import { Prompts } from "./prompts.js";
import { Router } from "./router.js";
import { Titles } from "./titles.js";
import { loadMarkdown } from "./transcript.js";
import { wireTransfer } from "./transfer.js";
import { endVoice, offerVoice, wireDictation } from "./voice.js";

const LOADING_MS = 1000;
const RELOAD_PAUSES_MS = [0, 250, 500, 1000, 2000]; // a stopped answer is stored a moment later
// The built-in model speaks English only: it gets the English texts, in whatever language the buttons are.
const STARTERS = [
  "How do I load a real model?",
  "How do I use you from Python?",
  "What is 12 plus 30?",
];

class App {
  /** A promise that is fulfilled once the lists of the server are shown, or their failure. */
  loading;
  #timer = null; // of the next load of the models
  #notice = new Notice({ element: byId("notice"), field: byId("prompt") });
  #options = new Options({
    onKey: () => this.#useKey(),
    onModel: () => this.#showModel(),
    onLoaded: () => this.#showModels(),
  });
  #errors = new ErrorReport({
    notice: this.#notice,
    options: this.#options,
    onReconnected: () => this.#reloadLists(),
  });
  #prompts = new Prompts(); // listens to the message field before `#wireComposer` does
  #images = new Images();
  #documents = new Documents();
  #attachments = new Attachments({
    images: this.#images,
    documents: this.#documents,
    onFailed: (error) => this.#errors.show(error),
  });
  #left = new LeftChats();
  #titles = new Titles({ onRestored: (id, title) => this.#view.rename(id, title) });
  #chats = new Chats({
    left: this.#left,
    titles: this.#titles,
    onDeleting: (id) => this.#answers.cancel(id),
    onDeleted: (paths) => this.#closeDeleted(paths),
    onRenamed: (id, title) => this.#view.rename(id, title),
    onFailed: (error) => this.#errors.show(error),
    onReloadFailed: (error) => this.#errors.showIfNoticeIsFree(error),
  });
  #router = new Router({
    options: this.#options,
    onLeave: () => this.#leave(),
    onFollow: (path) => this.#chats.mark(path),
    onChat: (kind, id, isReturn) => this.#opener.open(kind, id, isReturn),
    onFailed: (error) => this.#errors.show(error),
  });
  #view = new ChatView({
    options: this.#options,
    notice: this.#notice,
    onEdit: (index, text) => this.#answers.branch(index, text),
    onStep: (index, step) => this.#answers.showVariant(index, step),
    onDrawn: () => this.#answers.offerContinuation(),
  });
  #answers = new Answers({
    left: this.#left,
    titles: this.#titles,
    view: this.#view,
    router: this.#router,
    options: this.#options,
    images: this.#images,
    documents: this.#documents,
    attachments: this.#attachments,
    notice: this.#notice,
    errors: this.#errors,
    onStored: (id) => this.#reloadChats(id),
    onFinished: ({ id }) => this.#opener.load("chat", id),
  });
  #opener = new ChatOpener({
    left: this.#left,
    view: this.#view,
    answers: this.#answers,
    router: this.#router,
    options: this.#options,
    attachments: this.#attachments,
    errors: this.#errors,
  });

  constructor() {
    this.#wireComposer();
    this.#wireKeyboard();
    this.#wireButtons();
    this.loading = this.#loadLists();
    this.#router.follow();
  }

  /** Opens an empty conversation. */
  openNewChat() {
    this.#leave();
    this.#opener.openNew(); // a chat that was begun at this address would be shown again
    if (location.hash !== "#/") this.#router.push("#/");
    this.#router.follow();
    byId("prompt").focus();
  }

  /** Closes the open chat if it is one of those that were deleted. */
  #closeDeleted(paths) {
    if (!paths.includes(this.#view.conversation.path)) return;
    if (this.#router.isAtChat) this.openNewChat();
    else this.#opener.openNew();
  }

  /** Ends what belongs to the chat or page that is shown now. */
  #leave() {
    endVoice();
    if (this.#options.isShown) this.#options.hide();
  }

  // -- lists of the server

  /** Loads what another key may see: the lists, and the view beside the chat. */
  async #useKey() {
    forgetTools();
    this.#left.stopAll();
    this.#titles.forget();
    await this.#loadLists();
    if (this.#router.isAtChat) this.#retryAddress();
    else this.#router.follow();
  }

  /** Opens the address if that has failed, unless a chat was begun meanwhile. */
  #retryAddress() {
    if (!this.#view.conversation.messages.length) this.#router.retry();
  }

  async #loadLists() {
    this.#notice.hide();
    try {
      await Promise.all([this.#loadModels(), this.#chats.load()]);
    } catch (error) {
      this.#errors.show(error);
    }
  }

  /** Loads the lists again after the server was away; the notice about it stays. */
  async #reloadLists() {
    this.#notice.add(t("The server answers again."));
    try {
      await this.#loadModels();
      await this.#reloadChats();
      this.#retryAddress();
    } catch (error) {
      this.#errors.show(error);
    }
  }

  /** Loads the models, again and again while one is starting: its kind is known only then. */
  async #loadModels() {
    const isStarting = await this.#options.loadModels();
    clearTimeout(this.#timer);
    if (isStarting)
      this.#timer = setTimeout(
        () => this.#loadModels().catch((error) => this.#errors.show(error)),
        LOADING_MS,
      );
  }

  /** Loads the stored chats again, several times if need be until the chat with this id is listed. */
  async #reloadChats(storedId = null) {
    try {
      for (const pause of RELOAD_PAUSES_MS) {
        await new Promise((resolve) => setTimeout(resolve, pause));
        const ids = await this.#chats.load();
        this.#chats.mark(location.hash);
        if (storedId === null || ids?.includes(storedId)) return;
      }
    } catch (error) {
      this.#errors.showIfNoticeIsFree(error);
    }
  }

  /** Shows what the models that are served now can do. */
  #showModels() {
    byId("to-administration").hidden = !this.#options.mayAdminister;
    offerVoice(this.#options.local, (error) => this.#errors.show(error));
    this.#showModel();
  }

  /** Shows the chosen model, and what can be attached for it. */
  #showModel() {
    this.#attachments.offer(this.#options);
    this.#view.showGreeting();
  }

  // -- keyboard and buttons

  #wireComposer() {
    const field = byId("prompt");
    byId("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.#answers.isActive) this.#answers.stop();
      else this.#answers.send();
    });
    field.addEventListener("input", () => fitHeight(field));
    field.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this.#answers.send();
    });
    byId("skip").addEventListener("click", (event) => {
      event.preventDefault();
      field.focus();
    });
  }

  #wireKeyboard() {
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && !event.isComposing) this.#escape();
      if (event.altKey && !event.ctrlKey && event.code === "KeyN") {
        // with the control key it is AltGr, which writes letters
        event.preventDefault();
        this.openNewChat();
      }
    });
  }

  #wireButtons() {
    byId("new-chat").addEventListener("click", () => this.openNewChat());
    wireSidebar();
    wireDictation();
    wireTransfer({
      current: () => this.#view.conversation,
      onImported: (conversation) => this.#openImported(conversation),
      onFailed: (error) => this.#errors.show(error),
    });
    byId("starters").append(
      ...STARTERS.map((text) =>
        make("button", { type: "button", onclick: () => this.#sendStarter(text) }, t(text)),
      ),
    );
  }

  async #openImported(conversation) {
    this.#chats.mark("");
    this.#leave();
    await this.#opener.showImported(conversation);
    this.#notice.showMild(t("This chat is stored with its next message."));
  }

  #sendStarter(text) {
    byId("prompt").value = text;
    this.#answers.send();
  }

  /** Closes what lies over the chat, or else ends the answer. */
  #escape() {
    if (byId("confirm").open) return; // it closes by itself
    if (this.#options.isShown) this.#options.hide();
    else if (sidebar.isOpen) {
      sidebar.close();
      byId("open-sidebar").focus();
    } else if (this.#router.isAtChat) this.#answers.stop();
  }
}

translatePage();
const app = new App();
if (document.readyState === "complete") install();
else addEventListener("load", install); // the dictionary has come before the rest of the page

/** Loads what the page needs later, once it is ready. */
async function install() {
  await app.loading;
  loadMarkdown().catch(() => {}); // tried again by the first question, which shows what fails
  try {
    await (await import("./install.js")).registerWorker();
  } catch (error) {
    console.warn(error); // a browser or a proxy that has no workers: the page works without
  }
}

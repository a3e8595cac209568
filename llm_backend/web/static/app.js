// The page: its views, and the reactions to sending, stopping and navigation.

import { ConnectionLost, RequestError } from "./api.js";
import { Attachments } from "./attachments.js";
import { Chats } from "./chats.js";
import { Connection } from "./connection.js";
import { Conversation, newId, opened, openedStored } from "./conversation.js";
import { cancel, runningOf } from "./detached.js";
import { byId, changeIcon, make } from "./dom.js";
import { sidebar, wireFrame } from "./frame.js";
import { t, translatePage } from "./language.js";
import { Notice } from "./notice.js";
import { Options } from "./options.js";
import { Pictures } from "./pictures.js";
import { Transcript } from "./transcript.js";
import { wireTransfer } from "./transfer.js";
import { Turn } from "./turn.js";

// Pages beside the chat; each is loaded when it is first opened.
const PAGES = {
  status: async (options) => new (await import("./status.js")).StatusPage(options),
  operations: async () => new (await import("./operations.js")).OperationsPage(),
  compare: async (options) => new (await import("./compare.js")).ComparePage(options),
  administration: async () => new (await import("./administration.js")).AdministrationPage(),
};
const LOADING_MS = 1000;
const STORED_WITHIN_MS = [0, 250, 500, 1000, 2000]; // pauses before looks for a stopped answer
const STARTERS = [
  "How do I load a real model?",
  "How do I use you from Python?",
  "What is 12 plus 30?",
];

class App {
  #conversation = new Conversation();
  #turn = null; // the answer in progress
  #path = null; // the address whose page is shown, or being opened
  #opening = null; // promise of that
  #notice = new Notice();
  #connection = new Connection({ onBack: () => this.#comeBack() });
  #transcript = new Transcript();
  #pages = {};
  #options = new Options({ onKey: () => this.#begin() });
  #pictures = new Pictures();
  #attachments = new Attachments({
    pictures: this.#pictures,
    onFailed: (error) => this.#complain(error),
  });
  #chats = new Chats({
    onDeleted: () => this.startAnew(),
    onRenamed: (id, title) => this.#rename(id, title),
    onFailed: (error) => this.#complain(error),
  });

  constructor() {
    this.#wire();
    this.#begin();
    this.#follow();
  }

  /** An empty conversation. */
  startAnew() {
    if (location.hash !== "#/") this.#push("#/");
    this.#follow();
    byId("prompt").focus();
  }

  // -- lists of the server

  async #begin() {
    this.#notice.hide();
    try {
      await this.#listModels();
      await this.#chats.load();
    } catch (error) {
      this.#complain(error);
    }
  }

  /** The server answers again: what was said about it stays, and the lists are of now. */
  async #comeBack() {
    this.#notice.add(t("The server answers again."));
    try {
      await this.#listModels();
      await this.#relist();
    } catch (error) {
      this.#complain(error);
    }
  }

  /** Lists them anew as long as one is being loaded, which says only then what it is for. */
  async #listModels() {
    const isLoading = await this.#options.loadModels();
    byId("to-administration").hidden = !this.#options.mayAdminister;
    this.#attachments.offer(this.#options);
    this.#greet();
    if (isLoading)
      setTimeout(() => this.#listModels().catch((error) => this.#complain(error)), LOADING_MS);
  }

  // -- navigation

  /** Opens the page of the address. */
  #follow() {
    this.#path = location.hash;
    this.#opening = this.#route();
  }

  /** Adds an address to the history; no event follows. */
  #push(path) {
    history.pushState(null, "", path);
    this.#path = path;
  }

  async #route() {
    const [, page = "", id = ""] = /^#\/([a-z]*)\/?(.*)$/.exec(location.hash) ?? [];
    sidebar.close();
    this.#chats.mark(location.hash);
    for (const one of Object.values(this.#pages)) one.close?.();
    if (Object.hasOwn(PAGES, page)) {
      await this.#openPage(page);
      return;
    }
    this.#showPage("chat");
    if (page === "chat" && id === this.#conversation.id) return;
    this.#leave();
    if (page === "chat" || page === "stored") await this.#open(page, decodeURIComponent(id));
    else {
      this.#showNew();
      await this.#attachments.show(null);
    }
  }

  /** A page beside the chat, which goes on meanwhile. */
  async #openPage(page) {
    const path = this.#path;
    this.#showPage(page);
    try {
      this.#pages[page] ??= await PAGES[page](this.#options);
      if (path === this.#path) await this.#pages[page].open();
    } catch (error) {
      if (path !== this.#path) return;
      this.#showPage("chat");
      this.#complain(error);
    }
  }

  async #open(page, id) {
    const path = this.#path;
    try {
      const [conversation, run] = await (page === "chat"
        ? Promise.all([opened(id), runningOf(id)])
        : Promise.all([openedStored(id), null]));
      if (path !== this.#path) return; // another address was chosen meanwhile
      if (run) {
        this.#rejoin(conversation ?? new Conversation(), run);
        return;
      }
      if (conversation === null) throw new RequestError(404, t("This chat is not stored any more."));
      this.#options.choose(conversation.model);
      this.#options.system = conversation.system;
      this.#show(conversation);
      await this.#attachments.show(conversation.metadata.vector_store);
    } catch (error) {
      if (path !== this.#path) return;
      this.#showNew();
      this.#complain(error);
    }
  }

  /** Shows a chat whose answer the server is writing, and follows it. */
  #rejoin(conversation, { id, metadata, model }) {
    conversation.id = metadata.conversation;
    this.#options.choose(model);
    this.#show(conversation);
    this.#attachments.show(metadata.vector_store).catch((error) => this.#complain(error));
    this.#answer({ followedId: id }).catch((error) => this.#complain(error));
  }

  /** Follows the answer of the open chat if the server goes on with it; says whether it does. */
  async #isRejoined() {
    const run = this.#options.isDetaching ? await runningOf(this.#conversation.id) : null;
    if (run) this.#rejoin(this.#conversation, run);
    return run !== null;
  }

  #showNew() {
    this.#options.resetSystem();
    this.#show(new Conversation());
  }

  #show(conversation) {
    this.#conversation = conversation;
    this.#notice.hide();
    byId("speed").textContent = "";
    this.#draw();
    this.#title();
    this.#greet();
  }

  #draw() {
    this.#transcript.show(this.#conversation.messages, {
      onEdit: (place, text) => this.#branch(place, text),
      variantAt: (place) => this.#conversation.variantAt(place),
      onTurn: (place, step) => this.#turnVariant(place, step),
    });
    this.#offerMore();
  }

  #showPage(name) {
    for (const page of ["chat", ...Object.keys(PAGES)])
      byId(`${page}-view`).hidden = page !== name;
    document.body.dataset.page = name;
    for (const link of document.querySelectorAll("[data-page]")) {
      if (link.dataset.page === name && link !== document.body)
        link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    if (name !== "chat") byId(`${name}-view`).focus();
  }

  /** The open chat keeps a title that it was given in the sidebar. */
  #rename(id, title) {
    if (id !== this.#conversation.id) return;
    this.#conversation.title = title;
    this.#title();
  }

  #title() {
    byId("heading").textContent = this.#conversation.title || t("New chat");
    document.title = this.#conversation.title
      ? `${this.#conversation.title} – llm-backend`
      : "llm-backend";
  }

  #greet() {
    byId("greeting").hidden = this.#conversation.messages.length > 0;
    byId("greeting-model").textContent = this.#listenerName();
    byId("starters").hidden = !this.#options.isBuiltin;
  }

  #listenerName() {
    const { model, isLoaded, isHere } = this.#options;
    if (!isLoaded) return "";
    if (model && isHere) return t("{model} runs on this server.", { model });
    if (model) return t("{model} is reached through this server.", { model });
    return t("No model is served yet. Start the server with --model FILE.gguf, or with an upstream: OPENAI_API_KEY.");
  }

  // -- sending and answering

  /** Sends the text to the chat of the address, whose event may not have come yet. */
  async send() {
    if (location.hash !== this.#path) this.#follow();
    await this.#opening;
    const field = byId("prompt"),
      text = field.value.trim();
    if (!text || this.#turn) return;
    field.value = "";
    grow(field);
    await this.#ask(text, this.#pictures.take());
  }

  async #ask(text, pictures, how = {}) {
    const place = this.#conversation.messages.length;
    this.#conversation.add(text, pictures);
    this.#transcript.addQuestion({ content: text, pictures }, (other) =>
      this.#branch(place, other),
    );
    await this.#answer(how);
  }

  /** Asks something else at an earlier place, in a branch of the chat; buttons lead to the other. */
  async #branch(place, text) {
    if (this.#turn) return;
    const { pictures } = this.#conversation.messages[place],
      left = this.#conversation.branchAt(place);
    this.#notice.hide();
    this.#draw();
    const onAgain = () => {
      byId("prompt").value = ""; // where the question went back to
      this.#branch(place, text);
    };
    await this.#ask(text, pictures, { left, onAgain });
  }

  /** Shows a chat of a file, which is not stored yet. */
  async #showRead(conversation) {
    this.#leave();
    this.#options.hide();
    this.#options.choose(conversation.model);
    this.#options.system = conversation.system;
    this.#show(conversation);
    this.#push("#/");
    this.#chats.mark("");
    await this.#attachments.show(null);
    this.#notice.showMild(t("This chat is stored with its next message."));
  }

  /** Ends the answer that is being written, if there is one. */
  stop() {
    const id = this.#turn?.detachedId;
    this.#turn?.stop();
    if (id) cancel(id).catch((error) => this.#complain(error));
  }

  /** Leaves the open chat: its answer goes on at the server, or else it ends. */
  #leave() {
    if (!this.#turn?.detachedId) return this.stop();
    this.#turn.leave();
    this.#setAnswering(null);
  }

  async #again() {
    if (this.#turn || (await this.#isRejoined())) return;
    const left = this.#conversation.takeBack();
    this.#transcript.removeLastAnswer();
    await this.#answer({ left });
  }

  /** Shows the branch with another message at a place; the chat goes on from it. */
  #turnVariant(place, step) {
    if (this.#turn) return;
    this.#conversation.turnVariant(place, step);
    this.#draw();
    this.#transcript.focusVariant(place, step);
  }

  /** Has the model continue its last answer, which was cut. */
  async #goOn() {
    if (this.#turn || (await this.#isRejoined())) return;
    this.#transcript.removeLastAnswer();
    await this.#answer({ isContinued: true });
  }

  /** Gets an answer, or what comes of it: whatever fails, the turn ends, and the page is free.
   *  `left` are the messages of the branch that was left for this one. */
  async #answer({ isContinued = false, left = null, onAgain = null, followedId = null } = {}) {
    const conversation = this.#conversation,
      view = this.#transcript.addAnswer(),
      turn = new Turn({ onSilent: () => this.#tellSilence(conversation) });
    if (followedId) turn.detachedId = followedId;
    else {
      conversation.system = this.#options.system;
      if (this.#options.isDetaching && !isContinued) turn.detachedId = newId();
    }
    this.#setAnswering(turn);
    let failure = null;
    try {
      if (followedId) await this.#listenAgain(conversation, view, turn);
      else await this.#listen(conversation, view, turn, isContinued);
    } catch (error) {
      if (!turn.isStopped && !turn.isLeft) failure = error;
    }
    turn.end();
    if (this.#turn === turn) this.#setAnswering(null);
    if (turn.isLeft) return this.#relist();
    if (followedId && failure?.status === 404) {
      await this.#open("chat", conversation.id); // it has ended meanwhile, and is stored
      return this.#relist();
    }
    try {
      const isSaid = this.#end(conversation, view, left);
      if (failure) this.#tellFailure(failure, conversation.lastAnswer, isSaid, onAgain);
      else if (!isSaid && !turn.isStopped)
        this.#notice.show(t("The model answered nothing."), this.#waysOut({}, null));
      const stoppedId = isSaid && (failure || turn.isStopped) ? conversation.storedId : null;
      await this.#relist(this.#options.isStoring ? stoppedId : null);
      if (!failure && !turn.isStopped) {
        await conversation.forgetEarlier();
        this.#entitle(conversation);
      }
    } catch (error) {
      this.#complain(error);
    }
  }

  /** Has a model of this server name a new chat, if that is wanted. */
  async #entitle(conversation) {
    const { model, isHere, isBuiltin, isStoring, isEntitling } = this.#options;
    if (!(isHere && !isBuiltin && isStoring && isEntitling && conversation.isNew)) return;
    try {
      if (!(await conversation.entitle(model))) return;
      if (conversation === this.#conversation) this.#title();
      await this.#relist();
    } catch (error) {
      if (!(error instanceof RequestError)) throw error; // busy: how the question begins is a title, too
    }
  }

  async #listen(conversation, view, turn, isContinued) {
    const { model, parameters, isStoring } = this.#options,
      { signal } = turn;
    const isSearching = this.#options.canReadFiles && !isContinued;
    const storeId = isSearching ? await turn.wait(this.#attachments.searched()) : null;
    const tools = this.#options.usesTools && !isContinued ? await turn.wait(this.#listTools()) : [];
    const began = performance.now();
    const answering = conversation.answer({
      model,
      parameters,
      storeId,
      tools,
      isStoring,
      isContinued,
      detachedId: turn.detachedId,
      signal,
    });
    for await (const answer of answering) {
      signal.throwIfAborted(); // events that came before are left out
      turn.hear();
      this.#notice.hideMild();
      this.#address(conversation);
      view.grow(answer);
    }
    const { usage } = conversation.messages.at(-1);
    this.#tellSpeed(usage, (performance.now() - began) / 1000);
  }

  /** Draws the question and the answer that the server goes on with. */
  async #listenAgain(conversation, view, turn) {
    const { signal } = turn;
    let isDrawn = false;
    for await (const answer of conversation.follow(turn.detachedId, signal)) {
      signal.throwIfAborted();
      turn.hear();
      if (!isDrawn) {
        this.#options.system = conversation.system;
        this.#draw();
        this.#transcript.removeLastAnswer(); // the empty one, which is about to grow
        this.#transcript.resume(view);
        this.#title();
        this.#greet();
        isDrawn = true;
      }
      view.grow(answer);
    }
  }

  #tellSilence(conversation) {
    this.#notice.showMild(
      conversation.lastAnswer?.content
        ? t("Nothing has come for a while. Stop keeps what was said.")
        : t("No answer yet: the model may be loading, or busy. Stop ends the wait."),
    );
  }

  #tellFailure(failure, lastAnswer, isSaid, onAgain) {
    this.#complain(failure, this.#waysOut(failure, lastAnswer, isSaid ? null : onAgain));
    if (isSaid && !lastAnswer.isCut)
      this.#notice.add(t("The answer is whole, but may not be stored."));
  }

  /** What helps after a failure: more of the answer, or the same question once more. */
  #waysOut({ status }, lastAnswer, onAgain) {
    const isRefused = status >= 400 && status < 500 && status !== 429;
    if (isRefused) return [];
    if (onAgain) return [[t("Try again"), onAgain]];
    const again = [t("Try again"), () => (lastAnswer ? this.#again() : this.#askAgain())];
    return canGoOn(lastAnswer)
      ? [[t("Go on"), () => this.#goOn()], again]
      : [again];
  }

  /** Sends the question that got no answer: from its field, or from the chat if another was begun. */
  async #askAgain() {
    this.#notice.hide();
    if (await this.#isRejoined()) {
      byId("prompt").value = ""; // where the question went back to
      return;
    }
    const { role } = this.#conversation.messages.at(-1) ?? {};
    if ((role === "user" || role === "tool") && !this.#turn) await this.#answer();
    else await this.send();
  }

  /** Names the conversation that is looked at in the address, once it has a name. An address that
   * has just been chosen stays: its page is opened a moment later. */
  #address(conversation) {
    const isSeen = conversation === this.#conversation && document.body.dataset.page === "chat";
    if (isSeen && location.hash === this.#path && location.hash !== conversation.path) {
      history.replaceState(null, "", conversation.path);
      this.#path = location.hash;
    }
  }

  /** Draws the end of an answer; returns whether there is one. */
  #end(conversation, view, left) {
    const answer = conversation.lastAnswer,
      isSaid = answer !== null && !isEmpty(answer);
    if (isSaid) {
      conversation.keepBranch();
      view.end(answer);
      view.announce();
    } else {
      this.#unsay(conversation, view, left);
    }
    if (conversation === this.#conversation) {
      if (isSaid && left) this.#draw(); // with the buttons between the branches
      this.#offerMore();
      this.#title();
    }
    return isSaid;
  }

  #offerMore() {
    const answer = this.#conversation.lastAnswer;
    this.#transcript.offerMore({
      answer,
      onAgain: () => this.#again(),
      onGoOn: canGoOn(answer) ? () => this.#goOn() : null,
    });
    this.#offerApproval(this.#conversation).catch((error) => this.#complain(error));
  }

  async #listTools() {
    return (await import("./tools.js")).functionTools();
  }

  /** Asks whether the calls of the last answer may be made, unless they have results. */
  async #offerApproval(conversation) {
    const { calls = [], isCut } = conversation.lastAnswer ?? {};
    if (!this.#options.usesTools || isCut || !calls.length) return;
    const { approval } = await import("./tools.js");
    if (conversation !== this.#conversation || this.#turn) return;
    this.#transcript.askBelow(
      approval(calls, (isAllowed) =>
        this.#answerCalls(conversation, calls, isAllowed).catch((error) => this.#complain(error)),
      ),
    );
  }

  /** Makes the calls, or not, and has the model go on with what came of them. */
  async #answerCalls(conversation, calls, isAllowed) {
    const { resultOf } = await import("./tools.js");
    const results = [];
    for (const call of calls) results.push(await resultOf(call, isAllowed));
    if (conversation !== this.#conversation || this.#turn) return;
    calls.forEach((call, place) => conversation.addResult(call, results[place]));
    this.#draw();
    await this.#answer();
  }

  /** A question that got no answer goes back to where it was written, to be sent again; the branch
   *  that was left for it is there again. */
  #unsay(conversation, view, left) {
    conversation.dropAnswer();
    view.element.remove();
    const isSeen = conversation === this.#conversation,
      asked = conversation.messages.at(-1),
      isAskedAnew = left?.includes(asked);
    if (left) {
      conversation.messages = left;
      if (isSeen) this.#draw();
    }
    const field = byId("prompt");
    if (isAskedAnew || !isSeen || field.value || asked.role !== "user") return;
    if (!left) {
      conversation.unsay();
      this.#transcript.removeLastQuestion();
    }
    field.value = asked.content;
    this.#pictures.show(asked.pictures);
    grow(field);
    this.#greet();
  }

  /** Lists the chats anew; an answer that was stopped is stored a moment later. */
  async #relist(stoppedId = null) {
    try {
      for (const pause of STORED_WITHIN_MS) {
        await new Promise((resolve) => setTimeout(resolve, pause));
        const ids = await this.#chats.load();
        this.#chats.mark(location.hash);
        if (stoppedId === null || ids.includes(stoppedId)) return;
      }
    } catch (error) {
      if (!this.#notice.isShown) this.#complain(error); // the first failure is the one to know of
    }
  }

  #setAnswering(turn) {
    this.#turn = turn;
    const button = byId("send");
    changeIcon(button, turn ? "stop" : "up");
    button.setAttribute("aria-label", turn ? t("Stop") : t("Send"));
    button.classList.toggle("is-stop", turn !== null);
    byId("announcer").replaceChildren(
      ...(turn ? [make("p", {}, t("The model is answering."))] : []),
    );
    if (turn) {
      this.#notice.hide();
      byId("speed").textContent = "";
      byId("greeting").hidden = true;
    }
  }

  #tellSpeed(usage, seconds) {
    if (!usage) return;
    const speed = usage.timings?.tokens_per_second ?? usage.completion_tokens / seconds;
    const cached = usage.prompt_tokens_details?.cached_tokens ?? 0;
    byId("speed").textContent =
      t("{tokens} tokens, {speed} a second; {cached} of {prompt} from the cache.", {
        tokens: usage.completion_tokens,
        speed: speed.toFixed(0),
        cached,
        prompt: usage.prompt_tokens,
      });
  }

  // -- errors

  #complain(error, actions = []) {
    if (error.status === 401) this.#options.askForKey();
    this.#notice.show(this.#errorText(error), actions);
    if (error instanceof ConnectionLost) this.#connection.watch();
    if (error.status === undefined) reportError(error); // a bug of the page: it belongs into the console
  }

  #errorText({ status, message }) {
    if (status === undefined) return t("The page failed: {message}", { message });
    if (status === 401 && !this.#options.hasKey)
      return t("This server needs an API key: enter it into the field above.");
    return message;
  }

  // -- keyboard and buttons

  #wire() {
    const field = byId("prompt");
    byId("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.#turn) this.stop();
      else this.send();
    });
    field.addEventListener("input", () => grow(field));
    field.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this.send();
    });
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && !event.isComposing) this.#escape();
      if (event.altKey && event.code === "KeyN") {
        event.preventDefault();
        this.startAnew();
      }
    });
    window.addEventListener("hashchange", () => {
      if (location.hash !== this.#path) this.#follow();
    });
    byId("model").addEventListener("change", () => {
      this.#greet();
      this.#attachments.offer(this.#options);
    });
    byId("new-chat").addEventListener("click", () => this.startAnew());
    byId("skip").addEventListener("click", (event) => {
      event.preventDefault();
      field.focus();
    });
    wireFrame();
    wireTransfer({
      current: () => this.#conversation,
      onRead: (conversation) => this.#showRead(conversation),
      onFailed: (error) => this.#complain(error),
    });
    byId("starters").append(
      ...STARTERS.map((text) =>
        make("button", { type: "button", onclick: () => this.#say(text) }, text),
      ),
    );
  }

  #say(text) {
    byId("prompt").value = text;
    this.send();
  }

  /** Closes what lies over the chat, or else ends the answer. */
  #escape() {
    if (byId("confirm").open) return; // it closes by itself
    if (this.#options.isShown) this.#options.hide();
    else if (sidebar.isOpen) {
      sidebar.close();
      byId("open-sidebar").focus();
    } else this.stop();
  }
}

/** True for an answer that was cut in its text, or at the end of it. */
const canGoOn = (answer) => Boolean(answer?.isCut && answer.content);

/** True for an answer that has said nothing. */
const isEmpty = ({ content, reasoning, calls }) => !content && !reasoning && !calls.length;

/** Fits the field's height to its text, up to the style sheet's maximum. */
function grow(field) {
  field.style.height = "auto";
  field.style.height = `${field.scrollHeight}px`;
}

translatePage();
new App();
addEventListener("load", async () => (await import("./install.js")).registerWorker());

// The page: its views, and the reactions to sending, stopping and navigation.

import { RequestError } from "./api.js";
import { Attachments } from "./attachments.js";
import { Chats } from "./chats.js";
import { Conversation, opened, openedStored } from "./conversation.js";
import { byId, changeIcon, make } from "./dom.js";
import { OperationsPage } from "./operations.js";
import { Options } from "./options.js";
import { Pictures } from "./pictures.js";
import { StatusPage } from "./status.js";
import { Transcript } from "./transcript.js";

const LOADING_MS = 1000;
const STARTERS = [
  "How do I load a real model?",
  "How do I use you from Python?",
  "What is 12 plus 30?",
];

class App {
  #conversation = new Conversation();
  #controller = null; // AbortController of the answer in progress
  #transcript = new Transcript();
  #status = new StatusPage();
  #operations = new OperationsPage();
  #options = new Options({ onKey: () => this.#begin() });
  #pictures = new Pictures();
  #attachments = new Attachments({
    pictures: this.#pictures,
    onFailed: (error) => this.#complain(error),
  });
  #chats = new Chats({
    onDeleted: () => this.startAnew(),
    onFailed: (error) => this.#complain(error),
  });

  constructor() {
    this.#wire();
    this.#begin();
    this.#route();
  }

  /** An empty conversation. */
  startAnew() {
    if (location.hash !== "#/") location.hash = "#/";
    else this.#route();
    byId("prompt").focus();
  }

  // -- lists of the server

  async #begin() {
    this.#quiet();
    try {
      await this.#listModels();
      await this.#chats.load();
    } catch (error) {
      this.#complain(error);
    }
  }

  /** Lists them anew as long as one is being loaded, which says only then what it is for. */
  async #listModels() {
    const isLoading = await this.#options.loadModels();
    this.#attachments.offer(this.#options);
    this.#greet();
    if (isLoading)
      setTimeout(() => this.#listModels().catch((error) => this.#complain(error)), LOADING_MS);
  }

  // -- navigation

  async #route() {
    const [, page = "", id = ""] = /^#\/([a-z]*)\/?(.*)$/.exec(location.hash) ?? [];
    this.#closeSidebar();
    this.#chats.mark(location.hash);
    this.#status.close();
    if (page === "status" || page === "operations") {
      await this.#openPage(page);
      return;
    }
    this.#showPage("chat");
    if (page === "chat" && id === this.#conversation.id) return;
    this.stop();
    if (page === "chat" || page === "stored") await this.#open(page, decodeURIComponent(id));
    else {
      this.#show(new Conversation());
      await this.#attachments.show(null);
    }
  }

  /** A page beside the chat, which goes on meanwhile. */
  async #openPage(page) {
    this.#showPage(page);
    try {
      await (page === "status" ? this.#status : this.#operations).open();
    } catch (error) {
      this.#showPage("chat");
      this.#complain(error);
    }
  }

  async #open(page, id) {
    try {
      const conversation = await (page === "chat" ? opened(id) : openedStored(id));
      if (conversation === null) throw new RequestError(404, "This chat is not stored any more.");
      this.#options.choose(conversation.model);
      this.#options.system = conversation.system;
      this.#show(conversation);
      await this.#attachments.show(conversation.metadata.vector_store);
    } catch (error) {
      this.#show(new Conversation());
      this.#complain(error);
    }
  }

  #show(conversation) {
    this.#conversation = conversation;
    this.#quiet();
    byId("speed").textContent = "";
    this.#transcript.show(conversation.messages, {
      onAgain: () => this.#again(),
      onEdit: (place, text) => this.#branch(place, text),
    });
    this.#title();
    this.#greet();
  }

  #showPage(name) {
    for (const page of ["chat", "status", "operations"])
      byId(`${page}-view`).hidden = page !== name;
    document.body.dataset.page = name;
    for (const link of document.querySelectorAll("[data-page]")) {
      if (link.dataset.page === name && link !== document.body)
        link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    if (name !== "chat") byId(`${name}-view`).focus();
  }

  #title() {
    byId("heading").textContent = this.#conversation.title || "New chat";
    document.title = this.#conversation.title
      ? `${this.#conversation.title} – llm-backend`
      : "llm-backend";
  }

  #greet() {
    byId("greeting").hidden = this.#conversation.messages.length > 0;
    byId("greeting-model").textContent = this.#listenerName();
    byId("starters").hidden = !this.#options.isLoaded || !this.#options.model;
  }

  #listenerName() {
    const { model, isLoaded } = this.#options;
    if (!isLoaded) return "";
    if (model) return `${model} is listening, on a server of your own.`;
    return "No model is served yet. Start the server with --model FILE.gguf, or with an upstream: OPENAI_API_KEY.";
  }

  // -- sending and answering

  async send() {
    const field = byId("prompt"),
      text = field.value.trim();
    if (!text || this.#controller) return;
    field.value = "";
    grow(field);
    await this.#ask(text, this.#pictures.take());
  }

  async #ask(text, pictures) {
    const place = this.#conversation.messages.length;
    this.#conversation.add(text, pictures);
    this.#transcript.addQuestion({ content: text, pictures }, (other) =>
      this.#branch(place, other),
    );
    await this.#answer();
  }

  /** Asks something else at an earlier place, in a chat of its own; Back leads to the one that was. */
  async #branch(place, text) {
    if (this.#controller) return;
    const { pictures } = this.#conversation.messages[place];
    this.#show(this.#conversation.branch(place));
    history.pushState(null, "", "#/");
    await this.#ask(text, pictures);
  }

  /** Ends the answer that is being written, if there is one. */
  stop() {
    this.#controller?.abort();
  }

  async #again() {
    if (this.#controller) return;
    this.#conversation.takeBack();
    this.#transcript.removeLastAnswer();
    await this.#answer();
  }

  async #answer() {
    const conversation = this.#conversation,
      view = this.#transcript.addAnswer();
    conversation.system = this.#options.system;
    this.#setAnswering(new AbortController());
    let answer = { content: "", reasoning: "", isCut: true };
    try {
      answer = await this.#listen(conversation, view, answer);
    } catch (error) {
      const last = conversation.messages.at(-1);
      if (last.role === "assistant") answer = last;
      if (error.name !== "AbortError") this.#complain(error);
    }
    this.#end(conversation, view, answer);
  }

  async #listen(conversation, view, answer) {
    const { model, temperature } = this.#options,
      { signal } = this.#controller;
    const storeId = this.#options.canReadFiles ? await this.#attachments.searched() : null;
    const began = performance.now();
    for await (answer of conversation.answer({ model, temperature, storeId, signal })) {
      this.#address(conversation);
      view.grow(answer);
    }
    this.#tellSpeed(answer.usage, (performance.now() - began) / 1000);
    return answer;
  }

  /** Names the conversation that is looked at in the address, once it has a name. An address that
   * has just been chosen stays: its page is opened a moment later. */
  #address(conversation) {
    const isElsewhere = /^#\/(status|operations)/.test(location.hash);
    const isSeen = conversation === this.#conversation && document.body.dataset.page === "chat";
    if (isSeen && !isElsewhere && location.hash !== conversation.path) {
      history.replaceState(null, "", conversation.path);
    }
  }

  async #end(conversation, view, answer) {
    this.#setAnswering(null);
    view.end(answer);
    view.announce();
    if (!answer.content && !answer.reasoning) {
      this.#unsay(conversation, view);
    }
    if (conversation !== this.#conversation) return;
    this.#transcript.offerAgain(() => this.#again());
    this.#title();
    await this.#relist();
  }

  /** A question that got no answer goes back to where it was written, to be sent again. */
  #unsay(conversation, view) {
    if (conversation.messages.at(-1).role === "assistant") conversation.messages.pop();
    view.element.remove();
    const field = byId("prompt");
    if (conversation !== this.#conversation || field.value) return;
    this.#transcript.removeLastQuestion();
    const { content, pictures } = conversation.unsay();
    field.value = content;
    this.#pictures.show(pictures);
    grow(field);
    this.#greet();
  }

  async #relist() {
    try {
      await this.#chats.load();
      this.#chats.mark(location.hash);
    } catch (error) {
      this.#complain(error);
    }
  }

  #setAnswering(controller) {
    this.#controller = controller;
    const button = byId("send");
    changeIcon(button, controller ? "stop" : "up");
    button.setAttribute("aria-label", controller ? "Stop" : "Send");
    button.classList.toggle("is-stop", controller !== null);
    byId("announcer").replaceChildren(
      ...(controller ? [make("p", {}, "The model is answering.")] : []),
    );
    if (controller) {
      this.#quiet();
      byId("speed").textContent = "";
      byId("greeting").hidden = true;
    }
  }

  #tellSpeed(usage, seconds) {
    if (!usage) return;
    const speed = usage.timings?.tokens_per_second ?? usage.completion_tokens / seconds;
    const cached = usage.prompt_tokens_details?.cached_tokens ?? 0;
    byId("speed").textContent =
      `${usage.completion_tokens} tokens, ${speed.toFixed(0)} a second; ${cached} of ${usage.prompt_tokens} from the cache.`;
  }

  // -- errors

  #complain(error) {
    if (error.status === 401) this.#options.askForKey();
    const notice = byId("notice");
    notice.textContent = this.#errorText(error);
    notice.hidden = false;
    if (error.status === undefined) throw error; // a bug of the page: it belongs into the console
  }

  #errorText({ status, message }) {
    if (status === undefined) return `The page failed: ${message}`;
    if (status === 401 && !this.#options.hasKey)
      return "This server needs an API key: enter it into the field above.";
    return message;
  }

  #quiet() {
    byId("notice").hidden = true;
  }

  // -- keyboard and buttons

  #wire() {
    const field = byId("prompt");
    byId("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.#controller) this.stop();
      else this.send();
    });
    field.addEventListener("input", () => grow(field));
    field.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this.send();
    });
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.#escape();
      if (event.altKey && event.code === "KeyN") {
        event.preventDefault();
        this.startAnew();
      }
    });
    window.addEventListener("hashchange", () => this.#route());
    byId("model").addEventListener("change", () => {
      this.#greet();
      this.#attachments.offer(this.#options);
    });
    byId("new-chat").addEventListener("click", () => this.startAnew());
    byId("skip").addEventListener("click", (event) => {
      event.preventDefault();
      field.focus();
    });
    byId("open-sidebar").addEventListener("click", () => this.#openSidebar());
    byId("close-sidebar").addEventListener("click", () => this.#closeSidebar());
    byId("scrim").addEventListener("click", () => this.#closeSidebar());
    wireTheme();
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
    else if (document.body.classList.contains("has-sidebar")) {
      this.#closeSidebar();
      byId("open-sidebar").focus();
    } else this.stop();
  }

  #openSidebar() {
    document.body.classList.add("has-sidebar");
    byId("open-sidebar").setAttribute("aria-expanded", "true");
    byId("close-sidebar").focus();
  }

  #closeSidebar() {
    document.body.classList.remove("has-sidebar");
    byId("open-sidebar").setAttribute("aria-expanded", "false");
  }
}

/** Fits the field's height to its text, up to the style sheet's maximum. */
function grow(field) {
  field.style.height = "auto";
  field.style.height = `${field.scrollHeight}px`;
}

function wireTheme() {
  const root = document.documentElement,
    button = byId("theme");
  const isDark = () =>
    root.dataset.theme
      ? root.dataset.theme === "dark"
      : matchMedia("(prefers-color-scheme: dark)").matches;
  const tell = () => {
    changeIcon(button, isDark() ? "sun" : "moon");
    button.querySelector("span").textContent = isDark() ? "Light mode" : "Dark mode";
  };
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    localStorage.setItem("theme", root.dataset.theme);
    tell();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", tell);
  tell();
}

new App();

// Addresses of the page: each names a chat, or a page beside the chat, and is in the history.

import { loadModule } from "./api.js";
import { byId, nameWindow } from "./dom.js";
import { sidebar } from "./sidebar.js";

// Pages beside the chat; each is loaded when it is first opened.
const PAGES = {
  status: async () => (await loadModule(() => import("./status.js"))).StatusPage,
  operations: async () => (await loadModule(() => import("./operations.js"))).OperationsPage,
  compare: async () => (await loadModule(() => import("./compare.js"))).ComparePage,
  administration: async () => (await loadModule(() => import("./administration.js"))).AdministrationPage,
};

export class Router {
  #path = null; // the address whose page is shown, or being opened
  #opening = null; // promise of that
  #visit = 0; // counts the addresses: one may be left and followed again meanwhile
  #hasFailed = false; // the address could not be opened
  #chatPath = null; // the address of the open chat, while a view beside it is shown, too
  #pages = {};
  #options;
  #onLeave;
  #onFollow;
  #onChat;
  #onFailed;

  /** `onLeave` is called before another address is opened; `onFollow` gets each address that is
   *  followed. `onChat` opens a chat: `chat` or `stored` with an id, or an empty kind for a new chat, and
   *  whether it is the address of the open chat. */
  constructor({ options, onLeave, onFollow, onChat, onFailed }) {
    this.#options = options;
    this.#onLeave = onLeave;
    this.#onFollow = onFollow;
    this.#onChat = onChat;
    this.#onFailed = onFailed;
    window.addEventListener("hashchange", () => {
      if (!this.#isFollowed) this.follow();
    });
    document.addEventListener("click", ({ target }) => {
      if (!this.#isFollowed || target.closest('a[href^="#/"]')?.hash !== this.#path) return;
      sidebar.close(); // no event comes
      this.retry();
    });
  }

  /** The number of the visit to the address, by which work for an earlier one is known. */
  get visit() {
    return this.#visit;
  }

  /** True if the chat is shown, rather than a page beside it. */
  get isAtChat() {
    return document.body.dataset.page === "chat";
  }

  /** Opens the page of the address. */
  follow() {
    if (!this.#isFollowed) this.#onLeave();
    this.#begin();
    this.#opening = this.#open().catch((error) => this.#onFailed(error));
  }

  /** Opens an address that is not the present one. */
  open(path) {
    if (path === location.hash) return;
    this.#onLeave();
    this.push(path);
    this.follow();
  }

  /** Notes that the address could not be opened: then its links open it again. */
  noteFailure() {
    this.#hasFailed = true;
  }

  /** Opens the page of the address if that has failed. */
  retry() {
    if (this.#hasFailed) this.follow();
  }

  /** Waits for the page of the address, whose event may not have come yet; returns whether it is still the
   *  address. */
  async settle() {
    if (!this.#isFollowed) this.follow();
    const visit = this.#visit;
    await this.#opening;
    return visit === this.#visit && this.#isFollowed;
  }

  /** Adds the address of a chat to the history; no event follows. */
  push(path) {
    history.pushState(null, "", path);
    this.#begin();
    this.#chatPath = path;
  }

  /** Replaces the address by a chat's; no event follows. An address that has just been chosen stays: its page is
   *  opened a moment later. */
  replace(path) {
    if (!this.#isFollowed || location.hash === path) return;
    history.replaceState(null, "", path);
    this.#path = this.#chatPath = location.hash;
    this.#hasFailed = false;
  }

  #begin() {
    this.#path = location.hash;
    this.#visit += 1;
    this.#hasFailed = false;
  }

  get #isFollowed() {
    return location.hash === this.#path;
  }

  async #open() {
    const [, page = "", id = ""] = /^#\/([a-z]*)\/?(.*)$/.exec(location.hash) ?? [];
    sidebar.close();
    this.#onFollow(location.hash);
    for (const one of Object.values(this.#pages)) one.close?.();
    if (Object.hasOwn(PAGES, page)) {
      await this.#openPage(page);
      return;
    }
    showPage("chat");
    const isReturn = this.#chatPath === location.hash;
    this.#chatPath = location.hash;
    await this.#onChat(page === "chat" || page === "stored" ? page : "", id, isReturn);
  }

  /** Opens a page beside the chat; an answer to the chat continues meanwhile. */
  async #openPage(page) {
    const visit = this.#visit;
    showPage(page);
    try {
      const Page = await PAGES[page]();
      if (visit !== this.#visit) return;
      this.#pages[page] ??= new Page(this.#options);
      await this.#pages[page].open();
    } catch (error) {
      if (visit !== this.#visit) return;
      showPage("chat");
      this.noteFailure();
      this.#onFailed(error);
    }
  }
}

function showPage(name) {
  for (const page of ["chat", ...Object.keys(PAGES)]) byId(`${page}-view`).hidden = page !== name;
  document.body.dataset.page = name;
  for (const link of document.querySelectorAll("a[data-page]")) {
    if (link.dataset.page !== name) {
      link.removeAttribute("aria-current");
      continue;
    }
    link.setAttribute("aria-current", "page");
    nameWindow(link.textContent.trim());
  }
  if (name !== "chat") byId(`${name}-view`).focus();
}

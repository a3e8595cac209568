// Stored chats in the sidebar: found, opened, renamed, selected, saved, deleted.

import { isConfirmed } from "./confirm.js";
import {
  conversationOf,
  deleteChat,
  searchChats,
  listChats,
  loadConversation,
  loadStoredChatIfThere,
  renameChat,
  titleOf,
} from "./conversation.js";
import { listRunning } from "./detached.js";
import { byId, icon, iconButton, make } from "./dom.js";
import { language, t } from "./language.js";
import { SearchField, excerptOf } from "./search.js";
import { Selection } from "./selection.js";
import { saveChats } from "./transfer.js";

const DAY_MS = 86_400_000;
const RELOAD_MS = 3000; // while chats are being answered

export class Chats {
  #element = byId("chats");
  #includesOthers = byId("all-chats");
  #currentPath = "";
  #drawnList = "";
  #isEditing = false; // a title
  #isOutdated = false; // a list was skipped or aborted while a title was edited
  #deletedPaths = new Set(); // since the list was requested, which has these chats still
  #selection = new Selection({
    onDelete: (chats) => this.#deleteAll(chats),
    onSave: (chats) => this.#saveAll(chats).catch((error) => this.#onFailed(error)),
  });
  #search = new SearchField({
    onSearch: () => this.load().catch((error) => this.#onFailed(error)),
    onMoveDown: (target) => this.#enterList(target),
  });
  #loading = new AbortController();
  #timer = null;
  #left;
  #titles;
  #onDeleting;
  #onDeleted;
  #onRenamed;
  #onFailed;
  #onReloadFailed;

  /** `left` are the chats that go on while others are open, and `titles` those that chats have got here.
   *  `onDeleting` ends the answer to the conversation of an id, and `onDeleted` gets the paths of chats that
   *  are deleted. `onReloadFailed` gets errors of reloads that no one asked for. */
  constructor({ left, titles, onDeleting, onDeleted, onRenamed, onFailed, onReloadFailed }) {
    this.#left = left;
    this.#titles = titles;
    this.#onDeleting = onDeleting;
    this.#onReloadFailed = onReloadFailed;
    this.#onDeleted = onDeleted;
    this.#onRenamed = onRenamed;
    this.#onFailed = onFailed;
    this.#element.addEventListener("keydown", (event) => this.#moveFocus(event));
    this.#includesOthers.addEventListener("change", () => this.load().catch(onFailed));
  }

  /** Loads the first page and draws it; returns the ids of its stored chats, or null if another list was
   *  requested meanwhile. */
  async load() {
    clearTimeout(this.#timer); // a reload would replace this one
    this.#loading.abort();
    const { signal } = (this.#loading = new AbortController());
    this.#deletedPaths.clear();
    try {
      const [running, { chats, next }] = await Promise.all([listRunning(), this.#fetchPage({ signal })]);
      if (signal.aborted) return null;
      const left = this.#left.list(),
        answered = [...left.filter(({ isRunning }) => isRunning), ...running];
      await this.#titles.restore(chats, answered).catch(this.#onReloadFailed);
      if (signal.aborted) return null;
      const listed = [...answered, ...chats],
        paths = listed.map(pathOf),
        waiting = left.filter((chat) => !paths.includes(pathOf(chat))); // until they are opened
      this.#show(this.#search.query ? chats : [...waiting, ...listed], next);
      this.#scheduleReload(answered.length > 0);
      return chats.map(({ id }) => id);
    } catch (error) {
      if (signal.aborted) return null;
      this.#scheduleReload(this.#element.querySelector(".is-running") !== null);
      throw error;
    }
  }

  #scheduleReload(isNeeded) {
    if (isNeeded)
      this.#timer = setTimeout(() => this.load().catch(this.#onReloadFailed), RELOAD_MS);
  }

  /** Fetches a page of all chats, or of those with the words of the search field. */
  #fetchPage(cursor) {
    const { query } = this.#search,
      includesOthers = this.#includesOthers.checked;
    return query
      ? searchChats(query, { ...cursor, includesOthers })
      : listChats({ ...cursor, includesOthers });
  }

  /** Loads the list, and focuses its first chat or opens it. */
  async #enterList({ isOpening }) {
    const ids = await this.load().catch(this.#onFailed);
    if (!ids) return; // the chats of an earlier list
    const [first] = this.#links();
    if (isOpening) first?.click();
    else first?.focus();
  }

  /** Draws a list, unless it is already drawn: the focus or the pointer may be at one of its items.
   *  While a title is being edited, the list stays. */
  #show(chats, next) {
    const drawn = chats.map((chat) => [chat.id, titleOf(chat), chat.created, chat.excerpt]);
    const now = JSON.stringify([this.#search.query, this.#includesOthers.checked, next, ...drawn]);
    if (now === this.#drawnList) return;
    if (this.#isEditing) {
      this.#isOutdated = true;
      return;
    }
    this.#drawnList = now;
    const focus = this.#findFocus();
    this.#selection.redraw();
    this.#element.replaceChildren();
    if (!chats.length)
      this.#element.append(
        make(
          "p",
          { className: "hint", role: "status" },
          this.#search.query
            ? t("No chat has these words.")
            : t("Chats are stored on the server and listed here."),
        ),
      );
    this.#append(chats, next);
    this.#restoreFocus(focus);
  }

  /** Returns the path of the chat that has the focus, and a selector of its element; null if none has. */
  #findFocus() {
    const { activeElement } = document,
      item = this.#element.contains(activeElement) ? activeElement.closest("li") : null;
    if (item === null) return null;
    const button = [...item.querySelectorAll("button")].indexOf(activeElement);
    const selector = button < 0 ? activeElement.localName : `button:nth-of-type(${button + 1})`;
    return { path: item.querySelector("a").hash, selector };
  }

  #restoreFocus(focus) {
    const link = focus && this.#links().find(({ hash }) => hash === focus.path);
    if (!link) return;
    this.#setTabStop(link);
    link.focus({ preventScroll: true }); // the buttons can have the focus only beside it
    link.parentElement.querySelector(focus.selector)?.focus({ preventScroll: true });
  }

  /** Marks the open chat by its path. */
  mark(path) {
    this.#currentPath = path;
    for (const link of this.#element.querySelectorAll("a")) {
      if (link.hash === path) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    const links = this.#links();
    this.#setTabStop(links.find(({ hash }) => hash === path) ?? links[0]);
  }

  #links() {
    return [...this.#element.querySelectorAll("li > a")];
  }

  /** Lets the Tab key stop at one chat only; arrow keys reach the others, and the buttons. */
  #setTabStop(link) {
    for (const one of this.#links()) one.tabIndex = one === link ? 0 : -1;
  }

  #moveFocus(event) {
    const item = event.target.closest("li"),
      links = this.#links(),
      steps = { ArrowDown: 1, ArrowUp: -1, Home: -links.length, End: links.length };
    if (!item) return;
    let next;
    if (event.key in steps) {
      const index = links.indexOf(item.querySelector("a")) + steps[event.key];
      next = links[Math.min(Math.max(index, 0), links.length - 1)];
      this.#setTabStop(next);
    } else if (event.key === "ArrowRight") next = event.target.nextElementSibling;
    else if (event.key === "ArrowLeft") next = event.target.previousElementSibling;
    if (!next) return;
    event.preventDefault();
    next.focus();
  }

  #append(chats, next) {
    const seen = new Set(Array.from(this.#element.querySelectorAll("a"), (link) => link.hash));
    for (const chat of chats) {
      const path = pathOf(chat);
      if (seen.has(path)) continue; // an earlier state of the chat, whose answer was stopped
      if (this.#deletedPaths.has(path)) continue;
      seen.add(path);
      this.#listOfDay(chat.created).append(this.#itemOf(chat, path));
    }
    this.#selection.showCount();
    this.mark(this.#currentPath);
    if (next === null) return;
    const more = make(
      "button",
      { type: "button", className: "quiet more", onclick: () => this.#loadMore(more, next) },
      t("Older chats"),
    );
    this.#element.append(more);
  }

  /** Appends a page to the list of the button, unless another list was drawn meanwhile. The list is loaded anew
   *  if the chat that it follows is deleted. */
  async #loadMore(button, after) {
    button.disabled = true;
    try {
      const { chats, next } = await this.#fetchPage({ after });
      if (!button.isConnected) return;
      button.remove();
      this.#append(chats, next);
    } catch (error) {
      if (!button.isConnected) return;
      button.disabled = false;
      if (error.status !== 400) return this.#onFailed(error);
      this.#drawnList = "";
      await this.load().catch(this.#onFailed);
    }
  }

  /** The list of a day's chats: the last group, or a new one, as chats come newest first. */
  #listOfDay(created) {
    const name = dayName(created * 1000);
    const last = this.#element.querySelector("section:last-of-type");
    if (last?.dataset.day === name) return last.querySelector("ul");
    const list = make("ul", {});
    this.#element.append(
      make("section", { "data-day": name, "aria-label": name }, make("h2", {}, name), list),
    );
    return list;
  }

  #itemOf(chat, path) {
    const link = make("a", { href: path, title: titleOf(chat) }, titleOf(chat));
    if (chat.isRunning === false) return make("li", {}, link); // it waits until it is opened
    if (chat.isRunning) {
      link.prepend(icon("pulse"));
      link.title = t("{title}: the answer is being written", { title: titleOf(chat) });
      return make("li", { className: "is-running" }, link);
    }
    if (chat.excerpt) link.append(excerptOf(chat.excerpt));
    const rename = iconButton("pen", t("Rename {title}", { title: titleOf(chat) }), () =>
        this.#editTitle(chat, item, link),
      ),
      bin = iconButton("bin", t("Delete {title}", { title: titleOf(chat) }), () => this.#delete(chat, path)),
      item = make("li", {}, this.#selection.box(chat, path, titleOf(chat)), link, rename, bin);
    rename.tabIndex = bin.tabIndex = -1;
    return item;
  }

  #editTitle(chat, item, link) {
    const field = make("input", {
      type: "text",
      value: titleOf(chat),
      maxLength: 200,
      "aria-label": t("Title"),
    });
    let isDone = false;
    const close = async ({ isSaved, isByKey }) => {
      if (isDone) return;
      isDone = true;
      this.#isEditing = false;
      const title = field.value.trim();
      field.replaceWith(link);
      if (isByKey) link.focus(); // by the pointer it goes elsewhere
      if (isSaved && title && title !== titleOf(chat)) await this.#rename(chat, item, title);
      if (!this.#isOutdated) return;
      this.#isOutdated = false;
      await this.load().catch(this.#onFailed);
    };
    field.addEventListener("keydown", (event) => {
      event.stopPropagation();
      if (event.isComposing) return; // the keys are the input method's
      if (event.key === "Enter") close({ isSaved: true, isByKey: true });
      if (event.key === "Escape") close({ isSaved: false, isByKey: true });
    });
    field.addEventListener("blur", () => close({ isSaved: true, isByKey: false }));
    link.replaceWith(field);
    field.select();
    this.#isEditing = true;
  }

  async #rename(chat, item, title) {
    const buttons = item.querySelectorAll("button");
    for (const button of buttons) button.disabled = true; // until the item has the new title
    try {
      const renamed = await renameChat(chat, title);
      this.#titles.note(renamed, titleOf(chat));
      this.#loading.abort(); // a list of before has the earlier title
      this.#isOutdated = true;
      this.#onRenamed(conversationOf(renamed), title);
      const hadFocus = item.contains(document.activeElement),
        renamedItem = this.#itemOf(renamed, pathOf(renamed));
      item.replaceWith(renamedItem);
      this.mark(this.#currentPath);
      if (hadFocus) renamedItem.querySelector("a").focus();
    } catch (error) {
      for (const button of buttons) button.disabled = false;
      this.#onFailed(error);
    }
  }

  /** Saves them as one file. */
  async #saveAll(chats) {
    const open = (chat) =>
      conversationOf(chat) ? loadConversation(conversationOf(chat)) : loadStoredChatIfThere(chat.id);
    const conversations = [];
    for (const chat of chats) conversations.push(await open(chat)); // each takes several requests
    saveChats(conversations.filter(Boolean)); // one may be deleted by now
  }

  async #deleteAll(chats) {
    const question =
      chats.length === 1
        ? t("Delete this chat? This cannot be undone.")
        : t("Delete these {count} chats? This cannot be undone.", { count: chats.length });
    if (!(await isConfirmed(question))) return;
    const deletedPaths = [];
    try {
      for (const chat of chats) {
        await this.#deleteChat(chat);
        deletedPaths.push(pathOf(chat));
      }
    } catch (error) {
      this.#onFailed(error);
    }
    this.#selection.end();
    this.#drawnList = "";
    await this.load().catch(this.#onFailed);
    this.#onDeleted(deletedPaths);
  }

  /** Deletes a chat for good: an answer in progress would store it again at its end. */
  async #deleteChat(chat) {
    const conversation = conversationOf(chat);
    if (conversation) await this.#onDeleting(conversation);
    await deleteChat(chat);
    this.#deletedPaths.add(pathOf(chat));
  }

  async #delete(chat, path) {
    const title = titleOf(chat),
      focus = this.#findFocus();
    const isSure = await isConfirmed(t("Delete “{title}”? This cannot be undone.", { title }));
    this.#restoreFocus(focus); // the dialog cannot: the button is hidden while the focus is elsewhere
    if (!isSure) return;
    try {
      await this.#deleteChat(chat);
    } catch (error) {
      this.#onFailed(error);
      return;
    }
    this.#drawnList = "";
    this.#removeItem(path);
    this.#onDeleted([path]);
  }

  /** Removes a chat from the list; the focus goes to the next one, or else to the one before. */
  #removeItem(path) {
    const links = this.#links(),
      index = links.findIndex(({ hash }) => hash === path);
    if (index < 0) return; // it has gone from the list meanwhile
    const item = links[index].parentElement,
      group = item.closest("section"),
      hadFocus = item.contains(document.activeElement);
    item.remove();
    if (!group.querySelector("li")) group.remove();
    this.mark(this.#currentPath);
    if (!hadFocus) return;
    const next = links[index + 1] ?? links[index - 1];
    if (next) this.#setTabStop(next);
    (next ?? byId("prompt")).focus();
  }
}

function pathOf(completion) {
  const conversation = conversationOf(completion);
  return conversation
    ? `#/chat/${encodeURIComponent(conversation)}`
    : `#/stored/${encodeURIComponent(completion.id)}`;
}

function dayName(when) {
  const midnight = new Date().setHours(0, 0, 0, 0);
  if (when >= midnight) return t("Today");
  if (when >= midnight - DAY_MS) return t("Yesterday");
  if (when >= midnight - 7 * DAY_MS) return t("This week");
  return new Intl.DateTimeFormat(language, { month: "long", year: "numeric" }).format(when);
}

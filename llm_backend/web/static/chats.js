// Stored chats in the sidebar: open, rename, delete.

import { isConfirmed } from "./confirm.js";
import {
  conversationOf,
  forgetChat,
  found,
  listed,
  opened,
  openedStored,
  rename,
  titleOf,
} from "./conversation.js";
import { running } from "./detached.js";
import { byId, icon, iconButton, make } from "./dom.js";
import { language, t } from "./language.js";
import { SearchField, excerptOf } from "./search.js";
import { Selection } from "./selection.js";
import { saveChats } from "./transfer.js";

const DAY_MS = 86_400_000;
const RUNNING_MS = 3000; // as long as chats are being answered, the list is read anew

export class Chats {
  #place = byId("chats");
  #isOthersToo = byId("all-chats");
  #current = "";
  #listed = "";
  #selection = new Selection({
    onDelete: (chats) => this.#deleteAll(chats),
    onSave: (chats) => this.#saveAll(chats).catch((error) => this.#onFailed(error)),
  });
  #search = new SearchField({
    onSought: () => this.load().catch((error) => this.#onFailed(error)),
    onDown: (how) => this.#enter(how),
  });
  #reading = new AbortController();
  #timer = null;
  #onDeleted;
  #onRenamed;
  #onFailed;

  constructor({ onDeleted, onRenamed, onFailed }) {
    this.#onDeleted = onDeleted;
    this.#onRenamed = onRenamed;
    this.#onFailed = onFailed;
    this.#place.addEventListener("keydown", (event) => this.#move(event));
    this.#isOthersToo.addEventListener("change", () => this.load().catch(onFailed));
  }

  /** Lists them anew; returns the ids of the latest. */
  async load() {
    this.#reading.abort();
    const { signal } = (this.#reading = new AbortController());
    try {
      const [answered, { chats, next }] = await Promise.all([running(), this.#page({ signal })]);
      if (!signal.aborted) {
        this.#show(this.#search.sought ? chats : [...answered, ...chats], next);
        this.#lookAgain(answered.length > 0);
      }
      return chats.map(({ id }) => id);
    } catch (error) {
      if (signal.aborted) return []; // another list has been asked for meanwhile
      throw error;
    }
  }

  #lookAgain(isWanted) {
    clearTimeout(this.#timer);
    if (isWanted)
      this.#timer = setTimeout(() => this.load().catch((error) => this.#onFailed(error)), RUNNING_MS);
  }

  /** A page of all chats, or of those that have the words that are sought. */
  #page(where) {
    const { sought } = this.#search,
      isOthersToo = this.#isOthersToo.checked;
    return sought
      ? found(sought, { ...where, isOthersToo })
      : listed({ ...where, isOthersToo });
  }

  /** Goes from the search field to the first chat, or opens it, once it is there. */
  async #enter({ isOpened }) {
    await this.load().catch(this.#onFailed);
    const [first] = this.#links();
    if (isOpened) first?.click();
    else first?.focus();
  }

  /** Draws a list that is not what it was: a key or pointer may be at one of its items. */
  #show(chats, next) {
    const drawn = chats.map((chat) => [chat.id, titleOf(chat), chat.created, chat.excerpt]);
    const now = JSON.stringify([this.#search.sought, this.#isOthersToo.checked, next, ...drawn]);
    if (now === this.#listed) return;
    this.#listed = now;
    this.#selection.redraw();
    this.#place.replaceChildren();
    if (!chats.length)
      this.#place.append(
        make(
          "p",
          { className: "hint", role: "status" },
          this.#search.sought
            ? t("No chat has these words.")
            : t("Chats are stored on the server and listed here."),
        ),
      );
    this.#add(chats, next);
  }

  /** Marks the one that is open, by its path. */
  mark(path) {
    this.#current = path;
    for (const link of this.#place.querySelectorAll("a")) {
      if (link.hash === path) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    const links = this.#links();
    this.#letTabReach(links.find(({ hash }) => hash === path) ?? links[0]);
  }

  #links() {
    return [...this.#place.querySelectorAll("li > a")];
  }

  /** The Tab key stops at one chat; arrow keys reach the others, and the buttons. */
  #letTabReach(link) {
    for (const one of this.#links()) one.tabIndex = one === link ? 0 : -1;
  }

  #move(event) {
    const item = event.target.closest("li"),
      links = this.#links(),
      steps = { ArrowDown: 1, ArrowUp: -1, Home: -links.length, End: links.length };
    if (!item) return;
    let next;
    if (event.key in steps) {
      const place = links.indexOf(item.querySelector("a")) + steps[event.key];
      next = links[Math.min(Math.max(place, 0), links.length - 1)];
      this.#letTabReach(next);
    } else if (event.key === "ArrowRight") next = event.target.nextElementSibling;
    else if (event.key === "ArrowLeft") next = event.target.previousElementSibling;
    if (!next) return;
    event.preventDefault();
    next.focus();
  }

  #add(chats, next) {
    const seen = new Set(Array.from(this.#place.querySelectorAll("a"), (link) => link.hash));
    for (const chat of chats) {
      const path = pathOf(chat);
      if (seen.has(path)) continue; // an earlier state of the chat, whose answer was stopped
      seen.add(path);
      this.#group(chat.created).append(this.#item(chat, path));
    }
    this.#selection.tell();
    this.mark(this.#current);
    if (next === null) return;
    const more = make(
      "button",
      { type: "button", className: "quiet more", onclick: () => this.#more(more, next) },
      t("Older chats"),
    );
    this.#place.append(more);
  }

  /** Adds a page to the list that has the button, unless another list has been drawn meanwhile. */
  async #more(button, after) {
    button.disabled = true;
    try {
      const { chats, next } = await this.#page({ after });
      if (!button.isConnected) return;
      button.remove();
      this.#add(chats, next);
    } catch (error) {
      if (!button.isConnected) return;
      button.disabled = false;
      this.#onFailed(error);
    }
  }

  /** The list of the day's chats, the last group or a new one: they come newest first. */
  #group(created) {
    const name = dayOf(created * 1000);
    const last = this.#place.querySelector("section:last-of-type");
    if (last?.dataset.day === name) return last.querySelector("ul");
    const list = make("ul", {});
    this.#place.append(
      make("section", { "data-day": name, "aria-label": name }, make("h2", {}, name), list),
    );
    return list;
  }

  #item(chat, path) {
    const link = make("a", { href: path, title: titleOf(chat) }, titleOf(chat));
    if (chat.isRunning) {
      link.prepend(icon("pulse"));
      link.title = t("{title}: the answer is being written", { title: titleOf(chat) });
      return make("li", { className: "is-running" }, link);
    }
    if (chat.excerpt) link.append(excerptOf(chat.excerpt));
    const rename = iconButton("pen", t("Rename {title}", { title: titleOf(chat) }), () =>
        this.#edit(chat, item, link),
      ),
      bin = iconButton("bin", t("Delete {title}", { title: titleOf(chat) }), () => this.#delete(chat, path, item)),
      item = make("li", {}, this.#selection.box(chat, titleOf(chat)), link, rename, bin);
    rename.tabIndex = bin.tabIndex = -1;
    return item;
  }

  #edit(chat, item, link) {
    const field = make("input", {
      type: "text",
      value: titleOf(chat),
      maxLength: 200,
      "aria-label": t("Title"),
    });
    let isDone = false;
    const close = async (isKept) => {
      if (isDone) return;
      isDone = true;
      const title = field.value.trim();
      field.replaceWith(link);
      if (isKept && title && title !== titleOf(chat)) await this.#rename(chat, item, title);
      item.querySelector("a").focus();
    };
    field.addEventListener("keydown", (event) => {
      event.stopPropagation();
      if (event.isComposing) return; // the keys are the input method's
      if (event.key === "Enter") close(true);
      if (event.key === "Escape") close(false);
    });
    field.addEventListener("blur", () => close(true));
    link.replaceWith(field);
    field.select();
  }

  async #rename(chat, item, title) {
    try {
      const renamed = await rename(chat, title);
      this.#onRenamed(conversationOf(renamed), title);
      item.replaceWith(this.#item(renamed, pathOf(renamed)));
      this.mark(this.#current);
    } catch (error) {
      this.#onFailed(error);
    }
  }

  /** Saves them as one file. */
  async #saveAll(chats) {
    const open = (chat) => (conversationOf(chat) ? opened(conversationOf(chat)) : openedStored(chat.id));
    const conversations = await Promise.all(chats.map(open));
    saveChats(conversations.filter(Boolean)); // one may be deleted by now
  }

  async #deleteAll(chats) {
    const question =
      chats.length === 1
        ? t("Delete this chat? This cannot be undone.")
        : t("Delete these {count} chats? This cannot be undone.", { count: chats.length });
    if (!(await isConfirmed(question))) return;
    try {
      for (const chat of chats) await forgetChat(chat);
    } catch (error) {
      this.#onFailed(error);
    }
    this.#selection.end();
    this.#listed = "";
    await this.load().catch(this.#onFailed);
    if (chats.some((chat) => pathOf(chat) === this.#current)) this.#onDeleted();
  }

  async #delete(chat, path, item) {
    const title = titleOf(chat);
    if (!(await isConfirmed(t("Delete “{title}”? This cannot be undone.", { title })))) return;
    try {
      await forgetChat(chat);
    } catch (error) {
      this.#onFailed(error);
      return;
    }
    const group = item.closest("section");
    this.#listed = "";
    item.remove();
    if (!group.querySelector("li")) group.remove();
    if (path === this.#current) this.#onDeleted();
  }
}

function pathOf(completion) {
  const conversation = conversationOf(completion);
  return conversation
    ? `#/chat/${encodeURIComponent(conversation)}`
    : `#/stored/${encodeURIComponent(completion.id)}`;
}

function dayOf(when) {
  const midnight = new Date().setHours(0, 0, 0, 0);
  if (when >= midnight) return t("Today");
  if (when >= midnight - DAY_MS) return t("Yesterday");
  if (when >= midnight - 7 * DAY_MS) return t("This week");
  return new Intl.DateTimeFormat(language, { month: "long", year: "numeric" }).format(when);
}

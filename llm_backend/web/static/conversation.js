// A conversation, and its storage on the server.
//
// The server stores chat completions, each with all messages before it. So the latest one holds the
// whole conversation: it is stored under the conversation's own id in its metadata, and those before
// it are deleted once it is there as a whole.

import { ask, askAll, events } from "./api.js";
import { forgetFiles } from "./attachments.js";
import { HEADER, followed } from "./detached.js";
import { Branches } from "./branches.js";
import { language, t } from "./language.js";
import {
  GO_ON,
  callsOf,
  isShown,
  joined,
  messageOf,
  newAnswer,
  requestMessage,
  take,
  titled,
  withoutGoingOn,
} from "./messages.js";

const PATH = "v1/chat/completions";
const CLIENT = "web";
const ENTITLE =
  "Write a title of at most six words for the following chat, in its language. Write nothing else.";
const TITLED_CHARACTERS = 1000; // of each message
const TITLE_TOKENS = 300; // a model may reason before
const MOST_BRANCHES = 40; // that are shown; earlier ones stay stored

export class Conversation {
  id = newId();
  storedId = null;
  title = "";
  system = "";
  metadata = {};
  /** Each with `role` and `content`; answers may also have `reasoning` and `isCut`. User messages may
   *  have `pictures`, data: URLs; with `hasMore` they had further parts. */
  messages = [];
  #branches = new Branches();
  #dropped = []; // ids of answers that said nothing

  get path() {
    return this.isOthers ? `#/stored/${this.storedId}` : `#/chat/${this.id}`;
  }

  /** True if another client has stored it: the next message here then begins a new conversation. */
  get isOthers() {
    return this.storedId !== null && conversationOf(this) === null;
  }

  /** Adds what the user says. */
  add(content, pictures = []) {
    this.messages.push({ role: "user", content, pictures });
    this.title ||= titled(content);
  }

  /** Adds the result of a call, which the model is to read. */
  addResult({ id }, content) {
    this.messages.push({ role: "tool", content, callId: id });
  }

  /** Goes back to the messages before this place, to go on otherwise; returns the way that was left. */
  branchAt(place) {
    const left = this.messages;
    this.messages = left.slice(0, place);
    return left;
  }

  /** Takes the last question back, which got no answer. */
  unsay() {
    return this.messages.pop();
  }

  /** The last message, if it is an answer. */
  get lastAnswer() {
    const last = this.messages.at(-1);
    return last?.role === "assistant" ? last : null;
  }

  /** Removes an answer that says nothing; what is stored of it is deleted after the next one. */
  dropAnswer() {
    if (this.lastAnswer) this.#dropped.push(this.messages.pop().storedId);
  }

  /** Goes back to the last question, to have it answered anew; returns the way that was left. */
  takeBack() {
    return this.branchAt(this.messages.findLastIndex(({ role }) => role !== "assistant") + 1);
  }

  /** Asks the model, which reads what the vector store says if there is one; yields the answer each
   *  time it has grown. One that is continued is the last answer, which grows further. With a
   *  `detachedId` the answer goes on when the page is left. */
  async *answer({ model, parameters, storeId, tools, isStoring, isContinued, detachedId, signal }) {
    const kept = storeId ?? this.metadata.vector_store;
    const earlier = this.messages.findLast(({ storedId }) => storedId)?.storedId;
    const metadata = {
      client: CLIENT,
      conversation: this.id,
      ...(earlier && !this.isOthers ? { follows: earlier } : {}),
      title: this.title,
      ...(kept ? { vector_store: kept } : {}),
    };
    const search = storeId ? [{ type: "file_search", vector_store_ids: [storeId] }] : [],
      offered = [...search, ...tools];
    const body = {
      model,
      messages: this.#requestMessages(isContinued ? [{ role: "user", content: GO_ON }] : []),
      stream: true,
      stream_options: { include_usage: true },
      ...(isStoring ? { store: true, metadata } : {}),
      ...parameters,
      ...(offered.length ? { tools: offered } : {}),
    };
    if (!isContinued) this.messages.push(newAnswer());
    this.model = model;
    const headers = detachedId ? { [HEADER]: detachedId } : {};
    yield* this.#take(events(PATH, { method: "POST", body, signal, headers }), metadata);
  }

  /** Yields the answer that the server goes on with, which was asked for by this page or another. */
  async *follow(detachedId, signal) {
    const chunks = followed(detachedId, signal),
      { value: chat } = await chunks.next();
    this.id = chat.metadata.conversation;
    this.model = chat.model;
    this.title = chat.metadata.title;
    this.system = systemOf(chat.messages);
    this.messages = withoutGoingOn(chat.messages.filter(isShown).map(messageOf));
    this.#branches.share(this.messages);
    this.messages.push(newAnswer());
    yield this.messages.at(-1);
    yield* this.#take(chunks, chat.metadata);
  }

  async *#take(chunks, metadata) {
    const answer = this.messages.at(-1),
      before = { ...answer },
      more = newAnswer();
    for await (const chunk of chunks) {
      this.storedId = chunk.id;
      this.metadata = metadata;
      if (chunk.usage) more.usage = chunk.usage;
      if (chunk.retrieval) more.retrieval = chunk.retrieval;
      for (const choice of chunk.choices ?? []) take(more, choice);
      Object.assign(answer, joined(before, more), { storedId: chunk.id });
      yield answer;
    }
  }

  /** Keeps the way that was gone, now that it has its answer. */
  keepBranch() {
    this.#branches.add(this.messages);
  }

  /** Takes the ways that the chat has gone, the earliest first. */
  setBranches(ways) {
    this.#branches = Branches.of(ways);
  }

  /** Which of several messages the one at a place is, and how many there are. */
  variantAt(place) {
    const messages = this.#branches.at(this.messages, place);
    return { place: messages.indexOf(this.messages[place]), count: messages.length };
  }

  /** Takes the way with the message before (-1) or behind (1) the one at a place. */
  turnVariant(place, step) {
    this.messages = this.#branches.beside(this.messages, place, step);
  }

  /** True until the first answer: then the title is how the question begins. */
  get isNew() {
    return this.messages.filter(({ role }) => role === "user").length === 1;
  }

  /** Has the model name the chat, when it has nothing better to do; returns whether it has. */
  async entitle(model) {
    const { storedId, title: before } = this,
      said = this.messages.map(({ content }) => content.slice(0, TITLED_CHARACTERS));
    const { choices } = await ask(PATH, {
      method: "POST",
      body: {
        model,
        messages: [{ role: "user", content: `${ENTITLE}\n\n${said.join("\n\n")}` }],
        max_completion_tokens: TITLE_TOKENS,
        service_tier: "flex",
        store: false,
      },
    });
    const title = titled((choices[0].message.content ?? "").replace(/^["“”*#\s]+|["“”*\s]+$/g, ""));
    const isSame = storedId === this.storedId && before === this.title;
    if (!title || !isSame || choices[0].finish_reason === "length") return false;
    this.metadata = { ...this.metadata, title };
    this.title = title;
    await rename({ id: storedId, metadata: this.metadata }, title);
    return true;
  }

  /** Deletes the earlier states of the chat, once its latest one is stored and still the latest: those
   *  that a kept one follows. The branches stay, and what other tabs have asked. */
  async forgetEarlier() {
    const latest = this.storedId,
      stored = await storedOf(this.id);
    if (latest !== this.storedId || !stored.some(({ id }) => id === latest)) return;
    const kept = [latest, ...this.#branches.storedIds],
      earlier = [...this.#dropped, ...followedBy(kept, stored)];
    const isEarlier = ({ id }) => earlier.includes(id) && !kept.includes(id);
    await Promise.all(stored.filter(isEarlier).map(({ id }) => forget(id)));
  }

  /** The chat as a file has it. */
  exported() {
    const messages = this.messages.map(({ reasoning, ...message }, place) => ({
      ...requestMessage(message, this.messages[place + 1]?.role === "tool"),
      ...(reasoning ? { reasoning_content: reasoning } : {}),
    }));
    return { title: this.title, model: this.model ?? null, system: this.system, messages };
  }

  /** A chat of a file; stored with its next message. Throws for something else. */
  static imported({ title, model, system, messages }) {
    const conversation = new Conversation();
    conversation.title = String(title ?? "");
    conversation.model = model ?? undefined;
    conversation.system = String(system ?? systemOf(messages));
    conversation.messages = messages.filter(isShown).map(messageOf);
    if (!conversation.messages.length) throw new TypeError("no messages");
    return conversation;
  }

  #requestMessages(more) {
    const messages = this.messages.map((message, place) =>
      requestMessage(message, this.messages[place + 1]?.role === "tool"),
    );
    const system = this.system ? [{ role: "system", content: this.system }] : [];
    return [...system, ...messages, ...more];
  }
}

/** Returns a page of stored conversations, newest first, and the cursor of the next page. */
export async function listed({ after, isOthersToo, signal }) {
  const query = new URLSearchParams({ order: "desc", limit: "40" });
  if (after) query.set("after", after);
  if (!isOthersToo) query.set("metadata[client]", CLIENT);
  const page = await ask(`${PATH}?${query}`, { signal });
  return { chats: page.data, next: page.has_more ? page.last_id : null };
}

/** Returns a page of stored conversations with these words, latest first, and the cursor of the next. */
export async function found(words, { after, isOthersToo, signal }) {
  const query = new URLSearchParams({ query: words, limit: "40" });
  if (after) query.set("after", after);
  if (!isOthersToo) query.set("metadata[client]", CLIENT);
  const page = await ask(`v1/chat/search?${query}`, { signal });
  return { chats: page.data, next: page.has_more ? page.last_id : null };
}

/** Returns the conversation of an id; null if it is not stored. */
export async function opened(id) {
  const listed = await storedOf(id),
    followed = new Set(listed.map(({ metadata }) => metadata.follows));
  const stored = listed.filter((one) => !followed.has(one.id)).slice(0, MOST_BRANCHES);
  if (!stored.length) return null;
  const [latest, ...earlier] = await Promise.all([
    restored(stored[0]),
    ...stored.slice(1).map(restoredIfStored),
  ]);
  const ways = [...earlier.filter(Boolean).reverse(), latest];
  latest.setBranches(ways.map(({ messages }) => messages));
  return latest;
}

/** Returns the conversation of a stored completion of any client. */
export async function openedStored(storedId) {
  return restored(await ask(`${PATH}/${encodeURIComponent(storedId)}`));
}

/** Returns an earlier state of a conversation; null if it has just been deleted. */
async function restoredIfStored(completion) {
  try {
    return await restored(completion);
  } catch (error) {
    if (error.status === 404) return null;
    throw error;
  }
}

async function restored(completion) {
  const conversation = new Conversation();
  const asked = await messagesOf(completion.id);
  const [{ message }] = completion.choices;
  conversation.id = conversationOf(completion) ?? conversation.id;
  conversation.storedId = completion.id;
  conversation.metadata = completion.metadata ?? {};
  conversation.model = completion.model;
  conversation.title = titleOf(completion);
  conversation.system = systemOf(asked);
  const answer = {
    ...messageOf(message),
    storedId: completion.id,
    retrieval: completion.retrieval ?? null,
    isCut: completion.status === "incomplete" || completion.choices[0].finish_reason === "length",
  };
  conversation.messages = withoutGoingOn([...asked.filter(isShown).map(messageOf), answer]);
  return conversation;
}

const systemOf = (messages) =>
  messages.map(({ role, content }) => (role === "system" ? content : null)).find(Boolean) ?? "";

const messagesOf = (storedId) => askAll(`${PATH}/${encodeURIComponent(storedId)}/messages`);

/** The title of a stored completion: of one without, as of other clients, how its answer begins. */
export function titleOf({ metadata, choices, created, title }) {
  const { content, tool_calls: calls } = choices?.[0]?.message ?? {},
    called = callsOf(calls).map(({ name }) => name);
  return (
    metadata?.title ||
    title ||
    titled(content ?? "") ||
    called.join(", ") ||
    t("Chat of {time}", {
      time: new Date(created * 1000).toLocaleTimeString(language, { timeStyle: "short" }),
    })
  );
}

/** Gives a stored completion another title; its other metadata stays. */
export const rename = (completion, title) =>
  ask(`${PATH}/${encodeURIComponent(completion.id)}`, {
    method: "POST",
    body: { metadata: { ...completion.metadata, title } },
  });

/** Deletes a stored chat: for a conversation of this page all its completions and files. */
export async function forgetChat(completion) {
  const conversation = conversationOf(completion),
    { vector_store: storeId } = completion.metadata ?? {};
  await (conversation ? forgetAllOf(conversation) : forget(completion.id));
  if (conversation && storeId && !(await isSearched(storeId))) await forgetFiles(storeId);
}

/** True if another stored chat uses these files: a branch of this one, or its origin. */
async function isSearched(storeId) {
  const query = new URLSearchParams({ limit: "1", "metadata[vector_store]": storeId });
  return (await ask(`${PATH}?${query}`)).data.length > 0;
}

async function forgetAllOf(conversation) {
  const stored = await storedOf(conversation);
  await Promise.all(stored.map(({ id }) => forget(id)));
}

/** Returns all stored completions of a conversation of this page, newest first. */
async function storedOf(conversation) {
  const stored = await askAll(PATH, {
    order: "desc",
    "metadata[client]": CLIENT,
    "metadata[conversation]": conversation,
  });
  return stored.filter((completion) => conversationOf(completion) === conversation);
}

/** Returns the ids of the completions that these follow, the ones before those, and so on. */
function followedBy(ids, stored) {
  const before = new Map(stored.map(({ id, metadata }) => [id, metadata.follows])),
    followed = new Set();
  for (let id of ids)
    while ((id = before.get(id)) !== undefined && !followed.has(id)) followed.add(id);
  return [...followed];
}

/** The id of the conversation that a stored completion holds; null for other clients' ones. */
export const conversationOf = ({ metadata }) =>
  metadata?.client === CLIENT ? (metadata.conversation ?? null) : null;

/** Deletes a stored completion; a missing one is no error. */
async function forget(storedId) {
  try {
    await ask(`${PATH}/${encodeURIComponent(storedId)}`, { method: "DELETE" });
  } catch (error) {
    if (error.status !== 404) throw error;
  }
}

export function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

// A conversation, and its storage on the server.
//
// The server stores chat completions, each with all messages before it. So the latest one holds the
// whole conversation; its metadata have the conversation's id. Earlier ones are deleted once it is stored.

import { request, requestAll, streamEvents } from "./api.js";
import { deleteFile, deleteStore } from "./attachments.js";
import { CLIENT, HEADER, followDetached } from "./detached.js";
import { Branches } from "./branches.js";
import {
  drawImage,
  fileIdOf,
  imageIdsOf,
  imageMetadata,
  imageText,
  isDrawn,
  isStoredImage,
  storeImage,
} from "./drawn_images.js";
import { language, t } from "./language.js";
import {
  CONTINUE_PROMPT,
  beginningOf,
  callsOf,
  isShown,
  joinAnswers,
  messageOf,
  newAnswer,
  requestMessage,
  applyChunk,
  titleFrom,
  mergeContinued,
} from "./messages.js";

const PATH = "v1/chat/completions";
const STORED_PATH = "v1/chat/stored";
const TITLE_PROMPT =
  "Write a title of at most six words for the following chat, in its language. Write nothing else.";
const TITLE_INPUT_CHARACTERS = 1000; // of each message
const TITLE_TOKENS = 300; // including the model's reasoning
const STORED_PAUSES_MS = [50, 100, 250, 500, 1000];
const LONGEST_TITLE = 200; // characters, as in the field of the list
const MAX_BRANCHES = 40; // shown; earlier ones stay stored

export class Conversation {
  id = newId();
  storedId = null;
  title = "";
  system = "";
  metadata = {};
  /** Each has `role` and `content`; answers may also have `reasoning`, `isCut`, the `model` that wrote
   *  them, and as `imageId` the file in which the page stored their image. User messages may have
   *  `images` as data: URLs, and `documents`; with `hasMore` they had further parts. */
  messages = [];
  #branches = new Branches();
  #dropped = []; // ids of empty answers

  get path() {
    return this.isForeign ? `#/stored/${this.storedId}` : `#/chat/${this.id}`;
  }

  /** True if another client stored it: the next message here then begins a new conversation. */
  get isForeign() {
    return this.storedId !== null && conversationOf(this) === null;
  }

  /** Adds a message of the user. */
  addQuestion(content, enclosed) {
    this.messages.push({ role: "user", content, ...enclosed });
    this.title ||= titleFrom(content);
  }

  /** Adds the result of a call for the model. */
  addResult({ id }, content) {
    this.messages.push({ role: "tool", content, callId: id });
  }

  /** Begins a branch with the messages before this index; returns the messages of the previous one. */
  branchAt(index) {
    const previous = this.messages;
    this.messages = previous.slice(0, index);
    return previous;
  }

  /** Removes the last question, which got no answer; a chat without another one has no title yet. */
  removeLastQuestion() {
    this.messages.pop();
    if (!this.messages.length) this.title = "";
  }

  /** The last message, if it is an answer. */
  get lastAnswer() {
    const last = this.messages.at(-1);
    return last?.role === "assistant" ? last : null;
  }

  /** Removes an empty answer; its stored completion is deleted after the next answer. */
  dropAnswer() {
    if (this.lastAnswer) this.#dropped.push(this.messages.pop().storedId);
  }

  /** Begins a branch after the last question, for another answer to it; returns the messages of the
   *  previous branch. */
  branchAtAnswer() {
    return this.branchAt(this.messages.findLastIndex(({ role }) => role !== "assistant") + 1);
  }

  /** Requests an answer, for which the server searches the vector store if there is one; yields the
   *  answer each time it has grown. With `isContinued` the last answer grows further. With a
   *  `detachedId` the server continues the answer when the page is left. */
  async *answer({ model, parameters, storeId, tools, isStoring, isContinued, detachedId, signal }) {
    const metadata = this.#metadataWith(storeId ?? this.metadata.vector_store);
    if (storeId) this.metadata = { ...this.metadata, vector_store: storeId }; // also if the request fails
    const search = storeId ? [{ type: "file_search", vector_store_ids: [storeId] }] : [],
      allTools = [...search, ...tools];
    const body = {
      model,
      messages: this.#requestMessages(isContinued ? [{ role: "user", content: CONTINUE_PROMPT }] : []),
      stream: true,
      stream_options: { include_usage: true },
      ...(isStoring ? { store: true, metadata } : {}),
      ...parameters,
      ...(allTools.length ? { tools: allTools } : {}),
    };
    if (!isContinued) this.messages.push({ ...newAnswer(), model });
    this.model = model;
    const headers = detachedId ? { [HEADER]: detachedId } : {};
    yield* this.#readChunks(streamEvents(PATH, { method: "POST", body, signal, headers }), metadata);
  }

  /** Has a model draw the last question; yields the answer at once, and each time its image has become
   *  clearer. The whole image is stored with the chat. */
  async *draw({ model, isStoring, signal }) {
    const messages = this.#requestMessages([]),
      { content: prompt, images = [] } = this.messages.findLast(({ role }) => role === "user"),
      answer = { ...newAnswer(), drawn: {} };
    this.messages.push(answer);
    this.model = model;
    yield answer;
    for await (const drawn of drawImage({ model, prompt, images, signal })) {
      Object.assign(answer, { drawn, isCut: drawn.share < 1 });
      yield answer;
    }
    answer.content = imageText(prompt);
    if (isStoring) await this.#storeDrawn(answer, { model, messages, prompt });
    yield answer;
  }

  async #storeDrawn(answer, { model, messages, prompt }) {
    answer.imageId = await storeImage(answer.drawn.blob);
    const content = imageText(prompt, answer.imageId),
      metadata = this.#metadataWith(this.metadata.vector_store);
    try {
      const body = { model, messages, answer: content, metadata };
      const { id } = await request(STORED_PATH, { method: "POST", body });
      Object.assign(answer, { content, storedId: id });
      this.storedId = id;
      this.metadata = metadata;
    } catch (error) {
      await deleteFile(answer.imageId);
      answer.imageId = null;
      throw error;
    }
  }

  /** The metadata of the next stored completion, with the vector store of this id, if there is one. */
  #metadataWith(storeId) {
    const earlier = this.messages.findLast(({ storedId }) => storedId)?.storedId;
    return {
      client: CLIENT,
      conversation: this.id,
      ...(earlier && !this.isForeign ? { follows: earlier } : {}),
      title: this.title,
      ...(storeId ? { vector_store: storeId } : {}),
      ...(this.messages.some(isDrawn) ? { drawn: "yes" } : {}),
      ...this.#imageMetadata,
    };
  }

  get #imageMetadata() {
    return imageMetadata(this.messages.map(({ imageId }) => imageId).filter(Boolean));
  }

  /** Yields an answer that the server is writing, which this page or another one requested. */
  async *follow(detachedId, signal) {
    const chunks = followDetached(detachedId, signal),
      { value: chat } = await chunks.next();
    this.id = chat.metadata.conversation;
    this.model = chat.model;
    this.title = chat.metadata.title;
    if (chat.messages) this.system = systemOf(chat.messages);
    // Those of another server may be missing: then the chat is shown as it is stored.
    if (chat.messages) this.messages = mergeContinued(shownMessages(chat.messages, chat.metadata));
    this.#branches.share(this.messages);
    this.messages.push({ ...newAnswer(), model: chat.model });
    yield this.lastAnswer;
    yield* this.#readChunks(chunks, chat.metadata);
  }

  async *#readChunks(chunks, metadata) {
    const answer = this.messages.at(-1),
      before = { ...answer },
      more = newAnswer();
    for await (const chunk of chunks) {
      this.storedId = chunk.id;
      this.metadata = metadata;
      applyChunk(more, chunk);
      Object.assign(answer, joinAnswers(before, more), { storedId: chunk.id });
      yield answer;
    }
  }

  /** Adds the messages to the branches, now that they end with an answer. */
  saveBranch() {
    this.#branches.add(this.messages);
  }

  /** Sets the branches of the chat, earliest first. */
  setBranches(branches) {
    this.#branches = Branches.of(branches);
  }

  /** True if there are other branches, to which buttons lead. */
  get isBranched() {
    return this.#branches.storedIds.length > 1;
  }

  /** The number (from 1) of a message among its variants, and their count; one of a branch that has no answer
   *  yet is the last. */
  variantAt(index) {
    const message = this.messages[index],
      variants = new Set([...this.#branches.variants(this.messages, index), message]);
    return { number: [...variants].indexOf(message) + 1, count: variants.size };
  }

  /** Switches to the branch with the variant before (-1) or after (1) the message at an index. */
  selectVariant(index, step) {
    this.messages = this.#branches.sibling(this.messages, index, step);
  }

  /** True if there is one question, and the title is how it begins, or an earlier variant of it: then a
   *  model may name the chat. */
  get isUnnamed() {
    const index = this.messages.findIndex(({ role }) => role === "user"),
      variants = this.#branches.variants(this.messages, index);
    const isOnly = index === this.messages.findLastIndex(({ role }) => role === "user");
    return isOnly && variants.some(({ content }) => titleFrom(content) === this.title);
  }

  /** Has the model name the chat, at the lowest priority; returns the completion with its new title, or null. */
  async generateTitle(model) {
    const { storedId, title: before } = this,
      excerpts = this.messages.map(({ content }) => beginningOf(content, TITLE_INPUT_CHARACTERS));
    const { choices } = await request(PATH, {
      method: "POST",
      body: {
        model,
        messages: [{ role: "user", content: `${TITLE_PROMPT}\n\n${excerpts.join("\n\n")}` }],
        max_completion_tokens: TITLE_TOKENS,
        service_tier: "flex",
        store: false,
      },
    });
    const title = titleFrom((choices[0].message.content ?? "").replace(/^["“”*#\s]+|["“”*\s]+$/g, ""));
    const isSame = storedId === this.storedId && before === this.title;
    if (!title || !isSame || choices[0].finish_reason === "length") return null;
    // refused if it was renamed meanwhile, in the list or in another tab
    const entitled = await rename({ id: storedId, metadata: this.metadata }, title, { before });
    if (before !== this.title) return null;
    this.title = title;
    return entitled;
  }

  /** Deletes the completions that later ones continue, once the latest is stored and no newer one is.
   *  The ends of branches stay, and questions of other tabs. */
  async deleteEarlier() {
    const latest = this.storedId,
      stored = await completionsOf(this.id);
    if (latest !== this.storedId || !stored.some(({ id }) => id === latest)) return;
    const kept = [latest, ...this.#branches.storedIds],
      earlier = [...this.#dropped, ...predecessorsOf(kept, stored)];
    const isEarlier = ({ id }) => earlier.includes(id) && !kept.includes(id);
    await Promise.all(stored.filter(isEarlier).map(({ id }) => deleteCompletion(id)));
  }

  /** The chat as the object that a file holds. */
  toExport() {
    const messages = this.messages.map(({ reasoning, ...message }, index) => ({
      ...requestMessage(message, this.messages[index + 1]?.role === "tool"),
      ...(reasoning ? { reasoning_content: reasoning } : {}),
    }));
    const { title, model = null, system } = this;
    return { title, model, system, messages, metadata: this.#imageMetadata };
  }

  /** The chat of a file's object; it is stored with its next message. Throws for another object. */
  static fromExport({ title, model, system, messages, metadata }) {
    const conversation = new Conversation();
    conversation.title = beginningOf(String(title ?? ""), LONGEST_TITLE);
    conversation.model = model ?? undefined;
    conversation.system = String(system ?? systemOf(messages));
    conversation.messages = shownMessages(messages, metadata);
    if (!conversation.messages.length) throw new TypeError("no messages");
    return conversation;
  }

  #requestMessages(more) {
    const messages = this.messages.map((message, index) =>
      requestMessage(message, this.messages[index + 1]?.role === "tool"),
    );
    const system = this.system ? [{ role: "system", content: this.system }] : [];
    return [...system, ...messages, ...more];
  }
}

/** Returns a page of stored conversations, newest first, and the cursor of the next page. */
export async function listChats({ after, includesOthers, signal }) {
  const query = new URLSearchParams({ order: "desc", limit: "40" });
  if (after) query.set("after", after);
  if (!includesOthers) query.set("metadata[client]", CLIENT);
  const page = await request(`${PATH}?${query}`, { signal });
  return { chats: page.data, next: page.has_more ? page.last_id : null };
}

/** Returns a page of stored conversations with these words, latest first, and the next page's cursor. */
export async function searchChats(words, { after, includesOthers, signal }) {
  const query = new URLSearchParams({ query: words, limit: "40" });
  if (after) query.set("after", after);
  if (!includesOthers) query.set("metadata[client]", CLIENT);
  const page = await request(`v1/chat/search?${query}`, { signal });
  return { chats: page.data, next: page.has_more ? page.last_id : null };
}

/** Returns the stored conversation of an id, with its branches; null if it is not stored. */
export async function loadConversation(id) {
  const completions = await completionsOf(id),
    predecessors = new Set(completions.map(({ metadata }) => metadata.follows));
  const stored = completions.filter((one) => !predecessors.has(one.id)).slice(0, MAX_BRANCHES);
  if (!stored.length) return null;
  const [latest, ...earlier] = await Promise.all([
    restore(stored[0]),
    ...stored.slice(1).map((one) => ifStored(restore(one))),
  ]);
  const branches = [...earlier.filter(Boolean).reverse(), latest];
  latest.setBranches(branches.map(({ messages }) => messages));
  return latest;
}

/** Returns the conversation of a stored completion of any client. */
export async function loadStoredChat(storedId) {
  return restore(await request(`${PATH}/${encodeURIComponent(storedId)}`));
}

/** Returns the conversation of a stored completion of any client; null if it is deleted. */
export const loadStoredChatIfThere = (storedId) => ifStored(loadStoredChat(storedId));

/** Returns the result of a request; null if what it asks for has been deleted. */
async function ifStored(promise) {
  try {
    return await promise;
  } catch (error) {
    if (error.status === 404) return null;
    throw error;
  }
}

async function restore(completion) {
  const conversation = new Conversation();
  const messages = await messagesOf(completion.id);
  const [{ message }] = completion.choices;
  conversation.id = conversationOf(completion) ?? conversation.id;
  conversation.storedId = completion.id;
  conversation.metadata = completion.metadata ?? {};
  conversation.model = completion.model;
  conversation.title = titleOf(completion);
  conversation.system = systemOf(messages);
  const [last] = shownMessages([message], completion.metadata);
  const answer = {
    ...last,
    model: completion.model,
    storedId: completion.id,
    retrieval: completion.retrieval ?? null,
    isCut: completion.status === "incomplete" || completion.choices[0].finish_reason === "length",
  };
  conversation.messages = mergeContinued([...shownMessages(messages, completion.metadata), answer]);
  return conversation;
}

/** The messages of stored ones that the page shows, with the `imageId` of those whose images the page
 *  stored by the metadata of the chat. */
function shownMessages(stored, metadata) {
  const imageIds = imageIdsOf(metadata);
  return stored.filter(isShown).map((one) => {
    const message = messageOf(one),
      fileId = fileIdOf(message.content);
    return imageIds.includes(fileId) ? { ...message, imageId: fileId } : message;
  });
}

const systemOf = (messages) =>
  messages.map(({ role, content }) => (role === "system" ? content : null)).find(Boolean) ?? "";

const messagesOf = (storedId) => requestAll(`${PATH}/${encodeURIComponent(storedId)}/messages`);

/** The title of a stored completion; of one without, as other clients store, the answer's first line. */
export function titleOf({ metadata, choices, created, title }) {
  const { content, tool_calls: calls } = choices?.[0]?.message ?? {},
    callNames = callsOf(calls).map(({ name }) => name);
  return (
    metadata?.title ||
    title ||
    titleFrom(content ?? "") ||
    callNames.join(", ") ||
    t("Chat of {time}", {
      time: new Date(created * 1000).toLocaleTimeString(language, { timeStyle: "short" }),
    })
  );
}

/** Gives a stored completion another title; its other metadata stays. With `before` it is refused if the
 *  completion has another title than that. */
export const rename = (completion, title, { before } = {}) =>
  request(`${PATH}/${encodeURIComponent(completion.id)}`, {
    method: "POST",
    body: {
      metadata: { ...completion.metadata, title },
      ...(before === undefined ? {} : { expected_metadata: { title: before } }),
    },
  });

/** Gives a stored chat another title: for a conversation of this page all its completions, as a search finds
 *  each branch. Returns the completion with its title, or a later one if it is deleted by now. */
export async function renameChat(completion, title) {
  const conversation = conversationOf(completion),
    stored = conversation ? await completionsOf(conversation) : [];
  const renamed = await Promise.all(stored.map((one) => ifStored(rename(one, title))));
  const isSame = (one) => one?.id === completion.id;
  return renamed.find(isSame) ?? renamed.find(Boolean) ?? rename(completion, title);
}

/** Deletes a stored chat: for a conversation of this page all its completions, images and files. */
export async function deleteChat(completion) {
  const conversation = conversationOf(completion),
    { vector_store: storeId } = completion.metadata ?? {};
  await (conversation ? deleteAllOf(conversation) : deleteCompletion(completion.id));
  if (conversation && storeId && !(await isStoreUsed(storeId))) await deleteStore(storeId);
}

/** True if another stored chat uses these files: a branch of this one, or its origin. */
async function isStoreUsed(storeId) {
  const query = new URLSearchParams({ limit: "1", "metadata[vector_store]": storeId });
  return (await request(`${PATH}?${query}`)).data.length > 0;
}

async function deleteAllOf(conversation) {
  const stored = await completionsOf(conversation),
    imageIds = [...new Set(stored.flatMap(({ metadata }) => imageIdsOf(metadata)))];
  await Promise.all(stored.map(({ id }) => deleteCompletion(id)));
  if (!imageIds.length) return;
  const others = await requestAll(PATH, { "metadata[client]": CLIENT, "metadata[drawn]": "yes" }),
    shown = await shownFilesOf(others); // a chat opened from a file shows the same images
  const orphaned = imageIds.filter((id) => !shown.includes(id));
  for (const id of orphaned) if (await isStoredImage(id)) await deleteFile(id);
}

/** Returns the ids of the files that the page shows as the answers of these completions. */
async function shownFilesOf(completions) {
  const withImages = completions.filter(({ metadata }) => metadata.drawn),
    earlier = await Promise.all(withImages.map(({ id }) => messagesOf(id)));
  const answers = [...withImages.map(({ choices }) => choices[0].message), ...earlier.flat()];
  const ids = answers.filter(({ role }) => role === "assistant").map(({ content }) => fileIdOf(content));
  return [...new Set(ids)].filter(Boolean);
}

/** Waits for a completion whose request was broken off: it is stored a moment later, if at all. */
export async function waitUntilStored(storedId) {
  for (const pause of STORED_PAUSES_MS) {
    if (await ifStored(request(`${PATH}/${encodeURIComponent(storedId)}`))) return;
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
}

/** Returns all stored completions of a conversation of this page, newest first. */
async function completionsOf(conversation) {
  const stored = await requestAll(PATH, {
    order: "desc",
    "metadata[client]": CLIENT,
    "metadata[conversation]": conversation,
  });
  return stored.filter((completion) => conversationOf(completion) === conversation);
}

/** Returns the ids of all completions that these continue, directly or through others. */
function predecessorsOf(ids, stored) {
  const before = new Map(stored.map(({ id, metadata }) => [id, metadata.follows])),
    predecessors = new Set();
  for (let id of ids)
    while ((id = before.get(id)) !== undefined && !predecessors.has(id)) predecessors.add(id);
  return [...predecessors];
}

/** The id of the conversation that a stored completion holds; null for other clients' completions. */
export const conversationOf = ({ metadata }) =>
  metadata?.client === CLIENT ? (metadata.conversation ?? null) : null;

/** Deletes a stored completion; a missing one is no error. */
async function deleteCompletion(storedId) {
  try {
    await request(`${PATH}/${encodeURIComponent(storedId)}`, { method: "DELETE" });
  } catch (error) {
    if (error.status !== 404) throw error;
  }
}

export function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

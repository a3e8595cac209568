// A conversation, and its storage on the server.
//
// The server stores chat completions, each with all messages before it. So the latest one holds the
// whole conversation: it is stored under the conversation's own id in its metadata, and those before
// it are deleted once it is there as a whole.

import { ask, events } from "./api.js";
import { forgetFiles } from "./attachments.js";

const PATH = "v1/chat/completions";
const CLIENT = "web";
const TITLE_CHARACTERS = 80;
const GO_ON = "Go on exactly where you stopped. Repeat nothing.";
const LETTER = /[\p{Script=Latin}\p{Script=Greek}\p{Script=Cyrillic}\p{N}]/u;

export class Conversation {
  id = newId();
  storedId = null;
  title = "";
  system = "";
  metadata = {};
  /** Each with `role` and `content`; answers may also have `reasoning` and `isCut`. User messages may
   *  have `pictures`, data: URLs; with `hasMore` they had further parts. */
  messages = [];

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

  /** Returns a new conversation that continues from the messages before this index. */
  branch(place) {
    const other = new Conversation();
    const { vector_store: storeId } = this.metadata;
    other.system = this.system;
    other.model = this.model;
    if (storeId) other.metadata = { vector_store: storeId };
    other.messages = this.messages.slice(0, place).map((message) => ({ ...message }));
    return other;
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

  /** Takes the last answer back, so that there is a question to answer again, and returns it. */
  takeBack() {
    const end = this.messages.findLastIndex(({ role }) => role !== "assistant");
    return this.messages.splice(end + 1);
  }

  /** Asks the model, which reads what the vector store says if there is one; yields the answer each
   *  time it has grown. One that is continued is the last answer, which grows further. */
  async *answer({ model, parameters, storeId, isStoring, isContinued, signal }) {
    const kept = storeId ?? this.metadata.vector_store;
    const metadata = {
      client: CLIENT,
      conversation: this.id,
      title: this.title,
      ...(kept ? { vector_store: kept } : {}),
    };
    const body = {
      model,
      messages: this.#requestMessages(isContinued ? [{ role: "user", content: GO_ON }] : []),
      stream: true,
      stream_options: { include_usage: true },
      ...(isStoring ? { store: true, metadata } : {}),
      ...parameters,
      ...(storeId ? { tools: [{ type: "file_search", vector_store_ids: [storeId] }] } : {}),
    };
    if (!isContinued) this.messages.push(newAnswer());
    const answer = this.messages.at(-1),
      before = { ...answer },
      more = newAnswer();
    for await (const chunk of events(PATH, { method: "POST", body, signal })) {
      this.storedId = chunk.id;
      this.metadata = metadata;
      if (chunk.usage) more.usage = chunk.usage;
      if (chunk.retrieval) more.retrieval = chunk.retrieval;
      for (const choice of chunk.choices ?? []) take(more, choice);
      Object.assign(answer, joined(before, more));
      yield answer;
    }
  }

  /** Deletes the earlier states of the chat, once its latest one is stored and still the latest. */
  async forgetEarlier() {
    const latest = this.storedId,
      stored = await storedOf(this.id);
    if (latest !== this.storedId || !stored.some(({ id }) => id === latest)) return;
    await Promise.all(stored.filter(({ id }) => id !== latest).map(({ id }) => forget(id)));
  }

  #requestMessages(more) {
    const messages = this.messages.map((message, place) =>
      requestMessage(message, this.messages[place + 1]?.role === "tool"),
    );
    const system = this.system ? [{ role: "system", content: this.system }] : [];
    return [...system, ...messages, ...more];
  }
}

const newAnswer = () => ({
  role: "assistant",
  content: "",
  reasoning: "",
  calls: [],
  isCut: true,
  retrieval: null,
});

/** A message as the model is to read it. Calls without results are told as text: models take no others. */
function requestMessage({ role, content, pictures, calls = [], callId }, hasResults) {
  if (role === "tool") return { role, content, tool_call_id: callId };
  if (calls.length && hasResults) {
    const asked = calls.map(({ id, name, text }) => ({
      id,
      type: "function",
      function: { name, arguments: text },
    }));
    return { role, content: content || null, tool_calls: asked };
  }
  if (calls.length && !content)
    return { role, content: calls.map(({ name, text }) => `${name}(${text})`).join("\n") };
  return { role, content: pictures?.length ? partsOf(content, pictures) : content };
}

/** An answer and what continues it, as one. A space that models leave out stands between two words. */
function joined(first, second) {
  const { content: start, reasoning } = first,
    rest = second.content;
  const space = LETTER.test(start.at(-1) ?? "") && LETTER.test(rest[0] ?? "") ? " " : "";
  return {
    ...second,
    content: start + space + rest,
    reasoning: reasoning + second.reasoning,
    calls: [...first.calls, ...second.calls],
    retrieval: second.retrieval ?? first.retrieval,
  };
}

/** Messages in which each answer that was continued is one, without the requests to go on. */
function withoutGoingOn(messages) {
  const whole = [];
  for (const [place, message] of messages.entries()) {
    const isGoingOn = message.role === "user" && message.content === GO_ON;
    if (isGoingOn && whole.at(-1)?.role === "assistant") continue;
    const isRest = message.role === "assistant" && messages[place - 1]?.content === GO_ON;
    if (isRest && whole.at(-1)?.role === "assistant")
      Object.assign(whole.at(-1), joined(whole.at(-1), message));
    else whole.push(message);
  }
  return whole;
}

function take(answer, { delta, finish_reason: reason }) {
  answer.content += delta.content ?? "";
  answer.reasoning += delta.reasoning_content ?? "";
  for (const [place, { index, id, function: called }] of (delta.tool_calls ?? []).entries()) {
    const at = Math.min(index ?? place, answer.calls.length);
    const call = (answer.calls[at] ??= { id: "", name: "", text: "" });
    call.id ||= id ?? "";
    call.name += called?.name ?? "";
    call.text += called?.arguments ?? "";
  }
  if (reason) answer.isCut = reason === "length";
}

/** Returns a page of stored conversations, newest first, and the cursor of the next page. */
export async function listed({ after, isOthersToo }) {
  const query = new URLSearchParams({ order: "desc", limit: "40" });
  if (after) query.set("after", after);
  if (!isOthersToo) query.set("metadata[client]", CLIENT);
  const page = await ask(`${PATH}?${query}`);
  return { chats: page.data, next: page.has_more ? page.last_id : null };
}

/** Returns the conversation of an id; null if it is not stored. */
export async function opened(id) {
  const [latest] = await storedOf(id);
  return latest ? restored(latest) : null;
}

/** Returns the conversation of a stored completion of any client. */
export async function openedStored(storedId) {
  return restored(await ask(`${PATH}/${encodeURIComponent(storedId)}`));
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
  conversation.system = asked.find(({ role }) => role === "system")?.content ?? "";
  conversation.messages = asked
    .filter(({ role }) => ["user", "assistant", "tool"].includes(role))
    .map(({ role, content, content_parts: parts, tool_calls: calls, tool_call_id: callId }) => ({
      role,
      content: content ?? textOf(parts),
      reasoning: "",
      calls: callsOf(calls),
      callId,
      pictures: (parts ?? []).filter(isPicture).map(({ image_url: { url } }) => url),
      hasMore: (parts ?? []).some((part) => part.type !== "text" && !isPicture(part)),
    }));
  conversation.messages.push({
    role: "assistant",
    content: message.content ?? "",
    reasoning: message.reasoning_content ?? "",
    calls: callsOf(message.tool_calls),
    retrieval: completion.retrieval ?? null,
    isCut: completion.status === "incomplete" || completion.choices[0].finish_reason === "length",
  });
  conversation.messages = withoutGoingOn(conversation.messages);
  return conversation;
}

const callsOf = (calls) =>
  (calls ?? []).map(({ id, function: called, custom }) => ({
    id,
    name: called?.name ?? custom?.name ?? "",
    text: called?.arguments ?? custom?.input ?? "",
  }));

async function messagesOf(storedId) {
  const messages = [];
  let after = "";
  for (;;) {
    const query = new URLSearchParams({ limit: "100", ...(after ? { after } : {}) });
    const page = await ask(`${PATH}/${encodeURIComponent(storedId)}/messages?${query}`);
    messages.push(...page.data);
    if (!page.has_more) return messages;
    after = page.last_id;
  }
}

const textOf = (parts) =>
  (parts ?? [])
    .filter((part) => !isPicture(part))
    .map((part) => part.text ?? `[${part.type}]`)
    .join("\n");

const partsOf = (text, pictures) => [
  ...pictures.map((url) => ({ type: "image_url", image_url: { url } })),
  { type: "text", text },
];

/** True if a part is a picture that needs no request to be shown. */
const isPicture = ({ type, image_url: picture }) =>
  type === "image_url" && /^data:image\/[^,]*;base64,/.test(picture.url);

/** The title of a stored completion: of one without, as of other clients, how its answer begins. */
export function titleOf({ metadata, choices, created }) {
  const { content, tool_calls: calls } = choices?.[0]?.message ?? {},
    called = callsOf(calls).map(({ name }) => name);
  return (
    metadata?.title ||
    titled(content ?? "") ||
    called.join(", ") ||
    `Chat of ${new Date(created * 1000).toLocaleTimeString([], { timeStyle: "short" })}`
  );
}

const titled = (text) => text.trim().split("\n")[0].slice(0, TITLE_CHARACTERS);

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

/** Returns the stored completions of a conversation of this page, newest first. */
async function storedOf(conversation) {
  const query = new URLSearchParams({
    order: "desc",
    limit: "100",
    "metadata[client]": CLIENT,
    "metadata[conversation]": conversation,
  });
  const { data } = await ask(`${PATH}?${query}`);
  return data.filter((completion) => conversationOf(completion) === conversation);
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

function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

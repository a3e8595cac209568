// Messages: as the page shows them, as requests have them, and as they are stored.

const TITLE_CHARACTERS = 80;
const LETTER = /[\p{Script=Latin}\p{Script=Greek}\p{Script=Cyrillic}\p{N}]/u;

/** The request to continue an answer that was cut. */
export const CONTINUE_PROMPT = "Go on exactly where you stopped. Repeat nothing.";

/** Results for the model of calls that were not made, or failed. */
export const REFUSED = "The user refused this call.";
export const ERROR_PREFIX = "Error: ";

/** A title for a chat: the first line of a text. */
export const titleFrom = (text) => beginningOf(text.trim().split("\n")[0], TITLE_CHARACTERS);

/** The beginning of a text, without half of a character at its end: servers refuse that. */
export const beginningOf = (text, length) => text.slice(0, length).replace(/\p{Surrogate}$/u, "");

export const newAnswer = () => ({
  role: "assistant",
  content: "",
  reasoning: "",
  calls: [],
  isCut: true,
  retrieval: null,
});

/** A message as a request has it. Calls without results become text, as models reject such calls. */
export function requestMessage({ role, content, images = [], documents = [], calls = [], callId }, hasResults) {
  if (role === "tool") return { role, content, tool_call_id: callId };
  if (calls.length && hasResults) {
    const toolCalls = calls.map(({ id, name, text }) => ({
      id,
      type: "function",
      function: { name, arguments: text },
    }));
    return { role, content: content || null, tool_calls: toolCalls };
  }
  if (calls.length && !content)
    return { role, content: calls.map(({ name, text }) => `${name}(${text})`).join("\n") };
  const parts = [...images.map(imagePart), ...documents.map(documentPart)];
  return { role, content: parts.length ? [...parts, { type: "text", text: content }] : content };
}

/** Joins an answer and its continuation, with the space between two words that models leave out. */
export function joinAnswers(first, second) {
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

/** Joins each answer with its continuations, and drops the requests for these. */
export function mergeContinued(messages) {
  const merged = [];
  for (const [index, message] of messages.entries()) {
    const isContinuation = message.role === "user" && message.content === CONTINUE_PROMPT;
    if (isContinuation && merged.at(-1)?.role === "assistant") continue;
    const isContinued = message.role === "assistant" && messages[index - 1]?.content === CONTINUE_PROMPT;
    if (isContinued && merged.at(-1)?.role === "assistant")
      Object.assign(merged.at(-1), joinAnswers(merged.at(-1), message));
    else merged.push(message);
  }
  return merged;
}

/** Adds a chunk of a stream to an answer. */
export function applyChunk(answer, { usage, retrieval, choices }) {
  if (usage) answer.usage = usage;
  if (retrieval) answer.retrieval = retrieval;
  for (const choice of choices ?? []) applyDelta(answer, choice);
}

function applyDelta(answer, { delta, finish_reason: reason }) {
  answer.content += delta.content ?? "";
  answer.reasoning += delta.reasoning_content ?? "";
  for (const [position, { index, id, function: fn }] of (delta.tool_calls ?? []).entries()) {
    const callIndex = Math.min(index ?? position, answer.calls.length);
    const call = (answer.calls[callIndex] ??= { id: "", name: "", text: "" });
    call.id ||= id ?? "";
    call.name += fn?.name ?? "";
    call.text += fn?.arguments ?? "";
  }
  if (reason) answer.isCut = reason === "length";
}

export const callsOf = (calls) =>
  (calls ?? []).map(({ id, function: fn, custom }) => ({
    id,
    name: fn?.name ?? custom?.name ?? "",
    text: fn?.arguments ?? custom?.input ?? "",
  }));

const partsText = (parts) =>
  (parts ?? [])
    .filter((part) => !isImage(part) && !documentOf(part))
    .map((part) => part.text ?? `[${part.type}]`)
    .join("\n");

const imagePart = (url) => ({ type: "image_url", image_url: { url } });

/** The part of a request for a document: a text under its name, or a PDF as a file. */
const documentPart = ({ name, text, data }) =>
  data
    ? { type: "file", file: { filename: name, file_data: data } }
    : { type: "text", text: `<file name=${JSON.stringify(name)}>\n${text}\n</file>` };

const DOCUMENT = /^<file name=("(?:[^"\\\n]|\\.)*")>\n([^]*)\n<\/file>$/;

/** The document of a part; null for another part. */
function documentOf({ type, text, file }) {
  if (type === "file" && file.file_data) return { name: file.filename ?? "", data: file.file_data };
  const match = type === "text" && DOCUMENT.exec(text);
  try {
    return match ? { name: JSON.parse(match[1]), text: match[2] } : null;
  } catch {
    return null; // another client's text that begins so
  }
}

/** True for an image that needs no request to be shown. */
const isImage = ({ type, image_url: image }) =>
  type === "image_url" && /^data:image\/[^,]*;base64,/.test(image.url);

/** A message of a request, of an export or of a stored chat, as the page has it. */
export function messageOf({ role, content, content_parts, reasoning_content, ...more }) {
  const parts = content_parts ?? (Array.isArray(content) ? content : []);
  return {
    role,
    content: typeof content === "string" ? content : partsText(parts),
    reasoning: reasoning_content ?? "",
    calls: callsOf(more.tool_calls),
    callId: more.tool_call_id,
    images: parts.filter(isImage).map(({ image_url: { url } }) => url),
    documents: parts.map(documentOf).filter(Boolean),
    hasMore: parts.some((part) => part.type !== "text" && !isImage(part) && !documentOf(part)),
  };
}

/** True for a message that the page shows. */
export const isShown = ({ role }) => ["user", "assistant", "tool"].includes(role);

/** True for an answer that was cut in its text, or at the end of it: the model can continue it. */
export const isContinuable = (answer) => Boolean(answer?.isCut && answer.content);

/** True for an answer with neither text nor reasoning nor calls nor a whole image. */
export const isEmpty = ({ content, reasoning, calls, drawn }) =>
  !content && !reasoning && !calls.length && drawn?.share !== 1;

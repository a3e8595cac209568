// Messages: as the page shows them, as requests have them, and as they are stored.

const TITLE_CHARACTERS = 80;
const LETTER = /[\p{Script=Latin}\p{Script=Greek}\p{Script=Cyrillic}\p{N}]/u;

/** What asks a model for more of an answer that was cut. */
export const GO_ON = "Go on exactly where you stopped. Repeat nothing.";

/** A title for a chat: the first line of a text. */
export const titled = (text) => text.trim().split("\n")[0].slice(0, TITLE_CHARACTERS);

export const newAnswer = () => ({
  role: "assistant",
  content: "",
  reasoning: "",
  calls: [],
  isCut: true,
  retrieval: null,
});

/** A message as the model is to read it. Calls without results are told as text: models take no others. */
export function requestMessage({ role, content, pictures, calls = [], callId }, hasResults) {
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
export function joined(first, second) {
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
export function withoutGoingOn(messages) {
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

export function take(answer, { delta, finish_reason: reason }) {
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

export const callsOf = (calls) =>
  (calls ?? []).map(({ id, function: called, custom }) => ({
    id,
    name: called?.name ?? custom?.name ?? "",
    text: called?.arguments ?? custom?.input ?? "",
  }));

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

/** A message of a request, of an export or of a stored chat, as the page has it. */
export function messageOf({ role, content, content_parts, reasoning_content, ...more }) {
  const parts = content_parts ?? (Array.isArray(content) ? content : []);
  return {
    role,
    content: typeof content === "string" ? content : textOf(parts),
    reasoning: reasoning_content ?? "",
    calls: callsOf(more.tool_calls),
    callId: more.tool_call_id,
    pictures: parts.filter(isPicture).map(({ image_url: { url } }) => url),
    hasMore: parts.some((part) => part.type !== "text" && !isPicture(part)),
  };
}

/** True for a message that the page shows. */
export const isShown = ({ role }) => ["user", "assistant", "tool"].includes(role);

// Asks this server: JSON, event streams, and the key that it may want.
//
// The key is kept in the session's storage: it is a password, and ends with the tab unless its owner
// asks that it be remembered, which puts it into the storage that stays.

const KEY = "api-key";

/** What the server answered that is not what was asked for. */
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export const key = {
  get value() {
    return sessionStorage.getItem(KEY) ?? localStorage.getItem(KEY) ?? "";
  },
  get isKept() {
    return localStorage.getItem(KEY) !== null;
  },
  set(value, { isKept }) {
    sessionStorage.removeItem(KEY);
    localStorage.removeItem(KEY);
    if (value) (isKept ? localStorage : sessionStorage).setItem(KEY, value);
  },
};

/** What a path answers to GET, POST or DELETE; throws `Refused`. */
export async function ask(path, { method = "GET", body, signal } = {}) {
  const response = await send(path, { method, body, signal });
  return response.json();
}

/** What a path answers to a form, which may hold files; throws `Refused`. */
export async function upload(path, form) {
  const response = await send(path, { method: "POST", form });
  return response.json();
}

/** The events of a stream, each parsed; ends at `[DONE]` or with the stream. */
export async function* events(path, { method = "GET", body, signal } = {}) {
  const response = await send(path, { method, body, signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let pending = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      pending += value;
      const parts = pending.split(/\r?\n\r?\n/);
      pending = parts.pop();
      for (const part of parts) {
        const data = dataOf(part);
        if (data === "[DONE]") return;
        if (data) yield unlessError(JSON.parse(data));
      }
    }
  } finally {
    reader.cancel().catch(() => {}); // the stream has ended already, or nobody reads on
  }
}

async function send(path, { method, body, form, signal }) {
  const headers = {};
  if (body !== undefined) headers["content-type"] = "application/json";
  if (key.value) headers.authorization = `Bearer ${key.value}`;
  let response;
  try {
    response = await fetch(path, {
      method,
      headers,
      signal,
      body: body === undefined ? form : JSON.stringify(body),
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, "The server cannot be reached.");
  }
  if (response.ok) return response;
  throw await refusal(response);
}

async function refusal(response) {
  let message = `The server answered ${response.status}.`;
  try {
    message = (await response.json()).error.message ?? message;
  } catch {
    // no body of ours: what stands between said it, and its number is all there is
  }
  return new Refused(response.status, message);
}

function dataOf(part) {
  const lines = part.split(/\r?\n/).filter((line) => line.startsWith("data:"));
  return lines.map((line) => line.slice(5).replace(/^ /, "")).join("\n");
}

function unlessError(event) {
  if (event.error) throw new Refused(0, event.error.message);
  return event;
}

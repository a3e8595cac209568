// HTTP client of this server: JSON, event streams, and the API key.
//
// The key is a password: it is stored for the session and ends with the tab, unless the user asks to
// remember it, which stores it permanently.

const KEY = "api-key";

/** An error answer of the server. */
export class RequestError extends Error {
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

/** Sends GET, POST or DELETE to a path and returns the JSON; throws `RequestError`. */
export async function ask(path, { method = "GET", body, signal } = {}) {
  const response = await send(path, { method, body, signal });
  return response.json();
}

/** Sends a form, which may have files, and returns the JSON; throws `RequestError`. */
export async function upload(path, form) {
  const response = await send(path, { method: "POST", form });
  return response.json();
}

/** Yields the parsed events of a stream; ends at `[DONE]` or with the stream. */
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
    reader.cancel().catch(() => {}); // the stream has ended, or the reader has stopped
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
    throw new RequestError(0, "The server cannot be reached.");
  }
  if (response.ok) return response;
  throw await refusal(response);
}

async function refusal(response) {
  let message = `The server answered ${response.status}.`;
  try {
    message = (await response.json()).error.message ?? message;
  } catch {
    // not an error body of this server: a proxy's, of which only the status is known
  }
  return new RequestError(response.status, message);
}

function dataOf(part) {
  const lines = part.split(/\r?\n/).filter((line) => line.startsWith("data:"));
  return lines.map((line) => line.slice(5).replace(/^ /, "")).join("\n");
}

function unlessError(event) {
  if (event.error) throw new RequestError(0, event.error.message);
  return event;
}

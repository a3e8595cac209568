// HTTP client of this server: JSON, event streams, and the API key.
//
// The key is a password: it is stored for the session and ends with the tab, unless the user asks to
// remember it, which stores it permanently.

import { t } from "./language.js";

const KEY = "api-key";
const REACHED_WITHIN_MS = 5000;
const BY_PROXIES = {
  502: t("A proxy on the way cannot reach the server (502)."),
  503: t("The server, or a proxy on the way to it, is overloaded (503)."),
  504: t("A proxy on the way gave up waiting for the server (504)."),
};

/** An error answer of the server. */
export class RequestError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** The server cannot be reached, or its answer broke off. */
export class ConnectionLost extends RequestError {
  constructor(message = t("The connection to the server was lost.")) {
    super(0, message);
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
  return parsed(await send(path, { method, body, signal }), signal);
}

/** Returns all objects of a list, which the server gives in pages; throws `RequestError`. */
export async function askAll(path, query = {}) {
  const all = [],
    pages = new URLSearchParams({ limit: "100", ...query });
  for (;;) {
    const { data, has_more: hasMore, last_id: last } = await ask(`${path}?${pages}`);
    all.push(...data);
    if (!hasMore) return all;
    if (!data.length || last === pages.get("after"))
      throw new RequestError(0, t("The server sent a list that does not go on."));
    pages.set("after", last);
  }
}

/** Sends a form, which may have files, and returns the JSON; throws `RequestError`. */
export async function upload(path, form) {
  return parsed(await send(path, { method: "POST", form }));
}

/** True if the server answers at all, within a few seconds. */
export async function isReachable() {
  const controller = new AbortController();
  const timer = setTimeout(() => controller.abort(), REACHED_WITHIN_MS);
  try {
    return (await fetch("ping", { signal: controller.signal, cache: "no-store" })).ok;
  } catch {
    return false; // refused, or too late
  } finally {
    clearTimeout(timer);
  }
}

/** Yields the parsed events of a stream until `[DONE]`; throws `ConnectionLost` for one that ends without. */
export async function* events(path, { method = "GET", body, signal, headers } = {}) {
  const response = await send(path, { method, body, signal, headers });
  const type = response.headers.get("content-type") ?? "nothing";
  if (!type.startsWith("text/event-stream"))
    throw new RequestError(0, t("The server sent {type} instead of a stream of events.", { type }));
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let pending = "";
  try {
    for (;;) {
      const { done, value } = await unlessLost(reader.read(), signal);
      if (done) throw new ConnectionLost();
      pending += value;
      const parts = pending.split(/\r?\n\r?\n/);
      pending = parts.pop();
      for (const part of parts) {
        const data = dataOf(part);
        if (data === "[DONE]") return;
        if (data) yield unlessError(eventOf(data));
      }
    }
  } finally {
    reader.cancel().catch(() => {}); // the stream has ended, or the reader has stopped
  }
}

/** Yields the parsed lines of a stream of JSON lines; throws `RequestError` for one that is an error. */
export async function* lines(path, { method = "POST", body, signal } = {}) {
  const response = await send(path, { method, body, signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let pending = "";
  for (;;) {
    const { done, value } = await unlessLost(reader.read(), signal);
    if (done) return;
    const parts = (pending + value).split("\n");
    pending = parts.pop();
    for (const part of parts) if (part) yield unlessError(eventOf(part));
  }
}

async function parsed(response, signal) {
  const text = await unlessLost(response.text(), signal);
  try {
    return JSON.parse(text);
  } catch {
    throw new RequestError(0, t("The answer is not this server’s: it is no JSON."));
  }
}

/** Returns what the body gives; throws why the request was aborted, or `ConnectionLost`. */
async function unlessLost(reading, signal) {
  try {
    return await reading;
  } catch {
    signal?.throwIfAborted();
    throw new ConnectionLost();
  }
}

async function send(path, { method, body, form, signal, headers: more }) {
  const headers = { ...more };
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
  } catch {
    signal?.throwIfAborted();
    throw new ConnectionLost(t("The server cannot be reached."));
  }
  if (response.ok) return response;
  throw await refusal(response);
}

async function refusal(response) {
  let message = BY_PROXIES[response.status] ?? t("The server answered {status}.", response);
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

function eventOf(data) {
  try {
    return JSON.parse(data);
  } catch {
    throw new RequestError(0, t("The server sent an event that cannot be read."));
  }
}

function unlessError(event) {
  if (event.error) throw new RequestError(0, event.error.message ?? event.error);
  return event;
}

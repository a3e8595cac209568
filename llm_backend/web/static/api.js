// HTTP client of this server: JSON and event streams.

import { t } from "./language.js";
import { apiKey, takePrefetched } from "./start.js";

const PING_TIMEOUT_MS = 5000;
const PROXY_ERRORS = {
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

  /** True if the same request would be refused again. */
  get isRefused() {
    return this.status >= 400 && this.status < 500 && this.status !== 429;
  }
}

/** The server cannot be reached, or its answer broke off. */
export class ConnectionLost extends RequestError {
  constructor(message = t("The connection to the server was lost.")) {
    super(0, message);
  }
}

/** Sends GET, POST or DELETE to a path and returns the JSON; throws `RequestError`. */
export async function request(path, { method = "GET", body, signal } = {}) {
  return parseBody(await send(path, { method, body, signal }), signal);
}

/** Returns all objects of a list, page by page; throws `RequestError`. */
export async function requestAll(path, query = {}) {
  const all = [],
    pages = new URLSearchParams({ limit: "100", ...query });
  for (;;) {
    const { data, has_more: hasMore, last_id: last } = await request(`${path}?${pages}`);
    all.push(...data);
    if (!hasMore) return all;
    if (!data.length || last === pages.get("after"))
      throw new RequestError(0, t("The server sent the same page of a list twice."));
    pages.set("after", last);
  }
}

/** Sends a form, which may have files, and returns the JSON; throws `RequestError`. */
export async function upload(path, form) {
  return parseBody(await send(path, { method: "POST", form }));
}

/** Sends GET or POST to a path and returns the bytes of the answer; throws `RequestError`. */
export async function requestBlob(path, { method = "GET", body, signal } = {}) {
  const response = await send(path, { method, body, signal });
  return orConnectionLost(response.blob(), signal);
}

/** True if the server answers at all, within a few seconds. */
export async function isReachable() {
  const controller = new AbortController();
  const timer = setTimeout(() => controller.abort(), PING_TIMEOUT_MS);
  try {
    return (await fetch("ping", { signal: controller.signal, cache: "no-store" })).ok;
  } catch {
    return false; // refused, or too late
  } finally {
    clearTimeout(timer);
  }
}

/** Returns a module that is loaded when it is needed; throws `ConnectionLost` if it does not arrive. */
export async function loadModule(load) {
  try {
    return await load();
  } catch (error) {
    if (error instanceof TypeError) throw new ConnectionLost(t("The server cannot be reached."));
    throw error;
  }
}

/** Yields the parsed events of a stream until `[DONE]`; throws `ConnectionLost` if it ends before. */
export async function* streamEvents(path, { method = "GET", body, signal, headers } = {}) {
  const response = await send(path, { method, body, signal, headers });
  const type = response.headers.get("content-type") ?? "nothing";
  if (!type.startsWith("text/event-stream"))
    throw new RequestError(0, t("The server sent {type} instead of a stream of events.", { type }));
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let pending = "";
  try {
    for (;;) {
      const { done, value } = await orConnectionLost(reader.read(), signal);
      if (done) throw new ConnectionLost();
      pending += value;
      const parts = pending.split(/\r?\n\r?\n/);
      pending = parts.pop();
      for (const part of parts) {
        const data = dataOf(part);
        if (data === "[DONE]") return;
        if (data) yield orThrow(parseEvent(data));
      }
    }
  } finally {
    reader.cancel().catch(() => {}); // the stream has ended, or the reader has stopped
  }
}

/** Yields the parsed lines of a stream of JSON lines; throws `RequestError` for an error line, and
    `ConnectionLost` if the connection breaks. The end of the body does not prove that it is whole: callers
    check the last line. */
export async function* streamLines(path, { method = "POST", body, signal } = {}) {
  const response = await send(path, { method, body, signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let pending = "";
  try {
    for (;;) {
      const { done, value } = await orConnectionLost(reader.read(), signal);
      const parts = (pending + (done ? "\n" : value)).split("\n");
      pending = parts.pop();
      for (const part of parts) if (part) yield orThrow(parseEvent(part));
      if (done) return;
    }
  } finally {
    reader.cancel().catch(() => {}); // the stream has ended, or the reader has stopped
  }
}

async function parseBody(response, signal) {
  const text = await orConnectionLost(response.text(), signal);
  try {
    return JSON.parse(text);
  } catch {
    throw new RequestError(0, t("The answer is not this server’s: it is no JSON."));
  }
}

/** Waits for a read of the body; throws the reason of an abort, or `ConnectionLost`. */
async function orConnectionLost(read, signal) {
  try {
    return await read;
  } catch {
    signal?.throwIfAborted();
    throw new ConnectionLost();
  }
}

async function send(path, { method, body, form, signal, headers: extraHeaders }) {
  const headers = { ...extraHeaders };
  if (body !== undefined) headers["content-type"] = "application/json";
  if (apiKey.value) headers.authorization = `Bearer ${apiKey.value}`;
  let response;
  try {
    response = await (takePrefetched(path) ??
      fetch(path, {
        method,
        headers,
        signal,
        body: body === undefined ? form : JSON.stringify(body),
      }));
  } catch {
    signal?.throwIfAborted();
    throw new ConnectionLost(t("The server cannot be reached."));
  }
  if (response.ok) return response;
  throw await errorFrom(response);
}

async function errorFrom(response) {
  let message = PROXY_ERRORS[response.status] ?? t("The server answered {status}.", response);
  try {
    message = (await response.json()).error.message ?? message;
  } catch {
    // the error body of a proxy, of which only the status is known
  }
  return new RequestError(response.status, message);
}

function dataOf(part) {
  const lines = part.split(/\r?\n/).filter((line) => line.startsWith("data:"));
  return lines.map((line) => line.slice(5).replace(/^ /, "")).join("\n");
}

function parseEvent(data) {
  try {
    return JSON.parse(data);
  } catch {
    throw new RequestError(0, t("The server sent an event that cannot be read."));
  }
}

function orThrow(event) {
  if (event.error) throw new RequestError(0, event.error.message ?? event.error);
  return event;
}

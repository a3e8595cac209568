// Tools of this server's MCP endpoint, and of the MCP servers that it permits: a model may call them,
// each time with the user's approval.

import { ConnectionLost, RequestError, request } from "./api.js";
import { make } from "./dom.js";
import { t } from "./language.js";
import { ERROR_PREFIX, REFUSED } from "./messages.js";

const UNAVAILABLE = "llm-backend/unavailable"; // metadata of the list

/** Returns the tools in the form of chat requests, and sentences on servers whose tools are missing. */
export async function functionTools() {
  const { result, error } = await callMethod("tools/list", {});
  if (error) throw new RequestError(0, error.message);
  const tools = result.tools.map(({ name, description, inputSchema: parameters }) => ({
    type: "function",
    function: { name, description, parameters },
  }));
  const failures = Object.entries(result._meta?.[UNAVAILABLE] ?? {}).map(([server, reason]) =>
    t("The tools of {server} cannot be had: {reason}", { server, reason }),
  );
  return { tools, failures };
}

/** Makes a call; returns its result for the model, which may be a refusal or an error of the server.
 *  Throws the reason of an abort, or `ConnectionLost`: then the call may have been made or not. */
export async function runCall({ name, text }, isAllowed, signal) {
  if (!isAllowed) return REFUSED;
  let values;
  try {
    values = JSON.parse(text || "{}");
  } catch {
    return ERROR_PREFIX + "the arguments are no JSON.";
  }
  try {
    const { result, error } = await callMethod("tools/call", { name, arguments: values }, signal);
    if (error) return ERROR_PREFIX + error.message;
    const output = (result.content ?? []).map((part) => part.text ?? `[${part.type}]`).join("\n");
    return result.isError ? ERROR_PREFIX + output : output;
  } catch (error) {
    signal.throwIfAborted();
    if (error instanceof ConnectionLost) throw error;
    return ERROR_PREFIX + error.message;
  }
}

/** A panel that asks whether these calls may be made; `onDecided` gets the answer. */
export function approvalPanel(calls, onDecided) {
  const decide = (isAllowed) => () => {
    panel.remove();
    onDecided(isAllowed);
  };
  const names = [...new Set(calls.map(({ name }) => name))].join(", ");
  const panel = make(
    "div",
    { className: "approval", role: "group", "aria-label": t("Approval") },
    make("p", {}, t("The model wants to call {names}. What it sends is above.", { names })),
    make("button", { type: "button", className: "ask", onclick: decide(true) }, t("Allow")),
    make("button", { type: "button", className: "quiet", onclick: decide(false) }, t("Refuse")),
  );
  return panel;
}

/** Returns the answer to a method of MCP: `{ result }` or `{ error }`. */
const callMethod = (method, params, signal) =>
  request("mcp", { method: "POST", body: { jsonrpc: "2.0", id: 1, method, params }, signal });

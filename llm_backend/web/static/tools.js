// Tools of this server, by its MCP endpoint: a model may call them, each time with the reader's
// approval.

import { ask } from "./api.js";
import { make } from "./dom.js";
import { t } from "./language.js";

const REFUSED = "The user refused this call.";

let listed = null;

/** The tools, as requests of chats have them. */
export async function functionTools() {
  listed ??= (await call("tools/list", {})).tools;
  return listed.map(({ name, description, inputSchema: parameters }) => ({
    type: "function",
    function: { name, description, parameters },
  }));
}

/** The result of a call as the model is to read it: also a refusal, or what went wrong. */
export async function resultOf({ name, text }, isAllowed) {
  if (!isAllowed) return REFUSED;
  let values;
  try {
    values = JSON.parse(text || "{}");
  } catch {
    return "Error: the arguments are no JSON.";
  }
  const { content = [], error } = await call("tools/call", { name, arguments: values });
  return error ?? content.map((part) => part.text ?? `[${part.type}]`).join("\n");
}

/** Asks whether these calls may be made; `onDecided` gets the answer. */
export function approval(calls, onDecided) {
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

/** The result of a method; an error that the server answers is one for the model. */
async function call(method, params) {
  const { result, error } = await ask("mcp", {
    method: "POST",
    body: { jsonrpc: "2.0", id: 1, method, params },
  });
  return error ? { error: `Error: ${error.message}` } : result;
}

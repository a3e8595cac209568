// Tools of this server, by its MCP endpoint: a model may call them, each time with the reader's
// approval.

import { RequestError, ask } from "./api.js";
import { make } from "./dom.js";
import { t } from "./language.js";

const REFUSED = "The user refused this call.";

let listed = null;

/** The tools, as requests of chats have them. */
export async function functionTools() {
  listed ??= await list();
  return listed.map(({ name, description, inputSchema: parameters }) => ({
    type: "function",
    function: { name, description, parameters },
  }));
}

async function list() {
  const { result, error } = await call("tools/list", {});
  if (error) throw new RequestError(0, error.message);
  return result.tools;
}

/** The result of a call as the model is to read it: also a refusal, or what went wrong. It never
 *  throws: the results of the calls before would be lost, and these be made again. */
export async function resultOf({ name, text }, isAllowed) {
  if (!isAllowed) return REFUSED;
  let values;
  try {
    values = JSON.parse(text || "{}");
  } catch {
    return "Error: the arguments are no JSON.";
  }
  try {
    const { result, error } = await call("tools/call", { name, arguments: values });
    if (error) return `Error: ${error.message}`;
    return (result.content ?? []).map((part) => part.text ?? `[${part.type}]`).join("\n");
  } catch (error) {
    return `Error: ${error.message}`;
  }
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

/** What the server answers to a method: `{ result }` or `{ error }`. */
const call = (method, params) =>
  ask("mcp", { method: "POST", body: { jsonrpc: "2.0", id: 1, method, params } });

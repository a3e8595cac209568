// Detached answers: the server writes and stores them even after the page is left.

import { RequestError, request, streamEvents } from "./api.js";
import { t } from "./language.js";

const PATH = "v1/chat/detached";
const CANCEL_PATIENCE_MS = 20_000; // another server of the database learns of it within seconds

/** The client of this page, in the metadata of its chats. */
export const CLIENT = "web";

/** The header of a request for a detached answer: its id. */
export const HEADER = "x-llm-backend-detached";

/** Returns the chats of this page that are being answered, latest first, in the form of stored ones. */
export async function listRunning() {
  const { data } = await request(PATH);
  return data.filter(({ metadata }) => metadata?.client === CLIENT).map((one) => ({ ...one, isRunning: true }));
}

/** Returns the running answer of a conversation; null if there is none. */
export const findRunning = async (conversation) =>
  (await listRunning()).find(({ metadata }) => metadata.conversation === conversation) ?? null;

/** Yields the chat with its messages, and then the events of its answer from the first. */
export const followDetached = (id, signal) => streamEvents(`${PATH}/${encodeURIComponent(id)}`, { signal });

/** Ends the answer that the server is writing to a conversation, if any; returns once it is stored. Throws
 *  `RequestError` if it does not end. */
export async function cancelRunning(conversation) {
  const run = await findRunning(conversation);
  if (!run) return;
  await cancel(run.id);
  const until = performance.now() + CANCEL_PATIENCE_MS;
  for (let pause = 50; await findRunning(conversation); pause = Math.min(pause * 2, 1000)) {
    if (performance.now() > until) throw new RequestError(0, t("The answer to this chat does not end."));
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
}

/** Ends an answer; one that has already ended is no error. */
export async function cancel(id) {
  try {
    if (!(await listRunning()).some((one) => one.id === id)) return;
    await request(`${PATH}/${encodeURIComponent(id)}/cancel`, { method: "POST" });
  } catch (error) {
    if (error.status !== 404) throw error;
  }
}

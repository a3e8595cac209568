// Answers that go on when the page is left: the server writes and stores them without it.

import { ask, events } from "./api.js";

const PATH = "v1/chat/detached";

/** The header of a request whose answer is to go on. */
export const HEADER = "x-llm-backend-detached";

/** The chats of this page that are being answered, the latest first, as stored ones are told of. */
export async function running() {
  const { data } = await ask(PATH);
  return data.filter(({ metadata }) => metadata?.client === "web").map((one) => ({ ...one, isRunning: true }));
}

/** The running answer of a conversation; null if there is none. */
export const runningOf = async (conversation) =>
  (await running()).find(({ metadata }) => metadata.conversation === conversation) ?? null;

/** Yields the chat with its messages, and then the events of its answer from the first. */
export const followed = (id, signal) => events(`${PATH}/${encodeURIComponent(id)}`, { signal });

/** Ends an answer; one that has ended meanwhile needs no end. */
export async function cancel(id) {
  try {
    if (!(await running()).some((one) => one.id === id)) return;
    await ask(`${PATH}/${encodeURIComponent(id)}/cancel`, { method: "POST" });
  } catch (error) {
    if (error.status !== 404) throw error;
  }
}

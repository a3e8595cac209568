// Chats as files: Markdown for readers, JSON that the page opens again. A file of several chats opens
// as a list, of which one is chosen.

import { RequestError } from "./api.js";
import { Conversation } from "./conversation.js";
import { byId, make, saveFile } from "./dom.js";
import { t } from "./language.js";
import { titleFrom } from "./messages.js";

/** Wires the buttons: `current` returns the chat to save, `onImported` gets one from a file. */
export function wireTransfer({ current, onImported, onFailed }) {
  const saverOf = (write) => () => {
    if (current().messages.length) write(current());
    else onFailed(new RequestError(0, t("There is nothing to save: this chat is empty.")));
  };
  byId("save-markdown").addEventListener("click", saverOf(saveMarkdown));
  byId("save-json").addEventListener("click", saverOf(saveJson));
  const field = byId("chat-file");
  byId("read-chat").addEventListener("click", () => field.click());
  field.addEventListener("change", async () => {
    const [file] = field.files;
    field.value = "";
    if (!file) return;
    try {
      const chats = await readChats(file);
      offerChats(chats, (chat) => onImported(chat).catch(onFailed));
      if (chats.length === 1) await onImported(chats[0]);
    } catch (error) {
      onFailed(error);
    }
  });
}

/** Lists the chats of a file if there are several; a button opens each, as often as one likes. */
function offerChats(chats, onImported) {
  const list = byId("file-chats");
  list.hidden = chats.length < 2;
  list.replaceChildren(
    ...chats.map((chat) => {
      const onclick = () => onImported(Conversation.fromExport(chat.toExport()));
      return make("li", {}, make("button", { type: "button", className: "link", onclick }, titleIn(chat)));
    }),
  );
  list.querySelector("button")?.focus();
}

const titleIn = ({ title, messages }) => title || titleFrom(messages[0].content) || t("New chat");

/** Saves a chat as a Markdown file. */
function saveMarkdown(conversation) {
  const { title, messages } = conversation;
  const parts = messages.map(({ role, content, calls = [] }) => {
    const called = calls.map(({ name, text }) => `\`${name}(${text})\``);
    return [`## ${speaker(role, conversation)}`, content, ...called].filter(Boolean).join("\n\n");
  });
  save(`${fileName(title)}.md`, "text/markdown", `# ${title}\n\n${parts.join("\n\n")}\n`);
}

/** Saves a chat as a JSON file. */
function saveJson(conversation) {
  const text = JSON.stringify(conversation.toExport(), null, 2);
  save(`${fileName(conversation.title)}.json`, "application/json", text);
}

/** Saves chats as one JSON file; a single one as it is saved from the options. */
export function saveChats(conversations) {
  if (conversations.length === 1) return saveJson(conversations[0]);
  const chats = conversations.map((one) => one.toExport());
  save("chats.json", "application/json", JSON.stringify({ chats }, null, 2));
}

/** Reads the chats of a JSON file, one or more; throws `RequestError`. */
async function readChats(file) {
  try {
    const content = JSON.parse(await file.text()),
      chats = (content.chats ?? [content]).map((one) => Conversation.fromExport(one));
    if (!chats.length) throw new TypeError("no chats");
    return chats;
  } catch {
    throw new RequestError(0, t("{name} is no chat that was saved as JSON.", { name: file.name }));
  }
}

function speaker(role, { model }) {
  if (role === "user") return t("You");
  return role === "tool" ? t("The tool") : (model ?? t("Model"));
}

const fileName = (title) => title.replaceAll(/[^\p{L}\p{N}]+/gu, "-").slice(0, 60) || "chat";

const save = (name, type, text) => saveFile(name, new Blob([text], { type }));

// A user's message on the page; editing it begins another branch of the chat.

import { fitHeight, icon, iconButton, make } from "./dom.js";
import { t } from "./language.js";
import { blobOf, image } from "./images.js";

const editable = new WeakMap(); // by article, its text and `onEdit`

/** The article of a message; `onEdit` gets the edited text, and draws the messages anew once it can be asked.
 *  Without `onEdit` the message is read-only. */
export function question({ content: text, images = [], documents = [] }, onEdit) {
  const body = make(
    "div",
    { className: "body" },
    ...images.map((url, index) => image(blobOf(url), t("Image {number}", { number: index + 1 }))),
    ...(documents.length ? [documentList(documents)] : []),
    make("p", {}, text),
  );
  const article = make("article", { className: "question", "aria-label": t("You") }, body);
  if (onEdit) {
    const tools = make("div", { className: "tools" });
    const pen = iconButton("pen", t("Edit and resend"), () => edit(article, text));
    editable.set(article, { text, onEdit });
    tools.append(pen);
    article.append(tools);
  }
  return article;
}

const documentList = (documents) =>
  make(
    "ul",
    { className: "attachments", "aria-label": t("Attached documents") },
    ...documents.map(({ name }) => make("li", {}, icon("file"), make("span", {}, name))),
  );

/** Returns the text of a message and how far it is edited; null if it is not being edited. */
export function editOf(article) {
  const field = article.querySelector(".edit textarea");
  return field && { text: editable.get(article).text, draft: field.value, hadFocus: document.activeElement === field };
}

/** Goes on with the editing of a message that is drawn anew, if it is the same one. */
export function resumeEdit(article, { text, draft, hadFocus }) {
  if (editable.get(article)?.text === text) edit(article, draft, hadFocus);
}

function edit(article, draft, isFocused = true) {
  const { text, onEdit } = editable.get(article),
    field = make("textarea", { value: draft, rows: 1, "aria-label": t("Edited text") });
  const form = make(
    "form",
    {
      className: "edit",
      onsubmit: (event) => {
        event.preventDefault();
        closeForm(field.value.trim());
      },
    },
    field,
    make(
      "div",
      { className: "row" },
      make("span", { className: "hint" }, t("The original stays, one step back.")),
      make("button", { type: "button", className: "quiet", onclick: () => closeForm(null) }, t("Cancel")),
      make("button", { type: "submit", className: "ask" }, t("Ask")),
    ),
  );
  const originalChildren = [...article.children];
  const closeForm = (edited) => {
    if (edited && edited !== text) {
      onEdit(edited); // the form goes with the messages of this branch, or stays
      return;
    }
    article.replaceChildren(...originalChildren);
    article.querySelector("button").focus();
  };
  field.addEventListener("input", () => fitHeight(field));
  field.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !event.isComposing) {
      event.stopPropagation(); // Escape on the document stops an answer
      closeForm(null);
    }
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      form.requestSubmit();
    }
  });
  article.replaceChildren(form);
  fitHeight(field);
  if (!isFocused) return;
  field.focus();
  field.setSelectionRange(draft.length, draft.length);
}

// A user's message on the page; editing it begins another branch of the chat.

import { fitHeight, icon, iconButton, make } from "./dom.js";
import { t } from "./language.js";
import { blobOf, image } from "./images.js";

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
    const pen = iconButton("pen", t("Edit and resend"), () => edit(article, text, onEdit));
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

function edit(article, text, onEdit) {
  const field = make("textarea", { value: text, rows: 1, "aria-label": t("Edited text") });
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
  field.focus();
  field.setSelectionRange(text.length, text.length);
}

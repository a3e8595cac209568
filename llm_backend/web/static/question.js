// A user's message on the page: editing it begins a new chat from there.

import { iconButton, make } from "./dom.js";
import { t } from "./language.js";
import { picture } from "./pictures.js";

/** The article of a message; `onEdit` gets the edited text. Without it, it is read-only. */
export function question({ content: text, pictures = [] }, onEdit) {
  const said = make(
    "div",
    { className: "said" },
    ...pictures.map((url, place) => picture(url, t("Picture {number}", { number: place + 1 }))),
    make("p", {}, text),
  );
  const article = make("article", { className: "question", "aria-label": t("You") }, said);
  if (onEdit) {
    const tools = make("div", { className: "tools" });
    const pen = iconButton("pen", t("Edit and resend"), () => edit(article, text, onEdit));
    tools.append(pen);
    article.append(tools);
  }
  return article;
}

function edit(article, text, onEdit) {
  const field = make("textarea", { value: text, rows: 1, "aria-label": t("Edited text") });
  const form = make(
    "form",
    {
      className: "edit",
      onsubmit: (event) => {
        event.preventDefault();
        close(field.value.trim());
      },
    },
    field,
    make(
      "div",
      { className: "row" },
      make("span", { className: "hint" }, t("The original stays, one step back.")),
      make("button", { type: "button", className: "quiet", onclick: () => close(null) }, t("Cancel")),
      make("button", { type: "submit", className: "ask" }, t("Ask")),
    ),
  );
  const shown = [...article.children];
  const close = (asked) => {
    article.replaceChildren(...shown);
    if (asked && asked !== text) onEdit(asked);
    else article.querySelector("button").focus();
  };
  const grow = () => {
    field.style.height = "auto";
    field.style.height = `${field.scrollHeight}px`;
  };
  field.addEventListener("input", grow);
  field.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !event.isComposing) {
      event.stopPropagation(); // which would stop an answer
      close(null);
    }
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      form.requestSubmit();
    }
  });
  article.replaceChildren(form);
  grow();
  field.focus();
  field.setSelectionRange(text.length, text.length);
}

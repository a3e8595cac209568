// A button that copies a text.

import { announce, changeIcon, iconButton } from "./dom.js";
import { t } from "./language.js";

/** A button that copies a text and confirms it with a tick, or with a cross where the browser refuses. */
export function copyButton(label, text) {
  const confirm = (symbol) => {
    changeIcon(button, symbol);
    setTimeout(() => changeIcon(button, "copy"), 1500);
  };
  const button = iconButton("copy", label, () =>
    navigator.clipboard.writeText(text()).then(
      () => confirm("check"),
      () => {
        announce(t("Not copied"));
        confirm("close");
      },
    ),
  );
  return button;
}

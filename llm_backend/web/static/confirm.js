// Confirmation of an action that cannot be undone.

import { byId } from "./dom.js";
import { t } from "./language.js";

/** Asks the user; returns whether the answer was yes. The buttons name what each answer does. */
export function isConfirmed(question, { yes = t("Delete"), no = t("Keep it") } = {}) {
  const dialog = byId("confirm"),
    [refuse, accept] = dialog.querySelectorAll("button");
  byId("confirm-text").textContent = question;
  refuse.textContent = no;
  accept.textContent = yes;
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) =>
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true }),
  );
}

// The sidebar, which opens over the page in narrow windows, and the button of the theme.

import { byId, changeIcon } from "./dom.js";
import { t } from "./language.js";
import { persistent } from "./storage.js";

export const sidebar = {
  get isOpen() {
    return document.body.classList.contains("has-sidebar");
  },
  open() {
    document.body.classList.add("has-sidebar");
    byId("open-sidebar").setAttribute("aria-expanded", "true");
    byId("close-sidebar").focus();
  },
  /** Closes it; the focus does not stay in what cannot be seen. */
  close() {
    const hasFocus = this.isOpen && byId("sidebar").contains(document.activeElement);
    document.body.classList.remove("has-sidebar");
    byId("open-sidebar").setAttribute("aria-expanded", "false");
    if (hasFocus) byId("open-sidebar").focus();
  },
};

export function wireSidebar() {
  byId("open-sidebar").addEventListener("click", () => sidebar.open());
  byId("close-sidebar").addEventListener("click", () => sidebar.close());
  byId("scrim").addEventListener("click", () => sidebar.close());
  wireTheme();
}

function wireTheme() {
  const root = document.documentElement,
    button = byId("theme");
  const showTheme = () => {
    changeIcon(button, window.isDark() ? "sun" : "moon");
    button.querySelector("span").textContent = window.isDark() ? t("Light mode") : t("Dark mode");
  };
  button.addEventListener("click", () => {
    root.dataset.theme = window.isDark() ? "light" : "dark";
    persistent.set("theme", root.dataset.theme);
    showTheme();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", showTheme);
  showTheme();
}

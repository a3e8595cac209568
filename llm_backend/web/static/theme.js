// Sets the chosen theme before the first paint; the default is the system's theme.
"use strict";
try {
  const theme = localStorage.getItem("llm-backend.theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
  // without storage the system's theme is used
}
/** True if the page is dark; for scripts and modules of both pages. */
window.isDark = () => {
  const { theme } = document.documentElement.dataset;
  return theme ? theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
};

// Sets the chosen theme before anything is painted; without a choice the system's holds.
"use strict";
try {
  const theme = localStorage.getItem("theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
  // a browser that keeps nothing for us follows its system
}

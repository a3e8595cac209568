// Swagger UI over this server's own document.
"use strict";
const { SwaggerUIBundle } = window;
const root = document.documentElement;
const isDark = root.dataset.theme
  ? root.dataset.theme === "dark"
  : matchMedia("(prefers-color-scheme: dark)").matches;
root.classList.toggle("dark-mode", isDark);
window.ui = SwaggerUIBundle({
  url: "v1/openapi.json",
  domNode: document.getElementById("swagger"),
  deepLinking: true,
  docExpansion: "none", // tags first: there are hundreds of operations
  defaultModelsExpandDepth: -1, // no list of schemas, which are even more
  filter: true,
  persistAuthorization: false,
  tryItOutEnabled: true,
  validatorUrl: null, // no validation by another server
  onComplete: () => root.setAttribute("data-ready", ""),
});

// Swagger UI over this server's own document.
"use strict";
const { SwaggerUIBundle } = window;
const root = document.documentElement;
root.classList.toggle("dark-mode", window.isDark());
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

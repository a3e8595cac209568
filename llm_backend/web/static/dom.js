// Creates elements; strings never become markup here.

export const SVG = "http://www.w3.org/2000/svg";

/** The element of this page with the id. */
export const byId = (id) => document.getElementById(id);

/** A new element with properties, and children that are elements or texts. */
export function make(name, properties = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key.startsWith("aria-") || key.startsWith("data-") || key === "role" || key === "for") {
      element.setAttribute(key, value);
    } else {
      element[key] = value;
    }
  }
  element.append(...children);
  return element;
}

/** Does what a form is submitted for; its button is disabled until that has ended: nothing is done twice. */
export async function submit(event, work) {
  event.preventDefault();
  const button = event.target.querySelector("button"),
    hadFocus = button === document.activeElement;
  button.disabled = true;
  try {
    await work();
  } finally {
    button.disabled = false;
    if (hadFocus && document.activeElement === document.body) button.focus(); // which disabling took
  }
}

/** One of the page's icons. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
}

/** Changes the icon of a button. */
export const changeIcon = (button, name) =>
  button.querySelector("use").setAttribute("href", `#i-${name}`);

/** A button with an icon and an accessible name. */
export function iconButton(name, label, onclick) {
  return make(
    "button",
    { type: "button", className: "icon", title: label, "aria-label": label, onclick },
    icon(name),
  );
}

/** A text as the source of HTML that shows it. */
export const escapeHtml = (text) =>
  text
    .replaceAll("&", "&amp;")
    .replaceAll("<", "&lt;")
    .replaceAll(">", "&gt;")
    .replaceAll('"', "&quot;");

/** Names the browser's window, or tab, by what it shows; an empty text is a page without a title. */
export function nameWindow(text) {
  document.title = text ? `${text} – llm-backend` : "llm-backend";
}

/** Has screen readers read a text out, when they have time for it. */
export const announce = (text) => byId("announcer").append(make("p", {}, text));

/** Has the browser save a file. */
export function saveFile(name, blob) {
  const url = URL.createObjectURL(blob);
  make("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000); // the browser has read it by then
}

/** Fits the height of a text field to its text, up to the style sheet's maximum. */
export function fitHeight(field) {
  field.style.height = "auto";
  field.style.height = `${field.scrollHeight}px`;
}

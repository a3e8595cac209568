// The language of the page: English, or one with a dictionary, by the choice in the options or else by
// the browser’s own. Keys of the dictionary are the English texts. The server’s own texts are English.

import { byId, make } from "./dom.js";
import { dictionaryPromise, preferredLanguage } from "./start.js";

const NAMES = { en: "English", de: "Deutsch", es: "Español", fr: "Français", zh: "中文" };
const ATTRIBUTES = ["aria-label", "placeholder", "title"];

const fetched = await dictionaryPromise,
  dictionary = fetched ?? {};

/** The code of the language: English where the dictionary cannot be fetched. */
export const language = fetched === null ? "en" : preferredLanguage;

/** A text in the language of the page; `{name}` in it becomes the value of that name. */
export const t = (text, values = {}) =>
  (dictionary[text] ?? text).replaceAll(/\{(\w+)\}/g, (_, name) => values[name]);

/** Translates the texts of the HTML file, and offers the languages. */
export function translatePage() {
  document.documentElement.lang = language;
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const text = texts.currentNode.data.trim();
    if (text in dictionary)
      texts.currentNode.data = texts.currentNode.data.replace(text, () => dictionary[text]);
  }
  for (const name of ATTRIBUTES)
    for (const element of document.querySelectorAll(`[${name}]`))
      element.setAttribute(name, t(element.getAttribute(name)));
  const field = byId("language");
  field.append(...Object.entries(NAMES).map(([value, name]) => make("option", { value }, name)));
  field.value = preferredLanguage;
  field.addEventListener("change", () => {
    localStorage.setItem("language", field.value);
    location.reload();
  });
}

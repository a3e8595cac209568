// The language of the page: English, or one with a dictionary, by the choice in the options or else by
// the browser’s own. Keys of the dictionary are the English texts. The server’s own texts, the
// reference of its API and the name of the installed page are English.

import { byId, make } from "./dom.js";
import { LANGUAGES, dictionaryPromise, preferredLanguage } from "./start.js";
import { persistent } from "./storage.js";

const ATTRIBUTES = ["aria-label", "placeholder", "title"];

const fetched = await dictionaryPromise,
  dictionary = fetched ?? {};

/** The code of the language: English where the dictionary cannot be fetched. */
export const language = fetched === null ? "en" : preferredLanguage;

/** A text in the language of the page; `{name}` in it becomes the value of that name. */
export const t = (text, values = {}) =>
  (dictionary[text] ?? text).replaceAll(/\{(\w+)\}/g, (_, name) => values[name]);

/** Numbers and times of the language. */
export const formatCount = lazily(() => new Intl.NumberFormat(language, { maximumFractionDigits: 0 }));
export const formatSpeed = lazily(
  () => new Intl.NumberFormat(language, { minimumFractionDigits: 1, maximumFractionDigits: 1 }),
);
export const formatPercent = lazily(() => new Intl.NumberFormat(language, { style: "percent" }));
export const formatTime = lazily(() => new Intl.DateTimeFormat(language, { timeStyle: "medium" }));

/** Returns a function that formats by a formatter, which is created at its first call: creating all
 *  of them takes a phone longer than the other code of its first view. */
function lazily(create) {
  let formatter = null;
  return (value) => (formatter ??= create()).format(value);
}

/** A text whose parts between asterisks are names of keys. */
const withKeys = (text) =>
  text.split("*").map((part, index) => (index % 2 ? make("kbd", {}, part) : part));

/** Translates the texts of the HTML file, and offers the languages. */
export function translatePage() {
  document.documentElement.lang = language;
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const text = texts.currentNode.data.trim();
    if (text in dictionary)
      texts.currentNode.data = texts.currentNode.data.replace(text, () => dictionary[text]);
  }
  for (const element of document.querySelectorAll("[data-keys]"))
    element.append(...withKeys(t(element.dataset.keys)));
  for (const name of ATTRIBUTES)
    for (const element of document.querySelectorAll(`[${name}]`))
      element.setAttribute(name, t(element.getAttribute(name)));
  const field = byId("language");
  field.append(...Object.entries(LANGUAGES).map(([value, name]) => make("option", { value }, name)));
  field.value = language;
  field.addEventListener("change", () => {
    persistent.set("language", field.value);
    location.reload();
  });
}

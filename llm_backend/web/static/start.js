// What the page requests first, while its other modules are still loading: the dictionary of its
// language and the lists of models, which need the API key.
//
// The key is a password: it is stored for the session and ends with the tab, unless the user asks to
// remember it, which stores it permanently.

import { ofSession, persistent } from "./storage.js";

const KEY = "api-key";
const PREFETCHED_PATHS = ["v1/models", "v1/info"];

/** The languages of the page, by their codes. */
export const LANGUAGES = { en: "English", de: "Deutsch", es: "Español", fr: "Français", zh: "中文" };

const preferred = [persistent.get("language"), ...navigator.languages];

/** The code of the preferred language among those of the page. */
export const preferredLanguage =
  preferred.map((one) => one?.slice(0, 2)).find((one) => Object.hasOwn(LANGUAGES, one ?? "")) ?? "en";

export const apiKey = {
  get value() {
    return ofSession.get(KEY) ?? persistent.get(KEY) ?? "";
  },
  get isRemembered() {
    return persistent.get(KEY) !== null;
  },
  set(value, { isRemembered }) {
    ofSession.set(KEY, isRemembered ? "" : value);
    persistent.set(KEY, isRemembered ? value : "");
  },
};

/** A promise of the dictionary; of null if it cannot be fetched: the page is English then. */
export const dictionaryPromise =
  preferredLanguage === "en" ? Promise.resolve({}) : fetchDictionary();

const headers = apiKey.value ? { authorization: `Bearer ${apiKey.value}` } : {};
const prefetched = new Map(PREFETCHED_PATHS.map((path) => [path, fetch(path, { headers })]));
for (const one of prefetched.values()) one.catch(() => {}); // reported where the answer is taken

/** Returns the promise of the answer to a prefetched path, once; then undefined. */
export function takePrefetched(path) {
  const answer = prefetched.get(path);
  prefetched.delete(path);
  return answer;
}

async function fetchDictionary() {
  try {
    const response = await fetch(new URL(`languages/${preferredLanguage}.json`, import.meta.url));
    return response.ok ? await response.json() : null;
  } catch {
    return null;
  }
}

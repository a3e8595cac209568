// What the page requests first, while its other modules are still loading: the dictionary of its
// language and the lists of models, which need the API key.
//
// The key is a password: it is stored for the session and ends with the tab, unless the user asks to
// remember it, which stores it permanently.

const KEY = "api-key";
const LANGUAGES = ["en", "de", "es", "fr", "zh"];
const PREFETCHED_PATHS = ["v1/models", "v1/info"];

const preferred = [localStorage.getItem("language"), ...navigator.languages];

/** The code of the preferred language among those of the page. */
export const preferredLanguage =
  preferred.map((one) => one?.slice(0, 2)).find((one) => LANGUAGES.includes(one)) ?? "en";

export const apiKey = {
  get value() {
    return sessionStorage.getItem(KEY) ?? localStorage.getItem(KEY) ?? "";
  },
  get isRemembered() {
    return localStorage.getItem(KEY) !== null;
  },
  set(value, { isRemembered }) {
    sessionStorage.removeItem(KEY);
    localStorage.removeItem(KEY);
    if (value) (isRemembered ? localStorage : sessionStorage).setItem(KEY, value);
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
    const response = await fetch(`web/languages/${preferredLanguage}.json`);
    return response.ok ? await response.json() : null;
  } catch {
    return null;
  }
}

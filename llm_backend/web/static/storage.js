// Values of this browser, by names with a prefix: pages of other programs may have the same origin.
//
// A browser may refuse storage: then values last until the page is closed.

const PREFIX = "llm-backend."; // theme.js has it, too

export const persistent = open("localStorage");
export const ofSession = open("sessionStorage");

function open(kind) {
  const storage = orMemory(kind);
  return {
    /** The text of a name; null without one. */
    get: (name) => storage.getItem(PREFIX + name),
    /** Stores a text; an empty one is removed. */
    set: (name, text) =>
      text === "" ? storage.removeItem(PREFIX + name) : storage.setItem(PREFIX + name, text),
  };
}

function orMemory(kind) {
  try {
    window[kind].getItem(PREFIX);
    return window[kind];
  } catch {
    const values = new Map();
    return {
      getItem: (name) => values.get(name) ?? null,
      setItem: (name, text) => values.set(name, text),
      removeItem: (name) => values.delete(name),
    };
  }
}

// Values of this browser, by names with a prefix: pages of other programs may have the same origin.
//
// A browser may refuse storage, and storage may be full: then values last until the page is closed.

const PREFIX = "llm-backend."; // theme.js has it, too

export const persistent = open("localStorage");
export const ofSession = open("sessionStorage");

function open(kind) {
  const storage = orNothing(kind);
  const refused = new Map(); // texts that the storage did not take
  return {
    /** The text of a name; null without one. */
    get: (name) => refused.get(name) ?? storage?.getItem(PREFIX + name) ?? null,
    /** Stores a text; an empty one is removed. */
    set: (name, text) => {
      refused.delete(name);
      if (text === "") storage?.removeItem(PREFIX + name);
      else if (!isStored(storage, PREFIX + name, text)) refused.set(name, text); // what is stored stays
    },
  };
}

function isStored(storage, name, text) {
  try {
    storage?.setItem(name, text);
    return Boolean(storage);
  } catch {
    return false; // it is full
  }
}

function orNothing(kind) {
  try {
    window[kind].getItem(PREFIX);
    return window[kind];
  } catch {
    return null;
  }
}

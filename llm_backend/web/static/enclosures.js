// What goes with the next message, shown above its field until it is sent.

export class Enclosures {
  #element;
  #items = [];
  #draw;
  #adding = Promise.resolve(); // of the latest item: they keep their order

  /** `draw` returns the element of an item, by its number from 1, and the function that removes it. */
  constructor(element, draw) {
    this.#element = element;
    this.#draw = draw;
  }

  /** Adds the item that `read` returns, after those that are being added. */
  async add(read) {
    const before = this.#adding,
      added = (async () => {
        await before;
        this.show([...this.#items, await read()]);
      })();
    this.#adding = added.catch(() => {}); // reported to the caller
    await added;
  }

  /** Waits until all items are added. */
  settle() {
    return this.#adding;
  }

  get isEmpty() {
    return this.#items.length === 0;
  }

  /** Returns the items, and removes them. */
  take() {
    const taken = this.#items;
    this.show([]);
    return taken;
  }

  /** Shows these items and no others. */
  show(items) {
    this.#items = [...items];
    this.#element.hidden = items.length === 0;
    this.#element.replaceChildren(
      ...this.#items.map((item, index) =>
        this.#draw(item, index + 1, () => this.show(this.#items.filter((_, other) => other !== index))),
      ),
    );
  }
}

/** The bytes of a file as a data: URL. */
export async function toDataUrl(blob) {
  const reader = new FileReader();
  const done = new Promise((resolve, reject) => {
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
  });
  reader.readAsDataURL(blob);
  return done;
}

// A drawing of something that grows, drawn at most once in an interval.

const INTERVAL_MS = 60; // looks fluent, and leaves the CPU to the model

export class ThrottledRenderer {
  #draw;
  #latest = null;
  #timer = null;

  /** `draw` draws a value. */
  constructor(draw) {
    this.#draw = draw;
  }

  /** Draws a value soon, unless a later one replaces it before. */
  update(value) {
    this.#latest = value;
    this.#timer ??= setTimeout(() => {
      this.#timer = null;
      this.#draw(this.#latest);
    }, INTERVAL_MS);
  }

  /** Draws nothing more. */
  stop() {
    clearTimeout(this.#timer);
  }
}

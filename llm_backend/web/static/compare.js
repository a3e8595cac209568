// Two models side by side: one question to both, their answers as they come. Nothing is stored.

import { ConnectionLost, events } from "./api.js";
import { byId, make } from "./dom.js";
import { language, t } from "./language.js";
import { Markdown } from "./markdown.js";
import { newAnswer, take } from "./messages.js";

const PATH = "v1/chat/completions";
const DRAWN_EVERY_MS = 60;
const SIDES = [t("First model"), t("Second model")];

const count = new Intl.NumberFormat(language);
const seconds = new Intl.NumberFormat(language, { maximumFractionDigits: 2 });

export class ComparePage {
  #place = byId("compare-view");
  #options;
  #sides = [];
  #running = 0;

  /** `options` tell the models and the parameters. */
  constructor(options) {
    this.#options = options;
  }

  /** Shows the page; what was compared before stays. */
  async open() {
    if (!this.#options.isLoaded) await this.#options.loadModels();
    const { names, model } = this.#options;
    if (!this.#sides.length) this.#build();
    const chosen = [model, names.find((name) => name !== model) ?? model];
    this.#sides.forEach((side, place) => side.offer(names, chosen[place]));
    this.question.focus();
  }

  /** Ends the answers that are being written. */
  close() {
    for (const side of this.#sides) side.stop();
  }

  #build() {
    this.#sides = SIDES.map((name) => new Side(name));
    this.question = make("textarea", {
      rows: 2,
      required: true,
      "aria-label": t("Question to both models"),
      placeholder: t("Question to both models"),
      onkeydown: (event) => {
        if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
        event.preventDefault();
        this.#submit();
      },
    });
    this.button = make("button", { className: "ask" }, t("Ask both"));
    this.failure = make("p", { className: "notice", role: "alert", hidden: true });
    const anew = make("button", { type: "button", className: "quiet", onclick: () => this.#empty() }, t("New"));
    const onsubmit = (event) => {
      event.preventDefault();
      this.#submit();
    };
    this.#place.replaceChildren(
      make("header", {}, make("h1", {}, t("Compare"))),
      make("p", { className: "lead" }, t("Both models get the same questions, each with its own answers before. Nothing is stored.")),
      make("form", { className: "compare-form", onsubmit }, this.question, make("div", { className: "row" }, anew, this.button)),
      this.failure,
      make("div", { className: "compare" }, ...this.#sides.map(({ element }) => element)),
    );
  }

  #empty() {
    this.close();
    for (const side of this.#sides) side.empty();
    this.question.focus();
  }

  #submit() {
    if (this.#running) return this.close();
    const text = this.question.value.trim();
    if (!text) return;
    let how;
    try {
      how = { parameters: this.#options.parameters, system: this.#options.system };
    } catch (error) {
      this.#tellFailure(error.message); // a parameter that cannot be: the question stays
      return;
    }
    this.#tellFailure("");
    this.question.value = "";
    for (const side of this.#sides) this.#ask(side, text, how);
  }

  #tellFailure(message) {
    this.failure.textContent = message;
    this.failure.hidden = message === "";
  }

  async #ask(side, text, how) {
    this.#running += 1;
    this.#tell();
    try {
      await side.ask(text, how);
    } finally {
      this.#running -= 1;
      this.#tell();
    }
  }

  #tell() {
    this.button.textContent = this.#running ? t("Stop") : t("Ask both");
  }
}

/** One model and its answers. */
class Side {
  #models;
  #answers = make("div", { className: "answers" });
  #messages = [];
  #ending = null;

  constructor(name) {
    this.#models = make("select", { "aria-label": name });
    this.element = make("section", { "aria-label": name }, this.#models, this.#answers);
  }

  /** Offers models; one that is chosen stays chosen. */
  offer(names, first) {
    const before = this.#models.value;
    this.#models.replaceChildren(...names.map((name) => make("option", { value: name }, name)));
    this.#models.value = names.includes(before) ? before : first;
  }

  stop() {
    this.#ending?.abort();
  }

  empty() {
    this.#messages = [];
    this.#answers.replaceChildren();
  }

  /** Asks the model, and draws its answer; a failure is told below it. */
  async ask(text, { parameters, system }) {
    const messages = this.#messages,
      answer = newAnswer(),
      view = new AnswerView(text, this.#models.value);
    const { signal } = (this.#ending = new AbortController());
    this.#answers.append(view.element);
    messages.push({ role: "user", content: text });
    const body = {
      model: this.#models.value,
      messages: system ? [{ role: "system", content: system }, ...messages] : messages,
      stream: true,
      stream_options: { include_usage: true },
      store: false,
      ...parameters,
    };
    try {
      for await (const chunk of events(PATH, { method: "POST", body, signal })) {
        if (chunk.usage) answer.usage = chunk.usage;
        for (const choice of chunk.choices ?? []) take(answer, choice);
        view.grow(answer);
      }
    } catch (error) {
      if (!signal.aborted) view.tell(error.message);
      if (!signal.aborted && error.status === undefined && !(error instanceof ConnectionLost)) reportError(error);
    }
    view.end(answer);
    if (answer.content) messages.push({ role: "assistant", content: answer.content });
    else messages.pop(); // a question that got no answer is not asked again with the next one
  }
}

class AnswerView {
  #markdown;
  #body = make("div", { className: "prose" });
  #thoughts = make("p", { className: "hint", hidden: true });
  #facts = make("p", { className: "hint", role: "status" });
  #failure = make("p", { className: "notice", role: "alert", hidden: true });
  #began = performance.now();
  #firstAfter = null;
  #timer = null;
  #latest = null;

  constructor(question, model) {
    this.#markdown = new Markdown(this.#body);
    this.element = make(
      "article",
      { "aria-label": t("Answer of {model}", { model }), "aria-busy": "true" },
      make("h2", {}, question),
      this.#thoughts,
      this.#body,
      this.#failure,
      this.#facts,
    );
  }

  grow(answer) {
    this.#latest = answer;
    if (answer.content || answer.reasoning) this.#firstAfter ??= performance.now() - this.#began;
    this.#timer ??= setTimeout(() => this.#draw(), DRAWN_EVERY_MS);
  }

  tell(message) {
    this.#failure.textContent = message;
    this.#failure.hidden = false;
  }

  end(answer) {
    this.#latest = answer;
    clearTimeout(this.#timer);
    this.#draw();
    this.element.removeAttribute("aria-busy");
    if (this.#firstAfter === null) return;
    const tokens = answer.usage?.completion_tokens;
    const values = {
      all: seconds.format((performance.now() - this.#began) / 1000),
      first: seconds.format(this.#firstAfter / 1000),
    };
    this.#facts.textContent = tokens
      ? t("{tokens} tokens in {all} s, the first after {first} s.", { tokens: count.format(tokens), ...values })
      : t("{all} s, the first word after {first} s.", values);
  }

  #draw() {
    this.#timer = null;
    const { content, reasoning } = this.#latest;
    this.#thoughts.hidden = !reasoning || Boolean(content);
    if (reasoning && !content) this.#thoughts.textContent = t("The model thinks.");
    this.#markdown.draw(content);
  }
}

// Two models side by side: each question goes to both. Nothing is stored.

import { ConnectionLost, streamEvents } from "./api.js";
import { byId, make } from "./dom.js";
import { GradualDrawing } from "./gradual_drawing.js";
import { formatCount, language, t } from "./language.js";
import { Markdown } from "./markdown.js";
import { applyChunk, newAnswer } from "./messages.js";

const PATH = "v1/chat/completions";
const SIDES = [t("First model"), t("Second model")];

const seconds = new Intl.NumberFormat(language, { maximumFractionDigits: 2 });

export class ComparePage {
  #element = byId("compare-view");
  #options;
  #question;
  #button;
  #failure;
  #sides = [];
  #runningCount = 0;

  /** `options` have the models and the parameters. */
  constructor(options) {
    this.#options = options;
  }

  /** Shows the page, with the answers of before. */
  async open() {
    if (!this.#options.isLoaded) await this.#options.loadModels();
    const { names, model } = this.#options;
    if (!this.#sides.length) this.#build();
    const chosen = [model, names.find((name) => name !== model) ?? model];
    this.#sides.forEach((side, index) => side.offer(names, chosen[index]));
    this.#question.focus();
  }

  /** Ends the answers in progress. */
  close() {
    for (const side of this.#sides) side.stop();
  }

  #build() {
    this.#sides = SIDES.map((name) => new Side(name));
    this.#question = make("textarea", {
      rows: 2,
      required: true,
      "aria-label": t("Question to both models"),
      placeholder: t("Question to both models"),
      onkeydown: (event) => {
        if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
        event.preventDefault();
        if (!this.#runningCount) this.#submit(); // only the button stops
      },
    });
    this.#button = make("button", { className: "ask" }, t("Ask both"));
    this.#failure = make("p", { className: "notice", role: "alert", hidden: true });
    const clear = make("button", { type: "button", className: "quiet", onclick: () => this.#clear() }, t("New"));
    const onsubmit = (event) => {
      event.preventDefault();
      this.#submit();
    };
    this.#element.replaceChildren(
      make("header", {}, make("h1", {}, t("Compare"))),
      make("p", { className: "lead" }, t("Both models get the same questions, each with its own answers before. Nothing is stored.")),
      make("form", { className: "compare-form", onsubmit }, this.#question, make("div", { className: "row" }, clear, this.#button)),
      this.#failure,
      make("div", { className: "compare" }, ...this.#sides.map(({ element }) => element)),
    );
  }

  #clear() {
    this.close();
    for (const side of this.#sides) side.clear();
    this.#question.focus();
  }

  #submit() {
    if (this.#runningCount) return this.close();
    const text = this.#question.value.trim();
    if (!text) return;
    let options;
    try {
      options = { parameters: this.#options.parameters, system: this.#options.system };
    } catch (error) {
      this.#showFailure(error.message); // a parameter that cannot be: the question stays
      return;
    }
    this.#showFailure("");
    this.#question.value = "";
    for (const side of this.#sides) this.#ask(side, text, options);
  }

  #showFailure(message) {
    this.#failure.textContent = message;
    this.#failure.hidden = message === "";
  }

  async #ask(side, text, options) {
    this.#runningCount += 1;
    this.#showState();
    try {
      await side.ask(text, options);
    } finally {
      this.#runningCount -= 1;
      this.#showState();
    }
  }

  #showState() {
    this.#button.textContent = this.#runningCount ? t("Stop") : t("Ask both");
    this.#button.formNoValidate = this.#runningCount > 0; // the field may be empty
  }
}

/** One model and its answers. */
class Side {
  #models;
  #answers = make("div", { className: "answers" });
  #messages = [];
  #controller = null;

  constructor(name) {
    this.#models = make("select", { "aria-label": name });
    this.element = make("section", { "aria-label": name }, this.#models, this.#answers);
  }

  /** Offers models; the chosen one stays chosen. */
  offer(names, fallback) {
    const chosen = this.#models.value;
    this.#models.replaceChildren(...names.map((name) => make("option", { value: name }, name)));
    this.#models.value = names.includes(chosen) ? chosen : fallback;
  }

  stop() {
    this.#controller?.abort();
  }

  clear() {
    this.#messages = [];
    this.#answers.replaceChildren();
  }

  /** Asks the model, and draws its answer, with a failure below it. */
  async ask(text, { parameters, system }) {
    const messages = this.#messages,
      answer = newAnswer(),
      view = new ComparedAnswer(text, this.#models.value);
    const { signal } = (this.#controller = new AbortController());
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
      for await (const chunk of streamEvents(PATH, { method: "POST", body, signal })) {
        applyChunk(answer, chunk);
        view.update(answer);
      }
    } catch (error) {
      if (!signal.aborted) view.showError(error.message);
      if (!signal.aborted && error.status === undefined && !(error instanceof ConnectionLost)) reportError(error);
    }
    view.finish(answer);
    if (answer.content) messages.push({ role: "assistant", content: answer.content });
    else messages.pop(); // a question that got no answer is not asked again with the next one
  }
}

class ComparedAnswer {
  #markdown;
  #body = make("div", { className: "prose" });
  #reasoning = make("p", { className: "hint", hidden: true });
  #figures = make("p", { className: "hint", role: "status" });
  #failure = make("p", { className: "notice", role: "alert", hidden: true });
  #startedAt = performance.now();
  #firstAfterMs = null;
  #drawing = new GradualDrawing((answer) => this.#draw(answer));

  constructor(question, model) {
    this.#markdown = new Markdown(this.#body);
    this.element = make(
      "article",
      { "aria-label": t("Answer of {model}", { model }), "aria-busy": "true" },
      make("h2", {}, question),
      this.#reasoning,
      this.#body,
      this.#failure,
      this.#figures,
    );
  }

  update(answer) {
    if (answer.content || answer.reasoning) this.#firstAfterMs ??= performance.now() - this.#startedAt;
    this.#drawing.update(answer);
  }

  showError(message) {
    this.#failure.textContent = message;
    this.#failure.hidden = false;
  }

  finish(answer) {
    this.#drawing.stop();
    this.#draw(answer);
    this.element.removeAttribute("aria-busy");
    if (this.#firstAfterMs === null) return;
    const tokens = answer.usage?.completion_tokens;
    const values = {
      all: seconds.format((performance.now() - this.#startedAt) / 1000),
      first: seconds.format(this.#firstAfterMs / 1000),
    };
    this.#figures.textContent = tokens
      ? t("{tokens} tokens in {all} s, the first after {first} s.", { tokens: formatCount(tokens), ...values })
      : t("{all} s, the first word after {first} s.", values);
  }

  #draw({ content, reasoning }) {
    this.#reasoning.hidden = !reasoning || Boolean(content);
    if (reasoning && !content) this.#reasoning.textContent = t("The model thinks.");
    this.#markdown.draw(content);
  }
}

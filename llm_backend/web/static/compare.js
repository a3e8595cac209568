// Two models side by side: each question goes to both. Nothing is stored.

import { silenceOf } from "./answer_failures.js";
import { RequestError, streamEvents } from "./api.js";
import { byId, make } from "./dom.js";
import { ThrottledRenderer } from "./throttled_renderer.js";
import { formatCount, language, t } from "./language.js";
import { Markdown } from "./markdown.js";
import { applyChunk, isEmpty, newAnswer } from "./messages.js";
import { Notice } from "./notice.js";
import { Turn } from "./turn.js";

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
    const first = names.includes(model) ? model : names[0]; // the chosen one may draw
    const chosen = [first, names.find((name) => name !== first) ?? first];
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
    const failure = noticeElement();
    this.#failure = new Notice({ element: failure, field: this.#question });
    const clear = make("button", { type: "button", className: "quiet", onclick: () => this.#clear() }, t("New"));
    const onsubmit = (event) => {
      event.preventDefault();
      this.#submit();
    };
    this.#element.replaceChildren(
      make("header", {}, make("h1", {}, t("Compare"))),
      make("p", { className: "lead" }, t("Both models get the same questions; each sees only its own earlier answers. Nothing is stored.")),
      make("form", { className: "compare-form", onsubmit }, this.#question, make("div", { className: "row" }, clear, this.#button)),
      failure,
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
      this.#failure.show(error.message); // a parameter that cannot be: the question stays
      return;
    }
    this.#failure.hide();
    this.#question.value = "";
    for (const side of this.#sides) this.#ask(side, text, options);
  }

  async #ask(side, text, options) {
    this.#runningCount += 1;
    this.#showState();
    try {
      await side.ask(text, { ...options, field: this.#question, onRetry: () => this.#ask(side, text, options) });
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
  #turn = null;
  #latest = null; // the view of its latest answer

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
    this.#turn?.stop();
  }

  clear() {
    this.#messages = [];
    this.#answers.replaceChildren();
  }

  /** Asks the model, and draws its answer, with a failure below it. The button of the failure calls
   *  `onRetry`, as long as no other question is asked, and then `field` has the focus. */
  async ask(text, { parameters, system, field, onRetry }) {
    const messages = this.#messages,
      countBefore = messages.length,
      answer = newAnswer(),
      view = new ComparedAnswer(text, this.#models.value, field);
    const turn = (this.#turn = new Turn({ onSilence: () => view.notice.showMild(silenceOf(answer)) }));
    this.#latest?.notice.hide();
    this.#latest = view;
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
    let failure = null;
    try {
      for await (const chunk of streamEvents(PATH, { method: "POST", body, signal: turn.signal })) {
        turn.noteEvent();
        view.notice.hideMild();
        applyChunk(answer, chunk);
        view.update(answer);
      }
      if (isEmpty(answer)) failure = new RequestError(0, t("The model answered nothing."));
    } catch (error) {
      failure = error;
    }
    turn.end();
    view.finish(answer);
    if (answer.content) messages.push({ role: "assistant", content: answer.content });
    else messages.pop(); // a question that got no answer is not asked again with the next one
    if (failure === null || turn.isStopped) return;
    const retry = () => {
      view.element.remove();
      messages.length = countBefore;
      onRetry();
    };
    view.notice.show(failure.message, failure.isRefused ? [] : [[t("Try again"), retry]]);
    if (failure.status === undefined) reportError(failure); // a bug of the page
  }
}

const noticeElement = () => make("div", { className: "notice", role: "alert", hidden: true });

class ComparedAnswer {
  #markdown;
  #body = make("div", { className: "prose" });
  #reasoning = make("p", { className: "hint", hidden: true });
  #figures = make("p", { className: "hint", role: "status" });
  #startedAt = performance.now();
  #firstAfterMs = null;
  #drawing = new ThrottledRenderer((answer) => this.#draw(answer));

  /** `field` gets the focus of the notice's button. */
  constructor(question, model, field) {
    const notice = noticeElement();
    this.notice = new Notice({ element: notice, field });
    this.#markdown = new Markdown(this.#body);
    this.element = make(
      "article",
      { "aria-label": t("Answer of {model}", { model }), "aria-busy": "true" },
      make("h2", {}, question),
      this.#reasoning,
      this.#body,
      notice,
      this.#figures,
    );
  }

  update(answer) {
    if (answer.content || answer.reasoning) this.#firstAfterMs ??= performance.now() - this.#startedAt;
    this.#drawing.update(answer);
  }

  finish(answer) {
    this.notice.hideMild();
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

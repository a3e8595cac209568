// Messages of a conversation on the page, and an answer in progress.

import { byId, icon, iconButton, make } from "./dom.js";
import { t } from "./language.js";
import { Markdown, copyButton } from "./markdown.js";
import { question } from "./question.js";

const RENDER_INTERVAL_MS = 60; // looks fluent, and leaves the CPU to the model
const NEAR_PX = 120; // a reader no further from the end follows it
const FAR_PX = 240; // a reader further away gets a button to the end

export class Transcript {
  #place = byId("transcript");
  #scroller = byId("scroller");
  #endButton = byId("to-end");

  constructor() {
    this.#scroller.addEventListener("scroll", () => this.#offerEnd(), { passive: true });
    this.#endButton.addEventListener("click", () => {
      this.toEnd();
      byId("prompt").focus({ preventScroll: true });
    });
  }

  /** Shows these messages and no others; `onEdit` gets a question's place and what to ask instead,
   *  `onTurn` a place and the step to the variant beside, of which `variantAt` tells. */
  show(messages, { onEdit, variantAt, onTurn }) {
    this.#place.replaceChildren();
    messages.forEach((message, place) => {
      if (message.role === "tool") this.#place.append(toolResult(message));
      else if (message.role !== "user") this.addAnswer().end(message);
      else if (message.hasMore) this.addQuestion(message);
      else this.addQuestion(message, (text) => onEdit(place, text));
      const name = message.role === "user" ? "question" : "answer",
        variants = variantsOf(name, variantAt(place), (step) => onTurn(place, step));
      if (variants) this.#place.lastChild.append(variants);
    });
    this.toEnd();
  }

  addQuestion(message, onEdit) {
    this.#place.append(question(message, onEdit));
    this.toEnd();
  }

  addAnswer() {
    const answer = new AnswerView(this);
    this.#place.append(answer.element);
    this.toEnd();
    return answer;
  }

  /** Shows an answer in progress again, below the other messages. */
  resume(answer) {
    this.#place.append(answer.element);
    this.toEnd();
  }

  removeLastAnswer() {
    this.#place.querySelector("article:last-child.answer")?.remove();
  }

  removeLastQuestion() {
    this.#place.querySelector("article:last-child.question")?.remove();
  }

  /** Puts the buttons that ask again, and for more of a cut answer, under the last answer only. */
  offerMore({ onAgain, onGoOn }) {
    for (const button of this.#place.querySelectorAll("[data-more]")) button.remove();
    const tools = this.#place.querySelector("article:last-child.answer .tools");
    if (!tools) return;
    const again = iconButton("again", t("Answer again"), onAgain),
      goOn = make("button", { type: "button", className: "link", onclick: onGoOn }, t("Go on"));
    for (const one of onGoOn ? [again, goOn] : [again]) {
      one.dataset.more = "";
      tools.append(one);
    }
  }

  /** Puts a question to the reader under the last answer. */
  askBelow(element) {
    this.#place.querySelector(".approval")?.remove();
    this.#place.querySelector("article:last-child.answer .tools")?.before(element);
    this.toEnd();
  }

  /** Keeps the keyboard at the button that was pressed, or at its neighbour if it is at an end. */
  focusVariant(place, step) {
    const buttons = [...this.#place.children[place].querySelectorAll(".variants button")];
    for (const button of step < 0 ? buttons : buttons.reverse())
      if (!button.disabled) return button.focus();
  }

  /** Shows the end. */
  toEnd() {
    this.#scroller.scrollTop = this.#scroller.scrollHeight;
    this.#offerEnd();
  }

  /** Renders more text; a reader at the end stays at the end. */
  keepEnd(draw) {
    const wasNear = this.#beyond() < NEAR_PX;
    draw();
    if (wasNear) this.toEnd();
    else this.#offerEnd();
  }

  /** How far below what is seen the end is, in pixels. */
  #beyond() {
    const { scrollHeight, scrollTop, clientHeight } = this.#scroller;
    return scrollHeight - scrollTop - clientHeight;
  }

  #offerEnd() {
    this.#endButton.hidden = this.#beyond() < FAR_PX;
  }
}

/** Buttons to the messages before and behind this one, where there are several; else nothing. */
function variantsOf(name, { place, count }, onTurn) {
  if (count < 2) return null;
  const before = iconButton("back", t(`Earlier ${name}`), () => onTurn(-1)),
    behind = iconButton("forth", t(`Later ${name}`), () => onTurn(1));
  before.disabled = place === 0;
  behind.disabled = place === count - 1;
  const told = make("span", { className: "place" }, t("{place} of {count}", { place: place + 1, count }));
  return make("div", { className: "variants" }, before, told, behind);
}

class AnswerView {
  #transcript;
  #markdown;
  #thoughts = null;
  #calls = make("div", {});
  #announced = 0;
  #latest = null;
  #timer = null;

  constructor(transcript) {
    this.#transcript = transcript;
    this.body = make("div", { className: "prose" });
    this.tools = make("div", { className: "tools" });
    this.element = make(
      "article",
      { className: "answer is-growing", "aria-label": t("The model"), "aria-busy": "true" },
      this.body,
      this.#calls,
      this.tools,
    );
    this.#markdown = new Markdown(this.body);
  }

  /** Draws what there is, soon. */
  grow(answer) {
    this.#latest = answer;
    this.#timer ??= setTimeout(() => {
      this.#draw();
      this.announce();
    }, RENDER_INTERVAL_MS);
  }

  /** Draws the end of it. */
  end(answer) {
    this.#latest = answer;
    clearTimeout(this.#timer);
    this.#draw();
    this.element.classList.remove("is-growing");
    this.element.removeAttribute("aria-busy");
    if (answer.isCut) this.note(t("Cut short"));
    if (answer.retrieval) this.#tellRetrieval(answer.retrieval);
    if (navigator.clipboard && answer.content)
      this.tools.append(copyButton(t("Copy the answer"), () => answer.content));
  }

  /** Says something about the answer that is not part of it. */
  note(text) {
    this.tools.append(make("span", { className: "cut" }, text));
  }

  /** Announces new text to screen readers; whole blocks while the answer grows. */
  announce() {
    const blocks = this.element.classList.contains("is-growing")
      ? this.#markdown.settled
      : this.#markdown.all;
    for (const text of blocks.slice(this.#announced)) byId("announcer").append(make("p", {}, text));
    this.#announced = blocks.length;
  }

  #draw() {
    this.#timer = null;
    const { content, reasoning, calls = [] } = this.#latest;
    this.#transcript.keepEnd(() => {
      if (reasoning) this.#think(reasoning);
      if (calls.length) this.#showCalls(calls);
      this.#markdown.draw(content);
    });
  }

  /** What was found in the files, or that and why nothing was. */
  #tellRetrieval({ status, results, error }) {
    if (status === "found") this.tools.before(sourcesOf(results));
    else
      this.note(
        status === "failed"
          ? t("Answered without the files: {error}", { error })
          : t("Nothing was found in the files"),
      );
  }

  /** The calls of tools; those that are open stay so while they grow. */
  #showCalls(calls) {
    for (const [place, { name, text }] of calls.entries()) {
      if (!this.#calls.children[place]) this.#calls.append(folded("code", "", make("pre", {})));
      const [summary, pre] = this.#calls.children[place].children;
      summary.lastChild.textContent = t("Call of {name}", { name });
      pre.textContent = text;
    }
  }

  #think(reasoning) {
    if (this.#thoughts === null) {
      this.#thoughts = make("p", {});
      this.body.before(folded("pulse", t("Thoughts"), this.#thoughts));
    }
    this.#thoughts.textContent = reasoning;
  }
}

const folded = (symbol, title, ...content) =>
  make(
    "details",
    { className: "thoughts" },
    make("summary", {}, icon(symbol), make("span", {}, title)),
    ...content,
  );

const toolResult = ({ content }) =>
  make(
    "article",
    { className: "answer", "aria-label": t("The tool") },
    folded("code", t("Result of the call"), make("pre", {}, content)),
  );

function sourcesOf(sources) {
  const passages = sources.map(({ filename, text }) =>
    make("li", {}, make("strong", {}, filename), make("p", {}, text)),
  );
  const title =
    sources.length === 1
      ? t("Read 1 passage of the files")
      : t("Read {count} passages of the files", { count: sources.length });
  return make(
    "details",
    { className: "thoughts sources" },
    make("summary", {}, icon("file"), title),
    make("ol", {}, ...passages),
  );
}

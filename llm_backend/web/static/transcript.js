// The messages of a conversation on the page, and an answer in progress.

import { loadModule } from "./api.js";
import { copyButton } from "./copy_button.js";
import { announce, byId, icon, iconButton, make } from "./dom.js";
import { DrawnImage, isDrawn } from "./drawn_images.js";
import { ThrottledRenderer } from "./throttled_renderer.js";
import { t } from "./language.js";
import { ERROR_PREFIX, REFUSED } from "./messages.js";
import { editOf, question, resumeEdit } from "./question.js";
import { speakButton } from "./voice.js";

const NEAR_PX = 120; // a reader no further from the end follows it
const FAR_PX = 240; // a reader further away gets a button to the end
const QUESTIONS = { earlier: t("Earlier question"), later: t("Later question") };
const ANSWERS = { earlier: t("Earlier answer"), later: t("Later answer") };

let Markdown = null;

/** Loads what draws answers, before a chat with answers is shown. It comes after the rest of the page,
 *  which is ready without it. Throws `ConnectionLost`. */
export async function loadMarkdown() {
  ({ Markdown } = await loadModule(() => import("./markdown.js")));
}

export class Transcript {
  #element = byId("transcript");
  #scroller = byId("scroller");
  #endButton = byId("to-end");

  constructor() {
    this.#scroller.addEventListener("scroll", () => this.#offerEnd(), { passive: true });
    this.#endButton.addEventListener("click", () => {
      this.scrollToEnd();
      byId("prompt").focus({ preventScroll: true });
    });
  }

  /** The messages that are being edited: pairs of an index and what `resumeEdits` takes. */
  get edits() {
    return [...this.#element.children].map((one, index) => [index, editOf(one)]).filter(([, one]) => one);
  }

  /** Goes on with the editing of messages that are drawn anew. */
  resumeEdits(edits) {
    for (const [index, edit] of edits) {
      const article = this.#element.children[index];
      if (article) resumeEdit(article, edit);
    }
  }

  /** Shows these messages and no others. `onEdit` gets the index of a question and its edited text,
   *  `onStep` an index and the step (-1 or 1) to another variant; `variantAt` returns the number of an
   *  index's variant and their count. */
  show(messages, { onEdit, variantAt, onStep }) {
    this.#element.replaceChildren();
    messages.forEach((message, index) => {
      if (message.role === "tool") this.#element.append(toolResult(message));
      else if (message.role !== "user") this.addAnswer().finish(message);
      else if (message.hasMore) this.addQuestion(message);
      else this.addQuestion(message, (text) => onEdit(index, text));
      const names = message.role === "user" ? QUESTIONS : ANSWERS,
        variants = variantButtons(names, variantAt(index), (step) => onStep(index, step));
      if (variants) this.#element.lastChild.append(variants);
    });
    if (messages.length) this.scrollToEnd();
    else this.#endButton.hidden = true;
  }

  addQuestion(message, onEdit) {
    this.#element.append(question(message, onEdit));
    this.scrollToEnd();
  }

  addAnswer() {
    const answer = new AnswerView(this);
    this.#element.append(answer.element);
    this.scrollToEnd();
    return answer;
  }

  /** Shows an answer in progress again, below the other messages. */
  resume(answer) {
    this.#element.append(answer.element);
    this.scrollToEnd();
  }

  removeLastAnswer() {
    this.#element.querySelector("article:last-child.answer")?.remove();
  }

  removeLastQuestion() {
    this.#element.querySelector("article:last-child.question")?.remove();
  }

  /** Puts the buttons that regenerate and continue under the last answer only; without `onContinue`
   *  the answer cannot be continued. */
  offerContinuation({ onRegenerate, onContinue }) {
    for (const button of this.#element.querySelectorAll("[data-more]")) button.remove();
    const tools = this.#element.querySelector("article:last-child.answer .tools");
    if (!tools) return;
    const again = iconButton("again", t("Answer again"), onRegenerate),
      more = make("button", { type: "button", className: "link", onclick: onContinue }, t("Go on"));
    for (const one of onContinue ? [again, more] : [again]) {
      one.dataset.more = "";
      tools.append(one);
    }
  }

  /** Puts the question whether calls may be made under the last answer, and opens what they send. It is
   *  announced, but gets no focus: the next key of a message that is being written would decide it. */
  showApproval(element) {
    this.removeApproval();
    const answer = this.#element.querySelector("article:last-child.answer");
    for (const call of answer?.querySelectorAll(".calls > details") ?? []) call.open = true;
    answer?.querySelector(".tools").before(element);
    announce(element.querySelector("p").textContent);
    this.scrollToEnd();
  }

  removeApproval() {
    this.#element.querySelector(".approval")?.remove();
  }

  /** Focuses the button of a step again, or its neighbour if there is no further variant. */
  focusVariant(index, step) {
    const buttons = [...this.#element.children[index].querySelectorAll(".variants button")];
    for (const button of step < 0 ? buttons : buttons.reverse())
      if (!button.disabled) return button.focus();
  }

  scrollToEnd() {
    this.#scroller.scrollTop = this.#scroller.scrollHeight;
    this.#offerEnd();
  }

  /** Calls a function that adds text to an element; a reader at the end stays at the end. */
  drawKeepingEnd(element, draw) {
    if (!element.isConnected) return draw(); // another chat is shown
    const wasNear = this.#distanceFromEnd() < NEAR_PX;
    draw();
    if (wasNear) this.scrollToEnd();
    else this.#offerEnd();
  }

  /** The pixels between what is seen and the end. */
  #distanceFromEnd() {
    const { scrollHeight, scrollTop, clientHeight } = this.#scroller;
    return scrollHeight - scrollTop - clientHeight;
  }

  #offerEnd() {
    this.#endButton.hidden = this.#distanceFromEnd() < FAR_PX;
  }
}

/** Buttons to the variants before and after the one of this number; null if it is the only one. */
function variantButtons({ earlier, later }, { number, count }, onStep) {
  if (count < 2) return null;
  const before = iconButton("back", earlier, () => onStep(-1)),
    after = iconButton("forth", later, () => onStep(1));
  before.disabled = number === 1;
  after.disabled = number === count;
  const position = make("span", { className: "position" }, t("{place} of {count}", { place: number, count }));
  return make("div", { className: "variants" }, before, position, after);
}

class AnswerView {
  #transcript;
  #markdown;
  #reasoning = null;
  #body = make("div", { className: "prose" });
  #calls = make("div", { className: "calls" });
  #tools = make("div", { className: "tools" });
  #announced = 0;
  #image = null; // of an answer that is drawn
  #drawing = new ThrottledRenderer((answer) => {
    this.#draw(answer);
    this.announce();
  });

  constructor(transcript) {
    this.#transcript = transcript;
    this.element = make(
      "article",
      { className: "answer is-growing", "aria-label": t("The model"), "aria-busy": "true" },
      this.#body,
      this.#calls,
      this.#tools,
    );
    this.#markdown = new Markdown(this.#body);
  }

  /** Draws the answer as far as it has come, within the render interval. */
  update(answer) {
    this.#drawing.update(answer);
  }

  /** Draws the whole answer and its buttons. */
  finish(answer) {
    this.#drawing.stop();
    this.element.classList.remove("is-growing");
    this.element.removeAttribute("aria-busy");
    this.#draw(answer);
    if (answer.isCut) this.addNote(t("Cut short"));
    if (answer.retrieval) this.#showRetrieval(answer.retrieval);
    if (this.#image) {
      this.#image.finish(answer);
      return;
    }
    if (navigator.clipboard && answer.content)
      this.#tools.append(copyButton(t("Copy the answer"), () => answer.content));
    if (answer.content) this.#tools.append(speakButton(() => this.#markdown.texts().join("\n")));
  }

  /** Adds a note about the answer. */
  addNote(text) {
    this.#tools.append(make("span", { className: "note" }, text));
  }

  /** Announces new text to screen readers; whole blocks while the answer grows, and an image at its end. */
  announce() {
    if (this.#image) {
      if (!this.#isGrowing) this.#image.announce();
      return;
    }
    const { count } = this.#markdown,
      end = this.#isGrowing && count ? count - 1 : count;
    for (const text of this.#markdown.texts(this.#announced, end)) announce(text);
    this.#announced = end;
  }

  get #isGrowing() {
    return this.element.classList.contains("is-growing");
  }

  #draw(answer) {
    const { content, reasoning, calls = [], drawn } = answer;
    this.#transcript.drawKeepingEnd(this.element, () => {
      if (drawn || (!this.#isGrowing && isDrawn(answer))) { // more text may follow the name of an image
        this.#showImage(answer);
        return;
      }
      if (reasoning) this.#showReasoning(reasoning);
      if (calls.length) this.#showCalls(calls);
      this.#markdown.draw(content);
    });
  }

  /** Shows the passages that were found in the files, or why there are none. */
  #showRetrieval({ status, results, error }) {
    if (status === "found") this.#tools.before(sourceList(results));
    else
      this.addNote(
        status === "failed"
          ? t("Answered without the files: {error}", { error })
          : t("Nothing was found in the files"),
      );
  }

  #showImage(answer) {
    if (this.#image === null) {
      const place = (draw) => this.#transcript.drawKeepingEnd(this.element, draw);
      this.#image = new DrawnImage({ tools: this.#tools, place });
      this.#body.replaceWith(this.#image.element);
    }
    this.#image.draw(answer);
  }

  /** Shows calls of tools; one that the reader opened stays open while it grows. */
  #showCalls(calls) {
    for (const [index, { name, text }] of calls.entries()) {
      if (!this.#calls.children[index]) this.#calls.append(collapsible("code", "", make("pre", {})));
      const [summary, pre] = this.#calls.children[index].children;
      summary.lastChild.textContent = t("Call of {name}", { name });
      pre.textContent = text;
    }
  }

  #showReasoning(reasoning) {
    if (this.#reasoning === null) {
      this.#reasoning = make("p", {});
      this.#body.before(collapsible("pulse", t("Thoughts"), this.#reasoning));
    }
    this.#reasoning.textContent = reasoning;
  }
}

const collapsible = (symbol, title, ...content) =>
  make(
    "details",
    { className: "collapsible" },
    make("summary", {}, icon(symbol), make("span", {}, title)),
    ...content,
  );

const toolResult = ({ content }) =>
  make(
    "article",
    { className: "answer", "aria-label": t("The tool") },
    collapsible("code", resultTitle(content), make("pre", {}, content)),
  );

function resultTitle(content) {
  if (content === REFUSED) return t("The call was refused");
  return content.startsWith(ERROR_PREFIX) ? t("The call failed") : t("Result of the call");
}

function sourceList(sources) {
  const passages = sources.map(({ filename, text }) =>
    make("li", {}, make("strong", {}, filename), make("p", {}, text)),
  );
  const title =
    sources.length === 1
      ? t("Read 1 passage of the files")
      : t("Read {count} passages of the files", { count: sources.length });
  return make(
    "details",
    { className: "collapsible sources" },
    make("summary", {}, icon("file"), title),
    make("ol", {}, ...passages),
  );
}

// The messages of a conversation on the page, and an answer that grows.

import { byId, icon, iconButton, make } from "./dom.js";
import { Markdown, copyButton } from "./markdown.js";
import { question } from "./question.js";

const DRAWN_EVERY_MS = 60; // reads as flowing, and leaves the processor to the model

export class Transcript {
  #place = byId("transcript");
  #scroller = byId("scroller");

  /** Shows these messages and no others; `onEdit` gets a question's place and what to ask instead. */
  show(messages, { onAgain, onEdit }) {
    this.#place.replaceChildren();
    messages.forEach((message, place) => {
      if (message.role !== "user") this.addAnswer().end(message);
      else if (message.hasMore) this.addQuestion(message);
      else this.addQuestion(message, (text) => onEdit(place, text));
    });
    this.offerAgain(onAgain);
    this.#scroller.scrollTop = this.#scroller.scrollHeight;
  }

  addQuestion(message, onEdit) {
    this.#place.append(question(message, onEdit));
    this.follow(true);
  }

  addAnswer() {
    const answer = new AnswerView(this);
    this.#place.append(answer.element);
    this.follow(true);
    return answer;
  }

  removeLastAnswer() {
    this.#place.querySelector("article:last-child.answer")?.remove();
  }

  removeLastQuestion() {
    this.#place.querySelector("article:last-child.question")?.remove();
  }

  /** Puts the button that asks again under the last answer, and only there. */
  offerAgain(onAgain) {
    for (const button of this.#place.querySelectorAll("[data-again]")) button.remove();
    const tools = this.#place.querySelector("article:last-child.answer .tools");
    if (!tools) return;
    const button = iconButton("again", "Answer again", onAgain);
    button.dataset.again = "";
    tools.append(button);
  }

  /** Keeps the end in sight for who was looking at it. */
  follow(isForced = false) {
    const { scrollHeight, scrollTop, clientHeight } = this.#scroller;
    if (isForced || scrollHeight - scrollTop - clientHeight < 120)
      this.#scroller.scrollTop = scrollHeight;
  }
}

class AnswerView {
  #transcript;
  #markdown;
  #thoughts = null;
  #said = 0;
  #latest = null;
  #timer = null;

  constructor(transcript) {
    this.#transcript = transcript;
    this.body = make("div", { className: "prose" });
    this.tools = make("div", { className: "tools" });
    this.element = make(
      "article",
      { className: "answer is-growing", "aria-label": "The model", "aria-busy": "true" },
      this.body,
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
    }, DRAWN_EVERY_MS);
  }

  /** Draws the end of it. */
  end(answer) {
    this.#latest = answer;
    clearTimeout(this.#timer);
    this.#draw();
    this.element.classList.remove("is-growing");
    this.element.removeAttribute("aria-busy");
    if (answer.isCut) this.note("Cut short");
    if (answer.retrieval) this.#tellRetrieval(answer.retrieval);
    if (navigator.clipboard && answer.content)
      this.tools.append(copyButton("Copy the answer", () => answer.content));
  }

  /** Says something about the answer that is not part of it. */
  note(text) {
    this.tools.append(make("span", { className: "cut" }, text));
  }

  /** Speaks what has been said since it was last asked to; whole blocks while the answer grows. */
  announce() {
    const blocks = this.element.classList.contains("is-growing")
      ? this.#markdown.settled
      : this.#markdown.all;
    for (const text of blocks.slice(this.#said)) byId("announcer").append(make("p", {}, text));
    this.#said = blocks.length;
  }

  #draw() {
    this.#timer = null;
    const { content, reasoning } = this.#latest;
    if (reasoning) this.#think(reasoning);
    this.#markdown.draw(content);
    this.#transcript.follow();
  }

  /** What was found in the files, or that and why nothing was. */
  #tellRetrieval({ status, results, error }) {
    if (status === "found") this.tools.before(sourcesOf(results));
    else
      this.note(
        status === "failed"
          ? `Answered without the files: ${error}`
          : "Nothing was found in the files",
      );
  }

  #think(reasoning) {
    if (this.#thoughts === null) {
      this.#thoughts = make("p", {});
      this.body.before(
        make(
          "details",
          { className: "thoughts" },
          make("summary", {}, icon("pulse"), "Thoughts"),
          this.#thoughts,
        ),
      );
    }
    this.#thoughts.textContent = reasoning;
  }
}

function sourcesOf(sources) {
  const passages = sources.map(({ filename, text }) =>
    make("li", {}, make("strong", {}, filename), make("p", {}, text)),
  );
  const count = sources.length === 1 ? "1 passage" : `${sources.length} passages`;
  return make(
    "details",
    { className: "thoughts sources" },
    make("summary", {}, icon("file"), `Read ${count} of the files`),
    make("ol", {}, ...passages),
  );
}

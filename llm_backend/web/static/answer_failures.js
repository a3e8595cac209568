// Failures of answers, in the notice: silence, errors and empty answers, with the buttons that help.

import { isContinuable } from "./messages.js";
import { t } from "./language.js";

/** Says that no event of an answer has come for a while; the answer is null before its first one. */
export const silenceOf = (answer) =>
  answer?.content
    ? t("Nothing has come for a while. Stop keeps what was said.")
    : t("No answer yet: the model may be loading, or busy. Stop ends the wait.");

export class AnswerFailures {
  #notice;
  #errors;
  #onRegenerate;
  #onContinue;
  #onRetry;

  /** The buttons generate the last answer again, continue it, or send its question again. */
  constructor({ notice, errors, onRegenerate, onContinue, onRetry }) {
    this.#notice = notice;
    this.#errors = errors;
    this.#onRegenerate = onRegenerate;
    this.#onContinue = onContinue;
    this.#onRetry = onRetry;
  }

  /** Says that no event has come for a while, which is no failure yet. */
  showSilence(conversation) {
    this.#notice.showMild(silenceOf(conversation.lastAnswer));
  }

  /** Says that another server writes the answer, so that it does not grow here. */
  showElsewhere() {
    this.#notice.showMild(t("Another server is writing this answer. It is shown here at its end; Stop ends it."));
  }

  /** Says that a tool has not answered for a while. */
  showToolSilence() {
    this.#notice.showMild(t("The tool has not answered yet. Stop ends the wait."));
  }

  /** Says that the model answered nothing; the arguments are those of `showError`. */
  showEmpty({ lastAnswer, onRetry }) {
    this.#notice.show(t("The model answered nothing."), this.#actions({}, lastAnswer, onRetry));
  }

  /** Shows an error. `lastAnswer` is the partial answer of the failed turn, or the answer that it should
   *  have replaced; null without either. `hasAnswer` is true if the turn has left an answer. `onRetry`,
   *  if given, asks a question again that got no answer. */
  showError(error, { lastAnswer, hasAnswer, onRetry }) {
    this.#errors.show(error, this.#actions(error, lastAnswer, hasAnswer ? null : onRetry));
    if (hasAnswer && !lastAnswer.isCut)
      this.#notice.add(t("The answer is whole, but may not be stored."));
  }

  #actions({ isRefused }, lastAnswer, onRetry) {
    if (isRefused) return [];
    if (onRetry) return [[t("Try again"), onRetry]];
    const again = [t("Try again"), lastAnswer ? this.#onRegenerate : this.#onRetry];
    return isContinuable(lastAnswer) ? [[t("Go on"), this.#onContinue], again] : [again];
  }
}

// Questions and answers of the open chat: each question is sent, and its answer drawn, stopped,
// continued, generated again, or followed where the server is already writing it.

import { RequestError, loadModule } from "./api.js";
import { AnswerFailures } from "./answer_failures.js";
import { AnswerStream, listTools } from "./answer_stream.js";
import { newId, waitUntilStored } from "./conversation.js";
import { cancel, cancelRunning, findRunning } from "./detached.js";
import { byId, fitHeight } from "./dom.js";
import { t } from "./language.js";
import { isContinuable, isEmpty } from "./messages.js";
import { loadMarkdown } from "./transcript.js";
import { Turn } from "./turn.js";

export class Answers {
  #turn = null; // the answer in progress
  #returned = null; // the question that was put back into its field
  #left;
  #titles;
  #view;
  #stream;
  #failures;
  #router;
  #options;
  #images;
  #documents;
  #attachments;
  #notice;
  #errors;
  #onStored;
  #onFinished;

  /** `left` are the chats that go on while others are open, and `titles` those that chats have got here.
   *  `onStored` reloads the stored chats, until the one of an id is there if one is given. `onFinished` gets a
   *  conversation whose answer ended before it could be followed. */
  constructor({
    left,
    titles,
    view,
    router,
    options,
    images,
    documents,
    attachments,
    notice,
    errors,
    onStored,
    onFinished,
  }) {
    this.#left = left;
    this.#titles = titles;
    this.#view = view;
    this.#router = router;
    this.#options = options;
    this.#images = images;
    this.#documents = documents;
    this.#attachments = attachments;
    this.#notice = notice;
    this.#errors = errors;
    this.#onStored = onStored;
    this.#onFinished = onFinished;
    this.#stream = new AnswerStream({ view, router, options, attachments, notice });
    this.#failures = new AnswerFailures({
      notice,
      errors,
      onRegenerate: () => this.#attempt(() => this.#regenerate()),
      onContinue: () => this.#attempt(() => this.#continue()),
      onRetry: () => this.#attempt(() => this.#retry()),
    });
  }

  /** True while an answer is in progress. */
  get isActive() {
    return this.#turn !== null;
  }

  // -- what the user does

  /** Sends the text of the field to the chat of the address; it stays in its field if another one is opened
   *  meanwhile. */
  send() {
    return this.#attempt(() => this.#send());
  }

  async #send() {
    if (!(await this.#router.settle())) return;
    const { conversation } = this.#view,
      awaited = [this.#options, this.#images, this.#documents];
    await Promise.all([loadMarkdown(), ...awaited.map((one) => one.settle())]);
    if (!(await this.#staysOpen(conversation))) return;
    const field = byId("prompt"),
      text = field.value.trim();
    if (!text || this.#turn) return;
    field.value = "";
    fitHeight(field);
    await this.#ask(text, { images: this.#images.take(), documents: this.#documents.take() });
  }

  /** Asks an edited question instead of an earlier one, in a branch of the chat; buttons lead to the
   *  other branch. While an answer is in progress, it says that this must wait. */
  branch(index, text) {
    if (this.#turn) this.#notice.show(t("Wait for the end of the answer, or stop it, and then ask."));
    else this.#branch(index, text);
  }

  async #branch(index, text) {
    const { conversation } = this.#view;
    if (!(await this.#staysOpen(conversation)) || this.#turn) return;
    const { images, documents } = conversation.messages[index],
      previous = conversation.branchAt(index);
    this.#notice.hide();
    this.#view.draw();
    const onRetry = () => {
      this.#withdrawReturned();
      this.branch(index, text);
    };
    await this.#ask(text, { images, documents }, { previous, onRetry });
  }

  /** Shows the branch with another variant of a message; the chat continues from it. */
  showVariant(index, step) {
    if (this.#turn) return;
    this.#view.conversation.selectVariant(index, step);
    this.#view.draw();
    this.#view.transcript.focusVariant(index, step);
  }

  /** Ends the answer in progress, if there is one. */
  stop() {
    const id = this.#turn?.detachedId;
    if (!this.#turn?.isElsewhere) this.#turn?.stop(); // or it ends once the other server has stored it
    if (id) this.#attempt(() => cancel(id));
  }

  /** Leaves the open chat: a detached answer continues at the server; a drawing that is stored, and calls
   *  of tools, on this page; another answer ends. */
  leave() {
    const turn = this.#turn;
    if (!turn?.isLeavable) return this.stop();
    const { conversation } = this.#view;
    if (turn.needsPage) this.#left.keep(conversation, turn);
    turn.leave();
    this.#setTurn(null);
    if (turn.needsPage) this.#onStored(); // the list shows the chat while it is answered
  }

  /** Shows a turn of the open chat again that went on while another chat was open, or sends what waits; calls
   *  of a last answer wait for their approval. */
  resume({ conversation, turn }) {
    if (turn === null) {
      this.#left.remove(conversation.id);
      if (!conversation.lastAnswer) this.#answer();
      return;
    }
    turn.resume();
    this.#setTurn(turn);
    if (turn.answerView) this.#view.resumeAnswer(turn.answerView);
  }

  /** Ends the answer to a chat that is about to be deleted. */
  async cancel(id) {
    const open = { conversation: this.#view.conversation, turn: this.#turn },
      { conversation, turn } = this.#left.find(id) ?? open;
    if (id !== conversation.id) return cancelRunning(id);
    this.#left.remove(id);
    turn?.stop();
    await cancelRunning(id);
    const { storedId } = conversation;
    if (turn && !turn.detachedId && storedId && this.#options.isStoring) await waitUntilStored(storedId);
  }

  /** Shows a chat whose answer the server is writing, and follows it. */
  rejoin(conversation, { id, metadata, model, is_elsewhere: isElsewhere }) {
    conversation.id = metadata.conversation;
    this.#left.remove(conversation.id);
    this.#options.choose(model);
    this.#view.show(conversation);
    this.#attachments.show(metadata.vector_store);
    this.#answer({ followedId: id, isElsewhere });
  }

  /** Offers to generate the last answer again, to continue it, and to allow the calls in it. */
  offerContinuation() {
    this.#view.transcript.offerContinuation({
      onRegenerate: () => this.#attempt(() => this.#regenerate()),
      onContinue: isContinuable(this.#view.conversation.lastAnswer)
        ? () => this.#attempt(() => this.#continue())
        : null,
    });
    this.#attempt(() => this.#offerApproval(this.#view.conversation));
  }

  /** Does what a button says; a failure is shown with a button that does it again. */
  async #attempt(work) {
    try {
      await work();
    } catch (error) {
      this.#errors.show(error, [[t("Try again"), () => this.#attempt(work)]]);
    }
  }

  async #regenerate() {
    if (!(await this.#isFree())) return;
    const previous = this.#view.conversation.branchAtAnswer();
    this.#view.transcript.removeLastAnswer();
    await this.#answer({ previous });
  }

  /** Has the model continue its last answer, which was cut. */
  async #continue() {
    if (!(await this.#isFree())) return;
    this.#view.transcript.removeLastAnswer();
    await this.#answer({ isContinued: true });
  }

  /** Sends the question that got no answer: from its field, or from the chat if another was begun. */
  async #retry() {
    this.#notice.hide();
    if (!(await this.#isFree())) return;
    const { role } = this.#view.conversation.messages.at(-1) ?? {};
    if (role === "user" || role === "tool") await this.#answer();
    else await this.send();
  }

  /** Returns whether the open chat can be answered now: it cannot while an answer is in progress, which
   *  is followed if only the server knows of it, nor once another chat is open or it has gone on. */
  async #isFree() {
    if (this.#turn) return false;
    const { conversation } = this.#view,
      last = conversation.messages.at(-1);
    if (!(await this.#staysOpen(conversation))) return false;
    const run = this.#options.isDetaching ? await findRunning(conversation.id) : null;
    if (this.#turn || conversation !== this.#view.conversation) return false;
    if (last !== conversation.messages.at(-1)) return false; // the same button was used twice
    if (!run) return true;
    this.#withdrawReturned();
    this.rejoin(conversation, run);
    return false;
  }

  /** Waits for the chat of the address; returns whether that is this one, which is shown until then. */
  async #staysOpen(conversation) {
    await this.#router.settle();
    return conversation === this.#view.conversation;
  }

  // -- answers

  async #ask(text, enclosed, options = {}) {
    const { conversation, transcript } = this.#view,
      index = conversation.messages.length;
    conversation.addQuestion(text, enclosed);
    transcript.addQuestion({ content: text, ...enclosed }, (edited) => this.branch(index, edited));
    await this.#answer(options);
  }

  /** Draws an answer, or the failure to get one: either way the turn ends, and another can begin.
   *  `previous` are the messages of the branch that was left for this one; `followedId` is that of an
   *  answer that the server is writing, or with `isElsewhere` another server of its database. */
  async #answer({
    isContinued = false,
    previous = null,
    onRetry = null,
    followedId = null,
    isElsewhere = false,
  } = {}) {
    const { conversation } = this.#view,
      { lastAnswer: before } = conversation,
      answerView = this.#view.transcript.addAnswer(),
      { isDrawing, isStoring, isDetaching } = this.#options;
    const turn = new Turn({
      onSilence: () => (isElsewhere ? this.#failures.showElsewhere() : this.#failures.showSilence(conversation)),
      staysOnPage: isDrawing && isStoring && !followedId && !isContinued, // this page stores what is drawn
    });
    turn.answerView = answerView;
    turn.isElsewhere = isElsewhere;
    if (followedId) {
      turn.detachedId = followedId;
      turn.hasBegun = true;
    } else {
      conversation.system = this.#options.system;
      if (isDetaching && !isDrawing && !isContinued) turn.detachedId = newId();
    }
    this.#setTurn(turn);
    let failure = null;
    if (isElsewhere) this.#failures.showElsewhere();
    try {
      if (followedId) await this.#stream.follow(conversation, answerView, turn);
      else await this.#stream.request(conversation, answerView, turn, isContinued);
    } catch (error) {
      if (!turn.isStopped && !turn.isWithServer) failure = error;
    }
    turn.end();
    if (this.#turn === turn) this.#setTurn(null);
    this.#left.removeEnded(conversation, turn);
    if (turn.isLeft) {
      if (failure) this.#reportLeft(failure, conversation);
      return this.#onStored();
    }
    if (failure?.status === 404 ? followedId : isElsewhere && !failure) {
      this.#notice.hideMild();
      await this.#onFinished(conversation); // it has ended meanwhile, and is stored
      return this.#onStored();
    }
    if (followedId && conversation.lastAnswer === before) {
      answerView.element.remove(); // nothing has come of it
      return this.#attempt(() => this.#endUnfollowed(conversation, failure));
    }
    try {
      const hasAnswer = this.#finish(conversation, answerView, previous, followedId),
        isAboutQuestion = !hasAnswer && (onRetry || !previous); // rather than of another answer to it
      const lastAnswer = isAboutQuestion ? null : conversation.lastAnswer;
      if (failure) this.#failures.showError(failure, { lastAnswer, hasAnswer, onRetry });
      else if (!hasAnswer && !turn.isStopped) this.#failures.showEmpty({ lastAnswer, onRetry });
      const stoppedId = hasAnswer && (failure || turn.isStopped) ? conversation.storedId : null;
      await this.#onStored(this.#options.isStoring ? stoppedId : null);
      if (!failure && !turn.isStopped) {
        await conversation.deleteEarlier();
        this.#generateTitle(conversation);
      }
    } catch (error) {
      this.#errors.showIfNoticeIsFree(error); // the next turn may have failed meanwhile, with its buttons
    }
  }

  /** Ends a turn that followed an answer of which nothing came: what is stored of it is shown. */
  async #endUnfollowed(conversation, failure) {
    if (failure === null) {
      await cancelRunning(conversation.id); // it was stopped
      await this.#onFinished(conversation);
      return this.#onStored();
    }
    if (!conversation.messages.length) {
      this.#view.showNew();
      this.#router.noteFailure();
    }
    this.#errors.show(failure, [[t("Try again"), () => this.#onFinished(conversation)]]);
  }

  #setTurn(turn) {
    this.#turn = turn;
    this.#view.showAnswering(turn !== null);
  }

  /** Shows why a chat that was left gets no answer; a button opens it, which asks again. Calls stay, with the
   *  results that they have. */
  #reportLeft(failure, conversation) {
    if (!conversation.lastAnswer?.calls.length) conversation.dropAnswer();
    this.#left.keep(conversation, null);
    failure.message = `${conversation.title}: ${failure.message}`; // another chat is shown
    this.#errors.show(failure, [[t("Try again"), () => this.#router.open(`#/chat/${conversation.id}`)]]);
  }

  /** Draws the end of an answer; returns whether there is one. */
  #finish(conversation, answerView, previous, followedId) {
    const answer = conversation.lastAnswer,
      hasAnswer = answer !== null && !isEmpty(answer);
    if (hasAnswer) {
      conversation.saveBranch();
      answerView.finish(answer);
      answerView.announce();
    } else {
      this.#returnQuestion(conversation, answerView, previous);
    }
    if (conversation === this.#view.conversation) {
      const isOfBranch = previous || (followedId && conversation.isBranched);
      if (hasAnswer && isOfBranch) this.#view.draw(); // with the buttons between the branches
      this.offerContinuation();
      this.#view.showTitle();
    }
    return hasAnswer;
  }

  /** Puts a question that got no answer back into its field, to be sent again; the chat returns to the
   *  previous branch. */
  #returnQuestion(conversation, answerView, previous) {
    conversation.dropAnswer();
    answerView.element.remove();
    const isOpen = conversation === this.#view.conversation,
      question = conversation.messages.at(-1),
      isInPrevious = previous?.includes(question);
    if (previous) {
      conversation.messages = previous;
      if (isOpen) this.#view.draw();
    }
    const field = byId("prompt");
    const isFree = !field.value && this.#images.isEmpty && this.#documents.isEmpty;
    if (isInPrevious || !isOpen || !isFree || question.role !== "user") return;
    if (!previous) {
      conversation.removeLastQuestion();
      this.#view.transcript.removeLastQuestion();
    }
    this.#returned = question;
    field.value = question.content;
    this.#images.show(question.images);
    this.#documents.show(question.documents);
    fitHeight(field);
    this.#view.showGreeting();
  }

  /** Removes a question that was put back into its field, and what goes with it, once it is sent again;
   *  a message that was written instead stays. */
  #withdrawReturned() {
    const field = byId("prompt");
    if (field.value !== this.#returned?.content) return;
    field.value = "";
    fitHeight(field);
    this.#images.take();
    this.#documents.take();
    this.#returned = null;
  }

  /** Has a model of this server name a new chat, if the options say so. */
  async #generateTitle(conversation) {
    const { model, isLocal, isBuiltin, isDrawing, isStoring, isNamingChats } = this.#options,
      canName = isLocal && !isBuiltin && !isDrawing;
    if (!(canName && isStoring && isNamingChats && conversation.isUnnamed)) return;
    const { title: before } = conversation;
    try {
      const entitled = await conversation.generateTitle(model);
      if (entitled === null) return;
      this.#titles.note(entitled, before); // the next answer may be in progress by now
      if (conversation === this.#view.conversation) this.#view.showTitle();
      await this.#onStored();
    } catch (error) {
      // the model is busy, or the user has renamed the chat: its title stays
      if (!(error instanceof RequestError)) throw error;
    }
  }

  // -- calls of tools

  /** Asks whether the calls of the last answer may be made, unless they have results. */
  async #offerApproval(conversation) {
    const { calls = [], isCut } = conversation.lastAnswer ?? {};
    if (!this.#options.usesTools || isCut || !calls.length) return;
    const { approvalPanel } = await loadModule(() => import("./tools.js"));
    if (conversation !== this.#view.conversation || this.#turn) return;
    this.#view.transcript.showApproval(
      approvalPanel(calls, (isAllowed) =>
        this.#attempt(() => this.#answerCalls(conversation, calls, isAllowed)),
      ),
    );
  }

  /** Makes the calls, or not, and has the model continue with their results. A call that has its result
   *  is not made again when another one fails. */
  async #answerCalls(conversation, calls, isAllowed) {
    if (!(await this.#staysOpen(conversation)) || this.#turn) return;
    const turn = new Turn({ onSilence: () => this.#failures.showToolSilence(), staysOnPage: true });
    this.#setTurn(turn);
    this.#left.keep(conversation, turn);
    let failure = null;
    try {
      const { runCall } = await turn.wait(loadModule(() => import("./tools.js")));
      for (const call of calls) {
        call.result ??= await runCall(call, isAllowed, turn.signal);
        turn.noteEvent();
      }
    } catch (error) {
      if (!turn.isStopped) failure = error;
    }
    turn.end();
    this.#left.removeEnded(conversation, turn);
    if (this.#turn === turn) this.#setTurn(null);
    if (calls.every(({ result }) => result !== undefined)) {
      for (const call of calls) conversation.addResult(call, call.result);
      await this.#attempt(() => this.#answerResults(conversation));
    } else if (turn.isLeft) {
      if (failure) this.#reportLeft(failure, conversation);
    } else {
      this.offerContinuation(); // with the question whether the calls may be made
      if (failure) throw failure;
    }
  }

  /** Has the model continue with the results; where the chat was left, as an answer that the server
   *  continues without the page, or else once the chat is opened again. */
  async #answerResults(conversation) {
    if (conversation === this.#view.conversation) {
      this.#view.draw();
      return this.#answer();
    }
    const { parameters, isStoring, isDetaching } = this.#options;
    if (!isDetaching) {
      this.#left.keep(conversation, null);
      return;
    }
    try {
      const answers = conversation.answer({
        model: conversation.model,
        parameters,
        storeId: null,
        tools: await listTools(),
        isStoring,
        isContinued: false,
        detachedId: newId(),
        signal: new AbortController().signal,
      });
      for await (const _ of answers) break; // it has begun
    } catch (error) {
      this.#reportLeft(error, conversation);
    }
    await this.#onStored();
  }
}

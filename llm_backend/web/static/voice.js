// Voice: answers read aloud, and messages dictated, by models of this server.

import { RequestError, requestBlob, upload } from "./api.js";
import { byId, changeIcon, fitHeight, iconButton } from "./dom.js";
import { t } from "./language.js";
import { beginningOf } from "./messages.js";

const MAX_CHARACTERS = 4000; // of a request for speech; the document allows 4096
const FILE_NAME = "message.webm";

let speechModel = null;
let transcriptionModel = null;
let reading = null; // the answer that is read now: its button, and what stops it
let recorder = null; // of the message that is dictated now
let fail = null; // shows a failure

/** Takes the models that speak and transcribe from the models of this server, and shows or hides the
 *  buttons that need them. */
export function offerVoice(models, onFailed) {
  const idOf = (kind) => models.find((model) => model.kind === kind)?.id ?? null;
  speechModel = idOf("speech");
  transcriptionModel = idOf("transcription");
  document.body.classList.toggle("speaks", speechModel !== null);
  byId("dictate").hidden = transcriptionModel === null || !navigator.mediaDevices;
  fail = onFailed;
}

/** A button that reads a text aloud, or stops that; hidden while no model speaks. */
export function speakButton(textOf) {
  const button = iconButton("audio", t("Read aloud"), async () => {
    const isOwn = reading?.button === button;
    reading?.stop();
    if (isOwn) return;
    try {
      await read(button, textOf());
    } catch (error) {
      if (error.name !== "AbortError") fail(error);
    }
  });
  button.classList.add("speak");
  return button;
}

/** Reads a text piece by piece; the next one is requested while one is heard. */
async function read(button, text) {
  const controller = new AbortController(),
    player = new Audio(),
    pieces = piecesOf(text);
  const stop = () => {
    player.pause();
    controller.abort();
  };
  reading = { button, stop };
  show(button, "stop", t("Stop reading"));
  const request = (input) =>
    input === undefined
      ? null
      : requestBlob("v1/audio/speech", {
          method: "POST",
          body: { model: speechModel, voice: "alloy", input },
          signal: controller.signal,
        });
  try {
    let next = request(pieces[0]);
    for (let index = 0; index < pieces.length; index += 1) {
      const audio = await next;
      next = request(pieces[index + 1]);
      next?.catch(() => {}); // reported when its turn comes
      await play(player, audio, controller.signal);
    }
  } finally {
    stop();
    if (reading?.button === button) reading = null;
    show(button, "audio", t("Read aloud"));
  }
}

/** Plays audio to its end; throws the reason of an abort. */
async function play(player, audio, signal) {
  const url = URL.createObjectURL(audio);
  try {
    await new Promise((resolve, reject) => {
      signal.addEventListener("abort", () => reject(signal.reason), { once: true });
      player.onended = resolve;
      player.onerror = () => reject(new RequestError(0, t("The audio cannot be played.")));
      player.src = url;
      player.play().catch(() => player.onerror());
    });
  } finally {
    URL.revokeObjectURL(url);
  }
}

/** Parts of a text that are short enough for a request, each to the end of a sentence if there is one. */
function piecesOf(text) {
  const pieces = [];
  for (let rest = text.trim(); rest; ) {
    const part = beginningOf(rest, MAX_CHARACTERS);
    const end = rest === part ? part.length : lastEnd(part);
    pieces.push(rest.slice(0, end));
    rest = rest.slice(end).trim();
  }
  return pieces;
}

function lastEnd(part) {
  const ends = [...part.matchAll(/[.!?…。！？\n]\s|\n/g)];
  return ends.length ? ends.at(-1).index + 1 : part.length;
}

/** Wires the button that records a message, and writes it into the message field. */
export function wireDictation() {
  const button = byId("dictate");
  button.addEventListener("click", async () => {
    if (recorder) return recorder.stop();
    button.disabled = true; // until the user has permitted it
    try {
      recorder = await record();
      button.disabled = false;
      show(button, "stop", t("Stop recording"));
      const { audio, ended } = recorder;
      const recorded = await audio;
      button.disabled = true;
      if (!recorded) return;
      const text = await transcribe(recorded);
      if (!ended.aborted) insert(text);
    } catch (error) {
      if (!(error instanceof DOMException)) fail(error);
      else fail(new RequestError(0, t("The microphone cannot be used: {error}", { error: error.message })));
    } finally {
      recorder = null;
      button.disabled = false;
      show(button, "microphone", t("Dictate"));
    }
  });
}

/** Begins a recording; the promise `audio` is the recording after `stop`, and null after `discard`,
 *  which also aborts the signal `ended`. */
async function record() {
  const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
  const release = () => stream.getTracks().forEach((track) => track.stop());
  try {
    const recorder = new MediaRecorder(stream),
      pieces = [];
    const discarding = new AbortController();
    recorder.ondataavailable = ({ data }) => pieces.push(data);
    const audio = new Promise((resolve, reject) => {
      recorder.onstop = () => resolve(discarding.signal.aborted ? null : new Blob(pieces, { type: recorder.mimeType }));
      recorder.onerror = ({ error }) => reject(error);
    }).finally(release);
    recorder.start();
    const stop = () => recorder.state === "recording" && recorder.stop();
    const discard = () => {
      discarding.abort();
      stop();
    };
    return { audio, stop, discard, ended: discarding.signal };
  } catch (error) {
    release();
    throw error;
  }
}

async function transcribe(audio) {
  const form = new FormData();
  form.append("model", transcriptionModel);
  form.append("file", audio, FILE_NAME);
  return (await upload("v1/audio/transcriptions", form)).text.trim();
}

/** Writes a text into the message field, at its cursor. */
function insert(text) {
  const field = byId("prompt"),
    { selectionStart: start, selectionEnd: end } = field,
    needsSpace = /\S$/.test(field.value.slice(0, start));
  field.setRangeText(needsSpace ? ` ${text}` : text, start, end, "end");
  field.focus();
  fitHeight(field);
}

function show(button, symbol, label) {
  changeIcon(button, symbol);
  button.title = label;
  button.setAttribute("aria-label", label);
}

/** Ends what is read aloud, and drops what is dictated: another chat or page is opened. */
export function endVoice() {
  recorder?.discard();
  reading?.stop();
}

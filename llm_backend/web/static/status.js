// Live status of the models, from the server's event stream.

import { request, streamEvents } from "./api.js";
import { isConfirmed } from "./confirm.js";
import { byId, make } from "./dom.js";
import { downloadForm } from "./downloads.js";
import { formatCount, formatPercent, formatSpeed, formatTime, t } from "./language.js";
import { sparkline } from "./plot.js";
import { row, table } from "./tables.js";

const SPEED_INTERVAL_MS = 1000;
const SPEED_WINDOW_MS = 3000; // a speed over less would jump with every answer
const SHOWN_S = 90;
const RETRY_MS = 3000;

const STATE_NAMES = {
  idle: t("Idle"),
  processing: t("Busy"),
  loading: t("Loading"),
  error: t("Error"),
  terminated: t("Stopped"),
};
const MODEL_STATES = {
  unloaded: t("unloaded"),
  starting: t("starting"),
  ready: t("ready"),
  restarting: t("restarting"),
  failed: t("failed"),
  closed: t("closed"),
};
const COLUMNS = [
  t("Running"),
  t("Waiting"),
  t("Cached"),
  t("Tokens in cells"),
  t("Generated"),
  t("Images, audio"),
];
export class StatusPage {
  #element = byId("status-view");
  #controller = null;
  #options;
  #served = ""; // the models whose chats are offered, with their states
  #samples;
  #speeds;
  #state;
  #info;
  #figures;
  #line;
  #models;
  #rows;
  #drawings;
  #drawingsTable;
  #errors;
  #errorsTable;
  #failure;
  #downloads = make("div", {}); // one that runs goes on while the page is left

  /** `options` have the permissions of the key. */
  constructor(options) {
    this.#options = options;
  }

  /** Shows the page and follows the status until `close`. */
  open() {
    this.close();
    this.#controller = new AbortController();
    this.#build();
    this.#followStatus(this.#controller.signal);
    this.#listErrors();
  }

  close() {
    this.#controller?.abort();
    this.#controller = null;
  }

  #build() {
    this.#samples = [];
    this.#speeds = [];
    this.#state = make("span", { className: "pill" }, "…");
    this.#info = make("p", { className: "lead" });
    this.#figures = Object.fromEntries(
      ["speed", "running", "waiting", "cached"].map((name) => [name, make("dd", {}, "–")]),
    );
    this.#line = make("dd", { className: "line" });
    this.#models = make("tbody", { className: "models" });
    this.#rows = new Map();
    this.#served = "";
    this.#drawings = make("tbody", {});
    this.#errors = make("tbody", {});
    this.#failure = make("p", { className: "notice", role: "alert", hidden: true });
    this.#element.replaceChildren(
      make("header", {}, make("h1", {}, t("Status")), this.#state),
      this.#info,
      make(
        "dl",
        { className: "figures" },
        make(
          "div",
          { className: "wide" },
          make("dt", {}, t("Tokens per second")),
          this.#figures.speed,
          this.#line,
        ),
        make("div", {}, make("dt", {}, t("Running")), this.#figures.running),
        make("div", {}, make("dt", {}, t("Waiting")), this.#figures.waiting),
        make(
          "div",
          {},
          make("dt", {}, t("Cached")),
          this.#figures.cached,
          make("dd", { className: "hint" }, t("of the tokens that were to be read")),
        ),
      ),
      table(
        t("Models"),
        [t("Model"), t("State"), ...COLUMNS, ""],
        this.#models,
      ),
      (this.#drawingsTable = table(
        t("Images being drawn"),
        [t("Model"), t("Progress")],
        this.#drawings,
      )),
      this.#failure,
      (this.#errorsTable = table(
        t("Recent errors"),
        [t("When"), t("Operation"), t("Status"), t("Message")],
        this.#errors,
      )),
    );
    this.#drawingsTable.hidden = true;
    this.#errorsTable.hidden = true;
    this.#failure.after(this.#downloads);
  }

  /** Loads the models again: chats offer those that are served now. Keys that administer can remove those of the
   *  server's folder, and download others. */
  async #loadModels() {
    await this.#options.loadModels();
    const { mayAdminister, removable, pullsModels, servesFolder: isServed } = this.#options;
    for (const [id, row] of this.#rows) row.offerRemoval(mayAdminister && removable.includes(id));
    if (!mayAdminister) this.#downloads.replaceChildren(); // of another key
    else if (pullsModels && !this.#downloads.hasChildNodes()) this.#downloads.append(downloadForm({ isServed }));
  }

  async #followStatus(signal) {
    const timer = setInterval(() => this.#drawSpeed(), SPEED_INTERVAL_MS);
    signal.addEventListener("abort", () => clearInterval(timer));
    while (!signal.aborted) {
      try {
        for await (const status of streamEvents("status", { signal })) this.#update(status);
      } catch (error) {
        if (signal.aborted) return;
        this.#update({ status: "error", models: [] }, error.message);
        if (error.status === 401 || error.status === 403) return;
      }
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    }
  }

  /** Shows a status; `failure` says why there is none. */
  #update({ status, models, drawings = [] }, failure = null) {
    this.#state.textContent = STATE_NAMES[status];
    this.#state.dataset.status = status;
    this.#info.textContent = failure ?? summarize(status, models);
    const sum = (name) => sumOfWork(models, name);
    this.#figures.running.textContent = formatCount(sum("running"));
    this.#figures.waiting.textContent = formatCount(sum("waiting"));
    this.#figures.cached.textContent = formatShare(sum("cached_tokens"), sum("admitted_tokens"));
    if (failure === null) this.#samples.push({ at: performance.now(), generated: sum("generated_tokens") });
    else this.#samples = []; // else the tokens from before would count as new once it answers again
    this.#drawModels(models);
    if (failure === null) this.#loadChangedModels(models);
    this.#drawingsTable.hidden = drawings.length === 0;
    this.#drawings.replaceChildren(...drawings.map(drawingRow));
  }

  #drawModels(models) {
    for (const model of models) {
      if (!this.#rows.has(model.id)) {
        this.#rows.set(
          model.id,
          new ModelRow(model.id, (message) => this.#showFailure(message)),
        );
      }
      this.#rows.get(model.id).draw(model);
    }
    const elements = models.map(({ id }) => this.#rows.get(id).element);
    const isSame = elements.every((one, index) => this.#models.children[index] === one);
    if (!isSame || this.#models.children.length !== elements.length)
      this.#models.replaceChildren(...elements);
  }

  /** Loads the models if others are served than before, or one is in another state. */
  #loadChangedModels(models) {
    const served = JSON.stringify(models.map(({ id, state }) => [id, state]));
    if (served === this.#served) return;
    this.#served = served;
    this.#loadModels().catch(({ message }) => this.#showFailure(message));
  }

  /** Shows why a model was not loaded or unloaded; null if it was. */
  #showFailure(message) {
    this.#failure.textContent = message ?? "";
    this.#failure.hidden = message === null;
  }

  #drawSpeed() {
    this.#speeds.push(this.#speed());
    this.#speeds = this.#speeds.slice(-SHOWN_S);
    const latest = this.#speeds.at(-1);
    this.#figures.speed.textContent = latest < 10 ? formatSpeed(latest) : formatCount(latest);
    this.#line.replaceChildren(
      sparkline(
        this.#speeds,
        SHOWN_S,
        t("Tokens per second in the last {count} seconds", { count: this.#speeds.length }),
      ),
    );
  }

  /** Tokens per second within the window; the server sends no events while nothing changes. */
  #speed() {
    const last = this.#samples.at(-1),
      since = performance.now() - SPEED_WINDOW_MS;
    if (!last || last.at < since) return 0;
    const before = this.#samples.findLast(({ at }) => at <= since) ?? this.#samples[0];
    this.#samples = this.#samples.slice(this.#samples.indexOf(before));
    const seconds = Math.max(performance.now() - Math.max(before.at, since), 500) / 1000;
    return Math.max(0, (last.generated - before.generated) / seconds);
  }

  async #listErrors() {
    const { data } = await request("chat/errors").catch(() => ({ data: [] })); // the state shows the error
    this.#errorsTable.hidden = data.length === 0;
    this.#errors.replaceChildren(...data.slice(0, 20).map(errorRow));
  }
}

/** A model's row: its cells change, its buttons stay under the pointer. */
class ModelRow {
  #state = make("span", {});
  #dot = make("span", { className: "dot" });
  #numbers = COLUMNS.map((name) => make("td", { className: "number", "data-name": name }));
  #loadButton = make("button", { type: "button", className: "link" });
  #removeButton = make("button", { type: "button", className: "link", hidden: true }, t("Remove"));

  constructor(id, onFailure) {
    this.#removeButton.setAttribute("aria-label", t("Remove {name}", { name: id }));
    this.#removeButton.addEventListener("click", () => this.#remove(id, onFailure));
    this.#loadButton.addEventListener("click", () => this.#toggle(id, onFailure));
    this.element = make(
      "tr",
      {},
      make("th", { scope: "row" }, id),
      make("td", { className: "number" }, this.#dot, this.#state),
      ...this.#numbers,
      make("td", { className: "buttons" }, this.#loadButton, this.#removeButton),
    );
  }

  offerRemoval(isRemovable) {
    this.#removeButton.hidden = !isRemovable;
  }

  draw({ id, state, slots, context_tokens: context, work }) {
    this.#state.textContent = MODEL_STATES[state] ?? state;
    this.#dot.dataset.state = state;
    const texts = work ? columnTexts(work, slots, context) : [];
    for (const [index, cell] of this.#numbers.entries()) cell.textContent = texts[index] ?? "–";
    this.#loadButton.dataset.action = state === "unloaded" ? "load" : "unload";
    this.#loadButton.textContent = state === "unloaded" ? t("Load") : t("Unload");
    const label = state === "unloaded" ? t("Load {name}", { name: id }) : t("Unload {name}", { name: id });
    this.#loadButton.setAttribute("aria-label", label);
  }

  async #remove(id, onFailure) {
    const question = t("Remove {name}? Its file is deleted from the server.", { name: id });
    if (!(await isConfirmed(question, { yes: t("Remove") }))) return;
    try {
      await request(`v1/models/${encodeURIComponent(id)}`, { method: "DELETE" });
      onFailure(null);
    } catch (error) {
      onFailure(t("{id} was not removed: {reason}", { id, reason: error.message }));
    }
  }

  async #toggle(id, onFailure) {
    const { action } = this.#loadButton.dataset;
    this.#loadButton.disabled = true;
    try {
      await request(`v1/models/${encodeURIComponent(id)}/${action}`, { method: "POST" });
      onFailure(null);
    } catch (error) {
      const values = { id, reason: error.message };
      onFailure(
        action === "load"
          ? t("{id} was not loaded: {reason}", values)
          : t("{id} was not unloaded: {reason}", values),
      );
    } finally {
      this.#loadButton.disabled = false;
    }
  }
}

const sumOfWork = (models, name) =>
  models.reduce((total, { work }) => total + (work ? work[name] : 0), 0);

/** Says what the server says of all models, in the language of the page. */
function summarize(status, models) {
  if (!models.length)
    return status === "idle"
      ? t("An upstream answers; no model is served here.")
      : t("No model is served here.");
  if (status === "error") return t("No model can answer; the server’s log says why.");
  if (status === "loading") return t("Models are being loaded.");
  if (status === "processing")
    return t("{running} running, {waiting} waiting.", {
      running: formatCount(sumOfWork(models, "running")),
      waiting: formatCount(sumOfWork(models, "waiting")),
    });
  const ready = models.filter(({ state }) => state === "ready").length;
  return t("{part} of {whole} ready.", { part: formatCount(ready), whole: formatCount(models.length) });
}

const columnTexts = (work, slots, context) => [
  t("{part} of {whole}", { part: work.running, whole: slots ?? "–" }),
  formatCount(work.waiting),
  formatShare(work.cached_tokens, work.admitted_tokens),
  formatCells(work.cell_tokens, slots, context),
  formatCount(work.generated_tokens),
  formatMedia(work),
];

/** Encoded tokens of images and audio, and their speed; empty for most models. */
const formatMedia = ({ media_tokens: tokens, media_s: seconds }) =>
  tokens
    ? t("{tokens} ({speed} a second)", { tokens: formatCount(tokens), speed: formatCount(tokens / seconds) })
    : "–";

const formatCells = (tokens, slots, context) =>
  slots && context ? `${formatCount(tokens)} (${formatShare(tokens, slots * context)})` : formatCount(tokens);

/** An image in progress; a bar without a value says that the image server does not report it. */
function drawingRow({ model, progress }) {
  const bar = make("progress", { max: 1, "aria-label": t("Progress of the image") });
  if (progress !== null) bar.value = progress;
  return row(model, bar);
}

function errorRow({ created, operation, status, message }) {
  const when = new Date(created * 1000);
  return make(
    "tr",
    {},
    make("td", {}, make("time", { dateTime: when.toISOString() }, formatTime(when))),
    make("td", {}, operation),
    make("td", { className: "number" }, String(status)),
    make("td", {}, message),
  );
}

const formatShare = (part, whole) => (whole ? formatPercent(part / whole) : "–");

// Live status of the models, from the server's event stream.

import { ask, events } from "./api.js";
import { isConfirmed } from "./confirm.js";
import { byId, make, sparkline } from "./dom.js";
import { downloadForm } from "./downloads.js";
import { language, t } from "./language.js";
import { table } from "./tables.js";

const RENDER_INTERVAL_MS = 1000;
const MEASURED_OVER_MS = 3000; // a speed over less would jump with every answer
const SHOWN_S = 90;
const AGAIN_AFTER_MS = 3000;

const WORDS = {
  idle: t("Idle"),
  processing: t("Busy"),
  loading: t("Loading"),
  error: t("Error"),
  terminated: t("Stopped"),
};
const STATES = {
  unloaded: t("unloaded"),
  starting: t("starting"),
  ready: t("ready"),
  restarting: t("restarting"),
  failed: t("failed"),
  closed: t("closed"),
};
const NUMBERS = [
  t("Running"),
  t("Waiting"),
  t("Cached"),
  t("Tokens in cells"),
  t("Generated"),
  t("Pictures, sounds"),
];
const count = new Intl.NumberFormat(language);

export class StatusPage {
  #place = byId("status-view");
  #ending = null;
  #options;
  #removable = new Set();
  downloads = make("div", {}); // one that runs goes on while the page is left

  /** `options` tell what the key may do. */
  constructor(options) {
    this.#options = options;
  }

  /** Shows the page and follows the status until `close`. */
  open() {
    this.close();
    this.#ending = new AbortController();
    this.#build();
    this.#follow(this.#ending.signal);
    this.#listErrors();
    this.#offerDownloads();
  }

  close() {
    this.#ending?.abort();
    this.#ending = null;
  }

  #build() {
    this.samples = [];
    this.speeds = [];
    this.state = make("span", { className: "pill" }, "…");
    this.info = make("p", { className: "lead" });
    this.figures = Object.fromEntries(
      ["speed", "running", "waiting", "cached"].map((name) => [name, make("dd", {}, "–")]),
    );
    this.line = make("dd", { className: "line" });
    this.models = make("tbody", { className: "models" });
    this.rows = new Map();
    this.errors = make("tbody", {});
    this.failure = make("p", { className: "notice", role: "alert", hidden: true });
    this.#place.replaceChildren(
      make("header", {}, make("h1", {}, t("Status")), this.state),
      this.info,
      make(
        "dl",
        { className: "figures" },
        make(
          "div",
          { className: "wide" },
          make("dt", {}, t("Tokens per second")),
          this.figures.speed,
          this.line,
        ),
        make("div", {}, make("dt", {}, t("Running")), this.figures.running),
        make("div", {}, make("dt", {}, t("Waiting")), this.figures.waiting),
        make(
          "div",
          {},
          make("dt", {}, t("Cached")),
          this.figures.cached,
          make("dd", { className: "hint" }, t("of the tokens that were to be read")),
        ),
      ),
      table(
        t("Models"),
        [t("Model"), t("State"), ...NUMBERS, ""],
        this.models,
      ),
      this.failure,
      (this.errorsTable = table(
        t("Recent errors"),
        [t("When"), t("Operation"), t("Status"), t("Message")],
        this.errors,
      )),
    );
    this.errorsTable.hidden = true;
    this.failure.after(this.downloads);
  }

  /** Lets keys that administer download models, and remove those of the server's folder. */
  async #offerDownloads() {
    if (!this.#options.isLoaded) await this.#options.loadModels();
    if (!this.#options.mayAdminister) return;
    const isServed = this.#options.servesFolder;
    if (!this.downloads.hasChildNodes())
      this.downloads.append(downloadForm({ isServed, onDone: () => this.#findRemovable() }));
    await this.#findRemovable();
  }

  async #findRemovable() {
    const { data } = await ask("v1/models");
    this.#removable = new Set(data.filter(({ file }) => file).map(({ id }) => id));
    for (const [id, row] of this.rows) row.offerRemoval(this.#removable.has(id));
  }

  async #follow(signal) {
    const timer = setInterval(() => this.#tick(), RENDER_INTERVAL_MS);
    signal.addEventListener("abort", () => clearInterval(timer));
    while (!signal.aborted) {
      try {
        for await (const status of events("status", { signal })) this.#take(status);
      } catch (error) {
        if (signal.aborted) return;
        this.#take({ status: "error", info: error.message, models: [] });
        if (error.status === 401 || error.status === 403) return;
      }
      await new Promise((resolve) => setTimeout(resolve, AGAIN_AFTER_MS));
    }
  }

  #take({ status, info, models }) {
    this.state.textContent = WORDS[status];
    this.state.dataset.status = status;
    this.info.textContent = info;
    const work = models.map((model) => model.work).filter(Boolean);
    const sum = (name) => work.reduce((total, one) => total + one[name], 0);
    this.figures.running.textContent = count.format(sum("running"));
    this.figures.waiting.textContent = count.format(sum("waiting"));
    this.figures.cached.textContent = share(sum("cached_tokens"), sum("placed_tokens"));
    this.samples.push({ at: performance.now(), generated: sum("generated_tokens") });
    this.#drawModels(models);
  }

  #drawModels(models) {
    for (const model of models) {
      if (!this.rows.has(model.id)) {
        this.rows.set(
          model.id,
          new ModelRow(model.id, (message) => this.#tellFailure(message)),
        );
        if (this.downloads.hasChildNodes()) this.#findRemovable(); // it has just been downloaded
      }
      this.rows.get(model.id).draw(model);
    }
    const elements = models.map(({ id }) => this.rows.get(id).element);
    const isSame = elements.every((one, place) => this.models.children[place] === one);
    if (!isSame || this.models.children.length !== elements.length)
      this.models.replaceChildren(...elements);
  }

  /** Says why a model was not loaded or unloaded; null: it was. */
  #tellFailure(message) {
    this.failure.textContent = message ?? "";
    this.failure.hidden = message === null;
  }

  #tick() {
    this.speeds.push(this.#speed());
    this.speeds = this.speeds.slice(-SHOWN_S);
    const latest = this.speeds.at(-1);
    this.figures.speed.textContent =
      latest < 10 ? latest.toFixed(1) : count.format(Math.round(latest));
    this.line.replaceChildren(
      sparkline(
        this.speeds,
        SHOWN_S,
        t("Tokens per second in the last {count} seconds", { count: this.speeds.length }),
      ),
    );
  }

  /** Tokens per second of late; the server says nothing while nothing changes. */
  #speed() {
    const last = this.samples.at(-1),
      since = performance.now() - MEASURED_OVER_MS;
    if (!last || last.at < since) return 0;
    const before = this.samples.findLast(({ at }) => at <= since) ?? this.samples[0];
    this.samples = this.samples.slice(this.samples.indexOf(before));
    const seconds = Math.max(performance.now() - Math.max(before.at, since), 500) / 1000;
    return Math.max(0, (last.generated - before.generated) / seconds);
  }

  async #listErrors() {
    const { data } = await ask("chat/errors").catch(() => ({ data: [] })); // the state shows the error
    this.errorsTable.hidden = data.length === 0;
    this.errors.replaceChildren(...data.slice(0, 20).map(errorRow));
  }
}

/** A model's row: its cells change, its button keeps its place under the pointer. */
class ModelRow {
  #state = make("span", {});
  #dot = make("span", { className: "dot" });
  #numbers = NUMBERS.map((name) => make("td", { className: "number", "data-name": name }));
  #button = make("button", { type: "button", className: "link" });
  #bin = make("button", { type: "button", className: "link", hidden: true }, t("Remove"));

  constructor(id, tell) {
    this.#bin.setAttribute("aria-label", t("Remove {name}", { name: id }));
    this.#bin.addEventListener("click", () => this.#remove(id, tell));
    this.#button.addEventListener("click", () => this.#toggle(id, tell));
    this.element = make(
      "tr",
      {},
      make("th", { scope: "row" }, id),
      make("td", { className: "number" }, this.#dot, this.#state),
      ...this.#numbers,
      make("td", { className: "buttons" }, this.#button, this.#bin),
    );
  }

  offerRemoval(isRemovable) {
    this.#bin.hidden = !isRemovable;
  }

  draw({ state, slots, context_tokens: context, work }) {
    this.#state.textContent = STATES[state] ?? state;
    this.#dot.dataset.state = state;
    const told = work ? numbers(work, slots, context) : [];
    for (const [place, cell] of this.#numbers.entries()) cell.textContent = told[place] ?? "–";
    this.#button.dataset.action = state === "unloaded" ? "load" : "unload";
    this.#button.textContent = state === "unloaded" ? t("Load") : t("Unload");
  }

  async #remove(id, tell) {
    const question = t("Remove {name}? Its file is deleted from the server.", { name: id });
    if (!(await isConfirmed(question, { yes: t("Remove") }))) return;
    try {
      await ask(`v1/models/${encodeURIComponent(id)}`, { method: "DELETE" });
      tell(null);
    } catch (error) {
      tell(t("{id} was not removed: {reason}", { id, reason: error.message }));
    }
  }

  async #toggle(id, tell) {
    const { action } = this.#button.dataset;
    this.#button.disabled = true;
    try {
      await ask(`v1/models/${encodeURIComponent(id)}/${action}`, { method: "POST" });
      tell(null);
    } catch (error) {
      const values = { id, reason: error.message };
      tell(
        action === "load"
          ? t("{id} was not loaded: {reason}", values)
          : t("{id} was not unloaded: {reason}", values),
      );
    } finally {
      this.#button.disabled = false;
    }
  }
}

const numbers = (work, slots, context) => [
  t("{part} of {whole}", { part: work.running, whole: slots ?? "?" }),
  count.format(work.waiting),
  share(work.cached_tokens, work.placed_tokens),
  kept(work.held_tokens, slots, context),
  count.format(work.generated_tokens),
  seen(work),
];

/** Encoded tokens of pictures and sounds, and their speed; empty for most models. */
const seen = ({ media_tokens: tokens, media_s: seconds }) =>
  tokens ? `${count.format(tokens)} (${count.format(Math.round(tokens / seconds))}/s)` : "–";

const kept = (held, slots, context) =>
  slots && context ? `${count.format(held)} (${share(held, slots * context)})` : count.format(held);

function errorRow({ created, operation, status, message }) {
  const when = new Date(created * 1000);
  return make(
    "tr",
    {},
    make("td", {}, make("time", { dateTime: when.toISOString() }, when.toLocaleTimeString())),
    make("td", {}, operation),
    make("td", { className: "number" }, String(status)),
    make("td", {}, message),
  );
}

const share = (part, whole) => (whole ? `${Math.round((100 * part) / whole)} %` : "–");

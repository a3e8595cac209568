// Options of a chat: model, system prompt, parameters; and the key. Choices are remembered.

import { ask, key } from "./api.js";
import { byId, make } from "./dom.js";
import { t } from "./language.js";
import { Parameters } from "./parameters.js";

export class Options {
  /** Whether the models of the server are known. */
  isLoaded = false;
  #models = byId("model");
  #personalities = byId("personality");
  #listed = [];
  #local = [];
  #storesChats = "";
  #mayAdminister = false;
  #detachesChats = false;
  #servesFolder = false;
  #system = byId("system");
  #isStandard = byId("keep-system");
  #parameters = new Parameters();

  constructor({ onKey }) {
    for (const field of [this.#system, this.#isStandard])
      field.addEventListener("change", () => this.#keepSystem());
    this.#models.addEventListener("change", () => this.#offerPersonalities());
    for (const field of [this.#models, this.#personalities])
      field.addEventListener("change", () => keep("model", this.model));
    byId("entitle").checked = localStorage.getItem("entitle") !== "no";
    byId("entitle").addEventListener("change", () =>
      keep("entitle", this.isEntitling ? "" : "no"),
    );
    byId("use-tools").checked = localStorage.getItem("tools") === "yes";
    byId("use-tools").addEventListener("change", () =>
      keep("tools", byId("use-tools").checked ? "yes" : ""),
    );
    byId("open-options").addEventListener("click", () => this.show(byId("options").hidden));
    document.addEventListener("pointerdown", ({ target }) => {
      if (this.isShown && !target.closest("#options, #open-options")) this.show(false);
    });
    this.#watchKey(onKey);
  }

  /** The model's name, with the personality's behind a colon where one is chosen. */
  get model() {
    const personality = this.#personalities.value;
    return personality ? `${this.#models.value}:${personality}` : this.#models.value;
  }

  /** The names of the models that chat. */
  get names() {
    return this.#listed.filter((model) => !model.personality_of).map(({ id }) => id);
  }

  /** Whether the chosen model takes pictures, as it says itself; one elsewhere, which says nothing, may. */
  get canSee() {
    return this.#chosen?.input_modalities?.includes("image") ?? !this.isHere;
  }

  /** Whether the chosen model runs on this server. */
  get isHere() {
    return this.#local.some(({ id }) => id === this.#base);
  }

  /** Whether the chosen model is the one that comes with the server. */
  get isBuiltin() {
    return this.isHere && this.#base === "builtin";
  }

  /** Whether models of this server name new chats. */
  get isEntitling() {
    return byId("entitle").checked;
  }

  /** Whether the key administers. */
  get mayAdminister() {
    return this.#mayAdminister;
  }

  /** Whether answers can go on, and be stored, when the page is left. */
  get isDetaching() {
    return this.#detachesChats && this.isStoring;
  }

  /** Whether a model that is downloaded is served at once. */
  get servesFolder() {
    return this.#servesFolder;
  }

  /** Whether models may call tools of this server. */
  get usesTools() {
    return !byId("tools-field").hidden && byId("use-tools").checked;
  }

  /** Whether the server stores chats. */
  get isStoring() {
    return this.#storesChats !== "never";
  }

  get #chosen() {
    return this.#listed.find(({ id }) => id === this.#models.value);
  }

  get #base() {
    return this.#chosen?.alias_of ?? this.#chosen?.id;
  }

  /** Whether the chosen model is one of this server's, and there is one that can embed files: one
   *  that was never loaded may be. */
  get canReadFiles() {
    const others = this.#local.filter(({ id }) => id !== this.#base);
    const canEmbed = ({ kind, state }) => kind === "embedding" || (!kind && state === "unloaded");
    return others.length < this.#local.length && others.some(canEmbed);
  }

  get hasKey() {
    return key.value !== "";
  }

  get system() {
    return this.#system.value.trim();
  }

  set system(text) {
    this.#system.value = text;
    this.#isStandard.checked = text !== "" && text === standardSystem();
    this.#tellSystem();
  }

  /** Takes the system prompt of new chats, if there is one. */
  resetSystem() {
    this.system = standardSystem();
  }

  /** The parameters that are set, as fields of a request; throws for a value that cannot be. */
  get parameters() {
    return this.#parameters.body;
  }

  get isShown() {
    return !byId("options").hidden;
  }

  /** Closes the options, and goes back to what opened them. */
  hide() {
    this.show(false);
    byId("open-options").focus();
  }

  show(isShown) {
    byId("options").hidden = !isShown;
    byId("open-options").setAttribute("aria-expanded", isShown);
    if (isShown) this.#system.focus();
  }

  /** Shows the field for the key, if the server needs one. */
  askForKey() {
    this.show(true);
    byId("key").focus();
  }

  /** Chooses a model, and its personality, if there is one of this name. */
  choose(name) {
    const offered = Array.from(this.#models.options, ({ value }) => value);
    const base =
      offered.find((one) => one === name) ?? offered.find((one) => name?.startsWith(`${one}:`));
    if (base === undefined) return;
    this.#models.value = base;
    this.#offerPersonalities();
    if (base !== name) this.#personalities.value = name.slice(base.length + 1);
  }

  /** Lists the models that the server has, without those that do not chat; says whether one is being loaded. */
  async loadModels() {
    const [{ data }, info] = await Promise.all([ask("v1/models"), ask("v1/info")]),
      { models } = info;
    this.#storesChats = info.stores_chats;
    this.#mayAdminister = info.may_administer;
    this.#detachesChats = info.detaches_chats;
    this.#servesFolder = info.serves_models_folder;
    byId("tools-field").hidden = !info.answers_mcp;
    const silent = models.filter(({ kind }) => kind && kind !== "chat").map(({ id }) => id);
    this.#local = models;
    this.#listed = data.filter(({ id, alias_of: base }) => !silent.includes(base ?? id));
    const { names } = this;
    this.#models.replaceChildren(...names.map((name) => make("option", { value: name }, name)));
    if (names.length === 0) this.#models.append(make("option", { value: "" }, t("No model")));
    this.#models.disabled = names.length === 0;
    this.isLoaded = true;
    this.#offerPersonalities();
    this.choose(localStorage.getItem("model"));
    return models.some(({ state }) => state === "starting");
  }

  /** The roles that the chosen model has, where the server tells of any. */
  #offerPersonalities() {
    const base = this.#base;
    const names = this.#listed
      .filter((model) => model.personality_of === base)
      .map(({ id }) => id.slice(base.length + 1));
    this.#personalities.replaceChildren(
      make("option", { value: "" }, t("As it is")),
      ...names.map((name) => make("option", { value: name }, name)),
    );
    this.#personalities.parentElement.hidden = names.length === 0;
  }

  /** A system prompt is of its chat alone, unless new chats are to have it too. */
  #keepSystem() {
    if (this.#isStandard.checked) keep("system", this.system);
    else if (document.activeElement === this.#isStandard) keep("system", "");
    this.#tellSystem();
  }

  #tellSystem() {
    byId("open-options").classList.toggle("is-set", this.system !== "");
    byId("open-options").title = this.system ? t("This chat has a system prompt.") : "";
  }

  #watchKey(onKey) {
    const field = byId("key"),
      isKept = byId("keep-key");
    field.value = key.value;
    isKept.checked = key.isKept;
    const change = () => {
      key.set(field.value.trim(), { isKept: isKept.checked });
      onKey();
    };
    field.addEventListener("change", change);
    isKept.addEventListener("change", change);
  }
}

const standardSystem = () => localStorage.getItem("system") ?? "";

function keep(name, value) {
  if (value === "") localStorage.removeItem(name);
  else localStorage.setItem(name, value);
}

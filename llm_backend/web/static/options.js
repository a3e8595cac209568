// Options of a chat: model, system prompt, parameters; and the key. Choices are remembered.

import { request } from "./api.js";
import { byId, make } from "./dom.js";
import { t } from "./language.js";
import { Parameters } from "./parameters.js";
import { apiKey } from "./start.js";
import { persistent } from "./storage.js";

export class Options {
  /** True once the models of the server are loaded. */
  isLoaded = false;
  #loading = Promise.resolve(); // of the models
  #models = byId("model");
  #personalities = byId("personality");
  #wanted = null; // name of the model of the open chat, or that the user chose
  #available = [];
  #local = [];
  #storesChats = "";
  #mayAdminister = false;
  #detachesChats = false;
  #servesFolder = false;
  #pullsModels = false;
  #removable = [];
  #system = byId("system");
  #isDefault = byId("keep-system");
  #parameters = new Parameters();
  #onModel;
  #onLoaded;

  /** `onKey` is called for another API key, `onModel` for another model or personality, and `onLoaded` once
   *  the models of the server are loaded, each time. */
  constructor({ onKey, onModel, onLoaded }) {
    this.#onModel = onModel;
    this.#onLoaded = onLoaded;
    for (const field of [this.#system, this.#isDefault])
      field.addEventListener("change", () => this.#rememberSystem(field));
    this.#models.addEventListener("change", () => this.#offerPersonalities());
    for (const field of [this.#models, this.#personalities])
      field.addEventListener("change", () => {
        this.#wanted = this.model;
        persistent.set("model", this.model);
        this.#onModel();
      });
    byId("entitle").checked = persistent.get("entitle") !== "no";
    byId("entitle").addEventListener("change", () =>
      persistent.set("entitle", this.isNamingChats ? "" : "no"),
    );
    byId("use-tools").checked = persistent.get("tools") === "yes";
    byId("use-tools").addEventListener("change", () =>
      persistent.set("tools", byId("use-tools").checked ? "yes" : ""),
    );
    byId("open-options").addEventListener("click", () => this.show(byId("options").hidden));
    document.addEventListener("pointerdown", ({ target }) => {
      if (this.isShown && !target.closest("#options, #open-options")) this.show(false);
    });
    this.#watchKey(onKey);
  }

  /** The model's name, followed by a colon and the personality's name if one is chosen. */
  get model() {
    const personality = this.#personalities.value;
    return personality ? `${this.#models.value}:${personality}` : this.#models.value;
  }

  /** The names of the models that chat. */
  get names() {
    return this.#available.filter((model) => !model.personality_of && !draws(model)).map(({ id }) => id);
  }

  /** True if the chosen model draws: each message then becomes an image. */
  get isDrawing() {
    return draws(this.#chosen);
  }

  /** True if the chosen model takes images by its description, is an upstream's without a
   * description, or draws (it can edit an image). */
  get canSee() {
    const { input_modalities: kinds } = this.#chosen ?? { input_modalities: [] }; // without a model
    return this.isDrawing || (kinds?.includes("image") ?? !this.isLocal);
  }

  /** True if text files can be put into messages to the chosen model: true of every model that
   * writes. */
  get takesDocuments() {
    return this.#chosen !== undefined && !this.isDrawing;
  }

  /** True if the model's description says that it takes PDFs, or does not say: then the upstream
   * may refuse one. */
  get takesPdfs() {
    return this.takesDocuments && !this.isLocal && (this.#chosen.input_modalities?.includes("file") ?? true);
  }

  /** True if the chosen model runs on this server. */
  get isLocal() {
    return this.#local.some(({ id }) => id === this.#base);
  }

  /** True if the chosen model is the one that comes with the server. */
  get isBuiltin() {
    return this.isLocal && this.#base === "builtin";
  }

  /** True if models of this server are to name new chats. */
  get isNamingChats() {
    return byId("entitle").checked;
  }

  /** True if the key administers. */
  get mayAdminister() {
    return this.#mayAdminister;
  }

  /** True if answers are detached: the server continues and stores them when the page is left. */
  get isDetaching() {
    return this.#detachesChats && this.isStoring;
  }

  /** True if a downloaded model is served at once. */
  get servesFolder() {
    return this.#servesFolder;
  }

  /** True if the server downloads models for keys that administer. */
  get pullsModels() {
    return this.#pullsModels;
  }

  /** The names of the models whose files the server can delete. */
  get removable() {
    return this.#removable;
  }

  /** True if models may call tools. */
  get usesTools() {
    return !this.isDrawing && !byId("tools-field").hidden && byId("use-tools").checked;
  }

  /** True if the server stores chats. */
  get isStoring() {
    return this.#storesChats !== "never";
  }

  get #chosen() {
    return this.#available.find(({ id }) => id === this.#models.value);
  }

  get #base() {
    return this.#chosen?.alias_of ?? this.#chosen?.id;
  }

  /** True if the chosen model runs on this server, and another one may embed files; the kind of a
   *  model that was never loaded is unknown. */
  get canReadFiles() {
    const others = this.#local.filter(({ id }) => id !== this.#base);
    const canEmbed = ({ kind, state }) => kind === "embedding" || (!kind && state === "unloaded");
    return !this.isDrawing && others.length < this.#local.length && others.some(canEmbed);
  }

  get hasKey() {
    return apiKey.value !== "";
  }

  get system() {
    return this.#system.value.trim();
  }

  set system(text) {
    this.#system.value = text;
    this.#isDefault.checked = text !== "" && text === defaultSystem();
    this.#showSystemState();
  }

  /** Sets the system prompt of new chats, if there is one. */
  resetSystem() {
    this.system = defaultSystem();
  }

  /** The parameters that are set, as fields of a request; throws for an invalid value. */
  get parameters() {
    return this.#parameters.body;
  }

  /** The models of this server, of every kind. */
  get local() {
    return this.#local;
  }

  get isShown() {
    return !byId("options").hidden;
  }

  /** Closes the options, and focuses the button that opens them. */
  hide() {
    this.show(false);
    byId("open-options").focus();
  }

  show(isShown) {
    byId("options").hidden = !isShown;
    byId("open-options").setAttribute("aria-expanded", isShown);
    if (isShown) this.#system.focus();
  }

  /** Shows and focuses one of the fields: for the key that the server needs, or a value to correct. */
  showField(field) {
    this.show(true);
    const section = field.closest("details");
    if (section) section.open = true;
    field.focus();
  }

  /** Chooses a model, and its personality, if there is one of this name; what the user chose is still
   *  remembered. */
  choose(name) {
    const before = this.model;
    this.#wanted = name ?? this.#wanted;
    this.#select(name);
    if (this.model !== before) this.#onModel();
  }

  #select(name) {
    const names = Array.from(this.#models.options, ({ value }) => value);
    const base =
      names.find((one) => one === name) ?? names.find((one) => name?.startsWith(`${one}:`));
    if (base === undefined) return;
    this.#models.value = base;
    this.#offerPersonalities();
    if (base !== name) this.#personalities.value = name.slice(base.length + 1);
  }

  /** Loads the models that chat and those that draw; returns whether one is still starting. */
  loadModels() {
    const loading = this.#loadModels();
    this.#loading = loading.catch(() => {}); // the caller's to show
    return loading;
  }

  /** Returns once a model can be chosen, or the models could not be loaded. */
  async settle() {
    if (!this.isLoaded) await this.#loading;
  }

  async #loadModels() {
    const [{ data }, info] = await Promise.all([request("v1/models"), request("v1/info")]),
      { models } = info;
    this.#storesChats = info.stores_chats;
    this.#mayAdminister = info.may_administer;
    this.#detachesChats = info.detaches_chats;
    this.#servesFolder = info.serves_models_folder;
    this.#pullsModels = info.pulls_models;
    byId("tools-field").hidden = !info.answers_mcp;
    const otherIds = models.filter(({ kind }) => kind && kind !== "chat").map(({ id }) => id);
    this.#local = models;
    this.#removable = data.filter(({ file }) => file).map(({ id }) => id);
    this.#available = data.filter((one) => draws(one) || !otherIds.includes(one.alias_of ?? one.id));
    const { names, model: before } = this,
      wanted = this.#wanted;
    const drawing = this.#available.filter(draws).map(({ id }) => id),
      isEmpty = names.length + drawing.length === 0;
    this.#models.replaceChildren(...names.map(optionOf));
    if (drawing.length)
      this.#models.append(make("optgroup", { label: t("Models that draw") }, ...drawing.map(optionOf)));
    if (isEmpty) this.#models.append(make("option", { value: "" }, t("No model")));
    this.#models.disabled = isEmpty;
    this.isLoaded = true;
    this.#offerPersonalities();
    for (const name of [persistent.get("model"), before, wanted]) this.#select(name);
    this.#onLoaded();
    return models.some(({ state }) => state === "starting");
  }

  /** Offers the personalities of the chosen model, if it has any. */
  #offerPersonalities() {
    const base = this.#base;
    const names = this.#available
      .filter((model) => model.personality_of === base)
      .map(({ id }) => id.slice(base.length + 1));
    this.#personalities.replaceChildren(
      make("option", { value: "" }, t("As it is")),
      ...names.map((name) => make("option", { value: name }, name)),
    );
    this.#personalities.parentElement.hidden = names.length === 0;
  }

  /** Remembers the system prompt if new chats are to have it, too, and forgets it if they are not any more;
   *  `changed` is the field that the user has changed. */
  #rememberSystem(changed) {
    if (this.#isDefault.checked) persistent.set("system", this.system);
    else if (changed === this.#isDefault) persistent.set("system", "");
    this.#showSystemState();
  }

  #showSystemState() {
    byId("open-options").classList.toggle("is-set", this.system !== "");
    byId("open-options").title = this.system ? t("This chat has a system prompt.") : "";
  }

  #watchKey(onKey) {
    const field = byId("key"),
      isRemembered = byId("keep-key");
    field.value = apiKey.value;
    isRemembered.checked = apiKey.isRemembered;
    const change = () => {
      apiKey.set(field.value.trim(), { isRemembered: isRemembered.checked });
      onKey();
    };
    field.addEventListener("change", change);
    isRemembered.addEventListener("change", change);
  }
}

const optionOf = (name) => make("option", { value: name }, name);

/** True for a model whose answers are images, and nothing else. */
const draws = (model) => model?.output_modalities?.join() === "image";

const defaultSystem = () => persistent.get("system") ?? "";

// What is asked of the model besides the messages: which one, its system prompt, its temperature;
// and the key. What was chosen is chosen the next time.

import { ask, key } from "./api.js";
import { byId, make } from "./dom.js";

export class Options {
  #models = byId("model");
  #system = byId("system");
  #temperature = byId("temperature");

  constructor({ onKey }) {
    this.#system.value = localStorage.getItem("system") ?? "";
    this.#system.addEventListener("change", () => keep("system", this.#system.value));
    this.#models.addEventListener("change", () => keep("model", this.#models.value));
    this.#temperature.addEventListener("input", () => this.#setTemperature(this.#temperature.value));
    byId("temperature-default").addEventListener("click", () => this.#setTemperature(""));
    this.#setTemperature(localStorage.getItem("temperature") ?? "");
    byId("open-options").addEventListener("click", () => this.show(byId("options").hidden));
    this.#watchKey(onKey);
  }

  get model() {
    return this.#models.value;
  }

  get system() {
    return this.#system.value.trim();
  }

  set system(text) {
    this.#system.value = text;
  }

  /** From 0 to 2; null leaves it to the model. */
  get temperature() {
    const chosen = localStorage.getItem("temperature") ?? "";
    return chosen === "" ? null : Number(chosen);
  }

  show(isShown) {
    byId("options").hidden = !isShown;
    byId("open-options").setAttribute("aria-expanded", isShown);
    if (isShown) this.#system.focus();
  }

  /** Shows the field for the key, which the server wants. */
  askForKey() {
    this.show(true);
    byId("key").focus();
  }

  /** Chooses a model, if there is one of this name. */
  choose(model) {
    if (Array.from(this.#models.options, ({ value }) => value).includes(model)) this.#models.value = model;
  }

  /** Lists the models that the server has. */
  async loadModels() {
    const { data } = await ask("v1/models");
    this.#models.replaceChildren(...data.flatMap(choices));
    this.#models.disabled = data.length === 0;
    this.choose(localStorage.getItem("model"));
  }

  #setTemperature(value) {
    keep("temperature", value);
    if (value !== "") this.#temperature.value = value;
    this.#temperature.classList.toggle("is-default", value === "");
    byId("temperature-shown").textContent = value === "" ? "the model’s own" : Number(value).toFixed(1);
    byId("temperature-default").hidden = value === "";
  }

  #watchKey(onKey) {
    const field = byId("key"), isKept = byId("keep-key");
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

function keep(name, value) {
  if (value === "") localStorage.removeItem(name);
  else localStorage.setItem(name, value);
}

/** A model, and it in each of its roles, where the server tells of any. */
function choices(model) {
  const names = [model.id, ...(model.personalities ?? []).map((name) => `${model.id}:${name}`)];
  return names.map((name) => make("option", { value: name }, name));
}

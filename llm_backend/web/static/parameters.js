// Parameters of an answer: what is left empty is the model's own. Choices are remembered.

import { RequestError } from "./api.js";
import { byId } from "./dom.js";
import { t } from "./language.js";

/** By the id of its field: the name in a request, and how its value is read. */
const FIELDS = {
  "max-tokens": { name: "max_completion_tokens", read: Number },
  "top-p": { name: "top_p", read: Number },
  seed: { name: "seed", read: Number },
  effort: { name: "reasoning_effort", read: String },
  stop: { name: "stop", read: (text) => text.split("\n").filter(Boolean) },
};

export class Parameters {
  #temperature = byId("temperature");

  constructor() {
    this.#temperature.addEventListener("input", () =>
      this.#setTemperature(this.#temperature.value),
    );
    byId("temperature-default").addEventListener("click", () => this.#setTemperature(""));
    for (const id of Object.keys(FIELDS)) {
      byId(id).value = remembered(id);
      byId(id).addEventListener("change", () => keep(id, byId(id).value));
    }
    byId("more-options").open = Object.keys(FIELDS).some((id) => remembered(id) !== "");
    this.#setTemperature(remembered("temperature"));
  }

  /** The fields of a request; throws for a value that cannot be. */
  get body() {
    const body = {};
    if (remembered("temperature") !== "") body.temperature = Number(remembered("temperature"));
    for (const [id, { name, read }] of Object.entries(FIELDS)) {
      const field = byId(id);
      if (!field.checkValidity())
        throw new RequestError(400, `${field.labels[0].textContent}: ${field.validationMessage}`);
      if (field.value !== "") body[name] = read(field.value);
    }
    return body;
  }

  #setTemperature(value) {
    if (value !== "") this.#temperature.value = value;
    this.#temperature.classList.toggle("is-default", value === "");
    byId("temperature-shown").textContent =
      value === "" ? t("the model’s own") : Number(value).toFixed(1);
    byId("temperature-default").hidden = value === "";
    keep("temperature", value);
  }
}

function keep(id, value) {
  if (value === "") localStorage.removeItem(id);
  else localStorage.setItem(id, value);
}

const remembered = (id) => localStorage.getItem(id) ?? "";

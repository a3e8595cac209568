// Parameters of an answer: an empty field leaves the value to the model. Choices are remembered.

import { RequestError } from "./api.js";
import { byId } from "./dom.js";
import { t } from "./language.js";
import { persistent } from "./storage.js";

/** By the id of its field: the name in a request, and the function that parses its value. */
const FIELDS = {
  "max-tokens": { name: "max_completion_tokens", parse: Number },
  "top-p": { name: "top_p", parse: Number },
  seed: { name: "seed", parse: Number },
  effort: { name: "reasoning_effort", parse: String },
  stop: { name: "stop", parse: (text) => text.split("\n").filter(Boolean) },
  format: { name: "response_format", parse: parseFormat },
};
const REMEMBERED = [...Object.keys(FIELDS), "schema"];

/** The value of a field cannot be a parameter. */
export class InvalidParameter extends RequestError {
  constructor(field, message) {
    super(400, message);
    this.field = field;
  }
}

export class Parameters {
  #temperature = byId("temperature");
  #temperatureChosen = ""; // as text; what is stored may be another tab's

  constructor() {
    this.#temperature.addEventListener("input", () =>
      this.#setTemperature(this.#temperature.value),
    );
    byId("temperature-default").addEventListener("click", () => this.#setTemperature(""));
    for (const id of REMEMBERED) {
      byId(id).value = choiceOf(id);
      byId(id).addEventListener("change", () => persistent.set(id, byId(id).value));
    }
    byId("format").addEventListener("change", () => this.#offerSchema());
    this.#offerSchema();
    byId("more-options").open = Object.keys(FIELDS).some((id) => choiceOf(id) !== "");
    this.#setTemperature(choiceOf("temperature"));
  }

  /** The fields of a request; throws for an invalid value. */
  get body() {
    const body = {};
    if (this.#temperatureChosen !== "") body.temperature = Number(this.#temperatureChosen);
    for (const [id, { name, parse }] of Object.entries(FIELDS)) {
      const field = byId(id);
      if (!field.checkValidity())
        throw new InvalidParameter(field, `${field.labels[0].textContent}: ${field.validationMessage}`);
      if (field.value !== "") body[name] = parse(field.value);
    }
    return body;
  }

  #offerSchema() {
    byId("schema-field").hidden = byId("format").value !== "json_schema";
  }

  #setTemperature(value) {
    this.#temperatureChosen = value;
    if (value !== "") this.#temperature.value = value;
    this.#temperature.classList.toggle("is-default", value === "");
    byId("temperature-shown").textContent =
      value === "" ? t("the model’s own") : Number(value).toFixed(1);
    byId("temperature-default").hidden = value === "";
    persistent.set("temperature", value);
  }
}

/** Returns the response format of a type; throws for a schema that is no JSON. */
function parseFormat(type) {
  if (type !== "json_schema") return { type };
  try {
    return { type, json_schema: { name: "answer", schema: JSON.parse(byId("schema").value) } };
  } catch {
    throw new InvalidParameter(byId("schema"), t("The JSON schema of the options is no JSON."));
  }
}

const choiceOf = (id) => persistent.get(id) ?? "";

// Limits of a project: requests and tokens by model, and what it may spend.

import { request } from "./api.js";
import { announce, make } from "./dom.js";
import { t } from "./language.js";
import { row, table } from "./tables.js";

const UNLIMITED = 1_000_000_000; // the document's number for no limit
const CENTS = 100; // of a unit of the currency

const FIELDS = {
  max_requests_per_1_minute: t("Requests a minute"),
  max_tokens_per_1_minute: t("Tokens a minute"),
  max_requests_per_1_day: t("Requests a day"),
};

/** The table of a project's limits, which are changed in it; `run` shows failures of a change, and
 *  `path` is the project's. An empty field is no limit. */
export function limitTable(limits, spend, path, run) {
  const rows = limits.map((one) => limitRow(one, path, run));
  const section = table(
    t("Limits of the project"),
    [t("Model"), ...Object.values(FIELDS), ""],
    make("tbody", {}, ...rows),
  );
  section.append(spendForm(spend, `${path}/spend_limit`, run));
  return section;
}

function limitRow(limit, path, run) {
  const id = `limits-${limit.id}`;
  const inputs = Object.entries(FIELDS).map(([field, label]) => {
    const value = limit[field] ?? UNLIMITED;
    const input = numberInput(`${label}: ${limit.model}`, value >= UNLIMITED ? "" : value);
    input.setAttribute("form", id);
    input.name = field;
    return input;
  });
  const onsubmit = (event) => {
    event.preventDefault();
    const changed = inputs.filter(({ value, defaultValue }) => value !== defaultValue);
    if (changed.length === 0) return; // unchanged fields keep the limits of the settings
    const body = Object.fromEntries(
      changed.map(({ name, value }) => [name, value === "" ? UNLIMITED : Number(value)]),
    );
    run(async () => {
      await request(`${path}/rate_limits/${encodeURIComponent(limit.id)}`, { method: "POST", body });
      for (const input of changed) input.defaultValue = input.value;
      announce(t("Saved"));
    });
  };
  const label = t("Save the limits of {model}", { model: limit.model });
  const button = make("button", { className: "link", "aria-label": label }, t("Save"));
  return row(limit.model, ...inputs, make("form", { id, onsubmit }, button));
}

function spendForm(spend, path, run) {
  const currency = spend?.currency ?? "USD";
  const amount = spend ? spend.threshold_amount / CENTS : "";
  const input = numberInput(t("Spend limit per month"), amount, 1 / CENTS);
  input.id = "spend-limit";
  const onsubmit = (event) => {
    event.preventDefault();
    const { value, defaultValue } = input;
    if (value === defaultValue) return;
    const cents = Math.round(Number(value) * CENTS);
    const body = { threshold_amount: cents, currency, interval: "month" };
    run(async () => {
      await request(path, value === "" ? { method: "DELETE" } : { method: "POST", body });
      input.defaultValue = value;
      announce(t("Saved"));
    });
  };
  return make(
    "form",
    { className: "filter limit", onsubmit },
    make("label", { for: input.id }, t("Spend limit per month")),
    input,
    make("span", {}, currency),
    make("button", { className: "quiet" }, t("Save the spend limit")),
  );
}

/** A field for a number of at least 0; empty for none. */
const numberInput = (label, value, step = 1) =>
  make("input", {
    type: "number",
    min: 0,
    max: UNLIMITED - 1,
    step,
    defaultValue: value,
    placeholder: t("no limit"),
    className: "limit",
    "aria-label": label,
  });

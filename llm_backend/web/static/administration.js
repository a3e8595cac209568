// Administration: keys, projects, limits, usage, costs and the audit log, for keys that administer.

import { request, requestAll } from "./api.js";
import { isConfirmed } from "./confirm.js";
import { byId, make, submit } from "./dom.js";
import { language, t } from "./language.js";
import { limitTable } from "./limits.js";
import { copyButton } from "./copy_button.js";
import { bars } from "./plot.js";
import { DEFAULT_PROJECT, projectTable } from "./projects.js";
import { apiKey } from "./start.js";
import { row, table } from "./tables.js";

const API = "v1/organization";
const DAY_S = 86_400;
const PERIODS = [7, 30]; // days
const UNNAMED = "Secret Key";
const MAX_LOG_ENTRIES = 50; // of the audit log
const MAX_KEYS = 100; // shown in a table

const count = new Intl.NumberFormat(language);
const when = new Intl.DateTimeFormat(language, { dateStyle: "medium", timeStyle: "short" });
const day = new Intl.DateTimeFormat(language, { dateStyle: "medium", timeZone: "UTC" });

export class AdministrationPage {
  #element = byId("administration-view");
  #project = DEFAULT_PROJECT;
  #days = PERIODS[0];
  #reads = 0; // counted, as only the latest is shown

  /** Shows the page with the projects and figures of now. */
  async open() {
    this.#build(await requestAll(`${API}/projects`, { include_archived: "true" }));
    await this.#read();
  }

  #build(projects) {
    const choice = make(
      "select",
      { id: "project", onchange: () => this.#choose({ project: choice.value }) },
      ...projects.map(({ id, name }) => make("option", { value: id }, name ?? id)),
    );
    if (!projects.some(({ id }) => id === this.#project)) this.#project = projects[0].id;
    choice.value = this.#project;
    this.periods = make(
      "div",
      { className: "choices", role: "group", "aria-label": t("Days") },
      ...PERIODS.map((days) =>
        make(
          "button",
          { type: "button", "data-days": days, onclick: () => this.#choose({ days }) },
          t("{days} days", { days }),
        ),
      ),
    );
    this.failure = make("p", { className: "notice", role: "alert", hidden: true });
    this.created ??= make("div", { role: "status" }); // a new key stays when projects change
    this.figures = make("dl", { className: "figures is-even" });
    this.tables = make("div", {});
    this.#element.replaceChildren(
      make("header", {}, make("h1", {}, t("Administration"))),
      make(
        "div",
        { className: "filter" },
        make("label", { for: "project" }, t("Project")),
        choice,
        this.periods,
      ),
      this.failure,
      this.figures,
      this.#keyForm(),
      this.created,
      this.tables,
      projectTable(projects, `${API}/projects`, (work) => this.#changeProjects(work), formatTime),
    );
  }

  #changeProjects(work) {
    return this.#run(async () => {
      this.#project = (await work()) ?? this.#project;
      await this.open();
    });
  }

  #choose({ project = this.#project, days = this.#days }) {
    this.#project = project;
    this.#days = days;
    this.#run(() => this.#read());
  }

  async #run(work) {
    this.failure.hidden = true;
    try {
      await work();
    } catch (error) {
      this.failure.textContent = error.message;
      this.failure.hidden = false;
    }
  }

  async #read() {
    const readIndex = (this.#reads += 1);
    const isLatest = () => readIndex === this.#reads;
    for (const one of this.periods.children)
      one.setAttribute("aria-pressed", Number(one.dataset.days) === this.#days);
    const path = `${API}/projects/${encodeURIComponent(this.#project)}`;
    const results = await Promise.all([
      this.#buckets("usage/completions", "&group_by=model"),
      this.#buckets("costs"),
      request(`${path}/api_keys?limit=${MAX_KEYS}`),
      request(`${API}/admin_api_keys?limit=${MAX_KEYS}`),
      requestAll(`${path}/rate_limits`),
      orNull(request(`${path}/spend_limit`)),
      request(`${API}/audit_logs?limit=${MAX_LOG_ENTRIES}`),
    ]).catch((error) => {
      if (isLatest()) throw error;
    });
    if (!isLatest()) return; // another project or period was chosen meanwhile
    const [usage, costs, keys, admins, limits, spend, log] = results;
    this.#drawFigures(usage, costs);
    this.tables.replaceChildren(
      usageTable(usage),
      this.#keyTable(t("Keys of the project"), keys, `${path}/api_keys`),
      this.#keyTable(t("Admin keys"), admins, `${API}/admin_api_keys`),
      limitTable(limits, spend, path, (work) => this.#run(work)),
      logTable(log.data),
    );
  }

  /** Returns a bucket for each day, in UTC; the last is today. */
  async #buckets(path, more = "") {
    const today = Math.floor(Date.now() / 1000 / DAY_S) * DAY_S;
    const query = new URLSearchParams({
      start_time: today - (this.#days - 1) * DAY_S,
      bucket_width: "1d",
      limit: this.#days,
      project_ids: this.#project,
    });
    return (await request(`${API}/${path}?${query}${more}`)).data;
  }

  #drawFigures(usage, costs) {
    const currency = costs.flatMap(({ results }) => results)[0]?.amount.currency ?? "usd";
    const money = new Intl.NumberFormat(language, {
      style: "currency",
      currency,
      maximumFractionDigits: 4,
    });
    const sum = (amountOf) => (bucket) => bucket.results.reduce((all, one) => all + amountOf(one), 0);
    const figures = [
      [t("Requests"), usage, sum((one) => one.num_model_requests), count],
      [t("Tokens read"), usage, sum((one) => one.input_tokens), count],
      [t("Tokens written"), usage, sum((one) => one.output_tokens), count],
      [t("Costs"), costs, sum((one) => one.amount.value), money],
    ];
    this.figures.replaceChildren(
      ...figures.map(([name, buckets, sumOf, format]) => figure(name, buckets, sumOf, format)),
    );
  }

  #keyTable(title, { data, has_more: hasMore }, path) {
    const rows = data.map((one) => {
      const name = nameOf(one),
        label = t("Revoke {name}", { name });
      const onclick = () => this.#run(() => this.#revoke(one, path));
      const button = make(
        "button",
        { type: "button", className: "link", "aria-label": label, onclick },
        t("Revoke"),
      );
      return row(
        name,
        make("code", {}, one.redacted_value),
        formatTime(one.created_at),
        one.last_used_at ? formatTime(one.last_used_at) : t("never"),
        button,
      );
    });
    const section = table(
      title,
      [t("Name"), t("Key"), t("Created"), t("Last used"), ""],
      make("tbody", {}, ...(rows.length ? rows : [row("–", null, null, null, "")])),
    );
    if (hasMore)
      section.append(make("p", { className: "hint" }, t("The first {count} are shown.", { count: MAX_KEYS })));
    return section;
  }

  async #revoke(one, path) {
    const name = nameOf(one);
    const question = t("Revoke the key “{name}”? Programs that use it are refused from then on.", { name });
    if (!(await isConfirmed(question, { yes: t("Revoke") }))) return;
    await request(`${path}/${encodeURIComponent(one.id)}`, { method: "DELETE" });
    this.created.replaceChildren();
    await this.#read();
  }

  #keyForm() {
    const name = make("input", { type: "text", id: "key-name", required: true, maxLength: 100 });
    const kind = make(
      "select",
      { id: "key-kind" },
      make("option", { value: "" }, t("calls models")),
      make("option", { value: "admin" }, t("administers")),
    );
    const create = async () => {
      if (await this.#create(name.value.trim(), kind.value === "admin")) name.value = "";
    };
    const onsubmit = (event) => submit(event, () => this.#run(create));
    return make(
      "form",
      { className: "filter new-key", onsubmit },
      make("label", { for: "key-name" }, t("New key")),
      name,
      make("label", { for: "key-kind", className: "hidden" }, t("What the key does")),
      kind,
      make("button", { className: "quiet" }, t("Create")),
    );
  }

  async #create(name, isAdmin) {
    const isOpen = apiKey.value === "";
    if (isOpen && !(await isConfirmed(OPEN, { yes: t("Create"), no: t("Cancel") }))) return false;
    const path = isAdmin
      ? `${API}/admin_api_keys`
      : `${API}/projects/${encodeURIComponent(this.#project)}/service_accounts`;
    const created = await request(path, { method: "POST", body: { name } }),
      value = isAdmin ? created.value : created.api_key.value;
    const copy = navigator.clipboard ? [copyButton(t("Copy the key"), () => value)] : [];
    this.created.replaceChildren(
      make(
        "p",
        { className: "notice is-mild" },
        t("This is the only time that the key “{name}” is shown:", { name }),
        make("code", {}, value),
        ...copy,
      ),
    );
    await this.#read();
    return true;
  }
}

const OPEN = t("This server is open. From its first key on it wants a key from everyone, and from this page. Go on?");

/** The name of a key's owner, and the key's own name if it differs. */
function nameOf({ name, owner }) {
  const { email, name: account } = owner.user ?? owner.service_account ?? owner,
    has = email || account || name;
  return name === has || name === UNNAMED ? has : `${has} (${name})`;
}

const formatTime = (seconds) => when.format(seconds * 1000);

/** The answer to a request; null for a 404. */
async function orNull(answer) {
  try {
    return await answer;
  } catch (error) {
    if (error.status === 404) return null;
    throw error;
  }
}

function figure(name, buckets, sumOf, format) {
  const values = buckets.map(sumOf),
    days = buckets.map(({ start_time: at }) => day.format(at * 1000)),
    titles = values.map((value, index) => `${days[index]}: ${format.format(value)}`);
  const total = format.format(values.reduce((one, other) => one + other, 0));
  const label = t("{name} by day, from {first} to {last}", {
    name,
    first: titles[0],
    last: titles.at(-1),
  });
  return make(
    "div",
    {},
    make("dt", {}, name),
    make("dd", {}, total),
    make("dd", { className: "line" }, bars(values, titles, label)),
  );
}

function usageTable(buckets) {
  const models = new Map();
  for (const one of buckets.flatMap(({ results }) => results)) {
    const sums = models.get(one.model) ?? [0, 0, 0];
    const more = [one.num_model_requests, one.input_tokens, one.output_tokens];
    models.set(one.model, sums.map((sum, index) => sum + more[index]));
  }
  const rows = [...models].map(([model, sums]) => row(model, ...sums.map((one) => count.format(one))));
  return table(
    t("Usage by model"),
    [t("Model"), t("Requests"), t("Tokens read"), t("Tokens written")],
    make("tbody", {}, ...(rows.length ? rows : [row("–", null, null, null)])),
  );
}

function logTable(entries) {
  const rows = entries.map((one) => {
    const { actor, project, type, effective_at: at } = one;
    const by = actor?.api_key?.user?.email ?? actor?.api_key?.id ?? t("the server’s shell");
    return row(formatTime(at), make("code", {}, type), by, project?.name, one[type]?.id);
  });
  return table(
    t("Audit log"),
    [t("When"), t("What"), t("By"), t("Project"), t("ID")],
    make("tbody", {}, ...rows),
  );
}

// Projects: all of them, a new one, and the archive.

import { request } from "./api.js";
import { isConfirmed } from "./confirm.js";
import { make, submit } from "./dom.js";
import { t } from "./language.js";
import { row, table } from "./tables.js";

const STATES = { active: t("active"), archived: t("archived") };

export const DEFAULT_PROJECT = "proj_default"; // which stays

/** The table of all projects. `change` runs a change, which may return the id of the project to be
 *  shown, and shows its failure; `formatTime` shows seconds. */
export function projectTable(projects, path, change, formatTime) {
  const rows = projects.map((project) => {
    const { id, name, created_at: at, status } = project;
    const canArchive = status === "active" && id !== DEFAULT_PROJECT;
    const button = canArchive ? archiveButton(project, path, change) : "";
    return row(name ?? id, make("code", {}, id), formatTime(at), STATES[status] ?? status, button);
  });
  const section = table(
    t("Projects"),
    [t("Project"), t("ID"), t("Created"), t("State"), ""],
    make("tbody", {}, ...rows),
  );
  section.append(newProjectForm(path, change));
  return section;
}

function archiveButton({ id, name }, path, change) {
  const label = t("Archive {name}", { name: name ?? id });
  const question = t("Archive the project “{name}”? Its keys are refused from then on, for good.", {
    name: name ?? id,
  });
  const archive = async () => {
    await request(`${path}/${encodeURIComponent(id)}/archive`, { method: "POST", body: {} });
  };
  const onclick = async () => {
    if (await isConfirmed(question, { yes: t("Archive"), no: t("Cancel") })) change(archive);
  };
  return make(
    "button",
    { type: "button", className: "link", "aria-label": label, onclick },
    t("Archive"),
  );
}

function newProjectForm(path, change) {
  const name = make("input", { type: "text", id: "project-name", required: true, maxLength: 100 });
  const create = async () => {
    const { id } = await request(path, { method: "POST", body: { name: name.value.trim() } });
    return id;
  };
  const onsubmit = (event) => submit(event, () => change(create));
  return make(
    "form",
    { className: "filter new-key", onsubmit },
    make("label", { for: name.id }, t("New project")),
    name,
    make("button", { className: "quiet" }, t("Create the project")),
  );
}

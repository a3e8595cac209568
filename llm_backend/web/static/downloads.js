// Downloads of models from the Hugging Face hub into the server's folder, with their progress.

import { lines } from "./api.js";
import { make } from "./dom.js";
import { language, t } from "./language.js";

const megabytes = new Intl.NumberFormat(language, { maximumFractionDigits: 0 });

/** A form that downloads a model; `onDone` is called with its name. */
export function downloadForm({ isServed, onDone }) {
  const name = make("input", {
    type: "text",
    id: "download-name",
    required: true,
    placeholder: "OWNER/NAME:QUANT",
    spellcheck: false,
    maxLength: 200,
  });
  const button = make("button", { className: "quiet" }, t("Download")),
    bar = make("progress", { max: 1, value: 0, hidden: true, "aria-label": t("Progress of the download") }),
    told = make("p", { className: "hint", role: "status" });
  let ending = null;
  const onsubmit = async (event) => {
    event.preventDefault();
    if (ending) return ending.abort();
    ending = new AbortController();
    button.textContent = t("Stop");
    try {
      await download(name.value.trim(), ending.signal, bar, told);
      told.textContent = isServed
        ? t("{name} is downloaded.", { name: name.value.trim() })
        : t("{name} is downloaded. Start the server with --model {name}, or with --serve-models-folder.", {
            name: name.value.trim(),
          });
      onDone();
    } catch (error) {
      told.textContent = ending.signal.aborted
        ? t("Stopped. The download goes on from here when it is begun again.")
        : error.message;
    }
    ending = null;
    bar.hidden = true;
    button.textContent = t("Download");
  };
  return make(
    "section",
    {},
    make("h2", {}, t("Download a model")),
    make(
      "form",
      { className: "filter new-key", onsubmit },
      make("label", { for: "download-name" }, t("Model of the Hugging Face hub")),
      name,
      button,
    ),
    bar,
    told,
  );
}

async function download(model, signal, bar, told) {
  bar.hidden = false;
  bar.removeAttribute("value"); // it is not known how much there is
  for await (const { status, total, completed } of lines("api/pull", { body: { model }, signal })) {
    if (!total) continue;
    bar.value = completed / total;
    told.textContent = t("{file}: {done} of {all} MB", {
      file: status,
      done: megabytes.format(completed / 1e6),
      all: megabytes.format(total / 1e6),
    });
  }
}

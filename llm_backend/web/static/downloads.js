// Downloads of models from the Hugging Face hub into the server's folder, with their progress.

import { ConnectionLost, streamLines } from "./api.js";
import { make } from "./dom.js";
import { formatCount, t } from "./language.js";

/** A form that downloads a model. */
export function downloadForm({ isServed }) {
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
    progress = make("p", { className: "hint" }), // not announced: it changes all the time
    state = make("p", { className: "hint", role: "status" });
  let controller = null;
  const onsubmit = async (event) => {
    event.preventDefault();
    if (controller) return controller.abort();
    controller = new AbortController();
    const model = name.value.trim(); // the field may change meanwhile
    button.textContent = t("Stop");
    button.formNoValidate = true; // the field may be empty
    state.textContent = "";
    try {
      await download(model, controller.signal, bar, progress);
      state.textContent = isServed
        ? t("{name} is downloaded.", { name: model })
        : t("{name} is downloaded. Start the server with --model {name}, or with --serve-models-folder.", {
            name: model,
          });
    } catch (error) {
      state.textContent = controller.signal.aborted
        ? t("Stopped. The download goes on from here when it is begun again.")
        : error.message;
    }
    controller = null;
    bar.hidden = true;
    progress.textContent = "";
    button.textContent = t("Download");
    button.formNoValidate = false;
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
    progress,
    state,
  );
}

async function download(model, signal, bar, progress) {
  bar.hidden = false;
  bar.removeAttribute("value"); // it is not known how much there is
  let last;
  for await (const { status, total, completed: read = 0 } of streamLines("api/pull", { body: { model }, signal })) {
    last = status;
    if (!total) continue;
    const completed = Math.min(read, total);
    bar.value = completed / total;
    progress.textContent = t("{file}: {done} of {all} MB", {
      file: status,
      done: formatCount(completed / 1e6),
      all: formatCount(total / 1e6),
    });
  }
  if (last !== "success") throw new ConnectionLost(); // a proxy may end a body as if it were whole
}

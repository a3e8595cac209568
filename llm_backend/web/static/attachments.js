// Files of a conversation: stored in a vector store of its own, which the server searches before a
// local model answers.
//
// The store is named in the chat's metadata, so that the files are there when it is opened again, and
// it is deleted with the chat; an unused one expires after a month.

import { RequestError, ask, askAll, upload } from "./api.js";
import { byId, icon, iconButton, make } from "./dom.js";
import { t } from "./language.js";
import { Pictures } from "./pictures.js";

const STORES = "v1/vector_stores";
const KEPT_DAYS = 30;
const ASKED_EVERY_MS = 400;

export class Attachments {
  #chips = byId("attachments");
  #field = byId("files");
  #storeId = null;
  #isSeeing = false;
  #isReading = false;
  #pictures;
  #files = []; // each with `id`, `name`, `isKept`, and `isReady`, a promise
  #onFailed;

  constructor({ pictures, onFailed }) {
    this.#pictures = pictures;
    this.#onFailed = onFailed;
    byId("attach").addEventListener("click", () => this.#field.click());
    this.#field.addEventListener("change", () => {
      this.#addAll([...this.#field.files]); // the field's own list is cleared with its value
      this.#field.value = "";
    });
    byId("prompt").addEventListener("paste", (event) => this.#paste(event));
    const main = byId("main");
    main.addEventListener("dragover", (event) => {
      if (event.dataTransfer.types.includes("Files") && !byId("attach").hidden)
        event.preventDefault();
    });
    main.addEventListener("drop", (event) => {
      if (!event.dataTransfer.files.length || byId("attach").hidden) return;
      event.preventDefault();
      this.#addAll([...event.dataTransfer.files]);
    });
  }

  /** A picture that was copied is attached; text stays text, also where programs copy a picture of it. */
  #paste(event) {
    const { files, types } = event.clipboardData;
    if (!files.length || types.includes("text/plain") || byId("attach").hidden) return;
    event.preventDefault();
    this.#addAll([...files]);
  }

  /** Offers to attach what the model can see, and what it can read. */
  offer({ canSee, canReadFiles }) {
    this.#isSeeing = canSee;
    this.#isReading = canReadFiles;
    byId("attach").hidden = !canSee && !canReadFiles;
    this.#field.accept = canReadFiles ? "" : "image/*";
  }

  /** Those of a conversation that is opened; none for a new one. */
  async show(storeId) {
    this.#storeId = storeId ?? null;
    this.#files = [];
    this.#draw();
    if (!storeId) return;
    try {
      const files = await askAll(`${STORES}/${encodeURIComponent(storeId)}/files`);
      this.#files = await Promise.all(
        files.map(async ({ id }) => ({
          id,
          name: (await ask(`v1/files/${id}`)).filename,
          isKept: true,
          isReady: Promise.resolve(),
        })),
      );
    } catch (error) {
      if (error.status !== 404) throw error; // it has expired
      this.#storeId = null;
    }
    this.#draw();
  }

  /** The vector store to be searched for a question, once all files are in it; null where there are none. */
  async searched() {
    await Promise.allSettled(this.#files.map(({ isReady }) => isReady));
    return this.#files.length ? this.#storeId : null;
  }

  async #addAll(files) {
    for (const file of files) {
      try {
        if (this.#isSeeing && Pictures.takes(file)) await this.#pictures.add(file);
        else if (this.#isReading) await this.#add(file);
        else throw new RequestError(0, t("{name} is no picture that the model can see.", file));
      } catch (error) {
        this.#onFailed(error);
      }
    }
  }

  async #add(file) {
    const attached = { id: null, name: file.name, isKept: false };
    this.#files.push(attached);
    attached.isReady = this.#keep(file, attached);
    this.#draw();
    try {
      await attached.isReady;
    } catch (error) {
      this.#files = this.#files.filter((one) => one !== attached);
      throw error;
    } finally {
      attached.isKept = true;
      this.#draw();
    }
  }

  /** Uploads a file, adds it to the store, and waits until it can be searched. */
  async #keep(file, attached) {
    const form = new FormData();
    form.append("purpose", "user_data");
    form.append("file", file);
    attached.id = (await upload("v1/files", form)).id;
    this.#storeId ??= (
      await ask(STORES, {
        method: "POST",
        body: {
          name: "Files of a chat",
          expires_after: { anchor: "last_active_at", days: KEPT_DAYS },
        },
      })
    ).id;
    const path = `${STORES}/${this.#storeId}/files`;
    let state = await ask(path, { method: "POST", body: { file_id: attached.id } });
    while (state.status === "in_progress") {
      await new Promise((resolve) => setTimeout(resolve, ASKED_EVERY_MS));
      state = await ask(`${path}/${attached.id}`);
    }
    if (state.status !== "completed")
      throw new RequestError(
        0,
        t("{name} cannot be read: {reason}", {
          name: file.name,
          reason: state.last_error?.message ?? state.status,
        }),
      );
  }

  async #remove(attached) {
    this.#files = this.#files.filter((one) => one !== attached);
    this.#draw();
    try {
      await forgetFile(attached.id);
    } catch (error) {
      this.#onFailed(error);
    }
  }

  #draw() {
    this.#chips.hidden = this.#files.length === 0;
    this.#chips.replaceChildren(
      ...this.#files.map((file) =>
        make(
          "li",
          { className: file.isKept ? "" : "is-waiting" },
          icon("file"),
          make("span", {}, file.name),
          iconButton("close", t("Remove {name}", file), () => this.#remove(file)),
        ),
      ),
    );
  }
}

/** Deletes a chat's vector store and its files. */
export async function forgetFiles(storeId) {
  const path = `${STORES}/${encodeURIComponent(storeId)}`;
  try {
    const files = await askAll(`${path}/files`);
    await Promise.all(files.map(({ id }) => forgetFile(id)));
    await ask(path, { method: "DELETE" });
  } catch (error) {
    if (error.status !== 404) throw error;
  }
}

/** Deletes a file, which also removes it from its store; a missing file is no error. */
async function forgetFile(id) {
  try {
    await ask(`v1/files/${encodeURIComponent(id)}`, { method: "DELETE" });
  } catch (error) {
    if (error.status !== 404) throw error;
  }
}

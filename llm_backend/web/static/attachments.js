// Files of a conversation: stored in a vector store of its own, which the server searches before a
// local model answers.
//
// The store is named in the chat's metadata, so that the files are there when it is opened again, and
// it is deleted with the chat; an unused one expires after a month.

import { RequestError, request, requestAll, upload } from "./api.js";
import { byId, icon, iconButton, make } from "./dom.js";
import { t } from "./language.js";
import { Pictures } from "./pictures.js";

const STORES = "v1/vector_stores";
const EXPIRES_AFTER_DAYS = 30;
const POLL_MS = 400;

export class Attachments {
  #chips = byId("attachments");
  #field = byId("files");
  #storeId = null;
  #canSee = false;
  #canReadFiles = false;
  #pictures;
  #files = []; // each with `id`, `name`, `isStored`, and `isReady`, a promise
  #onFailed;

  constructor({ pictures, onFailed }) {
    this.#pictures = pictures;
    this.#onFailed = onFailed;
    byId("attach").addEventListener("click", () => this.#field.click());
    this.#field.addEventListener("change", () => {
      this.#addAll([...this.#field.files]); // the field's own list is emptied with its value
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

  /** Attaches copied files; copied text stays text, even where a program adds a picture of it. */
  #paste(event) {
    const { files, types } = event.clipboardData;
    if (!files.length || types.includes("text/plain") || byId("attach").hidden) return;
    event.preventDefault();
    this.#addAll([...files]);
  }

  /** Offers to attach the kinds of files that the model takes. */
  offer({ canSee, canReadFiles }) {
    this.#canSee = canSee;
    this.#canReadFiles = canReadFiles;
    byId("attach").hidden = !canSee && !canReadFiles;
    this.#field.accept = canReadFiles ? "" : "image/*";
  }

  /** Shows the files of a store; null for a chat without files. */
  async show(storeId) {
    this.#storeId = storeId ?? null;
    this.#files = [];
    this.#draw();
    if (!storeId) return;
    try {
      const files = await requestAll(`${STORES}/${encodeURIComponent(storeId)}/files`);
      this.#files = await Promise.all(
        files.map(async ({ id }) => ({
          id,
          name: (await request(`v1/files/${id}`)).filename,
          isStored: true,
          isReady: Promise.resolve(),
        })),
      );
    } catch (error) {
      if (error.status !== 404) throw error; // it has expired
      this.#storeId = null;
    }
    this.#draw();
  }

  /** Waits until all files can be searched; returns the id of their vector store, or null without files. */
  async readyStore() {
    await Promise.allSettled(this.#files.map(({ isReady }) => isReady));
    return this.#files.length ? this.#storeId : null;
  }

  async #addAll(files) {
    for (const file of files) {
      try {
        if (this.#canSee && Pictures.takes(file)) await this.#pictures.add(file);
        else if (this.#canReadFiles) await this.#add(file);
        else throw new RequestError(0, t("{name} is no picture that the model can see.", file));
      } catch (error) {
        this.#onFailed(error);
      }
    }
  }

  async #add(file) {
    const attachment = { id: null, name: file.name, isStored: false };
    this.#files.push(attachment);
    attachment.isReady = this.#store(file, attachment);
    this.#draw();
    try {
      await attachment.isReady;
    } catch (error) {
      this.#files = this.#files.filter((one) => one !== attachment);
      throw error;
    } finally {
      attachment.isStored = true;
      this.#draw();
    }
  }

  /** Uploads a file, adds it to the vector store, and waits until it can be searched. */
  async #store(file, attachment) {
    const form = new FormData();
    form.append("purpose", "user_data");
    form.append("file", file);
    attachment.id = (await upload("v1/files", form)).id;
    this.#storeId ??= (
      await request(STORES, {
        method: "POST",
        body: {
          name: "Files of a chat",
          expires_after: { anchor: "last_active_at", days: EXPIRES_AFTER_DAYS },
        },
      })
    ).id;
    const path = `${STORES}/${this.#storeId}/files`;
    let state = await request(path, { method: "POST", body: { file_id: attachment.id } });
    while (state.status === "in_progress") {
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
      state = await request(`${path}/${attachment.id}`);
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

  async #remove(attachment) {
    this.#files = this.#files.filter((one) => one !== attachment);
    this.#draw();
    try {
      await deleteFile(attachment.id);
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
          { className: file.isStored ? "" : "is-waiting" },
          icon("file"),
          make("span", {}, file.name),
          iconButton("close", t("Remove {name}", file), () => this.#remove(file)),
        ),
      ),
    );
  }
}

/** Deletes a chat's vector store and its files. */
export async function deleteStore(storeId) {
  const path = `${STORES}/${encodeURIComponent(storeId)}`;
  try {
    const files = await requestAll(`${path}/files`);
    await Promise.all(files.map(({ id }) => deleteFile(id)));
    await request(path, { method: "DELETE" });
  } catch (error) {
    if (error.status !== 404) throw error;
  }
}

/** Deletes a file, which also removes it from its store; a missing file is no error. */
async function deleteFile(id) {
  try {
    await request(`v1/files/${encodeURIComponent(id)}`, { method: "DELETE" });
  } catch (error) {
    if (error.status !== 404) throw error;
  }
}

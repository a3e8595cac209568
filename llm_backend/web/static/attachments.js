// Files of a conversation: stored in a vector store of its own, which the server searches before a
// local model answers. Without a model for embeddings, and for models of upstreams, they go with the
// message.
//
// The store is named in the chat's metadata, so that the files are there when it is opened again, and
// it is deleted with the chat; an unused one expires after a month.

import { RequestError, request, requestAll, upload } from "./api.js";
import { byId, icon, iconButton, make } from "./dom.js";
import { t } from "./language.js";
import { Images } from "./images.js";

const STORES = "v1/vector_stores";
const EXPIRES_AFTER_DAYS = 30;
const POLL_MS = 400; // at first; each pause is longer than the one before
const LONGEST_POLL_MS = 10_000;

export class Attachments {
  #chips = byId("attachments");
  #field = byId("files");
  #canSee = false;
  #canReadFiles = false;
  #takesDocuments = false;
  #images;
  #documents;
  #files; // of the open chat
  #onFailed;

  constructor({ images, documents, onFailed }) {
    this.#images = images;
    this.#documents = documents;
    this.#onFailed = onFailed;
    this.#files = this.#filesOf(null);
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

  /** Attaches copied files; copied text stays text, even where a program adds an image of it. */
  #paste(event) {
    const { files, types } = event.clipboardData;
    if (!files.length || types.includes("text/plain") || byId("attach").hidden) return;
    event.preventDefault();
    this.#addAll([...files]);
  }

  /** Offers to attach the kinds of files that the model takes. */
  offer({ canSee, canReadFiles, takesDocuments, takesPdfs }) {
    this.#canSee = canSee;
    this.#canReadFiles = canReadFiles;
    this.#takesDocuments = takesDocuments;
    this.#documents.takesPdfs = takesPdfs;
    byId("attach").hidden = !takesDocuments && !canSee; // without a model
  }

  /** Shows the files of a store instead of the others; null for a chat without files. */
  async show(storeId) {
    const files = this.#filesOf(storeId);
    this.#files.leave();
    this.#files = files;
    this.#draw();
    try {
      await files.load();
    } catch (error) {
      if (files === this.#files) this.#onFailed(error);
    }
  }

  /** Shows the files of a store unless they are shown: the chat may have been opened before it had one. */
  async showStore(storeId) {
    let shownId = null;
    try {
      shownId = await this.#files.storeId;
    } catch {} // it could not be created, which the file that needed it shows
    if (shownId !== storeId) await this.show(storeId);
  }

  /** Waits until all files can be searched; returns the id of their vector store, or null without files. */
  readyStore() {
    return this.#files.readyStore();
  }

  #filesOf(storeId) {
    const files = new ChatFiles(storeId, () => {
      if (files === this.#files) this.#draw();
    });
    return files;
  }

  /** Attaches files, all at once: a question that is sent now waits for each. */
  async #addAll(files) {
    await Promise.all(files.map((file) => this.#add(file).catch((error) => this.#onFailed(error))));
  }

  async #add(file) {
    if (this.#canSee && Images.takes(file)) await this.#images.add(file);
    else if (this.#canReadFiles) await this.#files.add(file);
    else if (Images.takes(file)) throw new RequestError(0, t("{name} is no image that the model can see.", file));
    else if (!this.#takesDocuments) throw new RequestError(0, t("{name} is no image.", file));
    else await this.#documents.add(file);
  }

  #draw() {
    const { list } = this.#files;
    this.#chips.hidden = list.length === 0;
    this.#chips.replaceChildren(
      ...list.map((file) =>
        make(
          "li",
          { className: file.isWaiting ? "is-waiting" : "" },
          icon("file"),
          make("span", {}, file.name),
          iconButton("close", t("Remove {name}", file), () =>
            this.#files.remove(file).catch((error) => this.#onFailed(error)),
          ),
        ),
      ),
    );
  }
}

/** The files of one chat, and their vector store. */
class ChatFiles {
  /** Each has `name`, `isWaiting` until it is read, well or not, `id` once it is uploaded, `isReady`, a
   *  promise, and `isRemoved`. */
  list = [];
  #storeId; // a promise, so that files attached together share one store; null before the first
  #left = new AbortController(); // aborted when the chat is not shown any more
  #loading = Promise.resolve(true);
  #questions = 0; // that wait for the files
  #onChange;

  constructor(storeId, onChange) {
    this.#storeId = storeId ? Promise.resolve(storeId) : null;
    this.#onChange = onChange;
  }

  /** A promise of the id of the store, or null without one. */
  get storeId() {
    return this.#storeId;
  }

  /** Loads the files of the store. */
  load() {
    const loading = this.#load();
    this.#loading = loading.then(() => true, () => false); // the caller's to show
    return loading;
  }

  async #load() {
    if (this.#storeId === null) return;
    try {
      const storeId = await this.#storeId,
        files = await requestAll(`${STORES}/${encodeURIComponent(storeId)}/files`);
      const stored = await Promise.all(files.map(({ id }) => loadAttachment(id)));
      this.list = [...stored.filter(Boolean), ...this.list]; // to which some may have been added meanwhile
    } catch (error) {
      if (error.status !== 404) throw error; // it has expired
      this.#storeId = null;
    }
    this.#onChange();
  }

  /** Waits until all files can be searched; returns the id of their store, which is searched as well if
   *  its list could not be loaded. */
  async readyStore() {
    this.#questions += 1;
    const isListed = await this.#loading;
    await Promise.allSettled(this.list.map(({ isReady }) => isReady));
    this.#questions -= 1;
    return this.list.length || !isListed ? this.#storeId : null;
  }

  /** Ends the waits for files that are being read, which the server goes on with, unless a question of
   *  the chat waits for them, too. */
  leave() {
    if (!this.#questions) this.#left.abort();
  }

  /** Adds a file, and returns once it can be searched, or is removed. A file that fails is deleted. */
  async add(file) {
    const attachment = { id: null, name: file.name, isWaiting: true, isRemoved: false };
    this.list.push(attachment);
    attachment.isReady = this.#store(file, attachment);
    this.#onChange();
    try {
      await attachment.isReady;
    } catch (error) {
      if (attachment.isRemoved || this.#left.signal.aborted) return;
      this.list = this.list.filter((one) => one !== attachment);
      if (attachment.id) await deleteFile(attachment.id);
      throw error;
    } finally {
      attachment.isWaiting = false;
      this.#onChange();
    }
  }

  /** Removes a file, which is shown again if it cannot be deleted: it is searched then. One that is still being
   *  uploaded is deleted as soon as its id is known. */
  async remove(attachment) {
    attachment.isRemoved = true;
    this.list = this.list.filter((one) => one !== attachment);
    this.#onChange();
    try {
      if (attachment.id) await deleteFile(attachment.id);
    } catch (error) {
      attachment.isRemoved = false;
      this.list.push(attachment);
      this.#onChange();
      throw error;
    }
  }

  /** Uploads a file, adds it to the vector store, and waits until it can be searched. A file of a chat
   *  that was left before it had a store is deleted, as no chat would have it. */
  async #store(file, attachment) {
    const form = new FormData();
    form.append("purpose", "user_data");
    form.append("file", file);
    const { id } = await upload("v1/files", form);
    attachment.id = id;
    const isLost = this.#left.signal.aborted && this.#storeId === null;
    if (attachment.isRemoved || isLost) return deleteFile(id);
    const storeId = await this.#openStore(),
      path = `${STORES}/${storeId}/files`;
    if (attachment.isRemoved) return; // it is deleted already
    let state = await request(path, { method: "POST", body: { file_id: id } });
    for (let pause = POLL_MS; state.status === "in_progress"; pause = Math.min(pause * 1.5, LONGEST_POLL_MS)) {
      await new Promise((resolve) => setTimeout(resolve, pause));
      if (attachment.isRemoved || this.#left.signal.aborted) return;
      state = await request(`${path}/${id}`);
    }
    if (attachment.isRemoved || state.status === "completed") return;
    throw new RequestError(
      0,
      t("{name} cannot be read: {reason}", {
        name: file.name,
        reason: state.last_error?.message ?? state.status,
      }),
    );
  }

  /** Returns the id of the store, which is created for the first file. */
  async #openStore() {
    this.#storeId ??= createStore();
    try {
      return await this.#storeId;
    } catch (error) {
      this.#storeId = null; // the next file tries again
      throw error;
    }
  }
}

/** Returns a file of a store as an attachment; null if it is deleted by now. */
async function loadAttachment(id) {
  try {
    const { filename: name } = await request(`v1/files/${id}`);
    return { id, name, isWaiting: false, isReady: Promise.resolve() };
  } catch (error) {
    if (error.status === 404) return null;
    throw error;
  }
}

async function createStore() {
  const { id } = await request(STORES, {
    method: "POST",
    body: {
      name: "Files of a chat",
      expires_after: { anchor: "last_active_at", days: EXPIRES_AFTER_DAYS },
    },
  });
  return id;
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
export async function deleteFile(id) {
  try {
    await request(`v1/files/${encodeURIComponent(id)}`, { method: "DELETE" });
  } catch (error) {
    if (error.status !== 404) throw error;
  }
}

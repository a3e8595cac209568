// Images that models draw as answers: requested, shown, and stored as files of the server.
//
// A stored answer names its file as Markdown does, so that other clients show it too.

import { request, requestBlob, streamEvents, upload } from "./api.js";
import { announce, iconButton, make, saveFile } from "./dom.js";
import { blobOf, image } from "./images.js";
import { t } from "./language.js";
import { beginningOf } from "./messages.js";

const PREVIEWS = 3;
const PURPOSE = "vision"; // of the files of images
const NAME = "image"; // of these files, before the dot
const KEY = "images_"; // of metadata with ids of files, before a number
const IDS_PER_VALUE = 13; // 512 characters of metadata
const VALUES = 8; // of 16 that a chat may have
const REFERENCE = /^!\[([^\]]*)\]\(v1\/files\/([\w-]+)\/content\)$/;
const ALT_CHARACTERS = 200;

/** Yields an image each time it has become clearer: its `blob`, and `share`, 1 for the whole image. An
 *  attached image, as a data: URL, is drawn anew as the prompt says. */
export async function* drawImage({ model, prompt, images, signal }) {
  const edited = images.length ? { images: images.map((url) => ({ image_url: url })) } : {};
  const body = { model, prompt, stream: true, partial_images: PREVIEWS, ...edited };
  const path = images.length ? "v1/images/edits" : "v1/images/generations";
  for await (const event of streamEvents(path, { method: "POST", body, signal })) {
    const blob = blobOf(`data:image/${event.output_format ?? "png"};base64,${event.b64_json}`);
    if (event.type.endsWith(".completed")) {
      yield { blob, share: 1 };
      return; // such a stream has no `[DONE]`
    }
    yield { blob, share: (event.partial_image_index + 1) / (PREVIEWS + 1) };
  }
}

/** Stores an image; returns the id of its file. */
export async function storeImage(blob) {
  const form = new FormData();
  form.append("purpose", PURPOSE);
  form.append("file", blob, fileNameOf(blob));
  return (await upload("v1/files", form)).id;
}

/** True for a file as `storeImage` stores them: the metadata of a chat from a file may name others. */
export async function isStoredImage(id) {
  try {
    const { purpose, filename } = await request(`v1/files/${encodeURIComponent(id)}`);
    return purpose === PURPOSE && filename.startsWith(`${NAME}.`);
  } catch (error) {
    if (error.status === 404) return false;
    throw error;
  }
}

/** The metadata of a chat that name the files of its images; the latest ones, if there are too many. The
 *  text of an answer is no evidence for an image of the page: a model may write that it is any file. */
export function imageMetadata(fileIds) {
  const named = fileIds.slice(-IDS_PER_VALUE * VALUES),
    metadata = {};
  for (let at = 0; at < named.length; at += IDS_PER_VALUE)
    metadata[`${KEY}${at / IDS_PER_VALUE}`] = named.slice(at, at + IDS_PER_VALUE).join(" ");
  return metadata;
}

/** The ids of the files that the metadata of a stored chat name as its images. */
export const imageIdsOf = (metadata) =>
  Object.entries(metadata ?? {}).flatMap(([key, value]) => (key.startsWith(KEY) ? value.split(" ") : []));

/** The text of an answer that is an image, with the id of its file if it is stored. */
export function imageText(prompt, fileId) {
  const alt = beginningOf(prompt.replaceAll(/[[\]\s]+/g, " ").trim(), ALT_CHARACTERS);
  return `![${alt}](${fileId ? `v1/files/${fileId}/content` : ""})`;
}

/** The id of the file of a stored image; null for another answer. */
export const fileIdOf = (content) => REFERENCE.exec(content ?? "")?.[2] ?? null;

/** True for an answer that is an image, or is to become one. */
export const isDrawn = ({ drawn, content }) => Boolean(drawn) || fileIdOf(content) !== null;

/** The image of an answer on the page, which becomes clearer while it is drawn. */
export class DrawnImage {
  #bar = make("progress", { max: 1, "aria-label": t("Progress of the image") });
  #shown = null; // the blob
  #tools;
  #place;

  /** `tools` gets the button that saves the image; `place` calls a function that adds an element. */
  constructor({ tools, place }) {
    this.#tools = tools;
    this.#place = place;
    this.element = make("figure", { className: "drawn" }, this.#bar);
  }

  /** Shows the answer as far as it has come. */
  draw({ drawn, content }) {
    if (drawn?.blob) this.#show(drawn.blob, content);
    if (drawn?.share) this.#bar.value = drawn.share;
  }

  /** Shows the whole image; that of a stored answer is fetched. */
  async finish({ drawn, content }) {
    this.#bar.remove();
    if (!drawn?.blob && !fileIdOf(content)) return; // nothing has been drawn yet
    try {
      const blob = drawn?.blob ?? (await requestBlob(`v1/files/${fileIdOf(content)}/content`));
      this.#show(blob, content);
      this.#tools.prepend(
        iconButton("save", t("Save the image"), () => saveFile(fileNameOf(blob), blob)),
      );
    } catch (error) {
      this.#addNote(error.status === 404 ? t("This image is not stored any more.") : error.message);
    }
  }

  /** Announces the image to screen readers. */
  announce() {
    announce(t("The image is drawn."));
  }

  /** Shows an image in place of an earlier one, once it is decoded. */
  async #show(blob, content) {
    if (blob === this.#shown) return;
    this.#shown = blob;
    const alt = REFERENCE.exec(content ?? "")?.[1] || t("The drawn image"),
      shown = image(blob, alt);
    try {
      await shown.decode();
    } catch {
      if (blob === this.#shown) this.#addNote(t("The image cannot be shown."));
      return;
    }
    if (blob !== this.#shown) return; // a clearer one has come meanwhile
    this.#place(() => {
      this.element.querySelector("img")?.remove();
      this.element.prepend(shown);
    });
  }

  #addNote(text) {
    this.#place(() => this.element.append(make("p", { className: "note" }, text)));
  }
}

const fileNameOf = ({ type }) => `${NAME}.${type.startsWith("image/") ? type.slice(6) : "png"}`;

// Pictures of the next message, for a model with a projector. They are stored with the message; large
// ones are scaled down first, as models scale them down anyway.

import { byId, iconButton, make } from "./dom.js";
import { t } from "./language.js";

const KINDS = ["image/png", "image/jpeg", "image/webp", "image/gif"];
const LONGEST_SIDE = 1536; // pixels
const SMALL_BYTES = 400_000;

export class Pictures {
  #element = byId("pictures");
  #urls = [];

  /** Whether a file is a picture of a kind that models take. */
  static takes = (file) => KINDS.includes(file.type);

  /** Adds a file's picture. */
  async add(file) {
    this.#urls.push(await toDataUrl(file.size > SMALL_BYTES ? await scaleDown(file) : file));
    this.#draw();
  }

  /** Returns the pictures as data: URLs, and removes them. */
  take() {
    const taken = this.#urls;
    this.show([]);
    return taken;
  }

  /** Shows these pictures, data: URLs, and no others. */
  show(urls) {
    this.#urls = [...urls];
    this.#draw();
  }

  #draw() {
    this.#element.hidden = this.#urls.length === 0;
    this.#element.replaceChildren(
      ...this.#urls.map((url, index) =>
        make(
          "li",
          {},
          picture(url, t("Picture {number}", { number: index + 1 })),
          iconButton("close", t("Remove picture {number}", { number: index + 1 }), () =>
            this.show(this.#urls.filter((_, other) => other !== index)),
          ),
        ),
      ),
    );
  }
}

/** An element that shows a data: URL, although the page's policy allows no such address. */
export function picture(url, alt) {
  const element = make("img", { alt });
  const objectUrl = URL.createObjectURL(blobOf(url));
  element.addEventListener("load", () => URL.revokeObjectURL(objectUrl), { once: true });
  element.src = objectUrl;
  return element;
}

function blobOf(url) {
  const [, type, data] = /^data:([^;,]*)[^,]*,(.*)$/s.exec(url);
  const bytes = Uint8Array.from(atob(data), (character) => character.charCodeAt(0));
  return new Blob([bytes], { type });
}

async function toDataUrl(blob) {
  const reader = new FileReader();
  const done = new Promise((resolve, reject) => {
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
  });
  reader.readAsDataURL(blob);
  return done;
}

async function scaleDown(file) {
  const bitmap = await createImageBitmap(file);
  const scale = Math.min(1, LONGEST_SIDE / Math.max(bitmap.width, bitmap.height));
  const canvas = make("canvas", {
    width: Math.max(1, Math.round(bitmap.width * scale)),
    height: Math.max(1, Math.round(bitmap.height * scale)),
  });
  canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  return new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.9));
}

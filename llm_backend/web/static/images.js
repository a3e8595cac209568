// Images of the next message, for a model with a projector. They are stored with the message; large
// ones are scaled down first, as models scale them down anyway.

import { RequestError } from "./api.js";
import { byId, iconButton, make } from "./dom.js";
import { Enclosures, toDataUrl } from "./enclosures.js";
import { t } from "./language.js";

const KINDS = ["image/png", "image/jpeg", "image/webp", "image/gif"];
const LONGEST_SIDE = 1536; // pixels
const SMALL_BYTES = 400_000;

export class Images extends Enclosures {
  constructor() {
    super(byId("images"), (url, number, remove) =>
      make(
        "li",
        {},
        image(blobOf(url), t("Image {number}", { number })),
        iconButton("close", t("Remove image {number}", { number }), remove),
      ),
    );
  }

  /** True for an image of a kind that models take. */
  static takes = (file) => KINDS.includes(file.type);

  /** Adds a file's image, as a data: URL; throws `RequestError` for a damaged one. */
  add(file) {
    return super.add(() => readImage(file));
  }
}

/** An element that shows an image. */
export function image(blob, alt) {
  const element = make("img", { alt });
  const objectUrl = URL.createObjectURL(blob);
  for (const event of ["load", "error"])
    element.addEventListener(event, () => URL.revokeObjectURL(objectUrl), { once: true });
  element.src = objectUrl;
  return element;
}

/** The image of a data: URL: the page's policy allows no such address. */
export function blobOf(url) {
  const [, type, data] = /^data:([^;,]*)[^,]*,(.*)$/s.exec(url);
  return new Blob([bytesOf(data)], { type });
}

/** The bytes of base64; none of a text that is damaged: its image is shown by its name. */
function bytesOf(data) {
  try {
    return Uint8Array.from(atob(data), (character) => character.charCodeAt(0));
  } catch {
    return new Uint8Array();
  }
}

async function readImage(file) {
  try {
    return await toDataUrl(file.size > SMALL_BYTES ? await scaleDown(file) : file);
  } catch {
    throw new RequestError(0, t("{name} is no image that can be read.", file));
  }
}

async function scaleDown(file) {
  const bitmap = await createImageBitmap(file);
  const scale = Math.min(1, LONGEST_SIDE / Math.max(bitmap.width, bitmap.height));
  const canvas = make("canvas", {
    width: Math.max(1, Math.round(bitmap.width * scale)),
    height: Math.max(1, Math.round(bitmap.height * scale)),
  });
  const context = canvas.getContext("2d");
  context.fillStyle = "white"; // JPEG has no transparency, and would make it black
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  return new Promise((resolve, reject) =>
    canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new TypeError("no blob"))), "image/jpeg", 0.9),
  );
}

// Text files of the next message, and PDFs for models of upstreams: the message holds a text file as
// text, under its name, and a PDF as a file, which the upstream reads.

import { RequestError } from "./api.js";
import { byId, icon, iconButton, make } from "./dom.js";
import { Enclosures, toDataUrl } from "./enclosures.js";
import { formatCount, t } from "./language.js";

const TEXT_LIMIT_BYTES = 200_000; // some 50,000 tokens
const PDF_LIMIT_BYTES = 10_000_000; // a request of the server's default limit holds two
const PDF = "application/pdf";

export class Documents extends Enclosures {
  /** True if the model takes PDFs. */
  takesPdfs = false;

  constructor() {
    super(byId("documents"), (one, _, remove) =>
      make(
        "li",
        {},
        icon("file"),
        make("span", {}, one.name),
        iconButton("close", t("Remove {name}", one), remove),
      ),
    );
  }

  /** Adds a file as an object with `name`, and `text` or a data: URL `data`; throws `RequestError` for
   *  one that is too large, or of another kind. */
  add(file) {
    return super.add(() => (file.type === PDF ? this.#readPdf(file) : readText(file)));
  }

  async #readPdf(file) {
    if (!this.takesPdfs) throw new RequestError(0, t("{name}: this model takes no PDF files.", file));
    checkSize(file, PDF_LIMIT_BYTES);
    return { name: file.name, data: await toDataUrl(file) };
  }
}

async function readText(file) {
  checkSize(file, TEXT_LIMIT_BYTES);
  const refused = new RequestError(0, t("{name} is neither text nor a PDF.", file));
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer());
    if (!text.includes("\0")) return { name: file.name, text };
  } catch {
    throw refused; // other bytes than those of a text
  }
  throw refused;
}

function checkSize(file, limit) {
  if (file.size <= limit) return;
  const size = formatCount(limit / 1000);
  throw new RequestError(0, t("{name} is too large: at most {size} kB.", { name: file.name, size }));
}

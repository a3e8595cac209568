// Diagrams in texts: a code block in Mermaid's language becomes a picture above its source.
//
// Mermaid writes markup from strings, which this page's policy refuses. So it runs in a hidden frame
// with a policy of its own and without an origin, which is loaded with the first diagram. The page
// takes only the text of an SVG from it, as the source of an image, in which nothing can act.

import { make } from "./dom.js";
import { t } from "./language.js";

const ADDRESS = "web/diagrams.html";
const LONGEST = 50_000; // characters of a source that is drawn
const PATIENCE_MS = 20_000; // for one picture, and for the frame

const waiting = new Map(); // functions that take the frame's answer, by the number of the request
let numbers = 0;
let loading = null;

/** Shows the picture of a diagram in the place of its code block, which is folded below it. Throws
 *  for a text that cannot be drawn. */
export async function showDiagram(code, text) {
  if (text.length > LONGEST) return;
  const image = await load(await draw(text));
  if (!code.isConnected) return;
  const summary = make("summary", {}, t("Source of the diagram")),
    figure = make("figure", { className: "diagram" }, image);
  code.replaceWith(figure);
  figure.append(make("details", {}, summary, code));
}

/** An image of the source of an SVG. */
async function load(svg) {
  const src = URL.createObjectURL(new Blob([svg], { type: "image/svg+xml" })),
    image = make("img", { src, alt: t("Diagram") });
  try {
    await image.decode();
  } finally {
    URL.revokeObjectURL(src); // else the source stays in memory as long as the page
  }
  return image;
}

async function draw(text) {
  const frame = await openFrame(),
    theme = window.isDark() ? "dark" : "default";
  numbers += 1;
  const answer = nextAnswer(numbers);
  frame.contentWindow.postMessage({ number: numbers, text, theme }, "*"); // the frame has no origin
  const { svg, error } = await answer;
  if (error !== undefined) throw new Error(error);
  return svg;
}

/** The frame, as soon as it can draw. */
async function openFrame() {
  loading ??= (async () => {
    const frame = make("iframe", { className: "drawing-frame", tabIndex: -1, "aria-hidden": "true" }),
      ready = nextAnswer(0);
    frame.sandbox.add("allow-scripts");
    frame.src = ADDRESS;
    addEventListener("message", ({ data, source }) => {
      if (source === frame.contentWindow) waiting.get(data.number)?.(data);
    });
    document.body.append(frame);
    try {
      await ready;
    } catch (error) {
      frame.remove();
      throw error;
    }
    return frame;
  })();
  try {
    return await loading;
  } catch (error) {
    loading = null; // the next diagram tries again
    throw error;
  }
}

/** Waits for the answer of the frame to a request. */
function nextAnswer(number) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => end(reject, new Error(t("The diagram took too long."))), PATIENCE_MS),
      end = (settle, value) => {
        clearTimeout(timer);
        waiting.delete(number);
        settle(value);
      };
    waiting.set(number, (answer) => end(resolve, answer));
  });
}

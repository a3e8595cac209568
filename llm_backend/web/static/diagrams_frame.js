// The script of the frame that draws diagrams (`diagrams.js`), behind Mermaid's own. The frame has no
// origin: it reaches neither the page, nor what the page has stored, nor any server.

addEventListener("message", async ({ data, source }) => {
  if (source !== parent) return;
  const { number, text, theme } = data;
  try {
    mermaid.initialize({
      startOnLoad: false,
      securityLevel: "strict",
      suppressErrorRendering: true,
      htmlLabels: false, // HTML inside a picture is not drawn by every browser
      fontFamily: "sans-serif",
      theme,
    });
    const { svg } = await mermaid.render(`diagram-${number}`, text),
      holder = document.createElement("div");
    holder.innerHTML = svg;
    const picture = holder.firstElementChild,
      { width, height } = picture.viewBox.baseVal;
    picture.setAttribute("width", width); // else a picture has no size of its own
    picture.setAttribute("height", height);
    parent.postMessage({ number, svg: new XMLSerializer().serializeToString(picture) }, "*");
  } catch (error) {
    parent.postMessage({ number, error: String(error.message ?? error) }, "*");
  }
});
parent.postMessage({ number: 0 }, "*"); // ready

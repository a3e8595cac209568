// Bar charts over days as SVG; the caller adds a text for readers who do not see it.

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 320,
  HEIGHT = 96,
  GAP = 2,
  MIN_BAR_HEIGHT = 1.5; // so that a small value is seen, too

/** Bars of values, the first at the left; each has a title. `label` describes them. */
export function bars(values, titles, label) {
  const top = Math.max(...values, 1e-9),
    step = WIDTH / values.length;
  const picture = element("svg", {
    viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
    preserveAspectRatio: "none",
    class: "bars",
    role: "img",
    "aria-label": label,
  });
  for (const [index, value] of values.entries()) {
    const height = value ? Math.max((value / top) * HEIGHT, MIN_BAR_HEIGHT) : 0;
    const bar = element("rect", {
      x: (index * step + GAP / 2).toFixed(2),
      y: (HEIGHT - height).toFixed(2),
      width: Math.max(step - GAP, 1).toFixed(2),
      height: height.toFixed(2),
    });
    const title = element("title", {});
    title.textContent = titles[index];
    bar.append(title);
    picture.append(bar);
  }
  return picture;
}

function element(name, attributes) {
  const one = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) one.setAttribute(key, value);
  return one;
}

// Bars over days, drawn as SVG; a table for those who do not see it is the caller's.

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 320,
  HEIGHT = 96,
  GAP = 2,
  LEAST = 1.5; // a bar of little is seen, too

/** Bars of values, the first at the left; each has a title. `label` says what they are. */
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
  for (const [place, value] of values.entries()) {
    const height = value ? Math.max((value / top) * HEIGHT, LEAST) : 0;
    const bar = element("rect", {
      x: (place * step + GAP / 2).toFixed(2),
      y: (HEIGHT - height).toFixed(2),
      width: Math.max(step - GAP, 1).toFixed(2),
      height: height.toFixed(2),
    });
    const title = element("title", {});
    title.textContent = titles[place];
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

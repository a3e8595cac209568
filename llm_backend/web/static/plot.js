// Charts as SVG: bars over days, and a line. Labels describe them to readers who do not see them.

import { SVG } from "./dom.js";

const WIDTH = 320,
  HEIGHT = 96,
  GAP = 2,
  MIN_BAR_HEIGHT = 1.5; // so that a small value is seen, too

/** Bars of values, the first at the left; each has a title. `label` describes them. */
export function bars(values, titles, label) {
  const top = Math.max(...values, 1e-9),
    step = WIDTH / values.length;
  const svg = frame("bars", WIDTH, HEIGHT, label);
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
    svg.append(bar);
  }
  return svg;
}

/** A line through values, the last at the right edge, with room for `capacity` of them, scaled to the
 *  greatest. */
export function sparkline(values, capacity, label) {
  const width = 240,
    height = 48,
    top = Math.max(...values, 1e-9);
  const x = (index) => width - ((values.length - 1 - index) / (capacity - 1)) * width;
  const points = values.map(
    (value, index) =>
      `${x(index).toFixed(1)},${(height - 2 - (value / top) * (height - 6)).toFixed(1)}`,
  );
  const svg = frame("spark", width, height, label),
    area = `M${x(0).toFixed(1)},${height} L${points.join(" L")} L${width},${height} Z`;
  svg.append(
    element("path", { d: area, class: "area" }),
    element("polyline", { points: points.join(" ") }),
  );
  return svg;
}

const frame = (name, width, height, label) =>
  element("svg", {
    viewBox: `0 0 ${width} ${height}`,
    preserveAspectRatio: "none",
    class: name,
    role: "img",
    "aria-label": label,
  });

function element(name, attributes) {
  const one = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) one.setAttribute(key, value);
  return one;
}

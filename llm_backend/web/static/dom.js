// Creates elements; strings never become markup here.

const SVG = "http://www.w3.org/2000/svg";

/** The element of this page with the id. */
export const byId = (id) => document.getElementById(id);

/** A new element with properties, and children that are elements or texts. */
export function make(name, properties = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key.startsWith("aria-") || key.startsWith("data-") || key === "role" || key === "for") {
      element.setAttribute(key, value);
    } else {
      element[key] = value;
    }
  }
  element.append(...children);
  return element;
}

/** One of the page's icons. */
export function icon(name) {
  const picture = document.createElementNS(SVG, "svg");
  picture.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#i-${name}`);
  picture.append(use);
  return picture;
}

/** Changes the icon of a button. */
export const changeIcon = (button, name) =>
  button.querySelector("use").setAttribute("href", `#i-${name}`);

/** A button with an icon and an accessible name. */
export function iconButton(name, label, onclick) {
  return make(
    "button",
    { type: "button", className: "icon", title: label, "aria-label": label, onclick },
    icon(name),
  );
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
  const picture = document.createElementNS(SVG, "svg");
  for (const [key, value] of [
    ["viewBox", `0 0 ${width} ${height}`],
    ["preserveAspectRatio", "none"],
    ["class", "spark"],
    ["role", "img"],
    ["aria-label", label],
  ]) {
    picture.setAttribute(key, value);
  }
  const area = document.createElementNS(SVG, "path");
  area.setAttribute(
    "d",
    `M${x(0).toFixed(1)},${height} L${points.join(" L")} L${width},${height} Z`,
  );
  area.setAttribute("class", "area");
  const line = document.createElementNS(SVG, "polyline");
  line.setAttribute("points", points.join(" "));
  picture.append(area, line);
  return picture;
}

/** Fits the height of a text field to its text, up to the style sheet's maximum. */
export function fitHeight(field) {
  field.style.height = "auto";
  field.style.height = `${field.scrollHeight}px`;
}

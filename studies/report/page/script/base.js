"use strict";
// What every part of the page uses. Texts reach the page through textContent alone, so markup in them stays text.
const Page = {};

Page.data = JSON.parse(document.getElementById("data").textContent);
Page.images = JSON.parse(document.getElementById("image-data").textContent);
Page.byTrial = new Map(Page.data.candidates.map((candidate) => [candidate.trial, candidate]));
Page.selected = null;
Page.listeners = [];

Page.select = (trial) => {
  if (!Page.byTrial.has(trial)) return;
  Page.selected = Page.byTrial.get(trial);
  for (const listener of Page.listeners) listener(Page.selected);
};

Page.id = (name) => document.getElementById(name);

const fill = (element, attributes, children) => {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name.startsWith("aria-")) element.setAttribute(name, value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
};
Page.el = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
Page.svg = (tag, attributes, ...children) =>
  fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

// Numbers with so many significant digits, never in exponents where a person would not write them.
Page.number = (value, digits = 4) => {
  if (value == null || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  const text = size !== 0 && (size < 1e-4 || size >= 1e9)
    ? value.toExponential(digits - 1).replace("e+", "e")
    : Number(value.toPrecision(digits)).toLocaleString("en", { maximumSignificantDigits: digits });
  return text.replace("-", "\u2212");
};
Page.signed = (value, digits = 3) => (value < 0 ? "\u2212" : "+") + Page.number(Math.abs(value), digits);
Page.duration = (seconds) => {
  if (seconds < 120) return `${Page.number(seconds, 3)} s`;
  return seconds < 7200 ? `${Page.number(seconds / 60, 3)} min` : `${Page.number(seconds / 3600, 3)} h`;
};

// How much better a difference is: above zero is a gain, whichever way the objective improves.
Page.sign = (name) => (Page.data.objectives.find((one) => one.name === name).direction === "minimize" ? -1 : 1);
Page.title = (one) => `Trial ${one.trial}` + (one.label === "search" ? "" : ` · ${one.label}`);

Page.copy = async (text, button) => {
  const before = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = Page.el("textarea", { class: "off-screen", "aria-hidden": "true" });
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
    button.focus();
  }
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = before; }, 1500);
};

Page.save = (name, text, type = "text/plain") => {
  const address = URL.createObjectURL(new Blob([text], { type }));
  const link = Page.el("a", { href: address, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
};

// Draws now, and again whenever the width of the element changes.
Page.drawn = (element, draw) => {
  let width = 0;
  new ResizeObserver(() => {
    if (element.clientWidth !== width) {
      width = element.clientWidth;
      draw();
    }
  }).observe(element);
};

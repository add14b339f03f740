// Scales, ticks and the frame of a chart.
Page.scale = (low, high, from, to, log = false) => {
  const turn = log ? Math.log10 : (value) => value;
  const [a, b] = [turn(low), turn(high)];
  const place = (value) => from + ((turn(value) - a) / (b - a || 1)) * (to - from);
  return { place, low, high, log };
};

const stepOf = (span, count) => {
  const rough = span / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  return power * [1, 2, 5, 10].find((factor) => factor * power >= rough * 0.999);
};

Page.ticks = (scale, count) => {
  const found = [];
  if (!scale.log) {
    const step = stepOf(scale.high - scale.low || 1, count);
    for (let n = Math.ceil(scale.low / step - 1e-9); n * step <= scale.high + 1e-9 * step; n++) found.push(n * step);
    return found;
  }
  for (let power = Math.floor(Math.log10(scale.low)); power <= Math.log10(scale.high); power++) {
    for (const factor of [1, 2, 3, 5, 7]) {
      const value = factor * 10 ** power;
      if (value >= scale.low * 0.999 && value <= scale.high * 1.001) found.push(value);
    }
  }
  const few = (factors) => found.filter((value) => factors.includes(Math.round(value / 10 ** Math.floor(Math.log10(value) + 1e-9))));
  if (found.length > count) return few([1, 2, 5]).length <= count ? few([1, 2, 5]) : few([1]);
  return found;
};

// Makes an empty chart as wide as its element: a frame with a grid, and a function to add marks inside.
Page.chart = (element, { height, x, y, xLabel, yLabel, label, role = "img", format = Page.number, xFormat = format }) => {
  const width = Math.max(260, element.clientWidth);
  const margin = { left: 58, right: 14, top: 12, bottom: 46 };
  const root = Page.svg("svg", { viewBox: `0 0 ${width} ${height}`, role, "aria-label": label });
  const across = Page.scale(x.low, x.high, margin.left, width - margin.right, x.log);
  const up = Page.scale(y.low, y.high, height - margin.bottom, margin.top, y.log);
  const bottom = height - margin.bottom;
  const grid = Page.svg("g", { class: "grid", "aria-hidden": "true" });
  for (const value of Page.ticks(across, Math.max(3, Math.floor(width / 85)))) {
    const at = across.place(value);
    grid.append(
      Page.svg("line", { x1: at, x2: at, y1: margin.top, y2: bottom }),
      Page.svg("text", { x: at, y: bottom + 18, "text-anchor": "middle" }, xFormat(value, 3)),
    );
  }
  for (const value of Page.ticks(up, Math.max(3, Math.floor(height / 60)))) {
    const at = up.place(value);
    grid.append(
      Page.svg("line", { x1: margin.left, x2: width - margin.right, y1: at, y2: at }),
      Page.svg("text", { x: margin.left - 8, y: at + 4, "text-anchor": "end" }, format(value, 3)),
    );
  }
  const middle = (margin.top + bottom) / 2;
  grid.append(
    Page.svg("text", { class: "axis", x: (margin.left + width - margin.right) / 2, y: height - 6, "text-anchor": "middle" }, xLabel),
    Page.svg("text", { class: "axis", transform: `translate(13 ${middle}) rotate(-90)`, "text-anchor": "middle" }, yLabel),
  );
  root.append(grid);
  element.replaceChildren(root);
  return { root, across, up, width, height, margin, bottom };
};

// A line of points, as a path that goes straight or in steps.
Page.path = (points, steps = false) =>
  points.map(([x, y], index) => (index === 0 ? `M${x} ${y}` : steps ? `H${x}V${y}` : `L${x} ${y}`)).join("");

Page.padded = (values, share = 0.06) => {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const pad = (high - low || Math.abs(high) || 1) * share;
  return { low: low - pad, high: high + pad };
};

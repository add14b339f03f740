// What the search did with its compute.
(() => {
  const { data, el, svg, id, number } = Page;
  const rows = data.history;

  const lines = (place, { x, xLabel, yLabel, label, series, top, format }) => {
    const chart = Page.chart(place, {
      height: 240, x: { low: 0, high: rows[rows.length - 1][x] || 1 }, y: { low: 0, high: top }, xLabel, yLabel, label, format,
      xFormat: number,
    });
    for (const [key, name] of series) {
      const points = rows.map((row) => [chart.across.place(row[x]), chart.up.place(row[key])]);
      chart.root.append(svg("path", { d: Page.path([[chart.across.place(0), chart.up.place(0)], ...points], true), class: `line ${name}` }));
    }
    return chart;
  };

  const drawGrowth = () => rows.length && lines(id("growth-chart"), {
    x: "spent", xLabel: "TFLOPs spent", yLabel: "hypervolume", top: 1.04, series: [["hypervolume", "first"]],
    label: "Hypervolume of the front in parts of its last value, by TFLOPs spent", format: (value) => `${number(100 * value, 3)} %`,
  });
  const drawTrials = () => rows.length && lines(id("trials-chart"), {
    x: "seconds", xLabel: "seconds", yLabel: "schedules", top: 1.05 * rows[rows.length - 1].scored, series: [["scored", "second"], ["finished", "first"]],
    label: "Schedules scored, and scored on all prompts, by time",
  });

  const bars = (entries, format) => {
    const most = Math.max(...entries.map(([, value]) => value)) || 1;
    return el("ul", { class: "bars" }, ...entries.map(([name, value]) => {
      const bar = el("span", { class: "bar" });
      bar.style.setProperty("width", `${(100 * value) / most}%`);
      return el("li", {}, el("span", {}, name), el("span", { class: "track" }, bar), el("span", { class: "number" }, format(value)));
    }));
  };

  const spent = Object.entries(data.spending);
  const sum = spent.filter(([name]) => !name.startsWith("reused")).reduce((total, [, value]) => total + value, 0) || 1;
  id("spending").append(
    bars(spent, (value) => number(value, 3)),
    el("p", { class: "note" }, `TFLOPs of the denoiser; ${number(sum, 4)} were spent. What was reused did not have to be.`));
  for (const [name, shares] of Object.entries(data.importances)) {
    id("knobs").append(el("h4", {}, name), bars(Object.entries(shares), (value) => `${number(100 * value, 2)} %`));
  }
  if (Object.keys(data.importances).length) {
    id("knobs").append(el("p", { class: "note" }, "Share of the variance that each knob explains (fANOVA), among knobs that every trial has."));
  } else id("knobs").remove();
  id("trials-chart").after(el("p", { class: "note" }, "Upper line: scored on any prompts. Lower line: on all."));
  Page.drawn(id("growth-chart"), drawGrowth);
  Page.drawn(id("trials-chart"), drawTrials);
})();

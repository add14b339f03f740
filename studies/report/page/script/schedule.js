// The selected schedule: its stages as noise levels, its scores, and every form in which it can be taken along.
(() => {
  const { data, el, svg, id, number, signed } = Page;
  const colours = [0.25, 0.5, 0.75, 1];
  const classOf = (scale) => `scale-${colours.reduce((best, one) => (Math.abs(one - scale) < Math.abs(best - scale) ? one : best)) * 100}`;

  const drawStages = (one) => {
    const place = id("stages-chart");
    const steps = one.stages.reduce((sum, stage) => sum + stage.sigmas.length - 1, 0);
    const chart = Page.chart(place, {
      height: 280,
      x: { low: 0, high: steps },
      y: { low: 0, high: 1.04 },
      xLabel: "steps",
      yLabel: "sigma",
      label: `Noise level by step: ${one.stages.map((stage) => `${stage.sigmas.length - 1} steps at scale ${number(stage.scale, 3)} from ${number(stage.sigmas[0], 3)} to ${number(stage.sigmas[stage.sigmas.length - 1], 3)}`).join("; ")}`,
    });
    let taken = 0;
    let before = null;
    for (const stage of one.stages) {
      const points = stage.sigmas.map((sigma, step) => [chart.across.place(taken + step), chart.up.place(sigma)]);
      if (before) chart.root.append(svg("line", { x1: before[0], y1: before[1], x2: points[0][0], y2: points[0][1], class: "renoise" }));
      const group = svg("g", { class: `stage ${classOf(stage.scale)}` }, svg("path", { d: Page.path(points) }));
      group.append(...points.map(([cx, cy]) => svg("circle", { cx, cy, r: points.length > 30 ? 2 : 3.2 })));
      const [first, last] = [points[0], points[points.length - 1]];
      const name = svg("text", { x: (first[0] + last[0]) / 2, y: chart.margin.top + 2, "text-anchor": "middle" }, `×${number(stage.scale, 3)}`);
      chart.root.append(group);
      if (last[0] - first[0] > 24) group.append(name);
      taken += stage.sigmas.length - 1;
      before = last;
    }
  };

  const scoreTable = (one) => {
    const row = (name, where, [mean, delta, low, high]) => {
      const sure = Page.sign(name) > 0 ? (low > 0 ? "gain" : high < 0 ? "loss" : "even") : high < 0 ? "gain" : low > 0 ? "loss" : "even";
      const word = { gain: "better", loss: "worse", even: "no difference measured" }[sure];
      return el("tr", {},
        el("th", { scope: "row" }, name, el("small", {}, where)),
        el("td", { class: "number" }, number(mean)),
        el("td", { class: `number ${sure}` }, signed(delta), el("small", {}, `${signed(low)} to ${signed(high)}`), el("small", {}, word)));
    };
    const head = ["Objective", "Mean", "Difference"].map((text, index) => el("th", { scope: "col", class: index ? "number" : null }, text));
    const rows = data.objectives.flatMap(({ name }) => [
      row(name, one.stopped_at == null ? "search prompts" : `first ${one.stopped_at} prompts`, one.scores[name]),
      ...(one.held_out[name] ? [row(name, "prompts never seen", one.held_out[name])] : []),
    ]);
    return el("div", { class: "scroll" }, el("table", {}, el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...rows)));
  };

  const cost = (one) => {
    const facts = { "Speed-up": `${number(one.speedup, 3)}×`, "TFLOPs": number(one.tflops), "NFE": one.nfe };
    if (one.seconds != null) facts["Seconds"] = number(one.seconds, 3);
    return el("dl", { class: "facts" }, ...Object.entries(facts).map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
  };

  const exportRow = (form) => {
    if (form.refused) return el("li", { class: "refused" }, el("strong", {}, form.name), el("span", {}, `Not available: ${form.refused}`));
    const copy = el("button", { type: "button", "aria-label": `Copy ${form.name}`, onclick: () => Page.copy(form.text, copy) }, "Copy");
    const buttons = [copy];
    if (form.file) buttons.push(el("button", { type: "button", "aria-label": `Save ${form.name}`, onclick: () => Page.save(form.file, form.text) }, "Save"));
    const long = form.text.includes("\n") || form.text.length > 200;
    const shown = long
      ? el("details", {}, el("summary", {}, `${form.file}, ${number(form.text.length / 1000, 2)} kB`), el("pre", { tabindex: 0 }, el("code", {}, form.text)))
      : el("code", {}, form.text);
    return el("li", {}, el("strong", {}, form.name), shown, el("span", { class: "row" }, ...buttons));
  };

  const drawExports = (one) => {
    const forms = data.exports[one.trial];
    const missing = one.stopped_at == null && (one.front || one.family !== "search") ? "Exports come with the finished study." : `Only the front and the references carry exports here; tuner export ${data.study.name} --pick trial:${one.trial} writes this one.`;
    id("exports").replaceChildren(forms ? el("ul", { class: "exports" }, ...forms.map(exportRow)) : el("p", { class: "note" }, missing));
  };

  Page.listeners.push((one) => {
    id("schedule-title").textContent = Page.title(one) + (one.trial === data.pick ? " · the pick" : "");
    id("schedule-spec").textContent = one.spec;
    drawStages(one);
    id("schedule-scores").replaceChildren(cost(one), scoreTable(one));
    drawExports(one);
  });
  Page.drawn(id("stages-chart"), () => Page.selected && drawStages(Page.selected));
})();

// The front: cost and objectives on two axes of choice.
(() => {
  const { data, el, svg, id, number, signed } = Page;
  const timed = data.baseline.seconds != null;
  const axes = [
    { key: "speedup", name: "speed-up", log: true, better: 1, of: (one) => one.speedup ?? 1, format: (v, d) => `${number(v, d)}×` },
    { key: "tflops", name: "TFLOPs per image", log: true, better: -1, of: (one) => one.tflops, format: number },
    { key: "nfe", name: "network passes per image", log: true, better: -1, of: (one) => one.nfe, format: number },
    ...(timed ? [{ key: "seconds", name: "seconds per image", log: true, better: -1, of: (one) => one.seconds, format: number }] : []),
    ...data.objectives.map(({ name }) => ({
      key: name,
      name,
      better: Page.sign(name),
      objective: true,
      of: (one) => (one.scores ? one.scores[name][1] : 0),
      interval: (one) => (one.scores ? one.scores[name].slice(2) : [0, 0]),
      format: (value, digits) => (value === 0 ? "0" : signed(value, digits)),
    })),
  ];
  const families = {
    front: "searched, on the front",
    search: "searched, beaten",
    stopped: "searched, left early",
    plain: "plain step reduction",
    preset: "published presets",
  };
  const groupOf = (one) => (one.family !== "search" ? one.family : one.front ? "front" : one.stopped_at == null ? "search" : "stopped");
  const shown = new Set(Object.keys(families));
  const marks = { search: "M0-5A5 5 0 1 1 0 5A5 5 0 1 1 0-5Z", plain: "M0-6.5L6 4.5H-6Z", preset: "M0-6.5L6.5 0L0 6.5L-6.5 0Z" };
  const star = "M0-11L2.6-3.6L10.5-3.4L4.2 1.4L6.5 8.9L0 4.4L-6.5 8.9L-4.2 1.4L-10.5-3.4L-2.6-3.6Z";
  const place = id("front-chart");
  let focused = data.pick;

  const title = (axis) => (axis.objective ? `${axis.name}: difference to the baseline` : axis.name);
  const choose = (select, chosen, list) => {
    select.append(...list.map((axis) => el("option", { value: axis.key, selected: axis.key === chosen }, title(axis))));
    select.addEventListener("change", draw);
  };
  const axisOf = (select) => axes.find((axis) => axis.key === select.value);

  // Those that no other beats on both axes, the best of the first axis first.
  const staircase = (members, x, y) => {
    const sorted = [...members].sort((a, b) => x.better * (x.of(b) - x.of(a)) || y.better * (y.of(b) - y.of(a)));
    const kept = [];
    for (const one of sorted) {
      if (!kept.length || y.better * (y.of(one) - y.of(kept[kept.length - 1])) > 0) kept.push(one);
    }
    return kept;
  };

  // The range of what matters: the front, the references, the pick. Few steps are so bad that they would flatten the rest.
  const range = (axis, visible, whole) => {
    const important = visible.filter((one) => one.front || one.trial === data.pick || (one.family === "preset"));
    const ends = (one) => (axis.interval ? axis.interval(one) : [axis.of(one)]);
    const values = [axis.of(data.baseline), ...(whole || !axis.objective || !important.length ? visible : important).flatMap(ends)];
    if (axis.log) {
      const budget = limit(axis);
      if (budget) values.push(budget);
      return { low: Math.min(...values) / 1.12, high: Math.max(...values) * 1.12, log: true };
    }
    if (whole) return Page.padded(values);
    const pick = Page.byTrial.get(data.pick);
    const core = [0, ...visible.filter((one) => one.front && one.tflops >= pick.tflops / 2).flatMap(ends)];
    const [low, high] = [Math.min(...core), Math.max(...core)];
    const span = high - low || 1;
    const kept = values.filter((value) => value > low - 1.2 * span && value < high + 1.2 * span);
    return Page.padded(kept.length ? kept : values, 0.08);
  };
  const limit = (axis) => (axis.key === "speedup" ? data.budget.tflops && data.baseline.tflops / data.budget.tflops : data.budget[axis.key]);

  const summary = (one) => {
    const cost = `${number(one.speedup, 3)}× cheaper, ${number(one.tflops)} TFLOPs, ${one.nfe} passes` + (timed ? `, ${number(one.seconds, 3)} s` : "");
    const scores = data.objectives.map(({ name }) => {
      const [, delta, low, high] = one.scores[name];
      return `${name} ${signed(delta)} [${signed(low)}, ${signed(high)}]`;
    });
    const left = one.stopped_at == null ? [] : [`left after ${one.stopped_at} prompts`];
    return [cost, ...scores, ...left];
  };

  const guide = (chart, along, value, name) => {
    const { across, up, width, margin, bottom } = chart;
    const spot = along ? across.place(value) : up.place(value);
    const ends = along ? { x1: spot, x2: spot, y1: margin.top, y2: bottom } : { x1: margin.left, x2: width - margin.right, y1: spot, y2: spot };
    chart.root.append(svg("line", { ...ends, class: name }));
    return spot;
  };

  // Where the baseline scores, and where the budget ends.
  const drawGuides = (chart, x, y) => {
    for (const [axis, along] of [[x, true], [y, false]]) {
      if (axis.objective) guide(chart, along, 0, "zero");
      const value = limit(axis);
      if (!value) continue;
      const spot = guide(chart, along, value, "budget");
      const at = along ? { x: spot + 5, y: chart.bottom - 8 } : { x: chart.margin.left + 6, y: spot - 6 };
      chart.root.append(svg("text", { ...at, class: "budget-name" }, `budget ${data.budget.text}`));
    }
  };

  // The intervals of a schedule on those axes that have any.
  const bars = (one, { across, up }, x, y) => {
    const name = `of-${groupOf(one)}`;
    const [px, py] = [across.place(x.of(one)), up.place(y.of(one))];
    const made = [];
    if (x.interval) {
      const [x1, x2] = x.interval(one).map(across.place);
      made.push(svg("line", { x1, x2, y1: py, y2: py, class: name }));
    }
    if (y.interval) {
      const [y1, y2] = y.interval(one).map(up.place);
      made.push(svg("line", { x1: px, x2: px, y1, y2, class: name }));
    }
    return made;
  };

  const point = (one, [px, py], joined) => {
    const state = one.front ? (joined.has(one) ? "joined" : "hidden-member") : "beside";
    const picked = one.trial === data.pick;
    return svg("g", {
      role: "option",
      class: `point of-${groupOf(one)} ${state}${picked ? " pick" : ""}`,
      transform: `translate(${px} ${py})`,
      tabindex: one.trial === focused ? 0 : -1,
      "data-trial": one.trial,
      "aria-selected": one === Page.selected,
      "aria-label": [Page.title(one) + (picked ? ", the pick" : ""), one.spec, ...summary(one)].join(", "),
    }, svg("circle", { r: 13, class: "halo" }), svg("path", { d: picked ? star : marks[one.family] }));
  };

  // What matters more is drawn later, on top of what matters less.
  const order = { stopped: 0, search: 1, plain: 2, preset: 3, front: 4 };
  const rank = (one) => (one.trial === data.pick ? 9 : one === Page.selected ? 8 : order[groupOf(one)] + (one.front ? 1 : 0));

  function draw() {
    const [x, y] = [axisOf(id("x-axis")), axisOf(id("y-axis"))];
    const all = data.candidates.filter((one) => shown.has(groupOf(one)) || one.trial === data.pick);
    const whole = id("whole-range").checked;
    const narrow = place.clientWidth < 560;
    const chart = Page.chart(place, {
      height: narrow ? 340 : 460,
      x: range(x, all, whole),
      y: range(y, all, whole),
      xLabel: title(x) + (x.log ? " (log scale)" : ""),
      yLabel: narrow ? y.name : title(y),
      role: "group",
      label: `${title(y)} against ${title(x)}`,
      format: y.format,
      xFormat: x.format,
    });
    const { root, across, up, width, margin, bottom } = chart;
    const at = (one) => [across.place(x.of(one)), up.place(y.of(one))];
    const inside = ([px, py]) => px >= margin.left - 1 && px <= width - margin.right + 1 && py >= margin.top - 1 && py <= bottom + 1;

    drawGuides(chart, x, y);
    const steps = staircase(all.filter((one) => one.front), x, y);
    const joined = new Set(steps);
    const visible = all.filter((one) => inside(at(one))).sort((a, b) => rank(a) - rank(b));
    if (!visible.some((one) => one.trial === focused) && visible.length) focused = visible[0].trial;
    const barred = visible.filter((one) => one.front || one.family !== "search" || one === Page.selected);
    const inner = { x: margin.left, y: margin.top, width: width - margin.left - margin.right, height: bottom - margin.top };
    root.append(
      svg("clipPath", { id: "inside" }, svg("rect", inner)),
      svg("path", { d: Page.path(steps.map(at), true), class: "stairs", "clip-path": "url(#inside)" }),
      svg("g", { class: "bars", "clip-path": "url(#inside)", "aria-hidden": "true" }, ...barred.flatMap((one) => bars(one, chart, x, y))),
      svg("path", { d: "M-6-6H6V6H-6Z", class: "baseline-mark", transform: `translate(${at(data.baseline)})` }),
      svg("g", { role: "listbox", "aria-label": "Schedules" }, ...visible.map((one) => point(one, at(one), joined))),
    );
    const outside = all.length - visible.length;
    if (outside) root.append(svg("text", { x: width - margin.right - 4, y: margin.top + 12, "text-anchor": "end", class: "outside" }, `${outside} outside this range`));
    place.append(el("div", { class: "tip", hidden: true }));
  }

  const optionOf = (target) => target.closest && target.closest("[data-trial]");
  const showTip = (option) => {
    const one = Page.byTrial.get(Number(option.dataset.trial));
    const tip = place.querySelector(".tip");
    tip.replaceChildren(el("strong", {}, Page.title(one)), el("span", { class: "spec" }, one.spec), ...summary(one).map((text) => el("span", {}, text)));
    tip.hidden = false;
    const [box, mark] = [place.getBoundingClientRect(), option.querySelector("path").getBoundingClientRect()];
    const left = Math.min(Math.max(0, mark.left - box.left + 16), Math.max(0, box.width - tip.offsetWidth));
    const below = mark.bottom - box.top + 10;
    const top = below + tip.offsetHeight > box.height ? Math.max(0, mark.top - box.top - tip.offsetHeight - 10) : below;
    tip.style.setProperty("left", `${left}px`);
    tip.style.setProperty("top", `${top}px`);
  };
  const hideTip = () => { place.querySelector(".tip").hidden = true; };
  place.addEventListener("pointerover", (event) => { const option = optionOf(event.target); if (option) showTip(option); else hideTip(); });
  place.addEventListener("pointerleave", hideTip);
  place.addEventListener("focusin", (event) => { const option = optionOf(event.target); if (option) showTip(option); });
  place.addEventListener("focusout", hideTip);
  place.addEventListener("click", (event) => {
    const option = optionOf(event.target);
    if (option) { focused = Number(option.dataset.trial); Page.select(focused); }
  });
  const focusOn = (trial) => {
    focused = trial;
    for (const option of place.querySelectorAll("[data-trial]")) {
      const is = Number(option.dataset.trial) === trial;
      option.setAttribute("tabindex", is ? 0 : -1);
      if (is) option.focus();
    }
  };
  place.addEventListener("keydown", (event) => {
    const option = optionOf(event.target);
    if (!option) return;
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      Page.select(Number(option.dataset.trial));
      focusOn(Number(option.dataset.trial));
      return;
    }
    const horizontal = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const vertical = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (!horizontal && !vertical) return;
    event.preventDefault();
    const where = (o) => { const r = o.querySelector("path").getBoundingClientRect(); return horizontal ? [r.left + r.width / 2, r.top] : [r.top + r.height / 2, r.left]; };
    const sorted = [...place.querySelectorAll("[data-trial]")].sort((a, b) => where(a)[0] - where(b)[0] || where(a)[1] - where(b)[1]);
    const next = sorted[sorted.indexOf(option) + (horizontal || vertical)];
    if (next) focusOn(Number(next.dataset.trial));
  });

  choose(id("x-axis"), "speedup", axes);
  choose(id("y-axis"), data.objectives[0].name, [...axes].reverse());
  for (const [key, name] of Object.entries(families)) {
    const count = data.candidates.filter((one) => groupOf(one) === key).length;
    if (!count) { shown.delete(key); continue; }
    const box = el("input", { type: "checkbox", value: key, checked: true });
    box.addEventListener("change", () => { if (box.checked) shown.add(key); else shown.delete(key); draw(); });
    id("families").append(el("label", {}, box, ` ${name} (${count})`));
  }
  id("whole-range").addEventListener("change", draw);
  const sample = (name, path, text) =>
    el("li", {}, svg("svg", { viewBox: "-12 -12 24 24", "aria-hidden": "true" }, svg("g", { class: name }, svg("path", { d: path }))), text);
  id("front-legend").append(
    sample("point pick of-front joined", star, "pick"),
    sample("point of-front joined", marks.search, "front"),
    sample("point of-front hidden-member", marks.search, "on the front for another score"),
    sample("point of-search beside", marks.search, "searched, beaten"),
    sample("point of-plain joined", marks.plain, "plain step reduction"),
    sample("point of-preset joined", marks.preset, "published presets"),
    sample("point", "M-6-6H6V6H-6Z", "baseline"),
  );
  Page.listeners.push(draw);
  Page.drawn(place, draw);
})();

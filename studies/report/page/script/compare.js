// Images of the selected schedule beside the baseline's, prompt by prompt from the same noise.
(() => {
  const { data, el, id, number, signed } = Page;
  Page.image = (schedule, prompt) => {
    const found = (Page.images[schedule] || {})[prompt];
    return found && `data:image/webp;base64,${found}`;
  };
  Page.pairs = (one) =>
    data.prompts.map((text, prompt) => ({ text, prompt, mine: Page.image(one.schedule, prompt), base: Page.image(data.baseline.schedule, prompt) }));

  const differences = (one, prompt) =>
    data.objectives.map(({ name }) => {
      const [mine, base] = [one.prompt_scores[name][prompt], data.baseline.prompt_scores[name][prompt]];
      return { name, mine, base, delta: mine == null || base == null ? null : mine - base };
    });

  const order = id("image-order");
  order.append(el("option", { value: "" }, "as the prompts came"));
  for (const { name } of data.objectives) {
    order.append(el("option", { value: `loss ${name}` }, `${name}: largest loss first`), el("option", { value: `gain ${name}` }, `${name}: largest gain first`));
  }
  order.selectedIndex = data.objectives.length ? 1 : 0;

  const sorted = (one, rows) => {
    const [kind, ...rest] = order.value.split(" ");
    if (!kind) return rows;
    const name = rest.join(" ");
    const gain = (row) => {
      const { delta } = differences(one, row.prompt).find((found) => found.name === name);
      return delta == null ? null : Page.sign(name) * delta;
    };
    const key = (row) => { const value = gain(row); return value == null ? Infinity : kind === "loss" ? value : -value; };
    return [...rows].sort((a, b) => key(a) - key(b));
  };

  const scoreList = (one, prompt) =>
    el("ul", { class: "scores" }, ...differences(one, prompt).map(({ name, mine, base, delta }) =>
      el("li", {}, `${name} `, delta == null ? "not scored" : `${number(base, 3)} → ${number(mine, 3)} `,
        delta == null ? null : el("b", { class: Page.sign(name) * delta > 0 ? "gain" : delta === 0 ? "even" : "loss" }, signed(delta)))));

  const pixelated = (image) => {
    image.addEventListener("load", () => image.classList.toggle("pixels", image.naturalWidth <= 128));
    return image;
  };
  Page.picture = (source, alt) => pixelated(el("img", { src: source, alt, draggable: "false" }));

  const card = (one, { text, prompt, mine, base }) => {
    const frame = el("div", { class: "frame" },
      el("div", { class: "under" }, Page.picture(base, `Baseline: ${text}`), el("span", { class: "corner" }, "baseline")),
      el("div", { class: "over" }, Page.picture(mine, `Trial ${one.trial}: ${text}`), el("span", { class: "corner right" }, `trial ${one.trial}`)),
      el("div", { class: "divider" }));
    const slider = el("input", {
      type: "range", min: 0, max: 100, value: 50, step: 1, "aria-label": `Baseline on the left, trial ${one.trial} on the right: ${text}`,
      oninput: () => frame.style.setProperty("--cut", `${slider.value}%`),
    });
    frame.append(slider);
    return el("figure", {}, frame, el("figcaption", {}, el("span", { class: "prompt" }, text), scoreList(one, prompt)));
  };

  const promptTable = (one, rows) => {
    const head = el("tr", {}, el("th", { scope: "col" }, "Prompt"), ...data.objectives.flatMap(({ name }) => [el("th", { scope: "col", class: "number" }, name), el("th", { scope: "col", class: "number" }, "difference")]));
    const body = rows.map(({ text, prompt }) => el("tr", {}, el("th", { scope: "row" }, text), ...differences(one, prompt).flatMap(({ name, mine, delta }) => [
      el("td", { class: "number" }, number(mine)),
      el("td", { class: `number ${delta == null || delta === 0 ? "even" : Page.sign(name) * delta > 0 ? "gain" : "loss"}` }, delta == null ? "–" : signed(delta)),
    ])));
    return el("table", {}, el("thead", {}, head), el("tbody", {}, ...body));
  };

  const draw = (one) => {
    const rows = sorted(one, Page.pairs(one));
    const seen = rows.filter((row) => row.mine && row.base);
    const note = seen.length
      ? `${seen.length} of ${rows.length} search prompts have images: a study keeps those of its first unit of work.`
      : Page.images[data.baseline.schedule]
        ? "No image of this schedule was kept: a study keeps images of the front, the references and the baseline."
        : "This study has kept no images.";
    id("images-note").textContent = note;
    id("gallery").replaceChildren(...seen.map((row) => card(one, row)));
    id("prompt-scores").querySelector(".scroll").replaceChildren(promptTable(one, rows));
  };

  order.addEventListener("change", () => draw(Page.selected));
  id("image-mode").addEventListener("change", (event) => { id("gallery").dataset.mode = event.target.value; });
  id("gallery").dataset.mode = "slider";
  Page.listeners.push(draw);
})();

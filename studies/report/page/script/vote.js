// Blind votes: pairs in random order with random sides, judged by keyboard or by button, saved as JSON.
(() => {
  const { data, el, id } = Page;
  const [ballot, start, save, status] = ["ballot", "vote-start", "vote-save", "vote-status"].map(id);
  const votes = [];
  let round = null;

  const shuffled = (list) => {
    const mixed = [...list];
    for (let last = mixed.length - 1; last > 0; last--) {
      const other = Math.floor(Math.random() * (last + 1));
      [mixed[last], mixed[other]] = [mixed[other], mixed[last]];
    }
    return mixed;
  };

  const say = () => {
    save.disabled = votes.length === 0;
    status.textContent = votes.length ? `${votes.length} ${votes.length === 1 ? "vote" : "votes"} not yet sent anywhere: save them.` : "";
  };

  const show = () => {
    const pair = round.pairs[round.cast.length];
    if (!pair) return finish();
    const side = (name, source) => el("button", { type: "button", class: "choice", "aria-label": `${name} is better`, onclick: () => cast(name) }, Page.picture(source, `${name} image`));
    const [left, right] = pair.left === "schedule" ? [pair.mine, pair.base] : [pair.base, pair.mine];
    ballot.replaceChildren(
      el("p", { class: "prompt", role: "status" }, `${round.cast.length + 1} of ${round.pairs.length}: `, el("strong", {}, pair.text)),
      el("div", { class: "pair" }, side("left", left), side("right", right)),
      el("p", { class: "row center" },
        el("button", { type: "button", onclick: () => cast("left") }, "← Left"),
        el("button", { type: "button", onclick: () => cast("tie") }, "↓ No difference"),
        el("button", { type: "button", onclick: () => cast("right") }, "Right →"),
        el("button", { type: "button", class: "link", disabled: round.cast.length === 0, onclick: back }, "Take back")));
    ballot.focus();
  };

  const cast = (choice) => {
    const pair = round.pairs[round.cast.length];
    if (!pair) return;
    const other = { schedule: "baseline", baseline: "schedule" }[pair.left];
    const winner = { left: pair.left, right: other, tie: "tie" }[choice];
    const vote = { trial: round.one.trial, schedule: round.one.schedule, prompt: pair.prompt, left: pair.left, winner };
    round.cast.push(vote);
    votes.push(vote);
    say();
    show();
  };

  const back = () => {
    if (!round.cast.length) return;
    round.cast.pop();
    votes.pop();
    say();
    show();
  };

  const finish = () => {
    const count = (winner) => round.cast.filter((vote) => vote.winner === winner).length;
    ballot.replaceChildren(el("p", { role: "status" },
      `Done. ${Page.title(round.one)} was better ${count("schedule")} times, the baseline ${count("baseline")} times, no difference ${count("tie")} times.`));
    start.textContent = "Vote once more";
    ballot.focus();
  };

  start.addEventListener("click", () => {
    const pairs = Page.pairs(Page.selected).filter((pair) => pair.mine && pair.base);
    round = { one: Page.selected, cast: [], pairs: shuffled(pairs).map((pair) => ({ ...pair, left: Math.random() < 0.5 ? "schedule" : "baseline" })) };
    ballot.hidden = false;
    show();
  });
  ballot.addEventListener("keydown", (event) => {
    const choice = { ArrowLeft: "left", ArrowRight: "right", ArrowDown: "tie" }[event.key];
    if (!round || event.altKey || event.ctrlKey || event.metaKey || (!choice && event.key !== "Backspace")) return;
    event.preventDefault();
    if (choice) cast(choice);
    else if (round.cast.length < round.pairs.length) back();
  });
  save.addEventListener("click", () => {
    Page.save(`votes-${data.study.name}.json`, JSON.stringify({ study: data.study.id, name: data.study.name, votes }, null, 1), "application/json");
    status.textContent = `${votes.length} saved.`;
  });

  Page.listeners.push((one) => {
    const possible = Page.pairs(one).some((pair) => pair.mine && pair.base);
    start.disabled = !possible;
    start.textContent = possible ? `Start voting on ${Page.title(one).toLowerCase()}` : "No images to vote on";
    if (round && round.one !== one) { round = null; ballot.hidden = true; ballot.replaceChildren(); }
  });
})();

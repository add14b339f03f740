// What joins the parts: the buttons of the page, and the trial that an address ending in #trial-N names.
(() => {
  document.body.classList.add("scripts");
  for (const button of document.querySelectorAll("[data-select]")) {
    button.addEventListener("click", () => {
      Page.select(Number(button.dataset.select));
      Page.id("schedule").scrollIntoView();
    });
  }
  for (const button of document.querySelectorAll("[data-copy]")) {
    button.addEventListener("click", () => Page.copy(Page.id(button.dataset.copy).textContent, button));
  }
  addEventListener("beforeprint", () => { document.querySelector("#front details").open = true; });
  const time = document.querySelector("[data-seconds]");
  time.textContent = Page.duration(Number(time.dataset.seconds));
  Page.listeners.push((one) => {
    for (const button of document.querySelectorAll("[data-select]")) {
      button.setAttribute("aria-pressed", Number(button.dataset.select) === one.trial);
    }
  });
  const named = /^#trial-(\d+)$/.exec(location.hash);
  Page.select(named && Page.byTrial.has(Number(named[1])) ? Number(named[1]) : Page.data.pick);
})();

for (const pager of document.querySelectorAll(".pager")) {
  const entries = [...pager.querySelectorAll("article")], choices = [...pager.querySelectorAll("select")];
  const [previous, next] = pager.querySelectorAll("button"), place = pager.querySelector("output");
  let shown = entries, at = 0;
  function show(index) {
    at = index;
    for (const entry of entries) entry.hidden = entry !== shown[at];
    place.textContent = shown.length ? `${at + 1} of ${shown.length}` : "none";
    previous.disabled = at <= 0;
    next.disabled = at >= shown.length - 1;
  }
  function choose() {
    const current = shown[at], asked = choices.filter(choice => choice.value);
    const fits = entry => choice => entry.dataset[choice.name].split("|").includes(choice.value);
    shown = entries.filter(entry => asked.every(fits(entry)));
    show(Math.max(0, shown.indexOf(current)));
  }
  for (const choice of choices) choice.addEventListener("change", choose);
  previous.addEventListener("click", () => show(at - 1));
  next.addEventListener("click", () => show(at + 1));
  pager.querySelector("nav").hidden = false;
  choose();
}

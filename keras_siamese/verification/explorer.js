"use strict";
// Lets a reader move the threshold of each `.explorer`: its numbers are those in the JSON beside it. Without scripts the
// page shows the threshold that it was written with.
for (const box of document.querySelectorAll(".explorer")) {
  const data = JSON.parse(box.querySelector('script[type="application/json"]').textContent);
  const find = (selector) => box.querySelector(selector);
  const slider = find(".threshold"), svg = find("svg"), who = find(".who"), which = find(".which"), group = find(".group");
  const examples = [...box.querySelectorAll(".examples figure")];
  const count = (number) => number.toLocaleString("en-US");
  const rate = (share) => (share * 100).toPrecision(3) + " %";
  const short = (number) => String(Number(number.toPrecision(6)));
  const place = (score) => Math.min(640, Math.max(0, (640 * (score - data.low)) / (data.high - data.low)));

  const part = (kind, accepted, total) => {
    if (accepted === 0 || accepted === total) return `${accepted ? "all" : "no"} ${kind} pairs are accepted`;
    let some = 100, shown = 0;
    for (; ; some *= 10) {
      shown = Math.round((accepted / total) * some);
      if (shown > 0 && shown < some) break;
    }
    return `of ${count(some)} ${kind} pairs ${count(shown)} ${shown === 1 ? "is" : "are"} accepted`;
  };

  const show = () => {
    const at = Number(slider.value), threshold = data.thresholds[at];
    const rows = [["genuine", data.genuine[at], true], ["impostor", data.impostor[at], false]];
    find(".sentence").textContent =
      `At threshold ${short(threshold)}: ${part(...rows[0].slice(0, 2), data.genuines)}; ${part(...rows[1].slice(0, 2), data.impostors)}.`;
    slider.setAttribute("aria-valuetext", short(threshold));
    box.querySelectorAll(".counts").forEach((row, index) => {
      const accepted = rows[index][1], total = index ? data.impostors : data.genuines;
      const wrong = index ? accepted : total - accepted;
      const cells = [count(total), count(accepted), count(total - accepted), rate(wrong / total)];
      cells.forEach((cell, column) => (row.cells[column + 1].textContent = cell));
    });
    for (const name of ["x1", "x2"]) find(".cut").setAttribute(name, place(threshold));
    const sought = who ? who.value.trim().toLowerCase() : "", kind = which ? which.value : "all";
    const chosen = group ? group.value : "";
    let visible = 0;
    for (const figure of examples) {
      const accepted = Number(figure.dataset.score) >= threshold, same = figure.dataset.same === "1";
      const wrong = accepted !== same;
      figure.classList.toggle("wrong", wrong);
      figure.querySelector(".outcome").textContent =
        `${same ? "genuine" : "impostor"} pair ${accepted ? "accepted" : "rejected"}${wrong ? ": wrong" : ""}`;
      const wanted = { all: true, wrong, accepted, rejected: !accepted }[kind];
      const inside = !chosen || figure.dataset.group === chosen;
      figure.hidden = !(wanted && inside && figure.dataset.who.toLowerCase().includes(sought));
      visible += !figure.hidden;
    }
    if (find(".none")) find(".none").hidden = visible > 0;
  };

  const nearest = (event) => {
    const frame = svg.getBoundingClientRect();
    const score = data.low + ((event.clientX - frame.left) / frame.width) * (data.high - data.low);
    let best = 0;
    data.thresholds.forEach((threshold, at) => {
      if (Math.abs(threshold - score) < Math.abs(data.thresholds[best] - score)) best = at;
    });
    return best;
  };
  svg.addEventListener("pointermove", (event) => {
    const at = nearest(event), threshold = data.thresholds[at];
    for (const name of ["x1", "x2"]) find(".hover").setAttribute(name, place(threshold));
    const fmr = data.impostor[at] / data.impostors, fnmr = 1 - data.genuine[at] / data.genuines;
    find(".readout").textContent = `Under the pointer: threshold ${short(threshold)}, FMR ${rate(fmr)}, FNMR ${rate(fnmr)}.`;
  });
  svg.addEventListener("pointerleave", () => {
    for (const name of ["x1", "x2"]) find(".hover").setAttribute(name, -9);
    find(".readout").textContent = "";
  });
  svg.addEventListener("click", (event) => { slider.value = nearest(event); show(); });
  slider.addEventListener("input", show);
  if (which) which.addEventListener("change", show);
  if (group) group.addEventListener("change", show);
  if (who) who.addEventListener("input", show);
  for (const controls of box.querySelectorAll(".controls")) controls.hidden = false;
  show();
}

"use strict";
// Which of the `values` is nearest to the one that is sought.
const nearestOf = (values, sought) =>
  values.reduce((best, value, at) => (Math.abs(value - sought) < Math.abs(values[best] - sought) ? at : best), 0);

// Reads the curves of each `.curves` at the pointer, or where the arrow keys have moved its slider. A chart has a `box`,
// left, top, width and height as shares of the picture, and at each place of `at` a text that `says` its values.
for (const figure of document.querySelectorAll(".curves")) {
  const plot = figure.querySelector(".plot"), line = figure.querySelector(".at");
  const charts = JSON.parse(plot.dataset.charts), sliders = plot.querySelectorAll("input");
  const show = (chart, index) => {
    const { box: [left, top, width, height], at, says } = charts[chart];
    const place = { left: left + at[index] * width, top, height };
    for (const side in place) line.style[side] = `${100 * place[side]}%`;
    sliders[chart].value = index;
    sliders[chart].setAttribute("aria-valuetext", says[index]);
    figure.querySelector(".reading").textContent = says[index];
  };
  const point = (event) => {
    const frame = plot.getBoundingClientRect();
    const x = (event.clientX - frame.left) / frame.width, y = (event.clientY - frame.top) / frame.height;
    charts.forEach(({ box: [left, top, width, height], at }, chart) => {
      const inside = x >= left && x <= left + width && y >= top && y <= top + height;
      if (inside) show(chart, nearestOf(at, (x - left) / width));
    });
  };
  for (const event of ["pointermove", "pointerdown"]) plot.addEventListener(event, point);
  sliders.forEach((slider, chart) => {
    for (const event of ["focus", "input"]) slider.addEventListener(event, () => show(chart, Number(slider.value)));
  });
  for (const hidden of figure.querySelectorAll(".controls")) hidden.hidden = false;
}

// Lets a reader move the threshold of each `.explorer`, and choose a group of pairs: its numbers are those in the JSON
// beside it. Without scripts the page shows all pairs at the threshold that it was written with.
for (const box of document.querySelectorAll(".explorer")) {
  const data = JSON.parse(box.querySelector('script[type="application/json"]').textContent);
  const find = (selector) => box.querySelector(selector);
  const slider = find(".threshold"), svg = find("svg"), who = find(".who"), which = find(".which"), group = find(".group");
  const examples = [...box.querySelectorAll(".examples figure")];
  const count = (number) => number.toLocaleString("en-US");
  const rate = (some, total) => (total ? ((some / total) * 100).toPrecision(3) + " %" : "–");
  const short = (number) => String(Number(number.toPrecision(6)));
  const place = (score) => Math.min(640, Math.max(0, (640 * (score - data.low)) / (data.high - data.low)));
  const path = (points) => (points.length ? "M" : "") + points.map((point) => point.map((x) => x.toFixed(1))).join(" ");
  const curve = (rates) => path(rates.map((share, at) => [place(data.thresholds[at]), 150 + 130 * (1 - share)]));
  const outline = (bars) => {
    const top = Math.max(...bars), wide = 640 / bars.length;
    const tops = bars.flatMap((bar, at) => [at, at + 1].map((edge) => [edge * wide, 150 - (130 * bar) / top]));
    return top ? path([[0, 150], ...tops, [640, 150]]) : "";
  };
  const paths = [...svg.querySelectorAll("path")], written = paths.map((one) => one.getAttribute("d"));
  let pairs = data;  // those of the chosen group, or all

  const draw = () => {
    const { genuine, impostor, genuines, impostors, bars } = pairs;
    const drawn = pairs === data ? written : [
      ...bars.map(outline),
      curve(genuines ? genuine.map((accepted) => 1 - accepted / genuines) : []),
      curve(impostors ? impostor.map((accepted) => accepted / impostors) : []),
    ];
    paths.forEach((one, index) => one.setAttribute("d", drawn[index]));
  };

  const part = (kind, accepted, total) => {
    if (!total) return `there are no ${kind} pairs`;
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
    const rows = [["genuine", pairs.genuine[at], pairs.genuines], ["impostor", pairs.impostor[at], pairs.impostors]];
    const where = pairs === data ? "" : `, in group ${group.selectedOptions[0].textContent}`;
    find(".sentence").textContent = `At threshold ${short(threshold)}${where}: ${part(...rows[0])}; ${part(...rows[1])}.`;
    slider.setAttribute("aria-valuetext", short(threshold));
    box.querySelectorAll(".counts").forEach((row, index) => {
      const [, accepted, total] = rows[index], wrong = index ? accepted : total - accepted;
      const cells = [count(total), count(accepted), count(total - accepted), rate(wrong, total)];
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
    return nearestOf(data.thresholds, score);
  };
  svg.addEventListener("pointermove", (event) => {
    const at = nearest(event), threshold = data.thresholds[at];
    for (const name of ["x1", "x2"]) find(".hover").setAttribute(name, place(threshold));
    const { genuine, impostor, genuines, impostors } = pairs;
    const fmr = rate(impostor[at], impostors), fnmr = rate(genuines - genuine[at], genuines);
    find(".readout").textContent = `Under the pointer: threshold ${short(threshold)}, FMR ${fmr}, FNMR ${fnmr}.`;
  });
  svg.addEventListener("pointerleave", () => {
    for (const name of ["x1", "x2"]) find(".hover").setAttribute(name, -9);
    find(".readout").textContent = "";
  });
  svg.addEventListener("click", (event) => { slider.value = nearest(event); show(); });
  slider.addEventListener("input", show);
  if (which) which.addEventListener("change", show);
  const choose = () => {
    pairs = group.value ? data.groups[group.value] : data;
    draw();
    show();
  };
  if (group) group.addEventListener("change", choose);
  if (who) who.addEventListener("input", show);
  for (const controls of box.querySelectorAll(".controls")) controls.hidden = false;
  if (group) choose();  // a browser may keep the choice when the page is loaded again
  else show();
}

"use strict";
// Comfort only: the page says everything without it. Reading lines under the pointer, tracing one
// source through all charts, sorting the table, unfolding on paper.
(() => {
  const data = JSON.parse(document.getElementById("report-data").textContent);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];

  const format = (value, kind) =>
    kind === "percent" ? `${(100 * value).toFixed(value < 0.01 ? 2 : 1)}%` : value.toPrecision(4);
  const count = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });

  function readUnderPointer(plot) {
    const chart = data.charts[plot.dataset.chart];
    const canvas = plot.querySelector(".canvas");
    const low = Number(plot.dataset.low), high = Number(plot.dataset.high);
    const hair = document.createElement("div");
    const box = document.createElement("div");
    hair.className = "hair";
    box.className = "readout";
    hair.hidden = box.hidden = true;
    canvas.append(hair, box);

    function show(event) {
      const bounds = canvas.getBoundingClientRect();
      const wanted = low + ((event.clientX - bounds.left) / bounds.width) * (high - low);
      let nearest = 0;
      chart.x.forEach((x, i) => {
        if (Math.abs(x - wanted) < Math.abs(chart.x[nearest] - wanted)) nearest = i;
      });
      const place = (chart.x[nearest] - low) / (high - low);
      const rows = chart.series
        .map((each) => ({ ...each, value: each.values[nearest] }))
        .filter((each) => each.value !== null)
        .sort((a, b) => b.value - a.value);
      const lines = rows.map((each) => {
        const line = document.createElement("div");
        const swatch = document.createElement("i");
        const value = document.createElement("b");
        swatch.className = `swatch c${each.colour}`;
        value.textContent = format(each.value, chart.kind);
        line.append(swatch, value, ` ${each.name}`);
        return line;
      });
      const title = document.createElement("div");
      title.className = "readout-title";
      title.textContent = `${chart.x_title} ${count.format(chart.x[nearest])}`;
      box.replaceChildren(title, ...lines);
      hair.hidden = box.hidden = false;
      hair.style.left = `${100 * place}%`;
      // On the side with more room, and never beyond the page.
      box.style.left = place < 0.5 ? `calc(${100 * place}% + 10px)` : "auto";
      box.style.right = place < 0.5 ? "auto" : `calc(${100 * (1 - place)}% + 10px)`;
    }
    canvas.addEventListener("pointermove", show);
    canvas.addEventListener("pointerdown", show);
    canvas.addEventListener("pointerleave", () => { hair.hidden = box.hidden = true; });
  }

  function traceSources() {
    const traced = all("[data-series]");
    const trace = (name) => {
      document.body.classList.toggle("tracing", name !== null);
      traced.forEach((each) => each.classList.toggle("traced", each.dataset.series === name));
    };
    traced.forEach((each) => {
      each.addEventListener("pointerenter", () => trace(each.dataset.series));
      each.addEventListener("pointerleave", () => trace(null));
    });
  }

  function sortByHeaders(table) {
    const body = table.tBodies[0];
    const key = (row, column) => {
      const cell = row.cells[column];
      if (column === 0) return cell.textContent;
      return cell.dataset.value === undefined ? -Infinity : Number(cell.dataset.value);
    };
    all("thead th", table).forEach((header, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = header.textContent;
      header.replaceChildren(button);
      button.addEventListener("click", () => {
        const falling = header.getAttribute("aria-sort") !== "descending";
        all("thead th", table).forEach((each) => each.removeAttribute("aria-sort"));
        header.setAttribute("aria-sort", falling ? "descending" : "ascending");
        const rows = [...body.rows].sort((a, b) => {
          const [x, y] = [key(a, column), key(b, column)];
          const order = typeof x === "string" ? -x.localeCompare(y) : x < y ? -1 : x > y ? 1 : 0;
          return falling ? -order : order;
        });
        body.replaceChildren(...rows);
      });
    });
  }

  all(".plot").forEach(readUnderPointer);
  all("table.sortable").forEach(sortByHeaders);
  traceSources();
  addEventListener("beforeprint", () => all("details.more").forEach((each) => { each.open = true; }));
})();

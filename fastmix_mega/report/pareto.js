"use strict";
// What one target costs another: the best mixtures for the weights between two targets.
const paretoFront = (() => {
  const POINTS = 11, WIDTH = 460, HEIGHT = 300, LEFT = 62, BOTTOM = 42, TOP = 12, RIGHT = 14;
  const NAMESPACE = "http://www.w3.org/2000/svg";
  let waiting = null;

  function element(name, attributes, text) {
    const made = document.createElementNS(NAMESPACE, name);
    Object.entries(attributes).forEach(([key, value]) => made.setAttribute(key, value));
    if (text !== undefined) made.textContent = text;
    return made;
  }

  // [POINTS] {share, x, means, deviations}: share is the first target's weight.
  function points(surface, found, pair, count, limited) {
    let start;
    return Array.from({ length: POINTS }, (_, i) => {
      const share = 1 - i / (POINTS - 1), weights = new Array(count).fill(0);
      weights[pair[0]] = share;
      weights[pair[1]] = 1 - share;
      const x = surface.answer(weights, limited, start);
      start = x;
      return { share, x, ...surface.differences(x, found) };
    });
  }

  // Round numbers over a range, seven at most.
  function ticks(low, high) {
    const power = 10 ** Math.floor(Math.log10((high - low) / 7));
    const step = [1, 2, 5, 10, 20].map((each) => each * power).find((each) => (high - low) / each <= 6);
    const found = [];
    for (let at = Math.ceil(low / step); at * step <= high; at++) found.push(at * step);
    return found;
  }

  function range(values) {
    const low = Math.min(0, ...values), high = Math.max(0, ...values);
    const margin = 0.08 * (high - low) || 0.01;
    return [low - margin, high + margin];
  }

  const written = (value) => (Math.abs(value) < 1e-12 ? "0" : `${value < 0 ? "−" : "+"}${Number(Math.abs(value).toPrecision(3))}`);

  function axes(svg, place, spans, names) {
    ticks(...spans[0]).forEach((value) => {
      const x = place(value, 0)[0];
      svg.append(element("line", { class: "grid", x1: x, x2: x, y1: TOP, y2: HEIGHT - BOTTOM }));
      svg.append(element("text", { x, y: HEIGHT - BOTTOM + 14, "text-anchor": "middle" }, written(value)));
    });
    ticks(...spans[1]).forEach((value) => {
      const y = place(0, value)[1];
      svg.append(element("line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: y, y2: y }));
      svg.append(element("text", { x: LEFT - 6, y: y + 4, "text-anchor": "end" }, written(value)));
    });
    svg.append(element("text", { x: (LEFT + WIDTH) / 2, y: HEIGHT - 8, "text-anchor": "middle" }, names[0]));
    const middle = (HEIGHT - BOTTOM + TOP) / 2;
    svg.append(element("text", { x: 12, y: middle, "text-anchor": "middle", transform: `rotate(-90 12 ${middle})` }, names[1]));
  }

  function chart(figure, front, pair, names, half) {
    const svg = figure.querySelector("svg");
    const [a, b] = pair;
    const ends = (k) => front.flatMap((each) => [-1, 1].map((side) => each.means[k] + side * half * each.deviations[k]));
    const spans = [range(ends(a)), range(ends(b))];
    const place = (x, y) => [
      LEFT + ((x - spans[0][0]) / (spans[0][1] - spans[0][0])) * (WIDTH - LEFT - RIGHT),
      HEIGHT - BOTTOM - ((y - spans[1][0]) / (spans[1][1] - spans[1][0])) * (HEIGHT - BOTTOM - TOP),
    ].map((each) => Number(each.toFixed(2)));
    svg.replaceChildren(element("title", {}, `Predicted loss on ${names[1]} against that on ${names[0]}`));
    axes(svg, place, spans, names);
    front.forEach((each) => {
      const [x, y] = place(each.means[a], each.means[b]);
      const [left, low] = place(each.means[a] - half * each.deviations[a], each.means[b] - half * each.deviations[b]);
      const [right, high] = place(each.means[a] + half * each.deviations[a], each.means[b] + half * each.deviations[b]);
      svg.append(element("path", { class: "cross", d: `M${left} ${y}H${right}M${x} ${low}V${high}` }));
    });
    const path = front.map((each) => place(each.means[a], each.means[b]).join(" ")).join("L");
    svg.append(element("path", { class: "line c0", d: `M${path}`, fill: "none" }));
    front.forEach((each) => {
      const [cx, cy] = place(each.means[a], each.means[b]);
      const point = element("circle", { class: "point c0", cx, cy, r: 4.5 });
      point.append(element("title", {}, `${Math.round(100 * each.share)}% ${names[0]}`));
      svg.append(point);
    });
    const [cx, cy] = place(0, 0);
    svg.append(element("path", { class: "here", d: `M${cx - 6} ${cy}L${cx} ${cy - 6}L${cx + 6} ${cy}L${cx} ${cy + 6}Z` }));
  }

  function mixtures(figure, front, names, shown) {
    figure.querySelector(".front-rows").replaceChildren(...front.map((each) => {
      const row = document.createElement("li"), bar = document.createElement("span");
      const title = document.createElement("span");
      const share = Math.round(100 * each.share);
      title.textContent = `${share} : ${100 - share}`;
      bar.className = "stack";
      let rest = 1;
      shown.forEach(({ index, name, colour }) => {
        const part = document.createElement("i");
        part.className = colour;
        part.style.width = `${100 * each.x[index]}%`;
        part.title = `${name}: ${(100 * each.x[index]).toFixed(1)}%`;
        rest -= each.x[index];
        bar.append(part);
      });
      const others = document.createElement("i");
      others.className = "grey";
      others.style.width = `${100 * Math.max(0, rest)}%`;
      others.title = `others: ${(100 * rest).toFixed(1)}%`;
      if (rest > 1e-9) bar.append(others);
      bar.setAttribute("role", "img");
      bar.setAttribute("aria-label", `${share}% ${names[0]}: ${shown.map(({ index, name }) =>
        `${name} ${(100 * each.x[index]).toFixed(1)}%`).join(", ")}, others ${(100 * rest).toFixed(1)}%`);
      row.append(title, bar);
      return row;
    }));
    figure.querySelector(".front-names").textContent = `Weights ${names[0]} : ${names[1]}`;
  }

  // Draws at leisure: the sliders come first.
  function draw(section, { data, surface, found, limited }) {
    const figure = section.querySelector(".front");
    const chosen = [...figure.querySelectorAll("select")].map((each) => Number(each.value));
    const pair = chosen.length === 2 ? chosen : [0, 1];
    clearTimeout(waiting);
    waiting = setTimeout(() => {
      const names = pair.map((each) => data.surface.targets[each]);
      const shut = pair[0] === pair[1] || names.some((each) => data.contradicted.includes(each));
      figure.classList.toggle("shut", shut);
      if (shut) return;
      const front = points(surface, found, pair, data.surface.targets.length, limited);
      chart(figure, front, pair, names, data.sigmas);
      mixtures(figure, front, names, data.coloured);
    }, 60);
  }

  return { draw, points };
})();

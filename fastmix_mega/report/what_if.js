"use strict";
// The constraints' projection in the page: nearest mixture within limits, in KL(x || p). The same
// mathematics as fastmix_mega/mixture/constraints/solve.py, to which the tests compare it.
const whatIf = (() => {
  const ROUNDING = 1e-12, BISECTIONS = 120;

  class Infeasible extends Error {
    constructor(smallest, largest) {
      super("no mixture keeps to these limits");
      this.smallest = smallest;
      this.largest = largest;
    }
  }

  const sum = (values) => values.reduce((a, b) => a + b, 0);
  const clip = (value, low, high) => Math.min(Math.max(value, low), high);

  function reach(node, p, low, high) {
    const inner = node.groups.map((group) => reach(group, p, low, high));
    const smallest = sum(node.sources.map((i) => low[i])) + sum(inner.map((each) => each[0]));
    const largest =
      sum(node.sources.map((i) => (p[i] > 0 ? high[i] : low[i]))) + sum(inner.map((each) => each[1]));
    if (smallest > node.high + ROUNDING || largest < node.low - ROUNDING) {
      throw new Infeasible(smallest, largest);
    }
    return [Math.max(smallest, node.low), Math.min(largest, node.high)];
  }

  function parts(node, level, p, low, high) {
    return (
      sum(node.sources.map((i) => clip(p[i] * level, low[i], high[i]))) +
      sum(node.groups.map((group) => mass(group, level, p, low, high)))
    );
  }

  const mass = (node, level, p, low, high) =>
    clip(parts(node, level, p, low, high), node.low, node.high);

  function fill(node, share, p, low, high, result) {
    let below = -1400, above = 700;
    for (let i = 0; i < BISECTIONS; i++) {
      const middle = (below + above) / 2;
      if (parts(node, Math.exp(middle), p, low, high) < share) below = middle;
      else above = middle;
    }
    const level = Math.exp(above);
    node.sources.forEach((i) => { result[i] = clip(p[i] * level, low[i], high[i]); });
    node.groups.forEach((group) => fill(group, mass(group, level, p, low, high), p, low, high, result));
  }

  // root: {low, high, sources: [index], groups: [node]}; p, low, high: [S]. Throws Infeasible.
  function project(root, p, low, high) {
    reach(root, p, low, high);
    const result = low.slice();
    fill(root, 1, p, low, high, result);
    return result;
  }

  const divergence = (x, p) =>
    Math.max(0, sum(x.map((value, i) => (value > 0 ? value * Math.log(value / p[i]) : 0))));

  return { project, divergence, Infeasible };
})();

(() => {
  const section = document.getElementById("what-if");
  if (section === null) return;
  const data = JSON.parse(document.getElementById("report-data").textContent).what_if;
  const all = (selector) => [...section.querySelectorAll(selector)];
  const one = (selector) => section.querySelector(selector);
  const found = data.sources.map((each) => each.found);
  const percent = (value) => `${(100 * value).toFixed(value < 0.01 ? 2 : 1)}%`;
  const quantity = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });
  const rows = all("[data-index]").map((row) => ({ row, index: Number(row.dataset.index) }));
  const budget = one("[name=budget]"), epochs = one("[name=epochs]");
  const NO_LIMIT = epochs === null ? null : Number(epochs.max);

  const touched = new Set();
  const budgetTokens = () => {
    if (budget === null) return null;
    return touched.has(budget) ? 10 ** Number(budget.value) : data.budget;
  };
  const epochLimit = () =>
    epochs === null || Number(epochs.value) === NO_LIMIT ? null : Number(epochs.value);

  function solve() {
    const low = data.sources.map((each) => each.low), high = data.sources.map((each) => each.high);
    const tokens = budgetTokens(), limit = epochLimit();
    rows.forEach(({ row, index }) => {
      // An untouched slider stands for the exact limit, of which it shows a rounded one.
      const [min, max] = [row.querySelector("[name=min]"), row.querySelector("[name=max]")];
      if (touched.has(min)) low[index] = Number(min.value) / 100;
      if (touched.has(max)) high[index] = Number(max.value) / 100;
    });
    if (limit !== null) {
      data.sources.forEach((each, i) => {
        high[i] = Math.max(low[i], Math.min(high[i], (limit * each.tokens) / tokens));
      });
    }
    return whatIf.project(data.root, found, low, high);
  }

  function show() {
    const tokens = budgetTokens(), limit = epochLimit();
    if (budget !== null) {
      one(".budget-text").textContent = `${quantity.format(tokens)} tokens`;
      one(".epochs-text").textContent = limit === null ? "no limit" : `at most ${limit}`;
    }
    let x;
    try {
      x = solve();
    } catch (conflict) {
      if (!(conflict instanceof whatIf.Infeasible)) throw conflict;
      const why = conflict.largest < 1
        ? `Together the limits leave room for ${percent(conflict.largest)} only: raise one, or lower the budget.`
        : `Together the limits ask for ${percent(conflict.smallest)}: lower one.`;
      one(".verdict").textContent = `No mixture keeps to these limits. ${why}`;
      section.classList.add("impossible");
      return;
    }
    section.classList.remove("impossible");
    const widest = Math.max(...x, ...found);
    let often = 0;
    rows.forEach(({ row, index }) => {
      const low = Number(row.querySelector("[name=min]").value);
      const high = Number(row.querySelector("[name=max]").value);
      row.querySelector(".min-text").textContent = `${low}%`;
      row.querySelector(".max-text").textContent = `${high}%`;
      row.querySelector(".is").style.width = `${(100 * x[index]) / widest}%`;
      row.querySelector(".was").style.left = `${(100 * found[index]) / widest}%`;
      row.querySelector(".share").textContent = percent(x[index]);
      const size = data.sources[index].tokens;
      if (tokens !== null && size) {
        const times = (x[index] * tokens) / size;
        const cell = row.querySelector(".times");
        cell.textContent = `${times.toPrecision(3)} epochs`;
        cell.classList.toggle("alert", times > data.bearable_epochs);
      }
    });
    if (tokens !== null) {
      often = data.sources.filter((each, i) => (x[i] * tokens) / each.tokens > data.bearable_epochs).length;
    }
    const moved = x.reduce((total, value, i) => total + Math.abs(value - found[i]), 0) / 2;
    const gains = data.sources.map((each) => each.gain);
    const parts = [];
    if (moved < 1e-9) parts.push("No limit is reached: this is the mixture as it was found.");
    else {
      parts.push(`${percent(moved)} of the tokens move; distance ${whatIf.divergence(x, found).toFixed(4)} nats (KL).`);
      if (gains.includes(null)) parts.push("Predicted cost unknown: this mixture tells no gains.");
      else {
        const cost = x.reduce((total, value, i) => total + (found[i] - value) * gains[i], 0);
        parts.push(`Predicted cost for the proxy: ${cost < 0 ? "−" : "+"}${Math.abs(cost).toFixed(4)} nats per token of target loss.`);
        if (moved > 0.2) parts.push("That is no small shift, for which the prediction is made: retrain to know.");
      }
    }
    if (often > 0) parts.push(`${often} ${often === 1 ? "source is" : "sources are"} read more than ${data.bearable_epochs} times.`);
    one(".verdict").textContent = parts.join(" ");
  }

  // The two sliders of a source push each other.
  rows.forEach(({ row }) => {
    const low = row.querySelector("[name=min]"), high = row.querySelector("[name=max]");
    low.addEventListener("input", () => {
      touched.add(low);
      if (Number(high.value) < Number(low.value)) {
        high.value = low.value;
        touched.add(high);
      }
      show();
    });
    high.addEventListener("input", () => {
      touched.add(high);
      if (Number(low.value) > Number(high.value)) {
        low.value = high.value;
        touched.add(low);
      }
      show();
    });
  });
  [budget, epochs].forEach((input) =>
    input?.addEventListener("input", () => { touched.add(input); show(); }));
  one("form").addEventListener("reset", () => setTimeout(() => { touched.clear(); show(); }, 0));
  one("form").addEventListener("submit", (event) => event.preventDefault());
  section.hidden = false;
  show();
})();

"use strict";
// The sliders: the best mixture for the targets' weights and limits of the moment, and its price.
(() => {
  const section = document.getElementById("what-if");
  if (section === null) return;
  const data = JSON.parse(document.getElementById("report-data").textContent).what_if;
  const all = (selector) => [...section.querySelectorAll(selector)];
  const one = (selector) => section.querySelector(selector);
  const found = data.sources.map((each) => each.found);
  const surface = data.surface === null ? null : lossSurface.of(data.surface);
  const percent = (value) => `${(100 * value).toFixed(value < 0.01 ? 2 : 1)}%`;
  const quantity = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });
  const rows = all("[data-index]").map((row) => ({ row, index: Number(row.dataset.index) }));
  const budget = one("[name=budget]"), epochs = one("[name=epochs]");
  const weights = all("[name=weight]");
  const NO_LIMIT = epochs === null ? null : Number(epochs.max);

  const touched = new Set();
  const budgetTokens = () => {
    if (budget === null) return null;
    return touched.has(budget) ? 10 ** Number(budget.value) : data.budget;
  };
  const epochLimit = () =>
    epochs === null || Number(epochs.value) === NO_LIMIT ? null : Number(epochs.value);

  // [K] of the objective, with sum 1. An untouched row of sliders stands for the exact weights.
  function targetWeights() {
    const given = weights.map((each) => Number(each.value));
    const exact = !weights.some((each) => touched.has(each)) || given.every((each) => each === 0);
    return surface.inShares(exact ? data.surface.target_weights : given);
  }

  // To the nearest mixture within the limits of the moment.
  function limits() {
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
    return (mixture) => projection.project(data.root, mixture, low, high);
  }

  function solve() {
    const limited = limits();
    if (surface === null) return limited(found);
    return touched.size === 0 ? found : surface.answer(targetWeights(), limited);
  }

  const signed = (value) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(3)}`;

  // In words, what the surface says of a mixture beside the found one.
  function price(x) {
    const { means, deviations } = surface.differences(x, found);
    const shares = targetWeights(), half = data.sigmas;
    const parts = data.surface.targets.map((name, k) => data.contradicted.includes(name)
      ? `${name}: unknown, since retraining contradicts what was predicted of it`
      : `${name} ${signed(means[k])} ± ${(half * deviations[k]).toFixed(3)}`);
    const mean = means.reduce((total, each, k) => total + shares[k] * each, 0);
    const spread = deviations.reduce((total, each, k) => total + shares[k] * each, 0);
    const together = `${signed(mean)} ± ${(half * spread).toFixed(3)} for their mean as weighted here`;
    const shown = parts.length > 6 ? [] : parts;
    if (parts.length > 1 && data.contradicted.length === 0) shown.push(together);
    return `Predicted loss beside the mixture above, in nats per token with 90% intervals: ${shown.join("; ")}.`;
  }

  function cost(x) {
    if (surface !== null) return price(x);
    const gains = data.sources.map((each) => each.gain);
    if (gains.includes(null)) return "Predicted cost unknown: this mixture tells no gains.";
    const lost = x.reduce((total, value, i) => total + (found[i] - value) * gains[i], 0);
    return `Predicted cost for the proxy: ${lost < 0 ? "−" : "+"}${Math.abs(lost).toFixed(4)} nats per token of target loss.`;
  }

  // What changed, and what it costs.
  function verdict(x, tokens) {
    const moved = x.reduce((total, value, i) => total + Math.abs(value - found[i]), 0) / 2;
    const parts = [];
    let first = "This is the mixture as it was found.";
    if (moved >= 1e-9) {
      first = `${percent(moved)} of the tokens move; distance ${projection.divergence(x, found).toFixed(4)} nats (KL).`;
      parts.push(cost(x));
      if (surface === null && moved > 0.2) parts.push("That is no small shift, for which the prediction is made: retrain to know.");
    }
    const often = tokens === null ? 0
      : data.sources.filter((each, i) => (x[i] * tokens) / each.tokens > data.bearable_epochs).length;
    if (often > 0) parts.push(`${often} ${often === 1 ? "source is" : "sources are"} read more than ${data.bearable_epochs} times.`);
    const bold = document.createElement("b");
    bold.textContent = first;
    return [bold, ` ${parts.join(" ")}`];
  }

  function refuse(conflict) {
    if (!(conflict instanceof projection.Infeasible)) throw conflict;
    const why = conflict.largest < 1
      ? `Together the limits leave room for ${percent(conflict.largest)} only: raise one, or lower the budget.`
      : `Together the limits ask for ${percent(conflict.smallest)}: lower one.`;
    one(".verdict").textContent = `No mixture keeps to these limits. ${why}`;
    section.classList.add("impossible");
  }

  function showRow({ row, index }, x, tokens, widest) {
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
      cell.textContent = `${times > 0 && times < 0.01 ? "<0.01" : times.toPrecision(3)} epochs`;
      cell.classList.toggle("alert", times > data.bearable_epochs);
    }
  }

  function show() {
    const tokens = budgetTokens(), limit = epochLimit();
    if (budget !== null) {
      one(".budget-text").textContent = `${quantity.format(tokens)} tokens`;
      one(".epochs-text").textContent = limit === null ? "no limit" : `at most ${limit}`;
    }
    if (weights.length > 0) {
      const shares = targetWeights();
      weights.forEach((each, k) => {
        each.parentElement.querySelector("output").textContent = percent(shares[k]);
      });
    }
    let x;
    try {
      x = solve();
    } catch (conflict) {
      refuse(conflict);
      return;
    }
    section.classList.remove("impossible");
    const widest = Math.max(...x, ...found);
    rows.forEach((each) => showRow(each, x, tokens, widest));
    one(".verdict").replaceChildren(...verdict(x, tokens));
    const written = data.sources.map((each, i) => `${JSON.stringify(each.name)}: ${x[i].toPrecision(6)}`);
    one(".taken").textContent = `mixture: {${written.join(", ")}}`;
    if (surface !== null && weights.length > 0) {
      paretoFront.draw(section, { data, surface, found, x, limited: limits() });
    }
  }

  const push = (moved, other, clash) => moved.addEventListener("input", () => {
    touched.add(moved);
    if (clash()) {
      other.value = moved.value;
      touched.add(other);
    }
    show();
  });
  // The two sliders of a source push each other.
  rows.forEach(({ row }) => {
    const low = row.querySelector("[name=min]"), high = row.querySelector("[name=max]");
    const crossed = () => Number(high.value) < Number(low.value);
    push(low, high, crossed);
    push(high, low, crossed);
  });
  [budget, epochs, ...weights].forEach((input) =>
    input?.addEventListener("input", () => { touched.add(input); show(); }));
  all(".front select").forEach((each) => each.addEventListener("change", show));
  one("form").addEventListener("reset", () => setTimeout(() => { touched.clear(); show(); }, 0));
  one("form").addEventListener("submit", (event) => event.preventDefault());
  section.hidden = false;
  show();
})();

"use strict";
// The constraints' projection in the page: nearest mixture within limits, in KL(x || p). The same
// mathematics as fastmix_mega/mixture/constraints/solve.py, to which the tests compare it.
const projection = (() => {
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

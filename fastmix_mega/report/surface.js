"use strict";
// The loss surface in the page: what any mixture would lose, and the best one. The same mathematics
// as surface.py, misfit.py, ngram_loss.py and descent.py of fastmix_mega/mixture, to which the tests
// compare it.
const lossSurface = (() => {
  const MOST_ITERATIONS = 400, LEAST_GAIN = 1e-7, LEAST_STEP = 1e-9, FLOOR = 0.02;
  const sum = (values) => values.reduce((a, b) => a + b, 0);
  const zeros = (count) => new Array(count).fill(0);

  // [D] sums over a table's columns, each entry times its source's value.
  function down(table, values) {
    const found = zeros(table.start.length - 1);
    for (let column = 0; column < found.length; column++) {
      for (let at = table.start[column]; at < table.start[column + 1]; at++) {
        found[column] += values[table.source[at]] * table.frequency[at];
      }
    }
    return found;
  }

  // Adds to [S] the sums over a table's rows, each entry times its column's value.
  function across(table, values, found, sign) {
    for (let column = 0; column < values.length; column++) {
      for (let at = table.start[column]; at < table.start[column + 1]; at++) {
        found[table.source[at]] += sign * values[column] * table.frequency[at];
      }
    }
  }

  function gathered(places, values, count) {
    const found = zeros(count);
    places.forEach((place, i) => { found[place] += values[i]; });
    return found;
  }

  // {losses: [K], slopes: [K][S]} of the n-gram loss model at a mixture.
  function ngramLosses(settings, few, mixture) {
    const budget = settings.budget_tokens, lasting = settings.repetitions;
    const read = settings.read_tokens ?? zeros(mixture.length), whole = budget + sum(read);
    const share = Math.min(whole, few.counted) / whole;
    const epochs = mixture.map((value, i) => (read[i] + budget * value) / few.tokens[i]);
    const worth = epochs.map((each) => Math.exp(-Math.max(each - 1, 0) / lasting));
    const used = epochs.map((each, i) =>
      (Math.min(each, 1) + lasting * (1 - worth[i])) * few.tokens[i] * share);
    const total = sum(used) + few.vocab_size;
    const singles = down(few.singles, used).map((each) => (each + 1) / total);
    let probability = few.single_at.map((place) => singles[place]);
    const steps = few.levels.map((level, length) => {
      const weight = settings.smoothing[length];
      const together = down(level.followed, used), alone = down(level.contexts, used);
      const below = level.context_at.map((place) => alone[place] + weight);
      const before = probability;
      probability = below.map((each, i) =>
        (together[level.followed_at[i]] + weight * before[i]) / each);
      return { level, weight, below, probability };
    });
    const lengths = settings.context_lengths;
    const slopes = few.weights.map((shares, target) => {
      const found = zeros(mixture.length), own = steps.slice(0, lengths[target]);
      let sensitivity = shares.map((each, i) => each / own.at(-1).probability[i]);
      for (const step of own.reverse()) {
        const { level, weight, below } = step;
        const scaled = sensitivity.map((each, i) => each / below[i]);
        const together = gathered(level.followed_at, scaled, level.followed.start.length - 1);
        const alone = gathered(level.context_at, scaled.map((each, i) => each * step.probability[i]),
          level.contexts.start.length - 1);
        across(level.followed, together, found, -1);
        across(level.contexts, alone, found, 1);
        sensitivity = scaled.map((each) => weight * each);
      }
      const last = gathered(few.single_at, sensitivity, singles.length);
      const all = sum(last.map((each, i) => each * singles[i]));
      across(few.singles, last.map((each) => each / total), found, -1);
      return found.map((each, i) => (each + all / total) * budget * share * worth[i]);
    });
    const losses = few.weights.map((shares, target) => -sum(shares.map((each, i) =>
      each * Math.log(steps[lengths[target] - 1].probability[i]))));
    return { losses, slopes };
  }

  // content: surface.json; limited: the nearest mixture within the page's limits.
  function of(content) {
    const { bend, misfit, misfit_length: length } = content.constants, u = content.reference;
    const scale = u.map((each) => each + bend);
    const ngrams = content.few_ngrams === null ? null
      : (mixture) => ngramLosses(content.ngrams, content.few_ngrams, mixture);
    const atReference = ngrams === null ? null : ngrams(u).losses;
    const everywhere = { low: 1, high: 1, sources: u.map((_, i) => i), groups: [] };
    const bottom = zeros(u.length);
    const inShares = (weights) => weights.map((each) => each / sum(weights));

    function within(mixture) {
      const positive = mixture.map((each) => Math.max(each, 1e-300));
      return projection.project(everywhere, positive, bottom, content.most_share);
    }

    // [K][2 + S] what the losses weigh (a, beta, d) with.
    function design(mixture) {
      const losses = ngrams === null ? null : ngrams(mixture).losses;
      const bent = mixture.map((each, i) => -scale[i] * Math.log((each + bend) / scale[i]));
      return content.posterior.map((_, k) =>
        [1, losses === null ? 0 : losses[k] - atReference[k], ...bent]);
    }

    // Total variation from u.
    const moved = (mixture) => sum(mixture.map((each, i) => Math.abs(each - u[i]))) / 2;

    // [N] the misfit's covariance between a mixture and others [N][S].
    function shared(mixture, others) {
      const here = moved(mixture);
      return others.map((other) => {
        const squares = sum(mixture.map((each, i) => (each - other[i]) ** 2));
        return misfit ** 2 * here * moved(other) * Math.exp(-squares / (2 * length ** 2));
      });
    }

    const product = (matrix, vector) =>
      matrix.map((row) => sum(row.map((each, i) => each * vector[i])));

    // By target, [N] what the covariance with finished runs is multiplied by in a prediction.
    const pulls = content.posterior.map(({ mean, known }) => known === null ? [] : product(
      known.precision,
      product(known.rows, mean).map((each, i) => known.losses[i] - each)));

    // What finished runs add to target k's loss at a mixture, and its [S] derivatives.
    function pull(k, mixture) {
      const others = content.posterior[k].known.mixtures, here = moved(mixture);
      const slope = zeros(mixture.length);
      let all = 0;
      others.forEach((other, n) => {
        const squares = sum(mixture.map((each, i) => (each - other[i]) ** 2));
        const near = Math.exp(-squares / (2 * length ** 2));
        const part = misfit ** 2 * pulls[k][n] * moved(other) * near;
        all += part;
        mixture.forEach((each, i) => {
          slope[i] -= here * part * (each - other[i]) / length ** 2;
        });
      });
      mixture.forEach((each, i) => { slope[i] += all * 0.5 * Math.sign(each - u[i]); });
      return { value: here * all, slope };
    }

    // Target k's losses at mixtures [N][S] with design rows [N][2 + S]: {means: [N], spread: [N][N]}.
    function joint(k, mixtures, rows) {
      const { mean, covariance, known } = content.posterior[k];
      const means = product(rows, mean);
      let own = mixtures.map((each) => shared(each, mixtures));
      let left = rows;
      if (known !== null) {
        const near = mixtures.map((each) => shared(each, known.mixtures));
        // The precision is symmetric.
        const taken = near.map((each) => product(known.precision, each));
        near.forEach((each, n) => {
          means[n] += sum(each.map((value, m) => value * pulls[k][m]));
        });
        left = rows.map((row, n) => row.map((each, p) =>
          each - sum(taken[n].map((value, m) => value * known.rows[m][p]))));
        own = own.map((row, n) => row.map((each, other) =>
          each - sum(taken[n].map((value, m) => value * near[other][m]))));
      }
      const spread = own.map((row, n) => {
        const along = product(covariance, left[n]);
        return row.map((each, other) => each + sum(along.map((value, p) => value * left[other][p])));
      });
      return { means, spread };
    }

    // The targets' mean expected loss and its [S] gradient; shares: [K] with sum 1.
    function objective(mixture, shares) {
      const means = content.posterior.map((each) => each.mean);
      let value = sum(shares.map((share, k) => share * means[k][0]));
      const gradient = mixture.map((each, i) => {
        const discrepancy = sum(shares.map((share, k) => share * means[k][2 + i]));
        value -= discrepancy * scale[i] * Math.log((each + bend) / scale[i]);
        return (-discrepancy * scale[i]) / (each + bend);
      });
      if (ngrams !== null) {
        const { losses, slopes } = ngrams(mixture);
        shares.forEach((share, k) => {
          const worth = share * means[k][1];
          value += worth * (losses[k] - atReference[k]);
          slopes[k].forEach((slope, i) => { gradient[i] += worth * slope; });
        });
      }
      shares.forEach((share, k) => {
        if (content.posterior[k].known === null) return;
        const more = pull(k, mixture);
        value += share * more.value;
        more.slope.forEach((slope, i) => { gradient[i] += share * slope; });
      });
      return { value, gradient };
    }

    // As least_loss_mixture; allowed: to the nearest allowed mixture.
    function best(weights, allowed, start) {
      const shares = inShares(weights);
      let mixture = allowed(start ?? u), step = 1;
      let { value, gradient } = objective(mixture, shares);
      for (let i = 0; i < MOST_ITERATIONS; i++) {
        const logits = mixture.map((each, s) =>
          Math.log(Math.max(each, 1e-300)) - step * gradient[s]);
        const top = Math.max(...logits);
        const powers = logits.map((each) => Math.exp(each - top)), all = sum(powers);
        const moved = allowed(powers.map((each) => each / all));
        const there = objective(moved, shares);
        if (there.value > value) {
          step /= 2;
          if (step < LEAST_STEP) break;
          continue;
        }
        const gained = value - there.value;
        mixture = moved;
        value = there.value;
        gradient = there.gradient;
        step *= 1.5;
        if (gained < LEAST_GAIN) break;
      }
      return mixture;
    }

    // What a search would answer for the targets' weights [K] within limits.
    function answer(weights, limited, start) {
      const allowed = (mixture) => limited(within(mixture));
      const found = best(weights, allowed, start);
      return allowed(found.map((each) => (1 - FLOOR) * each + FLOOR / found.length));
    }

    // By how much a mixture ends above another: {means: [K], deviations: [K]}.
    function differences(mixture, other) {
      const first = design(mixture), second = design(other);
      const means = [], deviations = [];
      content.posterior.forEach((_, k) => {
        const { means: losses, spread } = joint(k, [mixture, other], [first[k], second[k]]);
        means.push(losses[0] - losses[1]);
        const variance = spread[0][0] + spread[1][1] - 2 * spread[0][1];
        deviations.push(Math.sqrt(Math.max(variance, 0)));
      });
      return { means, deviations };
    }

    return { objective, best, answer, differences, within, inShares };
  }

  return { of };
})();

// What charts compute from their points: smoothing, thinning, best so far, ranks. Pure functions.

/** Return values smoothed with an exponential mean without its bias towards the first one; weight in [0, 1). */
export function smoothed(values, weight) {
  if (!(weight > 0)) return values;
  let [mean, share] = [0, 0];
  return values.map((value) => {
    if (!Number.isFinite(value)) return value;
    mean = weight * mean + (1 - weight) * value;
    share = weight * share + (1 - weight);
    return mean / share;
  });
}

/** Return at most about `most` points [x, y], the smallest and the largest of each bucket, so that no spike is lost. */
export function thinned(points, most = 800) {
  if (points.length <= most) return points;
  const size = Math.ceil((points.length - 2) / Math.max(Math.floor((most - 2) / 2), 1));
  const kept = [points[0]];
  for (let from = 1; from < points.length - 1; from += size) {
    let [low, high] = [from, from];
    for (let i = from; i < Math.min(from + size, points.length - 1); i += 1) {
      if (points[i][1] < points[low][1]) low = i;
      if (points[i][1] > points[high][1]) high = i;
    }
    for (const i of low === high ? [low] : [Math.min(low, high), Math.max(low, high)]) kept.push(points[i]);
  }
  kept.push(points.at(-1));
  return kept;
}

/** Return the best value of each item and all before it; null values carry the last one on. */
export function bestSoFar(values, mode) {
  let best = null;
  return values.map((value) => {
    if (Number.isFinite(value) && (best === null || (mode === "min" ? value < best : value > best))) best = value;
    return best;
  });
}

/** Return the index of the point whose x is nearest; points are ordered by x. */
export function nearest(points, x) {
  let [low, high] = [0, points.length - 1];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (points[middle][0] < x) low = middle + 1;
    else high = middle;
  }
  return low > 0 && x - points[low - 1][0] <= points[low][0] - x ? low - 1 : low;
}

/** Return the value below which a share of the values lies. */
export function quantile(values, share) {
  const sorted = values.filter(Number.isFinite).sort((a, b) => a - b);
  if (!sorted.length) return NaN;
  const place = (sorted.length - 1) * share;
  const [low, rest] = [Math.floor(place), place - Math.floor(place)];
  return sorted[low] + rest * ((sorted[low + 1] ?? sorted[low]) - sorted[low]);
}

/** Return [low, high] of the middle of the values, so that a few extreme ones do not wash out the rest. */
export function robustRange(values, tail = 0.02) {
  const [low, high] = [quantile(values, tail), quantile(values, 1 - tail)];
  return high > low ? [low, high] : [Math.min(...values), Math.max(...values)];
}

/** Return ranks from 0, equal values sharing their mean rank. */
export function ranks(values) {
  const order = values.map((_, i) => i).sort((a, b) => values[a] - values[b]);
  const found = new Array(values.length);
  for (let i = 0; i < order.length;) {
    let end = i;
    while (end + 1 < order.length && values[order[end + 1]] === values[order[i]]) end += 1;
    for (let j = i; j <= end; j += 1) found[order[j]] = (i + end) / 2;
    i = end + 1;
  }
  return found;
}

/** Return the correlation of two lists' ranks (Spearman); NaN for fewer than three or for constants. */
export function rankCorrelation(first, second) {
  if (first.length < 3) return NaN;
  const [a, b] = [ranks(first), ranks(second)];
  const mean = (a.length - 1) / 2;
  let [ab, aa, bb] = [0, 0, 0];
  for (let i = 0; i < a.length; i += 1) {
    ab += (a[i] - mean) * (b[i] - mean);
    aa += (a[i] - mean) ** 2;
    bb += (b[i] - mean) ** 2;
  }
  return aa > 0 && bb > 0 ? ab / Math.sqrt(aa * bb) : NaN;
}

/** Return the place of a value among `num` equal parts of [low, high], in log where it says so; the ends count in. */
export function bin(value, low, high, num, isLog = false) {
  const share = isLog ? Math.log(value / low) / Math.log(high / low) : (value - low) / (high - low);
  return Math.min(Math.max(Math.floor(share * num + 1e-9), 0), num - 1);
}

/** Return contour segments [[x, y], [x, y]] in cell units of a grid of values (rows of columns) at a level. */
export function contour(grid, level) {
  const segments = [];
  for (let r = 0; r + 1 < grid.length; r += 1)
    for (let c = 0; c + 1 < grid[r].length; c += 1) {
      const corners = [
        [c, r],
        [c + 1, r],
        [c + 1, r + 1],
        [c, r + 1],
      ];
      const values = corners.map(([x, y]) => grid[y][x]);
      if (values.some((value) => !Number.isFinite(value))) continue;
      const cuts = [];
      for (let i = 0; i < 4; i += 1) {
        const [from, to] = [values[i], values[(i + 1) % 4]];
        if (from < level === to < level) continue;
        const share = (level - from) / (to - from);
        const [[x0, y0], [x1, y1]] = [corners[i], corners[(i + 1) % 4]];
        cuts.push([x0 + share * (x1 - x0), y0 + share * (y1 - y0)]);
      }
      for (let i = 0; i + 1 < cuts.length; i += 2) segments.push([cuts[i], cuts[i + 1]]);
    }
  return segments;
}

// What the charts of a study are drawn from: trials, axes, histories, cells, made of what REST answers. Pure functions.

import { armTone } from "../../charts/tones.js";
import { bestSoFar, bin } from "../../charts/stats.js";
import { evaluations, duration, ofMetric, parameter } from "../../charts/format.js";

export const VALUE = "value";
export const COST = "cost";
export const ARM = "arm";
const RATIO_OF_LOG = 50;
const MAP_PARTS = 8;

/** Return what an axis is called: the last two parts of its path say enough. */
export function labelOf(path) {
  const known = { "optimizer.rho": "ρ", "optimizer.rho_max": "ρ max", "optimizer.ascent_steps": "k" };
  return known[path] ?? path.replace(/^optimizer\.base\./, "").replace(/^optimizer\./, "");
}

/** Return the searched fields as axes; a choice is drawn by the places of its values. */
export function axesOf(plots) {
  return plots.axes.map(({ path, kind, low, high, values }) => ({
    key: path,
    label: labelOf(path),
    kind,
    domain: kind === "choice" ? undefined : [low, high],
    names: values?.map((value) => parameter(value)),
    values,
    format: parameter,
  }));
}

/** Return the axes of parallel coordinates: arm, the searched fields, cost, value; turned and ordered as the view says. */
export function drawnAxes(axes, trials, metric, view) {
  const arms = [...new Set(trials.map(({ arm }) => arm))];
  const costs = trials.map(({ values }) => values[COST]).filter(Number.isFinite);
  const isWide = costs.length > 1 && Math.max(...costs) > RATIO_OF_LOG * Math.min(...costs);
  const all = [
    ...(arms.length > 1 ? [{ key: ARM, label: "arm", kind: "choice", names: arms }] : []),
    ...axes,
    { key: COST, label: "cost", kind: isWide ? "log" : "linear", format: evaluations },
    { key: VALUE, label: metric.replace("eval_", ""), kind: "linear", format: ofMetric(metric) },
  ].map((axis) => ({
    ...axis,
    isLog: (axis.kind === "log") !== view.log.includes(axis.key),
    isFlipped: view.flip.includes(axis.key),
  }));
  const place = ({ key }) =>
    view.order.includes(key) ? view.order.indexOf(key) : view.order.length + all.findIndex((axis) => axis.key === key);
  return [...all].sort((a, b) => place(a) - place(b));
}

/** Return trials as charts take them, by number; failed ones have no value, cancelled ones are left out. */
export function trialsOf(measured, axes) {
  const points = measured.filter(({ value, state }) => value !== null || state === "failed");
  const arms = [...new Set(points.map(({ arm }) => arm))];
  const made = (one) => ({
    number: one.number,
    id: one.id,
    arm: one.arm,
    tone: armTone(one.arm),
    phase: one.phase,
    config: one.config,
    seed: one.seed,
    params: one.params,
    cost: one.grad_evals,
    seconds: one.train_s,
    score: one.value,
    values: {
      [ARM]: arms.indexOf(one.arm),
      [COST]: one.grad_evals ?? NaN,
      [VALUE]: one.value ?? NaN,
      ...placed(one.params, axes),
    },
  });
  return points.map(made).sort((a, b) => a.number - b.number);
}

function placed(params, axes) {
  return Object.fromEntries(
    axes.map(({ key, kind, values }) => [key, kind === "choice" ? indexOf(values, params[key]) : params[key]]),
  );
}

function indexOf(values, value) {
  const at = values.findIndex((one) => one === value || JSON.stringify(one) === JSON.stringify(value));
  return at < 0 ? NaN : at;
}

/** Return the best so far of each arm over trials, time or gradient evaluations, all of them summed over the arm. */
export function histories(trials, mode, over) {
  const arms = [...new Set(trials.map(({ arm }) => arm))];
  return arms.map((arm) => {
    const own = trials.filter((trial) => trial.arm === arm);
    const known = settled(own);
    const best = bestSoFar(
      known.map(({ mean }) => mean),
      mode,
    );
    let sum = 0;
    const points = own.map(({ cost, seconds }, i) => [
      (sum += over === "trials" ? 1 : ((over === "time" ? seconds : cost) ?? 0)),
      best[i] ?? NaN,
    ]);
    return { key: arm, name: arm, tone: armTone(arm), points, band: bandOf(points, known) };
  });
}

/** Return for each trial what its configuration is worth then: with its last seed their mean and deviation, else NaN. */
function settled(trials) {
  const members = new Map();
  for (const { config, score } of trials) members.set(config, [...(members.get(config) ?? []), score ?? NaN]);
  const left = new Map([...members].map(([config, scores]) => [config, scores.length]));
  return trials.map(({ config }) => {
    left.set(config, left.get(config) - 1);
    return left.get(config) ? { mean: NaN, deviation: 0 } : meanOf(members.get(config));
  });
}

/** Return the mean and the deviation of values. */
export function meanOf(values) {
  const mean = values.reduce((a, b) => a + b, 0) / values.length;
  const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  return { mean, deviation: values.length > 1 ? Math.sqrt(squares / (values.length - 1)) : 0 };
}

// How far the seeds of the best configuration so far lie apart, along a step line; nothing where there is one seed of each.
function bandOf(points, known) {
  const deviations = new Map(known.map(({ mean, deviation }) => [mean, deviation]));
  if (![...deviations.values()].some((one) => one > 0)) return [];
  const band = [];
  for (const [x, best] of points) {
    if (!Number.isFinite(best)) continue;
    const last = band.at(-1);
    if (last) band.push([x, last[1], last[2]]);
    band.push([x, best - deviations.get(best), best + deviations.get(best)]);
  }
  return band;
}

/** Return curves as lines, the best last, so that they lie on top: the mean over a configuration's seeds, with a band. */
export function curveLines(curves, arms) {
  const configs = new Map();
  for (const curve of curves) {
    if (arms.length && !arms.includes(curve.arm)) continue;
    const key = `${curve.arm} ${curve.config}`;
    configs.set(key, [...(configs.get(key) ?? []), curve]);
  }
  return [...configs].map(([key, members]) => lineOf(key, members)).reverse();
}

function lineOf(key, members) {
  const [{ arm }] = members;
  const longest = members.reduce((a, b) => (b.points.length > a.points.length ? b : a)).points;
  const rows = longest.map(([x], i) => [x, members.map(({ points }) => points[i]?.[1]).filter(Number.isFinite)]);
  const numbers = members.map(({ number }) => number).sort((a, b) => a - b);
  const name = `${arm} ${numbers.length > 1 ? `trials ${numbers[0]} to ${numbers.at(-1)}` : `trial ${numbers[0]}`}`;
  const points = rows.map(([x, values]) => [x, meanOf(values).mean]);
  const band = rows
    .filter(([, values]) => values.length > 1)
    .map(([x, values]) => [x, meanOf(values)])
    .map(([x, { mean, deviation }]) => [x, mean - deviation, mean + deviation]);
  return { key, name, tone: armTone(arm), points, band, numbers };
}

/** Return how the x of a history is written. */
export function overFormat(over) {
  return {
    evals: { label: "gradient evaluations", format: evaluations },
    trials: { label: "trials", kind: "int", format: parameter },
    time: { label: "seconds of training", kind: "duration", format: duration },
  }[over];
}

/** Return the ends of the n-th part of an axis, as the map of the service divides it. */
export function partOf(axis, at, num) {
  if (axis.kind === "choice") return { low: at, high: at };
  const [low, high] = axis.domain;
  if (axis.kind === "int" && num === high - low + 1) return { low: low + at, high: low + at };
  const end = (i) => (axis.kind === "log" ? low * (high / low) ** (i / num) : low + ((high - low) * i) / num);
  return { low: end(at), high: end(at + 1) };
}

/** Return which part of an axis a value is in. */
export function placeOf(axis, value, num) {
  if (axis.kind === "choice") return value;
  const [low, high] = axis.domain;
  if (axis.kind === "int" && num === high - low + 1) return value - low;
  return bin(value, low, high, num, axis.kind === "log");
}

/** Return a map of any two axes, divided as the service divides the map of the first two. */
export function mapOf(trials, across, down, mode) {
  const [columns, rows] = [partsOf(across), partsOf(down)];
  const cells = new Map();
  for (const { score, values } of trials) {
    const [column, row] = [
      placeOf(across, values[across.key], columns.length),
      placeOf(down, values[down.key], rows.length),
    ];
    if (score === null || !Number.isInteger(column) || !Number.isInteger(row)) continue;
    const cell = cells.get(`${column} ${row}`) ?? { column, row, best: score, num: 0 };
    cell.best = mode === "min" ? Math.min(cell.best, score) : Math.max(cell.best, score);
    cell.num += 1;
    cells.set(`${column} ${row}`, cell);
  }
  return { across: across.key, down: down.key, columns, rows, cells: [...cells.values()] };
}

function partsOf(axis) {
  if (axis.kind === "choice") return axis.names;
  const [low, high] = axis.domain;
  if (axis.kind === "int" && high - low < MAP_PARTS)
    return Array.from({ length: high - low + 1 }, (_, i) => String(low + i));
  const middle = (i) =>
    axis.kind === "log" ? low * (high / low) ** ((i + 0.5) / MAP_PARTS) : low + ((high - low) * (i + 0.5)) / MAP_PARTS;
  return Array.from({ length: MAP_PARTS }, (_, i) => String(Number(middle(i).toPrecision(2))));
}

/** Return the cells of a map with what a trial of each costs, and which ones are as good as the best within noise. */
export function cellsOf(map, trials, [across, down], { stat, mode, noise }) {
  const own = new Map();
  for (const trial of trials) {
    const place = `${placeOf(across, trial.values[across.key], map.columns.length)} ${placeOf(down, trial.values[down.key], map.rows.length)}`;
    if (!own.has(place)) own.set(place, []);
    own.get(place).push(trial);
  }
  const best = Math.max(...map.cells.map((cell) => (mode === "min" ? -cell.best : cell.best)));
  return map.cells.map((cell) => {
    const inside = own.get(`${cell.column} ${cell.row}`) ?? [];
    return {
      column: cell.column,
      row: cell.row,
      num: cell.num,
      value: valueOf(cell, stat, inside),
      cost: cell.epoch_grad_evals ?? undefined,
      isNoise: stat !== "count" && noise > 0 && best - (mode === "min" ? -cell.best : cell.best) <= noise,
      trials: inside,
    };
  });
}

function valueOf(cell, stat, inside) {
  if (stat === "count") return cell.num;
  const scores = inside.map(({ score }) => score).filter((score) => score !== null);
  return stat === "mean" && scores.length ? scores.reduce((a, b) => a + b) / scores.length : cell.best;
}

/** Return how far two trials of one configuration lie apart by the seed alone: the largest such deviation known, or 0. */
export function noiseOf(study) {
  const spreads = study.arms
    .flatMap(({ best, confirmed }) => [best, confirmed])
    .filter((one) => one && one.num_seeds > 1)
    .map(({ values, mean }) => {
      const all = Object.values(values);
      return Math.sqrt(all.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (all.length - 1));
    });
  return Math.max(0, ...spreads);
}

/** Return the better of two scores first; those without one last. */
export function betterFirst(mode) {
  const sign = mode === "min" ? 1 : -1;
  return (a, b) => (a.score === null) - (b.score === null) || sign * (a.score - b.score) || a.number - b.number;
}

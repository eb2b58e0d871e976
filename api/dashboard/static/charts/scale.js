// Scales: from values to positions and back, with their ticks. Pure functions of their arguments.

import { duration, parameter } from "./format.js";

const NICE = [1, 2, 2.5, 5, 10];

/** Return the smallest round step at least as large as `raw`. */
export function niceStep(raw) {
  const power = 10 ** Math.floor(Math.log10(raw));
  return power * NICE.find((factor) => factor * power >= raw * (1 - 1e-9));
}

/** Return round values in [low, high], about `wanted` of them. */
export function linearTicks(low, high, wanted = 5) {
  if (!(high > low)) return [low];
  const step = niceStep((high - low) / Math.max(wanted, 1));
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i += 1)
    ticks.push(Number((i * step).toPrecision(12)));
  return ticks;
}

/** Return powers of ten in [low, high], with 2 and 5 between where there is room for them. */
export function logTicks(low, high, wanted = 5) {
  const ticks = (factors) => {
    const found = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += 1)
      for (const factor of factors) {
        const value = Number((factor * 10 ** power).toPrecision(12));
        if (value >= low * (1 - 1e-9) && value <= high * (1 + 1e-9)) found.push(value);
      }
    return found;
  };
  const decades = ticks([1]);
  if (decades.length > wanted + 1) return decades.filter((_, i) => i % Math.ceil(decades.length / wanted) === 0);
  for (const factors of [[1, 2, 5], [1, 3], [1]]) {
    const found = ticks(factors);
    if (found.length >= 2 && found.length <= wanted + 2) return found;
  }
  return decades.length >= 2 ? decades : linearTicks(low, high, wanted);
}

const TIME_STEPS = [
  1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800, 1209600,
  2592000,
];

/** Return round instants in [low, high] (seconds since the epoch), by the reader's clock. */
export function timeTicks(low, high, wanted = 5, offset = -new Date(low * 1000).getTimezoneOffset() * 60) {
  const step = TIME_STEPS.find((s) => s >= (high - low) / Math.max(wanted, 1)) ?? TIME_STEPS.at(-1);
  const ticks = [];
  for (let t = Math.ceil((low + offset) / step) * step; t - offset <= high; t += step) ticks.push(t - offset);
  return ticks.length ? ticks : [low];
}

/** Return seconds of a run at round durations. */
export function durationTicks(low, high, wanted = 5) {
  return high - low < 5 ? linearTicks(low, high, wanted) : timeTicks(low, high, wanted, 0);
}

/** Return [low, high] made wide enough to be drawn: never empty, in log never at or below zero. */
export function domain(values, kind = "linear", pad = 0) {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) {
    if (!Number.isFinite(value) || (kind === "log" && value <= 0)) continue;
    if (value < low) low = value;
    if (value > high) high = value;
  }
  if (low > high) return kind === "log" ? [0.1, 1] : [0, 1];
  if (kind === "log") {
    if (low === high) return [low / 1.5, high * 1.5];
    const share = (high / low) ** pad;
    return [low / share, high * share];
  }
  if (low === high) return [low - (Math.abs(low) * 0.1 || 0.5), high + (Math.abs(high) * 0.1 || 0.5)];
  return [low - pad * (high - low), high + pad * (high - low)];
}

/**
 * Return a scale: `at(value)` is a position in [from, to], `value(position)` its inverse.
 *
 * kind: linear, log, time (instants, seconds), duration (seconds), or int (linear with whole ticks).
 */
export function scale(kind, [low, high], [from, to]) {
  const isLog = kind === "log" && low > 0 && high > 0;
  const inner = isLog ? Math.log : (value) => value;
  const outer = isLog ? Math.exp : (value) => value;
  const [first, span] = [inner(low), inner(high) - inner(low) || 1];
  return {
    kind: isLog ? "log" : kind === "log" ? "linear" : kind,
    domain: [low, high],
    range: [from, to],
    at: (value) => from + ((inner(value) - first) / span) * (to - from),
    value: (position) => outer(first + ((position - from) / (to - from)) * span),
    ticks: (wanted = 5) => ticksOf(isLog ? "log" : kind, low, high, wanted),
    format: formatOf(kind, high - low),
  };
}

function ticksOf(kind, low, high, wanted) {
  if (kind === "log") return logTicks(low, high, wanted);
  if (kind === "time") return timeTicks(low, high, wanted);
  if (kind === "duration") return durationTicks(low, high, wanted);
  const ticks = linearTicks(low, high, wanted);
  return kind === "int" ? [...new Set(ticks.map(Math.round))].filter((t) => t >= low && t <= high) : ticks;
}

function formatOf(kind, span) {
  if (kind === "time") return (value) => clock(value, span);
  return kind === "duration"
    ? (value) => (span < 60 ? `${parameter(value)} s` : duration(value).replace(/\.0 s/, " s"))
    : parameter;
}

/** Return an instant as the reader's clock shows it: the more, the longer the span that is drawn. */
export function clock(seconds, span) {
  const two = (value) => String(value).padStart(2, "0");
  const at = new Date(seconds * 1000);
  const time = `${two(at.getHours())}:${two(at.getMinutes())}`;
  if (span <= 600) return `${time}:${two(at.getSeconds())}`;
  const day = `${at.toLocaleString("en-GB", { month: "short" })} ${at.getDate()}`;
  if (span <= 86400) return time;
  return span <= 4 * 86400 ? `${day} ${time}` : day;
}

/**
 * Return a scale of named places: `at(index)` is the middle of one, `step` its width.
 */
export function band(names, [from, to]) {
  const step = (to - from) / Math.max(names.length, 1);
  return {
    kind: "band",
    names,
    range: [from, to],
    step,
    at: (index) => from + (index + 0.5) * step,
    index: (position) => Math.min(Math.max(Math.floor((position - from) / step), 0), names.length - 1),
  };
}

/** Return labels thinned so that neighbours have room: every n-th. */
export function everyNth(num, size, room) {
  return Math.max(1, Math.ceil((num * size) / Math.max(room, 1)));
}

// One selection for all charts of a view: ranges of fields, the arms shown, and one trial; kept in the address.

/**
 * What is selected among trials {number, arm, values: {field: value}}.
 *
 * A brush, a cell of the map and a slice are ranges; a row or a dot is the one trial. It says "change" after each one.
 */
export class Selection extends EventTarget {
  constructor() {
    super();
    this.ranges = new Map();
    this.trial = null;
  }

  /** Return whether a trial is inside of all ranges. */
  keeps({ values }) {
    for (const [field, range] of this.ranges) if (!holds(range, values[field])) return false;
    return true;
  }

  get isEmpty() {
    return this.ranges.size === 0;
  }

  /** Set the ranges {low, high} of some fields; null takes one away. A choice is brushed by the places of its values. */
  set(changes, isFinal = true) {
    for (const [field, range] of Object.entries(changes)) {
      if (range === null) this.ranges.delete(field);
      else this.ranges.set(field, range);
    }
    this.say(isFinal);
  }

  /** Select one trial, or none. */
  pick(number) {
    this.trial = number;
    this.say(true);
  }

  clear() {
    this.ranges.clear();
    this.say(true);
  }

  say(isFinal) {
    this.dispatchEvent(new CustomEvent("change", { detail: { isFinal } }));
  }

  /** Return the ranges as the address has them: `field:low..high`. */
  toBrushes() {
    return [...this.ranges].map(([field, { low, high }]) => `${field}:${compact(low)}..${compact(high)}`);
  }

  /** Take the ranges from an address; what is none is left out. */
  fromBrushes(brushes) {
    this.ranges = new Map(brushes.map(read).filter(Boolean));
  }
}

function compact(value) {
  return String(Number(value.toPrecision(6)));
}

function read(text) {
  const at = text.lastIndexOf(":");
  const ends = text.slice(at + 1).split("..");
  if (at < 1 || ends.length !== 2 || ends.some((end) => end === "" || !Number.isFinite(Number(end)))) return null;
  return [text.slice(0, at), { low: Number(ends[0]), high: Number(ends[1]) }];
}

/** Return whether a range holds a value; nothing holds what is not known. */
export function holds({ low, high }, value) {
  if (!Number.isFinite(value)) return false;
  const slack = 1e-5 * Math.max(Math.abs(low), Math.abs(high));
  return value >= low - slack && value <= high + slack;
}

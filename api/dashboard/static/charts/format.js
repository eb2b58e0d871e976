// Numbers and times as people read them, by the rules of the `xsam` command (`api/formats.py`).

export const NOTHING = "-";
const isNumber = (value) => typeof value === "number" && Number.isFinite(value);

/** Three significant digits, as parameters are written: `1e-4`, `0.0707`, `12,340`. */
export function parameter(value) {
  if (!isNumber(value))
    return value === null || value === undefined || typeof value === "number" ? NOTHING : plain(value);
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size < 1e-3 || size >= 1e7) return exponent(value);
  if (Number.isInteger(value) || size >= 1000) return Math.round(value).toLocaleString("en-US");
  return String(Number(value.toPrecision(3)));
}

function exponent(value) {
  const [mantissa, power] = value.toExponential(2).split("e");
  return `${Number(mantissa)}e${Number(power)}`;
}

function plain(value) {
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

/** A share in [0, 1] as a percentage with one place. */
export function percent(share) {
  return isNumber(share) ? `${(100 * share).toFixed(1)} %` : NOTHING;
}

/** A loss, with three places. */
export function loss(value) {
  if (!isNumber(value)) return NOTHING;
  return value !== 0 && Math.abs(value) < 5e-4
    ? exponent(value)
    : value.toLocaleString("en-US", { minimumFractionDigits: 3, maximumFractionDigits: 3 });
}

/** A whole number with thousands set apart. */
export function count(value) {
  return isNumber(value) ? Math.round(value).toLocaleString("en-US") : NOTHING;
}

/** A large number in short: `41k`, `1.2M`. */
export function short(value) {
  if (!isNumber(value)) return NOTHING;
  for (const [unit, letter] of [
    [1e9, "G"],
    [1e6, "M"],
    [1e3, "k"],
  ]) {
    if (Math.abs(value) >= unit * 0.9995)
      return `${Number((value / unit).toPrecision(Math.abs(value) < 10 * unit ? 2 : 3))}${letter}`;
  }
  return String(Number(value.toPrecision(3)));
}

/** Gradient evaluations: `41k ev`. */
export function evaluations(value) {
  return isNumber(value) ? `${short(value)} ev` : NOTHING;
}

/** A duration in its two largest units. */
export function duration(seconds) {
  if (!isNumber(seconds)) return NOTHING;
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  const two = (value) => String(value).padStart(2, "0");
  if (whole < 3600) return `${Math.floor(whole / 60)}:${two(whole % 60)} min`;
  if (whole < 86400) return `${Math.floor(whole / 3600)}:${two(Math.floor((whole % 3600) / 60))} h`;
  return `${Math.floor(whole / 86400)} d ${Math.floor((whole % 86400) / 3600)} h`;
}

/** A size: `1.5 MiB`. */
export function bytes(value) {
  if (!isNumber(value)) return NOTHING;
  let [size, unit] = [value, 0];
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  while (size >= 1024 && unit < units.length - 1) [size, unit] = [size / 1024, unit + 1];
  return `${unit === 0 ? size : size.toFixed(1)} ${units[unit]}`;
}

/** A difference, with its sign. */
export function signed(value) {
  if (value === 0) return "0";
  return isNumber(value) ? `${value < 0 ? "\u2212" : "+"}${parameter(Math.abs(value))}` : NOTHING;
}

/** A metric's own format, by its name. */
export function ofMetric(name) {
  if (/accuracy$/.test(name)) return percent;
  return /loss$/.test(name) ? loss : parameter;
}

/** Text with marks that turn its direction shown as what they are. */
export function visible(text) {
  return String(text).replace(/[\u202a-\u202e\u2066-\u2069\u200e\u200f]/g, "\u2426");
}

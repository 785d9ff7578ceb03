// The format of numbers: three digits and a unit, so that they keep their width while they change.

const NONE = "–";

/** A number with three digits: 0.12, 1.23, 12.3, 123. */
export function digits(number) {
  const size = Math.abs(number);
  if (number === 0) return "0";
  if (size < 10) return number.toFixed(2);
  if (size < 100) return number.toFixed(1);
  return number.toFixed(0);
}

/** A length of time, in seconds. */
export function time(seconds) {
  if (seconds === null || seconds === undefined) return NONE;
  if (seconds <= 0) return "0 s";
  if (seconds < 1e-3) return `${digits(seconds * 1e6)} µs`;
  if (seconds < 1) return `${digits(seconds * 1e3)} ms`;
  if (seconds < 600) return `${digits(seconds)} s`;
  if (seconds < 36000) return `${digits(seconds / 60)} min`;
  return `${digits(seconds / 3600)} h`;
}

/** An amount of memory, in bytes. */
export function bytes(amount) {
  if (amount === null || amount === undefined) return NONE;
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let at = 0;
  while (amount >= 1000 && at < units.length - 1) {
    amount /= 1024;
    at += 1;
  }
  return at === 0 ? `${amount} B` : `${digits(amount)} ${units[at]}`;
}

/** How many: with a space between thousands; above a million with a unit. */
export function count(number) {
  if (number === null || number === undefined) return NONE;
  if (number < 1e6) return String(Math.round(number)).replace(/\B(?=(\d{3})+$)/g, " ");
  if (number < 1e9) return `${digits(number / 1e6)} M`;
  return `${digits(number / 1e9)} G`;
}

/** How often a second. */
export function rate(number) {
  if (number === null || number === undefined) return NONE;
  if (number === 0) return "0 /s";
  if (number >= 1e6) return `${digits(number / 1e6)} M/s`;
  if (number >= 1000) return `${digits(number / 1000)} k/s`;
  return `${digits(number)} /s`;
}

/** Processor time: 100 is one processor. */
export function percent(number) {
  if (number === null || number === undefined) return NONE;
  return number > 0 && number < 10 ? `${number.toFixed(1)} %` : `${number.toFixed(0)} %`;
}

/** The time of day, of seconds since 1970. */
export function clock(seconds) {
  if (seconds === null || seconds === undefined) return NONE;
  const at = new Date(seconds * 1000);
  const two = (number) => String(number).padStart(2, "0");
  const millis = String(at.getMilliseconds()).padStart(3, "0");
  return `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}.${millis}`;
}

/** The amount of a resource: memory is in bytes. */
export function amount(name, number) {
  return name === "memory" || name === "object_store_memory" ? bytes(number) : String(Math.round(number * 1e4) / 1e4);
}

/** A function's name without the path of its module, which its title has. */
export function short(name) {
  const parts = name.split("::");
  return parts.length > 2 ? parts.slice(-2).join("::") : name;
}

const colours = new Map();

/** One of eight colours for a text: the same as long as the page is open, and different ones for the first eight. */
export function colour(text) {
  if (!colours.has(text)) colours.set(text, colours.size % 8);
  return colours.get(text);
}

export { NONE };

/** Figures as people read them. Each unit is a power of 1000 (time) or 1024 (memory) and always stands beside its number. */

export interface Unit {
  name: string;
  /** How many seconds or bytes one of it is. */
  size: number;
}

const SECOND: Unit = { name: "s", size: 1 };
const MILLISECOND: Unit = { name: "ms", size: 1e-3 };
const MICROSECOND: Unit = { name: "µs", size: 1e-6 };

const BYTE: Unit = { name: "B", size: 1 };
const KIB: Unit = { name: "KiB", size: 2 ** 10 };
const MIB: Unit = { name: "MiB", size: 2 ** 20 };
const GIB: Unit = { name: "GiB", size: 2 ** 30 };

/** The unit for a chart axis or a table row whose largest value is `largest` seconds. */
export function timeUnit(largest: number): Unit {
  if (largest >= 1) return SECOND;
  return largest >= 1e-3 ? MILLISECOND : MICROSECOND;
}

/** The unit for a chart axis whose largest value is `largest` bytes. */
export function memoryUnit(largest: number): Unit {
  if (largest >= 10 * GIB.size) return GIB;
  if (largest >= MIB.size) return MIB;
  return largest >= KIB.size ? KIB : BYTE;
}

/** `value` in `unit` as a number for a chart, to five significant digits, which is more than a picture shows. */
export function inUnit(value: number, unit: Unit): number {
  return Number((value / unit.size).toPrecision(5));
}

/** Seconds as "12.34 ms": three to five significant digits. */
export function formatSeconds(value: number, unit: Unit = timeUnit(Math.abs(value))): string {
  const scaled = value / unit.size;
  return `${scaled.toFixed(decimals(Math.abs(scaled)))} ${unit.name}`;
}

/** Bytes as "14.2 MiB", one decimal, or "512 B". */
export function formatBytes(value: number, unit: Unit = memoryUnit(Math.abs(value))): string {
  const scaled = value / unit.size;
  return `${unit.size === 1 ? scaled.toFixed(0) : scaled.toFixed(1)} ${unit.name}`;
}

/** A factor as "3.42×". */
export function formatFactor(value: number): string {
  return `${value.toFixed(2)}×`;
}

/** 0 to 100 as "94.4 %". */
export function formatPercent(value: number): string {
  return `${value.toFixed(1)} %`;
}

/** 3654144 as "3,654,144", the same in every locale. */
export function formatCount(value: number): string {
  return String(value).replace(/\B(?=(\d{3})+$)/g, ",");
}

function decimals(magnitude: number): number {
  if (magnitude >= 1000) return 0;
  return magnitude >= 100 ? 1 : 2;
}

/** CRC-32 of zip and PNG (ISO 3309): polynomial 0x04c11db7 with its bits reversed. */
const POLYNOMIAL = 0xedb88320;
/** Bytes folded into the sum at once ("slicing by 8"); table k is table 0 moved on by k zero bytes. */
const SLICES = 8;
const TABLES = tables();

/** CRC-32 of `bytes`; give the result as `before` to go on with the bytes that follow. */
export function crc32(bytes: Uint8Array, before = 0): number {
  const [t0, t1, t2, t3, t4, t5, t6, t7] = TABLES as FixedTables;
  const whole = bytes.length - (bytes.length % SLICES);
  let crc = ~before;
  let at = 0;
  for (; at < whole; at += SLICES) {
    crc ^= bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24);
    crc =
      t7[crc & 0xff]! ^
      t6[(crc >>> 8) & 0xff]! ^
      t5[(crc >>> 16) & 0xff]! ^
      t4[crc >>> 24]! ^
      t3[bytes[at + 4]!]! ^
      t2[bytes[at + 5]!]! ^
      t1[bytes[at + 6]!]! ^
      t0[bytes[at + 7]!]!;
  }
  for (; at < bytes.length; at++) crc = t0[(crc ^ bytes[at]!) & 0xff]! ^ (crc >>> 8);
  return ~crc >>> 0;
}

type FixedTables = [
  Int32Array,
  Int32Array,
  Int32Array,
  Int32Array,
  Int32Array,
  Int32Array,
  Int32Array,
  Int32Array,
];

function tables(): Int32Array[] {
  const all = Array.from({ length: SLICES }, () => new Int32Array(256));
  for (let byte = 0; byte < 256; byte++) {
    let crc = byte;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ POLYNOMIAL : crc >>> 1;
    all[0]![byte] = crc;
  }
  for (let slice = 1; slice < SLICES; slice++) {
    for (let byte = 0; byte < 256; byte++) {
      const crc = all[slice - 1]![byte]!;
      all[slice]![byte] = all[0]![crc & 0xff]! ^ (crc >>> 8);
    }
  }
  return all;
}

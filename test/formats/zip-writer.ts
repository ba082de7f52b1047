import { crc32 } from "../../src/formats/crc32.ts";
import { bytes, type Part, u16, u32, u64 } from "./pickle-assembler.ts";

/** One entry; every field beside name and data replaces what a sound archive would say. */
export interface EntryPlan {
  readonly name: string;
  readonly data: Uint8Array | string;
  readonly localName?: string;
  readonly method?: number;
  readonly flags?: number;
  readonly crc?: number;
  readonly size?: number;
  readonly compressed?: number;
  readonly offset?: number;
  readonly localCrc?: number;
  readonly localMethod?: number;
  /** Extra field in the directory. */
  readonly extra?: Uint8Array;
  /** Extra field in the local header. */
  readonly localExtra?: Uint8Array;
  readonly disk?: number;
}

export interface ZipPlan {
  readonly prefix?: Part;
  readonly comment?: Part;
  /** Write the zip64 end record and its locator, as torch does. */
  readonly zip64?: boolean;
  readonly count?: number | bigint;
  readonly directorySize?: number | bigint;
  readonly directoryOffset?: number | bigint;
  /** Bytes between the directory and the end record. */
  readonly gap?: Part;
}

/** A stored zip, sound unless the plans say otherwise. Offsets count from the file's start, prefix included. */
export function writeZip(entries: readonly EntryPlan[], plan: ZipPlan = {}): Uint8Array {
  const parts: Uint8Array[] = [bytes(plan.prefix ?? "")];
  let at = parts[0]!.length;
  const directory: Uint8Array[] = [];
  for (const entry of entries) {
    const data = bytes(entry.data);
    const crc = crc32(data);
    const flags = entry.flags ?? 0x0800;
    const method = entry.method ?? 0;
    const localName = utf8(entry.localName ?? entry.name);
    const localExtra = entry.localExtra ?? new Uint8Array();
    const local = bytes(
      "PK\x03\x04",
      u16(0),
      u16(flags),
      u16(entry.localMethod ?? method),
      u32(0),
      u32(entry.localCrc ?? entry.crc ?? crc),
      u32(entry.compressed ?? entry.size ?? data.length),
      u32(entry.size ?? data.length),
      u16(localName.length),
      u16(localExtra.length),
      localName,
      localExtra,
      data,
    );
    const name = utf8(entry.name);
    const extra = entry.extra ?? new Uint8Array();
    directory.push(
      bytes(
        "PK\x01\x02",
        u16(0),
        u16(0),
        u16(flags),
        u16(method),
        u32(0),
        u32(entry.crc ?? crc),
        u32(entry.compressed ?? entry.size ?? data.length),
        u32(entry.size ?? data.length),
        u16(name.length),
        u16(extra.length),
        u16(0),
        u16(entry.disk ?? 0),
        u16(0),
        u32(0),
        u32(entry.offset ?? at),
        name,
        extra,
      ),
    );
    parts.push(local);
    at += local.length;
  }
  const all = bytes(...directory);
  return bytes(...parts, all, endRecords(entries.length, all.length, at, plan));
}

/** A zip64 extra field with these 64-bit values. */
export function zip64Extra(...values: readonly (number | bigint)[]): Uint8Array {
  return bytes(u16(1), u16(8 * values.length), ...values.map(u64));
}

function endRecords(entries: number, size: number, at: number, plan: ZipPlan): Uint8Array {
  const gap = bytes(plan.gap ?? "");
  const count = plan.count ?? entries;
  const directorySize = plan.directorySize ?? size;
  const directoryOffset = plan.directoryOffset ?? at;
  const comment = bytes(plan.comment ?? "");
  const short = (value: number | bigint, full: number) =>
    BigInt(value) > BigInt(full) ? full : Number(value);
  const end64 = bytes(
    "PK\x06\x06",
    u64(44),
    u16(0),
    u16(0),
    u32(0),
    u32(0),
    u64(count),
    u64(count),
    u64(directorySize),
    u64(directoryOffset),
    "PK\x06\x07",
    u32(0),
    u64(at + size + gap.length),
    u32(1),
  );
  return bytes(
    gap,
    plan.zip64 ? end64 : "",
    "PK\x05\x06",
    u16(0),
    u16(0),
    u16(short(count, 0xffff)),
    u16(short(count, 0xffff)),
    u32(short(directorySize, 0xffffffff)),
    u32(short(directoryOffset, 0xffffffff)),
    u16(comment.length),
    comment,
  );
}

function utf8(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

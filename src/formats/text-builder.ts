/** Code units that are gathered before they become text. */
const UNITS = 8192;
/** Up to this length a run of bytes is gathered; TextDecoder costs more to call. */
const SHORT_RUN = 32;

/** Puts a text together out of UTF-8 and code points: a string for each would cost far more than its bytes. */
export class TextBuilder {
  /** ignoreBOM keeps a byte order mark as the character that it is. */
  private readonly decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  private readonly units = new Uint16Array(UNITS);
  private count = 0;
  private text = "";

  /** Add bytes [begin, end), which are UTF-8. */
  addBytes(bytes: Uint8Array, begin: number, end: number): void {
    if (end - begin <= SHORT_RUN && this.gatherAscii(bytes, begin, end)) return;
    this.flush();
    this.text += this.decoder.decode(bytes.subarray(begin, end));
  }

  addCodePoint(codePoint: number): void {
    if (this.count + 2 > UNITS) this.flush();
    if (codePoint > 0xffff) {
      this.units[this.count++] = 0xd7c0 + (codePoint >> 10);
      this.units[this.count++] = 0xdc00 + (codePoint & 0x3ff);
    } else this.units[this.count++] = codePoint;
  }

  /** The text so far; the next begins empty. */
  take(): string {
    this.flush();
    const { text } = this;
    this.text = "";
    return text;
  }

  /** False, and nothing is gathered, when the bytes are not ASCII. */
  private gatherAscii(bytes: Uint8Array, begin: number, end: number): boolean {
    if (this.count + SHORT_RUN > UNITS) this.flush();
    let count = this.count;
    for (let at = begin; at < end; at++) {
      const byte = bytes[at]!;
      if (byte >= 0x80) return false;
      this.units[count++] = byte;
    }
    this.count = count;
    return true;
  }

  private flush(): void {
    this.text += String.fromCharCode(...this.units.subarray(0, this.count));
    this.count = 0;
  }
}

/** Characters of a name that an error message shows at most. */
const MAX_SHOWN = 80;

/**
 * A name out of a file, fit for one line of a message: in backquotes, what would break the line or hide text
 * (control, format and separator characters) escaped, cut at 80 characters.
 */
export function quote(name: string): string {
  return `\`${oneLine(name, MAX_SHOWN)}\``;
}

/** Text that may hold something out of a file, as `quote` shows it but without backquotes, cut at `limit` characters. */
export function oneLine(text: string, limit = 4 * MAX_SHOWN): string {
  const shown = text.length > limit ? `${text.slice(0, limit)}…` : text;
  return shown.replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu, asEscape);
}

function asEscape(character: string): string {
  return `\\u{${character.codePointAt(0)?.toString(16)}}`;
}

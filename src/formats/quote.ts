/** Characters of a name that an error message shows at most. */
const MAX_SHOWN = 80;

/**
 * A name out of a file, fit for one line of a message: in backquotes, what would break the line or hide text
 * (control, format and separator characters) escaped, cut at 80 characters.
 */
export function quote(name: string): string {
  const shown = name.length > MAX_SHOWN ? `${name.slice(0, MAX_SHOWN)}…` : name;
  return `\`${shown.replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu, asEscape)}\``;
}

function asEscape(character: string): string {
  return `\\u{${character.codePointAt(0)?.toString(16)}}`;
}

/** Rows in columns as wide as their widest cell; `align` has l or r for each column. */
export function table(rows: readonly (readonly string[])[], align: string): string[] {
  const widths = [...align].map((_, c) => Math.max(...rows.map((row) => row[c]!.length)));
  return rows.map((row) =>
    row
      .map((cell, c) => (align[c] === "r" ? cell.padStart(widths[c]!) : cell.padEnd(widths[c]!)))
      .join("  ")
      .trimEnd(),
  );
}

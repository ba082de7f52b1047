/** The rows of another program: what ../shared/gpu/hf_reference.py --what prefill --json writes. */
import { z } from "zod";
import { BadInput } from "../check.ts";
import type { PeerRow } from "./prefill-results.ts";

const ROW = z.looseObject({
  peer: z.string().default("hf"),
  dtype: z.string(),
  prefill: z.tuple([z.int().min(1), z.int().min(1)]),
  ms: z.number().gt(0),
  tokens_per_s: z.number().gt(0),
});

/** As --dtype says it. */
const DTYPES: Record<string, string> = { float32: "f32", float16: "f16" };

/**
 * The prefill rows in the text of a JSON file; what else was measured in the same run is passed over. Throws BadInput, which names
 * `file`, when it is no list of rows or has no such row.
 */
export function parsePeer(text: string, file: string): PeerRow[] {
  const wanted = 'wanted what "hf_reference.py --what prefill --json" writes';
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    throw new BadInput(`--peer ${file}: no JSON (${(error as Error).message}); ${wanted}`);
  }
  if (!Array.isArray(json)) throw new BadInput(`--peer ${file}: it is no list of rows; ${wanted}`);
  const rows = json.filter((row) => typeof row === "object" && row !== null && "prefill" in row);
  if (rows.length === 0) throw new BadInput(`--peer ${file}: no row has a prefill; ${wanted}`);
  return rows.map((row, i) => {
    const parsed = ROW.safeParse(row);
    if (!parsed.success) {
      const [issue] = parsed.error.issues;
      throw new BadInput(
        `--peer ${file}: prefill row ${i + 1}: ${issue!.path.join(".")}: ${issue!.message}; ${wanted}`,
      );
    }
    const { peer, dtype, prefill, ms, tokens_per_s } = parsed.data;
    return { peer, dtype: DTYPES[dtype] ?? dtype, prefill, ms, tokens_per_s };
  });
}

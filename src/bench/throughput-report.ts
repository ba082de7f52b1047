/** What `quire bench throughput` leaves in its folder: results.json, steps.csv, requests.csv, charts and report.html. */
import { join } from "node:path";
import { DARK, LIGHT } from "./chart-parts.ts";
import { chartSvg } from "./chart-svg.ts";
import { cells, escapeHtml, figure, flatten, nameTable, reportPage, section, table } from "./report-parts.ts";
import type { MeasuredThroughput } from "./throughput.ts";
import { THROUGHPUT_CHARTS, throughputCharts } from "./throughput-charts.ts";
import { outputTokens } from "./throughput-figures.ts";
import { THROUGHPUT_RESULTS, type ThroughputResults } from "./throughput-results.ts";
import { figureRows, latencyRows, workloadText } from "./throughput-table.ts";
import { formatCount } from "./units.ts";
import { type ResultFile, writeFiles } from "./write-results.ts";

/**
 * Writes the files; see `writeFiles`.
 * @returns their paths.
 */
export async function writeThroughput(
  dir: string,
  results: ThroughputResults,
  measured: MeasuredThroughput,
): Promise<string[]> {
  const charts = throughputCharts(measured, LIGHT);
  const files: ResultFile[] = [
    ["results.json", () => `${JSON.stringify(results, null, 1)}\n`],
    ["steps.csv", () => stepsCsv(measured)],
    ["requests.csv", () => requestsCsv(measured)],
    ...THROUGHPUT_CHARTS.map((id): ResultFile => {
      const chart = charts.find((c) => c.id === id);
      return [join("charts", `${id}.svg`), chart && (() => `${chartSvg(chart)}\n`)];
    }),
    ["report.html", () => throughputReport(results, measured)],
  ];
  return writeFiles(dir, files, THROUGHPUT_RESULTS.safeParse(results).error);
}

/** One line a step. `time` is when its tokens were known, in seconds after the first submit; kv in slots, after the step. */
export function stepsCsv({ steps }: Pick<MeasuredThroughput, "steps">): string {
  const head = [
    ...["time_seconds", "seconds", "host_seconds", "tokens", "sampled", "running", "waiting"],
    ...["kv_total_slots", "kv_reserved_slots", "kv_used_slots", "kv_logical_slots", "preempted"],
  ];
  const rows = steps.map(
    ({ time, seconds, hostSeconds, tokens, sampled, running, waiting, kv, preempted }) => [
      ...[time, seconds, hostSeconds, tokens, sampled, running, waiting],
      ...[kv.total, kv.reserved, kv.used, kv.logical, preempted],
    ],
  );
  return csv([head, ...rows]);
}

/** One line a finished request, by its place in the workload. Times in seconds after the first submit. */
export function requestsCsv({ finished, start }: Pick<MeasuredThroughput, "finished" | "start">): string {
  const head = [
    ...["request", "input_tokens", "output_tokens", "cached_tokens", "preemptions", "finish_reason"],
    ...["submitted_seconds", "admitted_seconds", "first_token_seconds", "finished_seconds"],
  ];
  const rows = finished.map(({ index, output }) => {
    const { submitted, admitted, firstToken, finished: end } = output.times;
    return [
      ...[index, output.promptTokens, outputTokens(output), output.cachedTokens, output.preemptions],
      output.completions[0]?.finishReason ?? "",
      ...[submitted, admitted, firstToken, end].map((time) => (time === undefined ? "" : time - start)),
    ];
  });
  return csv([head, ...rows]);
}

function csv(rows: readonly (readonly (string | number)[])[]): string {
  return `${rows.map((row) => row.join(",")).join("\n")}\n`;
}

/** The whole of report.html. */
export function throughputReport(results: ThroughputResults, measured: MeasuredThroughput): string {
  const { model, adapter, runtime, quire, createdAt, command, options } = results;
  const light = throughputCharts(measured, LIGHT);
  const heads = { name: "name", value: "value" };
  const rows = (body: readonly (readonly string[])[]) =>
    body.map(
      ([label = "", ...figures]) =>
        `<tr><th scope="row"${label.startsWith(" ") ? ' class="part"' : ""}>${escapeHtml(label.trim())}</th>${cells(figures)}</tr>`,
    );
  const [head = [], ...latencies] = latencyRows(results);
  const conclusion = results.conclusion.map((sentence) => `<li>${escapeHtml(sentence)}</li>`).join("\n");
  return reportPage({
    htmlLang: "en",
    tab: `quire bench throughput · ${model.name}`,
    title: "Throughput: many requests through one engine",
    facts: [
      workloadText(results),
      `${model.name} (${formatCount(model.parameters)} parameters)`,
      adapter.description || adapter.device || adapter.vendor,
      `${runtime.name} ${runtime.version}`,
      `quire ${quire.version}`,
      `${createdAt.slice(0, 16).replace("T", " ")} UTC`,
    ],
    badge: adapter.software ? "Software adapter: correct, slow, no benchmark." : undefined,
    alert: results.incomplete ?? results.failure,
    main: [
      section("Conclusion", `<ul>${conclusion}</ul>`),
      section(
        "Latencies",
        table("From a request's submit; over all requests that were finished.", head, rows(latencies)),
      ),
      section("Figures", table("After the warm-up.", ["", ""], rows(figureRows(results)))),
      section("Charts", light.map(figure).join("\n")),
      section("Options", nameTable(flatten(options), heads)),
      section(
        "Environment",
        nameTable(
          [
            ["createdAt", createdAt],
            ["command", command.join(" ")],
            ...flatten({ quire, runtime, adapter, model }),
          ],
          heads,
        ),
      ),
    ].join("\n"),
    light,
    dark: throughputCharts(measured, DARK),
  });
}

/** What `quire bench prefill` leaves in its folder: results.json, the chart and report.html. */
import { join } from "node:path";
import { DARK, LIGHT } from "./chart-parts.ts";
import { chartSvg } from "./chart-svg.ts";
import { PREFILL_CHART, prefillCharts } from "./prefill-chart.ts";
import { caseName, PREFILL_RESULTS, type PrefillResults } from "./prefill-results.ts";
import { checkLine, memoryLine, peerCells, prefillCells, prefillNotes } from "./prefill-table.ts";
import { cells, escapeHtml, figure, flatten, nameTable, reportPage, section, table } from "./report-parts.ts";
import { formatCount } from "./units.ts";
import { type ResultFile, writeFiles } from "./write-results.ts";

/**
 * Writes the files; see `writeFiles`.
 * @returns their paths.
 */
export async function writePrefill(dir: string, results: PrefillResults): Promise<string[]> {
  const [chart] = prefillCharts(results, LIGHT);
  const files: ResultFile[] = [
    ["results.json", () => `${JSON.stringify(results, null, 1)}\n`],
    [join("charts", `${PREFILL_CHART}.svg`), chart && (() => `${chartSvg(chart)}\n`)],
    ["report.html", () => prefillReport(results)],
  ];
  return writeFiles(dir, files, PREFILL_RESULTS.safeParse(results).error);
}

/** The whole of report.html. */
export function prefillReport(results: PrefillResults): string {
  const { model, adapter, runtime, quire, createdAt, command, options, rows, failures } = results;
  const light = prefillCharts(results, LIGHT);
  const heads = { name: "name", value: "value" };
  const lines = (texts: readonly string[]) =>
    `<ul>${texts.map((t) => `<li>${escapeHtml(t)}</li>`).join("\n")}</ul>`;
  const asTable = (caption: string, [head = [], ...body]: string[][]) =>
    table(
      caption,
      head,
      body.map(
        ([name = "", ...figures]) => `<tr><th scope="row">${escapeHtml(name)}</th>${cells(figures)}</tr>`,
      ),
    );
  const peers = peerCells(results);
  const failed = failures.map(({ prefill, message }) => `${caseName(prefill)}: ${message}`);
  const alert = [...failed, ...(results.incomplete === undefined ? [] : [results.incomplete])].join("; ");
  return reportPage({
    htmlLang: "en",
    tab: `quire bench prefill · ${model.name}`,
    title: "Prefill: prompts through the model",
    facts: [
      `${model.name} (${formatCount(model.parameters)} parameters), weights ${model.dtype}, KV ${options.kv} ${model.kvDtype}`,
      adapter.description || adapter.device || adapter.vendor,
      `${runtime.name} ${runtime.version}`,
      `quire ${quire.version}`,
      `${createdAt.slice(0, 16).replace("T", " ")} UTC`,
    ],
    badge: adapter.software ? "Software adapter: correct, slow, no benchmark." : undefined,
    alert: alert === "" ? undefined : alert,
    main: [
      section("Cases", asTable("Sequences × tokens of each prompt.", prefillCells(results))),
      ...(peers.length > 1 ? [section("Beside the peer", asTable("On the same GPU.", peers))] : []),
      section("What the figures mean", lines(prefillNotes(results))),
      section("Memory and checks", lines([...rows.map(memoryLine), ...rows.map(checkLine)])),
      section("Chart", light.map(figure).join("\n")),
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
    dark: prefillCharts(results, DARK),
  });
}

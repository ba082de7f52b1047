/** The report of the capacity experiment: one HTML file with tables, page maps to play, live charts and the environment. */
import { MIX_NAMES } from "./capacity-cases.ts";
import { capacityCharts } from "./capacity-charts.ts";
import type { CapacityResults, CapacityRow } from "./capacity-results.ts";
import { budgetLine, COLUMNS, COLUMNS_NOTE, capacityCells, mixLine } from "./capacity-table.ts";
import { DARK, LIGHT } from "./chart-parts.ts";
import { labels } from "./labels.ts";
import type { PageMap } from "./page-map.ts";
import { PLAYER_SCRIPT, PLAYER_STYLE, playerHtml } from "./page-map-player.ts";
import { cells, escapeHtml, figure, flatten, nameTable, reportPage, section, table } from "./report-parts.ts";
import { formatCount } from "./units.ts";

/** The whole of report.html. Without scripts charts and page maps are still there, drawn and light. */
export function capacityReport(results: CapacityResults, maps: readonly PageMap[]): string {
  const { model, adapter, runtime, quire } = results;
  const { report } = labels("en");
  const light = capacityCharts(results, LIGHT);
  return reportPage({
    htmlLang: "en",
    tab: `quire bench capacity · ${model.name}`,
    title: "How many sequences fit: strips and pages in the same memory",
    facts: [
      `${model.name} (${formatCount(model.parameters)} ${report.parameters})`,
      adapter ? adapter.description || adapter.device || adapter.vendor : "simulated, without a model",
      `${runtime.name} ${runtime.version}`,
      `quire ${quire.version}`,
      `${results.createdAt.slice(0, 16).replace("T", " ")} UTC`,
    ],
    badge: adapter?.software ? report.softwareBadge : undefined,
    alert: results.incomplete,
    main: [
      section(report.summary, tables(results)),
      section(
        report.conclusion,
        `<ul>${results.conclusion.map((s) => `<li>${escapeHtml(s)}</li>`).join("\n")}</ul>`,
      ),
      maps.length > 0 ? section("Page maps", maps.map(playerHtml).join("\n")) : "",
      light.length > 0 ? section(report.charts, light.map(figure).join("\n")) : "",
      section(report.options, nameTable(flatten(results.options), report)),
      section(report.environment, nameTable(environment(results), report)),
    ].join("\n"),
    light,
    dark: capacityCharts(results, DARK),
    style: PLAYER_STYLE,
    script: PLAYER_SCRIPT,
  });
}

function tables(results: CapacityResults): string {
  const parts = results.mixes.map((mix) => {
    const rows = capacityCells(results, mix.mix).map(([name, ...figures]) => {
      const padded = [...figures, ...new Array<string>(COLUMNS.length - 1 - figures.length).fill("")];
      return `<tr><th scope="row">${escapeHtml(name!)}</th>${cells(padded)}</tr>`;
    });
    return table(`${MIX_NAMES[mix.mix]}: ${mixLine(mix)}`, [...COLUMNS], rows);
  });
  const reasons = results.rows.flatMap(reasonOf).map((reason) => `<li>${escapeHtml(reason)}</li>`);
  return [
    `<p class="facts">${escapeHtml(budgetLine(results))}</p>`,
    ...parts,
    `<p class="facts">${escapeHtml(COLUMNS_NOTE)}</p>`,
    ...(reasons.length > 0 ? [`<ul>${reasons.join("\n")}</ul>`] : []),
  ].join("\n");
}

/** Why a row lacks figures, in full. */
function reasonOf({ mix, layout, pageSize, refused, error }: CapacityRow): string[] {
  const why = refused ?? error;
  const name = layout === "pages" ? `${layout} of ${pageSize}` : layout;
  return why === undefined ? [] : [`${MIX_NAMES[mix]}, ${name}: ${why}`];
}

function environment(results: CapacityResults): [string, string][] {
  const { createdAt, command, quire, runtime, adapter, model } = results;
  return [
    ["createdAt", createdAt],
    ["command", command.join(" ")],
    ...flatten({ quire, runtime, ...(adapter ? { adapter } : {}), model }),
  ];
}

/** The report: one HTML file that needs no network and no other file, with the tables, the live charts and the texts. */
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { type Chart, DARK, LIGHT } from "./chart-parts.ts";
import { chartSvg } from "./chart-svg.ts";
import { kvCharts } from "./charts.ts";
import { type Labels, type Lang, labels, timedCaption } from "./labels.ts";
import { SCRIPT, STYLE } from "./report-page.ts";
import { type BenchResults, finishedRuns, type RunResult, timingOfRuns } from "./results.ts";
import { generatedTexts, samenessLine, summaryRows } from "./table.ts";
import { formatBytes, formatCount, formatSeconds } from "./units.ts";

/** The whole of report.html. Without scripts the charts are still there, drawn and light. */
export function reportHtml(results: BenchResults, lang: Lang): string {
  const text = labels(lang);
  const light = kvCharts(results, lang, LIGHT);
  const dark = kvCharts(results, lang, DARK);
  const { model, adapter, runtime, quire } = results;
  const facts = [
    `${model.name} (${formatCount(model.parameters)} ${text.report.parameters})`,
    adapter.description || adapter.device || adapter.vendor,
    `${runtime.name} ${runtime.version}`,
    `quire ${quire.version}`,
    `${results.createdAt.slice(0, 16).replace("T", " ")} UTC`,
  ];
  return `<!doctype html>
<html lang="${text.htmlLang}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'">
<title>${escapeHtml(`quire bench kv · ${model.name}`)}</title>
<style>${STYLE}</style>
</head>
<body>
<header>
<h1>${escapeHtml(text.title)}</h1>
<p class="facts">${escapeHtml(facts.join(" · "))}</p>
${adapter.software ? `<p class="badge">${escapeHtml(text.report.softwareBadge)}</p>` : ""}
${results.incomplete === undefined ? "" : `<p class="alert" role="alert">${escapeHtml(results.incomplete)}</p>`}
</header>
<main>
${summarySection(results, lang)}
${results.summary.length > 0 ? measuredSections(results, light, lang) : ""}
${section(text.report.options, nameTable(flatten(results.options), text))}
${section(text.report.environment, nameTable(environment(results), text))}
</main>
<script type="application/json" id="chart-data">${embedJson({ light: live(light), dark: live(dark) })}</script>
<script>${echartsSource()}</script>
<script>${SCRIPT}</script>
</body>
</html>
`;
}

function summarySection(results: BenchResults, lang: Lang): string {
  const text = labels(lang);
  const timing = timingOfRuns(results.runs);
  const head = [text.timing[timing], ...results.summary.map((s) => text.modes[s.mode])];
  const rows = summaryRows(results.summary, lang).map(
    (row) =>
      `<tr><th scope="row"${row.indent ? ' class="part"' : ""}>${escapeHtml(row.label)}</th>${cells(row.cells)}</tr>`,
  );
  const modes = new Set(results.runs.map((r) => r.mode)).size;
  const same = escapeHtml(samenessLine(results.sameTokens, modes, lang));
  const conclusion = results.conclusion.map((sentence) => `<li>${escapeHtml(sentence)}</li>`).join("\n");
  const figures =
    results.summary.length > 0
      ? table(timedCaption(text.report.summaryCaption, timing, text), head, rows)
      : `<p>${escapeHtml(text.nothingFinished)}</p>`;
  const { identical } = results.sameTokens;
  const sameClass = identical === null ? "facts" : identical ? "same" : "same differs";
  return [
    section(text.report.summary, figures),
    section(text.report.conclusion, `<ul>${conclusion}</ul>\n<p class="${sameClass}">${same}</p>`),
  ].join("\n");
}

/** Charts, texts and steps: of runs that reached their end. */
function measuredSections(results: BenchResults, charts: readonly Chart[], lang: Lang): string {
  const text = labels(lang);
  return [
    section(text.report.charts, charts.map(figure).join("\n")),
    section(text.report.texts, texts(results, lang)),
    section(text.report.steps, stepTables(results, text), "steps"),
  ].join("\n");
}

function figure(chart: Chart): string {
  return `<figure><div class="frame"><div class="chart" id="chart-${chart.id}" style="height:${chart.height}px">${chartSvg(chart)}</div></div>
<figcaption>${escapeHtml(chart.caption)}</figcaption></figure>`;
}

function texts(results: BenchResults, lang: Lang): string {
  const prompt = escapeHtml(results.options.prompt);
  return generatedTexts(results, lang)
    .map(
      (t) =>
        `<h3>${escapeHtml(t.heading)}</h3>\n<p class="text"><span class="prompt">${prompt}</span>${escapeHtml(t.text)}</p>`,
    )
    .join("\n");
}

function stepTables(results: BenchResults, text: Labels): string {
  const first = results.summary.map((s) => finishedRuns(results.runs, s.mode)[0]!);
  const tables = first.map(
    (r) => `<details><summary>${escapeHtml(text.modes[r.mode])}</summary>${stepTable(r, text)}</details>`,
  );
  const caption = `${text.report.stepsCaption} ${text.timingNote[timingOfRuns(results.runs)]}`;
  return `<p class="facts">${escapeHtml(caption)}</p>\n${tables.join("\n")}`;
}

function stepTable(run: RunResult, text: Labels): string {
  const { report, chart, modes } = text;
  const head = [
    chart.step,
    report.token,
    report.context,
    report.tokensComputed,
    report.time,
    chart.memory,
    report.peak,
    `KV ${chart.reserved}`,
    `KV ${chart.used}`,
  ];
  const rows = run.steps.map((s) => {
    const figures = [
      String(s.tokenId),
      String(s.contextLength),
      String(s.newTokensComputed),
      formatSeconds(s.seconds),
      ...[s.gpuMemoryBytes, s.gpuPeakBytes, s.kvReservedBytes, s.kvUsedBytes].map((b) => formatBytes(b)),
    ];
    return `<tr><th scope="row">${s.step}</th>${cells(figures)}</tr>`;
  });
  return table(modes[run.mode], head, rows);
}

function environment(results: BenchResults): [string, string][] {
  const { createdAt, command, quire, runtime, adapter, model } = results;
  return [
    ["createdAt", createdAt],
    ["command", command.join(" ")],
    ...flatten({ quire, runtime, adapter, model }),
  ];
}

/** Leaves of an object as ["adapter.vendor", "…"], so that the report names things as results.json does. */
function flatten(value: object, prefix = ""): [string, string][] {
  return Object.entries(value).flatMap(([key, child]): [string, string][] => {
    const name = prefix + key;
    if (Array.isArray(child)) return [[name, child.join(", ")]];
    if (typeof child === "object" && child !== null) return flatten(child, `${name}.`);
    return [[name, child === null ? "–" : String(child)]];
  });
}

function nameTable(rows: [string, string][], text: Labels): string {
  const body = rows.map(
    ([name, value]) => `<tr><th scope="row">${escapeHtml(name)}</th><td>${escapeHtml(value)}</td></tr>`,
  );
  return `<table class="names"><thead><tr><th scope="col">${escapeHtml(text.report.name)}</th><th scope="col">${escapeHtml(text.report.value)}</th></tr></thead>
<tbody>${body.join("\n")}</tbody></table>`;
}

function table(caption: string, head: string[], rows: string[]): string {
  const heads = head.map((h) => `<th scope="col">${escapeHtml(h)}</th>`).join("");
  return `<div class="scroll"><table><caption>${escapeHtml(caption)}</caption><thead><tr>${heads}</tr></thead>
<tbody>${rows.join("\n")}</tbody></table></div>`;
}

function cells(figures: string[]): string {
  return figures.map((f) => `<td>${escapeHtml(f)}</td>`).join("");
}

function section(title: string, body: string, className = ""): string {
  return `<section class="${className}"><h2>${escapeHtml(title)}</h2>\n${body}\n</section>`;
}

function live(charts: readonly Chart[]): Pick<Chart, "id" | "option" | "units">[] {
  return charts.map(({ id, option, units }) => ({ id, option, units }));
}

/** The library as one classic script, from the installed package. */
function echartsSource(): string {
  const file = createRequire(import.meta.url).resolve("echarts/dist/echarts.min.js");
  return readFileSync(file, "utf8").replaceAll("</script", "<\\/script");
}

/** JSON that cannot end the script element it stands in. */
function embedJson(value: unknown): string {
  return JSON.stringify(value).replaceAll("<", "\\u003c");
}

function escapeHtml(text: string): string {
  return text
    .replaceAll("&", "&amp;")
    .replaceAll("<", "&lt;")
    .replaceAll(">", "&gt;")
    .replaceAll('"', "&quot;");
}

/** The report: one HTML file that needs no network and no other file, with the tables, the live charts and the texts. */
import { batchLabels } from "./batch-labels.ts";
import { type Chart, DARK, LIGHT } from "./chart-parts.ts";
import { kvCharts } from "./charts.ts";
import { type Labels, type Lang, labels, timedCaption } from "./labels.ts";
import { cells, escapeHtml, figure, flatten, nameTable, reportPage, section, table } from "./report-parts.ts";
import {
  type BenchResults,
  finishedRuns,
  type RunResult,
  sequencesOf,
  timingOfRuns,
  tokenRate,
} from "./results.ts";
import { generatedTexts, samenessLine, summaryRows } from "./table.ts";
import { formatBytes, formatCount, formatSeconds } from "./units.ts";

/** The whole of report.html. */
export function reportHtml(results: BenchResults, lang: Lang): string {
  const text = labels(lang);
  const light = kvCharts(results, lang, LIGHT);
  const { model, adapter, runtime, quire } = results;
  return reportPage({
    htmlLang: text.htmlLang,
    tab: `quire bench kv · ${model.name}`,
    title: text.title,
    facts: [
      `${model.name} (${formatCount(model.parameters)} ${text.report.parameters})`,
      adapter.description || adapter.device || adapter.vendor,
      `${runtime.name} ${runtime.version}`,
      `quire ${quire.version}`,
      `${results.createdAt.slice(0, 16).replace("T", " ")} UTC`,
    ],
    badge: adapter.software ? text.report.softwareBadge : undefined,
    alert: results.incomplete,
    main: [
      summarySection(results, lang),
      results.summary.length > 0 ? measuredSections(results, light, lang) : "",
      section(text.report.options, nameTable(flatten(results.options), text.report)),
      section(text.report.environment, nameTable(environment(results), text.report)),
    ].join("\n"),
    light,
    dark: kvCharts(results, lang, DARK),
  });
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
    sequenceSection(results, lang),
    section(text.report.steps, stepTables(results, lang), "steps"),
  ].join("\n");
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

/** Every sequence of a batch, folded; nothing for a batch of 1. */
function sequenceSection(results: BenchResults, lang: Lang): string {
  const run = finishedRuns(results.runs)[0]!;
  if (run.sequences === undefined) return "";
  const { report } = batchLabels(lang);
  const head = [report.sequence, report.wanted, report.generated, report.ended, report.text];
  const rows = run.sequences.map(
    (s) =>
      `<tr><th scope="row">${s.id}</th>${cells([String(s.newTokens), String(s.tokens.length), s.finishReason, s.text])}</tr>`,
  );
  const body = table(report.caption, head, rows);
  return section(
    report.sequences,
    `<details><summary>${run.sequences.length} · ${escapeHtml(report.sequences)}</summary>${body}</details>`,
    "steps",
  );
}

function stepTables(results: BenchResults, lang: Lang): string {
  const text = labels(lang);
  const first = results.summary.map((s) => finishedRuns(results.runs, s.mode)[0]!);
  const tables = first.map(
    (r) =>
      `<details><summary>${escapeHtml(text.modes[r.mode])}</summary>${stepTable(r, text, lang)}</details>`,
  );
  const caption = `${text.report.stepsCaption} ${text.timingNote[timingOfRuns(results.runs)]}`;
  return `<p class="facts">${escapeHtml(caption)}</p>\n${tables.join("\n")}`;
}

function stepTable(run: RunResult, text: Labels, lang: Lang): string {
  const { report, chart, modes } = text;
  const isOfBatch = run.sequences !== undefined;
  const batch = batchLabels(lang).report;
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
    ...(isOfBatch ? [batch.running, batch.rate] : []),
  ];
  const rows = run.steps.map((s) => {
    const figures = [
      String(s.tokenId),
      String(s.contextLength),
      String(s.newTokensComputed),
      formatSeconds(s.seconds),
      ...[s.gpuMemoryBytes, s.gpuPeakBytes, s.kvReservedBytes, s.kvUsedBytes].map((b) => formatBytes(b)),
      ...(isOfBatch ? [String(sequencesOf(s)), tokenRate(s).toFixed(1)] : []),
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

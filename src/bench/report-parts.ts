/** What the reports of the experiments share: the page around everything, sections, tables, figures, and text made safe. */
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import type { Chart } from "./chart-parts.ts";
import { chartSvg } from "./chart-svg.ts";
import { SCRIPT, STYLE } from "./report-page.ts";

/** Everything that a page differs in. Texts are plain; `main` and `style` and `script` are put in as they are. */
export interface ReportPage {
  readonly htmlLang: string;
  /** For the browser's tab. */
  readonly tab: string;
  readonly title: string;
  /** Under the title. */
  readonly facts: readonly string[];
  /** What nobody may overlook, if there is something. */
  readonly badge?: string;
  /** What went wrong, if something did. */
  readonly alert?: string;
  readonly main: string;
  readonly light: readonly Chart[];
  readonly dark: readonly Chart[];
  /** Rules and code of this report alone. */
  readonly style?: string;
  readonly script?: string;
}

/** One HTML file that needs no network and no other file. Without scripts the charts are still there, drawn and light. */
export function reportPage(page: ReportPage): string {
  return `<!doctype html>
<html lang="${page.htmlLang}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'">
<title>${escapeHtml(page.tab)}</title>
<style>${STYLE}${page.style ?? ""}</style>
</head>
<body>
<header>
<h1>${escapeHtml(page.title)}</h1>
<p class="facts">${escapeHtml(page.facts.join(" · "))}</p>
${page.badge === undefined ? "" : `<p class="badge">${escapeHtml(page.badge)}</p>`}
${page.alert === undefined ? "" : `<p class="alert" role="alert">${escapeHtml(page.alert)}</p>`}
</header>
<main>
${page.main}
</main>
<script type="application/json" id="chart-data">${embedJson({ light: live(page.light), dark: live(page.dark) })}</script>
<script>${echartsSource()}</script>
<script>${SCRIPT}</script>
${page.script === undefined ? "" : `<script>${page.script}</script>`}
</body>
</html>
`;
}

/** A drawn chart, which the script makes live. */
export function figure(chart: Chart): string {
  return `<figure><div class="frame"><div class="chart" id="chart-${chart.id}" style="height:${chart.height}px">${chartSvg(chart)}</div></div>
<figcaption>${escapeHtml(chart.caption)}</figcaption></figure>`;
}

/** Leaves of an object as ["adapter.vendor", "…"], so that the report names things as results.json does. */
export function flatten(value: object, prefix = ""): [string, string][] {
  return Object.entries(value).flatMap(([key, child]): [string, string][] => {
    const name = prefix + key;
    if (Array.isArray(child)) return [[name, child.join(", ")]];
    if (typeof child === "object" && child !== null) return flatten(child, `${name}.`);
    return [[name, child === null ? "–" : String(child)]];
  });
}

/** Names and values, as `flatten` gives them. */
export function nameTable(rows: [string, string][], heads: { name: string; value: string }): string {
  const body = rows.map(
    ([name, value]) => `<tr><th scope="row">${escapeHtml(name)}</th><td>${escapeHtml(value)}</td></tr>`,
  );
  return `<table class="names"><thead><tr><th scope="col">${escapeHtml(heads.name)}</th><th scope="col">${escapeHtml(heads.value)}</th></tr></thead>
<tbody>${body.join("\n")}</tbody></table>`;
}

/** A table with a caption; `rows` are elements, each with a `th` of scope row. */
export function table(caption: string, head: string[], rows: string[]): string {
  const heads = head.map((h) => `<th scope="col">${escapeHtml(h)}</th>`).join("");
  return `<div class="scroll"><table><caption>${escapeHtml(caption)}</caption><thead><tr>${heads}</tr></thead>
<tbody>${rows.join("\n")}</tbody></table></div>`;
}

/** The cells of a row after its `th`. */
export function cells(figures: string[]): string {
  return figures.map((f) => `<td>${escapeHtml(f)}</td>`).join("");
}

/** A part of the report under its heading; `body` is put in as it is. */
export function section(title: string, body: string, className = ""): string {
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
export function embedJson(value: unknown): string {
  return JSON.stringify(value).replaceAll("<", "\\u003c");
}

/** Text as it stands between tags and in attributes. */
export function escapeHtml(text: string): string {
  return text
    .replaceAll("&", "&amp;")
    .replaceAll("<", "&lt;")
    .replaceAll(">", "&gt;")
    .replaceAll('"', "&quot;");
}

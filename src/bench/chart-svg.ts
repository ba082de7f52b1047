/** Draws charts to SVG text, on Node and Deno, without a browser. */
import { BarChart, LineChart } from "echarts/charts";
import {
  GridComponent,
  LegendComponent,
  MarkPointComponent,
  TitleComponent,
  TooltipComponent,
} from "echarts/components";
import { init, setPlatformAPI, use } from "echarts/core";
import { SVGRenderer } from "echarts/renderers";
import type { Chart } from "./chart-parts.ts";

use([
  BarChart,
  LineChart,
  GridComponent,
  LegendComponent,
  MarkPointComponent,
  TitleComponent,
  TooltipComponent,
  SVGRenderer,
]);

/** Without a browser nobody knows the font, so legends are spaced for the widest of the usual ones, DejaVu Sans. */
setPlatformAPI({ measureText: (text: string, font?: string) => ({ width: textWidth(text, font) }) });

function textWidth(text: string, font = ""): number {
  const size = Number(/(\d+(?:\.\d+)?)px/.exec(font)?.[1] ?? 12);
  let width = 0;
  for (const character of text) width += size * characterWidth(character);
  return width;
}

/** In parts of the font size. */
function characterWidth(character: string): number {
  if (character >= "\u2e80") return 1;
  if ("iljtfrI.,:;'|()[] ".includes(character)) return 0.37;
  return "mwMW%@".includes(character) ? 0.97 : 0.65;
}

/** One chart as an SVG document with a text alternative. */
export function chartSvg(chart: Chart): string {
  const drawing = init(null, null, { renderer: "svg", ssr: true, width: chart.width, height: chart.height });
  try {
    drawing.setOption(chart.option);
    const label = escapeAttribute(`${chart.title}. ${chart.caption}`);
    return drawing.renderToSVGString().replace("<svg ", `<svg role="img" aria-label="${label}" `);
  } finally {
    drawing.dispose();
  }
}

function escapeAttribute(text: string): string {
  return text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/"/g, "&quot;");
}

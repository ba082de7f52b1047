/** The fixed parts of report.html: its style sheet and the script that makes the charts live. */

export const STYLE = `
:root { color-scheme: light dark; --bg: #ffffff; --text: #1f2328; --muted: #59636e; --line: #dfe3e8; --soft: #f4f6f8;
  --good: #116633; --bad: #a40e26; --warn: #7a4d00; }
@media (prefers-color-scheme: dark) {
  :root { --bg: #15181c; --text: #e6e9ed; --muted: #a3acb7; --line: #333a42; --soft: #1d2126;
    --good: #4fd18b; --bad: #ff8f9a; --warn: #f0b95a; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 1.5rem 1.25rem 4rem; background: var(--bg); color: var(--text);
  font: 16px/1.55 system-ui, "Segoe UI", "Noto Sans", "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC", sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .4rem; }
h2 { font-size: 1.2rem; margin: 2.4rem 0 .8rem; }
.facts, caption, figcaption { color: var(--muted); font-size: .9rem; }
.facts { margin: 0 0 1rem; }
.badge, .alert { border-left: 4px solid var(--warn); background: var(--soft); padding: .55rem .9rem; margin: .6rem 0; }
.same { font-weight: 600; color: var(--good); }
.alert, .same.differs { color: var(--bad); border-color: var(--bad); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: .5rem; }
th, td { padding: .32rem .7rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th { font-weight: 600; }
thead th:first-child { text-align: left; }
tbody th { font-weight: 400; text-align: left; }
tbody th.part { padding-left: 1.9rem; color: var(--muted); }
.names td { text-align: left; white-space: normal; overflow-wrap: anywhere; }
.names thead th { text-align: left; }
.names tbody th { vertical-align: top; width: 15rem; font-family: ui-monospace, monospace; font-size: .85rem; }
figure { margin: 0 0 2.2rem; }
figcaption { padding: .2rem 1rem 0; }
.frame { overflow-x: auto; border: 1px solid var(--line); border-radius: 6px; }
.chart { min-width: 700px; }
.chart svg { display: block; }
.text { white-space: pre-wrap; overflow-wrap: anywhere; background: var(--soft); padding: .8rem 1rem; margin: .3rem 0 1.2rem;
  border-radius: 6px; }
.text .prompt { color: var(--muted); }
h3 { font-size: 1rem; margin: 1rem 0 0; }
details { margin: .5rem 0; }
summary { cursor: pointer; padding: .2rem 0; }
@media print {
  body { max-width: none; padding: 0; font-size: 10.5pt; }
  figure, tr, .text { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
  .frame, .scroll { overflow: visible; border: 0; }
  .frame { zoom: .75; }
  .steps:not(:has(details[open])), details:not([open]) { display: none; }
}
`;

/**
 * Replaces each drawn chart by a live one in the reader's colours. Paper is white, so printing redraws in the light colours,
 * at a width that the style sheet's zoom fits to a page.
 */
export const SCRIPT = `
const charts = JSON.parse(document.getElementById("chart-data").textContent);
const dark = matchMedia("(prefers-color-scheme: dark)");
const PRINT_WIDTH = 900;
let live = [];
function draw(look, width) {
  for (const chart of live) chart.dispose();
  live = charts[look].map(({ id, option, units }) => {
    option.series.forEach((series, i) => {
      series.tooltip = { ...series.tooltip, valueFormatter: (v) => (v == null ? "–" : v + " " + units[i]) };
    });
    const element = document.getElementById("chart-" + id);
    element.replaceChildren();
    const chart = echarts.init(element, null, { renderer: "svg", width });
    chart.setOption(option);
    return chart;
  });
}
const drawForScreen = () => draw(dark.matches ? "dark" : "light");
drawForScreen();
dark.addEventListener("change", drawForScreen);
addEventListener("resize", () => { for (const chart of live) chart.resize(); });
addEventListener("beforeprint", () => draw("light", PRINT_WIDTH));
addEventListener("afterprint", drawForScreen);
`;

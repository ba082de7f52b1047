import { describe, expect, test } from "vitest";
import { completeResults } from "../../src/bench/conclude.ts";
import { reportHtml } from "../../src/bench/report.ts";
import { sampleMeasured, sampleResults } from "./sample-results.ts";

/** The report without the library that it carries. */
function page(html: string): string {
  const scripts = [...html.matchAll(/<script>[\s\S]*?<\/script>/g)].map((m) => m[0]);
  const library = scripts.find((s) => s.length > 500_000)!;
  return html.replace(library, "");
}

describe("report.html", () => {
  const results = sampleResults();
  const html = reportHtml(results, "en");

  test("carries the chart library and asks the network for nothing", () => {
    expect(html.length - page(html).length).toBeGreaterThan(500_000);
    expect(page(html)).not.toMatch(/\s(src|href)="|@import|url\((?!#)/);
    expect(html).toContain("default-src 'none'");
  });

  test("has the table, the conclusion, the texts, every step, options and environment", () => {
    const body = page(html);
    for (const sentence of results.conclusion) expect(body).toContain(`<li>${sentence}</li>`);
    expect(body).toContain("All 3 modes gave the same 50 tokens (6 runs compared).");
    expect(body).toContain("said the priest");
    expect(body.match(/<th scope="row">50<\/th>/g)).toHaveLength(3);
    expect(body).toContain("8be2a47c0ffee");
    expect(body).toContain("SwiftShader Device (Subzero)");
    expect(body).toContain("Software adapter: correct, slow, no benchmark.");
  });

  test("labels its tables and figures", () => {
    const body = page(html);
    expect(body.match(/<figcaption>/g)).toHaveLength(7);
    expect(body.match(/<svg role="img" aria-label="/g)).toHaveLength(7);
    for (const table of body.match(/<table[\s\S]*?<\/table>/g)!) {
      expect(table).toContain('<th scope="col">');
      expect(table).toContain('<th scope="row"');
    }
  });

  test("carries the options of every chart in both appearances", () => {
    const json = /<script type="application\/json" id="chart-data">(.*)<\/script>/.exec(html)![1]!;
    const data = JSON.parse(json) as Record<"light" | "dark", { id: string }[]>;
    for (const look of ["light", "dark"] as const) {
      expect(data[look]).toHaveLength(7);
      for (const { id } of data[look]) expect(html).toContain(`id="chart-${id}"`);
    }
  });

  test("shows what a prompt or a model says as text, not as markup", () => {
    const hostile = sampleResults();
    hostile.options.prompt = "</script><script>alert(1)</script>";
    hostile.model.name = '<img src="x" onerror="alert(2)">';
    for (const run of hostile.runs) run.text = '<b>bold</b> & "quoted"';
    const body = page(reportHtml(hostile, "en"));
    expect(body).not.toMatch(/<script>alert|<img|<b>/);
    expect(body).toContain("&lt;b&gt;bold&lt;/b&gt; &amp; &quot;quoted&quot;");
  });

  test("says how the steps were timed, above the table and below the charts of latency", () => {
    const body = page(reportHtml(sampleResults({ timing: "pipelined" }), "en"));
    expect(body).toContain('<th scope="col">steps: pipelined</th>');
    const captions = body.match(/<figcaption>.*its round&#39;s|<figcaption>.*its round's/g);
    expect(captions).toHaveLength(3);
    expect(page(html)).toContain('<th scope="col">steps: host-visible</th>');
    expect(page(html)).not.toContain("round's");
  });

  test("of a batch has its sequences, and how many ran in each step", () => {
    const batch = sampleResults({ batch: 3, newTokens: 6, repeats: 1 });
    batch.runs[0]!.sequences![2]!.text = "<i>third</i>";
    const body = page(reportHtml(batch, "en"));
    expect(body).toContain("<h2>Sequences</h2>");
    expect(body).toContain('<th scope="row">2</th><td>2</td><td>2</td><td>length</td><td>&lt;i&gt;third');
    expect(body.match(/<th scope="col">tokens\/s<\/th>/g)).toHaveLength(3);
    expect(body).toContain("a step down is a sequence that ended");
    expect(body.match(/<figcaption>/g)).toHaveLength(9);
    expect(page(html)).not.toMatch(/<h2>Sequences|a step down is/);
  });

  test("is in Chinese when asked", () => {
    const zh = page(reportHtml(sampleResults({}, "zh"), "zh"));
    expect(zh).toContain('<html lang="zh-CN">');
    for (const word of ["汇总", "结论", "每个 token 平均用时", "归一化", "环境"]) expect(zh).toContain(word);
  });

  test("warns of differing tokens and of an experiment that stopped early", () => {
    const bad = { ...sampleResults(), incomplete: "paged: OutOfMemory: 2.0 GiB asked for" };
    bad.sameTokens = {
      identical: false,
      runs: 2,
      tokens: 50,
      firstDifference: {
        step: 3,
        modeA: "none",
        repeatA: 1,
        tokenA: 1,
        modeB: "paged",
        repeatB: 1,
        tokenB: 2,
      },
    };
    const body = page(reportHtml(bad, "en"));
    expect(body).toContain('<p class="alert" role="alert">paged: OutOfMemory: 2.0 GiB asked for</p>');
    expect(body).toContain('<p class="same differs">The runs DIFFER, first at step 3');
  });

  test("is still a report when no mode finished", () => {
    const measured = { ...sampleMeasured(), runs: [], incomplete: "none: DeviceLost" };
    const body = page(reportHtml(completeResults(measured, "en"), "en"));
    expect(body).toContain('<p class="alert" role="alert">none: DeviceLost</p>');
    expect(body).toContain("No run reached its end, so there are no figures.");
    expect(body).toContain('<p class="facts">No run gave a token: there is nothing to compare.</p>');
    expect(body).not.toMatch(/<h2>(Charts|Texts|Every step)/i);
    expect(body).not.toContain("time per token");
  });
});

// Is what `quire bench kv` left in a folder whole and valid?  node .ci/check-report.mjs <folder>
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { RESULTS } from "../dist/bench/results.js";

const folder = process.argv[2];
const text = (name) => readFileSync(join(folder, name), "utf8");

const results = RESULTS.parse(JSON.parse(text("results.json")));
assert.deepEqual(results.summary.map((s) => s.mode), ["none", "contiguous", "paged"]);
assert.equal(results.sameTokens.identical, true, "the modes gave different tokens, or were not compared");
assert.equal(results.incomplete, undefined);
const steps = results.runs.reduce((n, run) => n + run.steps.length, 0);
assert.equal(text("steps.csv").trim().split("\n").length, steps + 1);
const charts = readdirSync(join(folder, "charts"));
assert.ok(charts.length >= 5, `only ${charts.length} charts`);
for (const chart of charts) assert.match(text(join("charts", chart)), /^<svg[\s\S]*<\/svg>\s*$/);
const report = text("report.html");
assert.match(report, /^<!doctype html>[\s\S]*<\/html>\s*$/i);
assert.ok(!/(src|href)="https?:/.test(report), "the report loads something from the network");
console.log(`report of ${steps} steps and ${charts.length} charts is valid`);

import fc from "fast-check";
import { beforeAll, describe, expect, test } from "vitest";
import { layoutsOf, spaceOf } from "../../src/bench/capacity-cases.ts";
import { simulate } from "../../src/bench/capacity-simulation.ts";
import { DARK, LIGHT } from "../../src/bench/chart-parts.ts";
import {
  applyChanges,
  encodeChanges,
  fullestStep,
  type MapMoment,
  type MapRegion,
  mapWithin,
  momentAt,
  type PageMap,
  PageMapRecorder,
  regionsAt,
  thinned,
} from "../../src/bench/page-map.ts";
import {
  drawSlots,
  momentText,
  type PanelView,
  pageMapSvg,
  panelViews,
  stepsOf,
  stepText,
} from "../../src/bench/page-map-draw.ts";
import { PLAYER_SCRIPT, playerHtml } from "../../src/bench/page-map-player.ts";
import { FILE_STYLE, REPORT_STYLE } from "../../src/bench/page-map-style.ts";
import type { Region } from "../../src/kv/kv-space.ts";
import { experiment, KV_TOKENS, OPTIONS, REQUESTS } from "./capacity-fixture.ts";

let maps: PageMap[];
beforeAll(async () => {
  ({ maps } = await experiment());
});

/** Regions that cover slots 1 to 40, somehow. */
const partition = fc
  .array(
    fc.record({
      slots: fc.integer({ min: 1, max: 8 }),
      used: fc.nat(8),
      ref: fc.integer({ min: -1, max: 3 }),
    }),
    { minLength: 5, maxLength: 40 },
  )
  .map((pieces) => {
    const regions: MapRegion[] = [];
    let slot = 1;
    for (const { slots, used, ref } of pieces) {
      if (slot > 40) break;
      const size = Math.min(slots, 41 - slot);
      regions.push({ slot, slots: size, used: ref > 0 ? Math.min(used, size) : 0, ref });
      slot += size;
    }
    if (slot <= 40) regions.push({ slot, slots: 41 - slot, used: 0, ref: 0 });
    return regions;
  });

describe("changes", () => {
  test("lead from any regions to any others", () => {
    fc.assert(
      fc.property(fc.array(partition, { maxLength: 5 }), (moments) => {
        let regions: MapRegion[] = [];
        for (const now of moments) {
          regions = applyChanges(regions, encodeChanges(regions, now));
          expect(regions).toEqual(now);
        }
      }),
    );
  });

  test("of a step of decoding are two small numbers a sequence", () => {
    const before = [
      { slot: 1, slots: 8, used: 5, ref: 1 },
      { slot: 9, slots: 8, used: 8, ref: 2 },
      { slot: 17, slots: 8, used: 2, ref: 2 },
    ];
    const now = before.map((r, i) => (i === 1 ? r : { ...r, used: r.used + 1 }));
    expect(encodeChanges(before, now)).toEqual([1, 6, 16, 3]);
    expect(encodeChanges(now, now)).toEqual([]);
  });
});

describe("the recorder", () => {
  test.each(layoutsOf([8, 16]))("has the regions of the space at every step: %j", (layout) => {
    for (const requests of REQUESTS.values()) {
      const space = spaceOf(layout, OPTIONS.budget);
      const recorder = new PageMapRecorder();
      const seen: Region[][] = [];
      for (const { running, waiting, reserved, used } of simulate(space, requests, OPTIONS)) {
        const regions = space.regions();
        recorder.add({ step: seen.length, running, waiting, blocked: false, reserved, used }, regions);
        seen.push(regions);
      }
      const panel = JSON.parse(JSON.stringify(recorder.panel("a", layout.pageSize, 0)));
      let regions: MapRegion[] = [];
      seen.forEach((wanted, i) => {
        regions = applyChanges(regions, panel.changes[i]);
        const found = regions.map(({ slot, slots, used: u, ref }) => ({
          ...{ slot, slots, used: u },
          owners: ref > 0 ? panel.owners[ref - 1] : [],
          isCached: ref === -1,
        }));
        expect(found).toEqual(wanted);
      });
      expect(regionsAt(panel, seen.length - 1)).toEqual(regions);
    }
  });
});

describe("the maps of an experiment", () => {
  test("show contiguous and paged, and sharing where prompts begin alike, up to the empty space at the end", () => {
    expect(maps.map((m) => [m.id, m.slots, m.panels.map((p) => p.title)])).toEqual([
      ["lognormal", KV_TOKENS, ["strips, maximum length", "strips, exact length", "pages of 16"]],
      ["shared-prefix", KV_TOKENS, ["strips, maximum length", "pages of 16", "pages of 16, shared"]],
    ]);
    for (const panel of maps.flatMap((m) => m.panels)) {
      const last = regionsAt(panel, panel.moments.length - 1);
      expect(last.every((r) => r.ref <= 0)).toBe(true);
      expect(panel.moments.at(-1)).toMatchObject({ running: 0, waiting: 0, reserved: 0 });
    }
    const shared = maps[1]!.panels[2]!;
    expect(shared.owners.some((owners) => owners.length > 1)).toBe(true);
  });

  test("keep, thinned, every second moment and the last one", () => {
    const [map] = maps as [PageMap];
    const thin = thinned(map);
    expect(thin.every).toBe(2 * map.every);
    map.panels.forEach((panel, p) => {
      const steps = thin.panels[p]!.moments.map((m) => m.step);
      const wanted = panel.moments
        .map((m) => m.step)
        .filter((_, i) => i % 2 === 0 || i === panel.moments.length - 1);
      expect(steps).toEqual(wanted);
      steps.forEach((step, i) => {
        expect(regionsAt(thin.panels[p]!, i)).toEqual(regionsAt(panel, momentAt(panel.moments, step)));
      });
    });
    const small = mapWithin(map, JSON.stringify(map).length / 3);
    expect(JSON.stringify(small).length).toBeLessThanOrEqual(JSON.stringify(map).length / 3);
    expect(mapWithin(map, 1e9)).toBe(map);
    // Two moments are the least that there can be.
    expect(Math.max(...mapWithin(map, 1).panels.map((p) => p.moments.length))).toBe(2);
  });

  test("are drawn where requests wait in most layouts and most is used", () => {
    const moment = (step: number, waiting: number, used: number): MapMoment => ({
      ...{ step, waiting, used },
      ...{ running: 1, blocked: false, reserved: 0 },
    });
    const panel = (...moments: MapMoment[]) => ({
      ...{ title: "", pageSize: 1, origin: 0, changes: [], owners: [] },
      moments,
    });
    const map = (...panels: ReturnType<typeof panel>[]) => ({ ...maps[0]!, panels });
    const a = panel(moment(0, 3, 5), moment(2, 3, 9), moment(4, 3, 8), moment(6, 0, 20));
    const b = panel(moment(0, 2, 5), moment(2, 2, 1), moment(4, 2, 3));
    // Sums while both wait: 10, 10, 11; at 6 only the second does.
    expect(fullestStep(map(a, b))).toBe(4);
    expect(fullestStep(map(a))).toBe(2);
    expect([0, 1, 2, 5, 100].map((step) => momentAt(b.moments, step))).toEqual([0, 0, 1, 2, 2]);
    expect(() => fullestStep(map())).toThrow("it has no moment");
  });
});

describe("a panel", () => {
  const view: PanelView = { x: 0, y: 0, width: 80, rowHeight: 10, slotsPerRow: 8, slots: 24, origin: 1 };
  const draw = (regions: MapRegion[], blocked = false) => drawSlots(view, regions, [[0], [3, 4, 7]], blocked);
  const rects = (svg: string, attributes: string) =>
    [...svg.matchAll(/<rect x="([\d.]+)" y="(\d+)" width="([\d.]+)" height="9" ([^>]*)\/>/g)]
      .filter((m) => m[4]!.includes(attributes))
      .map((m) => m.slice(1, 4).map(Number));

  test("draws a stretch as a rectangle in each row that it touches, ten pixels a slot, from its origin on", () => {
    const svg = draw([{ slot: 5, slots: 10, used: 10, ref: 1 }]);
    expect(rects(svg, 'fill="hsl(')).toEqual([
      [40, 0, 40],
      [0, 10, 60],
    ]);
    expect(rects(svg, "pm-none")).toEqual([
      [0, 0, 80],
      [0, 10, 80],
      [0, 20, 80],
    ]);
  });

  test("marks what is reserved and not used by stripes, in the pale colour of its sequence", () => {
    const svg = draw([{ slot: 1, slots: 8, used: 3, ref: 1 }]);
    expect(rects(svg, "pm-unused")).toEqual([[30, 0, 50]]);
    expect(rects(svg, 'fill-opacity=".28"')).toEqual([[30, 0, 50]]);
    const [full] = svg.match(/fill="(hsl\([^"]*)"\/>/)!;
    expect(svg.split(full!.slice(0, -3)).length).toBeGreaterThan(2);
  });

  test("marks shared pages by dots and their number, whoever has them", () => {
    const svg = draw([{ slot: 1, slots: 8, used: 8, ref: 2 }]);
    expect(rects(svg, "pm-dots")).toEqual([[0, 0, 80]]);
    expect(rects(svg, "pm-shared")).toEqual([[0, 0, 80]]);
    expect(svg).not.toContain("hsl(");
    expect(
      drawSlots(
        { ...view, rowHeight: 14 },
        [{ slot: 1, slots: 8, used: 8, ref: 2 }],
        [[0], [1, 2, 3]],
        false,
      ),
    ).toContain(">×3</text>");
  });

  test("crosses free slots only while the next does not fit, and lines what the prefix cache knows", () => {
    const free = [
      { slot: 1, slots: 4, used: 0, ref: 0 },
      { slot: 5, slots: 4, used: 0, ref: -1 },
    ];
    expect(rects(draw(free), "pm-free")).toEqual([
      [0, 0, 40],
      [40, 0, 40],
    ]);
    expect(rects(draw(free), "pm-cached")).toEqual([[40, 0, 40]]);
    expect(rects(draw(free), "pm-external")).toEqual([]);
    expect(rects(draw(free, true), "pm-external")).toHaveLength(2);
  });

  test("gives each of many sequences a colour of its own, always the same", () => {
    const owners = Array.from({ length: 60 }, (_, i) => [i]);
    const colours = owners.map(
      (_, i) =>
        /hsl\([^)]*\)/.exec(drawSlots(view, [{ slot: 1, slots: 8, used: 8, ref: i + 1 }], owners, false))![0],
    );
    expect(new Set(colours).size).toBe(60);
  });

  test("tells its figures in words", () => {
    const moment = { step: 4, running: 3, waiting: 2, blocked: true, reserved: 20, used: 15 };
    expect(momentText(moment, 24)).toEqual([
      "3 run, 2 wait: the next does not fit",
      "62.5 % of the budget holds tokens",
      "25.0 % of the reserved is waste",
    ]);
    expect(momentText({ ...moment, blocked: false, reserved: 0, used: 0 }, 24)[2]).toContain("0.0 %");
    expect([stepText(4, 9), stepText(9, 9)]).toEqual(["step 5 of 9", "all done"]);
  });
});

/** Every tag that is opened is closed, in order, and attributes are quoted. */
function expectWellFormed(xml: string): void {
  const open: string[] = [];
  const rest = xml
    .replace(/<style>[^<]*<\/style>/g, "")
    .replace(
      /<(\/?)([a-zA-Z]+)((?:\s+[\w:-]+="[^"<]*")*)\s*(\/?)>/g,
      (_, close: string, name: string, _attributes: string, empty: string) => {
        if (close) expect(open.pop()).toBe(name);
        else if (!empty) open.push(name);
        return "";
      },
    );
  expect(open).toEqual([]);
  expect(rest).not.toMatch(/[<>]|&(?!amp;|lt;|gt;|quot;)/);
}

describe("the picture", () => {
  test("is a well-formed SVG document with a text alternative, at every step, within its frame", () => {
    for (const map of maps)
      for (const step of [0, fullestStep(map), stepsOf(map)]) {
        const svg = pageMapSvg(map, FILE_STYLE, step);
        expectWellFormed(svg);
        expect(svg).toMatch(/^<svg role="img" aria-label="[^"]+" xmlns=/);
        expect(svg).not.toMatch(/NaN|undefined|Infinity/);
        for (const panel of map.panels) expect(svg).toContain(`>${panel.title}</text>`);
      }
    const [, height] = /viewBox="0 0 900 (\d+)"/.exec(pageMapSvg(maps[0]!, FILE_STYLE))!;
    for (const view of panelViews(maps[0]!)) {
      expect(view.x + view.width).toBeLessThanOrEqual(900);
      expect(view.y + Math.ceil(view.slots / view.slotsPerRow) * view.rowHeight).toBeLessThan(Number(height));
    }
  });

  test("has rows that fit a screen whatever the budget", () => {
    for (const slots of [10, 500, 16_384, 58_254, 1_000_000]) {
      const [view] = panelViews({ ...maps[0]!, slots });
      const rows = Math.ceil(slots / view!.slotsPerRow);
      expect(rows).toBeLessThanOrEqual(64);
      expect(rows * view!.rowHeight).toBeLessThanOrEqual(450);
    }
  });

  test("in the report follows the reader's appearance on a screen", () => {
    expect(REPORT_STYLE).toContain(LIGHT.background);
    expect(REPORT_STYLE.split("@media screen and (prefers-color-scheme: dark)")[1]).toContain(
      DARK.background,
    );
    expect(FILE_STYLE).not.toContain("@media");
  });
});

/** As much of a document as the script asks for: one figure, whose parts are made when they are asked for. */
function fakePage(html: string, id: string) {
  type Element = Record<string, unknown> & { listeners: Record<string, () => void> };
  const elements = new Map<string, Element>();
  const element = (selector: string): Element => {
    const found = elements.get(selector);
    if (found) return found;
    const listeners: Element["listeners"] = {};
    const made: Element = {
      listeners,
      hidden: true,
      addEventListener: (type: string, listener: () => void) => {
        listeners[type] = listener;
      },
      setAttribute() {},
    };
    elements.set(selector, made);
    return made;
  };
  const [, max, value] = /<input type="range" min="0" max="(\d+)" value="(\d+)"/.exec(html)!;
  const slider = element("input");
  // As a browser's: text, and within its bounds.
  let at = value!;
  Object.defineProperty(slider, "value", {
    get: () => at,
    set: (v: unknown) => {
      at = String(Math.max(0, Math.min(Number(max), Number(v))));
    },
  });
  slider.max = max;
  const data = new RegExp(`id="page-map-data-${id}">(.*?)</script>`, "s").exec(html)![1]!;
  const document = {
    querySelectorAll: () => [{ dataset: { map: id }, querySelector: element }],
    getElementById: () => ({ textContent: data }),
  };
  return { document, element, slider };
}

describe("the player", () => {
  test("shows at every moment what the picture would show", () => {
    for (const map of maps) {
      const html = playerHtml(map);
      const { document, element, slider } = fakePage(html, map.id);
      expect(html).toContain('<div class="player" hidden>');
      new Function("document", PLAYER_SCRIPT)(document);
      expect(element(".player").hidden).toBe(false);
      const views = panelViews(map);
      const expectShown = (step: number) => {
        map.panels.forEach((panel, i) => {
          const index = momentAt(panel.moments, step);
          const moment = panel.moments[index]!;
          const wanted = drawSlots(views[i]!, regionsAt(panel, index), panel.owners, moment.blocked);
          expect(element(`[data-part="slots-${i}"]`).innerHTML).toBe(wanted);
          const lines = [0, 1, 2].map((j) => element(`[data-part="line-${i}-${j}"]`).textContent);
          expect(lines).toEqual(momentText(moment, map.slots));
        });
        expect(element("output").textContent).toBe(stepText(step, stepsOf(map)));
      };
      expectShown(fullestStep(map));
      const moments = Number(slider.max);
      expect(moments).toBe(Math.ceil(stepsOf(map) / map.every));
      for (const moment of [0, 1, 2, Math.floor(moments / 2), 1, moments]) {
        slider.value = moment;
        slider.listeners.input!();
        expectShown(Math.min(moment * map.every, stepsOf(map)));
      }
      element('[data-do="back"]').listeners.click!();
      expectShown((moments - 1) * map.every);
      element('[data-do="on"]').listeners.click!();
      expectShown(stepsOf(map));
    }
  });

  test("needs nothing from outside the page", () => {
    const html = playerHtml(maps[0]!) + PLAYER_SCRIPT;
    expect(html.replace('xmlns="http://www.w3.org/2000/svg"', "")).not.toMatch(
      /https?:|\s(?:src|href)="|url\((?!#)|\bimport\b|__vite/,
    );
  });

  test("shows a title as text, not as markup", () => {
    const html = playerHtml({ ...maps[0]!, title: "</script><script>alert(1)</script>" });
    expect(html).not.toContain("<script>alert");
  });
});

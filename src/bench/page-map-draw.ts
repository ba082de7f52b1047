// The page map as SVG: one panel for each layout, slots in rows, the colours of sequences, marks for what is shared or lost.

import {
  fullestStep,
  type MapMoment,
  type MapPanel,
  type MapRegion,
  momentAt,
  type PageMap,
  regionsAt,
} from "./page-map.ts";
import { escapeHtml } from "./report-parts.ts";

/** Where a panel's slots lie, in pixels. */
export interface PanelView {
  readonly x: number;
  readonly y: number;
  readonly width: number;
  readonly rowHeight: number;
  readonly slotsPerRow: number;
  /** Slots that the panel draws, from the slot `origin` on. */
  readonly slots: number;
  readonly origin: number;
}

const WIDTH = 900;
const MARGIN = 16;
const GAP = 22;
/** Above the rows: the map's heading, a panel's title and its lines of figures. */
const TOP = 128;
const LEGEND_ROW = 22;
/** Rows of a panel at most, if a power of two of slots a row can do it. */
const MOST_ROWS = 64;
const LEAST_SLOTS_PER_ROW = 32;
const HEIGHT = 400;
const ROW = { least: 7, most: 20 };

/** The geometry of a map: the same for all its panels. */
export function panelViews(map: PageMap): PanelView[] {
  let slotsPerRow = LEAST_SLOTS_PER_ROW;
  while (map.slots / slotsPerRow > MOST_ROWS) slotsPerRow *= 2;
  const rows = Math.ceil(map.slots / slotsPerRow);
  const rowHeight = Math.max(ROW.least, Math.min(ROW.most, Math.floor(HEIGHT / rows)));
  const count = map.panels.length;
  const width = (WIDTH - 2 * MARGIN - (count - 1) * GAP) / count;
  return map.panels.map(({ origin }, i) => ({
    x: MARGIN + i * (width + GAP),
    y: TOP,
    width,
    rowHeight,
    slotsPerRow,
    slots: map.slots,
    origin,
  }));
}

/**
 * The slots of one panel as SVG elements. A sequence has a colour of its own all the time; what it holds and does not use is pale and
 * striped; what several hold is grey with dots and their number; a hole that nobody who waits can use is crossed.
 *
 * The report's script has this function as it stands here, by its text: it may use nothing but its arguments.
 */
export function drawSlots(
  view: PanelView,
  regions: readonly MapRegion[],
  owners: readonly (readonly number[])[],
  blocked: boolean,
): string {
  const { slotsPerRow, rowHeight } = view;
  const scale = view.width / slotsPerRow;
  const round = (value: number) => Math.round(100 * value) / 100;
  const rect = (slot: number, slots: number, attributes: string) =>
    `<rect x="${round(view.x + (slot % slotsPerRow) * scale)}" y="${view.y + Math.floor(slot / slotsPerRow) * rowHeight}" ` +
    `width="${round(slots * scale)}" height="${rowHeight - 1}" ${attributes}/>`;
  /** A stretch of slots is a rectangle in each row that it touches. */
  const rows = (begin: number, end: number, attributes: string) => {
    let out = "";
    for (let slot = begin; slot < end; ) {
      const rowEnd = Math.min(end, (Math.floor(slot / slotsPerRow) + 1) * slotsPerRow);
      out += rect(slot, rowEnd - slot, attributes);
      slot = rowEnd;
    }
    return out;
  };
  /** Hues a golden angle apart, in three shades, so that neighbours in age differ most. */
  const colour = (owner: number) =>
    `hsl(${Math.round((owner * 137.508) % 360)},${[62, 55, 70][owner % 3]}%,${[46, 64, 36][owner % 3]}%)`;
  const label = (slot: number, slots: number, text: string, kind: string) => {
    const inRow = Math.min(slots, slotsPerRow - (slot % slotsPerRow));
    if (rowHeight < 11 || inRow * scale < 7 * text.length + 5) return "";
    const x = round(view.x + (slot % slotsPerRow) * scale + 3);
    const y = view.y + Math.floor(slot / slotsPerRow) * rowHeight + rowHeight / 2 + 3;
    return `<text x="${x}" y="${y}" class="${kind}">${text}</text>`;
  };
  let out = rows(0, view.slots, 'class="pm-none"');
  for (const { slot: at, slots, used, ref } of regions) {
    const slot = at - view.origin;
    const end = slot + slots;
    if (ref <= 0) {
      out += rows(slot, end, 'class="pm-free"');
      if (ref < 0) out += rows(slot, end, 'class="pm-cached"');
      if (blocked) out += rows(slot, end, 'class="pm-external"');
      continue;
    }
    const [owner, ...others] = owners[ref - 1]!;
    if (others.length > 0) {
      out += rows(slot, slot + used, 'class="pm-shared"') + rows(slot, slot + used, 'class="pm-dots"');
    } else out += rows(slot, slot + used, `fill="${colour(owner!)}"`);
    if (used < slots) {
      const pale =
        others.length > 0
          ? 'class="pm-shared" fill-opacity=".3"'
          : `fill="${colour(owner!)}" fill-opacity=".28"`;
      out += rows(slot + used, end, pale) + rows(slot + used, end, 'class="pm-unused"');
    }
    out += rows(slot, end, 'class="pm-edge"');
    if (others.length > 0) out += label(slot, used, `×${others.length + 1}`, "pm-count");
    else
      out += label(slot, Math.max(used, 1), String(owner), owner! % 3 === 1 ? "pm-on-light" : "pm-on-dark");
  }
  return out;
}

/** Lines of figures above a panel. The report's script has it by its text, as `drawSlots`. */
export function momentText(moment: MapMoment, slots: number): [string, string, string] {
  const percent = (part: number, whole: number) => (whole === 0 ? 0 : (100 * part) / whole).toFixed(1);
  return [
    `${moment.running} run, ${moment.waiting} wait${moment.blocked ? ": the next does not fit" : ""}`,
    `${percent(moment.used, slots)} % of the budget holds tokens`,
    `${percent(moment.reserved - moment.used, moment.reserved)} % of the reserved is waste`,
  ];
}

/** The whole picture at a step: what stands in the file, and in the report before its script runs. */
export function pageMapSvg(map: PageMap, style: string, step: number = fullestStep(map)): string {
  const views = panelViews(map);
  const { y, rowHeight, slotsPerRow } = views[0]!;
  const bottom = y + Math.ceil(map.slots / slotsPerRow) * rowHeight;
  const height = bottom + 30 + 2 * LEGEND_ROW;
  const panels = map.panels.map((panel, i) => panelSvg(panel, views[i]!, step, i));
  const label = `${map.title}: ${map.panels.map((p) => p.title).join(", ")}; each rectangle is a piece of memory, coloured by its sequence.`;
  return [
    `<svg role="img" aria-label="${escapeHtml(label)}" xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${height}" viewBox="0 0 ${WIDTH} ${height}" class="pm" id="page-map-${escapeHtml(map.id)}">`,
    `<style>${style}</style>`,
    PATTERNS,
    `<rect width="${WIDTH}" height="${height}" class="pm-paper"/>`,
    `<text x="${MARGIN}" y="30" class="pm-heading">${escapeHtml(map.title)}</text>`,
    `<text x="${MARGIN}" y="50" class="pm-small" data-part="step">${stepText(step, stepsOf(map))}</text>`,
    ...panels,
    legend(bottom + 26, slotsPerRow),
    "</svg>",
  ].join("\n");
}

/** Steps of the longest run: the last moment of a panel is after its last step. */
export function stepsOf({ panels }: PageMap): number {
  return Math.max(...panels.flatMap((p) => p.moments.map((m) => m.step)));
}

/** The report's script has it by its text, as `drawSlots`. */
export function stepText(step: number, steps: number): string {
  return step < steps ? `step ${step + 1} of ${steps}` : "all done";
}

function panelSvg(panel: MapPanel, view: PanelView, step: number, index: number): string {
  const at = momentAt(panel.moments, step);
  const moment = panel.moments[at]!;
  const lines = momentText(moment, view.slots).map(
    (line, i) =>
      `<text x="${view.x}" y="${view.y - 37 + 14 * i}" class="pm-small" data-part="line-${index}-${i}">${escapeHtml(line)}</text>`,
  );
  return [
    `<text x="${view.x}" y="${view.y - 53}" class="pm-title">${escapeHtml(panel.title)}</text>`,
    ...lines,
    `<g data-part="slots-${index}">${drawSlots(view, regionsAt(panel, at), panel.owners, moment.blocked)}</g>`,
  ].join("\n");
}

const PATTERNS = `<defs>
<pattern id="pm-stripes" width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><rect width="1.4" height="5" class="pm-mark"/></pattern>
<pattern id="pm-dot" width="6" height="6" patternUnits="userSpaceOnUse"><circle cx="3" cy="3" r="1.3" class="pm-dot"/></pattern>
<pattern id="pm-cross" width="7" height="7" patternUnits="userSpaceOnUse"><path d="M0 0L7 7M7 0L0 7" class="pm-cross"/></pattern>
<pattern id="pm-line" width="6" height="4" patternUnits="userSpaceOnUse"><rect width="6" height="1" class="pm-mark"/></pattern>
</defs>`;

function legend(y: number, slotsPerRow: number): string {
  const entries: [marks: string[], text: string, width: number][] = [
    [['fill="hsl(138,62%,46%)"'], "tokens of a sequence (its colour and number)", 300],
    [['fill="hsl(138,62%,46%)" fill-opacity=".28"', 'class="pm-unused"'], "reserved, not used", 150],
    [['class="pm-shared"', 'class="pm-dots"'], "shared by several (×n)", 180],
    [['class="pm-free"'], "free", 70],
    [['class="pm-free"', 'class="pm-external"'], "free, but the next does not fit: external hole", 300],
    [['class="pm-free"', 'class="pm-cached"'], "free, the prefix cache knows it", 220],
    [['class="pm-none"'], "not handed out (null page, remainder)", 260],
  ];
  let x = MARGIN;
  let top = y;
  let out = "";
  for (const [marks, text, width] of entries) {
    if (x + width > WIDTH - MARGIN) [x, top] = [MARGIN, top + LEGEND_ROW];
    out += marks.map((m) => `<rect x="${x}" y="${top - 10}" width="22" height="12" ${m}/>`).join("");
    out += `<rect x="${x}" y="${top - 10}" width="22" height="12" class="pm-edge"/><text x="${x + 28}" y="${top}" class="pm-small">${text}</text>`;
    x += width;
  }
  return `<g>${out}</g><text x="${WIDTH - MARGIN}" y="50" text-anchor="end" class="pm-small">a row is ${slotsPerRow} slots</text>`;
}

/** The page map in the report: the still picture, and a script that plays it step by step with the functions that drew it. */
import { applyChanges, fullestStep, momentAt, type PageMap } from "./page-map.ts";
import { drawSlots, momentText, pageMapSvg, panelViews, stepsOf, stepText } from "./page-map-draw.ts";
import { REPORT_STYLE } from "./page-map-style.ts";
import { embedJson, escapeHtml } from "./report-parts.ts";

/** One map with its controls, which stay hidden without scripts and on paper. */
export function playerHtml(map: PageMap): string {
  const id = escapeHtml(map.id);
  return `<figure class="page-map" data-map="${id}"><div class="frame">${pageMapSvg(map, "")}</div>
<div class="player" hidden>
<button type="button" data-do="play" aria-pressed="false">Play</button>
<button type="button" data-do="back" aria-label="one moment back">&#8249;</button>
<input type="range" min="0" max="${Math.ceil(stepsOf(map) / map.every)}" value="${Math.floor(fullestStep(map) / map.every)}" aria-label="moment of ${id}">
<button type="button" data-do="on" aria-label="one moment on">&#8250;</button>
<output></output>
</div>
<figcaption>All layouts at the same step. Play, or use the slider: arrow keys, Home, End; the space bar plays on the button. Hatched: reserved and not used. Crossed: free, but the next request does not fit.</figcaption></figure>
<script type="application/json" id="page-map-data-${id}">${embedJson({ map, views: panelViews(map) })}</script>`;
}

/** The rules of the report of capacity: its wide tables, the maps, the controls. */
export const PLAYER_STYLE = `${REPORT_STYLE}
.scroll th, .scroll td { padding: .3rem .45rem; font-size: .85rem; }
.page-map svg { display: block; min-width: 900px; }
.player { display: flex; gap: .6rem; align-items: center; padding: .6rem 0; }
.player[hidden] { display: none; }
.player input { flex: 1; }
.player button { font: inherit; padding: .15rem .8rem; color: var(--text); background: var(--soft); border: 1px solid var(--line);
  border-radius: 4px; }
.player button:focus-visible, .player input:focus-visible { outline: 2px solid var(--text); outline-offset: 2px; }
.player output { min-width: 9rem; font-variant-numeric: tabular-nums; color: var(--muted); }
@media print { .player { display: none; } }
`;

/** Milliseconds: a whole play takes about PLAY, a moment of it from FASTEST to SLOWEST. */
const PLAY = 20_000;
const FASTEST = 60;
const SLOWEST = 400;

/**
 * Plays every map of the page. The pictures and the decoding are the functions of this package by their own texts, so the still
 * picture and the played one cannot differ.
 */
export const PLAYER_SCRIPT = `
(() => {
const applyChanges = ${applyChanges};
const momentAt = ${momentAt};
const drawSlots = ${drawSlots};
const momentText = ${momentText};
const stepText = ${stepText};
for (const figure of document.querySelectorAll(".page-map")) {
  const { map, views } = JSON.parse(document.getElementById("page-map-data-" + figure.dataset.map).textContent);
  const part = (name) => figure.querySelector('[data-part="' + name + '"]');
  const slider = figure.querySelector("input");
  const play = figure.querySelector('[data-do="play"]');
  const states = map.panels.map(() => ({ index: -1, regions: [] }));
  const steps = (${stepsOf})(map);
  let timer;
  const show = () => {
    const step = Math.min(Number(slider.value) * map.every, steps);
    map.panels.forEach((panel, i) => {
      const index = momentAt(panel.moments, step);
      const state = states[i];
      if (index === state.index) return;
      if (index < state.index) Object.assign(state, { index: -1, regions: [] });
      while (state.index < index) state.regions = applyChanges(state.regions, panel.changes[++state.index]);
      const moment = panel.moments[index];
      part("slots-" + i).innerHTML = drawSlots(views[i], state.regions, panel.owners, moment.blocked);
      momentText(moment, map.slots).forEach((line, j) => { part("line-" + i + "-" + j).textContent = line; });
    });
    part("step").textContent = figure.querySelector("output").textContent = stepText(step, steps);
  };
  const stop = () => {
    clearInterval(timer);
    timer = undefined;
    play.textContent = "Play";
    play.setAttribute("aria-pressed", "false");
  };
  const move = (moments) => {
    slider.value = Number(slider.value) + moments;
    show();
  };
  play.addEventListener("click", () => {
    if (timer !== undefined) return stop();
    if (slider.value === slider.max) slider.value = 0;
    play.textContent = "Pause";
    play.setAttribute("aria-pressed", "true");
    timer = setInterval(() => {
      move(1);
      if (slider.value === slider.max) stop();
    }, Math.min(${SLOWEST}, Math.max(${FASTEST}, ${PLAY} / slider.max)));
  });
  figure.querySelector('[data-do="back"]').addEventListener("click", () => { stop(); move(-1); });
  figure.querySelector('[data-do="on"]').addEventListener("click", () => { stop(); move(1); });
  slider.addEventListener("input", () => { stop(); show(); });
  figure.querySelector(".player").hidden = false;
  show();
}
})();
`;

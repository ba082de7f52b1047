/** The colours of the page map that are not a sequence's, in both appearances. */
import { DARK, FONTS, LIGHT, type Look } from "./chart-parts.ts";

/** Rules for one appearance. */
function rules(look: Look): string {
  const dark = look.name === "dark";
  return `
.pm-paper{fill:${look.background}}
.pm text{font-family:${FONTS};fill:${look.text}}
.pm .pm-heading{font-size:17px;font-weight:600}
.pm .pm-title{font-size:13px;font-weight:600}
.pm .pm-small{font-size:11.5px;fill:${look.muted}}
.pm .pm-on-dark{font-size:10px;fill:#fff}
.pm .pm-on-light{font-size:10px;fill:#111}
.pm .pm-count{font-size:10px;font-weight:600;fill:#111;stroke:${dark ? "#aeb7c1" : "#b4bcc5"};stroke-width:5;paint-order:stroke}
.pm-none{fill:${dark ? "#0a0c0e" : "#c3c9cf"}}
.pm-free{fill:${dark ? "#262c33" : "#f1f3f5"};stroke:${dark ? "#4a535d" : "#c9d0d7"};stroke-width:.6}
.pm-edge{fill:none;stroke:${look.background};stroke-width:.8}
.pm-shared{fill:${dark ? "#aeb7c1" : "#b4bcc5"}}
.pm-dot{fill:#14181c}
.pm-dots{fill:url(#pm-dot)}
.pm-mark{fill:${dark ? "#dfe5eb" : "#3b434b"};fill-opacity:.55}
.pm-unused{fill:url(#pm-stripes)}
.pm-cached{fill:url(#pm-line)}
.pm-cross{stroke:${dark ? "#ff6b6b" : "#c62828"};stroke-width:1;fill:none}
.pm-external{fill:url(#pm-cross)}`;
}

/** For a file of its own: as the charts in the folder, light. */
export const FILE_STYLE: string = rules(LIGHT);

/** For the report: in the reader's appearance, and on paper in the light one. */
export const REPORT_STYLE = `${rules(LIGHT)}
@media screen and (prefers-color-scheme: dark) {${rules(DARK)}
}`;

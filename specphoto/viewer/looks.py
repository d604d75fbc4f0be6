"""Styles of the viewer, and what the browser does by itself: dark colours, downloads."""

from __future__ import annotations

__all__ = ["CANVAS", "CSS", "DARK", "DOWNLOAD", "FOLLOW", "TEMPLATE", "WRAP"]

# Side by side where there is room, else below each other.
WRAP = """
:host { flex-wrap: wrap; gap: 0.5rem; }
"""

# The plot that has the keyboard is seen to have it.
CANVAS = """
.bk-Canvas { --outline-style: solid; --outline-width: 2px;
  --highlight-color: light-dark(#0072b2, #56b4e9); }
"""

CSS = """
:host { color: inherit; font-size: 14px; }
.bk-input { background-color: Field; color: FieldText; border-color: GrayText; }
.bk-btn-default { background-color: ButtonFace; color: ButtonText; border-color: GrayText; }
.noUi-target { background-color: ButtonFace; border-color: GrayText; box-shadow: none; }
.noUi-connects { background-color: transparent; }
a { color: LinkText; }
:focus-visible { outline: 3px solid light-dark(#0072b2, #56b4e9) !important; outline-offset: 2px; }
.bk-tool-overflow { color: inherit !important; }
"""

# Canvases know nothing of style sheets: their colours are set here, and again when those of the
# page change.
DARK = """
const page = document.body, scheme = matchMedia("(prefers-color-scheme: dark)");
function paint() {
  const lab = page.dataset.jpThemeLight;
  const dark = lab === undefined ? scheme.matches : lab === "false";
  if (dark === Boolean(layout.dark)) return;
  layout.dark = dark;
  layout.styles = { "color-scheme": dark ? "dark" : "light" };
  const [ground, text, line, grid] = dark ? ["#15171a", "#ececec", "#6a6e75", "#33373d"]
    : ["#ffffff", "#444444", "#8a8a8a", "#e5e5e5"];
  for (const plot of plots) {
    plot.setv({ background_fill_color: ground, border_fill_color: ground,
      outline_line_color: line });
    if (plot.title) plot.title.text_color = text;
    for (const axis of [...plot.left, ...plot.below]) {
      axis.setv({ axis_label_text_color: text, major_label_text_color: text,
        axis_line_color: line, major_tick_line_color: line, minor_tick_line_color: line });
    }
    for (const part of plot.center) {
      if (part.grid_line_color !== undefined) part.grid_line_color = grid;
      if (part.label_text_color !== undefined && part.background_fill_color !== undefined) {
        part.setv({ background_fill_color: ground, label_text_color: text });
      }
    }
  }
  bar.setv({ background_fill_color: ground, major_label_text_color: text });
  unit.text_color = text;
}
if (layout.painted) return;
layout.painted = true;
paint();
scheme.addEventListener("change", paint);
new MutationObserver(paint).observe(page, { attributeFilter: ["data-jp-theme-light"] });
"""

# The pixel under the pointer is asked for, one at a time: those passed before the answer (empty
# data) are left out.
FOLLOW = """
if (cb_obj.event_name === "mousemove") pointer.wanted = [cb_obj.x, cb_obj.y].map(Math.round);
const { wanted, asked, data } = pointer;
if (!follow.active.length || data.x.length || !wanted || String(wanted) === String(asked)) return;
pointer.asked = wanted;
pointer.data = { x: [wanted[0]], y: [wanted[1]] };
"""

DOWNLOAD = """
const bytes = Uint8Array.from(atob(file.data.base64[0]), (c) => c.charCodeAt(0));
const link = document.createElement("a");
link.href = URL.createObjectURL(new Blob([bytes], { type: file.data.mime[0] }));
link.download = file.data.name[0];
link.click();
URL.revokeObjectURL(link.href);
"""

TEMPLATE = """
{% block preamble %}
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<style>
:root { color-scheme: light dark; }
html { background: #fff; color: #1a1a1a; font: 16px/1.5 system-ui, sans-serif; }
main { margin: 0 auto; padding: .75rem; max-width: 110rem; }
h1 { margin: 0 0 .25rem; font-size: 1.3rem; }
main > p { margin: 0 0 .5rem; }
@media (prefers-color-scheme: dark) { html { background: #15171a; color: #ececec; } }
</style>
{% endblock %}
{% block contents %}
<main>
<h1>{{ title | e }}</h1>
<p>Click on a pixel, drag an aperture, type x and y, or follow the pointer.</p>
{{ embed(roots[0]) }}
</main>
{% endblock %}
"""

"""The style sheet of every page and figure: one set of colours, for light, dark and paper.

Colours are custom properties, so that a figure inside a page follows the page. Text and lines keep
a contrast of at least 3 to 1 with what is behind them, in light and in dark.
"""

from typing import Final

_LIGHT: Final = """
  --page: #fcfcfa; --card: #ffffff; --ink: #1d2327; --soft: #59636b; --rule: #d9dde0;
  --code: #f3f4f2; --mark: #eaf3fb;
  --blue: #0067a8; --orange: #b84a00; --green: #007a5a; --grey: #6b7680; --dot: #7f8c96;
  --purple: #7a3fa8; --pink: #b8256e; --gold: #846800;
  --added: #e3f4ea; --removed: #fbe9e2;
"""

COLOURS: Final = f"""
:root {{
  color-scheme: light dark;{_LIGHT}}}
@media (prefers-color-scheme: dark) {{
  :root {{
  --page: #14181b; --card: #1b2024; --ink: #e6e9eb; --soft: #a3adb5; --rule: #363e44;
  --code: #22282d; --mark: #1d3140;
  --blue: #62b5f0; --orange: #f0955a; --green: #4cc79e; --grey: #98a3ab; --dot: #8d99a2;
  --purple: #c49bf0; --pink: #f088bb; --gold: #d8b645;
  --added: #173527; --removed: #43261b;
  }}
}}
@media print {{
  :root {{
  color-scheme: light;{_LIGHT}
  --page: #fff; --card: #fff; --ink: #000; --soft: #444; --rule: #ccc; --code: #fff;
  --mark: #fff; --grey: #666; --dot: #777; --added: #fff; --removed: #fff;
  }}
}}
"""
"""The colours, by name."""

FIGURES: Final = """
svg text { fill: var(--soft); font: 12px system-ui, sans-serif; }
.grid { stroke: var(--rule); stroke-width: 1; fill: none; }
.axis { stroke: var(--grey); stroke-width: 1; fill: none; }
.line { fill: none; stroke-width: 2.2; stroke-linejoin: round; }
.dots { fill: none; stroke-linecap: round; stroke-width: 4; }
.marker { stroke-width: 1.8; }
"""
"""Style rules of every figure besides the colours."""

PAGE: Final = """
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 2rem 1rem 4rem; max-width: 60rem; background: var(--page);
  color: var(--ink); font: 1rem/1.55 system-ui, sans-serif; overflow-wrap: break-word;
}
h1 { margin: 0 0 .2rem; font-size: 1.7rem; line-height: 1.25; }
h2 { margin: 2.8rem 0 .6rem; font-size: 1.25rem; }
h3 { margin: 1.4rem 0 .4rem; font-size: 1rem; }
p { margin: .5rem 0; max-width: 46rem; }
.soft, figcaption { color: var(--soft); font-size: .9rem; }
.outcome {
  margin: 1.2rem 0; padding: .9rem 1.1rem; border-left: 4px solid var(--blue);
  background: var(--mark); font-size: 1.1rem; max-width: none;
}
code, pre, .mono { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
code { font-size: .92em; }
pre {
  margin: .5rem 0; padding: .8rem 1rem; background: var(--code);
  border: 1px solid var(--rule); border-radius: 6px; font-size: .86rem; line-height: 1.5;
  white-space: pre-wrap; overflow-wrap: anywhere;
}
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .92rem; min-width: 24rem; }
th, td { padding: .35rem .9rem .35rem 0; text-align: left; vertical-align: top; }
th { border-bottom: 2px solid var(--rule); font-weight: 600; color: var(--soft); }
td { border-bottom: 1px solid var(--rule); }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
tr.total td { font-weight: 600; border-bottom: 0; }
.badge {
  margin-left: .5em; padding: 0 .5em; border: 1px solid currentColor; border-radius: 1em;
  font-size: .78rem; font-weight: 400; white-space: nowrap;
}
details { margin: .5rem 0; }
summary { cursor: pointer; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1.2rem; margin: .6rem 0; }
dt { color: var(--soft); }
dd { margin: 0; }
figure { margin: 1rem 0; }
figure svg {
  display: block; width: 100%; min-width: 32rem; height: auto; background: var(--card);
}
.legend {
  display: flex; flex-wrap: wrap; gap: .2rem 1.4rem; margin: 0 0 .5rem; padding: 0;
  list-style: none; font-size: .9rem;
}
.legend li { display: flex; align-items: center; gap: .5em; }
figure svg.swatch {
  flex: none; width: 28px; min-width: 0; height: 12px; background: none; overflow: visible;
}
@media (max-width: 36rem) {
  body { padding-top: 1rem; }
  dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: .5rem; }
}
@media print {
  body { max-width: none; padding: 0; font-size: 10pt; }
  .scroll { overflow: visible; }
  table { font-size: .85rem; min-width: 0; }
  figure svg { min-width: 0; }
  figure, pre, tr { break-inside: avoid; }
  h2 { break-after: avoid; }
  details::details-content { content-visibility: visible; block-size: auto; }
}
"""
"""Style rules of text, tables, lists, and of figures among them."""

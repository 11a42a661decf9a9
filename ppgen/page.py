"""The HTML around a report: nothing runs in it, nothing is fetched."""

# The policy makes the page's promise binding: nothing runs, nothing is fetched.
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""  # noqa: E501

STYLE = """
:root { color-scheme: light dark; --ink: #24272d; --soft: #636973; --line: #e2e4e9;
  --page: #fbfbfa; --card: #ffffff; --accent: #0b5f98; --code: #f4f5f6; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e6ea; --soft: #a0a6b0; --line: #33373e; --page: #16181c; --card: #1e2126;
    --accent: #6db7e8; --code: #1e2126; }
  .chart img { filter: invert(0.88) hue-rotate(180deg); }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", sans-serif; }
main { max-width: 64rem; margin: 0 auto; padding: 3rem 1.5rem 5rem; }
h1 { font: 600 2.5rem/1.15 "Iowan Old Style", Palatino, "Palatino Linotype", Georgia, serif;
  margin: 0; overflow-wrap: anywhere; }
h1 .on { font-style: italic; font-weight: 400; color: var(--soft); }
h2 { font: 600 1.4rem/1.2 "Iowan Old Style", Palatino, "Palatino Linotype", Georgia, serif;
  margin: 3rem 0 1rem; padding-bottom: .4rem; border-bottom: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.5rem 0 .5rem; }
.about, .made, .note, figcaption, caption { color: var(--soft); font-size: .875rem; }
.about { margin: .5rem 0 0; overflow-wrap: anywhere; }
.made { margin: 1rem 0 0; overflow-wrap: anywhere; }
.cards { display: flex; flex-wrap: wrap; gap: .75rem; margin: 2rem 0 0; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: .6rem;
  padding: .85rem 1rem; min-width: 0; flex: 1 1 10rem; }
.card dt { color: var(--soft); font-size: .8125rem; }
.card dd { margin: .15rem 0 0; font-size: 1.3rem; font-weight: 600; line-height: 1.3;
  font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.card dd small { font-size: .8125rem; font-weight: 400; color: var(--soft);
  white-space: nowrap; }
.card p { margin: .25rem 0 0; font-size: .8125rem; color: var(--soft); line-height: 1.4; }
.card.wide { flex-basis: 22rem; }
.card.wide dd { font-size: 1.75rem; }
.card.wide:first-child { border-left: 4px solid var(--accent); }
figure { margin: 0 0 1rem; }
figure img { display: block; max-width: 100%; height: auto; border-radius: .3rem; }
figcaption { margin-top: .5rem; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(22rem, 100%), 1fr));
  gap: 1.5rem; align-items: start; }
.pair img { width: 100%; }
.many { display: grid; grid-template-columns: repeat(auto-fill, minmax(10rem, 1fr)); gap: .75rem; }
.several { display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: 1rem; }
.several img { width: 100%; }
.many figcaption, .several figcaption { margin-top: .2rem; text-align: center; }
.side { display: flex; flex-wrap: wrap; gap: 1.5rem 3rem; align-items: flex-start; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: .4rem; }
th, td { padding: .28rem .9rem .28rem 0; border-bottom: 1px solid var(--line);
  overflow-wrap: anywhere; }
td, thead th:not(:first-child) { text-align: right; }
th { text-align: left; font-weight: 400; }
thead th { color: var(--soft); }
pre { background: var(--code); border: 1px solid var(--line); border-radius: .5rem; margin: 0;
  padding: 1rem 1.2rem; font: .8125rem/1.5 ui-monospace, "SF Mono", Menlo, Consolas, monospace;
  white-space: pre-wrap; overflow-wrap: anywhere; }
@media print {
  :root { --ink: #000; --soft: #444; --line: #ccc; --page: #fff; --card: #fff; --accent: #0b5f98;
    --code: #fff; }
  .chart img { filter: none; }
  main { max-width: none; padding: 0; }
  body { font-size: 11pt; }
  figure, table, .card, .cards { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
}
"""

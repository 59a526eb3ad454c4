"""Self-contained HTML pages: they load nothing from anywhere, which a content policy enforces.

Text from models and datasets is untrusted: it goes through `escaped`, always.
"""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Iterable
from typing import Any

from rlt.text import printable

_STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1c1c1c; --pale: #666; --line: #ddd; --block: #f5f5f3;
 --good: #1f5fa8; --poor: #c2571a; --bad: #b00000 }
@media (prefers-color-scheme: dark) {
 :root { --paper: #17191c; --ink: #e4e2dd; --pale: #a3a09a; --line: #3d4147; --block: #23262b;
  --good: #6ea6e4; --poor: #e58c58; --bad: #ff8078 }
 figure img { filter: invert(0.9) hue-rotate(180deg) } }
body { font: 15px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 2em auto;
 padding: 0 1em; max-width: 1180px }
h1 { margin-bottom: 0; overflow-wrap: anywhere }
h2 { margin-top: 1.8em; border-bottom: 1px solid var(--line) }
.status { color: var(--pale) } .failed, .interrupted { color: var(--bad) }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(330px, 100%), 1fr)); gap: 14px }
figure { margin: 0 } figure img { width: 100% } figcaption { color: var(--pale); font-size: 12px }
table { border-collapse: collapse; display: block; max-width: 100%; overflow-x: auto }
td, th { text-align: left; padding: 2px 14px 2px 0 }
td { vertical-align: top }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
pre, .named td { overflow-wrap: anywhere } .named td:first-child { min-width: 8em }
pre { background: var(--block); padding: 10px; white-space: pre-wrap; font-size: 13px; margin: 4px 0 }
.sample { border-left: 3px solid var(--good); padding-left: 12px; margin: 14px 0; unicode-bidi: isolate }
.worst { border-color: var(--poor) } .label { color: var(--pale); font-size: 12px }
"""


def html_page(title: str, parts: Iterable[str], style: str = "", script: str = "") -> str:
    """Return a page with the parts (HTML) as its body; `style` is CSS beside that of all pages.

    `script` is the only one that a browser runs there: the policy names it by its hash.
    """
    body = "\n".join(part for part in parts if part)
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    if script:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        policy += f"; script-src 'sha256-{digest}'"
        body += f"\n<script>{script}</script>"
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{escaped(title)}</title>
<meta http-equiv="Content-Security-Policy"
 content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>{_STYLE}{style}</style></head><body>
{body}
</body></html>
"""


def figure(svg: str, name: str, caption: str) -> str:
    """Return an inline image with its caption."""
    image = base64.b64encode(svg.encode()).decode()
    return (
        f'<figure><img alt="{escaped(name)}" src="data:image/svg+xml;base64,{image}">'
        f"<figcaption>{escaped(caption)}</figcaption></figure>"
    )


def escaped(value: Any) -> str:
    """Return a value escaped for HTML, with control characters shown by name."""
    return html.escape(printable(str(value)), quote=True)

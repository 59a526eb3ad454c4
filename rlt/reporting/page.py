"""Self-contained HTML pages: they load nothing from anywhere, which a content policy enforces.

Text from models and datasets is untrusted: it goes through `escaped`, always.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable
from typing import Any

from rlt.reporting.console import printable

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #1c1c1c; margin: 2em auto; padding: 0 1em;
 max-width: 1180px }
h1 { margin-bottom: 0 } h2 { margin-top: 1.8em; border-bottom: 1px solid #ddd }
.status { color: #555 } .failed, .interrupted { color: #b00000 }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(330px, 1fr)); gap: 14px }
figure { margin: 0 } figure img { width: 100% } figcaption { color: #666; font-size: 12px }
table { border-collapse: collapse } td, th { text-align: left; padding: 2px 14px 2px 0 }
td { vertical-align: top }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums }
pre, td.path { overflow-wrap: anywhere }
pre { background: #f5f5f3; padding: 10px; white-space: pre-wrap; font-size: 13px; margin: 4px 0 }
.sample { border-left: 3px solid #1f5fa8; padding-left: 12px; margin: 14px 0; unicode-bidi: isolate }
.worst { border-color: #c2571a } .label { color: #666; font-size: 12px }
"""


def html_page(title: str, parts: Iterable[str], style: str = "") -> str:
    """Return a page with the parts (HTML) as its body; `style` is CSS beside that of all pages."""
    body = "\n".join(part for part in parts if part)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{escaped(title)}</title>
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
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

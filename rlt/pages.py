"""Self-contained HTML pages from the templates in rlt/templates: they load nothing from anywhere.

Text from models and datasets is untrusted. Whatever a template shows is escaped, and its control characters
are shown by name; that is the environment's doing, so no template can forget it.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Undefined

from rlt.text import is_right, printable


@dataclass(frozen=True)
class Figure:
    """An inline image with its caption."""

    svg: str
    name: str
    caption: str

    @property
    def source(self) -> str:
        """The image as a data address."""
        return f"data:image/svg+xml;base64,{base64.b64encode(self.svg.encode()).decode()}"


@dataclass(frozen=True)
class Script:
    """The only script that a browser runs on a page: the page's policy names it by its hash."""

    text: str
    digest: str


def script(name: str) -> Script:
    """Return a script of rlt/templates."""
    text = _environment().get_template(name).render()
    return Script(text, base64.b64encode(hashlib.sha256(text.encode()).digest()).decode())


def render(template: str, **values: Any) -> str:
    """Return a page; a name that the template reads and nobody gives is an error."""
    return _environment().get_template(template).render(**values)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("rlt"),
        autoescape=True,
        finalize=_shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["is_right"] = is_right
    return environment


def _shown(value: Any) -> Any:
    """Return a value as text without control characters; what a macro has made is left as it is."""
    return value if hasattr(value, "__html__") or isinstance(value, Undefined) else printable(str(value))

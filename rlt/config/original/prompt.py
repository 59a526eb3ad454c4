"""The teacher's system prompt of the original release, read from a checkout of it, byte for byte.

The text is not part of this project. The checkout's Python file is parsed, never run: only a text that is
written out there can be read, and only the known one is taken.
"""

from __future__ import annotations

import ast
import hashlib
from pathlib import Path

from rlt.errors import ConfigError

REPOSITORY = "https://github.com/SakanaAI/RLT"
COMMIT = "86a3f5c"
PROMPT_SHA256 = "2a6900e8cd23891f5b34a68c8b386045cd42c6c17ce0caa13f65005da0a49484"
"""Of the constant's 1,284 characters in UTF-8; its last one is a space."""
_FILE = Path("custom_data") / "teacher_data.py"
_CONSTANT = "STRATOS_STYLE_TEACHER_PROMPT"


def prompt_file(folder: str) -> Path:
    """Return the file of a checkout that holds the prompt."""
    return Path(folder) / _FILE


def read_teacher_prompt(folder: str, sha256: str = PROMPT_SHA256) -> str:
    """Return the prompt of the checkout in a folder.

    Raises ConfigError, with the commands that make a checkout, where it is not there or is another text.
    """
    path = prompt_file(folder)
    try:
        source = path.read_bytes().decode()
    except OSError:
        raise _no_checkout(folder, f"there is no readable {_FILE}") from None
    except UnicodeDecodeError:
        raise _no_checkout(folder, f"{_FILE} is not UTF-8 text") from None
    text = _constant(source)
    if text is None:
        raise _no_checkout(folder, f"{_FILE} writes out no text {_CONSTANT}")
    digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
    if digest != sha256:
        raise _no_checkout(
            folder, f"{_CONSTANT} has the sha256 {digest[:12]}…, and the published one {sha256[:12]}…"
        )
    return text


def _no_checkout(folder: str, why: str) -> ConfigError:
    place = "DIR" if not folder or Path(folder).exists() else folder
    return ConfigError(
        f"`layout.teacher_prompt=original:{folder}` needs a checkout of SakanaAI/RLT at {COMMIT}, but {why}: "
        f"run `git clone {REPOSITORY} {place} && git -C {place} checkout {COMMIT}` and give "
        f"original:{place}, or file:PATH."
    )


def _constant(source: str) -> str | None:
    """Return the text that a module assigns to the constant; None where it is computed, or missing."""
    try:
        body = ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    values = [
        node.value
        for node in body
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name) and target.id == _CONSTANT
    ]
    return _text(values[-1]) if values else None


def _text(node: ast.expr) -> str | None:
    """Return the text of an expression of written-out texts: alone, side by side, with `+`, or in str()."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = _text(node.left), _text(node.right)
        return None if left is None or right is None else left + right
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "str":
        return _text(node.args[0]) if len(node.args) == 1 and not node.keywords else None
    return None

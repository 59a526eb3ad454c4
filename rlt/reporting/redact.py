"""Taking secrets and private paths out of text that is written down or published.

Works on text alone and never reads a credential. A masked value shows as `***`.
"""

from __future__ import annotations

import re
from pathlib import Path

# `hub_token=x`, `{api_key: x}`, `--api-key x`, `[--api-key,x]`. The word ends right before the separator, so
# `max_tokens` and `stop_token_ids` stay; `eos_token` and its like name text, not credentials.
_NAMED = re.compile(
    r"(?<![A-Za-z0-9])(?<!eos_)(?<!pad_)(?<!bos_)(?<!unk_)"
    r"(?P<name>api[-_]?key|token|secret|password|passwd|credentials?)"
    r"(?P<separator>[\"']?\s*[=:,]\s*[\"']?|(?<=-key)\s+|(?<=-token)\s+)"
    r"(?!null\b|None\b)[^\s,\]}\"']+",
    re.IGNORECASE,
)
_SHAPED = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{16,}|sk-[A-Za-z0-9_-]{16,}|gh[a-z]_[A-Za-z0-9]{16,}|[0-9a-f]{40}(?=@))"
)
_IN_ADDRESS = re.compile(r"(://)[^/\s:@]+:[^/\s@]+(@)")
_HOME = re.compile(r"/(?:home|Users)/[^/\s\"',:]+|/root(?=[/\s\"',:]|$)")


def redact(text: str) -> str:
    """Return the text with what looks like a secret masked: by name, shape, or place in an address."""
    text = _IN_ADDRESS.sub(r"\1***\2", text)
    text = _SHAPED.sub("***", text)
    return _NAMED.sub(lambda m: f"{m['name']}{m['separator']}***", text)


def without_private_paths(text: str) -> str:
    """Return the text with the working directory written as `.` and home directories as `~`."""
    here, home = str(Path.cwd()), str(Path.home())
    if here != "/":
        text = re.sub(re.escape(here) + r"(?=[/\s\"',:]|$)", ".", text)
    if home != "/":
        text = re.sub(re.escape(home) + r"(?=[/\s\"',:]|$)", "~", text)
    return _HOME.sub("~", text)

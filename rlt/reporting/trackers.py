"""Which experiment tracker transformers should report to, and the environment it reads.

Nothing is imported from a tracker here and nothing is sent: a run without login must start like any other.
"""

from __future__ import annotations

import logging
import netrc
import os
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit

from rlt.errors import ConfigError

log = logging.getLogger(__name__)

_DISTRIBUTIONS = {
    "wandb": ("wandb",),
    "tensorboard": ("tensorboard", "tensorboardX"),
    "trackio": ("trackio",),
}


def resolve_report_to(
    report_to: str | None, project: str, output_dir: str | Path, is_main: bool = True
) -> list[str]:
    """Return the `report_to` of the trainer's arguments: one tracker, or none.

    Sets WANDB_PROJECT, WANDB_DIR, TENSORBOARD_LOGGING_DIR or TRACKIO_DIR for it: the config decides the
    project, a folder the user has set stays. wandb without login becomes no tracker, with one warning from
    the main process.
    """
    if report_to is None or report_to in ("none", "null"):
        return []
    if report_to not in _DISTRIBUTIONS:
        raise ConfigError(
            f"`report_to` must be one of {', '.join(_DISTRIBUTIONS)} or null, got {report_to!r}"
        )
    if not any(_installed(name) for name in _DISTRIBUTIONS[report_to]):
        raise ConfigError(
            f"`report_to={report_to}` needs {report_to}, which is not installed: pip install {report_to}, "
            "or report_to=null (metrics.jsonl is always written)"
        )
    output_dir = Path(output_dir).absolute()
    if report_to == "tensorboard":
        os.environ.setdefault("TENSORBOARD_LOGGING_DIR", str(output_dir / "tensorboard"))
    elif report_to == "trackio":
        os.environ.setdefault("TRACKIO_DIR", str(output_dir / "trackio"))
    else:
        return _resolve_wandb(project, output_dir, is_main)
    return [report_to]


def _resolve_wandb(project: str, output_dir: Path, is_main: bool) -> list[str]:
    mode = os.environ.get("WANDB_MODE", "").lower()
    if mode == "disabled":
        return []
    if mode not in ("offline", "dryrun") and not has_wandb_login():
        if is_main:
            log.warning(
                "report_to=wandb, but there is no wandb login: metrics go to metrics.jsonl only "
                "(run `wandb login`, or set WANDB_MODE=offline)"
            )
        return []
    os.environ["WANDB_PROJECT"] = project
    if "WANDB_DIR" not in os.environ:
        output_dir.mkdir(parents=True, exist_ok=True)  # wandb falls back to /tmp when the folder is missing
        os.environ["WANDB_DIR"] = str(output_dir)
    return ["wandb"]


def has_wandb_login() -> bool:
    """Return whether wandb would find credentials without asking: environment, identity file or netrc."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).netloc
    if named := os.environ.get("NETRC"):
        places = [Path(named).expanduser()]
    else:
        places = [Path("~/.netrc").expanduser(), Path("~/_netrc").expanduser()]
    for place in places:
        try:
            login = netrc.netrc(str(place)).authenticators(host)
        except (OSError, netrc.NetrcParseError):  # absent, unreadable or broken: no login there
            continue
        if login and login[2]:
            return True
    return False


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True

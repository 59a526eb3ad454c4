"""Configuration files as Hydra reads them, with the names of earlier versions turned into today's."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult
from omegaconf import OmegaConf

from rlt.config.old_words import with_new_names

SCHEME = "settings"


class SettingsSource(FileConfigSource):
    """Hydra's source of files, under a scheme of its own.

    Overrides `load_config`, which hands a file to Hydra as it is. After the composition it would be too late:
    a key that the schema does not have fails while Hydra merges, and which file wins is decided there.
    The base class is in a private module of Hydra 1.3; its documented base, ConfigSource, reads nothing yet.
    """

    @staticmethod
    def scheme() -> str:
        """Return the part of an address before `://`."""
        return SCHEME

    def load_config(self, config_path: str) -> ConfigResult:
        """Return a file's content under today's names."""
        result = super().load_config(config_path)
        content = cast(dict[Any, Any], OmegaConf.to_container(cast(Any, result.config), resolve=False))
        if isinstance(content, dict) and (renamed := with_new_names(content)) != content:
            result.config = OmegaConf.create(renamed)
        return result


def address(folder: Path) -> str:
    """Return a folder as an entry of hydra.searchpath that is read by this source."""
    Plugins.instance().register(SettingsSource)  # does nothing the second time
    return f"{SCHEME}://{folder}"

"""Files of a run directory as a dataset on the Hub. The token is huggingface_hub's own business."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import HfApi, errors

from rlt.data.sources import http_error
from rlt.errors import DataError, first_line

logger = logging.getLogger(__name__)


def upload_dataset(folder: Path, repository: str, names: Sequence[str]) -> None:
    """Upload the named files of a folder in one commit; a repository that is new is private."""
    api = HfApi()
    try:
        api.create_repo(repository, repo_type="dataset", private=True, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repository, repo_type="dataset", folder_path=folder, allow_patterns=list(names)
        )
    except (
        errors.OfflineModeIsEnabled,
        errors.HfHubHTTPError,
        http_error(),
        ValueError,
        OSError,
    ) as error:
        raise DataError(
            f"the dataset {repository} cannot be written on the Hub ({first_line(error)}); everything is in "
            f"{folder}: log in with `hf auth login` and type the same command again, which only uploads"
        ) from error
    logger.info("uploaded to %s", commit.commit_url)

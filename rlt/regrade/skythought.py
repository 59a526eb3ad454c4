"""results.json of SkyThought: problem -> its fields with `responses` and `token_usages`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rlt.errors import DataError
from rlt.regrade.sample import ANSWERS, QUESTIONS, Sample, first_of, groups_of, plain_reference


def is_skythought(content: Any) -> bool:
    """Whether a file's content is one of SkyThought's."""
    return (
        isinstance(content, Mapping)
        and bool(content)
        and all(isinstance(record, Mapping) and "responses" in record for record in content.values())
    )


def read_skythought(content: Mapping[str, Any], task: str, where: str) -> Iterator[Sample]:
    """Yield the samples of a file; SkyThought names no task in it."""
    for name, record in content.items():
        place = f"{where}, problem {name}"
        if not isinstance(record["responses"], list):
            raise DataError(f"{place}: `responses` must be a list, one entry per sample")
        is_choice = "Correct Answer" in record
        reference = plain_reference(first_of(record, ("Answer",) if is_choice else ANSWERS, place))
        question = str(first_of(record, QUESTIONS, place))
        usages = record.get("token_usages") or []
        for index, response in enumerate(record["responses"]):
            if not isinstance(response, Mapping) or not isinstance(response.get("content"), str):
                raise DataError(f"{place}, response {index}: `content` must be a text")
            usage = usages[index] if index < len(usages) else {}
            yield Sample(
                task,
                question,
                reference,
                response["content"],
                name,
                usage.get("completion_tokens"),
                None,
                response.get("correctness"),
                "ABCD" if is_choice else (),
                groups_of(record, task),
            )

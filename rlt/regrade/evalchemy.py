"""Results of evalchemy: benchmark -> `examples` with `model_outputs`, or `model_output` where it is one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rlt.regrade.sample import ANSWERS, QUESTIONS, Sample, first_of, groups_of, plain_reference, texts_of

_NAMES = {"gpqadiamond": "gpqa_diamond", "mmluprosubset": "mmlu_pro"}
"""Names that differ from those used here in capitals and underscores only need no entry."""


def is_evalchemy(content: Any) -> bool:
    """Whether a file's content is one of evalchemy's."""
    results = content.get("results") if isinstance(content, Mapping) else None
    return isinstance(results, Mapping) and any(_has_examples(of_task) for of_task in results.values())


def _has_examples(of_task: Any) -> bool:
    return isinstance(of_task, Mapping) and isinstance(of_task.get("examples"), list)


def read_evalchemy(content: Mapping[str, Any], task: str, where: str) -> Iterator[Sample]:  # noqa: ARG001
    """Yield the samples of a file, which names its tasks; those without examples are skipped."""
    for name, of_task in content["results"].items():
        if not _has_examples(of_task):
            continue
        plain = str(_NAMES.get(name.lower(), name.lower()))
        for number, example in enumerate(of_task["examples"]):
            place = f"{where}, {name}, example {number}"
            is_choice = "Correct Answer" in example
            reference = plain_reference(first_of(example, ("answer",) if is_choice else ANSWERS, place))
            question = str(first_of(example, QUESTIONS, place))
            outputs = first_of(example, ("model_outputs", "model_output"), place)
            for text in texts_of(outputs, f"{place}, model_outputs"):
                options, groups = "ABCD" if is_choice else (), groups_of(example, plain)
                yield Sample(plain, question, reference, text, str(number), options=options, groups=groups)

"""The default instructions for teacher and student, in our own words.

They describe the layout by its tags, so they follow the tag style. A model that was trained with another
prompt needs that one: see `layout.student_prompt` in the configuration.
"""

from __future__ import annotations

from rlt.formats.tags import TagStyle


def default_teacher_prompt(tags: TagStyle) -> str:
    """Return instructions to explain a given solution to a student."""
    return (
        "You are a teacher. You are given a question and its solution. "
        f"First repeat the solution between {tags.solution.open} and {tags.solution.close}. "
        "Then write, step by step, the reasoning that leads a student from the question to this solution, "
        f"between {tags.explanation.open} and {tags.explanation.close}."
    )


def default_student_prompt(tags: TagStyle) -> str:
    """Return instructions to think first and answer afterwards; they name no tags of a model's own."""
    if tags.is_native:
        return "You are a careful problem solver. First think the question through. Then give the solution."
    return (
        "You are a careful problem solver. "
        f"First think the question through between {tags.thought.open} and {tags.thought.close}. "
        f"Then give the solution between {tags.solution.open} and {tags.solution.close}."
    )

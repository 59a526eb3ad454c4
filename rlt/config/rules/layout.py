"""The rules of what chat templates are given: their switches, and the date."""

from __future__ import annotations

import datetime

from rlt.config.schema import Config
from rlt.errors import ConfigError

_OWN = {
    **dict.fromkeys(("tools", "documents"), "rows have none"),
    **dict.fromkeys(("messages", "conversation", "conversations"), "each row has its own"),
    "chat_template": "a model's own is used, chat_template.jinja beside its tokenizer",
    "strftime_now": "the date is layout.date",
    **dict.fromkeys(
        (
            *("add_generation_prompt", "continue_final_message", "tokenize", "padding", "truncation"),
            *("max_length", "return_tensors", "return_dict", "return_assistant_tokens_mask"),
            "tokenizer_kwargs",
        ),
        "it is no switch of a template but an option of the call, which the layout sets",
    ),
}
"""What is no switch, with the reason."""


def check_layout(config: Config) -> None:
    """Raise ConfigError for a date or a switch that no chat template can be given."""
    layout = config.layout
    try:
        is_date = datetime.date.fromisoformat(layout.date).isoformat() == layout.date
    except ValueError:
        is_date = False
    if not is_date:
        raise ConfigError(f"`layout.date` must be a day as YYYY-MM-DD, got {layout.date}: write 2025-01-01.")
    for name in layout.chat_template_kwargs:
        if name in _OWN:
            raise ConfigError(
                f"`layout.chat_template_kwargs` has {name}, but {_OWN[name]}: remove it, and give what "
                "the chat template reads, such as enable_thinking."
            )
        if not name.isidentifier():
            raise ConfigError(
                f"`layout.chat_template_kwargs` has {name!r}, which is no name: write "
                "{enable_thinking: false}, say."
            )

"""Tab completion for launch.sh, launch_with_server.sh and `python train.py`.

    eval "$(python -m rlt completion bash)"       # in ~/.bashrc; zsh: the same with zsh, in ~/.zshrc

Completes settings, their values, run files and flags. The script holds the settings as they are now and loads
nothing while you type; the next shell makes it again. Once a run file is on the line, only settings that its
stage reads are offered.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence

from rlt.config.overrides import CONFIG_DIR, groups
from rlt.config.stages import STAGES
from rlt.config.tree import rows
from rlt.config.yaml_files import stage_of_run_file
from rlt.parser import Parser

_ZSH = "autoload -U +X bashcompinit && bashcompinit\n"

# Bash splits words at `=`, zsh does not; both ways are understood.
_SCRIPT = """\
declare -A _rlt_settings=(
{settings})
declare -A _rlt_values=(
{values})
declare -A _rlt_stages=(
{stages})
_rlt() {{
    local cur="${{COMP_WORDS[COMP_CWORD]}}" prev="" before="" key="" lead="" word stage=all
    (( COMP_CWORD > 0 )) && prev="${{COMP_WORDS[COMP_CWORD-1]}}"
    (( COMP_CWORD > 1 )) && before="${{COMP_WORDS[COMP_CWORD-2]}}"
    COMPREPLY=()
    for word in "${{COMP_WORDS[@]}}"; do
        word="${{word##*/}}"; word="${{word#run_cfg=}}"; word="${{word%.yaml}}"
        [[ -n "$word" && -n "${{_rlt_stages[$word]:-}}" ]] && stage="${{_rlt_stages[$word]}}"
    done
    if [[ "$cur" == "=" ]]; then key="$prev" cur=""
    elif [[ "$prev" == "=" ]]; then key="$before"
    elif [[ "$cur" == *=* ]]; then key="${{cur%%=*}}" lead="${{cur%%=*}}=" cur="${{cur#*=}}"
    fi
    if [[ -n "$key" ]]; then
        while IFS= read -r word; do [[ -n "$word" ]] && COMPREPLY+=("$word"); done < \\
            <(compgen -P "$lead" -W "${{_rlt_values[$key]:-}}" -- "$cur")
    elif [[ "$cur" != */* ]]; then
        while IFS= read -r word; do [[ -n "$word" ]] && COMPREPLY+=("$word"); done < \\
            <(compgen -W "${{_rlt_settings[$stage]}}" -- "$cur")
        [[ "${{COMPREPLY[0]:-}}" == *= ]] && compopt -o nospace 2>/dev/null
    fi
    return 0
}}
_rlt_python() {{
    [[ "${{COMP_WORDS[1]:-}}" == *train.py ]] && _rlt
}}
complete -o bashdefault -o default -F _rlt launch.sh launch_with_server.sh
complete -o bashdefault -o default -F _rlt_python python python3
"""


def main(words: Sequence[str]) -> int:
    """Print the script; return the exit code."""
    parser = Parser(prog="python -m rlt completion", description=__doc__)
    parser.add_argument("shell", choices=("bash", "zsh"))
    shell: str = parser.parse_args(words).shell
    sys.stdout.write((_ZSH if shell == "zsh" else "") + script())
    return 0


def script() -> str:
    """Return the functions and tables that complete a line in bash."""
    table = {name: row for name, row in rows().items() if not row.section}
    known = groups([CONFIG_DIR])
    run_files = {name: stage_of_run_file(name, [CONFIG_DIR]) for name in known["run_cfg"]}
    values = {
        name: " ".join(row.choices or ("true", "false"))
        for name, row in table.items()
        if row.choices or row.type is bool
    }
    values |= {group: " ".join(names) for group, names in known.items()}
    flags = "--dry-run --rehearse --help --explain --cfg"
    settings = {"all": [*table, *known]} | {
        stage: [*(name for name in table if record.reads(name)), *known] for stage, record in STAGES.items()
    }
    return _SCRIPT.format(
        settings=_table({stage: f"{'= '.join(names)}= {flags}" for stage, names in settings.items()}),
        values=_table(values),
        stages=_table({name: stage for name, stage in run_files.items() if stage in STAGES}),
    )


def _table(values: dict[str, str]) -> str:
    return "".join(f"    [{shlex.quote(key)}]={shlex.quote(value)}\n" for key, value in values.items())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Every setting of the framework: type, default, bound and meaning, in this one place, a module per section.

The root (root.py) holds what people type; each section below it holds the rest of one concern and maps to
one folder of `cfgs/`. YAML files only override. `validate.py` holds the rules between settings; bounds of a
single setting are here.  OmegaConf turns these classes into a closed schema, so an unknown key fails at
composition. Nothing here imports torch.
"""

from rlt.config.schema.data import (
    DATA_SUFFIXES,
    NO_DATASET,
    OPTIONAL_FIELDS,
    PACKED_SUFFIXES,
    REQUIRED_FIELDS,
    TRACE_FIELDS,
    DataSettings,
    SubsetSettings,
)
from rlt.config.schema.evaluate import (
    ANSWER_KINDS,
    BENCHMARKS,
    BOXED,
    LOCAL_TASK,
    MOST_OPTIONS,
    SLOT,
    BenchmarkSettings,
    EvaluateSettings,
)
from rlt.config.schema.evaluation import DuringTrainingSettings, EvaluationSettings
from rlt.config.schema.generation import PLAIN_SAMPLING, GenerationSettings
from rlt.config.schema.hardware import GPU_KINDS, HardwareSettings
from rlt.config.schema.layout import (
    DATASET_PROMPT,
    FILE_PROMPT,
    ORIGINAL_PROMPT,
    PROMPT_KEYWORDS,
    SKYTHOUGHT_PROMPT,
    TEMPLATE_DATE,
    TEXT_PROMPT,
    LayoutSettings,
)
from rlt.config.schema.model import LoraSettings, ModelSettings
from rlt.config.schema.opd import OPD_LOSS_TYPES, OpdSettings
from rlt.config.schema.programs import OPERATIONS, CountdownSettings, InferSettings, PipelineSettings
from rlt.config.schema.reward import (
    LIKELIHOOD,
    OWN_STUDENTS,
    REDUCTIONS,
    SOLUTION_SPANS,
    TRANSFORMS,
    AnswerSettings,
    CopySettings,
    CorrectnessSettings,
    FunctionSettings,
    LengthSettings,
    RewardSettings,
    StudentSettings,
)
from rlt.config.schema.root import RECIPES, TRACKERS, Config, stage_of
from rlt.config.schema.setting import setting
from rlt.config.schema.traces import (
    SELECTION_RULES,
    CollectSettings,
    DistillSettings,
    PlanSettings,
    ScoreSettings,
    SelectSettings,
    ShowSettings,
    TracesSettings,
)
from rlt.config.schema.trainer import MonitorSettings, TrainerSettings

__all__ = [
    "ANSWER_KINDS",
    "BENCHMARKS",
    "BOXED",
    "DATASET_PROMPT",
    "DATA_SUFFIXES",
    "FILE_PROMPT",
    "GPU_KINDS",
    "LIKELIHOOD",
    "LOCAL_TASK",
    "MOST_OPTIONS",
    "NO_DATASET",
    "OPD_LOSS_TYPES",
    "OPERATIONS",
    "OPTIONAL_FIELDS",
    "ORIGINAL_PROMPT",
    "OWN_STUDENTS",
    "PACKED_SUFFIXES",
    "PLAIN_SAMPLING",
    "PROMPT_KEYWORDS",
    "RECIPES",
    "REDUCTIONS",
    "REQUIRED_FIELDS",
    "SELECTION_RULES",
    "SKYTHOUGHT_PROMPT",
    "SLOT",
    "SOLUTION_SPANS",
    "TEMPLATE_DATE",
    "TEXT_PROMPT",
    "TRACE_FIELDS",
    "TRACKERS",
    "TRANSFORMS",
    "AnswerSettings",
    "BenchmarkSettings",
    "CollectSettings",
    "Config",
    "CopySettings",
    "CorrectnessSettings",
    "CountdownSettings",
    "DataSettings",
    "DistillSettings",
    "DuringTrainingSettings",
    "EvaluateSettings",
    "EvaluationSettings",
    "FunctionSettings",
    "GenerationSettings",
    "HardwareSettings",
    "InferSettings",
    "LayoutSettings",
    "LengthSettings",
    "LoraSettings",
    "ModelSettings",
    "MonitorSettings",
    "OpdSettings",
    "PipelineSettings",
    "PlanSettings",
    "RewardSettings",
    "ScoreSettings",
    "SelectSettings",
    "ShowSettings",
    "StudentSettings",
    "SubsetSettings",
    "TracesSettings",
    "TrainerSettings",
    "setting",
    "stage_of",
]

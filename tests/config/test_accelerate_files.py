"""The files of cfgs/accelerate hold keys and values that the installed accelerate knows."""

import dataclasses

import pytest
import yaml
from accelerate.commands.config.config_args import ClusterConfig
from accelerate.commands.launch import launch_command_parser
from accelerate.utils.dataclasses import DeepSpeedPlugin, DistributedType

from rlt.config.overrides import CONFIG_DIR

FILES = sorted((CONFIG_DIR / "accelerate").glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_keys_are_accelerates(path):
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    fields = {field.name: field for field in dataclasses.fields(ClusterConfig)}
    assert content.keys() <= fields.keys()
    assert content["distributed_type"] in {kind.value for kind in DistributedType}
    options = vars(launch_command_parser().parse_args(["train.py"]))
    # accelerate hands each key of this section to its launcher, which passes over one that it does not know.
    assert content.get("deepspeed_config", {}).keys() <= options.keys()


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_deepspeed_is_told_the_stage_that_the_file_is_named_after(path):
    deepspeed = yaml.safe_load(path.read_text(encoding="utf-8")).get("deepspeed_config")
    stages = {"zero1": 1, "zero2": 2, "zero3": 3, "offload": 3}
    assert (deepspeed or {}).get("zero_stage") == stages.get(path.stem)
    if deepspeed is None:
        return
    assert {"zero_stage", "offload_optimizer_device", "offload_param_device"} <= deepspeed.keys()
    plugin_fields = {field.name for field in dataclasses.fields(DeepSpeedPlugin)}
    assert deepspeed.keys() <= plugin_fields
    rests = "cpu" if path.stem == "offload" else "none"
    assert (deepspeed["offload_optimizer_device"], deepspeed["offload_param_device"]) == (rests, rests)

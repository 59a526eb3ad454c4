"""Values of model.attn_implementation, and the packages that they need."""

import sys
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet
from transformers.utils import import_utils

from rlt.config.attention import (
    FLASH,
    FLASH_VERSIONS,
    KERNELS_VERSIONS,
    check_attention,
    not_provided,
    refuse_on_cpu,
)
from rlt.config.compose import compose
from rlt.errors import ConfigError

HUB = "kernels-community/flash-attn2"
PINNED = "kernels-community/flash-attn2@v1.2.3"


def configured(run: str, value: str, *words: str):
    return compose([f"run_cfg={run}", f"model.attn_implementation={value}", *words])


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Return what puts a package of some name and version beside the installed ones."""
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])

    def write(distribution: str, module: str, version: str) -> None:
        (tmp_path / f"{module}.py").write_text("")
        facts = tmp_path / f"{distribution.replace('-', '_')}-{version}.dist-info"
        facts.mkdir()
        (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")

    return write


@pytest.mark.parametrize(
    "run", ["teacher_sft", "teacher_rl", "student_sft", "student_rl", "score_traces", "infer"]
)
@pytest.mark.parametrize(("value", "package"), [(FLASH, "flash-attn"), (HUB, "kernels"), (PINNED, "kernels")])
def test_what_nothing_provides_is_refused(run, value, package):
    words = [
        "model_name_or_path=m",
        *(["student_model=s", "dataset_id_or_path=d"] if run in ("teacher_rl", "score_traces") else []),
    ]
    with pytest.raises(ConfigError) as caught:
        check_attention(configured(run, value, *words))
    assert f"`model.attn_implementation={value}` needs the package {package} (" in str(caught.value)
    assert "model.attn_implementation=sdpa" in str(caught.value)
    check_attention(configured(run, "sdpa", *words))  # the remedy


@pytest.mark.parametrize("run", ["collect_traces", "evaluate"])
def test_engines_of_their_own_need_no_package(run):
    check_attention(configured(run, FLASH, "model_name_or_path=m"))
    with pytest.raises(ConfigError, match="needs the package flash-attn"):
        check_attention(configured(run, FLASH, "model_name_or_path=m", "generation.backend=transformers"))


@pytest.mark.parametrize(
    "value", ["flash", "flash_attention_3", "flex_attention", "someone/flash-attn2", "a/b/c"]
)
def test_other_values_are_refused_with_a_list(value):
    with pytest.raises(
        ConfigError, match="must be auto, eager, sdpa, flash_attention_2, or a kernel of the Hub"
    ):
        check_attention(configured("teacher_sft", value))


def test_what_is_installed_in_the_right_version_is_taken(install):
    install("flash-attn", "flash_attn", "2.8.3")
    install("kernels", "kernels", "0.16.2")
    for value in (FLASH, HUB, PINNED):
        check_attention(configured("teacher_rl", value))


def test_another_distribution_of_the_same_module_does_not_count(install):
    install("flash-attn-4", "flash_attn", "4.0.0")
    assert "is not installed" in str(not_provided(FLASH))


@pytest.mark.parametrize(
    ("distribution", "module", "version", "value"),
    [("flash-attn", "flash_attn", "2.3.2", FLASH), ("kernels", "kernels", "0.17.0", HUB)],
)
def test_a_version_that_transformers_ignores_is_refused(install, distribution, module, version, value):
    install(distribution, module, version)
    assert f"but {version} is installed" in str(not_provided(value))


def test_kernels_of_the_hub_never_stand_for_flash_attn(install):
    install("kernels", "kernels", "0.16.2")  # transformers would fetch them for flash_attention_2
    with pytest.raises(ConfigError, match=f"or kernels from the Hub with model.attn_implementation={HUB}"):
        check_attention(configured("teacher_sft", FLASH))


@pytest.mark.parametrize("setting", ["model.dtype", "reward.dtype"])
def test_policy_and_student_must_be_in_bfloat16(install, setting):
    install("flash-attn", "flash_attn", "2.8.3")
    with pytest.raises(ConfigError, match=f"needs {setting}=bfloat16, got float32"):
        check_attention(configured("teacher_rl", FLASH, f"{setting}=float32"))
    served = ["reward.placement=server", "reward.servers=[http://127.0.0.1:1]"]
    if setting == "reward.dtype":
        check_attention(configured("teacher_rl", FLASH, f"{setting}=float32", *served))


def test_a_run_on_a_cpu_is_refused():
    for value in (FLASH, HUB):
        with pytest.raises(ConfigError, match="needs a GPU, and this run uses the CPU"):
            refuse_on_cpu(configured("teacher_sft", value))
    refuse_on_cpu(configured("teacher_sft", "auto"))
    refuse_on_cpu(configured("collect_traces", FLASH, "model_name_or_path=m"))  # only servers load it


def test_versions_are_those_of_transformers_and_of_the_extra():
    for version in ("0.16.0", "0.16.9", "0.17.0", "0.15.9"):
        fits = import_utils.KERNELS_MIN_VERSION <= version < import_utils.KERNELS_MAX_VERSION
        assert (version in SpecifierSet(KERNELS_VERSIONS)) == fits
    assert (
        f'kernels = ["kernels{KERNELS_VERSIONS}"]'
        in (Path(__file__).parents[2] / "pyproject.toml").read_text()
    )
    assert FLASH_VERSIONS.removeprefix(">=") in Path(import_utils.__file__).read_text(encoding="utf-8")

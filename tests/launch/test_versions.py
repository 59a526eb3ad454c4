"""Libraries of other versions than were tested."""

from importlib.metadata import version

import pytest

from rlt.launch.versions import untested_versions


def test_what_set_up_has_installed_was_tested():
    assert list(untested_versions()) == []


@pytest.mark.parametrize(
    ("declared", "num_told"),
    [
        ("torch==1.0", 1),
        (f"torch>={version('torch').split('+')[0]}", 0),
        ("no-such-library==1", 0),
        ('torch==1.0; extra == "deepspeed"', 1),
        ('torch==1.0; extra == "dev"', 0),
        ('torch==1.0; python_version < "3"', 0),
    ],
)
def test_another_version_is_told(declared, num_told):
    told = list(untested_versions([declared]))
    assert len(told) == num_told
    assert all("torch" in line and "==1.0 was tested" in line for line in told)

import pytest

from rlt.text import markdown, redact, without_private_paths


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hub_token=abc x=1", "hub_token=*** x=1"),
        ("trainer_args={hub_token: abc, beta: 1}", "trainer_args={hub_token: ***, beta: 1}"),
        ("--api-key abc --port 1", "--api-key *** --port 1"),
        ("server_args=[--api-key,abc]", "server_args=[--api-key,***]"),
        ("WANDB_API_KEY=abc", "WANDB_API_KEY=***"),
        ("password: 'abc'", "password: '***'"),
        ("got hf_abcdefghijklmnop1 here", "got *** here"),
        ("http://me:pw@127.0.0.1:8000/v1", "http://***@127.0.0.1:8000/v1"),
        ("hub_token: null", "hub_token: null"),
        (
            "eos_token=<|im_end|> max_tokens=5 stop_token_ids: [3]",
            "eos_token=<|im_end|> max_tokens=5 stop_token_ids: [3]",
        ),
        ("num_generations=64 learning_rate=1e-6", "num_generations=64 learning_rate=1e-6"),
    ],
)
def test_secrets_are_masked_and_the_rest_stays(text, expected):
    assert redact(text) == expected


def test_private_paths_become_relative(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/somewhere/ann")
    text = f"{tmp_path}/train.py /somewhere/ann/x /home/bob/data /Users/eve/y /root/z /rooted/a {tmp_path}2"
    assert without_private_paths(text) == f"./train.py ~/x ~/data ~/y ~/z /rooted/a {tmp_path}2"


def test_empty_cells_leave_a_column_of_numbers_on_the_right():
    table = markdown([("student", "lead"), ("base", "+62.3 [+54.5, +69.3] %"), ("after RL", "")])
    assert table.splitlines()[1].split("|")[2].strip() == "-" * 21 + ":"
    assert markdown([("a", "b"), ("x", "")]).splitlines()[1].split("|")[2].strip() == "---"

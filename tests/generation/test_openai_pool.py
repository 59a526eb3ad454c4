"""Other people's servers: what passes is waited out for one request, what does not is one sentence."""

from __future__ import annotations

import logging
import ssl
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from helpers.openai_fake import Fake, Reply, running_fake, text

from rlt.errors import GenerationError
from rlt.generation.openai_pool import GIVE_UP_AFTER, OpenAIPool, Texts
from rlt.generation.types import Sampling

END = 1
SAMPLING = Sampling(temperature=0.7, max_tokens=8, stop_token_ids=(END,))
TEXTS = Texts(
    encode=lambda said: [ord(c) for c in said],
    read=lambda said: [ord(c) for c in said],
    decode=lambda ids: "".join("<end>" if i == END else chr(i) for i in ids),
)
"""A tokenizer whose ids are code points."""
PROMPTS = [TEXTS.encode(f"question {i}") for i in range(12)]


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    """Start the doubling of pauses at 10 ms."""
    monkeypatch.setattr("rlt.generation.openai_server.FIRST_PAUSE", 0.01)


def pool_of(fake: Fake | str, **options: Any) -> OpenAIPool:
    address = fake if isinstance(fake, str) else fake.address
    usual = {"timeout": 60.0, "texts": TEXTS, "key": None, "requests_per_server": 4, "retry_seconds": 20.0}
    return OpenAIPool([address], **{**usual, **options})


def answers(pool: OpenAIPool, prompts=PROMPTS) -> dict[int, tuple[str, str]]:
    """Return text and finish_reason by prompt."""
    pool.check()
    seeds = range(len(prompts))
    return {i: (said(c), c.finish_reason) for i, c in pool.stream(prompts, SAMPLING, list(seeds))}


def said(completion) -> str:
    return TEXTS.decode(completion.token_ids)


WHOLE = dict.fromkeys(range(len(PROMPTS)), ("so it is 7<end>", "stop"))


def first_time(wrong: Reply, prompts: tuple[str, ...] = ("question 3", "question 7")):
    """Return an answer that is wrong the first time that certain prompts are asked."""
    seen: set[str] = set()

    def answer(_: int, body: dict[str, Any]) -> Reply:
        if body["prompt"] in prompts and body["prompt"] not in seen:
            seen.add(body["prompt"])
            return wrong
        return text()

    return answer


PASSING = {
    "too many requests": Reply({"error": {"message": "slow down"}}, 429),
    "too many, with seconds": Reply({}, 429, {"Retry-After": "0"}),
    "too many, with a date": Reply({}, 429, {"Retry-After": "Thu, 01 Jan 1970 00:00:00 GMT"}),
    "timeout of a gateway": Reply(None, 408),
    "overloaded": Reply({"error": {"message": "overloaded"}}, 503),
    "bad gateway, in HTML": Reply(None, 502, {"Content-Type": "text/html"}, raw=b"<html>502</html>"),
    "cloud's own code": Reply({}, 529),
    "connection reset": Reply(reset=True),
    "cut JSON": Reply(raw=b'{"choices": [{"text": "abc'),
    "shorter than promised": Reply(None, 200, {"Content-Length": "999"}, raw=b'{"choices": ['),
    "no body": Reply(raw=b""),
    "a page in place of an answer": Reply(raw=b"<html>please log in</html>"),
    "error inside of 200": Reply({"error": {"message": "upstream is down", "code": 502}}),
    "error inside of 200, in words": Reply({"error": "upstream is down"}),
    "no choices": Reply({"choices": []}),
    "another shape": Reply([1, 2]),
    "text of another type": text(said=7),  # pyright: ignore[reportArgumentType]
    "broken off": text("half", "error"),
    "aborted": text("half", "abort"),
    "without a reason": text("half", None),
}


@pytest.mark.parametrize("fault", PASSING)
def test_what_passes_is_waited_out(fault):
    with running_fake(first_time(PASSING[fault])) as fake:
        assert answers(pool_of(fake)) == WHOLE
    # one word of the check, each prompt once, and the two again
    assert len(fake.asked) == 1 + len(PROMPTS) + 2
    assert fake.prompts.count("question 3") == 2
    assert len({body["seed"] for body in fake.asked if body["prompt"] == "question 3"}) == 1


def test_a_request_that_is_never_answered_is_asked_again():
    hangs, released = first_time(text("late")), threading.Event()

    def answer(number: int, body: dict[str, Any]) -> Reply:
        reply = hangs(number, body)
        if reply.body["choices"][0]["text"] == "late":
            released.wait()
        return reply

    with running_fake(answer) as fake:
        assert answers(pool_of(fake, timeout=3.0)) == WHOLE
        released.set()
        assert fake.prompts.count("question 3") >= 2


def test_retry_after_is_obeyed_for_that_request_alone():
    times: dict[str, list[float]] = {}

    def answer(_: int, body: dict[str, Any]) -> Reply:
        times.setdefault(body["prompt"], []).append(time.monotonic())
        is_first = len(times[body["prompt"]]) == 1
        return Reply({}, 429, {"Retry-After": "1"}) if body["prompt"] == "question 0" and is_first else text()

    with running_fake(answer) as fake:
        order = []
        pool = pool_of(fake)
        pool.check()
        for i, _ in pool.stream(PROMPTS, SAMPLING, list(range(12))):
            order.append(i)
    asked, again = times["question 0"]
    assert again - asked >= 1
    assert sorted(order) == list(range(12))
    assert len(times["question 11"]) == 1


def always(wrong: Reply, prompt: str = "question 3"):
    return lambda _, body: wrong if body["prompt"] == prompt else text()


REFUSED = {
    "too long": Reply({"error": {"message": "maximum context length is 64 tokens"}}, 400),
    "payment": Reply({"error": {"message": "no credit left"}}, 402),
    "not implemented": Reply({"error": {"message": "no such thing"}}, 501),
    "inside of 200": Reply({"error": {"message": "no such thing", "code": 400}}),
    "a stream": Reply(None, 200, {"Content-Type": "text/event-stream"}, raw=b'data: {"choices": []}\n\n'),
    "an unknown end": text("x", "tool_calls"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_what_is_refused_for_good_is_told_and_the_others_are_kept(fault):
    wrong = REFUSED[fault]
    with running_fake(always(wrong)) as fake:
        pool = pool_of(fake)
        pool.check()
        drawn: list[int] = []
        with pytest.raises(
            GenerationError, match=r"^1 of 12 prompts were not answered, .* are kept"
        ) as error:
            drawn += (i for i, _ in pool.stream(PROMPTS, SAMPLING, list(range(12))))
    assert sorted(drawn) == [i for i in range(12) if i != 3]
    assert fake.prompts.count("question 3") == 1
    message = wrong.body["error"]["message"] if wrong.body and "error" in wrong.body else "tool_calls"
    assert message in str(error.value) or "stream of events" in str(error.value)
    assert "vLLM" not in str(error.value)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (
            Reply({"error": {"message": "overloaded"}}, 503),
            "HTTP 503: .*overloaded.*raise generation.retry_sec",
        ),
        (Reply({}, 429, {"Retry-After": "3600"}), r"\(it asks to wait 3600 s\)"),
        (Reply(raw=b"<html>"), r"in [2-9] tries: its answer is not JSON: '<html>'"),
        (Reply(reset=True), "the connection ended, Connection reset by peer"),
    ],
)
def test_waiting_has_a_limit_and_the_others_are_kept(wrong, reason):
    with running_fake(always(wrong)) as fake:
        pool = pool_of(fake, retry_seconds=1.0)
        pool.check()
        drawn: list[int] = []
        with pytest.raises(GenerationError, match=reason):
            drawn += (i for i, _ in pool.stream(PROMPTS, SAMPLING, list(range(12))))
    assert sorted(drawn) == [i for i in range(12) if i != 3]


def test_where_nothing_is_answered_no_more_is_asked():
    refusal = Reply({"error": {"message": "model is not loaded"}}, 400)
    with running_fake(lambda _, body: text() if body["prompt"] == "1" else refusal) as fake:
        pool = pool_of(fake)
        pool.check()
        with pytest.raises(GenerationError, match=f"{GIVE_UP_AFTER} of 2000 prompts were not answered"):
            list(pool.stream([TEXTS.encode(str(i + 10)) for i in range(2000)], SAMPLING, list(range(2000))))
        assert len(fake.asked) < 1000


# No answer


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (text("", "content_filter"), "content_filter"),
        (text(None, "content_filter"), "content_filter"),
        (text("", "stop"), "empty"),
        (text(None, "stop"), "empty"),
        (text(" \n", "length"), "empty"),
    ],
)
def test_no_answer_is_asked_for_again_and_then_reported_apart(wrong, reason):
    with running_fake(first_time(wrong)) as fake:
        assert answers(pool_of(fake)) == WHOLE
        seeds = [body["seed"] for body in fake.asked if body["prompt"] == "question 3"]
        assert len(seeds) == len(set(seeds)) == 2
    with running_fake(always(wrong)) as fake:
        assert answers(pool_of(fake)) == {**WHOLE, 3: ("", reason)}
        assert fake.prompts.count("question 3") == 3


def test_half_a_character_is_replaced():
    with running_fake(always(text("x \ud83d!"))) as fake:
        assert answers(pool_of(fake))[3] == ("x \ufffd!<end>", "stop")


@pytest.mark.parametrize(
    ("reason", "known"), [("eos_token", "stop"), ("end_turn", "stop"), ("max_tokens", "length")]
)
def test_other_names_of_an_end(reason, known):
    with running_fake(always(text("7", reason))) as fake:
        assert answers(pool_of(fake))[3][1] == known


# Seeds that are refused


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (400, "UnsupportedParamsError: this provider does not support parameters: ['seed']"),
        (422, "Extra inputs are not permitted: seed"),
    ],
)
def test_a_seed_that_is_refused_is_left_out_with_a_note(code, message, caplog):
    def answer(_: int, body: dict[str, Any]) -> Reply:
        return Reply({"error": {"message": message}}, code) if "seed" in body else text()

    with running_fake(answer) as fake:
        pool = pool_of(fake)
        assert answers(pool) == WHOLE
    assert "asked without seed from here on" in caplog.text
    assert len([r for r in caplog.records if "without seed" in r.message]) == 1
    assert pool.versions() == ["OpenAI API, model my-student, without seed"]


# Which model, and where


def test_the_only_model_is_asked_and_one_of_several_has_to_be_named():
    with running_fake(lambda *_: text()) as fake:
        pool = pool_of(fake)
        answers(pool)
        assert {body["model"] for body in fake.asked} == {"my-student"}
        assert pool.models == ["my-student"]
        with pytest.raises(GenerationError, match=r"has no model mystudent .*did you mean my-student\?"):
            pool_of(fake, model="mystudent").check()
    with running_fake(lambda *_: text(), [{"id": "base"}, {"id": "lora-a"}]) as fake:
        with pytest.raises(
            GenerationError, match=r"has the models base, lora-a: name one of them in generation"
        ):
            pool_of(fake).check()
        pool = pool_of(fake, model="lora-a")
        answers(pool)
        assert {body["model"] for body in fake.asked} == {"lora-a"}
        assert pool.versions() == ["OpenAI API, model lora-a"]


def test_a_server_without_a_list_needs_the_name():
    with running_fake(lambda *_: text(), has_list=False) as fake:
        with pytest.raises(
            GenerationError, match=r"has no list of models: name the one to ask in generation.api"
        ):
            pool_of(fake).check()
        assert answers(pool_of(fake, model="m")) == WHOLE


@pytest.mark.parametrize("end", ["", "/", "/v1", "/v1/", "/v1/completions", "/v1/chat/completions"])
def test_an_address_may_end_as_other_programs_write_it(end):
    with running_fake(lambda *_: text()) as fake:
        assert answers(pool_of(fake.address + end), PROMPTS[:1]) == {0: WHOLE[0]}
    assert set(fake.paths) == {"/v1/models", "/v1/completions"}


def test_an_address_below_a_path():
    with running_fake(lambda *_: text()) as fake:
        answers(pool_of(fake.address + "/api/v1"), PROMPTS[:1])
    assert set(fake.paths) == {"/api/v1/models", "/api/v1/completions"}


def test_a_context_that_is_too_small_is_told_before_anything_is_asked():
    with running_fake(lambda *_: text(), [{"id": "m", "max_model_len": 64}]) as fake:
        with pytest.raises(
            GenerationError, match=r"m with a context of 64 tokens, .* need 65 here: lower max_"
        ):
            pool_of(fake).check(min_context=65)
        pool_of(fake).check(min_context=64)


def test_a_server_that_only_chats_is_told():
    with (
        running_fake(lambda *_: Reply({"error": {"message": "unknown path"}}, 404)) as fake,
        pytest.raises(GenerationError, match=r"has no /v1/completions .*: one that only chats puts its own"),
    ):
        pool_of(fake).check()


def test_a_wrong_key_is_told_at_once():
    with running_fake(lambda *_: Reply({"error": {"message": "bad key"}}, 401)) as fake:
        with pytest.raises(GenerationError, match=r"it demands a key, and another one was sent.*bad key"):
            pool_of(fake, key="short").check()
        assert fake.keys == ["Bearer short"]
        assert len(fake.asked) == 1


def test_a_server_that_is_not_there_is_told_at_once():
    with running_fake(lambda *_: text()) as fake:
        address = fake.address
    with pytest.raises(
        GenerationError, match=f"the server at {address} cannot be reached: Connection refused"
    ):
        pool_of(address, retry_seconds=10_000).check()


# What the server reads


def test_a_bos_is_left_to_the_server(caplog):
    """A prompt begins with BOS (2); a server puts one before every text, as tokenizers do."""
    texts = Texts(
        encode=lambda said: [ord(c) for c in said.replace("<bos>", "\2")],
        read=lambda said: [2, *(ord(c) for c in said.replace("<bos>", "\2"))],
        decode=lambda ids: "".join(chr(i) for i in ids).replace("\2", "<bos>"),
    )
    prompt = [2, *map(ord, "1+1?")]
    assert texts.prompt(prompt) == "1+1?"
    assert texts.read(texts.prompt(prompt)) == prompt
    # without a BOS in the prompt, or with a server's tokenizer that adds none, the text goes as it is
    assert texts.prompt(prompt[1:]) == "1+1?"
    assert TEXTS.prompt(PROMPTS[0]) == "question 0"
    reads = lambda _, body: text(usage={"prompt_tokens": len(texts.read(body["prompt"]))})  # noqa: E731
    with running_fake(reads) as fake:
        pool = pool_of(fake, texts=texts)
        pool.check()
        list(pool.stream([prompt], SAMPLING, [0]))
        assert fake.prompts[-1] == "1+1?"
        assert "tokens where the prompt has" not in caplog.text
        list(pool.stream([prompt[1:]], SAMPLING, [0]))
        assert "read 5 tokens where the prompt has 4" in caplog.text


def test_a_real_tokenizer_with_a_bos(tiny_tokenizer):
    from copy import deepcopy

    from tokenizers.processors import TemplateProcessing

    tokenizer: Any = deepcopy(tiny_tokenizer)
    bos = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    tokenizer._tokenizer.post_processor = TemplateProcessing(
        single="<|endoftext|> $A", pair="<|endoftext|> $A $B", special_tokens=[("<|endoftext|>", bos)]
    )
    texts = Texts(
        encode=lambda said: tokenizer.encode(said, add_special_tokens=False),
        read=tokenizer.encode,
        decode=lambda ids: str(tokenizer.decode(list(ids))),
    )
    ids = [bos, *texts.encode("<|im_start|>user\n1+1?<|im_end|>\n")]
    assert tokenizer(texts.prompt(ids)).input_ids == ids


# https with an authority of one's own


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> Path:
    """Return the folder of a certificate that nobody but its own file vouches for."""
    folder = tmp_path_factory.mktemp("tls")
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
    ]
    command += ["-addext", "subjectAltName=IP:127.0.0.1"]
    command += ["-keyout", str(folder / "key.pem"), "-out", str(folder / "ca.pem")]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("no openssl")
    return folder


def test_a_private_authority_is_trusted_as_by_other_programs(certificate, monkeypatch):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "ca.pem", certificate / "key.pem")
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    with running_fake(lambda *_: text(), wrap=lambda s: context.wrap_socket(s, server_side=True)) as fake:
        with pytest.raises(GenerationError, match=r"is not trusted: .*REQUESTS_CA_BUNDLE or SSL_CERT_FILE"):
            pool_of(fake).check()
        for name in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"):
            with monkeypatch.context() as patch:
                patch.setenv(name, str(certificate / "ca.pem"))
                assert answers(pool_of(fake), PROMPTS[:1]) == {0: WHOLE[0]}
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate / "nowhere.pem"))
        with pytest.raises(GenerationError, match=r"is not trusted"):
            pool_of(fake).check()
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate / "ca.pem"))
        fake.answer = first_time(Reply(reset=True))
        assert answers(pool_of(fake)) == WHOLE


def test_lines_about_servers_name_them(caplog):
    caplog.set_level(logging.INFO)
    with running_fake(lambda *_: text()) as fake:
        pool_of(fake).check()
    assert f"server {fake.address}: OpenAI's API, model my-student" in caplog.text

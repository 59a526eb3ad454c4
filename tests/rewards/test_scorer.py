"""The whole reward against an independent computation, from ids, in float64.

The second half of this file knows only ids, models and method section 3: it calls nothing of rlt. Where
each line of the list of defects of the original is tested:
1-5, 10, 11, 17: the cases of rewards_cases.py, by name. 6: test_layout (empty solution), test_formula,
test_reductions. 7: test_nan_in_the_student_is_no_number, test_formula, test_reductions. 8:
test_nothing_is_truncated. 9: test_logprobs (bfloat16), test_formula (float64). 12: test_reductions (median),
test_formula (clip first). 13: test_formula (no weights). 14 to 16 have no counterpart here: no length reward
on text, no cache, and the student is a model of its own.
"""

from __future__ import annotations

import json
import math
import random
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import lru_cache
from statistics import fmean
from typing import Any

import pytest
import torch
from helpers.families import family_tokenizer
from helpers.rewards_cases import ADVERSARIAL, CLOSE, END, PAD, Case, gsm8k_cases
from tokenizers import Tokenizer
from transformers import Qwen2Config, Qwen2ForCausalLM
from transformers.convert_slow_tokenizer import bytes_to_unicode

from rlt.formats.encode import Piece, encode
from rlt.formats.layout import StudentLayout, TeacherLayout
from rlt.formats.tags import NATIVE, TAG_STYLES
from rlt.models.frozen import FrozenModel
from rlt.models.logprobs import Request, add_token_query, token_logprobs
from rlt.records import Explanation, Problem, Score
from rlt.rewards.formula import RewardSpec, WeightedReductions
from rlt.rewards.likelihood import LikelihoodReward, WeightedStudent, is_scorable
from rlt.rewards.scorer import StudentScorer

CPU = torch.device("cpu")
BESPOKE = TAG_STYLES["bespoke"]
TEACHER_SYSTEM, STUDENT_SYSTEM = "Explain the solution.", "Think first, then answer."
TEMPERATURE = 0.7
RELEASED = RewardSpec(
    WeightedReductions((("mean", 1.0), ("min", 0.01))), WeightedReductions((("mean", 3.0), ("max", 0.03)))
)


def random_model(vocab: int, seed: int) -> Qwen2ForCausalLM:
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=vocab,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        initializer_range=0.2,
        tie_word_embeddings=False,
    )
    return Qwen2ForCausalLM(config).eval().requires_grad_(False)


class Recording(FrozenModel):
    """A frozen model that keeps what it was asked."""

    asked: list[Request]

    def logprobs(self, requests: list[Request], **kwargs: Any) -> list[torch.Tensor]:
        self.asked = list(requests)
        return super().logprobs(requests, **kwargs)


@dataclass
class World:
    """A tokenizer with a random teacher and a random student."""

    tokenizer: Any
    teacher: Qwen2ForCausalLM
    student: Qwen2ForCausalLM
    scorer: StudentScorer
    teacher_layout: TeacherLayout
    teacher_asked: list[Request]

    def score(self, cases: list[Case]) -> list[Score]:
        """Return the scores by the way that a training step takes."""
        problems = [problem_of(case) for case in cases]
        explanations = [self.teacher_layout.split(completion_ids(self.tokenizer, c)) for c in cases]
        self.teacher_asked = []
        for problem, explanation in zip(problems, explanations, strict=True):
            prompt = self.teacher_layout.prompt_ids(problem)
            places = range(len(prompt), len(prompt) + len(explanation.token_ids))
            self.teacher_asked.append(Request([*prompt, *explanation.token_ids], places))
        teacher_logprobs = token_logprobs(
            self.teacher, self.teacher_asked, temperature=TEMPERATURE, tokens_per_batch=2048, device=CPU
        )
        return one_student(self.scorer).score(problems, explanations, teacher_logprobs)


def one_student(scorer: StudentScorer, spec: RewardSpec = RELEASED) -> LikelihoodReward:
    return LikelihoodReward([WeightedStudent("student", scorer)], spec)


def make_world(tokenizer, vocab: int) -> World:
    teacher, student = random_model(vocab, 1), random_model(vocab, 2)
    add_token_query(teacher)
    add_token_query(student)
    scorer = StudentScorer(
        Recording(student, CPU, rests_on_cpu=False, collective=False),
        StudentLayout(tokenizer, BESPOKE, STUDENT_SYSTEM),
        temperature=TEMPERATURE,
        tokens_per_batch=2048,
    )
    return World(tokenizer, teacher, student, scorer, TeacherLayout(tokenizer, BESPOKE, TEACHER_SYSTEM), [])


@pytest.fixture(scope="module")
def tiny(tiny_tokenizer) -> World:
    return make_world(tiny_tokenizer, len(tiny_tokenizer))


def problem_of(case: Case) -> Problem:
    return Problem(id=case.name, question=case.question, solution=case.solution)


# ---- independent of rlt from here on --------------------------------------------------------------


def text_ids(tokenizer, text: str) -> list[int]:
    """Return the ids of plain text; control strings in it are text."""
    return tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]


def spelled_ids(tokenizer, text: str) -> list[int]:
    """Return the ids of text in which every added token is spelled, the tiny tokenizer's tags too."""
    return bare_tokenizer(tokenizer).encode(text, add_special_tokens=False).ids


@lru_cache(maxsize=4)
def bare_tokenizer(tokenizer) -> Tokenizer:
    """Return the tokenizer without its added tokens; taking a large one apart takes a second."""
    bare = json.loads(tokenizer.backend_tokenizer.to_str()) | {"added_tokens": []}
    return Tokenizer.from_str(json.dumps(bare))


def part_ids(tokenizer, parts: tuple[str, ...]) -> list[int]:
    ids = []
    for part in parts:
        ids += [tokenizer.convert_tokens_to_ids(part)] if part in (END, PAD) else text_ids(tokenizer, part)
    return ids


def completion_ids(tokenizer, case: Case) -> list[int]:
    return part_ids(tokenizer, case.parts)


def chat_ids(tokenizer, system: str, question: str, answer: str) -> list[int]:
    """Return an open chat in ChatML, written out by hand."""
    start, end = (tokenizer.convert_tokens_to_ids(t) for t in ("<|im_start|>", END))
    between = text_ids(tokenizer, "\n")
    ids = [start, *text_ids(tokenizer, f"system\n{system}"), end, *between]
    ids += [start, *spelled_ids(tokenizer, f"user\n{question}"), end, *between]
    return [*ids, start, *text_ids(tokenizer, f"assistant\n{answer}")]


BYTE_OF = {char: byte for byte, char in bytes_to_unicode().items()}


def num_bytes(tokenizer, token_id: int) -> int:
    added = tokenizer.added_tokens_decoder.get(token_id)
    return len(added.content.encode() if added else tokenizer.convert_ids_to_tokens(token_id))


def exact_logprobs(model, ids: list[int], places: list[int]) -> list[float]:
    """Return log p(ids[p] | before) at the temperature, all logits of the sequence in float64."""
    logits_TV = model(torch.tensor([ids])).logits[0] / TEMPERATURE
    return [float(logits_TV[p - 1, ids[p]] - logits_TV[p - 1].logsumexp(0)) for p in places]


@dataclass
class Expected:
    """What the reward should be made of."""

    teacher_ids: list[int]
    student_ids: list[int]
    explanation: list[int]
    solution_places: list[int]
    reward: float
    parts: dict[str, float]


def expected_score(tokenizer, teacher, student, case: Case) -> Expected:
    """Return sequences and reward of a case, by method sections 2 and 3."""
    explanation = part_ids(tokenizer, case.parts[: case.explanation])
    solution = case.solution.strip()
    prompt = chat_ids(
        tokenizer,
        TEACHER_SYSTEM,
        case.question,
        f"<|begin_of_solution|>\n\n{solution}\n\n<|end_of_solution|>\n\n<|begin_of_explanation|>\n\n",
    )
    prefix = chat_ids(tokenizer, STUDENT_SYSTEM, case.question, "<|begin_of_thought|>\n\n")
    before = "<|end_of_thought|>\n\n<|begin_of_solution|>\n\n"
    suffix = text_ids(tokenizer, f"{before}{solution}\n\n<|end_of_solution|>")
    low = len(before.encode())
    high = low + len(tokenizer.backend_tokenizer.normalizer.normalize_str(solution).encode())
    teacher_ids, student_ids = prompt + explanation, [*prefix, *explanation, *suffix]
    solution_places, end = [], 0
    for index, token_id in enumerate(suffix):
        start, end = end, end + num_bytes(tokenizer, token_id)
        if low <= start and end <= high:
            solution_places.append(len(prefix) + len(explanation) + index)

    num = len(explanation)
    log_t = exact_logprobs(teacher, teacher_ids, list(range(len(prompt), len(prompt) + num)))
    places = [*range(len(prefix), len(prefix) + num), *solution_places]
    log_s = exact_logprobs(student, student_ids, places)
    d = [t - s for t, s in zip(log_t, log_s[:num], strict=True)] or [1.0]
    ell = log_s[num:]
    r_ss = fmean(ell) + 0.01 * min(ell)
    r_kl = 3 * fmean(d) + 0.03 * max(d)
    form = 0.0 if case.has_end_tag else -1.0
    parts = {
        "r_ss": r_ss,
        "r_ss_mean": fmean(ell),
        "r_ss_min": min(ell),
        "r_kl": r_kl,
        "r_kl_mean": fmean(d),
        "r_kl_max": max(d),
        "format": form,
        "missing_tag": float(not case.has_end_tag),
        "text_after_tag": float(case.text_after),
        "explanation_tokens": float(num),
        "solution_tokens": float(len(ell)),
    }
    return Expected(teacher_ids, student_ids, explanation, solution_places, r_ss - r_kl + form, parts)


def check(world: World, cases: list[Case]) -> None:
    """Compare every case with the independent computation."""
    scores = world.score(cases)
    recording = world.scorer.student
    assert isinstance(recording, Recording)
    teacher, student = (deepcopy(model).double() for model in (world.teacher, world.student))
    rewards = []
    for case, score, asked_teacher, asked_student in zip(
        cases, scores, world.teacher_asked, recording.asked, strict=True
    ):
        expected = expected_score(world.tokenizer, teacher, student, case)
        num = len(expected.explanation)
        # Teacher and student score the very tokens that were sampled.
        assert list(asked_teacher.ids) == expected.teacher_ids, case.name
        assert list(asked_student.ids[: len(expected.student_ids)]) == expected.student_ids, case.name
        for asked in (asked_teacher, asked_student):
            assert [asked.ids[p] for p in asked.positions[:num]] == expected.explanation, case.name
        assert list(asked_student.positions[num:]) == expected.solution_places, case.name
        assert score.reward == pytest.approx(expected.reward, abs=1e-4), case.name
        assert score.parts == pytest.approx(expected.parts, abs=1e-4), case.name
        rewards.append(score.reward)
    assert torch.tensor(rewards).std() > 0.5  # rewards that another span would not give


# ---- tests ----------------------------------------------------------------------------------------


def test_names_of_cases_are_unique():
    names = [case.name for case in ADVERSARIAL]
    assert len(names) == len(set(names)) > 50


def test_reward_is_exact_with_a_tiny_tokenizer(tiny):
    check(tiny, ADVERSARIAL)


@pytest.mark.slow
def test_reward_is_exact_with_the_real_tokenizer(qwen_tokenizer, shared):
    """At least 50 varied cases with Qwen2.5's whole vocabulary."""
    cases = ADVERSARIAL + gsm8k_cases(shared, 16)
    # A token of Qwen2.5 that touches the tag belongs to neither: `.<`
    cases.append(Case("token_over_the_tag", ("So 72", ".<", "|end_of_explanation|>", END), 1))
    assert len(cases) > 50
    assert len(part_ids(qwen_tokenizer, (".<",))) == 1
    check(make_world(qwen_tokenizer, 151_936), cases)


def test_batch_and_order_change_nothing(tiny):
    """One by one, all together, shuffled, and with another budget."""
    together = {case.name: s for case, s in zip(ADVERSARIAL, tiny.score(ADVERSARIAL), strict=True)}
    shuffled = ADVERSARIAL.copy()
    random.Random(0).shuffle(shuffled)
    narrow = World(**{**vars(tiny), "scorer": narrow_scorer(tiny, 300)})
    alone = [narrow.score([case])[0] for case in shuffled[:10]]
    for case, score in [
        *zip(shuffled, tiny.score(shuffled), strict=True),
        *zip(shuffled, narrow.score(shuffled), strict=True),
        *zip(shuffled[:10], alone, strict=True),
    ]:
        assert score.reward == pytest.approx(together[case.name].reward, abs=2e-5)
        assert score.parts == pytest.approx(together[case.name].parts, abs=2e-5)


def narrow_scorer(world: World, tokens_per_batch: int) -> StudentScorer:
    return StudentScorer(
        world.scorer.student,
        world.scorer.layout,
        temperature=TEMPERATURE,
        tokens_per_batch=tokens_per_batch,
    )


def test_a_group_of_one_problem(tiny):
    """Explanations of one problem differ only by themselves; equal ones get equal scores."""
    group = [case for case in ADVERSARIAL if (case.question, case.solution) == ("What is 36 * 2?", "#### 72")]
    twice = tiny.score([*group, *group])
    assert len(group) > 20
    for one, other in zip(twice[: len(group)], twice[len(group) :], strict=True):
        assert one.reward == pytest.approx(other.reward, abs=2e-5)


def test_nothing_to_score(tiny):
    assert tiny.score([]) == []


def test_student_without_teacher(tiny):
    """`student_nll` never asks for the teacher: 3 * mean(-log p_S) + 0.03 * max(-log p_S)."""
    reward = one_student(narrow_scorer(tiny, 2048), replace(RELEASED, kl_estimator="student_nll"))
    case = next(case for case in ADVERSARIAL if case.name == "end_quote")
    explanation = tiny.teacher_layout.split(completion_ids(tiny.tokenizer, case))
    (score,) = reward.score([problem_of(case)], [explanation], [None])
    expected = expected_score(tiny.tokenizer, tiny.teacher, tiny.student, case)
    prefix = chat_ids(tiny.tokenizer, STUDENT_SYSTEM, case.question, "<|begin_of_thought|>\n\n")
    places = list(range(len(prefix), len(prefix) + len(expected.explanation)))
    nll = [-x for x in exact_logprobs(tiny.student, expected.student_ids, places)]
    assert score.parts["r_kl"] == pytest.approx(3 * fmean(nll) + 0.03 * max(nll), abs=1e-4)


def test_a_baseline_is_the_solution_after_an_empty_explanation(tiny):
    reward = one_student(tiny.scorer, replace(RELEASED, kl_estimator="student_nll", baseline=True))
    cases = [case for case in ADVERSARIAL if case.name in ("end_quote", "plain")] or ADVERSARIAL[:2]
    explanations = [tiny.teacher_layout.split(completion_ids(tiny.tokenizer, case)) for case in cases]
    found = reward.score([problem_of(case) for case in cases], explanations, [None] * len(cases))
    for case, score in zip(cases, found, strict=True):
        world = (tiny.tokenizer, tiny.teacher, tiny.student)
        alone = expected_score(*world, replace(case, explanation=0)).parts["r_ss"]
        assert score.parts["r_ss_baseline"] == pytest.approx(alone, abs=2e-5)
        change = expected_score(*world, case).parts["r_ss"] - alone
        assert abs(change) > 1e-3  # so that there is something to see
        assert score.parts["r_ss"] == pytest.approx(change, abs=4e-5)


def test_nan_in_the_student_is_no_number(tiny):
    """Upstream 7: NaN in the student's weights gave a normal-looking reward of -4.04."""
    broken = random_model(len(tiny.tokenizer), 2)
    broken.model.layers[0].self_attn.q_proj.weight[0, 0] = math.nan
    add_token_query(broken)
    scorer = narrow_scorer(tiny, 2048)
    scorer.student = Recording(broken, CPU, rests_on_cpu=False, collective=False)
    scores = World(**{**vars(tiny), "scorer": scorer}).score(ADVERSARIAL[:5])
    assert all(math.isnan(score.reward) and not is_scorable(score) for score in scores)
    assert all(is_scorable(score) for score in tiny.score(ADVERSARIAL))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_scorable(value):
    assert not is_scorable(Score(value, {}))
    assert is_scorable(Score(-3.5, {}))


def test_nothing_is_truncated(tiny_tokenizer):
    """Upstream 8: texts were cut at the tokenizer's model_max_length, spans came from the whole text."""
    short = deepcopy(tiny_tokenizer)
    short.model_max_length = 20
    case = next(case for case in ADVERSARIAL if case.name == "long_explanation")
    (cut_short,) = make_world(short, len(short)).score([case])
    (whole,) = make_world(tiny_tokenizer, len(short)).score([case])
    assert cut_short == whole
    assert whole.parts["explanation_tokens"] > 100


def test_a_better_student_pays_more(tiny):
    """The solution score rises when the student finds the solution likelier, and only then."""
    case = ADVERSARIAL[0]
    (before,) = tiny.score([case])
    likely = random_model(len(tiny.tokenizer), 2)
    add_token_query(likely)
    expected = expected_score(tiny.tokenizer, tiny.teacher, tiny.student, case)
    target = torch.tensor([expected.student_ids])
    likely.requires_grad_(True)
    optimizer = torch.optim.Adam(likely.parameters(), 1e-3)
    rows = torch.tensor(expected.solution_places)
    for _ in range(10):
        logits = likely(target).logits[0, rows - 1]
        torch.nn.functional.cross_entropy(logits, target[0, rows]).backward()
        optimizer.step()
        optimizer.zero_grad()
    scorer = narrow_scorer(tiny, 2048)
    scorer.student = Recording(likely, CPU, rests_on_cpu=False, collective=False)
    (after,) = World(**{**vars(tiny), "scorer": scorer}).score([case])
    assert after.parts["r_ss_mean"] > before.parts["r_ss_mean"] + 0.5


def test_closing_tag_is_the_layouts():
    assert BESPOKE.explanation.close == CLOSE


def test_a_thought_in_the_students_own_form_ends_as_the_form_says():
    """The teacher ends an explanation with a blank line, often inside its last token; Qwen3 thus.

    By hand: all tokens but the last are the sampled ones, and the last of each side are one chunk.
    """
    tokenizer = family_tokenizer("qwen3")
    layout = StudentLayout(tokenizer, NATIVE, "")
    model = random_model(len(tokenizer), 5)
    add_token_query(model)
    student = Recording(model, CPU, rests_on_cpu=False, collective=False)
    scorer = StudentScorer(student, layout, temperature=1.0, tokens_per_batch=2048)
    problem = Problem("p", "2+2?", "It is 4.")
    for end in ("4.\n\n", "4 .\n\n", "four\n\n", "4.", "four\n \n"):
        ids = encode(tokenizer, [Piece(f"So 2 + 2 = {end}")]).ids
        values = torch.arange(1.0, len(ids) + 1)
        [item] = scorer.measure([problem], [Explanation(tuple(ids), True, False)], [values])
        [request] = student.asked
        message = {
            "role": "assistant",
            "reasoning_content": f"So 2 + 2 = {end}".strip(),
            "content": "It is 4.",
        }
        chat = [{"role": "user", "content": "2+2?"}, message]
        written = tokenizer.apply_chat_template(chat, tokenize=True, return_dict=False)
        last = len(written) - written[::-1].index(tokenizer.eos_token_id)
        assert request.ids == written[:last]
        num_own = len(item.student_logprobs_T)
        assert item.teacher_logprobs_T is not None
        assert item.teacher_logprobs_T.sum() == values.sum()
        assert item.teacher_logprobs_T[:-1].tolist() == values[: num_own - 1].tolist()
        start = len(layout.prefix_ids(problem))
        assert request.ids[start : start + num_own - 1] == ids[: num_own - 1]
    [item] = scorer.measure([problem], [Explanation((), True, False)], [torch.zeros(0)])
    assert len(item.student_logprobs_T) == 0


def test_equal_problems_under_other_system_prompts_are_scored_apart(tiny_tokenizer, tiny):
    """Each row brings its own prompt (layout.student_prompt=from_dataset); a group's prefix is shared."""
    layout = StudentLayout(tiny_tokenizer, BESPOKE, None)
    reward = one_student(
        StudentScorer(tiny.scorer.student, layout, temperature=TEMPERATURE, tokens_per_batch=999)
    )
    rows = [Problem("a", "What is 1+1?", "2", system=system) for system in ("Think.", "Do not think.")]
    explanation = tiny.teacher_layout.split(text_ids(tiny_tokenizer, "one and one"))
    teacher = torch.zeros(len(explanation.token_ids))
    together = reward.score(rows, [explanation] * 2, [teacher] * 2)
    apart = [reward.score([row], [explanation], [teacher])[0] for row in rows]
    assert [s.reward for s in together] == pytest.approx([s.reward for s in apart], abs=1e-5)
    assert abs(apart[0].reward - apart[1].reward) > 1e-3

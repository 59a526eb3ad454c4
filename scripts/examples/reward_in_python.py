#!/usr/bin/env python3
"""The student-likelihood reward of two explanations, with a plain transformers model.

.venv/bin/python scripts/examples/reward_in_python.py STUDENT
"""

from __future__ import annotations

import sys

from transformers import AutoModelForCausalLM, AutoTokenizer

from rlt.rewards import StudentLikelihood

student = AutoModelForCausalLM.from_pretrained(sys.argv[1])
reward = StudentLikelihood(student, AutoTokenizer.from_pretrained(sys.argv[1]))
explanations = ["Six sevens are 42.", "No idea."]
scores = reward.score(["What is 6 * 7?"] * 2, ["42"] * 2, explanations)
for text, score in zip(explanations, scores, strict=True):
    print(f"{score.reward:+.3f}  r_SS {score.parts['r_ss']:+.3f}  r_KL {score.parts['r_kl']:+.3f}  {text}")

#!/usr/bin/env python3
"""Random samples for measuring: every answer is longer than the sequence, so that every place trains.

    python3 bench/make_tokens.py OUT.jsonl [SAMPLES] [LENGTH]

Characters are drawn Zipf-like from the printable ones, not uniformly: equal tokens meet in a batch as they do in text.
Half of the samples are correct. Standard library only; the same output every time.
"""
import json, random, sys

out = sys.argv[1]
samples = int(sys.argv[2]) if len(sys.argv) > 2 else 1024
length = int(sys.argv[3]) if len(sys.argv) > 3 else 256
rng = random.Random(1)
chars = [chr(c) for c in range(33, 127) if chr(c) not in '"\\']
weights = [1.0 / (i + 1) for i in range(len(chars))]
with open(out, "w") as f:
    for i in range(samples):
        text = "".join(rng.choices(chars, weights, k=length))
        f.write(json.dumps({"instruction": "", "output": text, "problem_id": f"p{i // 2}", "is_correct": i % 2 == 0,
                            "score": float(i % 2 == 0), "metadata": {"difficulty": 1}}) + "\n")

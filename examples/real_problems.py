"""Writes the problems of `make demo-real`: sums of two numbers from 10 to 60.

python examples/real_problems.py runs/smollm2/sums-0.jsonl --seed 0

870 of the 1,323 pairs, drawn by the seed: 250 to train, 120 to validation and 500 to test. No pair is in two splits, in either
order, and those of the prompt's solved examples are left out.
"""

import argparse
import json
import random
from pathlib import Path

SPLITS = {"train": 250, "validation": 120, "test": 500}
SOLVED = {(12, 37), (24, 28), (45, 51)}
"""The examples in the prompt of examples/real.toml."""


def problems(seed: int = 0) -> list[dict[str, object]]:
    """Rows with question, answer, split and difficulty: 2 where the ones carry, else 1."""
    drawn = random.Random(seed)
    pairs = [(a, b) for a in range(10, 61) for b in range(a, 61) if (a, b) not in SOLVED]
    chosen = drawn.sample(pairs, sum(SPLITS.values()))
    splits = [split for split, count in SPLITS.items() for _ in range(count)]
    rows: list[dict[str, object]] = []
    for pair, split in zip(chosen, splits, strict=True):
        a, b = drawn.sample(pair, 2)
        rows.append(
            {
                "id": f"{a}+{b}",
                "question": f"{a} + {b}",
                "answer": str(a + b),
                "split": split,
                "difficulty": 1 + (a % 10 + b % 10 >= 10),
            }
        )
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.path.parent.mkdir(parents=True, exist_ok=True)
    options.path.write_text("".join(json.dumps(row) + "\n" for row in problems(options.seed)))

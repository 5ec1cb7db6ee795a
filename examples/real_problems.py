"""Writes the problems of `make demo-real`: products of a number up to 40 and one up to 12.

python examples/real_problems.py runs/smollm2/products.jsonl

371 products, in a fixed order that a seed has shuffled: 111 to train, 60 to validation and 200 to test. No product stands in two splits,
the other way round either, and those of the prompt's solved examples are left out.
"""

import json
import random
import sys
from pathlib import Path

SHARES = {"train": 111, "validation": 60, "test": 200}
SOLVED = {(12, 7), (23, 4), (9, 6)}
"""The examples that stand in the prompt of examples/real.toml."""


def problems(seed: int = 0) -> list[dict[str, object]]:
    """Rows with question, answer, split and difficulty, which is 1 where both factors have one digit."""
    pairs = [(a, b) for a in range(2, 41) for b in range(2, min(a, 12) + 1) if (a, b) not in SOLVED]
    random.Random(seed).shuffle(pairs)
    splits = [split for split, count in SHARES.items() for _ in range(count)]
    return [
        {"id": f"{a}x{b}", "question": f"{a} * {b}", "answer": str(a * b), "split": split, "difficulty": 1 if a < 10 else 2}
        for (a, b), split in zip(pairs, splits, strict=True)
    ]


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in problems()))

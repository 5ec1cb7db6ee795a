"""Writes the problems of `make demo-real`: products of a number up to 25 and one up to 12 or a multiple of ten from 30 on.

python examples/real_problems.py runs/smollm2/products.jsonl

398 products, in a fixed order that a seed has shuffled: 130 to train, 64 to validation and 204 to test. No product stands in two
splits, the other way round either, and those of the prompt's solved examples are left out.
"""

import json
import random
import sys
from pathlib import Path

SHARES = {"train": 130, "validation": 64, "test": 204}
SOLVED = {(12, 7), (23, 4), (9, 6)}
"""The examples that stand in the prompt of examples/real.toml."""


def problems(seed: int = 0) -> list[dict[str, object]]:
    """Rows with question, answer, split and difficulty: 1 where both factors have one digit, else 2."""
    small = [(a, b) for a in range(2, 26) for b in range(2, min(a, 12) + 1) if (a, b) not in SOLVED]
    tens = [(a, b) for a in range(2, 26) for b in range(30, 101, 10)]
    pairs = small + tens
    random.Random(seed).shuffle(pairs)
    splits = [split for split, count in SHARES.items() for _ in range(count)]
    return [
        {
            "id": f"{a}x{b}",
            "question": f"{a} * {b}",
            "answer": str(a * b),
            "split": split,
            "difficulty": 1 if max(a, b) < 10 else 2,
        }
        for (a, b), split in zip(pairs, splits, strict=True)
    ]


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in problems()))

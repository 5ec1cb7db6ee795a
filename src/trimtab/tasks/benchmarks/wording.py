"""The wording of prompts that several benchmarks share."""

from trimtab.tasks.prompts import Prompt

BOXED = "{question}\nPlease reason step by step, and put your final answer within \\boxed{}."

MATH_THINKING = Prompt(template=BOXED, thinking="on")
"""AdaRAS: thinking mode, with the request for a box that Qwen's authors recommend."""

MATH = Prompt(template=BOXED)
"""The same for models without a thinking mode."""

CODE = Prompt(
    template="Solve this task in Python. Put the whole program, with its imports, into one ```python block.\n\n{question}",
    thinking="on",
)
CHOICE = Prompt(template='{question}\nThink step by step, then end with "The answer is X", where X is the letter of your choice.')
YES_NO = Prompt(template='{question}\nThink step by step, then end with "The answer is yes" or "The answer is no".')

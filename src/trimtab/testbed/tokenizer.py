"""The testbed's tokenizer: one token a word, a chat template that opens the ``<think>`` section, nothing else."""

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast

from trimtab.testbed.chains import CONNECTIVES, OPENING_WORDS, STOPS, THINK_END, VERBS
from trimtab.testbed.domains import COLOURS, COMPASS, CUPS, DAYS, DIGITS, DOMAINS, LABELS, MOVES, NAMES, TURNS
from trimtab.testbed.wordings import CLOSINGS, OPENINGS

PAD, UNKNOWN, USER, ASSISTANT, END, THINK = "<pad>", "<unk>", "<|user|>", "<|assistant|>", "<|end|>", "<think>"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message.role == 'assistant' %}<|assistant|> {{ message.content }} <|end|> "
    "{% else %}<|user|> {{ message.content }} <|end|> {% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|> <think>{% endif %}"
)


def vocabulary() -> list[str]:
    """Every word of the testbed once, in a fixed order."""
    words: list[str] = [PAD, UNKNOWN, USER, ASSISTANT, END, THINK, THINK_END, ":", "?"]
    for group in (
        OPENINGS,
        " ".join(CLOSINGS).split(),
        [d.header for d in DOMAINS.values()],
        LABELS,
        DIGITS,
        DAYS,
        COMPASS,
        TURNS,
        CUPS,
        NAMES,
        COLOURS,
        MOVES,
        OPENING_WORDS,
        CONNECTIVES,
        VERBS,
        STOPS,
    ):
        words += group
    return list(dict.fromkeys(words))


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A fast tokenizer over :func:`vocabulary`; decoding joins words with a space, so text round-trips."""
    ids = {word: i for i, word in enumerate(vocabulary())}
    core = Tokenizer(WordLevel(ids, unk_token=UNKNOWN))
    core.pre_tokenizer = WhitespaceSplit()  # type: ignore[assignment]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        unk_token=UNKNOWN,
        eos_token=END,
        additional_special_tokens=[USER, ASSISTANT],
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=512,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer

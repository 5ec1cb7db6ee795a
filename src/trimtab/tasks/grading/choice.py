"""The graders of choices and of yes and no: they read the last claim of a response."""

import re
from collections.abc import Iterator, Sequence
from string import ascii_uppercase

from trimtab.tasks.grading.claims import Claim, Read, claims_of, ends_clause, is_question, last_claim, prepared, said_by_others
from trimtab.tasks.grading.grader import Judgement
from trimtab.tasks.grading.text import NO_ANSWER, plain
from trimtab.traces import Problem, Score

AMBIGUOUS = Judgement(Score.INCORRECT, "no single answer found")
LETTERS_WHEN_UNKNOWN = 10

_WORD_FOR_ONE = (
    r"(?:the )?(?:(?:correct |right |best |final )?(?:option|choice|letter|answer|alternative|item|statement|"
    r"letter choice|answer choice)s?|\u9009\u9879)[ :]*"
)
_LETTER = r"[(\[{<]?(?P<letter>[A-Z])(?![A-Za-z0-9'\u2019_&])(?!\.[A-Z])[)\]}>]?"
_FIRST = re.compile(rf"(?:(?i:{_WORD_FOR_ONE}))?(?P<open>[(\[{{<]?)(?P<letter>[A-Z])(?![A-Za-z0-9'\u2019_&])(?!\.[A-Z])[)\]}}>]?")
_ALSO = re.compile(
    r"(?: ?(?:,|/|&|\+|\band\b|\bor\b|\bas well as\b|\bxor\b|\b(?:and|or) (?:possibly|maybe|perhaps|also)\b) ?|"
    rf" (?=[(\[][A-Z][)\]]))+(?i:{_WORD_FOR_ONE})?[(\[]?([A-Z])"
    r"(?![A-Za-z0-9'\u2019_&]| (?!and\b|or\b|both\b|together\b|equally\b|are\b)[a-z])[)\]]?"
)
_BEFORE = re.compile(
    r"(?i)(?:both |either |neither |none of |not (?:just |only )?|n['\u2019]t |anything but |all (?:of )?(?:but )?|(?:any|"
    r"one) of |between )"
)
_NOT = re.compile(r"(?i)(?:not (?!only|just)|never |n['\u2019]t |anything but )")
_LOWER = re.compile(r"[(\[]?([a-z])[)\].]*(?=\s*(?:[.,;!)\n]|$))")
_WORD_AFTER = re.compile(
    r" (?!(?:because|since|as|is|are|was|which|for|due|given|and|or|but|not|rather|instead|over|with|based|according|here|it|"
    r"that|this|by|so|in|"
    r"on|from|where|while|though|although|after|therefore|too|again|seems|fits|best|would|must|should|then)\b)[a-z]"
)
_DELIMITER = re.compile(r"[).:,\-\u2013\u2014\] ]*")
_GOOD = (
    r"(?:correct|right|best|true|answer|choice|option|solution|winner|match|fit|suitable|appropriate|accurate|valid|"
    r"only (?:one|option|choice) left|one|"
    r"my (?:answer|choice|pick)|it)"
)
_BAD = (
    r"(?:wrong|incorrect|false|out|eliminated|ruled out|excluded|invalid|impossible|discarded|rejected|untrue|a distractor|"
    r"a trap|inaccurate|"
    r"irrelevant|unlikely|implausible|tempting|close|plausible|bad)"
)
_IS = (
    r"(?:is|are|was|['\u2019]s|must be|should be|has to be|would be|will be|seems(?: to be)?|looks(?: to be)?|"
    r"appears(?: to be)?|remains|feels)"
)
_WORDS = (
    r"(?: (?:clearly|definitely|the|our|my|indeed|therefore|likely|probably|most|only|also|thus|obviously|certainly|a|an|"
    r"then|hence|in fact|all|both|"
    r"single|one|very|by far|of course|simply|just|actually|really))*"
)
_IS_GOOD = re.compile(
    rf"(?i)(?: ?[:\u2014-])? ?(?:{_IS}{_WORDS} {_GOOD}\b|(?:fits|works|matches|makes)\b(?: the)?(?: \w+)?(?: best|"
    r" most sense| well| perfectly)\b|it is\b|\u662f?(?:\u6b63\u786e|\u5bf9))"
)
_IS_BAD = re.compile(
    rf"(?i) ?(?:{_IS}{_WORDS} (?:not\b|{_BAD}\b)|(?:is|are|was|does|do|can|could|would)n['\u2019]t\b|(?:does|do|can|could|"
    r"would) not\b|cannot\b|fails\b|contradicts\b)"
)
_NO_NOUN = re.compile(r"(?i)\s+(?:about|that|if|for|when|to)\b")
_REJECTED = re.compile(r"(?i)\b(?:rule|ruled|ruling)(?: out)?|\b(?:eliminat|exclud|reject|discard|dismiss)\w*")
_LINE = re.compile(r"[^\n]+")
_LISTED = re.compile(r"[(\[]?([A-Z])(?:[)\].:]|\s|$)")
_PREDICATE = re.compile(
    r"(?i)\b(?:is|are|was|were|has|have|does|do|can|could|would|might|may|isn['\u2019]t|seems?|looks?|cannot|or|and|not|but)\b"
)
_SHORT_LINE = 120


class ChoiceGrader:
    """Correct when the last claim that stands names the gold option, by its letter or by its whole text.

    Letters go from A to the number of the problem's choices, to J where it has none. A hedge ("A or B") is incorrect, as is a
    response without a claim. An "A" or an "I" before a word is no letter. Letters that are rejected, that explain, or that a
    question or the opinion of others names do not count, nor do claims that are corrected later. The gold answer is a letter,
    an option's number from 0 where the problem has choices, or an option's text; with any other one the response is unscored.
    """

    def judge(self, answers: Sequence[tuple[Problem, str]]) -> list[Judgement]:
        """One judgement per (problem, response), in order."""
        return [_judge_choice(problem, response) for problem, response in answers]


def gold_letter(problem: Problem) -> str | None:
    """The letter of the gold option; None when the gold answer names none of the choices."""
    letters, gold = _letters_of(problem), problem.answer.strip()
    bare = re.fullmatch(r"(?i)(?:option |choice |answer:? ?)?[(\[]?([a-z])[)\].:]?", gold)
    if bare and bare[1].upper() in letters:
        return bare[1].upper()
    if gold.isdecimal() and int(gold) < len(problem.choices):
        return letters[int(gold)]
    named = _Options(problem).by_text(gold)
    return next(iter(named)) if len(named) == 1 else None


def _judge_choice(problem: Problem, response: str) -> Judgement:
    gold = gold_letter(problem)
    if gold is None:
        reason = f"the gold answer {problem.answer[:60]!r} names none of the {len(problem.choices)} choices"
        return Judgement(Score.UNSCORED, reason)
    named = claimed_letters(problem, response)
    if len(named) != 1:
        return AMBIGUOUS if named else NO_ANSWER
    (letter,) = named
    if letter not in _letters_of(problem):
        return NO_ANSWER
    if letter == gold:
        return Judgement(Score.CORRECT, "names the gold choice", letter)
    return Judgement(Score.INCORRECT, f"differs from the gold choice {gold}", letter)


def claimed_letters(problem: Problem, response: str) -> frozenset[str]:
    """The letters that the last claim of a response names: none, one, or several when it hedges."""
    text, options = prepared(response), _Options(problem)
    claims = [*claims_of(text, options.read), *_predicates(text, options), *_lone_lines(text, options)]
    return last_claim(claims)


def _letters_of(problem: Problem) -> str:
    return ascii_uppercase[: len(problem.choices) or LETTERS_WHEN_UNKNOWN]


class _Options:
    """The options of a problem, as a response may name them."""

    def __init__(self, problem: Problem) -> None:
        self.letters = _letters_of(problem)
        self.texts = [_folded(option) for option in problem.choices]

    def by_text(self, text: str) -> frozenset[str]:
        """The letter of the option with this text, when there is one such option."""
        wanted = _folded(text)
        same = [letter for letter, option in zip(self.letters, self.texts, strict=False) if option == wanted and option]
        return frozenset(same if len(same) == 1 else ())

    def read(self, text: str) -> Read | None:
        """What a text names at its beginning: letters, or an option's whole text, up to the end of a clause."""
        before = _BEFORE.match(text)
        shift = before.end() if before else 0
        negated = _NOT.match(text) is not None
        if whole := self._whole(text):
            return whole
        found = self._letters(text[shift:]) or self._whole(text[shift:])
        if found is None:
            return None
        if before and before[0].casefold().startswith(("neither", "none", "all of but")):
            return None
        return Read(found.named, shift + found.stop, negated)

    def _letters(self, text: str) -> Read | None:
        if lower := _LOWER.match(text):
            return Read(frozenset(lower[1].upper()), lower.end())
        lead = _FIRST.match(text)
        if lead is None:
            return None
        named, stop = {lead["letter"]}, lead.end()
        while also := _ALSO.match(text, stop):
            named.add(also[1])
            stop = also.end()
        rest = text[stop:].partition("\n")[0]
        with_text = self._whole(_DELIMITER.sub("", rest, count=1)) if len(named) == 1 else None
        own_text = with_text is not None and with_text.named == frozenset(named)
        if lead["letter"] in "AI" and not lead["open"] and _WORD_AFTER.match(rest) and not own_text:
            return None
        return Read(
            frozenset(named),
            stop + (len(rest) - len(_DELIMITER.sub("", rest, count=1)) + with_text.stop if own_text and with_text else 0),
        )

    def _whole(self, text: str) -> Read | None:
        """The option whose text stands here up to the end of a clause; several joined by "or" are all named."""
        line = text.partition("\n")[0]
        for stop in _clause_ends(line):
            if named := self.by_text(line[:stop]):
                joined = re.match(r"(?i)\s*,?\s*(?:or|and|/)\s+", line[stop:])
                more = self._whole(line[stop + joined.end() :]) if joined else None
                return Read(named | (more.named if more else frozenset()), stop)
            if re.search(r"(?i)\s(?:or|and)\s", line[:stop]):
                parts = [self.by_text(part) for part in re.split(r"(?i),?\s(?:or|and)\s", line[:stop])]
                if all(parts):
                    return Read(frozenset().union(*parts), stop)
        return None


def _folded(text: str) -> str:
    folded = re.sub(r"[\"'`\u2018\u2019\u201c\u201d*]", "", plain(text)).casefold()
    return re.sub(r"^(?:the|a|an) ", "", folded).strip()


def _clause_ends(line: str) -> list[int]:
    """Where the text of an option may end on a line, the longest first."""
    ends = [
        match.start()
        for match in re.finditer(
            r"[.,;:!)\]}]|\s+[-\u2013\u2014(]|\s+(?:because|since|as|or|and|is|which|not|for|due|given)\b", line
        )
    ]
    return sorted({len(line), *ends[:20], *ends[-20:]}, reverse=True)


def _predicates(text: str, options: _Options) -> Iterator[Claim]:
    """Letters that a sentence calls right or wrong: "C is correct", "(A) is out", "we can rule out B and D"."""
    for match in re.finditer(rf"(?<![A-Za-z0-9'\u2019]){_LETTER}", text):
        first = _joined_back(text, match.start())
        if first is not None and first != match.start():
            continue
        read = options.read(text[match.start() : match.start() + 200])
        if read is None:
            continue
        end = match.start() + read.stop
        if _is_rejected(text, match.start()) or _IS_BAD.match(text, end):
            yield Claim(match.start(), read.named, rejects=True)
            continue
        good = _IS_GOOD.match(text, end)
        asserted = good is not None and not _NO_NOUN.match(text, good.end())
        if asserted and not is_question(text, end) and not said_by_others(text, match.start()):
            yield Claim(match.start(), read.named)


def _is_rejected(text: str, start: int) -> bool:
    """Whether the sentence says before a place that it rules out what follows."""
    words = [*_REJECTED.finditer(text, max(0, start - 30), start)]
    return bool(words) and re.search(r"[.;:\n]|\b(?:leav|answer|so|but)", text[words[-1].end() : start]) is None


def _joined_back(text: str, start: int) -> int | None:
    """Where a list of letters begins that this letter belongs to: the B of "A or B" begins at A."""
    before = text[max(0, start - 40) : start]
    joined = re.search(
        r"(?:(?<![A-Za-z0-9])[(\[]?[A-Z][)\]]?\s*(?:,|/|&|\band\b|\bor\b|\bnor\b|\s)+\s*(?:option |choice )?)+$", before
    )
    return None if joined is None else start - len(joined[0])


def _lone_lines(text: str, options: _Options) -> Iterator[Claim]:
    """The first and the last line, and the last sentence, where they hold an option and little else."""
    lines = [*_LINE.finditer(text)]
    if not lines:
        return
    places = {lines[0].start(): lines[0][0]} if len(lines) == 1 or _stands_apart(text, lines[0]) else {}
    last = lines[-1]
    if len(lines) == 1 or not _is_listed(lines[-2][0], last[0]):
        places[last.start()] = last[0]
        sentence = re.search(r"(?<=[.!?])\s+([^.!?\s][^.!?]*[.!]?)\s*$", last[0])
        if sentence:
            places[last.start() + sentence.start(1)] = sentence[1]
    for start, line in places.items():
        if (found := _alone(line.strip(), options)) is not None:
            yield Claim(start, found)


def _stands_apart(text: str, line: re.Match[str]) -> bool:
    """A blank line follows, or the line is a letter and nothing else."""
    return text[line.end() : line.end() + 2] == "\n\n" or re.fullmatch(r"[(\[]?[A-Z][)\].]*", line[0].strip()) is not None


def _is_listed(earlier: str, line: str) -> bool:
    """Whether two lines are neighbours in a list of options, which claims none of them."""
    one, two = _LISTED.match(earlier.strip()), _LISTED.match(line.strip())
    return one is not None and two is not None and ord(two[1]) - ord(one[1]) == 1


def _alone(line: str, options: _Options) -> frozenset[str] | None:
    read = options.read(line)
    if read is None or read.negated or line.endswith("?"):
        return None
    rest = _DELIMITER.sub("", line[read.stop :], count=1).strip(" .!,")
    marked = re.match(rf"(?i:{_WORD_FOR_ONE})[(\[]?[A-Z]|[(\[][A-Z][)\]]|[A-Z][).:]", line) is not None
    short = len(line) <= _SHORT_LINE and not _PREDICATE.search(rest)
    reason = re.match(r"\s*[,:\u2014\u2013-]?\s*(?:because|since|as|due to)\b", line[read.stop :]) is not None
    if not rest or reason or options.by_text(rest) == read.named or (marked and short and not options.by_text(rest)):
        return read.named
    return None


MEANINGS = {
    **dict.fromkeys(
        (
            "yes",
            "true",
            "yep",
            "yeah",
            "yup",
            "correct",
            "right",
            "affirmative",
            "s\u00ed",
            "oui",
            "ja",
            "\u0434\u0430",
            "\u662f",
            "\u662f\u7684",
            "\u5bf9",
            "\u6b63\u786e",
            "\u306f\u3044",
        ),
        "yes",
    ),
    **dict.fromkeys(
        (
            "no",
            "false",
            "nope",
            "nah",
            "incorrect",
            "wrong",
            "negative",
            "untrue",
            "non",
            "nein",
            "\u043d\u0435\u0442",
            "\u5426",
            "\u4e0d\u662f",
            "\u4e0d\u5bf9",
            "\u9519\u8bef",
            "\u3044\u3044\u3048",
        ),
        "no",
    ),
}
_BARE = (
    "yes",
    "no",
    "true",
    "false",
    "yep",
    "yeah",
    "yup",
    "nope",
    "nah",
    "oui",
    "nein",
    "\u0434\u0430",
    "\u043d\u0435\u0442",
    "\u662f",
    "\u662f\u7684",
    "\u5426",
    "\u4e0d\u662f",
    "\u5bf9",
    "\u4e0d\u5bf9",
    "\u306f\u3044",
    "\u3044\u3044\u3048",
    "s\u00ed",
)
_OPPOSITE = {"yes": "no", "no": "yes"}
_ANY_WORD = "|".join(sorted(map(re.escape, MEANINGS), key=len, reverse=True))
_SOFT = (
    r"(?:(?:a|an|the|most|definitely|indeed|simply|clearly|probably|likely|certainly|absolutely|undoubtedly|surely|"
    r"obviously|of course|actually|overall|resounding|firm|clear|definite|strong|emphatic|big|in fact|still|technically|"
    r"also|then|therefore)\b,? ?)*"
)
_EMPHASIS = re.compile(
    r"(?i)\b(?:no|without (?:a |any )?|beyond (?:a |any )?(?:reasonable )?) ?(?:doubt|question)(?: about it| at all)?,?\b"
)
_WORD_HERE = re.compile(
    rf"(?i)\(?{_SOFT}\(?(?P<word>{_ANY_WORD})(?![\w'\u2019-]|[\u4e00-\u9fff])(?! (?:one|longer|more|single|way|matter|doubt|"
    r"such|idea|need|reason|evidence|know|clear|answer|definitive|to)\b)\)?"
)
_ALSO_WORD = re.compile(
    r"(?i)(?:\s*(?:,|/|\band\b|\bor\b|\bbut also\b|\band also\b|"
    rf"\bas well as\b))+\s*{_SOFT}(?P<word>{_ANY_WORD})(?![\w'\u2019-]| (?!and\b|or\b|depending\b|at\b|both\b)[a-z])"
)
_NOT_HERE = re.compile(r"(?i)(?:not|n['\u2019]t|never)\b ?(?:really |quite |at all |entirely |a |an )?")
_EMPHATIC_NO = re.compile(
    r"(?i)(?:definitely|certainly|absolutely|probably|of course|most certainly|surely|obviously|clearly) not(?=\s*(?:[.,;:!]|$))"
)
_EMPHATIC_YES = re.compile(
    r"(?i)(?:definitely|certainly|absolutely|of course|indeed|undoubtedly|affirmative)(?=\s*(?:[.,;:!]|$))"
)
_STATEMENT = re.compile(
    r"(?i)\b(?:the|this|that|your|given|above|following|said|its)? ?(?:statement|claim|proposition|assertion|sentence|"
    r"premise|hypothesis|conclusion|conjecture|belief|idea|theorem|"
    r"question's premise|(?P<it>it|this|that|which))\s*"
    r"(?:(?:is|was|must be|should be|has to be|would be|seems|appears|turns out(?: to be)?|holds|evaluates to|['\u2019]s)\b|"
    r"(?=(?:is|was|does)n['\u2019]t))"
    r"(?: (?:therefore|thus|hence|clearly|definitely|indeed|simply|actually|overall|also|in fact|certainly|obviously|"
    r"logically|factually|to be|so|then))*"
    r"(?P<not> (?:not|never)\b| ?(?:is|was)n['\u2019]t\b)? (?P<word>true|false|correct|incorrect|right|wrong|untrue|accurate|"
    r"inaccurate|valid|invalid)\b"
)
_TRUTH = {"accurate": "yes", "inaccurate": "no", "valid": "yes", "invalid": "no"}
_SENTENCE_START = re.compile(
    r"(?i)(?:(?:so|thus|therefore|hence|in conclusion|overall|finally|in short|well|oh|ultimately|to conclude|in summary|"
    rf"conclusion|and so|then),?:? ?)*{_SOFT}\(?"
    rf"(?P<word>{'|'.join(sorted(_BARE, key=len, reverse=True))})(?![\w'\u2019-])\)?(?=[ \t]*(?:[,.:;!\u2014)\n-]|$|\(|/|"
    r"(?:and|or|because|since|as|but)\b))"
)


class YesNoGrader:
    """Correct when the last claim that stands says what the gold answer says; true counts as yes and false as no.

    Claims are those of :class:`ChoiceGrader`, "the statement is true", and a first or last sentence that starts with the word and
    a comma or a full stop. "Yes and no" is incorrect, and so is a response without a claim. With a gold answer that is none of
    the four words the response is unscored.
    """

    def judge(self, answers: Sequence[tuple[Problem, str]]) -> list[Judgement]:
        """One judgement per (problem, response), in order."""
        return [_judge_yes_no(problem, response) for problem, response in answers]


def _judge_yes_no(problem: Problem, response: str) -> Judgement:
    gold = {"yes": "yes", "true": "yes", "no": "no", "false": "no"}.get(problem.answer.strip().casefold())
    if gold is None:
        return Judgement(Score.UNSCORED, f"the gold answer {problem.answer[:60]!r} is neither yes nor no")
    named = claimed_words(response)
    if len(named) != 1:
        return AMBIGUOUS if named else NO_ANSWER
    (word,) = named
    if word == gold:
        return Judgement(Score.CORRECT, "equals the gold answer", word)
    return Judgement(Score.INCORRECT, f"differs from the gold answer {gold}", word)


def claimed_words(response: str) -> frozenset[str]:
    """What the last claim of a response says: ``yes``, ``no``, both when it hedges, or nothing."""
    text = _EMPHASIS.sub("", prepared(response)).lstrip(" :,;-")
    claims = [*claims_of(text, _read_word), *_truths(text), *_first_and_last(text)]
    return last_claim(claims)


def _read_word(text: str) -> Read | None:
    if emphatic := _EMPHATIC_NO.match(text):
        return Read(frozenset({"no"}), emphatic.end())
    negated = _NOT_HERE.match(text)
    shift = negated.end() if negated else re.match(r"(?i)(?:both |either |neither )?", text).end()  # type: ignore[union-attr]
    found = _WORD_HERE.match(text, shift)
    if found is None:
        emphatic = _EMPHATIC_YES.match(text)
        return Read(frozenset({"yes"}), emphatic.end()) if emphatic else None
    named = {MEANINGS[found["word"].casefold()]}
    stop = found.end()
    if also := _ALSO_WORD.match(text, stop):
        named.add(MEANINGS[also["word"].casefold()])
        stop = also.end()
    return Read(frozenset(named), stop, negated is not None)


def _truths(text: str) -> Iterator[Claim]:
    """ "The statement is false", up to the end of a clause; "it is correct" may speak of the answer itself and says nothing."""
    for match in _STATEMENT.finditer(text):
        word = match["word"].casefold()
        if match["it"] and word not in ("true", "false", "untrue"):
            continue
        if is_question(text, match.end()) or said_by_others(text, match.start()) or not ends_clause(text, match.end()):
            continue
        meaning = _TRUTH.get(word) or MEANINGS[word]
        yield Claim(match.start(), frozenset({_OPPOSITE[meaning] if match["not"] else meaning}))


def _first_and_last(text: str) -> Iterator[Claim]:
    """The first sentence of the text, and the last line and its last sentence, where they start with the word."""
    starts = {0, text.rfind("\n") + 1}
    if sentence := re.search(r"(?<=[.!?])\s+(?=[^.!?\s][^.!?\n]*[.!]?\s*$)", text):
        starts.add(sentence.end())
    for start in starts:
        match = _SENTENCE_START.match(text, start)
        if match is None or is_question(text, match.end()):
            continue
        named = {MEANINGS[match["word"].casefold()]}
        if also := _ALSO_WORD.match(text, match.end()):
            named.add(MEANINGS[also["word"].casefold()])
        yield Claim(start, frozenset(named))

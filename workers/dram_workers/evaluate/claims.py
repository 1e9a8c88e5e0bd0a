"""What an embedder cannot see: numbers, codes and negation of an answer against its reference.

Sentence embedders put "5 euros" beside "50 euros" and "you can cancel" beside "you cannot cancel". These rules are
literal and err on the strict side; docs/design/evaluation.md lists them with examples.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal

_SMALL_NUMBERS = """two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
seventeen eighteen nineteen twenty"""
_ROUND_NUMBERS = {"thirty": "30", "forty": "40", "fifty": "50", "sixty": "60", "hundred": "100", "thousand": "1000"}
_WORDS = {word: str(number) for number, word in enumerate(_SMALL_NUMBERS.split(), start=2)} | _ROUND_NUMBERS
"""Numbers written as words; `one` is left out, as it is a pronoun as well."""

_LIST_MARKER = re.compile(r"^\s*(?:\d{1,2}[.)]|[-*•])\s+", re.MULTILINE)
_ADDRESS = re.compile(r"(?:https?://|www\.)[^\s<>\"']+|[\w.+-]+@[\w-]+(?:\.[\w-]+)+", re.IGNORECASE)
_CODE = re.compile(r"[*#][\w*#]*|(?<!\w)[A-Za-z][\w/-]*|\d{1,2}:\d{2}(?::\d{2})?")
_LONG_DIGITS = re.compile(r"(?<!\w)\+?\d(?:[ ()/-]{0,2}\d){6,}(?!\w)")
_NUMBER = re.compile(r"(?<![\w.,])[-−]?\d+(?:[.,]\d+)*|\d+(?:[.,]\d+)*")
_THOUSANDS = re.compile(r"\d{1,3}(?:,\d{3})+")
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")


def figures(text: str) -> frozenset[str]:
    """Every number and code of a text, in one spelling each.

    Codes hold a letter or sign before a digit (`E502`, `WPA2`, `*100#`), or are times, addresses or runs of at least
    seven digits; a number keeps neither its unit nor its spelling (`9,90` is `9.9`, `1,000` is `1000`, `five` is `5`).
    """
    rest = _LIST_MARKER.sub(" ", text)
    found: set[str] = set()
    for pattern, spell in ((_ADDRESS, _plain), (_LONG_DIGITS, _digits), (_CODE, _plain), (_NUMBER, _number)):
        found.update(spell(match) for match in pattern.findall(rest) if pattern is not _CODE or _has_digit(match))
        rest = pattern.sub(lambda match: match[0] if match.re is _CODE and not _has_digit(match[0]) else " ", rest)
    found.update(_WORDS[word] for word in re.findall(r"[a-z]+", rest.casefold()) if word in _WORDS)
    return frozenset(found)


def _has_digit(text: str) -> bool:
    return any(character.isdecimal() for character in text)


def _plain(text: str) -> str:
    return text.casefold().rstrip(".,;:!?)/-")


def _digits(text: str) -> str:
    return re.sub(r"\D", "", text)


def _number(text: str) -> str:
    text = text.replace("−", "-")
    if _THOUSANDS.fullmatch(text.lstrip("-")):
        text = text.replace(",", "")
    parts = text.replace(",", ".").split(".")
    if len(parts) > 2:
        return ".".join(parts)
    return format(Decimal(".".join(parts)).normalize(), "f")


_NEGATOR_WORDS = """no not never none nothing nobody neither nor without cannot unable impossible cant wont dont doesnt
isnt arent nicht kein keine keinen keinem keiner keines nie niemals ohne weder nichts"""
_NEGATORS = frozenset(_NEGATOR_WORDS.split())
_IDIOMS = re.compile(
    r"\b(?:not only|no (?:problem|worries|doubt)|(?:do not|don['’]t) (?:worry|hesitate)|why not|if not|whether or not|"
    r"not to mention|nicht nur|kein problem)\b",
    re.IGNORECASE,
)
_EMPTY_WORDS = """a an the any to be been being is are was were am do does did done have has had having will would shall
should can could may might must need able possible you your we our i my me us they their it its he she his her this that
these those there here of for in on at by with from as and or but so if then than when while also just only even still
yet very really always currently more longer please get make let
der die das ein eine einen einem sie ihr ihre wir ich es ist sind war wird werden kann können zu und oder auch nur mehr
noch"""
_FUNCTION_WORDS = frozenset(_EMPTY_WORDS.split())
"""Words that a negation passes over to reach what it denies."""
_SCOPE_WORDS = 5
_STEM_ENDINGS = ("ations", "ation", "ings", "ing", "ied", "ies", "ed", "es", "s", "e", "y")


@dataclass(frozen=True)
class Polarity:
    """Which words a text denies and which it affirms, as stems."""

    denied: frozenset[str]
    affirmed: frozenset[str]
    denies: bool
    """Whether it denies anything at all."""


def polarity(text: str) -> Polarity:
    """Read negations with their scope: the first content word behind a negator, within five words of its clause."""
    denied: set[str] = set()
    affirmed: set[str] = set()
    denies = False
    for clause in re.split(r"[.!?;:,\n()]+", _IDIOMS.sub(" ", text)):
        open_words = 0
        for word, negates in _words(clause):
            if negates:
                denies, open_words = True, _SCOPE_WORDS
                continue
            content = word not in _FUNCTION_WORDS
            if content and open_words:
                denied.add(_stem(word))
                open_words = 0
            elif content:
                affirmed.add(_stem(word))
            open_words = max(0, open_words - 1)
    return Polarity(frozenset(denied), frozenset(affirmed), denies)


def _words(clause: str) -> Iterator[tuple[str, bool]]:
    for match in _WORD.findall(clause.casefold().replace("’", "'")):
        negates = match in _NEGATORS or match.endswith("n't") or match.replace("'", "") in _NEGATORS
        yield match.split("'")[0], negates


def _stem(word: str) -> str:
    for ending in _STEM_ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word


def same_figures(reference: str, answer: str, prompt: str) -> bool:
    """Every number and code of the reference stands in the answer, and the answer has no other but the prompt's."""
    wanted, given = figures(reference), figures(answer)
    return wanted <= given <= wanted | figures(prompt)


def same_polarity(reference: str, answer: str) -> bool:
    """Both deny something or neither does, and no word that one only denies is only affirmed by the other."""
    ours, theirs = polarity(reference), polarity(answer)
    if ours.denies != theirs.denies:
        return False
    contradicted = (ours.denied - ours.affirmed) & (theirs.affirmed - theirs.denied)
    contradicted |= (theirs.denied - theirs.affirmed) & (ours.affirmed - ours.denied)
    return not contradicted

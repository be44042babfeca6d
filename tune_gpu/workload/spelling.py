"""Normalise the spelling of texts in every language but English, so that different spellings of the same speech become equal.

Whisper's own normaliser for these languages removes every Unicode mark (category M). In the scripts of India, Thailand, Burma and others
that removes vowels: it splits words and makes different words equal (Manohar et al., "What is lost in Normalization?", EMNLP 2024). Here
marks stay, except those that a language's readers do without: Arabic vowel points and tatweel, Hebrew points.

Numbers keep their form; only the digits of all scripts become 0 to 9. Letters that only some speakers pronounce alike stay different:
Arabic alef forms, Russian e and yo, simplified and traditional Chinese.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping

import regex

from tune_gpu.config.languages import WITHOUT_BLANKS

_ELIDING = frozenset({"ca", "fr", "ht", "it", "lb", "oc"})
"""Languages in which an apostrophe ends a word: l'eau is two words."""
_APOSTROPHE_IS_A_LETTER = frozenset({"be", "br", "ha", "haw", "he", "ln", "mi", "mt", "sn", "so", "sw", "uk", "uz", "yi"})
"""Languages in which an apostrophe is a sound of its own. In all others it is dropped and its word stays whole: geht's, İstanbul'da."""

_APOSTROPHES = regex.compile(r"['’‘ʼʻʹ′`´՚׳＇]")
_BRACKETS = regex.compile(r"[<\[][^>\]]*[>\]]|\([^)]+?\)")
"""Text in brackets is not spoken. Whisper's normalisers remove it in the same way."""
_INVISIBLE = regex.compile(r"[\p{Default_Ignorable_Code_Point}\p{Cf}\p{Me}]+")
_NOT_SAID = regex.compile(r"[^\p{L}\p{M}\p{N}'\u104c-\u104f]+")
"""Punctuation, symbols, blanks. Four signs of Burmese (U+104C to U+104F) are punctuation to Unicode, and words to a reader."""
_STRAY_MARKS = regex.compile(r"(?<![\p{L}\p{M}\p{N}\u104c-\u104f])\p{M}+")
_AM = regex.compile(r"([\u0e4d\u0ecd])([\u0e48-\u0e4b\u0ec8-\u0ecb]?)([\u0e32\u0eb2])([\u0e48-\u0e4b\u0ec8-\u0ecb]?)")
_WITHIN_WORDS = {
    "ar": r"[\u0640\u0610-\u061a\u064b-\u0652\u0670\u06d6-\u06ed]", "he": r"[\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7]",
    "hy": r"[\u055b\u055c\u055e\u055f]",  # accent, exclamation and question mark stand on a vowel, in the middle of the word
}  # fmt: skip
"""Marks within a word that readers of the language do without, or that are not part of the word."""
_WITHIN_WORDS |= dict.fromkeys(("fa", "ps", "sd", "ur"), _WITHIN_WORDS["ar"])
_SAME_LETTERS: dict[str, Mapping[int, str | int]] = {
    # Two encodings of one letter, or a ligature that many keyboards lack.
    "fr": {ord("œ"): "oe", ord("æ"): "ae"}, "ro": str.maketrans("şţ", "șț"), "fa": str.maketrans("يك", "یک"), "ur": str.maketrans("يك", "یک"),
}  # fmt: skip
_JOINED = {
    # A letter written as several: with a joiner before Unicode had it (Malayalam chillus, the Bengali khanda ta).
    "\u0d23\u0d4d\u200d": "\u0d7a", "\u0d28\u0d4d\u200d": "\u0d7b", "\u0d30\u0d4d\u200d": "\u0d7c", "\u0d32\u0d4d\u200d": "\u0d7d",
    "\u0e40\u0e40": "\u0e41", "\u0ec0\u0ec0": "\u0ec1",  # Thai and Lao ae, typed as e twice
    "\u0d33\u0d4d\u200d": "\u0d7e", "\u0d15\u0d4d\u200d": "\u0d7f", "\u09a4\u09cd\u200d": "\u09ce",
}  # fmt: skip


def one_spelling(text: str, language: str) -> str:
    """Return the words of a text, separated by one blank, without case and punctuation, each letter in one encoding."""
    text = _BRACKETS.sub(" ", unicodedata.normalize("NFKC", _APOSTROPHES.sub("'", text)))
    text = _without_case(text, language)
    for joined, letter in _JOINED.items():
        text = text.replace(joined, letter)
    text = _INVISIBLE.sub("", text.replace("\u200b", " "))
    if language in _WITHIN_WORDS:
        text = regex.sub(_WITHIN_WORDS[language], "", text)
    text = _apostrophes(text, language).translate(_SAME_LETTERS.get(language, {}))
    text = "".join(str(unicodedata.decimal(letter, letter)) for letter in _whole_am(text))
    return " ".join(_STRAY_MARKS.sub("", _NOT_SAID.sub(" ", text)).split())


def characters(text: str) -> list[str]:
    """Return the characters of a text as a reader counts them (grapheme clusters, Unicode Standard Annex 29), without blanks."""
    return [cluster for cluster in regex.findall(r"\X", text) if not cluster.isspace()]


def _without_case(text: str, language: str) -> str:
    if language in ("tr", "az"):  # the capital of i is İ, and that of ı is I
        text = text.replace("İ", "i").replace("I", "ı")
    return unicodedata.normalize("NFKC", text.casefold())


def _apostrophes(text: str, language: str) -> str:
    """Keep each apostrophe, drop it or replace it by a blank, as the language requires."""
    if language in ("he", "yi"):  # gershayim, within an abbreviation
        text = regex.sub(r"(?<=\p{L})[\"״”](?=\p{L})", "", text)
    if language in _APOSTROPHE_IS_A_LETTER:
        around = r"(?<![\p{L}\p{M}])'(?!\p{L})" if language == "haw" else r"(?<![\p{L}\p{M}])'"
        return regex.sub(around, " ", text)
    within = " " if language in _ELIDING else ""
    text = regex.sub(r"(?<=[\p{L}\p{M}])'(?=\p{L})", within, text).replace("'", " ")
    return regex.sub(r"(?<=l)[·‧](?=l)", "'", text) if language == "ca" else text  # col·lecció


def _whole_am(text: str) -> str:
    """Write Thai and Lao am as the single letter that is typed, after its tone mark. NFKC splits it, and the mark may be typed anywhere."""
    return _AM.sub(lambda found: found[2] + found[4] + chr(ord(found[3]) + 1), unicodedata.normalize("NFC", text))


def units(text: str, language: str) -> list[str]:
    """Return the units in which errors are counted: the words of a text, or its characters where blanks do not separate words.

    A Latin word or a number within Chinese counts by its letters too, as a character error rate usually does (the Open ASR Leaderboard does
    so). A mixed error rate, the other practice, would count such a word once.
    """
    spelled = one_spelling(text, language)
    return characters(spelled) if language in WITHOUT_BLANKS else spelled.split()

"""The languages in which errors of recognition are counted: their codes (Whisper's), their names, and whether blanks separate their words."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

from tune_gpu.common.errors import UserError

if TYPE_CHECKING:
    from tune_gpu.config.schema import ExperimentConfig, WorkloadSettings

LANGUAGES = {
    "af": "Afrikaans", "am": "Amharic", "ar": "Arabic", "as": "Assamese", "az": "Azerbaijani", "ba": "Bashkir", "be": "Belarusian",
    "bg": "Bulgarian", "bn": "Bengali", "bo": "Tibetan", "br": "Breton", "bs": "Bosnian", "ca": "Catalan", "cs": "Czech", "cy": "Welsh",
    "da": "Danish", "de": "German", "el": "Greek", "en": "English", "es": "Spanish", "et": "Estonian", "eu": "Basque", "fa": "Persian",
    "fi": "Finnish", "fo": "Faroese", "fr": "French", "gl": "Galician", "gu": "Gujarati", "ha": "Hausa", "haw": "Hawaiian", "he": "Hebrew",
    "hi": "Hindi", "hr": "Croatian", "ht": "Haitian Creole", "hu": "Hungarian", "hy": "Armenian", "id": "Indonesian", "is": "Icelandic",
    "it": "Italian", "ja": "Japanese", "jw": "Javanese", "ka": "Georgian", "kk": "Kazakh", "km": "Khmer", "kn": "Kannada", "ko": "Korean",
    "la": "Latin", "lb": "Luxembourgish", "ln": "Lingala", "lo": "Lao", "lt": "Lithuanian", "lv": "Latvian", "mg": "Malagasy",
    "mi": "Maori", "mk": "Macedonian", "ml": "Malayalam", "mn": "Mongolian", "mr": "Marathi", "ms": "Malay", "mt": "Maltese",
    "my": "Burmese", "ne": "Nepali", "nl": "Dutch", "nn": "Nynorsk", "no": "Norwegian", "oc": "Occitan", "pa": "Punjabi", "pl": "Polish",
    "ps": "Pashto", "pt": "Portuguese", "ro": "Romanian", "ru": "Russian", "sa": "Sanskrit", "sd": "Sindhi", "si": "Sinhala",
    "sk": "Slovak", "sl": "Slovenian", "sn": "Shona", "so": "Somali", "sq": "Albanian", "sr": "Serbian", "su": "Sundanese",
    "sv": "Swedish", "sw": "Swahili", "ta": "Tamil", "te": "Telugu", "tg": "Tajik", "th": "Thai", "tk": "Turkmen", "tl": "Tagalog",
    "tr": "Turkish", "tt": "Tatar", "uk": "Ukrainian", "ur": "Urdu", "uz": "Uzbek", "vi": "Vietnamese", "yi": "Yiddish", "yo": "Yoruba",
    "yue": "Cantonese", "zh": "Chinese",
}  # fmt: skip
"""Code -> name, of every language in faster-whisper's tokenizer (a test compares them)."""

WITHOUT_BLANKS = frozenset({"bo", "ja", "km", "lo", "my", "th", "yue", "zh"})
"""Languages whose writing does not part words by blanks. Whisper itself splits six of them by character; Khmer and Tibetan are written alike."""

_MEANT = {
    # Country codes that are taken for language codes, older or other ISO 639 codes, and other names.
    "al": "sq", "bd": "bn", "by": "be", "cn": "zh", "cz": "cs", "dk": "da", "ee": "et", "gb": "en", "ge": "ka", "gr": "el", "hk": "yue",
    "il": "he", "in": "hi", "ir": "fa", "jp": "ja", "kh": "km", "kr": "ko", "kz": "kk", "mm": "my", "np": "ne", "ph": "tl", "pk": "ur",
    "rs": "sr", "se": "sv", "tj": "tg", "tw": "zh", "ua": "uk", "us": "en", "vn": "vi", "at": "de", "mx": "es",
    "fil": "tl", "iw": "he", "ji": "yi", "jv": "jw", "mo": "ro", "nb": "no", "cmn": "zh", "gre": "el", "ger": "de", "deu": "de",
    "fre": "fr", "fra": "fr", "spa": "es", "jpn": "ja", "chi": "zh", "zho": "zh", "kor": "ko", "por": "pt", "dut": "nl", "nld": "nl",
    "cze": "cs", "ces": "cs", "swe": "sv", "ukr": "uk", "tur": "tr", "pol": "pl", "ell": "el", "heb": "he", "mya": "my", "bur": "my",
    "mandarin": "zh", "deutsch": "de", "castilian": "es", "farsi": "fa", "flemish": "nl", "valencian": "ca", "moldovan": "ro", "myanmar": "my",
    "sinhalese": "si", "pushto": "ps", "panjabi": "pa", "filipino": "tl", "haitian": "ht", "bokmal": "no", "bokmål": "no",
}  # fmt: skip


def error_unit(language: str) -> str:
    """Return the unit in which recognition errors are counted: `word`, or `character` where blanks do not separate words."""
    return "character" if language in WITHOUT_BLANKS else "word"


def rate_name(unit: str | None) -> str:
    """Return the usual name of the error rate in this unit. None means words: a result from before the unit was recorded."""
    return "CER" if unit == "character" else "WER"


def spoken_language(config: ExperimentConfig) -> str:
    """Return the language of the clips. Their references decide how errors are counted, whatever language a recogniser is set to."""
    audio = config.workload.audio
    if config.workload.has_sample_clips:
        return "en"
    return audio.language or next((settings.language for _, settings in config.services.items() if hasattr(settings, "language")), "en")


def check_clips(workload: WorkloadSettings, service: str, *, varies: bool) -> None:
    """Raise UserError if the language of the clips is unknown. `varies` is True if a knob sets the language of this service."""
    if varies and not workload.has_sample_clips and workload.audio.language is None:
        raise UserError(f"workload.audio.language: {service}.language varies, so it does not say what the clips are spoken in. Give their language's code.")


def unquoted(value: bool) -> str:
    """Return advice about a text that YAML has read as a truth value (Norway's code, for example)."""
    words, one = ("yes, on or true", "yes") if value else ("no, off or false", "no")
    return f"""YAML reads {words} without quotes as {str(value).lower()}. Write it in quotes: "{one}" (in a shell KEY='"{one}"')."""


def check_language(key: str, value: Any) -> str:
    """Return the code if faster-whisper accepts it. Raise UserError that suggests the code that was probably meant."""
    if isinstance(value, bool):
        raise UserError(f"{key}: {unquoted(value)}")
    if value is None or value in ("", "auto"):
        raise UserError(f"{key}: the language is not detected, because errors are counted by its rules. Give its code, en say.")
    if value not in LANGUAGES:
        raise UserError(f"{key}={value}: no known language code. {_advice(str(value))}")
    return str(value)


def _advice(given: str) -> str:
    lowered = given.casefold().strip()
    by_name = {name.casefold(): code for code, name in LANGUAGES.items()}
    first = lowered.replace("_", "-").partition("-")[0]
    for word in (lowered, first):
        if code := (word if word in LANGUAGES else _MEANT.get(word) or by_name.get(word)):
            return f"Use {code} ({LANGUAGES[code]})."
    if near := difflib.get_close_matches(lowered, [*by_name, *LANGUAGES], n=1, cutoff=0.6):
        code = by_name.get(near[0], near[0])
        return f"Did you mean {code} ({LANGUAGES[code]})? Known are {', '.join(LANGUAGES)}."
    return f"Known are {', '.join(LANGUAGES)}."

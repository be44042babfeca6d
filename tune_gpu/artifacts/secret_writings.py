"""Find secrets in a text: every encoding of a known value, tokens of known issuers, and values beside the name of a secret."""

from __future__ import annotations

import base64
import itertools
import json
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache

from tune_gpu.artifacts.secret_names import is_secret

REDACTED = "<redacted>"
SHORTEST = 6
"""Shortest value that is removed everywhere. A shorter one is redacted only beside its name, because removing it everywhere would destroy
ordinary text."""
_SHORTEST_PART = 8
"""Shortest part of a truncated secret that is removed at the end or the beginning of a text."""
_PIECE = 64
"""Length of the pieces of longer values that are searched for, to also find values that were cut or wrapped."""
ORDINARY = {"enabled", "disabled", "default", "required", "optional", "redacted", "unlimited"}
"""Ordinary words that may be the value of a variable with a secret's name."""

_BREAK = r"(?:\\{0,4}[ \t]{0,8}(?:\r?\n|\\{1,4}n)[ \t]{0,80})?"
"""Line break within a long value, with the characters by which YAML and shells continue a line."""

_SHAPES = re.compile(
    r"""-----BEGIN[ ][A-Z ]*PRIVATE[ ]KEY-----[\s\S]*?(?:-----END[ ][A-Z ]*PRIVATE[ ]KEY-----|\Z)
    |\beyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)?
    |\b(?:hf|npm|gsk|r8|rpa|ntn)_[A-Za-z0-9]{16,}
    |\b(?:glpat|gl[a-z]{2,5}t|gloas|nvapi|xai|tvly|pplx|wandb_v1|pypi|dckr_pat|dop_v1|shp(?:at|ss|ca)|lin_api|figd|hvs|hvb|PMAK)[_.-](?=[\w.-]{0,200}\d)[\w.-]{16,}
    |\b(?:sk|rk|pk)[-_](?=[\w-]{0,200}\d)[\w-]{16,}
    |\b(?:gh[pousr]_\w{20,}|github_pat_\w{20,}|whsec_[\w+/=]{16,}|ya29\.[\w-]{16,}|AIza[\w-]{30,}|SG\.[\w-]{16,}\.[\w-]{16,})
    |\b(?:xox[a-z]|xapp)-[\w-]{10,}
    |\b(?:AKIA|ASIA|AROA|AIDA)[A-Z0-9]{16}\b
    |\b\d{8,10}:[\w-]{35}\b
    |(?<=hooks\.slack\.com/services/)[\w/]+
    |(?<=/api/webhooks/)\d+/[\w-]+
    |(?<=AccountKey=)[\w+/=]+""",
    re.VERBOSE,
)
_OF_URL = re.compile(r"(?P<scheme>\b[a-z][a-z0-9+.-]{0,30}://)(?P<who>[^\s/:@\"'<>]{0,200}:(?!\d+[/\s])[^\s\"'<>]{1,500}|[^\s/:@\"'<>]{16,500})@", re.IGNORECASE)
"""The user and password of a URL, up to the last `@`: a password may contain a slash and an `@` itself."""
_SIGNED = {"sig", "signature", "key", "code", "sas", "pass", "pwd", "x-amz-signature", "x-amz-credential", "x-goog-signature", "x-goog-credential"}
_QUERY = re.compile(r"(?P<before>[?&;](?P<name>[\w.\-]+)=)(?P<value>[^&\s\"'<>#;]+)")
_SCHEME = re.compile(r"(?P<before>\b(?:Bearer|Basic)[ ]+)(?P<value>(?=\S{0,200}\d)[\w.~+/=\-]{8,}|[\w.~+/=\-]{16,})", re.IGNORECASE)
_AFTER_SCHEME = re.compile(r"^(?:Bearer|Basic|Token)[ ]+(.+)", re.IGNORECASE)
_QUOTED = r"\"(?:\\.|[^\"\\])*\"|'(?:''|\\.|[^'\\])*'"
_NAMED = re.compile(
    rf"""(?P<before>(?P<quote>\\?["']?)(?<![\w])(?P<name>-{{0,2}}[A-Za-z][\w.\-]{{0,100}})(?P=quote)
        (?P<sign>\s*=[>=]?\s*|\s*:\s*|[ ]+(?=["']|[^\s\-]{{{SHORTEST}}})))
        (?P<value>{_QUOTED}|\\"(?:[^"\\]|\\\\.)*\\"|(?:(?:Bearer|Basic|Token)[ ]+)?[^\s,;&"'}}\])]+)""",
    re.VERBOSE | re.IGNORECASE,
)
_UNITS = re.compile(r"\s+|\\+|[\s\S]")
_ENDS = re.compile(r"\s*(?:[,}\])]|\n|$)")


def _of_character(character: str) -> str:
    """Return a pattern for the encodings of one character: raw, escaped as in JSON, Python, YAML and shells, in a URL, in HTML. A blank or
    a backslash matches several in a row."""
    if character.isspace():
        return r"(?:\s|\\+[nrtN_ ]|%(?:0[AaDd9]|20)|\+|&\#(?:10|13|9|32);|\\+x0[a9d]|\\+u000[a9d]){1,80}"
    if character.startswith("\\"):
        return r"(?:\\|(?i:%5c|&\#(?:92|x5c);)){1,32}"
    if character.isascii() and character.isalnum():
        return character
    code = ord(character)
    utf16 = character.encode("utf-16-be")
    units = "".join(rf"\\+u{utf16[i : i + 2].hex()}" for i in range(0, len(utf16), 2))
    octets = character.encode("utf-8", "surrogatepass")
    ways = [
        "".join(f"%{octet:02x}" for octet in octets),
        "".join(rf"\\+x{octet:02x}" for octet in octets),
        units,
        rf"\\+x{code:02x}",
        rf"\\+U{code:08x}",
        f"&\\#(?:{code}|x0*{code:x});",
        *{"&": ["&amp;"], "<": ["&lt;"], ">": ["&gt;"], '"': ["&quot;"], "'": ["''", "'\"'\"'", r"'\\''", "&apos;"]}.get(character, []),
        rf"\\{{0,8}}{re.escape(character)}",
    ]
    cased = "|".join(f"(?i:{way})" for way in ways[:6])
    return f"(?:{cased}|{'|'.join(ways[6:])})"


def _base64_of(value: str) -> Iterator[str]:
    encoded = value.encode("utf-8", "surrogatepass")
    for written in (base64.b64encode(encoded).decode(), base64.urlsafe_b64encode(encoded).decode()):
        yield written.rstrip("=")


def _pieces(value: str) -> list[str]:
    if len(value) <= 2 * _PIECE:
        return [value]
    ends = [*range(_PIECE, len(value) - _PIECE, _PIECE), len(value)]  # no piece is too short to be searched for
    return [value[start:end] for start, end in itertools.pairwise([0, *ends])]


@lru_cache(maxsize=64)
def _pattern_of(values: frozenset[str]) -> re.Pattern[str] | None:
    """Return a pattern that finds any of these values in any encoding, the longest first, or None."""
    written = {piece for value in values for form in (value, *_base64_of(value)) for piece in _pieces(form)}
    longest_first = sorted((value for value in written if len(value.strip()) >= SHORTEST), key=lambda value: (-len(value), value))
    return re.compile("|".join(_BREAK.join(map(_of_character, _UNITS.findall(value))) for value in longest_first)) if longest_first else None


class Writings:
    """Remove these values, and all others that are secret by their shape or by the name beside them.

    Args:
        values: values of secrets. Short values and ordinary words are ignored.
    """

    def __init__(self, values: Iterable[str]) -> None:
        self.values = frozenset(value.strip() for value in values if len(value.strip()) >= SHORTEST and value.strip().lower() not in ORDINARY)
        self._pattern = _pattern_of(self.values)

    def removed_from(self, text: str) -> str:
        """Return the text without secrets."""
        if self._pattern:
            text = self._cut(self._pattern.sub(REDACTED, text))
        text = _SHAPES.sub(REDACTED, text)
        text = _OF_URL.sub(rf"\g<scheme>{REDACTED}@", text)
        text = _QUERY.sub(lambda found: found["before"] + REDACTED if _is_parameter(found["name"]) else found[0], text)
        text = _SCHEME.sub(rf"\g<before>{REDACTED}", text)
        for found in reversed(list(_named(text))):
            text = text[: found.start("value")] + _emptied(found["value"]) + text[found.end() :]
        return re.sub(f"(?:{REDACTED})+", REDACTED, text)

    def _cut(self, text: str) -> str:
        """Remove the part of a secret at the end or the beginning of a text. Evidence is truncated, so a secret may be cut."""
        for value in self.values:
            for length in range(min(len(value) - 1, len(text)), _SHORTEST_PART - 1, -1):
                if text.endswith(value[:length]):
                    text = text[:-length] + REDACTED
                if text.startswith(value[-length:]):
                    text = REDACTED + text[length:]
        return text


def secrets_in(text: str) -> Iterator[str]:
    """Yield the values of secrets that a text holds beside their names: in addresses, headers, command lines and JSON."""
    for found in _OF_URL.finditer(text):
        for who in {found["who"], found["who"].partition("@")[0]}:
            yield from (who, *who.split(":", 1)[1:])
    for found in _QUERY.finditer(text):
        if _is_parameter(found["name"]):
            yield found["value"]
    for found in _SCHEME.finditer(text):
        yield found["value"]
    for found in _named(text):
        yield from (value := _unquoted(found["value"]), *_AFTER_SCHEME.findall(value))
    yield from (found[0] for found in _SHAPES.finditer(text))


def _is_parameter(name: str) -> bool:
    return name.lower() in _SIGNED or is_secret(name)


def _named(text: str) -> Iterator[re.Match[str]]:
    """Yield the places where a value follows the name of a secret, also within the value of another name."""
    at = 0
    while found := _NAMED.search(text, at):
        holds = _holds(found)
        at = found.end() if holds else found.end("before")
        if holds:
            yield found


def _holds(found: re.Match[str]) -> bool:
    """Return True if the text after this name is its value, and not prose that mentions a secret before a colon or a blank."""
    if REDACTED in found["value"] or not is_secret(found["name"]):
        return False
    if found["sign"].isspace():
        return found["name"].startswith("--")
    if ":" in found["sign"]:
        return bool(found["quote"]) or found["value"][0] in "\"'" or bool(_ENDS.match(found.string, found.end()))
    return True


def _emptied(value: str) -> str:
    for quote in ('\\"', '"', "'"):
        if value.startswith(quote) and value.endswith(quote) and len(value) >= 2 * len(quote):
            return quote + REDACTED + quote
    return REDACTED


def _unquoted(value: str) -> str:
    if value[0] == value[-1] == '"':
        try:
            return str(json.loads(value, strict=False))
        except ValueError:
            pass
    return value[1:-1].replace("''", "'") if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'" else value

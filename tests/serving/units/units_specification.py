"""The specification of docs/features.md on sizes and units once more, with regular expressions."""

import re

from raydistill.serving.text.characters import MARK, WORD, character_tables
from raydistill.serving.units.names import UNITS
from raydistill.serving.units.normalization import NO_PREFIXES

NUMBER = re.compile(r"(\.?[0-9]+)((?:[.,/][0-9]+)*)")
GAP = r"(?:\.(?![0-9]))? *-? *"
NAMES = {name: unit for unit, names in UNITS.items() for name in (unit, *names.split())}
TIMES = re.compile(rf"{GAP}(?:[x*\u00d7\u0445\u03c7]|by){GAP}(?=\.?[0-9])")
GROUPS = re.compile(r"(?: [0-9]{3}(?![0-9])){1,4}")
MIXED = re.compile(r"(?: +| *- *)([0-9]+)/([0-9]+)(?![/.,][0-9])")
SIGN = re.compile(" *(?:\"|''|')")


def by_the_book(text: str) -> str:
    """A folded text with its sizes in one spelling."""
    out, at, inside = "", 0, False
    while at < len(text):
        found = NUMBER.match(text, at)
        if inside and text[at] == "-" and is_in_model_number(text, at):
            at += 1
            continue
        if inside and is_version(text, at):
            out, inside = out + " ", False
        if inside or not found or text[max(at - 1, 0) : at + 1] == "..":
            inside = is_of_word(text[at])
            out, at = out + text[at], at + 1
            continue
        start = at
        number, at = read_number(text, found)
        units, at = read_units(text, at)
        times = TIMES.match(text, at)
        apart = not units and not times and is_measure(text, start, at)
        inside = not times and not units and not apart
        at = times.end() if times else at
        out += number + units + (" x " if times else " " if apart else "")
    return out


def letters_at(text: str, at: int) -> str:
    end = at
    while is_of_word(text[end : end + 1]) and text[end] not in DIGITS:
        end += 1
    return text[at:end]


def is_version(text: str, at: int) -> bool:
    before, found = text[:at], re.match(r"[0-9]+\.[0-9]+", text[at:])
    name = re.search(r"[^\W\d_]{2,}$", before)
    left = before[: name.start()][-1:] if name else ""
    if not found or not name or is_of_word(left):
        return False
    behind = text[at + found.end() :]
    return not (is_of_word(behind[:1]) or re.match("[.,/][0-9]", behind))


def is_measure(text: str, start: int, at: int) -> bool:
    letters, whole = letters_at(text, at), re.match("[0-9]*", text[start:])[0]  # type: ignore[index]
    if len(letters) == 1 and letters >= "\u0370":
        letters *= 2  # of other scripts one is enough
    elif len(letters) < 2 or letters in ORDINALS:
        return False
    if re.match("[0-9]", text[at + len(letters_at(text, at)) :]):
        return False
    return not (len(whole) > 1 and whole[0] == "0") and (len(whole) < 5 or whole[-2:] == "00")


def is_in_model_number(text: str, at: int) -> bool:
    left = at
    while left and is_of_word(text[left - 1]) and text[left - 1] not in DIGITS:
        left -= 1
    before, token, end = text[:left][-1:], "", at + 1
    while is_of_word(text[end : end + 1]):
        token, end = token + text[end], end + 1
    if not 1 <= at - left <= 3 or (before in ("-", "'") and before) or is_of_word(before):
        return False
    if not DIGITS & set(token) or re.match("[.,/][0-9]", text[end:]):
        return False
    if (at - left > 1 and len(token) == 1) or text[left:at] in NO_PREFIXES:
        return False
    if re.fullmatch(".[^\\d]?xl", token) and len(token) == 3:
        return False
    digits = re.match("[0-9]*", token)[0]  # type: ignore[index]
    behind = text[at + 1 + len(digits) :]
    if digits and behind[:1] and behind[0] in "\"'%°":
        return False
    unit, stop = read_name(text, at + 1 + len(digits)) if digits else ("", 0)
    is_name = letters_at(behind, 0) != ""
    return not (unit and is_name and stop - (at + 1 + len(digits)) > 1)


def read_number(text: str, found: re.Match[str]) -> tuple[str, int]:
    whole, marks = found[1], re.findall("[.,/][0-9]+", found[2])
    if whole[0] == ".":
        whole, marks = "", [whole, *marks]
    dropped = 0
    groups = whole[:1] not in ("", "0") and len(whole) <= 3
    end = found.start() + len(found[1])
    while groups and (group := re.compile("[,']([0-9]{3})(?![0-9])").match(text, end)):
        whole, dropped, end = whole + group[1], dropped + 1, group.end()
    if dropped:
        marks = re.findall("[.,/][0-9]+", re.match("(?:[.,/][0-9]+)*", text[end:])[0])  # type: ignore[index]
        found = re.compile(r"\.?[0-9]+(?:[.,'/][0-9]+)*").match(
            text[: end + sum(map(len, marks))], found.start()
        )  # type: ignore[assignment]
    blanks = None if dropped or marks or not groups else GROUPS.match(text, found.end())
    if blanks and blanks[0].endswith(" 000") and not re.match("[.,/][0-9]", text[blanks.end() :]):
        return whole + blanks[0].replace(" ", ""), blanks.end()
    if len(marks) > 1:
        return found[0], found.end()
    if marks and marks[0][0] == "/":
        value = None if dropped else fraction(whole, marks[0][1:])
        return value or found[0], found.end()
    if marks:
        decimals = marks[0][1:].rstrip("0")
        return (whole or "0") + ("." + decimals if decimals else ""), found.end()
    mixed = MIXED.match(text, found.end())
    if mixed and not dropped and len(whole) <= 2 and (value := fraction(mixed[1], mixed[2])):
        return whole + value[1:], mixed.end()
    return whole, found.end()


def fraction(over: str, under: str) -> str | None:
    if max(len(over), len(under)) > 3 or int(under) not in (2, 4, 8, 16, 32, 64):
        return None
    is_measure = int(over) % 2 and int(over) < int(under)
    return f"{int(over) / int(under):.6f}".rstrip("0") if is_measure else None


def read_units(text: str, at: int) -> tuple[str, int]:
    if sign := SIGN.match(text, at):
        end, unit = sign.end(), "ft" if sign[0].strip() == "'" else "in"
        behind, is_near = text[end : end + 1], sign[0][0] != " "
        is_apart = not is_of_word(behind) or TIMES.match(text, end)
        letters = letters_at(text, end)
        is_foot = behind in DIGITS or len(letters) > 3 or letters in ("w", "l", "h", "d")
        if is_apart or (is_near and (unit == "in" or is_foot)):
            return f" {unit} ", end
    out, unit = "", "sq"
    while unit in ("sq", "cu", "fl"):
        unit, end = read_name(text, at)
        if unit:
            out, at = f"{out or ' '}{unit} ", end
    return out, at


def read_name(text: str, at: int) -> tuple[str, int]:
    start = re.compile(GAP).match(text, at).end()  # type: ignore[union-attr]
    if text[start : start + 1] in ("%", "°"):
        return NAMES[text[start]], start + 1
    name = letters_at(text, start)
    unit, end = NAMES.get(name, ""), start + len(name)
    if not unit and name[-1:] == "x" and text[end : end + 1] in DIGITS and name[:-1] in NAMES:
        return NAMES[name[:-1]], end - 1
    power = re.match(r"\^?([23])", text[end:])
    if unit in ("in", "ft", "yd", "mm", "cm", "m", "km") and power:
        stop = end + power.end()
        if not is_of_word(text[stop : stop + 1]):
            return f"{'sq' if power[1] == '2' else 'cu'} {unit}", stop
    if len(name) == 1 and (
        is_of_word(text[end : end + 1])
        or (
            start > at
            and (name == "a" or (text[end : end + 1] == "-" and "-" not in text[at:start]))
        )
    ):
        return "", at
    chained = re.match("([0-9]+)", text[end:])
    if len(name) > 1 and chained:
        stop = end + chained.end()
        if len(chained[1]) > 2 or (
            is_of_word(text[stop : stop + 1]) and len(letters_at(text, stop)) < 2
        ):
            return "", at
    return unit, end if unit else at


DIGITS = set("0123456789")
ORDINALS = ("st", "nd", "rd", "th")


def is_of_word(char: str) -> bool:
    return bool(char) and character_tables()[0][ord(char)] in (WORD, MARK)

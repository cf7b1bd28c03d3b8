"""Who plays at the demo casino: countries with their shares, names, cities and numbers that ring nowhere.

Data and one pure function, `register`, that draws a new player from a seeded generator. It owns no SQL. Telephone
numbers come from the ranges that regulators reserve for films; countries without such a range have none.
"""

from __future__ import annotations

import datetime as dt
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import random


@dataclass(frozen=True)
class City:
    """A city with its share of fictional telephone numbers: `prefix`, then `digits` digits."""

    name: str
    zone: str
    prefix: str = ""
    digits: int = 0


@dataclass(frozen=True)
class Country:
    """A country: its share of the players in percent, and what its players are called."""

    code: str
    share: int
    language: str
    currency: str
    women: tuple[str, ...]
    men: tuple[str, ...]
    surnames: tuple[str, ...]
    cities: tuple[City, ...]


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_GERMAN_WOMEN: Final = _words(
    "Mia Emma Hannah Lena Sophie Lea Anna Marie Laura Julia Sarah Katharina Sabine Petra Claudia Birgit Nele Greta"
)
_GERMAN_MEN: Final = _words(
    "Lukas Leon Finn Jonas Paul Felix Maximilian Tobias Stefan Andreas Michael Jürgen Uwe Kai Sven Matthias Björn Jan"
)
_GERMAN_SURNAMES: Final = _words(
    "Müller Schmidt Schneider Fischer Weber Meyer Wagner Becker Schulz Hoffmann Koch Richter Klein Wolf Schröder"
    " Neumann Braun Krüger Hartmann Lange Krause Lehmann Huber Maier Jansen Vogel Roth Beck Lorenz Böhm"
)
_ENGLISH_WOMEN: Final = _words(
    "Olivia Amelia Isla Grace Emily Jessica Chloe Charlotte Megan Aoife Ciara Niamh Lucy Holly Zoe Abigail Freya Ruby"
)
_ENGLISH_MEN: Final = _words(
    "Oliver George Harry Jack Noah Liam Conor Sean Thomas James Callum Ryan Dylan Owen Ethan Daniel Patrick Declan"
)
_ENGLISH_SURNAMES: Final = _words(
    "Smith Jones Taylor Brown Williams Wilson Davies Evans Walker Wright Murphy Kelly Byrne Ryan O'Brien Walsh Clarke"
    " Hughes Green Hall Wood Harris Cooper Ward Baker Turner Hill Moore Campbell Stewart"
)
_FRENCH_WOMEN: Final = _words("Camille Manon Chloé Inès Jade Louise Alice Élodie Margaux Céline Nathalie Aurélie")
_FRENCH_MEN: Final = _words("Lucas Hugo Louis Gabriel Jules Antoine Nicolas Julien Maxime Théo Mathieu Benoît")
_FRENCH_SURNAMES: Final = _words(
    "Martin Bernard Dubois Thomas Robert Richard Petit Durand Leroy Moreau Simon Laurent Lefèvre Michel Garcia Roux"
)
_NORDIC_WOMEN: Final = _words("Astrid Ingrid Elsa Maja Ebba Linnea Saga Frida Sigrid Nora Hedda Aino Helmi Kaisa Outi")
_NORDIC_MEN: Final = _words("Erik Lars Nils Oskar Axel Gustav Henrik Magnus Odd Sindre Mikko Jari Antti Eino Väinö")
_NORDIC_SURNAMES: Final = _words(
    "Andersson Johansson Lindberg Nyström Hansen Olsen Berg Haugen Korhonen Virtanen Mäkinen Nieminen Laine Söderberg"
)

COUNTRIES: Final = (
    Country(
        "DE", 44, "de", "EUR", _GERMAN_WOMEN, _GERMAN_MEN, _GERMAN_SURNAMES,
        (
            City("Berlin", "Europe/Berlin", "+493023125", 3),
            City("Hamburg", "Europe/Berlin", "+494066969", 3),
            City("Frankfurt", "Europe/Berlin", "+496990009", 3),
            City("München", "Europe/Berlin", "+498999998", 3),
            City("Köln", "Europe/Berlin", "+492214710", 3),
            City("Leipzig", "Europe/Berlin", "+4917604069", 3),
        ),
    ),
    Country(
        "AT", 8, "de", "EUR", _GERMAN_WOMEN, _GERMAN_MEN, _GERMAN_SURNAMES,
        (City("Wien", "Europe/Vienna"), City("Graz", "Europe/Vienna"), City("Linz", "Europe/Vienna")),
    ),
    Country(
        "GB", 6, "en", "GBP", _ENGLISH_WOMEN, _ENGLISH_MEN, _ENGLISH_SURNAMES,
        (
            City("London", "Europe/London", "+442079460", 3),
            City("Leeds", "Europe/London", "+441134960", 3),
            City("Cardiff", "Europe/London", "+442920180", 3),
            City("Glasgow", "Europe/London", "+447700900", 3),
        ),
    ),
    Country(
        "IE", 6, "en", "EUR", _ENGLISH_WOMEN, _ENGLISH_MEN, _ENGLISH_SURNAMES,
        (City("Dublin", "Europe/Dublin", "+3532091", 5), City("Cork", "Europe/Dublin", "+3532091", 5)),
    ),
    Country(
        "FR", 10, "fr", "EUR", _FRENCH_WOMEN, _FRENCH_MEN, _FRENCH_SURNAMES,
        (
            City("Paris", "Europe/Paris", "+3319900", 4),
            City("Lyon", "Europe/Paris", "+3363998", 4),
            City("Lille", "Europe/Paris", "+3335301", 4),
        ),
    ),
    Country(
        "SE", 8, "sv", "EUR", _NORDIC_WOMEN, _NORDIC_MEN, _NORDIC_SURNAMES,
        (City("Stockholm", "Europe/Stockholm", "+468465004", 2), City("Malmö", "Europe/Stockholm", "+4640628043", 1)),
    ),
    Country(
        "FI", 9, "fi", "EUR", _NORDIC_WOMEN, _NORDIC_MEN, _NORDIC_SURNAMES,
        (City("Helsinki", "Europe/Helsinki"), City("Tampere", "Europe/Helsinki"), City("Oulu", "Europe/Helsinki")),
    ),
    Country(
        "NO", 5, "nb", "EUR", _NORDIC_WOMEN, _NORDIC_MEN, _NORDIC_SURNAMES,
        (City("Oslo", "Europe/Oslo"), City("Bergen", "Europe/Oslo"), City("Tromsø", "Europe/Oslo")),
    ),
    Country(
        "CA", 4, "en", "EUR", _ENGLISH_WOMEN, _ENGLISH_MEN, _ENGLISH_SURNAMES,
        (City("Toronto", "America/Toronto", "+141655501", 2), City("Halifax", "America/Halifax", "+190255501", 2)),
    ),
)  # fmt: skip

#: Affiliates: the number and the tag that a player keeps for life.
AFFILIATES: Final = ((4322, "john24"), (4410, "spinnotes"), (4587, "lucky-lamp"), (5003, "reelfalke"))


@dataclass(frozen=True, kw_only=True)
class Person:
    """A player at registration, before any id."""

    first_name: str
    last_name: str
    gender: str
    country: str
    city: str
    time_zone: str
    language: str
    currency: str
    phone: str | None
    date_of_birth: dt.date
    affiliate: tuple[int, str] | None


def register(rng: random.Random, *, today: dt.date) -> Person:
    """Draw one adult."""
    country = rng.choices(COUNTRIES, weights=[country.share for country in COUNTRIES])[0]
    city = rng.choice(country.cities)
    woman = rng.random() < 0.42
    has_phone = bool(city.prefix) and rng.random() < 0.8
    return Person(
        first_name=rng.choice(country.women if woman else country.men),
        last_name=rng.choice(country.surnames),
        gender="f" if woman else "m",
        country=country.code,
        city=city.name,
        time_zone=city.zone,
        language=country.language,
        currency=country.currency,
        phone=f"{city.prefix}{rng.randrange(10**city.digits):0{city.digits}}" if has_phone else None,
        date_of_birth=today - dt.timedelta(days=365 * 18 + 10 + int(rng.betavariate(1.6, 3.2) * 365 * 55)),
        affiliate=rng.choice(AFFILIATES) if rng.random() < 0.35 else None,
    )


def ascii_name(name: str) -> str:
    """Return `name` as it stands in an e-mail address."""
    folded = unicodedata.normalize("NFKD", name.replace("ø", "o").replace("Ø", "O").replace("'", ""))
    return folded.encode("ascii", "ignore").decode().lower()

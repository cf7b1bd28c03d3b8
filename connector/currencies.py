"""How many decimal places the smallest unit of a currency has: ISO 4217's for money, configured for crypto. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from iso4217 import Currency

if TYPE_CHECKING:
    from collections.abc import Mapping

#: What ISO 4217 does not know, as UCRM stores it.
CRYPTO: Final[dict[str, int]] = {
    **dict.fromkeys(("BTC", "ETH", "LTC", "BCH", "DOGE"), 8),
    **dict.fromkeys(("USDT", "USDC", "TRX"), 6),
}
_ISO: Final[dict[str, int]] = {item.code: item.exponent for item in Currency if item.exponent is not None}
_USUAL: Final = 2


def scale(currency: str, configured: Mapping[str, int] = CRYPTO) -> int:
    """Return how many decimal places the smallest unit of a currency has: ISO 4217's, else as configured, else two."""
    return _ISO.get(currency, configured.get(currency, _USUAL))


def completed(configured: object) -> object:
    """Add the usual crypto to what an operator configured; raises ValueError for a currency of ISO 4217."""
    if not isinstance(configured, dict):
        return configured
    named = {str(name).upper(): places for name, places in configured.items()}
    if known := sorted(name for name in named if name in _ISO):
        raise ValueError(f"{known[0]} is not yours to define: its decimal places are in ISO 4217")
    return {**CRYPTO, **named}

"""Sessions and rounds: what a player writes while playing.

Owns bets, wins and what is taken back, and which of them commit late. Money that comes and goes is in cashier.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from connector.demo import cashier, games
from connector.demo.ledger import Batch, Hold

if TYPE_CHECKING:
    from connector.demo.games import Game
    from connector.demo.ledger import Story
    from connector.demo.life import Life
    from connector.demo.player import Player, Wallet

_HOLD_SECONDS: Final = (0.5, 4.0)
_BIG_WIN_CENTS: Final = 10_000
_ROUNDS_PER_STAKE: Final = 8
_STAKES_PER_DEPOSIT: Final = 80
_FUN_MONEY: Final = 100_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Round:
    """One round: its stake and what it pays, in subunits of the wallet."""

    number: int
    wallet: Wallet
    game: Game
    stake: int
    pay: int
    bonus: bool

    def bet(self, batch: Batch, *, early: int | None = None) -> None:
        """Write the round and its bet, under the id `early` if that was drawn beforehand."""
        account, lost = self.wallet.account_id, self.pay == 0
        batch.add("rounds", self.number, account, self.game.id, self.stake, 0, lost, None)
        batch.add("transactions", early, account, self.number, "bet", -self.stake, self._bonus(-self.stake))

    def win(self, batch: Batch) -> None:
        """Write the win, if there is one."""
        if self.pay:
            batch.add("settlements", self.number, self.pay)
            account, bonus = self.wallet.account_id, self._bonus(self.pay)
            batch.add("transactions", None, account, self.number, "win", self.pay, bonus)

    def take_back(self, batch: Batch, *, counter: int) -> None:
        """Write that the bet, and the win with it, are undone by the round `counter`."""
        account, final, stake, pay = self.wallet.account_id, True, self.stake, self.pay
        batch.add("rounds", counter, account, self.game.id, stake, pay, final, self.number)
        batch.add("transactions", None, account, counter, "rollback_bet", stake, self._bonus(stake))
        if pay:
            batch.add("transactions", None, account, counter, "rollback_win", -pay, self._bonus(-pay))

    def _bonus(self, amount: int) -> int:
        return amount if self.bonus else 0


def session(life: Life, player: Player, *, login: bool) -> Story[None]:
    """Play some rounds of one game; deposit when the wallet is empty, leave when that is declined."""
    if login:
        life.batch.add("logins", player.id, player.country if life.rng.random() < 0.98 else "ES")
        life.happened["login"] += 1
        yield life.rng.uniform(0.5, 2.0) * life.hurry
    wallet = player.fun if player.fun is not None and life.rng.random() < 0.3 else player.wallet
    game, bonus, stake = life.rng.choice(games.GAMES), life.rng.random() < 0.1, 0
    for number in range(10 + min(300, int(life.rng.expovariate(1 / 45)))):
        if number % _ROUNDS_PER_STAKE == 0:
            stake = wallet.cents(life.rng.choice(games.STAKES[player.level]))
        if wallet.amount < stake:
            if wallet is player.fun:
                wallet.amount += _FUN_MONEY
            elif not (yield from cashier.deposit(life, player, at_least=stake * _STAKES_PER_DEPOSIT)):
                return
        pay = games.payoff(life.rng, game, stake=stake)
        next_id = life.ids.take("casino_games")
        yield from play(
            life, player, Round(number=next_id, wallet=wallet, game=game, stake=stake, pay=pay, bonus=bonus)
        )
        yield life.rng.uniform(1.2, 3.6) * life.hurry


def play(life: Life, player: Player, this: Round) -> Story[None]:
    """Play one round: usually the bet is there at once and the win a moment later."""
    yield from _write(life, this)
    wallet = this.wallet
    wallet.amount += this.pay - this.stake
    life.happened["round"] += 1
    if this.pay > this.stake * 20 and this.pay >= wallet.cents(_BIG_WIN_CENTS):
        life.say(player, f"won {games.money(this.pay, wallet.currency)} on {this.game.title}")
    if life.rng.random() < 0.003:
        yield life.rng.uniform(0.5, 2.0)
        this.take_back(life.batch, counter=life.ids.take("casino_games"))
        wallet.amount += this.stake - this.pay
        life.happened["rollback"] += 1
    cashier.balance(life, wallet)


def _write(life: Life, this: Round) -> Story[None]:
    fate = life.rng.random()
    # a slow provider: bet and win in one transaction that stays open; one hold is left to rarer happenings
    if fate < 0.01 and life.free_holds > 1:
        batch = Batch()
        this.bet(batch)
        this.win(batch)
        life.happened["late round"] += 1
        yield Hold(batch, life.rng.uniform(*_HOLD_SECONDS))
    elif fate < 0.013:  # an id drawn long before its row is written
        early = life.ids.draw("balance_transactions")
        life.happened["early id"] += 1
        yield life.rng.uniform(0.5, 2.5)
        this.bet(life.batch, early=early)
        this.win(life.batch)
    else:
        this.bet(life.batch)
        if this.pay:
            yield life.rng.uniform(0.2, 0.9) * life.hurry
            this.win(life.batch)

-- PostgreSQL: one index per view on exactly (cursor, key), so that every poll reads its page and stops. Run as the
-- owner, on the primary: the replica receives them.
--
-- Adapt: the names; leave out what you have. On a live table write CREATE INDEX CONCURRENTLY, one statement at a time.
-- casino_bets, the views of the sportsbook and bonuses need none: their cursor is the primary key. A partial index serves
-- its view only if its WHERE is the view's own, word for word.

create index if not exists users_crm on casino.users (touched_at, id);

create index if not exists payments_crm on casino.payments (finished_at, id)
where action in ('deposit', 'chargeback') and success;

create index if not exists payments_failed_crm on casino.payments (finished_at, id)
where action = 'deposit' and not success;

create index if not exists payment_transitions_crm on casino.payment_transitions (created_at, payment_id, status);

-- only for mode separate, where wins are the smaller part of the table
create index if not exists balance_transactions_wins_crm on casino.balance_transactions (id)
where action in ('win', 'rollback_win') and reference_type = 'CasinoGame';

-- only for mode win_per_bet
create index if not exists casino_games_crm on casino.casino_games (finished_at, id);

create index if not exists exchange_rates_crm on casino.exchange_rates (updated_at, base_code, code, valid_from);

create index if not exists user_totals_crm on casino.user_totals (counted_until, user_id);

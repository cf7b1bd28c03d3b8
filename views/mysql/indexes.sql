-- MySQL 8 and MariaDB 10.6 or later: one index per view on exactly (cursor, key), so that every poll reads its page
-- and stops. Run as the owner, on the primary: the replica receives them. InnoDB builds them without blocking writes.
--
-- Adapt: the names; leave out what you have. casino_bets, the views of the sportsbook and bonuses need none: their cursor
-- is the primary key. In mode separate both views walk the primary key, too, and skip the rows of the other; deposits and
-- failed_deposits share the index of payments.

create index users_crm on casino.users (touched_at, id);

create index payments_crm on casino.payments (finished_at, id);

create index payment_transitions_crm on casino.payment_transitions (created_at, payment_id, status);

-- only for mode win_per_bet
create index casino_games_crm on casino.casino_games (finished_at, id);

create index exchange_rates_crm on casino.exchange_rates (updated_at, base_code, code, valid_from);

create index user_totals_crm on casino.user_totals (counted_until, user_id);

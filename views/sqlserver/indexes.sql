-- SQL Server 2017 or later: one index per view on exactly (cursor, key), so that every poll reads its page and stops.
-- Run as the owner, on the primary: a readable secondary receives them.
--
-- Adapt: the names; leave out what you have. On Enterprise add WITH (ONLINE = ON). casino_bets, the views of the
-- sportsbook and bonuses need none: their cursor is the clustered primary key. A filtered index serves its view only if
-- its WHERE is the view's own.

create index users_crm on casino.users (touched_at, id);
go

create index payments_crm on casino.payments (finished_at, id)
where action in ('deposit', 'chargeback') and success = 1;
go

create index payments_failed_crm on casino.payments (finished_at, id)
where action = 'deposit' and success = 0;
go

create index payment_transitions_crm on casino.payment_transitions (created_at, payment_id, status);
go

-- only for mode separate, where wins are the smaller part of the table
create index balance_transactions_wins_crm on casino.balance_transactions (id)
where action in ('win', 'rollback_win') and reference_type = 'CasinoGame';
go

-- only for mode win_per_bet
create index casino_games_crm on casino.casino_games (finished_at, id);
go

create index exchange_rates_crm on casino.exchange_rates (updated_at, base_code, code, valid_from);
go

create index user_totals_crm on casino.user_totals (counted_until, user_id);
go

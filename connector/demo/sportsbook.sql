-- Months of sports bets, and the bonuses of history's deposits. Run by history.py after history.sql, in its transaction:
-- its temporary tables are still there, and so is pg_temp.dice. Nothing lies after the anchor.

create temporary table wager on commit drop as
select row_number() over (order by w.at, w.key) as id, w.*
from (
    select
        p.id * 100 + i.n as key, p.id as account_id,
        10 * p.per_cent * pg_temp.pick(p.stakes, pg_temp.dice(p.id * 100 + i.n, 111)) as stake,
        greatest(p.created_at, s.anchor - interval '60 days' * power(pg_temp.dice(p.id * 100 + i.n, 112), 2)) as at,
        pg_temp.pick('{1,1,1,2,3,4}'::int[], pg_temp.dice(p.id * 100 + i.n, 113)) as picks,
        pg_temp.dice(p.id * 100 + i.n, 114) as fate,
        pg_temp.dice(p.id * 100 + i.n, 115) < 0.4 as live
    from player as p
    cross join size as s
    cross join lateral generate_series(1, case
        when pg_temp.dice(p.id, 110) < 0.3 then 1 + floor(6 * pg_temp.dice(p.id, 116))::int
        else 0
    end) as i (n)
    where p.state <> 'pending'
) as w
cross join size as s
where w.at < s.anchor - interval '10 seconds';

create temporary table pick on commit drop as
select
    row_number() over (order by w.id, i.n) as id, w.id as bet_id, f.*, w.at, w.live,
    pg_temp.pick('{1,2}'::text[], pg_temp.dice(w.key * 10 + i.n, 121)) as outcome,
    o.odds, pg_temp.dice(w.key * 10 + i.n, 123) * o.odds < 0.94 as won,
    w.at + make_interval(mins => 100 + floor(600 * pg_temp.dice(w.key * 10 + i.n, 124))::int) as ended_at,
    floor(5 * pg_temp.dice(w.key * 10 + i.n, 125)) || ':' || floor(4 * pg_temp.dice(w.key * 10 + i.n, 126)) as score
from wager as w
cross join lateral generate_series(1, w.picks) as i (n)
cross join lateral (
    select pg_temp.pick('{1.45,1.62,1.85,1.85,2.10,2.60,3.40}'::numeric[], pg_temp.dice(w.key * 10 + i.n, 122)) as odds
) as o
join fixture as f on f.n = (
    floor(pg_temp.dice(w.key, 120) * 40)::int + 7 * i.n) % (select count(*) from fixture);

create temporary table slip on commit drop as
select
    w.id, w.account_id, w.stake, w.at, w.fate, w.picks, w.live, round(exp(sum(ln(p.odds))), 2) as odds,
    bool_and(p.won) as won, max(p.ended_at) + interval '3 minutes' as settled_at
from wager as w join pick as p on p.bet_id = w.id group by w.id, w.account_id, w.stake, w.at, w.fate, w.picks, w.live;

insert into casino.sport_bets (
    id, account_id, kind, amount_cents, total_odds, selections_count, potential_payoff_cents, live, created_at
)
select id, account_id, case picks when 1 then 'single' else 'combo' end, stake, odds, picks, floor(stake * odds), live, at
from slip order by id;

insert into casino.sport_bet_selections (
    id, bet_id, event_id, event_title, sport, league, market, outcome, odds, home_team, away_team, live,
    event_starts_at, created_at
)
select
    id, bet_id, n, home || ' v ' || away, sport, league, 'winner', outcome, odds, home, away, live,
    date_trunc('hour', at), at
from pick order by id;

insert into casino.sport_bet_settlements (bet_id, status, payoff_cents, cashout_cents, reason, undone, created_at)
select e.id, e.status, e.paid, case e.status when 'CASHOUT' then e.paid end,
    case e.status when 'VOID' then 'abandoned' end, e.undone, e.at
from (
    select b.id, t.n, t.status, t.undone, b.settled_at + t.n * interval '10 minutes' as at, case t.status
        when 'WON' then floor(b.stake * b.odds)::bigint
        when 'VOID' then b.stake
        when 'CASHOUT' then floor(b.stake * (0.5 + 9 * b.fate))::bigint
        when 'HALF_LOST' then b.stake / 2
        else 0
    end as paid
    from slip as b
    cross join lateral (select case when b.won then 'WON' else 'LOST' end as status) as f
    cross join lateral (
        values
        (0, case when b.won then 'LOST' else 'WON' end, false, b.fate between 0.10 and 0.12),
        (1, case when b.won then 'LOST' else 'WON' end, true, b.fate between 0.10 and 0.12),
        (2, case
            when b.fate < 0.03 then 'VOID' when b.fate < 0.09 then 'CASHOUT' when b.fate < 0.10 then 'HALF_LOST'
            else f.status
        end, false, true)
    ) as t (n, status, undone, reached)
    where t.reached
) as e
cross join size as s
where e.at <= s.anchor
order by e.at, e.id, e.n;

insert into casino.sport_selection_results (selection_id, status, score, created_at)
select p.id, case when b.fate < 0.03 then 'VOID' when p.won then 'WON' else 'LOST' end, p.score, p.ended_at
from pick as p join slip as b on b.id = p.bet_id cross join size as s
where p.ended_at <= s.anchor order by p.ended_at, p.id;

-- What was given with deposits -----------------------------------------------------------------------------------------

insert into casino.bonus_issues (
    id, account_id, title, strategy, amount_cents, wager_requirement_cents, freespins, valid_until, created_at
)
select
    id, account_id, bonus_code, case bonus_code when 'FRIDAY' then 'freespins' else 'deposit' end, amount_cents / 2,
    15 * amount_cents, case bonus_code when 'FRIDAY' then 20 end, finished_at + interval '14 days', finished_at
from casino.payments where action = 'deposit' and success and bonus_code is not null and finished_at is not null
order by id;

insert into casino.bonus_transitions (bonus_issue_id, status, wagered_cents, created_at)
select t.id, t.status, t.wagered, t.at
from size as s cross join lateral (
    select b.id, r.*
    from casino.bonus_issues as b
    cross join lateral (select pg_temp.dice(b.id, 131) as fate, pg_temp.dice(b.id, 132) as share) as d
    cross join lateral (
        values
        ('ISSUED', null::bigint, b.created_at),
        ('ACTIVE', 0, b.created_at + interval '1 minute'),
        (
            case
                when d.fate < 0.2 then 'WAGER_DONE' when d.fate < 0.6 then 'LOST' when d.fate < 0.75 then 'CANCELLED'
                else 'EXPIRED'
            end,
            case when d.fate < 0.2 then b.wager_requirement_cents
                else floor(b.wager_requirement_cents * d.share)::bigint end,
            case when d.fate < 0.75 then b.created_at + interval '9 days' * d.share else b.valid_until end
        )
    ) as r (status, wagered, at)
) as t
where t.at <= s.anchor
order by t.at, t.id;

select setval(pg_get_serial_sequence('casino.sport_bets', 'id'), max(id)) from casino.sport_bets;
select setval(pg_get_serial_sequence('casino.sport_bet_selections', 'id'), max(id)) from casino.sport_bet_selections;
select setval(pg_get_serial_sequence('casino.bonus_issues', 'id'), max(id)) from casino.bonus_issues;

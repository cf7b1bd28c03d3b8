-- Months of a casino's life, drawn inside the server. Run by history.py in one transaction with the triggers off.
--
-- Given: temporary tables size (players, rows, anchor), country, city, class, pays and affiliate, and the function
-- pg_temp.dice(id, salt): a number in [0, 1) that depends on nothing but its arguments and the seed. Every draw below
-- has a salt of its own. Nothing lies after the anchor.

-- Who they are -------------------------------------------------------------------------------------------------------

create temporary table player on commit drop as
select
    i.id,
    s.anchor - make_interval(secs => 900 * 86400 * power(1 - (i.id - pg_temp.dice(i.id, 1)) / (s.players + 1), 0.8))
        as created_at,
    c.code as country,
    c.language,
    case when pg_temp.dice(i.id, 2) < 0.015 then 'TRX' when pg_temp.dice(i.id, 2) < 0.025 then 'BTC' else c.currency end
        as currency,
    pg_temp.dice(i.id, 3) < 0.42 as woman,
    pg_temp.pick(case when pg_temp.dice(i.id, 3) < 0.42 then c.women else c.men end, pg_temp.dice(i.id, 4))
        as first_name,
    pg_temp.pick(c.surnames, pg_temp.dice(i.id, 5)) as last_name,
    t.name as city,
    t.zone,
    case when t.digits > 0 and pg_temp.dice(i.id, 7) < 0.8 then
        t.prefix || lpad(floor(pg_temp.dice(i.id, 8) * power(10, t.digits))::int::text, t.digits, '0')
    end as phone,
    (s.anchor - make_interval(
        days => 365 * 18 + 10 + floor(365 * 55 * pg_temp.dice(i.id, 9) * (0.35 + 0.65 * pg_temp.dice(i.id, 10)))::int
    ))::date as date_of_birth,
    k.name as class,
    k.stakes,
    k.deposits,
    k.weight,
    pg_temp.dice(i.id, 12) as fate,
    pg_temp.dice(i.id, 13) as trust
from size as s
cross join lateral generate_series(1, s.players) as i (id)
join country as c on pg_temp.dice(i.id, 14) >= c.share_from and pg_temp.dice(i.id, 14) < c.share_to
join city as t on t.country = c.code and t.n = floor(pg_temp.dice(i.id, 6) * c.cities)
join class as k on pg_temp.dice(i.id, 11) >= k.share_from and pg_temp.dice(i.id, 11) < k.share_to;

alter table player add column state text, add column handle text, add column per_cent bigint;
update player as p set
    state = case
        when fate < 0.012 or p.created_at > s.anchor - interval '6 hours' then 'pending'
        when fate < 0.018 then 'locked'
        when fate < 0.022 then 'suspended'
        when fate < 0.030 then 'blocked'
        when fate < 0.042 then 'self_excluded'
        when fate < 0.050 then 'closed'
        else 'active'
    end,
    handle = lower(translate(first_name, 'äöüéèêëîïñøåçÉÖÄÜÅØ''', 'aoueeeeiinoaceoauao')) || '.'
        || lower(translate(last_name, 'äöüéèêëîïñøåçÉÖÄÜÅØ''', 'aoueeeeiinoaceoauao')),
    per_cent = (select c.per_cent from currency as c where c.code = p.currency)
from size as s;
create unique index on player (id);
analyze player;

-- When they played: sessions of one player at one game ---------------------------------------------------------------

create temporary table roster on commit drop as
select row_number() over (order by p.id, i.n) as n, p.id as player_id
from player as p cross join lateral generate_series(1, p.weight) as i (n)
where p.state not in ('pending', 'locked');
create unique index on roster (n);
analyze roster;

create temporary table session on commit drop as
with drawn as (
    select
        i.id,
        r.player_id,
        10 + least(390, floor(-45 * ln(1 - pg_temp.dice(i.id, 21))))::int as rounds,
        s.anchor - make_interval(days => floor(60 * pg_temp.dice(i.id, 22))::int)
            - make_interval(hours => pg_temp.pick(
                '{0,1,1,2,2,3,3,4,4,5,5,6,6,7,8,9,10,11,12,13,15,18,21,23}'::int[], pg_temp.dice(i.id, 23)
            ), secs => 3600 * pg_temp.dice(i.id, 24)) as started_at,
        1 + floor(s.games * power(
            case when pg_temp.dice(i.id, 25) < 0.6 then pg_temp.dice(r.player_id, 26) else pg_temp.dice(i.id, 26) end, 1.5
        ))::int as game,
        pg_temp.dice(i.id, 27) < 0.1 as bonus
    from (select *, (select count(*) from roster) as places, (select count(*) from casino.games) as games from size) as s
    cross join lateral generate_series(1, ceil(s.rows / 68.0)::int + 20) as i (id)
    join roster as r on r.n = 1 + floor(pg_temp.dice(i.id, 20) * s.places)::int
)
select d.*, g.id as game_id, y.steps, y.factors
from drawn as d
join (select *, row_number() over (order by id) as n from casino.games) as g on g.n = d.game
join pays as y on y.name = case when g.category in ('live', 'table') then 'table' else 'slots' end;

update session as d set started_at = p.created_at + interval '5 minutes'
from player as p where p.id = d.player_id and d.started_at < p.created_at;

-- The people's tables ------------------------------------------------------------------------------------------------

insert into casino.users (
    id, username, email, state, kyc_status, kyc_level, affiliate_id, stag, sign_in_count, last_sign_in_at,
    last_sign_in_country, confirmed_at, self_excluded_until, cooling_off_until, created_at, updated_at, touched_at
)
select
    p.id,
    split_part(p.handle, '.', 1) || (p.id * 7 % 1000)::text,
    p.handle || '.' || p.id || '@example.com',
    p.state,
    case
        when p.state = 'pending' then 'unverified'
        when p.trust < 0.5 or p.weight > 6 then 'verified'
        when p.trust < 0.56 then 'pending'
        when p.trust < 0.58 then 'rejected'
        else 'unverified'
    end,
    case when p.state = 'pending' then 0 when p.weight > 6 then 2 when p.trust < 0.5 then 1 else 0 end,
    f.id,
    f.name,
    coalesce(d.sign_ins, 0) + floor(pg_temp.dice(p.id, 31) * 20)::int,
    d.last_at,
    case when d.last_at is null then null when pg_temp.dice(p.id, 32) < 0.97 then p.country else 'ES' end,
    case when p.state <> 'pending' then p.created_at + make_interval(mins => floor(600 * pg_temp.dice(p.id, 33))::int) end,
    case when p.state = 'self_excluded' and pg_temp.dice(p.id, 34) < 0.7
        then s.anchor + make_interval(days => 1 + floor(365 * pg_temp.dice(p.id, 35))::int) end,
    case when p.state = 'active' and pg_temp.dice(p.id, 36) < 0.006
        then s.anchor + make_interval(days => 1 + floor(14 * pg_temp.dice(p.id, 37))::int) end,
    p.created_at,
    u.touched_at,
    u.touched_at
from player as p
cross join size as s
left join affiliate as f on f.n = floor(pg_temp.dice(p.id, 38) * 12)
left join (select player_id, count(*) as sign_ins, max(started_at) as last_at from session group by player_id) as d
    on d.player_id = p.id
cross join lateral (
    select case
        -- one player in fifty was touched by the same nightly job, at the same microsecond
        when pg_temp.dice(p.id, 39) < 0.02 then date_trunc('day', s.anchor) - interval '20 hours 59 minutes'
        else greatest(p.created_at, d.last_at, p.created_at + (s.anchor - p.created_at) * pg_temp.dice(p.id, 40))
    end as touched_at
) as u
order by p.id;

insert into casino.profiles
select
    id, first_name, last_name, case when pg_temp.dice(id, 41) < 0.93 then case when woman then 'f' else 'm' end end,
    date_of_birth, country, city, language, zone, pg_temp.dice(id, 42) < 0.72, pg_temp.dice(id, 43) < 0.55, created_at
from player order by id;

insert into casino.phones (user_id, number, verified_at, updated_at)
select id, phone, case when trust < 0.5 then created_at + interval '3 minutes' end, created_at
from player where phone is not null order by id;

insert into casino.accounts (id, user_id, currency, main, amount_cents, created_at, updated_at)
select
    id, id, currency, true,
    per_cent * case when pg_temp.dice(id, 44) < 0.35 then floor(900 * pg_temp.dice(id, 45))::bigint
        else pg_temp.pick(deposits, pg_temp.dice(id, 45)) end,
    created_at, created_at
from player order by id;

insert into casino.accounts (id, user_id, currency, main, amount_cents, created_at, updated_at)
select s.players + row_number() over (order by p.id), p.id, 'FUN', false, 100000, p.created_at, p.created_at
from player as p cross join size as s where pg_temp.dice(p.id, 46) < 0.03;

insert into casino.users_tags
select p.id, t.name, p.created_at + (s.anchor - p.created_at) * pg_temp.dice(p.id, 47)
from player as p
cross join size as s
cross join lateral (values
    ('💎 vip', p.weight > 6),
    ('🎰 slots', pg_temp.dice(p.id, 48) < 0.2),
    ('🔥 hot streak', pg_temp.dice(p.id, 49) < 0.02),
    ('welcome_done', pg_temp.dice(p.id, 50) < 0.3),
    ('psp_trusted_verified', p.trust < 0.1),
    ('AF_double', pg_temp.dice(p.id, 51) < 0.01),
    ('SE', p.state = 'self_excluded' and p.trust < 0.6),
    ('closed_PG', p.state = 'closed' and p.trust < 0.4)
) as t (name, given)
where t.given;

insert into casino.users_groups
select p.id, g.code, p.created_at + (s.anchor - p.created_at) * pg_temp.dice(p.id, 52)
from player as p
cross join size as s
cross join lateral (values
    ('00002', p.created_at > s.anchor - interval '30 days'),
    ('00007', pg_temp.dice(p.id, 53) < 0.05),
    ('00011', p.state = 'blocked' and p.trust < 0.5),
    ('00012', pg_temp.dice(p.id, 54) < 0.002),
    ('00021', p.weight > 6),
    ('00039', pg_temp.dice(p.id, 55) < 0.03)
) as g (code, given)
where g.given;

-- The money that came and went ---------------------------------------------------------------------------------------

create temporary table movement on commit drop as
select
    p.id as user_id, 'deposit' as action, i.n, p.id * 1000 + i.n as key,
    p.per_cent * pg_temp.pick(p.deposits, pg_temp.dice(p.id * 1000 + i.n, 61)) as amount,
    p.created_at + (s.anchor - p.created_at) * pg_temp.dice(p.id * 1000 + i.n, 62) as at,
    pg_temp.dice(p.id * 1000 + i.n, 63) as fate
from player as p
cross join size as s
cross join lateral generate_series(1, case p.class
    when 'casual' then pg_temp.pick('{0,0,0,1,1,2}'::int[], pg_temp.dice(p.id, 60))
    when 'regular' then floor(8 * pg_temp.dice(p.id, 60))::int
    when 'vip' then 8 + floor(15 * pg_temp.dice(p.id, 60))::int
    else 40 + floor(40 * pg_temp.dice(p.id, 60))::int
end) as i (n)
where p.state <> 'pending'
union all
select
    p.id, 'cashout', i.n, p.id * 1000 + 500 + i.n,
    p.per_cent * pg_temp.pick(p.deposits, pg_temp.dice(p.id * 1000 + i.n, 66))
        * (2 + floor(7 * pg_temp.dice(p.id * 1000 + i.n, 67))::int) / 2,
    p.created_at + (s.anchor - p.created_at) * (0.05 + 0.95 * pg_temp.dice(p.id * 1000 + i.n, 68)),
    pg_temp.dice(p.id * 1000 + i.n, 69)
from player as p
cross join size as s
cross join lateral generate_series(1, case p.class
    when 'casual' then case when pg_temp.dice(p.id, 65) < 0.08 then 1 else 0 end
    when 'regular' then pg_temp.pick('{0,0,0,1,2}'::int[], pg_temp.dice(p.id, 65))
    when 'vip' then 2 + floor(5 * pg_temp.dice(p.id, 65))::int
    else 6 + floor(11 * pg_temp.dice(p.id, 65))::int
end) as i (n)
where p.state <> 'pending';

insert into movement
select m.user_id, 'chargeback', m.n, m.key, m.amount, m.at + make_interval(secs => 86400 * (5 + 30 * m.fate)), 0
from movement as m cross join size as s
where m.action = 'deposit' and m.fate between 0.3 and 0.304 and m.at < s.anchor - interval '36 days';

alter table movement add column id bigint;
update movement as m set id = o.id
from (select ctid, row_number() over (order by at, key) as id from movement) as o where o.ctid = m.ctid;

insert into casino.payments (
    id, user_id, account_id, action, amount_cents, currency, success, created_at, updated_at, finished_at,
    payment_system, psp_brand, bonus_code, decline_reason, fee_cents, real_balance_cents, bonus_balance_cents, reversal_of
)
select
    m.id, m.user_id, m.user_id, m.action, m.amount, p.currency,
    case when m.action <> 'cashout' then m.fate < 0.88 end,
    m.at,
    m.at,
    case
        when m.action = 'cashout' then null
        when m.fate between 0.5 and 0.5002 then null  -- the money is there, the settlement hangs
        else least(s.anchor, m.at + make_interval(secs => 4 + 80 * pg_temp.dice(m.key, 71)))
    end,
    case
        when p.currency in ('TRX', 'BTC') then 'crypto'
        else pg_temp.pick('{card,card,card,bank_transfer,e-wallet,voucher}'::text[], pg_temp.dice(m.key, 72))
    end,
    pg_temp.pick('{Alpenpay,Cardelle,Quillbank,Mintline}'::text[], pg_temp.dice(m.key, 72)),
    case when m.action = 'deposit' and pg_temp.dice(m.key, 73) < 0.12
        then pg_temp.pick('{WELCOME100,RELOAD50,FRIDAY}'::text[], pg_temp.dice(m.key, 74)) end,
    case when m.action = 'deposit' and m.fate >= 0.88
        then pg_temp.pick('{insufficient_funds,declined_by_issuer,3ds_failed,abandoned}'::text[], pg_temp.dice(m.key, 75)) end,
    case when m.action = 'cashout' then m.amount / 100 else 0 end,
    case when m.action = 'deposit' then m.amount + p.per_cent * floor(500 * pg_temp.dice(m.key, 76))::bigint end,
    case when m.action = 'deposit' then 0 end,
    case when m.action = 'chargeback' then d.id end
from movement as m
cross join size as s
join player as p on p.id = m.user_id
left join movement as d on m.action = 'chargeback' and d.action = 'deposit' and d.key = m.key
order by m.id;

insert into casino.payment_transitions (payment_id, status, reason, created_at)
select w.id, w.status, w.reason, w.at
from size as s cross join lateral (
    select m.id, m.key, t.status, t.reason, t.at
    from movement as m
    cross join lateral (
        -- the back office approves in batches: many approvals of a quarter of an hour share one stamp
        select to_timestamp(900 * ceil(extract(epoch from m.at + make_interval(
            secs => 1800 + 50000 * pg_temp.dice(m.key, 81))) / 900)) at time zone 'UTC' as at
    ) as a
    cross join lateral (
        values
        ('REQUESTED', true, null, m.at),
        ('CANCELLED', m.fate < 0.07, 'by the player', m.at + make_interval(mins => 2 + floor(m.fate * 400)::int)),
        ('REJECTED', m.fate between 0.07 and 0.15, 'documents missing', a.at),
        ('APPROVED', m.fate > 0.15, null, a.at),
        ('FAILED', m.fate between 0.15 and 0.17, 'bank refused', a.at + interval '31 minutes'),
        ('COMPLETED', m.fate > 0.17, null, a.at + make_interval(secs => 600 + 20000 * pg_temp.dice(m.key, 82))),
        ('REVERSED', m.fate > 0.99, 'returned by the bank', a.at + interval '3 days')
    ) as t (status, reached, reason, at)
    where m.action = 'cashout' and t.reached
) as w
where w.at <= s.anchor
order by w.at, w.id;

update casino.payments as p set success = t.status = 'COMPLETED', finished_at = t.created_at, updated_at = t.created_at
from casino.payment_transitions as t
where t.payment_id = p.id and t.status in ('COMPLETED', 'REJECTED', 'CANCELLED', 'FAILED');

-- What they played ---------------------------------------------------------------------------------------------------

create temporary table round on commit drop as
select row_number() over (order by r.at, r.key) as id, r.*, r.stake * factors[width_bucket(roll, steps) + 1] / 100 as pay
from (
    select
        d.id * 1000 + i.k as key,
        coalesce(f.id, d.player_id) as account_id,
        d.game_id, d.steps, d.factors, d.bonus,
        p.per_cent * pg_temp.pick(p.stakes, pg_temp.dice(d.id * 1000 + i.k / 8, 91)) as stake,
        d.started_at + make_interval(secs => i.k * 3.4 + 2.6 * pg_temp.dice(d.id * 1000 + i.k, 92)) as at,
        floor(100000 * pg_temp.dice(d.id * 1000 + i.k, 93))::int as roll,
        pg_temp.dice(d.id * 1000 + i.k, 94) < 0.0015 as undone
    from session as d
    join player as p on p.id = d.player_id
    left join casino.accounts as f on f.user_id = p.id and not f.main and d.id % 3 = 0
    cross join lateral generate_series(1, d.rounds) as i (k)
) as r
cross join size as s
where r.at < s.anchor - interval '10 seconds';

insert into casino.casino_games (id, account_id, game_id, bets_sum, payoff_sum, created_at, finished_at)
select id, account_id, game_id, stake, coalesce(pay, 0), at, at + interval '900 milliseconds' from round;

create temporary table undone on commit drop as
select (select max(id) from round) + row_number() over (order by id) as new_id, * from round where undone;

insert into casino.casino_games (id, account_id, game_id, bets_sum, payoff_sum, created_at, finished_at, rollback_of)
select new_id, account_id, game_id, stake, coalesce(pay, 0), at + interval '3 seconds', at + interval '3 seconds', id
from undone order by new_id;

insert into casino.balance_transactions (
    id, account_id, reference_type, reference_id, action, amount_cents, bonus_amount_cents, created_at
)
select
    row_number() over (order by t.at, t.reference_id, t.action), t.account_id, 'CasinoGame', t.reference_id, t.action,
    t.amount, case when t.bonus then t.amount else 0 end, t.at
from (
    select * from (
        select account_id, id as reference_id, 'bet' as action, -stake as amount, bonus, at from round
        union all
        select account_id, id, 'win', pay, bonus, at + interval '900 milliseconds' from round where pay > 0
        union all
        select account_id, new_id, 'rollback_bet', stake, bonus, at + interval '3 seconds' from undone
        union all
        select account_id, new_id, 'rollback_win', -pay, bonus, at + interval '3 seconds' from undone where pay > 0
    ) as e
    order by at desc limit (select rows from size)
) as t;

-- New rows go on where history ends ----------------------------------------------------------------------------------

select setval(pg_get_serial_sequence('casino.users', 'id'), max(id)) from casino.users;
select setval(pg_get_serial_sequence('casino.accounts', 'id'), max(id)) from casino.accounts;
select setval(pg_get_serial_sequence('casino.payments', 'id'), max(id)) from casino.payments;
select setval(pg_get_serial_sequence('casino.casino_games', 'id'), max(id)) from casino.casino_games;
select setval(pg_get_serial_sequence('casino.balance_transactions', 'id'), max(id)) from casino.balance_transactions;

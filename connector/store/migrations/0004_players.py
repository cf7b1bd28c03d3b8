"""What players are made of: identity, exclusions that end, consents, rates, verticals, edges in time."""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"

PLAYERS = """
create function crm.vertical_activity(
    wagered bigint, won bigint, bets bigint, last_bet timestamptz,
    sport_wagered bigint, sport_won bigint, sport_bets bigint, last_sport_bet timestamptz
) returns jsonb language sql immutable parallel safe as $$
    select coalesce(jsonb_object_agg(vertical, jsonb_build_object(
        'wagered', wagered, 'won', won, 'ggr', wagered - won, 'bet_count', bets,
        'last_bet_at', to_char(last_bet at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))), '{}')
    from (values ('casino', $1 - $5, $2 - $6, $3 - $7, $4), ('sportsbook', $5, $6, $7, $8))
      as v(vertical, wagered, won, bets, last_bet)
    where bets <> 0 or wagered <> 0 or won <> 0
$$;
comment on function crm.vertical_activity is 'Immutable although PostgreSQL can''t know it: the zone is written out';

alter table crm.players
    alter column external_id drop not null,
    add column anonymous_ids text[] not null default '{}',
    add column eligible boolean not null default false,
    add column cooling_off_until timestamptz,
    add column rg_self_excluded_until timestamptz,
    add column tags_in_profile boolean not null default false,
    add column groups_in_profile boolean not null default false,
    add column lead jsonb,
    add column push_disabled boolean,
    add column calls_disabled boolean,
    add column consents jsonb not null default '{}',
    add column last_login_at timestamptz,
    add column deposit_count bigint not null default 0,
    add column withdrawal_count bigint not null default 0,
    add column sport_wagered bigint not null default 0,
    add column sport_won bigint not null default 0,
    add column sport_bet_count bigint not null default 0,
    add column last_casino_bet_at timestamptz,
    add column last_sport_bet_at timestamptz;
alter table crm.players add column vertical_activity jsonb generated always as (crm.vertical_activity(
    total_wagered, total_won, bet_count, last_casino_bet_at,
    sport_wagered, sport_won, sport_bet_count, last_sport_bet_at)) stored;
comment on column crm.players.external_id is 'null: a lead, claimed by the first profile that shares a contact with it';
comment on column crm.players.eligible is
    'by status, tags and groups; marketable is that, and no exclusion or cooling-off of this moment';
comment on column crm.players.lead is
    'claimed: what was known of the lead, and holds wherever the source says nothing';
comment on column crm.players.tags_in_profile is
    'user_profile tells the tags: what user_tags says is kept, and not shown; groups_in_profile likewise';
update crm.players set last_casino_bet_at = last_bet_at, eligible = marketable, telegram_id = traits ->> 'telegram_id',
    cooling_off_until = (traits ->> 'cooling_off_until')::timestamptz, tags_in_profile = tags is not null,
    groups_in_profile = groups is not null, traits = traits - array['telegram_id', 'cooling_off_until'];
update crm.tenants set marketing_rules = null;
update crm.players p set deposit_count = m.deposits, withdrawal_count = m.withdrawals
from (
    select player_id, count(*) filter (where effect = 1) - count(*) filter (where effect = -1) as deposits,
           count(*) filter (where effect = 2) - count(*) filter (where effect = -2) as withdrawals
    from crm.event_rows where effect in (-2, -1, 1, 2) and amount_base is not null group by player_id
) m where m.player_id = p.player_id;
create index players_email on crm.players (tenant, lower(email)) where octet_length(email) <= 500;
create index players_phone on crm.players (tenant, phone) where phone is not null;
create index players_telegram on crm.players (tenant, telegram_id) where telegram_id is not null;
create index players_leads on crm.players (tenant) where external_id is null;
"""

IDENTITY = """
create table crm.player_wallets (
    tenant text not null,
    network text not null,
    address text not null,
    player_id bigint not null references crm.players,
    primary key (tenant, network, address, player_id)
);
create index on crm.player_wallets (player_id);

create table crm.player_conflicts (
    player_id bigint not null references crm.players,
    other_id bigint not null references crm.players,
    matched_by text not null,
    found_at timestamptz not null default now(),
    resolved_at timestamptz,
    resolution text,
    primary key (player_id, other_id)
);
create index on crm.player_conflicts (other_id);
comment on table crm.player_conflicts is
    'Two accounts that share a contact: the later one bears status conflict until a person has answered';

create table crm.player_labels (
    player_id bigint not null references crm.players,
    kind text not null check (kind in ('tag', 'group')),
    label text not null,
    present boolean not null,
    updated_at timestamptz not null,
    primary key (player_id, kind, label)
);
comment on table crm.player_labels is
    'Tags and groups that come one by one (user_tags, user_groups), newest word of each';
"""

MONEY = """
create table crm.fx_rates (
    tenant text not null,
    base text not null,
    currency text not null,
    valid_from timestamptz not null,
    rate numeric not null check (rate > 0),
    origin text not null,
    primary key (tenant, base, currency, valid_from)
);
comment on table crm.fx_rates is 'Units of base for one unit of currency, from valid_from until the next one';
alter table crm.tenants add column base_places smallint;
comment on column crm.tenants.base_places is 'Decimal places of the subunit that all totals are in';

alter table crm.fx_pending add column tenant text, add column currency text, add column occurred_at timestamptz;
update crm.fx_pending w set tenant = p.tenant, currency = e.currency, occurred_at = e.occurred_at
from crm.event_rows e join crm.players p using (player_id) where e.seq = w.seq;
alter table crm.fx_pending alter column tenant set not null, alter column occurred_at set not null;
create index on crm.fx_pending (tenant, currency, occurred_at);

create table crm.fx_due (
    player_id bigint primary key references crm.players,
    tenant text not null
);
comment on table crm.fx_due is
    'Players whose currency is known by now, and for whom too much waited to be settled at once';

create table crm.player_totals (
    player_id bigint primary key references crm.players,
    as_of timestamptz not null,
    deposited bigint, withdrawn bigint, wagered bigint, won bigint,
    deposit_count bigint, withdrawal_count bigint, bet_count bigint,
    deposited_by bigint not null default 0, withdrawn_by bigint not null default 0,
    wagered_by bigint not null default 0, won_by bigint not null default 0,
    deposit_count_by bigint not null default 0, withdrawal_count_by bigint not null default 0,
    bet_count_by bigint not null default 0
);
comment on table crm.player_totals is
    'What the operator says of a player at as_of (base subunits; null: nothing), and in *_by by how much our own'
    ' differed: that is what our totals were moved by';
"""

TIME = """
alter table crm.tenants
    add column reporting_timezone text not null default 'UTC',
    add column play_currencies text[] not null default '{FUN}';
create table crm.player_edges (
    player_id bigint primary key references crm.players,
    tenant text not null,
    edge_at timestamptz not null
) with (fillfactor = 70);
create index on crm.player_edges (tenant, edge_at);
comment on table crm.player_edges is
    'The next moment at which a player changes with no new row: a window moves on, an exclusion ends';
create index event_rows_payments on crm.event_rows (player_id, occurred_at) where effect in (-2, -1, 1, 2);
create index event_rows_occurred on crm.event_rows using brin (occurred_at);
insert into crm.player_edges (player_id, tenant, edge_at)
select player_id, tenant, now() from crm.players p
where exists (select from crm.event_rows e where e.player_id = p.player_id and e.effect in (-2, -1, 1, 2)
              and e.occurred_at > now() - interval '92 days');
alter table crm.parked_events add column salt text;
comment on column crm.parked_events.salt is
    'replayed on demand: not null; what the event''s id is made new with, if it is';
"""


def upgrade() -> None:
    """Add columns and tables; what is known of players that are there is filled in."""
    for statements in (PLAYERS, IDENTITY, MONEY, TIME):
        op.execute(statements)


def downgrade() -> None:
    """Take them away again; leads go with them."""
    op.execute("alter table crm.tenants drop column reporting_timezone, drop column play_currencies")
    op.execute("alter table crm.parked_events drop column salt")
    op.execute("drop index crm.event_rows_payments; drop index crm.event_rows_occurred")
    for table in (
        "player_edges",
        "player_totals",
        "fx_due",
        "fx_rates",
        "player_labels",
        "player_conflicts",
        "player_wallets",
    ):
        op.execute(f"drop table crm.{table}")
    op.execute("alter table crm.fx_pending drop column tenant, drop column currency, drop column occurred_at")
    op.execute("alter table crm.tenants drop column base_places")
    for index in ("leads", "email", "phone", "telegram"):
        op.execute(f"drop index crm.players_{index}")
    for column in (
        *("vertical_activity", "last_sport_bet_at", "last_casino_bet_at", "sport_bet_count", "sport_won"),
        *("sport_wagered", "withdrawal_count", "deposit_count", "last_login_at", "consents", "calls_disabled"),
        *("push_disabled", "rg_self_excluded_until", "cooling_off_until", "eligible", "anonymous_ids"),
        *("tags_in_profile", "groups_in_profile", "lead"),
    ):
        op.execute(f"alter table crm.players drop column {column}")
    op.execute("drop function crm.vertical_activity")
    op.execute("delete from crm.players where external_id is null")
    op.execute("alter table crm.players alter column external_id set not null")

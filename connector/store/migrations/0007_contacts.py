"""E-mail addresses and phone numbers leave the players for a table of their own, which can be encrypted and granted."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

CONTACTS = """
create function crm.key_of(contact text) returns integer language sql immutable parallel safe as $$
    select case when starts_with(contact, 'enc:v1:')
                then coalesce(substring(contact from '^enc:v1:([0-9]{1,9}):')::integer, 0)
                when contact is not null then 0 end
$$;
comment on function crm.key_of is 'The id of the key that a contact is encrypted with, 0 where it is plain';

create table crm.player_contacts (
    player_id bigint primary key, -- written from crm.players alone: to check every row would cost a tenth of a page
    tenant text not null,
    email text,
    phone text,
    lead_email text,
    lead_phone text,
    email_match text collate "C",
    phone_match text collate "C",
    lead_email_match text collate "C",
    lead_phone_match text collate "C",
    key_id integer generated always as (
        least(crm.key_of(email), crm.key_of(phone), crm.key_of(lead_email), crm.key_of(lead_phone))) stored
) with (fillfactor = 80);
comment on table crm.player_contacts is
    'E-mail and phone, apart from the player: plain, or encrypted (enc:v1:KEY:...; enc:v0: before a plain text that'
    ' looks so); *_match finds them: lower case, or a keyed digest; lead_*: what a claimed lead brought';
comment on column crm.player_contacts.key_id is 'The least key of the row''s contacts; 0: one is plain';
"""

#: What the connector itself would write of them: see connector/contacts.py.
MOVED = """
insert into crm.player_contacts (player_id, tenant, {names})
select player_id, tenant, {marked},
       case when position('@' in email) > 0 and octet_length(email) <= 500 then lower(email) end,
       case when phone ~ '^\\+[0-9]{{5,15}}$' then phone end,
       case when position('@' in lead_email) > 0 and octet_length(lead_email) <= 500 then lower(lead_email) end,
       case when lead_phone ~ '^\\+[0-9]{{5,15}}$' then lead_phone end
from (select player_id, tenant, email, phone, lead ->> 'email' as lead_email, lead ->> 'phone' as lead_phone
      from crm.players) p
where coalesce(email, phone, lead_email, lead_phone) is not null
order by player_id
""".format(
    names="email, phone, lead_email, lead_phone, email_match, phone_match, lead_email_match, lead_phone_match",
    marked=", ".join(
        f"case when starts_with({name}, 'enc:v') then 'enc:v0:' || {name} else {name} end"
        for name in ("email", "phone", "lead_email", "lead_phone")
    ),
)
APART = """
create index player_contacts_email on crm.player_contacts (tenant, email_match) where email_match is not null;
create index player_contacts_phone on crm.player_contacts (tenant, phone_match) where phone_match is not null;
create index player_contacts_key on crm.player_contacts (tenant, key_id, player_id);
drop index crm.players_email;
drop index crm.players_phone;
alter table crm.players drop column email, drop column phone;
update crm.players set lead = lead - array['email', 'phone'] where lead ?| array['email', 'phone'];
"""

TOGETHER = """
alter table crm.players add column email text, add column phone text;
update crm.players p set email = {email}, phone = {phone},
    lead = case when p.lead is not null then p.lead || jsonb_strip_nulls(
        jsonb_build_object('email', {lead_email}, 'phone', {lead_phone})) end
from crm.player_contacts k where k.player_id = p.player_id;
create index players_email on crm.players (tenant, lower(email)) where octet_length(email) <= 500;
create index players_phone on crm.players (tenant, phone) where phone is not null;
drop table crm.player_contacts;
drop function crm.key_of;
""".format(
    **{
        name: f"case when starts_with(k.{name}, 'enc:v0:') then substr(k.{name}, 8) else k.{name} end"
        for name in ("email", "phone", "lead_email", "lead_phone")
    }
)


def upgrade() -> None:
    """Move what is known of contacts, of players and of claimed leads."""
    op.execute(CONTACTS)
    op.execute(MOVED)
    op.execute(APART)


def downgrade() -> None:
    """Put contacts back beside the players. Refused where some are encrypted: no SQL could decrypt them."""
    if op.get_bind().scalar(sa.text("select exists (select from crm.player_contacts where key_id > 0)")):
        raise RuntimeError("contacts are encrypted: they can't go back into crm.players")
    op.execute(TOGETHER)

"""The names of an event's properties stand once in a table, not in each row."""

from __future__ import annotations

from alembic import op

revision = "0011"
down_revision = "0010"

#: Text says itself which it is: an object names its own values, an array holds those of a shape.
_PROPERTIES = """
    case when json_typeof(e.properties) = 'object' then e.properties::jsonb else crm.named(h.names, e.properties) end
"""
_VIEW = """
    create or replace view crm.events {options} as
    select e.seq, s.tenant, s.source, s.stream, s.generation, s.brand_id, p.external_id, e.player_id,
           coalesce(e.transaction_id, e.key) as transaction_id, n.name, e.occurred_at, e.amount, e.currency,
           e.amount_base, t.base_currency, e.fx_rate_locked, e.history, {properties} as properties, e.key
    from crm.event_rows e
    join crm.event_streams s using (stream_id)
    join crm.event_names n using (name_id)
    join crm.players p using (player_id)
    join crm.tenants t on t.tenant = s.tenant
    {shapes}
"""


def upgrade() -> None:
    """A third of a bet's row were names. Rows that are there keep theirs."""
    op.execute("""
        create table crm.event_shapes (
            shape_id integer generated always as identity primary key,
            tenant text not null,
            names text[] not null
        );
        create index on crm.event_shapes using hash (names);  -- of any length; the store's lock keeps each single
        alter table crm.event_shapes enable row level security;
        create policy one_tenant on crm.event_shapes for select to crm_app, crm_contacts
            using (tenant = (select current_setting('app.tenant_id', true)));
        comment on table crm.event_shapes is 'Names of the values that event_rows.properties holds as an array';
        alter table crm.event_rows add column shape_id integer;

        create function crm.named(names text[], stored json) returns jsonb
        language sql immutable parallel safe as $$
            select coalesce(jsonb_object_agg(names[place], value) filter (where value is not null), '{}')
            from json_array_elements_text(stored) with ordinality as v(value, place)
        $$;
        comment on function crm.named is 'The values of a shape (crm.event_shapes) as an object, nulls left out';
        grant select on crm.event_shapes to crm_app;
        alter table crm.event_shapes owner to crm_writer;
        alter function crm.named owner to crm_writer;
    """)
    _show(_PROPERTIES, "left join crm.event_shapes h using (shape_id)")


def downgrade() -> None:
    """Give each row its names back."""
    op.execute("""
        update crm.event_rows e set properties = crm.named(h.names, e.properties)::json
        from crm.event_shapes h where h.shape_id = e.shape_id and json_typeof(e.properties) = 'array'
    """)
    _show("e.properties::jsonb", "")
    op.execute("""
        drop function crm.named;
        alter table crm.event_rows drop column shape_id;
        drop table crm.event_shapes;
    """)


def _show(properties: str, shapes: str) -> None:
    version = op.get_bind().dialect.server_version_info
    checked = version is not None and version >= (15,)  # before, a view reads as its owner: it is not granted
    options = "with (security_invoker = true)" if checked else ""
    op.execute(_VIEW.format(options=options, properties=properties, shapes=shapes))

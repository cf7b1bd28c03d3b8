"""The values of a shape are a text of their own, which needs no parsing; `properties` holds objects alone."""

from __future__ import annotations

from alembic import op

revision = "0012"
down_revision = "0011"

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
    left join crm.event_shapes h using (shape_id)
"""


def upgrade() -> None:
    """Rows whose values stood in arrays get their names back, so that nobody has a third form to read."""
    op.execute("""
        alter table crm.event_rows add column packed text collate "C";
        alter table crm.event_rows alter column properties drop not null;
        comment on column crm.event_rows.packed is
            'Values of a shape (crm.event_shapes), U+001F between them, nothing for null; then properties is null';
        comment on table crm.event_shapes is 'Names of the values that event_rows.packed holds';
        update crm.event_rows e set properties = crm.named(h.names, e.properties)::json, shape_id = null
        from crm.event_shapes h where h.shape_id = e.shape_id and json_typeof(e.properties) = 'array';

        create function crm.named(names text[], packed text) returns jsonb
        language sql immutable parallel safe as $$
            select coalesce(jsonb_object_agg(names[place], value) filter (where value <> ''), '{}')
            from unnest(string_to_array(packed, e'\\x1f')) with ordinality as v(value, place)
        $$;
        comment on function crm.named(text[], text) is 'The values of a shape (crm.event_shapes) as an object';
        alter function crm.named(text[], text) owner to crm_writer;
    """)
    _show("case when e.packed is null then e.properties::jsonb else crm.named(h.names, e.packed) end")
    op.execute("drop function crm.named(text[], json)")


def downgrade() -> None:
    """Give each row its names."""
    op.execute("""
        update crm.event_rows e set properties = crm.named(h.names, e.packed)::json, shape_id = null
        from crm.event_shapes h where h.shape_id = e.shape_id and e.packed is not null;

        create function crm.named(names text[], stored json) returns jsonb
        language sql immutable parallel safe as $$
            select coalesce(jsonb_object_agg(names[place], value) filter (where value is not null), '{}')
            from json_array_elements_text(stored) with ordinality as v(value, place)
        $$;
        comment on function crm.named(text[], json) is
            'The values of a shape (crm.event_shapes) as an object, nulls left out';
        alter function crm.named(text[], json) owner to crm_writer;
    """)
    _show(
        "case when json_typeof(e.properties) = 'object' then e.properties::jsonb"
        " else crm.named(h.names, e.properties) end"
    )
    op.execute("""
        drop function crm.named(text[], text);
        alter table crm.event_rows drop column packed;
        alter table crm.event_rows alter column properties set not null;
        comment on table crm.event_shapes is 'Names of the values that event_rows.properties holds as an array';
    """)


def _show(properties: str) -> None:
    version = op.get_bind().dialect.server_version_info
    checked = version is not None and version >= (15,)  # before, a view reads as its owner: it is not granted
    options = "with (security_invoker = true)" if checked else ""
    op.execute(_VIEW.format(options=options, properties=properties))

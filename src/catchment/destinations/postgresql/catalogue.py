"""What PostgreSQL's catalogue says of a table."""

from __future__ import annotations

from typing import Any

from catchment.destinations.postgresql.types import arrow_type
from catchment.sdk import Column, Table

_COLUMNS = """
select a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
       coalesce(pk.conkey @> array[a.attnum], false),
       exists (select from pg_constraint u
               where u.conrelid = a.attrelid and u.contype = 'u' and u.conkey = array[a.attnum])
from pg_attribute a
left join pg_constraint pk on pk.conrelid = a.attrelid and pk.contype = 'p'
where a.attrelid = to_regclass(%s) and a.attnum > 0 and not a.attisdropped
order by a.attnum
"""


def describe(connection: Any, name: str) -> Table | None:
    """The table in the current schema; None if it is missing."""
    quoted = '"' + name.replace('"', '""') + '"'
    schema = connection.execute("select quote_ident(current_schema())").fetchone()[0]
    rows = connection.execute(_COLUMNS, [f"{schema}.{quoted}"]).fetchall()
    if not rows:
        return None
    return Table(
        name,
        tuple(
            Column(column, arrow_type(kind), primary_key=key, not_null=strict, unique=unique and not key)
            for column, kind, strict, key, unique in rows
        ),
    )


_DEPENDENTS = """
select c.relname,
    exists (select from pg_depend d join pg_rewrite r on r.oid = d.objid
            where d.classid = 'pg_rewrite'::regclass and d.refobjid = c.oid and r.ev_class <> c.oid)
    or exists (select from pg_constraint f where f.contype = 'f' and (f.confrelid = c.oid or f.conrelid = c.oid))
    or exists (select from pg_trigger t where t.tgrelid = c.oid and not t.tgisinternal)
    or exists (select from pg_policy p where p.polrelid = c.oid)
    or exists (select from pg_description o where o.objoid = c.oid and o.classoid = 'pg_class'::regclass)
    or exists (select from pg_publication_rel b where b.prrelid = c.oid)
    or exists (select from pg_inherits i where i.inhrelid = c.oid or i.inhparent = c.oid)
    or exists (select from pg_attrdef e where e.adrelid = c.oid)
    or exists (select from pg_constraint k where k.conrelid = c.oid and k.contype in ('c', 'x'))
    or exists (select from pg_index x
               where x.indrelid = c.oid and not exists (select from pg_constraint n where n.conindid = x.indexrelid))
    or c.relacl is not null or c.relrowsecurity or c.relkind <> 'r' or c.relhasrules
    or c.relowner <> (select oid from pg_roles where rolname = current_user)
from pg_class c
where c.relnamespace = (select oid from pg_namespace where nspname = current_schema()) and c.relname = any(%s)
"""


def dependents(connection: Any, names: list[str]) -> dict[str, bool]:
    """For each of the tables that exist: whether anything hangs on it that a renamed table would not have."""
    return dict(connection.execute(_DEPENDENTS, [names]).fetchall())

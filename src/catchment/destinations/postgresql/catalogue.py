"""What PostgreSQL's catalogue says of a table."""

from __future__ import annotations

import graphlib
from collections.abc import Sequence
from dataclasses import dataclass
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
where a.attrelid = to_regclass($1) and a.attnum > 0 and not a.attisdropped
order by a.attnum
"""


def describe(connection: Any, name: str) -> Table | None:
    """The table in the current schema; None if it is missing."""
    rows = connection.execute(_COLUMNS, [_qualified(connection, name)]).fetchall()
    if not rows:
        return None
    return Table(
        name,
        tuple(
            Column(column, arrow_type(kind), primary_key=key, not_null=strict, unique=unique and not key)
            for column, kind, strict, key, unique in rows
        ),
    )


def is_catalogue(connection: Any, name: str) -> bool:
    """Whether PostgreSQL would take the name for one of its own tables, which come before those of any schema."""
    if not name.startswith("pg_"):
        return False
    query = "select exists (select from pg_class where relnamespace = 'pg_catalog'::regnamespace and relname = $1)"
    return bool(connection.execute(query, [name]).fetchone()[0])


_ROWS = """
select case when c.reltuples >= 0 then c.reltuples
            when pg_stat_get_live_tuples(c.oid) > 0 then pg_stat_get_live_tuples(c.oid)
            when pg_relation_size(c.oid) = 0 then 0 end::bigint
from pg_class c where c.oid = to_regclass($1)
"""


def estimated_rows(connection: Any, name: str) -> int | None:
    """Rows of a table as the planner or the statistics have it; None where neither has looked at it yet."""
    found = connection.execute(_ROWS, [_qualified(connection, name)]).fetchone()
    return found[0] if found is not None else None


_HANGING = """
with recursive hanging as (
    select d.classid, d.objid, d.objsubid from pg_depend d
    where d.refclassid = 'pg_class'::regclass and d.refobjid = to_regclass($1) and d.deptype = 'n'
    and ($2::text[] is null or exists (select from pg_attribute a where a.attrelid = d.refobjid
                                       and a.attnum = d.refobjsubid and a.attname = any($2)))
    union
    select d.classid, d.objid, d.objsubid from hanging h
    join pg_rewrite r on h.classid = 'pg_rewrite'::regclass and r.oid = h.objid
    join pg_depend d on d.refclassid = 'pg_class'::regclass and d.refobjid = r.ev_class and d.deptype = 'n'
)
select distinct
    case when r.oid is null then pg_describe_object(h.classid, h.objid, h.objsubid)
         when v.relkind = 'm' then 'materialized view `' || r.ev_class::regclass || '`'
         else 'view `' || r.ev_class::regclass || '`' end
from hanging h
left join pg_rewrite r on h.classid = 'pg_rewrite'::regclass and r.oid = h.objid
left join pg_class v on v.oid = r.ev_class
left join pg_constraint k on h.classid = 'pg_constraint'::regclass and k.oid = h.objid
where r.ev_class is distinct from to_regclass($1) and k.conrelid is distinct from to_regclass($1)
order by 1
"""


def hanging(connection: Any, name: str, columns: Sequence[str] | None = None) -> list[str]:
    """What keeps the table from being dropped: views, those that read them, and other tables' foreign keys.

    With `columns` what keeps those from being changed.
    """
    wanted = list(columns) if columns is not None else None
    rows = connection.execute(_HANGING, [_qualified(connection, name), wanted]).fetchall()
    return [text for (text,) in rows]


def _qualified(connection: Any, name: str) -> str:
    """The quoted name of a table in the current schema, as `to_regclass` takes it."""
    quoted = '"' + name.replace('"', '""') + '"'
    return f"{connection.execute('select quote_ident(current_schema())').fetchone()[0]}.{quoted}"


_DEPENDENTS = """
select c.relname, exists (select from pg_constraint f where f.contype = 'f' and f.confrelid = c.oid),
    exists (select from pg_depend d left join pg_rewrite r on d.classid = 'pg_rewrite'::regclass and r.oid = d.objid
            where d.refclassid = 'pg_class'::regclass and d.refobjid = c.oid and d.deptype = 'n'
            and r.ev_class is distinct from c.oid)
    or exists (select from pg_depend d
               where d.refclassid = 'pg_type'::regclass and d.refobjid = c.reltype and d.deptype = 'n')
    or exists (select from pg_constraint f where f.contype = 'f' and f.conrelid = c.oid)
    or exists (select from pg_trigger t where t.tgrelid = c.oid and not t.tgisinternal)
    or exists (select from pg_policy p where p.polrelid = c.oid)
    or exists (select from pg_description o where o.objoid = c.oid and o.classoid = 'pg_class'::regclass)
    or exists (select from pg_seclabel l where l.objoid = c.oid and l.classoid = 'pg_class'::regclass)
    or exists (select from pg_publication_rel b where b.prrelid = c.oid)
    or exists (select from pg_statistic_ext s where s.stxrelid = c.oid)
    or exists (select from pg_inherits i where i.inhrelid = c.oid or i.inhparent = c.oid)
    or exists (select from pg_attribute a join pg_type y on y.oid = a.atttypid
               where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
               and (a.atthasdef or a.attidentity <> '' or a.attacl is not null
                    or exists (select from unnest(a.attoptions) o where starts_with(o, 'n_distinct'))
                    or a.attstattarget >= 0 or a.attstorage <> y.typstorage or a.attcollation <> y.typcollation))
    or exists (select from pg_constraint k where k.conrelid = c.oid
               and (k.contype in ('c', 'x') or (k.contype = 'u' and cardinality(k.conkey) > 1)))
    or exists (select from pg_index x join pg_class n on n.oid = x.indexrelid
               where x.indrelid = c.oid and n.relname <> all($2)
               and not exists (select from pg_constraint k where k.conindid = x.indexrelid))
    or c.relacl is not null or c.reloptions is not null or c.reltablespace <> 0 or c.relreplident <> 'd'
    or c.relpersistence <> 'p' or c.relrowsecurity or c.relkind <> 'r' or c.relhasrules
    or c.relowner <> (select oid from pg_roles where rolname = current_user)
from pg_class c
where c.relnamespace = (select oid from pg_namespace where nspname = current_schema()) and c.relname = any($1)
"""


# Of a column's options only `n_distinct…` are people's: PostgreSQL 15.20 gives each column `pg_attver` by itself.


@dataclass(frozen=True, slots=True)
class Ties:
    """What else there is to a table than its columns, keys and rows."""

    referenced: bool
    """Whether foreign keys of others refer to its rows, which then have to stay where they are."""
    any: bool
    """Whether anything hangs on it, or was set on it, that a renamed table would not have."""


def ties(connection: Any, names: Sequence[str], own_indexes: Sequence[str]) -> dict[str, Ties]:
    """By name, for those of the tables that exist; indexes of ours count for nothing."""
    rows = connection.execute(_DEPENDENTS, [list(names), list(own_indexes)]).fetchall()
    return {name: Ties(referenced, referenced or tied) for name, referenced, tied in rows}


_PARENTS = """
select c.relname, p.relname from pg_constraint f
join pg_class c on c.oid = f.conrelid join pg_class p on p.oid = f.confrelid
where f.contype = 'f' and c.oid <> p.oid and c.relnamespace = p.relnamespace
and c.relnamespace = (select oid from pg_namespace where nspname = current_schema())
and c.relname = any($1) and p.relname = any($1)
"""


def parents_first(connection: Any, names: Sequence[str]) -> list[str]:
    """The tables, each behind those that its foreign keys refer to; in their own order where that goes in a circle."""
    order = graphlib.TopologicalSorter({name: set() for name in names})
    for child, parent in connection.execute(_PARENTS, [list(names)]).fetchall():
        order.add(child, parent)
    try:
        return list(order.static_order())
    except graphlib.CycleError:
        return list(names)


_CONSTRAINTS = """
select k.conname, k.contype::text, array(select a.attname::text from pg_attribute a
                                         where a.attrelid = k.conrelid and a.attnum = any(k.conkey))
from pg_constraint k where k.conrelid = to_regclass($1) and k.contype in ('p', 'u')
"""


def key_constraints(connection: Any, name: str) -> list[tuple[str, str, list[str]]]:
    """Name, kind (`p` or `u`) and columns of every key, as older versions and other programs have named them."""
    return list(connection.execute(_CONSTRAINTS, [_qualified(connection, name)]).fetchall())


def generated(connection: Any, name: str) -> set[str]:
    """Columns of a table whose values PostgreSQL makes itself and takes from nobody."""
    rows = connection.execute(
        "select attname from pg_attribute where attrelid = to_regclass($1) and attnum > 0 and not attisdropped "
        "and (attgenerated <> '' or attidentity = 'a')",
        [_qualified(connection, name)],
    ).fetchall()
    return {column for (column,) in rows}


def left_out(connection: Any, name: str, columns: Sequence[str]) -> list[str]:
    """Columns of a table that are none of `columns`, but for those whose values PostgreSQL makes itself."""
    rows = connection.execute(
        "select a.attname from pg_attribute a left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum "
        "where a.attrelid = to_regclass($1) and a.attnum > 0 and not a.attisdropped and a.attname <> all($2) "
        "and a.attgenerated = '' and a.attidentity = '' "
        "and coalesce(pg_get_expr(d.adbin, d.adrelid), '') not like 'nextval(%' order by a.attnum",
        [_qualified(connection, name), list(columns)],
    ).fetchall()
    return [column for (column,) in rows]


def holders(connection: Any, names: Sequence[str]) -> list[str]:
    """Other sessions that use the tables: their process, program and what they do."""
    rows = connection.execute(
        "select distinct l.pid, a.application_name, a.state from pg_locks l join pg_class c on c.oid = l.relation "
        "left join pg_stat_activity a on a.pid = l.pid where l.granted and l.pid <> pg_backend_pid() "
        "and c.relname = any($1) and c.relnamespace = (select oid from pg_namespace where nspname = current_schema()) "
        "and l.database = (select oid from pg_database where datname = current_database()) order by 1",
        [list(names)],
    ).fetchall()
    return [f"process {pid} ({', '.join(part for part in (program, state) if part) or 'unknown'})"
            for pid, program, state in rows]  # fmt: skip

-- Everything in schema public that migrations made, as (kind, relation, name, what): one row an
-- object, in a form that does not depend on the server's age, the session or what was stored.
with own as (
    select c.oid, c.relname::text as relation, c.relkind,
        exists (select from timescaledb_information.continuous_aggregates a
            where a.view_schema = 'public' and a.view_name = c.relname) as is_aggregate
    from pg_class c
    where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p', 'v', 'm')
        and c.relname <> '_sqlx_migrations'
        and not exists (select from pg_depend d
            where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e')
),
-- Indexes that configuration asks for are no drift, and the date in one of them moves on.
indexes as (
    select x.indexrelid as oid, own.relation, i.relname::text as name,
        regexp_replace(pg_get_indexdef(x.indexrelid),
            '''[^'']+''::timestamp with time zone', '<date>', 'g') as definition,
        x.indisunique, x.indkey, x.indrelid
    from own join pg_index x on x.indrelid = own.oid join pg_class i on i.oid = x.indexrelid
    where i.relname not in ('idx_market_data_symbol_timestamp', 'idx_market_data_exchange_timestamp')
),
reads as (
    select distinct own.oid, own.relation, source.relname::text as source
    from own
    join pg_rewrite r on r.ev_class = own.oid
    join pg_depend d on d.classid = 'pg_rewrite'::regclass and d.objid = r.oid
        and d.refclassid = 'pg_class'::regclass and d.refobjid <> own.oid
    join pg_class source on source.oid = d.refobjid
    where own.relkind = 'v' and not own.is_aggregate
),
functions as (
    select p.oid, p.proname::text as name, pg_get_function_identity_arguments(p.oid) as arguments, p.prosrc
    from pg_proc p
    where p.pronamespace = 'public'::regnamespace and not exists (select from pg_depend d
        where d.classid = 'pg_proc'::regclass and d.objid = p.oid and d.deptype = 'e')
)
select 'table' as kind, relation, '' as name, '' as what from own where relkind in ('r', 'p')
union all
select 'view', relation, '', case when is_aggregate then 'continuous aggregate' else
    -- newer servers leave the table's name before a column out
    (select regexp_replace(regexp_replace(pg_get_viewdef(own.oid),
        '(' || coalesce(string_agg(source, '|'), '-') || ')\.', '', 'g'), '\s+', ' ', 'g')
        from reads where reads.oid = own.oid) end
from own where relkind in ('v', 'm')
union all
select 'reads', relation, source, '' from reads
union all
select 'column', own.relation, a.attname, format_type(a.atttypid, a.atttypmod)
    || case when co.collname <> 'default' then ' collate ' || quote_ident(co.collname) else '' end
    || case when a.attnotnull then ' not null' else '' end
    || case when a.attidentity <> '' then ' identity' else '' end
    || coalesce(case when a.attgenerated <> '' then ' generated ' else ' default ' end
        || pg_get_expr(d.adbin, d.adrelid), '')
from own
join pg_attribute a on a.attrelid = own.oid and a.attnum > 0 and not a.attisdropped
left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
left join pg_collation co on co.oid = a.attcollation and own.relkind = 'r'
union all
select 'order', own.relation, '', string_agg(a.attname, ', ' order by a.attnum)
from own join pg_attribute a on a.attrelid = own.oid and a.attnum > 0 and not a.attisdropped
group by own.relation
union all
select 'constraint', own.relation, c.conname, pg_get_constraintdef(c.oid)
from own join pg_constraint c on c.conrelid = own.oid and c.contype in ('c', 'p', 'u', 'f', 'x')
union all
select 'index', relation, name, definition from indexes
union all
select 'unique', x.relation, x.name, string_agg(a.attname, ', ' order by k.place)
from indexes x, unnest(x.indkey) with ordinality as k (number, place), pg_attribute a
where x.indisunique and a.attrelid = x.indrelid and a.attnum = k.number
group by x.relation, x.name
union all
select 'trigger', own.relation, t.tgname, pg_get_triggerdef(t.oid)
from own join pg_trigger t on t.tgrelid = own.oid
where not t.tgisinternal and t.tgname not like 'ts\_%'
union all
select 'dimension', d.hypertable_name, d.column_name,
    coalesce(d.time_interval::text, d.num_partitions || ' partitions')
from timescaledb_information.dimensions d join own on own.relation = d.hypertable_name
where d.hypertable_schema = 'public'
union all
select 'compressed', h.hypertable_name, '', ''
from timescaledb_information.hypertables h join own on own.relation = h.hypertable_name
where h.hypertable_schema = 'public' and h.compression_enabled
union all
select 'function', name, arguments, md5(prosrc) from functions
union all
select 'comment', relation, '', obj_description(oid, 'pg_class') from own
where obj_description(oid, 'pg_class') is not null
union all
select 'comment', own.relation, a.attname, col_description(own.oid, a.attnum)
from own join pg_attribute a on a.attrelid = own.oid and a.attnum > 0 and not a.attisdropped
where col_description(own.oid, a.attnum) is not null
union all
select 'comment', relation, name, obj_description(oid, 'pg_class') from indexes
where obj_description(oid, 'pg_class') is not null
union all
select 'comment', name, arguments, obj_description(oid, 'pg_proc') from functions
where obj_description(oid, 'pg_proc') is not null

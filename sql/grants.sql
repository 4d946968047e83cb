-- Rights of the roles in this database; everything else is taken from them. Run again after
-- every migration, so that new tables are covered. Hypertables pass rights on to their chunks.

do $$
declare
    object record;
    roles constant text :=
        'timeseries_readonly, timeseries_writer, timeseries_admin, tapeline_store, tapeline_candles, tapeline_reader';
begin
    execute format('revoke create on schema public from public, %s', roles);
    execute format('grant usage on schema public to %s', roles);
    -- Readers need no temporary tables; the store stages its batches in them.
    execute format('revoke temporary on database %I from public, %s', current_database(), roles);
    execute format('grant temporary on database %I to tapeline_store, timeseries_admin', current_database());

    for object in
        select c.relname as name, c.relkind in ('v', 'm') as is_view,
            c.relname in ('system_config', 'exchange_config') as is_secret,
            c.relname like 'tapeline\_%' or c.relname = '_sqlx_migrations' as is_ours
        from pg_class c
        where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p', 'v', 'm')
            and not exists (select from pg_depend d
                where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e')
    loop
        execute format('revoke all on %I from public, %s', object.name, roles);
        execute format('grant select, insert, update, delete on %I to timeseries_admin', object.name);
        continue when object.is_secret;
        execute format('grant select on %I to timeseries_readonly, timeseries_writer', object.name);
        continue when object.is_view or object.is_ours;
        execute format('grant insert, update on %I to timeseries_writer', object.name);
        execute format('grant select, insert, update on %I to tapeline_store', object.name);
    end loop;
    for object in
        select p.oid::regprocedure as name from pg_proc p
        where p.pronamespace = 'public'::regnamespace
            and not exists (select from pg_depend d
                where d.classid = 'pg_proc'::regclass and d.objid = p.oid and d.deptype = 'e')
    loop
        execute format('revoke all on function %s from public, %s', object.name, roles);
    end loop;
end $$;

grant select on _sqlx_migrations to tapeline_store, tapeline_candles;
grant select, insert, update on tapeline_fence to tapeline_store;
grant select, insert on tapeline_ledger to tapeline_store;

grant select on market_data_trades, market_data_gaps, tapeline_fence, tapeline_ledger to tapeline_candles;
grant select, insert, update on market_data_ohlcv to tapeline_candles;
grant select, insert, update on tapeline_additions to tapeline_candles;
grant select on tapeline_removals, tapeline_restores to tapeline_candles;
grant select, insert, delete on tapeline_candle_outbox to tapeline_candles;

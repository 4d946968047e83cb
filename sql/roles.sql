-- Roles of the cluster (O7), made where they are missing: `tapeline migrate roles`. Logins have
-- no password until one is set, and so cannot log in.

do $$
declare
    wanted text;
begin
    foreach wanted in array array['timeseries_readonly', 'timeseries_writer', 'timeseries_admin']
    loop
        if not exists (select from pg_roles where rolname = wanted) then
            execute format('create role %I nologin', wanted);
        end if;
    end loop;
    foreach wanted in array array['tapeline_store', 'tapeline_candles', 'tapeline_reader']
    loop
        if not exists (select from pg_roles where rolname = wanted) then
            execute format('create role %I login nosuperuser nocreatedb nocreaterole', wanted);
        end if;
    end loop;
end $$;

grant timeseries_readonly to tapeline_reader;

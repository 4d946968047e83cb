-- What was brought back from the archive, so that lifecycle leaves it alone for a while.

create table tapeline_restores (
    table_name text collate "C" not null,
    day date not null,
    rows bigint not null,
    restored_at timestamptz not null default clock_timestamp(),
    primary key (table_name, day)
);

comment on table tapeline_restores is 'days that were restored from the archive';
comment on column tapeline_restores.table_name is 'table that the rows are in';
comment on column tapeline_restores.day is 'UTC day of the events';
comment on column tapeline_restores.rows is 'rows that came back';
comment on column tapeline_restores.restored_at is 'when; lifecycle.keep_restored_days count from here';

-- What the audit needs besides the ledger: losses that were accepted, folded rows, and rows that
-- come to the tables, or leave them, beside the store.

alter table tapeline_ledger
    add column lost bigint not null default 0,
    add column batches bigint not null default 1;

comment on column tapeline_ledger.skipped is 'offsets that Kafka never delivered';
comment on column tapeline_ledger.lost is 'offsets that retention took before they were read, a loss that an operator accepted';
comment on column tapeline_ledger.batches is 'batches that the row stands for: more than one where old rows were folded';
comment on column tapeline_ledger.written_at is 'when the batch was written, the last one of a folded row';

create table tapeline_additions (
    pipeline text collate "C" not null,
    table_name text collate "C" not null,
    day date not null,
    rows bigint not null,
    primary key (pipeline, table_name, day)
);

comment on table tapeline_additions is 'rows that were added beside the store: candles that only the reviser wrote';
comment on column tapeline_additions.pipeline is 'as in the fence';
comment on column tapeline_additions.table_name is 'table that the rows are in';
comment on column tapeline_additions.day is 'UTC day of the events';
comment on column tapeline_additions.rows is 'number of rows';

create table tapeline_removals (
    id bigint generated always as identity primary key,
    pipeline text collate "C" not null,
    table_name text collate "C" not null,
    day date not null,
    rows bigint not null check (rows > 0),
    reason text not null,
    reference text,
    removed_at timestamptz not null default clock_timestamp()
);
create index tapeline_removals_day on tapeline_removals (table_name, day);

comment on table tapeline_removals is 'rows that lifecycle took out of a table, in the transaction that removed them; the audit subtracts them';
comment on column tapeline_removals.id is 'order of removal';
comment on column tapeline_removals.pipeline is 'whose lifecycle removed them';
comment on column tapeline_removals.table_name is 'table that the rows were in';
comment on column tapeline_removals.day is 'UTC day of the events; a range that reaches back to it is restored, not replayed';
comment on column tapeline_removals.rows is 'number of rows';
comment on column tapeline_removals.reason is 'why: retention, or who asked for it';
comment on column tapeline_removals.reference is 'where they are kept: the manifest of the archive';
comment on column tapeline_removals.removed_at is 'when they were removed';

comment on table market_data_ohlcv is 'T4: candles; a row is replaced only by a higher (revision, final)';

-- What moves together with the rows (invariant 2): the fence, the ledger, and the outbox of
-- the candle reviser.

create table tapeline_fence (
    pipeline text collate "C" not null,
    topic text collate "C" not null,
    partition integer not null,
    topic_id text not null,
    next_offset bigint,
    held_origin bigint,
    epoch bigint not null default 0,
    owner_pid integer,
    owner_started timestamptz,
    primary key (pipeline, topic, partition)
) with (fillfactor = 50);

comment on table tapeline_fence is 'up to where a partition is in the database, and who may go on (invariant 2)';
comment on column tapeline_fence.pipeline is 'the live pipeline, a replay or a shadow; each has fences of its own';
comment on column tapeline_fence.topic is 'topic that is read';
comment on column tapeline_fence.partition is 'its partition';
comment on column tapeline_fence.topic_id is 'Kafka''s id of the topic: a recreated topic is noticed, not trusted';
comment on column tapeline_fence.next_offset is 'next offset to read; null before the first batch';
comment on column tapeline_fence.held_origin is 'last raw offset taken (invariant 3)';
comment on column tapeline_fence.epoch is 'one more with every owner';
comment on column tapeline_fence.owner_pid is 'backend of the owner';
comment on column tapeline_fence.owner_started is 'start of that backend: process ids come back';

create table tapeline_ledger (
    id bigint generated always as identity primary key,
    pipeline text collate "C" not null,
    topic text collate "C" not null,
    topic_id text not null,
    partition integer not null,
    first_offset bigint not null,
    last_offset bigint not null,
    first_origin bigint not null,
    last_origin bigint not null,
    stored bigint not null,
    duplicate bigint not null,
    conflict bigint not null,
    not_stored bigint not null,
    quarantined bigint not null,
    control bigint not null,
    skipped bigint not null,
    repeated bigint not null,
    min_event_time timestamptz,
    max_event_time timestamptz,
    by_day jsonb not null,
    rules text not null,
    written_at timestamptz not null default clock_timestamp()
);
create index tapeline_ledger_range on tapeline_ledger (pipeline, topic, partition, first_offset);

comment on table tapeline_ledger is 'one row a partition and batch: what became of each raw offset';
comment on column tapeline_ledger.id is 'order of writing within a partition';
comment on column tapeline_ledger.pipeline is 'as in the fence';
comment on column tapeline_ledger.topic is 'topic that was read';
comment on column tapeline_ledger.topic_id is 'Kafka''s id of the topic';
comment on column tapeline_ledger.partition is 'its partition';
comment on column tapeline_ledger.first_offset is 'first offset of the batch';
comment on column tapeline_ledger.last_offset is 'last offset of the batch';
comment on column tapeline_ledger.first_origin is 'first raw offset';
comment on column tapeline_ledger.last_origin is 'last raw offset';
comment on column tapeline_ledger.stored is 'origins that made or replaced a row';
comment on column tapeline_ledger.duplicate is 'origins that repeat an event';
comment on column tapeline_ledger.conflict is 'origins with the identity of another event and other content';
comment on column tapeline_ledger.not_stored is 'origins of a kind that is not stored';
comment on column tapeline_ledger.quarantined is 'origins in quarantine';
comment on column tapeline_ledger.control is 'control records';
comment on column tapeline_ledger.skipped is 'offsets that Kafka skipped, or that retention took';
comment on column tapeline_ledger.repeated is 'records that the checked topic holds twice';
comment on column tapeline_ledger.min_event_time is 'oldest event time';
comment on column tapeline_ledger.max_event_time is 'newest event time';
comment on column tapeline_ledger.by_day is 'rows that were added, by UTC day of the event: {"2021-04-17": 12}';
comment on column tapeline_ledger.rules is 'versions of the rules that judged the records';
comment on column tapeline_ledger.written_at is 'when the batch was written';

create table tapeline_candle_outbox (
    id bigint generated always as identity primary key,
    exchange text collate "C" not null,
    symbol text collate "C" not null,
    timeframe text collate "C" not null,
    open_time timestamptz not null,
    revision integer not null,
    key text not null,
    value bytea not null
);

comment on table tapeline_candle_outbox is 'revised candles that are in the table and not yet in Kafka';
comment on column tapeline_candle_outbox.id is 'order of emitting';
comment on column tapeline_candle_outbox.exchange is 'venue, upper case';
comment on column tapeline_candle_outbox.symbol is 'BASE-QUOTE';
comment on column tapeline_candle_outbox.timeframe is 'as in the candle';
comment on column tapeline_candle_outbox.open_time is 'start of the window';
comment on column tapeline_candle_outbox.revision is 'of the candle';
comment on column tapeline_candle_outbox.key is 'key of the message';
comment on column tapeline_candle_outbox.value is 'the message, framed';

-- T13: the documents' indexes that are left, and a partial index on recent data (002). Indexes
-- take the names of the documents also where the document's table is a view of ours.

create index idx_stock_prices_symbol_time on market_data_ohlcv (symbol, time desc)
    where timeframe = '1m' and source = 'tapeline';

-- A predicate is a constant: `tapeline migrate up` moves its date on, see the function.
create index idx_ohlcv_recent on market_data_ohlcv (symbol, timeframe, time desc)
    where time >= timestamptz '2026-01-01 00:00:00+00';

comment on index idx_stock_prices_symbol_time is 'a symbol''s minutes on every venue';
comment on index idx_ohlcv_recent is 'a symbol''s recent candles on every venue';

create function tapeline_recent_index(keep interval) returns boolean
language plpgsql as $$
declare
    since timestamptz := date_trunc('day', now() - keep, 'UTC');
    held timestamptz := substring(
        (select indexdef from pg_indexes
            where schemaname = 'public' and indexname = 'idx_ohlcv_recent')
        from '''([^'']+)''::timestamp with time zone')::timestamptz;
begin
    -- Not a day at a time: building it anew blocks writers of candles.
    if held >= since - keep then
        return false;
    end if;
    drop index if exists public.idx_ohlcv_recent;
    execute format('create index idx_ohlcv_recent on public.market_data_ohlcv
        (symbol, timeframe, time desc) where time >= %L::timestamptz', since);
    comment on index public.idx_ohlcv_recent is 'a symbol''s recent candles on every venue';
    return true;
end $$;

comment on function tapeline_recent_index is
    'builds idx_ohlcv_recent anew once its date is twice the interval ago; says whether it did';

-- The documents' two indexes of market_data, which is a view over trades. Each costs every trade
-- that is stored: both together took 43 % of the rate of inserting (1 million rows in 10.5 s
-- instead of 6.0 s). So they are made where `database.market_data_indexes` asks for them.
create function tapeline_market_data_indexes(wanted boolean) returns void
language plpgsql as $$
begin
    if wanted then
        create index if not exists idx_market_data_symbol_timestamp
            on public.market_data_trades (symbol, time desc);
        create index if not exists idx_market_data_exchange_timestamp
            on public.market_data_trades (exchange, time desc);
        comment on index public.idx_market_data_symbol_timestamp is 'a symbol''s trades on every venue';
        comment on index public.idx_market_data_exchange_timestamp is 'a venue''s trades of every symbol';
    else
        drop index if exists public.idx_market_data_symbol_timestamp;
        drop index if exists public.idx_market_data_exchange_timestamp;
    end if;
end $$;

comment on function tapeline_market_data_indexes is
    'makes the indexes of market_data by symbol and by venue, or drops them';

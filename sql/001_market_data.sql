-- The event tables (T1 to T4), anomalies and the continuity of feeds.
--
-- No column says when a row was written: replaying a range leaves every table byte-equal
-- (invariant 5). Money is numeric without a fixed scale, so that no digit of a venue is lost
-- (invariant 10). Key columns compare bytewise: the order of a table does not depend on the
-- database's locale, and comparing is cheap.

create extension if not exists timescaledb;

create table market_data_trades (
    time timestamptz not null,
    exchange text collate "C" not null,
    symbol text collate "C" not null,
    trade_id text collate "C" not null,
    price numeric not null,
    amount numeric not null,
    side text not null,
    type text,
    taker_or_maker text,
    sequence bigint,
    receive_time timestamptz not null,
    origin_partition integer not null,
    origin bigint not null
);
select create_hypertable('market_data_trades', 'time',
    chunk_time_interval => interval '1 day', create_default_indexes => false);
-- Serves "newest of a symbol" too (read backwards), so that COPY keeps one index and no more.
create unique index idx_trades_exchange_symbol_time
    on market_data_trades (exchange, symbol, time, trade_id);

comment on table market_data_trades is 'T1: trades, ordered by (time, coalesce(sequence, 0), origin)';
comment on column market_data_trades.time is 'by the venue''s clock';
comment on column market_data_trades.exchange is 'venue, upper case';
comment on column market_data_trades.symbol is 'BASE-QUOTE';
comment on column market_data_trades.trade_id is 'what makes the trade itself at its venue, see docs/venues.md';
comment on column market_data_trades.price is 'in the quote currency';
comment on column market_data_trades.amount is 'in the base currency';
comment on column market_data_trades.side is 'the taker''s side: buy, sell or unknown';
comment on column market_data_trades.type is 'the taker''s order type, where the venue says';
comment on column market_data_trades.taker_or_maker is 'for own trades';
comment on column market_data_trades.sequence is 'the venue''s own order among trades of the same time';
comment on column market_data_trades.receive_time is 'when the connector received it';
comment on column market_data_trades.origin_partition is 'partition of the raw topic';
comment on column market_data_trades.origin is 'offset in that partition';

create table market_data_ticker (
    time timestamptz not null,
    exchange text collate "C" not null,
    symbol text collate "C" not null,
    event_id text collate "C" not null,
    last_price numeric,
    bid_price numeric,
    ask_price numeric,
    bid_volume numeric,
    ask_volume numeric,
    volume_24h numeric,
    quote_volume_24h numeric,
    price_change_24h numeric,
    price_change_percent_24h numeric,
    receive_time timestamptz not null,
    origin_partition integer not null,
    origin bigint not null
);
select create_hypertable('market_data_ticker', 'time',
    chunk_time_interval => interval '1 day', create_default_indexes => false);
create unique index idx_ticker_exchange_symbol_time
    on market_data_ticker (exchange, symbol, time, event_id);

comment on table market_data_ticker is 'T2: best prices and figures of the last 24 hours';
comment on column market_data_ticker.time is 'by the venue''s clock; the receive time where the venue gives none';
comment on column market_data_ticker.exchange is 'venue, upper case';
comment on column market_data_ticker.symbol is 'BASE-QUOTE';
comment on column market_data_ticker.event_id is 'the venue''s identity of the ticker; <partition>-<origin> where it gives none';
comment on column market_data_ticker.last_price is 'price of the last trade';
comment on column market_data_ticker.bid_price is 'best bid';
comment on column market_data_ticker.ask_price is 'best ask';
comment on column market_data_ticker.bid_volume is 'amount at the best bid';
comment on column market_data_ticker.ask_volume is 'amount at the best ask';
comment on column market_data_ticker.volume_24h is 'volume of 24 hours in the base currency';
comment on column market_data_ticker.quote_volume_24h is 'volume of 24 hours in the quote currency';
comment on column market_data_ticker.price_change_24h is 'price now less price 24 hours ago';
comment on column market_data_ticker.price_change_percent_24h is 'the same in per cent';
comment on column market_data_ticker.receive_time is 'when the connector received it';
comment on column market_data_ticker.origin_partition is 'partition of the raw topic';
comment on column market_data_ticker.origin is 'offset in that partition';

create table market_data_orderbook (
    time timestamptz not null,
    exchange text collate "C" not null,
    symbol text collate "C" not null,
    event_id text collate "C" not null,
    bids jsonb not null,
    asks jsonb not null,
    timestamp_ms bigint not null,
    sequence bigint,
    receive_time timestamptz not null,
    origin_partition integer not null,
    origin bigint not null
);
select create_hypertable('market_data_orderbook', 'time',
    chunk_time_interval => interval '1 day', create_default_indexes => false);
create unique index idx_orderbook_exchange_symbol_time
    on market_data_orderbook (exchange, symbol, time, event_id);

comment on table market_data_orderbook is 'T3: the best levels of verified books, at a set pace';
comment on column market_data_orderbook.time is 'by the venue''s clock; the receive time where the venue gives none';
comment on column market_data_orderbook.exchange is 'venue, upper case';
comment on column market_data_orderbook.symbol is 'BASE-QUOTE';
comment on column market_data_orderbook.event_id is 'the venue''s identity of the update; <partition>-<origin> where it gives none';
comment on column market_data_orderbook.bids is 'buyers, best first: [["price", "amount"], …], as text so that no digit is lost';
comment on column market_data_orderbook.asks is 'sellers, best first, in the same form';
comment on column market_data_orderbook.timestamp_ms is 'time in milliseconds since the epoch';
comment on column market_data_orderbook.sequence is 'last update of the venue''s sequence that the book holds';
comment on column market_data_orderbook.receive_time is 'when the connector received it';
comment on column market_data_orderbook.origin_partition is 'partition of the raw topic';
comment on column market_data_orderbook.origin is 'offset in that partition';

create table market_data_ohlcv (
    time timestamptz not null,
    exchange text collate "C" not null,
    symbol text collate "C" not null,
    timeframe text collate "C" not null,
    source text collate "C" not null,
    open numeric not null,
    high numeric not null,
    low numeric not null,
    close numeric not null,
    volume numeric not null,
    quote_volume numeric not null,
    trades_count bigint not null,
    final boolean not null,
    revision integer not null,
    close_time timestamptz not null,
    receive_time timestamptz not null
);
select create_hypertable('market_data_ohlcv', 'time',
    chunk_time_interval => interval '30 days', create_default_indexes => false);
select add_dimension('market_data_ohlcv', 'symbol', number_partitions => 10);
create unique index market_data_ohlcv_key
    on market_data_ohlcv (exchange, symbol, timeframe, source, time);
create index idx_ohlcv_exchange_symbol_time on market_data_ohlcv (exchange, symbol, time desc);

comment on table market_data_ohlcv is 'T4: candles; a row is replaced only by a higher (final, revision)';
comment on column market_data_ohlcv.time is 'start of the window';
comment on column market_data_ohlcv.exchange is 'venue, upper case';
comment on column market_data_ohlcv.symbol is 'BASE-QUOTE';
comment on column market_data_ohlcv.timeframe is '1m, 5m, 15m, 1h, 4h or 1d';
comment on column market_data_ohlcv.source is 'who made it: tapeline or venue';
comment on column market_data_ohlcv.open is 'price of the first trade';
comment on column market_data_ohlcv.high is 'highest price';
comment on column market_data_ohlcv.low is 'lowest price';
comment on column market_data_ohlcv.close is 'price of the last trade';
comment on column market_data_ohlcv.volume is 'sum of amounts, in the base currency';
comment on column market_data_ohlcv.quote_volume is 'sum of price times amount, exact';
comment on column market_data_ohlcv.trades_count is 'number of trades';
comment on column market_data_ohlcv.final is 'no hole of the feed is open over the window';
comment on column market_data_ohlcv.revision is 'one more with every correction';
comment on column market_data_ohlcv.close_time is 'end of the window, exclusive';
comment on column market_data_ohlcv.receive_time is 'newest receive time among its trades';

create table market_data_anomalies (
    time timestamptz not null,
    origin_topic text collate "C" not null,
    origin_partition integer not null,
    origin bigint not null,
    exchange text collate "C" not null,
    symbol text collate "C" not null,
    kind text not null,
    flags text[] not null,
    detail text not null,
    receive_time timestamptz not null
);
select create_hypertable('market_data_anomalies', 'time',
    chunk_time_interval => interval '7 days', create_default_indexes => false);
create unique index market_data_anomalies_key
    on market_data_anomalies (origin_topic, origin_partition, origin, time);
create index idx_anomalies_exchange_symbol_time
    on market_data_anomalies (exchange, symbol, time desc);

comment on table market_data_anomalies is 'C2: something odd about an event that was let through';
comment on column market_data_anomalies.time is 'of the event';
comment on column market_data_anomalies.origin_topic is 'raw topic of the event';
comment on column market_data_anomalies.origin_partition is 'its partition';
comment on column market_data_anomalies.origin is 'its offset';
comment on column market_data_anomalies.exchange is 'venue, upper case';
comment on column market_data_anomalies.symbol is 'BASE-QUOTE';
comment on column market_data_anomalies.kind is 'kind of the event: trade, ticker, book';
comment on column market_data_anomalies.flags is 'what is odd';
comment on column market_data_anomalies.detail is 'the figures behind it, for people';
comment on column market_data_anomalies.receive_time is 'of the event';

create table market_data_gaps (
    exchange text collate "C" not null,
    symbol text collate "C" not null,
    channel text collate "C" not null,
    from_time timestamptz not null,
    to_time timestamptz,
    state text not null check (state in ('opened', 'ended', 'filled')),
    cause text not null,
    filled_by text,
    origin_topic text not null,
    origin_partition integer not null,
    origin bigint not null,
    primary key (exchange, symbol, channel, from_time)
);

comment on table market_data_gaps is 'continuity: holes in feeds; a row only moves forward, opened to ended to filled';
comment on column market_data_gaps.exchange is 'venue, upper case';
comment on column market_data_gaps.symbol is 'BASE-QUOTE';
comment on column market_data_gaps.channel is 'kind of events that may be missing: trade, ticker, book';
comment on column market_data_gaps.from_time is 'last moment known to be covered before the hole';
comment on column market_data_gaps.to_time is 'moment from which the feed is whole again';
comment on column market_data_gaps.state is 'opened, ended or filled';
comment on column market_data_gaps.cause is 'why it opened';
comment on column market_data_gaps.filled_by is 'what filled it';
comment on column market_data_gaps.origin_topic is 'raw topic of the control record';
comment on column market_data_gaps.origin_partition is 'its partition';
comment on column market_data_gaps.origin is 'its offset';

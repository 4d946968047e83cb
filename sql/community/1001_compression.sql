-- Only where timescaledb.license is `timescale` (S2): segmented by symbol, ordered by time. When
-- chunks are compressed is configuration (`database.compress_after_days`), set by `migrate up`.

alter table market_data_trades set (timescaledb.compress,
    timescaledb.compress_segmentby = 'exchange, symbol',
    timescaledb.compress_orderby = 'time desc, trade_id');
alter table market_data_ticker set (timescaledb.compress,
    timescaledb.compress_segmentby = 'exchange, symbol',
    timescaledb.compress_orderby = 'time desc, event_id');
alter table market_data_orderbook set (timescaledb.compress,
    timescaledb.compress_segmentby = 'exchange, symbol',
    timescaledb.compress_orderby = 'time desc, event_id');
alter table market_data_ohlcv set (timescaledb.compress,
    timescaledb.compress_segmentby = 'exchange, symbol, timeframe, source',
    timescaledb.compress_orderby = 'time desc');

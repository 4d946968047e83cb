-- Continuous aggregates in the place of the views of the same names and columns (T5, T8). They
-- are made from the candles of a minute, whose order of trades is exact. How often they are
-- refreshed is configuration (`database.aggregate_refresh_minutes`), set by `migrate up`.

drop view mv_ohlcv_1h;
create materialized view mv_ohlcv_1h
with (timescaledb.continuous, timescaledb.materialized_only = false) as
select symbol, exchange, time_bucket('1 hour', time) as timeframe, first(open, time) as open,
    max(high) as high, min(low) as low, last(close, time) as close, sum(volume) as volume
from market_data_ohlcv
where market_data_ohlcv.timeframe = '1m' and source = 'tapeline'
group by symbol, exchange, time_bucket('1 hour', time)
with no data;

comment on view mv_ohlcv_1h is 'T5: candles of an hour';
comment on column mv_ohlcv_1h.symbol is 'BASE-QUOTE';
comment on column mv_ohlcv_1h.exchange is 'venue, upper case';
comment on column mv_ohlcv_1h.timeframe is 'start of the hour';
comment on column mv_ohlcv_1h.open is 'price of the first trade';
comment on column mv_ohlcv_1h.high is 'highest price';
comment on column mv_ohlcv_1h.low is 'lowest price';
comment on column mv_ohlcv_1h.close is 'price of the last trade';
comment on column mv_ohlcv_1h.volume is 'sum of amounts, in the base currency';

drop view daily_candles;
create materialized view daily_candles
with (timescaledb.continuous, timescaledb.materialized_only = false) as
select time_bucket('1 day', time) as day, symbol, exchange, first(open, time) as open,
    max(high) as high, min(low) as low, last(close, time) as close, sum(volume) as volume,
    sum(quote_volume) as trading_value
from market_data_ohlcv
where timeframe = '1m' and source = 'tapeline'
group by time_bucket('1 day', time), symbol, exchange
with no data;

comment on view daily_candles is 'T8: candles of a day, UTC';
comment on column daily_candles.day is 'start of the day';
comment on column daily_candles.symbol is 'BASE-QUOTE';
comment on column daily_candles.exchange is 'venue, upper case';
comment on column daily_candles.open is 'price of the first trade';
comment on column daily_candles.high is 'highest price';
comment on column daily_candles.low is 'lowest price';
comment on column daily_candles.close is 'price of the last trade';
comment on column daily_candles.volume is 'sum of amounts, in the base currency';
comment on column daily_candles.trading_value is 'sum of price times amount';

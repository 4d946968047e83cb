-- The documents' other names (T5, T8), as views over the event tables. On TimescaleDB's
-- Community edition mv_ohlcv_1h and daily_candles give way to continuous aggregates of the same
-- names and columns: sql/community.

create view market_data as
select symbol, exchange, time as "timestamp", price, amount as volume
from market_data_trades;

comment on view market_data is 'T5: prices and volumes of trades';
comment on column market_data.symbol is 'BASE-QUOTE';
comment on column market_data.exchange is 'venue, upper case';
comment on column market_data."timestamp" is 'by the venue''s clock';
comment on column market_data.price is 'in the quote currency';
comment on column market_data.volume is 'in the base currency';

create view mv_ohlcv_1h as
select symbol, exchange, time as timeframe, open, high, low, close, volume
from market_data_ohlcv
where timeframe = '1h' and source = 'tapeline';

comment on view mv_ohlcv_1h is 'T5: candles of an hour';
comment on column mv_ohlcv_1h.symbol is 'BASE-QUOTE';
comment on column mv_ohlcv_1h.exchange is 'venue, upper case';
comment on column mv_ohlcv_1h.timeframe is 'start of the hour';
comment on column mv_ohlcv_1h.open is 'price of the first trade';
comment on column mv_ohlcv_1h.high is 'highest price';
comment on column mv_ohlcv_1h.low is 'lowest price';
comment on column mv_ohlcv_1h.close is 'price of the last trade';
comment on column mv_ohlcv_1h.volume is 'sum of amounts, in the base currency';

create view stock_prices as
select time, symbol, exchange, open, high, low, close, volume, quote_volume as trading_value
from market_data_ohlcv
where timeframe = '1m' and source = 'tapeline';

comment on view stock_prices is 'T8: candles of a minute';
comment on column stock_prices.time is 'start of the minute';
comment on column stock_prices.symbol is 'BASE-QUOTE';
comment on column stock_prices.exchange is 'venue, upper case';
comment on column stock_prices.open is 'price of the first trade';
comment on column stock_prices.high is 'highest price';
comment on column stock_prices.low is 'lowest price';
comment on column stock_prices.close is 'price of the last trade';
comment on column stock_prices.volume is 'sum of amounts, in the base currency';
comment on column stock_prices.trading_value is 'sum of price times amount';

create view daily_candles as
select time as day, symbol, exchange, open, high, low, close, volume, quote_volume as trading_value
from market_data_ohlcv
where timeframe = '1d' and source = 'tapeline';

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

create view realtime_prices as
select time, symbol, exchange, last_price as price, volume_24h as volume,
    bid_price, ask_price, bid_volume, ask_volume
from market_data_ticker;

comment on view realtime_prices is 'T8: prices as they are told';
comment on column realtime_prices.time is 'by the venue''s clock';
comment on column realtime_prices.symbol is 'BASE-QUOTE';
comment on column realtime_prices.exchange is 'venue, upper case';
comment on column realtime_prices.price is 'price of the last trade';
comment on column realtime_prices.volume is 'volume of 24 hours in the base currency';
comment on column realtime_prices.bid_price is 'best bid';
comment on column realtime_prices.ask_price is 'best ask';
comment on column realtime_prices.bid_volume is 'amount at the best bid';
comment on column realtime_prices.ask_volume is 'amount at the best ask';

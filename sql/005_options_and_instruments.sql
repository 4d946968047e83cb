-- Options (T6), reference data that events join to (T12), and where a venue's candle is from.

create table option_data (
    time timestamptz not null,
    exchange text collate "C" not null,
    symbol text collate "C" not null,
    event_id text collate "C" not null,
    underlying text collate "C" not null,
    strike_price numeric not null,
    expiry_date timestamptz not null,
    option_type text not null check (option_type in ('call', 'put')),
    iv numeric,
    delta numeric,
    gamma numeric,
    theta numeric,
    vega numeric,
    rho numeric,
    bid_iv numeric,
    ask_iv numeric,
    mark_price numeric,
    underlying_price numeric,
    index_price numeric,
    interest_rate numeric,
    open_interest numeric,
    receive_time timestamptz not null,
    origin_partition integer not null,
    origin bigint not null
);
-- TimescaleDB takes a month as 30 days.
select create_hypertable('option_data', 'time',
    chunk_time_interval => interval '1 month', create_default_indexes => false);
create unique index idx_option_data_exchange_symbol_time
    on option_data (exchange, symbol, time, event_id);
create index idx_option_data_underlying_expiry on option_data (underlying, expiry_date);
create index idx_option_data_strike_type on option_data (strike_price, option_type);

comment on table option_data is 'T6: figures of options: implied volatilities, greeks, open interest';
comment on column option_data.time is 'by the venue''s clock';
comment on column option_data.exchange is 'venue, upper case';
comment on column option_data.symbol is 'BASE-25DEC26-100000-C';
comment on column option_data.event_id is 'the venue''s identity of the figures; <partition>-<origin> where it gives none';
comment on column option_data.underlying is 'what the option is on: the part of the symbol before the expiry';
comment on column option_data.strike_price is 'strike price';
comment on column option_data.expiry_date is 'when it expires';
comment on column option_data.option_type is 'call or put';
comment on column option_data.iv is 'implied volatility of the mark price, per cent a year';
comment on column option_data.delta is 'change of the price with that of the underlying';
comment on column option_data.gamma is 'change of delta with the price of the underlying';
comment on column option_data.theta is 'change of the price a day';
comment on column option_data.vega is 'change of the price with a point of volatility';
comment on column option_data.rho is 'change of the price with a point of interest';
comment on column option_data.bid_iv is 'implied volatility of the best bid, per cent a year; 0 where there is no bid';
comment on column option_data.ask_iv is 'implied volatility of the best ask, per cent a year; 0 where there is no ask';
comment on column option_data.mark_price is 'the venue''s price for margins, in the currency of the option''s price';
comment on column option_data.underlying_price is 'price of what it is on at expiry, in the quote currency';
comment on column option_data.index_price is 'price of what it is on now, in the quote currency';
comment on column option_data.interest_rate is 'interest rate behind the figures';
comment on column option_data.open_interest is 'contracts that are open, in the venue''s unit';
comment on column option_data.receive_time is 'when the connector received it';
comment on column option_data.origin_partition is 'partition of the raw topic';
comment on column option_data.origin is 'offset in that partition';

alter table market_data_ohlcv add column origin_partition integer, add column origin bigint;
comment on column market_data_ohlcv.origin_partition is 'of a venue''s candle: partition of the raw topic';
comment on column market_data_ohlcv.origin is 'of a venue''s candle: offset in that partition';

create table instruments (
    exchange text collate "C" not null,
    symbol text collate "C" not null,
    code text collate "C" not null,
    name text,
    market text not null check (market in ('spot', 'perpetual', 'future', 'option', 'stock', 'fund')),
    sector text,
    listing_date date,
    base text,
    quote text,
    settlement text,
    strike_price numeric,
    expiry_date timestamptz,
    option_type text check (option_type in ('call', 'put')),
    tick_size numeric,
    lot_size numeric,
    min_size numeric,
    contract_size numeric,
    status text,
    primary key (exchange, symbol)
);
create index idx_instruments_exchange_code on instruments (exchange, code);

comment on table instruments is 'T12: what can be traded where; filled from the venues'' symbol tables, and by whoever knows more of it';
comment on column instruments.exchange is 'venue, upper case';
comment on column instruments.symbol is 'as the pipeline writes it: BASE-QUOTE, BASE-25DEC26-100000-C';
comment on column instruments.code is 'as the venue writes it';
comment on column instruments.name is 'for people, where the venue gives one';
comment on column instruments.market is 'spot, perpetual, future, option, stock or fund';
comment on column instruments.sector is 'not from venues';
comment on column instruments.listing_date is 'first day of trading, where the venue tells it';
comment on column instruments.base is 'currency that is traded';
comment on column instruments.quote is 'currency of the price';
comment on column instruments.settlement is 'currency in which a derivative is settled';
comment on column instruments.strike_price is 'of an option';
comment on column instruments.expiry_date is 'of an option or future';
comment on column instruments.option_type is 'of an option';
comment on column instruments.tick_size is 'smallest step of the price';
comment on column instruments.lot_size is 'smallest step of the amount';
comment on column instruments.min_size is 'smallest amount of an order';
comment on column instruments.contract_size is 'what one contract of a derivative stands for';
comment on column instruments.status is 'in the venue''s words';

create table fund_constituents (
    exchange text collate "C" not null,
    fund text collate "C" not null,
    as_of date not null,
    constituent text collate "C" not null,
    weight numeric,
    quantity numeric,
    primary key (exchange, fund, as_of, constituent),
    foreign key (exchange, fund) references instruments (exchange, symbol)
);

comment on table fund_constituents is 'T12: what a fund holds';
comment on column fund_constituents.exchange is 'venue of the fund';
comment on column fund_constituents.fund is 'symbol of the fund';
comment on column fund_constituents.as_of is 'day for which it holds';
comment on column fund_constituents.constituent is 'symbol of what is held';
comment on column fund_constituents.weight is 'per cent of the fund';
comment on column fund_constituents.quantity is 'amount held';

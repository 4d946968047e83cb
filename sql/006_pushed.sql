-- What producers push: flows (T9), predictions and portfolios (T7), positions and orders (T10).
--
-- The documents' serial ids are left out: they would say in which order rows were written, and
-- a replay would change them (invariant 5). The unique keys are the documents'.

create table supply_demand (
    date timestamptz not null,
    exchange text collate "C" not null,
    symbol text collate "C" not null,
    institution_amount numeric not null,
    foreign_amount numeric not null,
    individual_amount numeric not null,
    updated_at timestamptz not null,
    receive_time timestamptz not null,
    origin_partition integer not null,
    origin bigint not null
);
select create_hypertable('supply_demand', 'date',
    chunk_time_interval => interval '7 days', create_default_indexes => false);
create unique index supply_demand_key on supply_demand (exchange, symbol, date);
create index idx_supply_demand_date_symbol on supply_demand (date, symbol);

comment on table supply_demand is 'T9: net buying by kind of investor and day; later figures replace earlier ones';
comment on column supply_demand.date is 'start of the day the figures are of';
comment on column supply_demand.exchange is 'venue, upper case';
comment on column supply_demand.symbol is 'BASE-QUOTE';
comment on column supply_demand.institution_amount is 'net buying of institutions, in the quote currency; negative where they sold';
comment on column supply_demand.foreign_amount is 'net buying of foreigners';
comment on column supply_demand.individual_amount is 'net buying of individuals';
comment on column supply_demand.updated_at is 'when the figures were published';
comment on column supply_demand.receive_time is 'when the producer received it';
comment on column supply_demand.origin_partition is 'partition of the raw topic';
comment on column supply_demand.origin is 'offset in that partition';

create table predictions (
    "timestamp" timestamptz not null,
    exchange text collate "C" not null,
    symbol text collate "C" not null,
    model_id text collate "C" not null,
    prediction_type text collate "C" not null,
    predicted_value numeric not null,
    confidence numeric not null check (confidence between 0 and 1),
    receive_time timestamptz not null,
    origin_partition integer not null,
    origin bigint not null
);
select create_hypertable('predictions', 'timestamp',
    chunk_time_interval => interval '7 days', create_default_indexes => false);
create unique index predictions_key
    on predictions (model_id, exchange, symbol, prediction_type, "timestamp");
create index idx_predictions_model_symbol on predictions (model_id, symbol);
create index idx_predictions_timestamp on predictions ("timestamp" desc);

comment on table predictions is 'T7: what models predict; the first prediction of a model, type and moment stays';
comment on column predictions."timestamp" is 'when the prediction was made';
comment on column predictions.exchange is 'venue, upper case';
comment on column predictions.symbol is 'BASE-QUOTE';
comment on column predictions.model_id is 'the model and its version';
comment on column predictions.prediction_type is 'what is predicted: price, return, volatility';
comment on column predictions.predicted_value is 'the value predicted';
comment on column predictions.confidence is '0 to 1';
comment on column predictions.receive_time is 'when the producer received it';
comment on column predictions.origin_partition is 'partition of the raw topic';
comment on column predictions.origin is 'offset in that partition';

create table portfolio_status (
    "timestamp" timestamptz not null,
    user_id uuid not null,
    asset_type text collate "C" not null,
    position_size numeric not null,
    entry_price numeric not null,
    current_price numeric not null,
    pnl numeric not null,
    receive_time timestamptz not null,
    origin_partition integer not null,
    origin bigint not null
);
select create_hypertable('portfolio_status', 'timestamp',
    chunk_time_interval => interval '7 days', create_default_indexes => false);
create unique index portfolio_status_key on portfolio_status (user_id, asset_type, "timestamp");
create index idx_portfolio_user_timestamp on portfolio_status (user_id, "timestamp" desc);

comment on table portfolio_status is 'T7: holdings of users over time; what was said last of a moment counts';
comment on column portfolio_status."timestamp" is 'the moment';
comment on column portfolio_status.user_id is 'the user';
comment on column portfolio_status.asset_type is 'type of assets, upper case';
comment on column portfolio_status.position_size is 'size held; negative where short';
comment on column portfolio_status.entry_price is 'mean price paid';
comment on column portfolio_status.current_price is 'price at the moment';
comment on column portfolio_status.pnl is 'profit or loss not yet realised';
comment on column portfolio_status.receive_time is 'when the producer received it';
comment on column portfolio_status.origin_partition is 'partition of the raw topic';
comment on column portfolio_status.origin is 'offset in that partition';

create table current_positions (
    exchange text collate "C" not null,
    symbol text collate "C" not null,
    side text collate "C" not null check (side in ('long', 'short')),
    amount numeric not null check (amount >= 0),
    entry_price numeric not null,
    mark_price numeric,
    unrealized_pnl numeric,
    realized_pnl numeric,
    leverage numeric,
    margin_type text,
    liquidation_price numeric,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    receive_time timestamptz not null,
    origin_partition integer not null,
    origin bigint not null,
    primary key (exchange, symbol, side)
);
create index idx_positions_exchange_symbol on current_positions (exchange, symbol);

comment on table current_positions is 'T10: the newest state of each position; a closed one stays with amount 0, so that an older state cannot open it again';
comment on column current_positions.exchange is 'venue, upper case';
comment on column current_positions.symbol is 'BASE-QUOTE';
comment on column current_positions.side is 'long or short';
comment on column current_positions.amount is 'size held; 0: closed';
comment on column current_positions.entry_price is 'mean price of entry';
comment on column current_positions.mark_price is 'price it is valued at';
comment on column current_positions.unrealized_pnl is 'profit or loss at the mark price';
comment on column current_positions.realized_pnl is 'profit or loss realised since it was opened';
comment on column current_positions.leverage is 'leverage';
comment on column current_positions.margin_type is 'cross or isolated, where the venue says';
comment on column current_positions.liquidation_price is 'price of forced closing';
comment on column current_positions.created_at is 'when it was opened';
comment on column current_positions.updated_at is 'when the venue says it became so; older states change nothing';
comment on column current_positions.receive_time is 'when the producer received it';
comment on column current_positions.origin_partition is 'partition of the raw topic';
comment on column current_positions.origin is 'offset in that partition';

create table position_history (
    exchange text collate "C" not null,
    symbol text collate "C" not null,
    side text collate "C" not null check (side in ('long', 'short')),
    amount numeric not null,
    entry_price numeric not null,
    exit_price numeric,
    realized_pnl numeric,
    fees numeric,
    duration interval generated always as (closed_at - created_at) stored,
    created_at timestamptz not null,
    closed_at timestamptz not null,
    receive_time timestamptz not null,
    origin_partition integer not null,
    origin bigint not null,
    primary key (exchange, symbol, side, closed_at)
);
create index idx_position_history_symbol_time on position_history (symbol, created_at desc);

comment on table position_history is 'T10: positions that were closed, written in the transaction that closes them';
comment on column position_history.exchange is 'venue, upper case';
comment on column position_history.symbol is 'BASE-QUOTE';
comment on column position_history.side is 'long or short';
comment on column position_history.amount is 'size that was closed';
comment on column position_history.entry_price is 'mean price of entry';
comment on column position_history.exit_price is 'mean price of exit';
comment on column position_history.realized_pnl is 'profit or loss';
comment on column position_history.fees is 'fees paid over its life';
comment on column position_history.duration is 'how long it was open';
comment on column position_history.created_at is 'when it was opened';
comment on column position_history.closed_at is 'when it was closed';
comment on column position_history.receive_time is 'when the producer received it';
comment on column position_history.origin_partition is 'partition of the raw topic';
comment on column position_history.origin is 'offset in that partition';

create table orders (
    exchange text collate "C" not null,
    exchange_order_id text collate "C" not null,
    symbol text collate "C" not null,
    type text not null,
    side text not null check (side in ('buy', 'sell')),
    amount numeric not null,
    price numeric,
    status text collate "C" not null,
    filled_amount numeric not null,
    remaining_amount numeric,
    avg_fill_price numeric,
    fee numeric,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    receive_time timestamptz not null,
    origin_partition integer not null,
    origin bigint not null,
    primary key (exchange, exchange_order_id)
);
create index idx_orders_exchange_status on orders (exchange, status);
create index idx_orders_created_at on orders (created_at desc);

comment on table orders is 'T10: the newest state of each order';
comment on column orders.exchange is 'venue, upper case';
comment on column orders.exchange_order_id is 'the venue''s id of the order';
comment on column orders.symbol is 'BASE-QUOTE';
comment on column orders.type is 'market, limit, stop and what else the venue has';
comment on column orders.side is 'buy or sell';
comment on column orders.amount is 'amount ordered, in the base currency';
comment on column orders.price is 'limit, where it has one';
comment on column orders.status is 'new, open, partially_filled, filled, canceled, rejected or expired';
comment on column orders.filled_amount is 'amount filled';
comment on column orders.remaining_amount is 'amount left';
comment on column orders.avg_fill_price is 'mean price of the fills';
comment on column orders.fee is 'fee; negative where the venue pays';
comment on column orders.created_at is 'when it was placed';
comment on column orders.updated_at is 'when the venue says it became so; older states change nothing';
comment on column orders.receive_time is 'when the producer received it';
comment on column orders.origin_partition is 'partition of the raw topic';
comment on column orders.origin is 'offset in that partition';

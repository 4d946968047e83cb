//! Each venue's table of symbols, in the form of its documents.

use tapeline::venue::{Instrument, Market, Settings, SymbolTable, venue};
use tapeline_schemas::{Kind, Micros, OptionType};

use crate::rules::money;

/// A table of each venue that has its instruments in one answer.
pub(crate) const TABLES: [(&str, &str); 7] = [
    (
        "BINANCE",
        r#"{"symbols":[{"symbol":"BTCUSDT","status":"TRADING","baseAsset":"BTC","quoteAsset":"USDT","filters":[{"filterType":"PRICE_FILTER","minPrice":"0.01","tickSize":"0.01000000"},{"filterType":"LOT_SIZE","minQty":"0.00001000","stepSize":"0.00002000"},{"filterType":"MAX_NUM_ORDERS","maxNumOrders":200}]}]}"#,
    ),
    ("BITHUMB", r#"{"status":"0000","data":{"ETH":{"closing_price":"1"},"date":"1622591000780"}}"#),
    (
        "COINBASE",
        r#"[{"id":"BTC-USD","base_currency":"BTC","quote_currency":"USD","base_min_size":"0.001","quote_increment":"0.01","base_increment":"0.00000001","display_name":"BTC/USD","status":"online"}]"#,
    ),
    (
        "DERIBIT",
        r#"{"jsonrpc":"2.0","result":[
            {"kind":"option","instrument_name":"BTC-25DEC26-100000-C","base_currency":"BTC","quote_currency":"BTC","tick_size":0.0005,"min_trade_amount":0.1,"contract_size":1.0,"is_active":true,"creation_timestamp":1606129458000,"expiration_timestamp":1798185600000,"option_type":"call","strike":100000.0},
            {"kind":"option","instrument_name":"XRP_USDC-5DEC26-0d48-P","base_currency":"XRP","quote_currency":"USDC","tick_size":0.0005},
            {"kind":"future","instrument_name":"BTC-PERPETUAL","base_currency":"BTC","quote_currency":"USD","expiration_timestamp":32503708800000},
            {"kind":"future","instrument_name":"UNI_USDC-PERPETUAL","base_currency":"UNI","quote_currency":"USDC"},
            {"kind":"future","instrument_name":"BTC-25DEC26","base_currency":"BTC","quote_currency":"USD"},
            {"kind":"spot","instrument_name":"BTC_USDC","base_currency":"BTC","quote_currency":"USDC"},
            {"kind":"option_combo","instrument_name":"BTC-CS-25DEC26-1_2","base_currency":"BTC","quote_currency":"BTC"}]}"#,
    ),
    (
        "KRAKEN",
        r#"{"error":[],"result":{"XXBTZUSD":{"altname":"XBTUSD","wsname":"XBT/USD","pair_decimals":1,"lot_decimals":8,"ordermin":"0.0001"},"XXBTZUSD.d":{"altname":"XBTUSD.d"}}}"#,
    ),
    (
        "OKX",
        r#"{"code":"0","data":[
            {"instId":"BTC-USDT","instType":"SPOT","tickSz":"0.1","lotSz":"0.00000001","minSz":"0.00001","listTime":"1548133413000","expTime":"","ctVal":"","settleCcy":"","state":"live"},
            {"instId":"UNI-USD-SWAP","instType":"SWAP","tickSz":"0.001","ctVal":"10","settleCcy":"UNI","state":"live"},
            {"instId":"BTC-USD-220603","instType":"FUTURES","expTime":"1654243200000"},
            {"instId":"BTC-USD-220527-22000-C","instType":"OPTION","expTime":"1653638400000"},
            {"instId":"BTC-USD-229927-22000-C","instType":"OPTION"}]}"#,
    ),
    ("UPBIT", r#"[{"market":"KRW-BTC","korean_name":"비트코인","english_name":"Bitcoin"}]"#),
];

fn table(name: &str) -> SymbolTable {
    let connector = (venue(name).unwrap().connector)(Settings::new(vec![], vec![]));
    let body = TABLES.iter().find(|(venue, _)| *venue == name).unwrap().1;
    let mut table = SymbolTable::new();
    let request = connector.symbols_requests().remove(0);
    connector.decode_symbols(&request, body.as_bytes(), &mut table).unwrap();
    table
}

fn find(name: &'static str, symbol: &str) -> Instrument {
    table(name).find(name, symbol).unwrap().clone()
}

#[test]
fn every_venue_lists_its_instruments_under_our_names_with_steps_and_sizes() {
    for (venue, symbol, code) in [
        ("BINANCE", "BTC-USDT", "BTCUSDT"),
        ("BITHUMB", "ETH-BTC", "ETH_BTC"),
        ("COINBASE", "BTC-USD", "BTC-USD"),
        ("DERIBIT", "BTC-25DEC26-100000-C", "BTC-25DEC26-100000-C"),
        ("DERIBIT", "XRP-USDC-5DEC26-0.48-P", "XRP_USDC-5DEC26-0d48-P"),
        ("DERIBIT", "BTC-USD-PERP", "BTC-PERPETUAL"),
        ("DERIBIT", "UNI-USDC-PERP", "UNI_USDC-PERPETUAL"),
        ("DERIBIT", "BTC-USD-25DEC26", "BTC-25DEC26"),
        ("DERIBIT", "BTC-USDC", "BTC_USDC"),
        ("KRAKEN", "BTC-USD", "XBT/USD"),
        ("OKX", "BTC-USDT", "BTC-USDT"),
        ("OKX", "UNI-USD-PERP", "UNI-USD-SWAP"),
        ("OKX", "BTC-USD-3JUN22", "BTC-USD-220603"),
        ("OKX", "BTC-27MAY22-22000-C", "BTC-USD-220527-22000-C"),
        ("UPBIT", "BTC-KRW", "KRW-BTC"),
    ] {
        let found = find(venue, symbol);
        assert_eq!(found.code, code, "{venue} {symbol}");
        assert_eq!(found.market, Market::of_symbol(symbol), "{venue} {symbol}");
        assert_eq!(table(venue).symbol(code), Some(symbol));
    }
    assert_eq!((table("DERIBIT").len(), table("KRAKEN").len(), table("OKX").len()), (6, 1, 4));
    let sizes = |of: &Instrument| [of.tick_size, of.lot_size, of.min_size];
    for (venue, symbol, expected) in [
        ("BINANCE", "BTC-USDT", ["0.01", "0.00002", "0.00001"]),
        ("COINBASE", "BTC-USD", ["0.01", "0.00000001", "0.001"]),
        ("DERIBIT", "BTC-25DEC26-100000-C", ["0.0005", "0.1", "0.1"]),
        ("KRAKEN", "BTC-USD", ["0.1", "0.00000001", "0.0001"]),
        ("OKX", "BTC-USDT", ["0.1", "0.00000001", "0.00001"]),
    ] {
        assert_eq!(sizes(&find(venue, symbol)), expected.map(|text| Some(money(text))), "{venue}");
    }
    assert_eq!(find("UPBIT", "BTC-KRW").name.as_deref(), Some("Bitcoin"));
}

#[test]
fn an_option_brings_its_terms_and_a_perpetual_never_ends() {
    let option = find("DERIBIT", "btc-25dec26-100000-c");
    let terms = option.option.unwrap();
    assert_eq!((terms.underlying.as_str(), terms.strike), ("BTC", money("100000")));
    assert_eq!(terms.option_type, OptionType::Call);
    assert_eq!(option.expiry, Some(Micros(1_798_185_600_000_000)));
    assert_eq!(option.listed, Some(Micros(1_606_129_458_000_000)));
    let linear = find("DERIBIT", "XRP-USDC-5DEC26-0.48-P").option.unwrap();
    assert_eq!((linear.underlying.as_str(), linear.strike), ("XRP-USDC", money("0.48")));
    assert_eq!(find("DERIBIT", "BTC-USD-PERP").expiry, None);
    let swap = find("OKX", "UNI-USD-PERP");
    assert_eq!((swap.settlement.as_deref(), swap.contract_size), (Some("UNI"), Some(money("10"))));
    assert_eq!(find("OKX", "BTC-USD-3JUN22").expiry, Some(Micros(1_654_243_200_000_000)));
}

#[test]
fn a_symbol_that_a_venue_does_not_list_is_answered_with_near_matches() {
    for (name, wrong, near) in [
        ("BINANCE", "BTC-USD", "BTC-USDT"),
        ("BITHUMB", "BTC-ETH", "ETH-BTC"),
        ("COINBASE", "BTC-USDD", "BTC-USD"),
        ("DERIBIT", "BTC-25DEC26-100000-P", "BTC-25DEC26-100000-C"),
        ("KRAKEN", "XBT/USD", "BTC-USD"),
        ("OKX", "UNI-USD-SWAP", "UNI-USD-PERP"),
        ("UPBIT", "KRW-BTC", "BTC-KRW"),
    ] {
        let settings = Settings::new(vec![wrong.to_owned()], vec![Kind::Trade]);
        let mut connector = (venue(name).unwrap().connector)(settings);
        let error = connector.configure(&table(name)).unwrap_err();
        assert_eq!(error.near.first().map(String::as_str), Some(near), "{error}");
        assert!(error.to_string().contains(wrong), "{error}");
    }
}

#[test]
fn only_the_tables_that_the_symbols_need_are_asked_for() {
    let requests = |name: &str, symbols: &[&str]| {
        let symbols = symbols.iter().map(|s| (*s).to_owned()).collect();
        (venue(name).unwrap().connector)(Settings::new(symbols, vec![])).symbols_requests()
    };
    let okx = "/api/v5/public/instruments?instType=";
    assert_eq!(
        requests("OKX", &["BTC-USDT", "eth-usdt", "UNI-USD-PERP", "SOL-27MAY22-50-C"]),
        ["OPTION&uly=SOL-USD", "SPOT", "SWAP"].map(|table| format!("{okx}{table}"))
    );
    let deribit = |currency: &str| {
        format!("/api/v2/public/get_instruments?currency={currency}&expired=false")
    };
    assert_eq!(
        requests("DERIBIT", &["ETH-25DEC26-4000-P", "BTC-USD-PERP", "XRP-USDC-5DEC26-0.48-P"]),
        ["BTC", "ETH", "USDC"].map(deribit)
    );
    assert_eq!(requests("DERIBIT", &[]).len(), 4);
    assert_eq!(requests("DERIBIT", &["BTX-25DEC26-1-C"]), [deribit("BTC")]);
}

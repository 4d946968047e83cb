//! A venue's table of symbols, by REST.

use tracing::warn;

use super::rest::{Answer, Rest};
use super::{DriverError, backoff};
use crate::venue::{Connector, SymbolTable};

/// How many failures of one request in a row, of the kind that may pass, are waited for; none: all.
pub(super) type Patience = Option<u32>;

/// For who can do without.
pub(super) const IMPATIENT: Patience = Some(8);

/// Gets every part of the table; with it the requests and their answers.
pub(super) async fn fetch(
    connector: &mut dyn Connector,
    rest: &Rest,
    patience: Patience,
) -> Result<(SymbolTable, Vec<(String, Answer)>), DriverError> {
    let (mut table, mut answers) = (SymbolTable::new(), Vec::new());
    for request in connector.symbols_requests() {
        let answer = part(connector, rest, patience, &request, &mut table).await?;
        answers.push((request, answer));
    }
    Ok((table, answers))
}

/// Gets the parts that the venue gives; an error only where it gives none.
pub(super) async fn fetch_what_there_is(
    connector: &mut dyn Connector,
    rest: &Rest,
    patience: Patience,
) -> Result<SymbolTable, DriverError> {
    let mut table = SymbolTable::new();
    let mut failed = None;
    for request in connector.symbols_requests() {
        if let Err(error) = part(connector, rest, patience, &request, &mut table).await {
            warn!(venue = connector.venue(), request, %error, "a part of the symbols is left out");
            failed.get_or_insert(error);
        }
    }
    match failed {
        Some(error) if table.is_empty() => Err(error),
        _ => Ok(table),
    }
}

async fn part(
    connector: &mut dyn Connector,
    rest: &Rest,
    patience: Patience,
    request: &str,
    table: &mut SymbolTable,
) -> Result<Answer, DriverError> {
    let venue = connector.venue();
    let answer = get(venue, rest, patience, request, connector.weight(request)).await?;
    connector
        .decode_symbols(request, &answer.body, table)
        .map_err(|source| DriverError::SymbolTable { venue, source })?;
    Ok(answer)
}

async fn get(
    venue: &'static str,
    rest: &Rest,
    patience: Patience,
    request: &str,
    weight: u32,
) -> Result<Answer, DriverError> {
    let mut failures = 0_u32;
    loop {
        match rest.get(request, weight).await {
            Ok(answer) => return Ok(answer),
            Err(error) if error.transient() && patience.is_none_or(|most| failures < most) => {
                failures += 1;
                warn!(venue, %error, "cannot get the symbols, trying again");
                tokio::time::sleep(backoff::wait(failures)).await;
            }
            Err(source) => return Err(DriverError::Symbols { venue, source }),
        }
    }
}

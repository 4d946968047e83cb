//! A venue's table of symbols, by REST.

use tracing::warn;

use super::rest::Rest;
use super::{DriverError, backoff};
use crate::venue::{Connector, SymbolTable};

/// Gets every part of the table, each for as long as its failure may pass.
pub(super) async fn fetch(
    connector: &mut dyn Connector,
    rest: &Rest,
) -> Result<SymbolTable, DriverError> {
    let mut table = SymbolTable::new();
    for request in connector.symbols_requests() {
        let body = get(connector.venue(), rest, &request).await?;
        connector
            .decode_symbols(&request, &body, &mut table)
            .map_err(|source| DriverError::SymbolTable { venue: connector.venue(), source })?;
    }
    Ok(table)
}

async fn get(venue: &'static str, rest: &Rest, request: &str) -> Result<Vec<u8>, DriverError> {
    let mut failures = 0;
    loop {
        match rest.get(request).await {
            Ok(answer) => return Ok(answer.body),
            Err(error) if error.transient() => {
                failures += 1;
                warn!(venue, %error, "cannot get the symbols, trying again");
                tokio::time::sleep(backoff::wait(failures)).await;
            }
            Err(source) => return Err(DriverError::Symbols { venue, source }),
        }
    }
}
